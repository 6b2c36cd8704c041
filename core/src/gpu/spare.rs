//! Storage of weights that is used again: where weights come and go, fresh memory for each would cost more than what is
//! written to it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::{Gpu, GpuError, Resource};

/// What storage is asked for, and found again by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Of its contents.
    pub bytes: u64,
    /// None for a buffer; else whether the texture holds u32.
    pub texture: Option<bool>,
}

impl Shape {
    pub(super) fn create(self, gpu: &Gpu, label: &str) -> Result<Resource, GpuError> {
        Ok(match self.texture {
            None => Resource::Buffer(gpu.storage(label, self.bytes)?),
            Some(words) => Resource::Texture(gpu.texture(label, self.bytes / 16, words)?),
        })
    }
}

/// Storage that nobody uses at the moment, as much as fits a budget beside what is in use.
#[derive(Debug)]
pub(crate) struct Spare {
    budget: u64,
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    in_use: u64,
    /// The longest unused first.
    unused: VecDeque<(Shape, Resource)>,
}

/// Storage in use. When the last of its owners is gone, it is spare: work that was submitted may still read it, and what is
/// written to it afterwards is written after that work. So a recording that is still to be submitted is an owner.
#[derive(Debug)]
pub(super) struct Lease {
    shape: Shape,
    storage: Resource,
    spare: Rc<Spare>,
}

impl Spare {
    /// Room for `budget` bytes in use and unused.
    pub(crate) fn new(budget: u64) -> Rc<Self> {
        Rc::new(Self { budget, inner: RefCell::default() })
    }

    /// Storage of a shape, unused or new. What it holds is not said.
    pub(super) fn lease(self: &Rc<Self>, gpu: &Gpu, label: &str, shape: Shape) -> Result<Rc<Lease>, GpuError> {
        let found = self.inner.borrow_mut().take(shape, self.budget);
        let storage = match found {
            Some(storage) => storage,
            None => shape.create(gpu, label)?,
        };
        self.inner.borrow_mut().in_use += shape.bytes;
        Ok(Rc::new(Lease { shape, storage, spare: self.clone() }))
    }
}

impl Inner {
    /// Unused storage of this shape; where there is none, makes room for new.
    fn take(&mut self, shape: Shape, budget: u64) -> Option<Resource> {
        if let Some(at) = self.unused.iter().position(|(unused, _)| *unused == shape) {
            return self.unused.remove(at).map(|(_, storage)| storage);
        }
        let mut unused: u64 = self.unused.iter().map(|(shape, _)| shape.bytes).sum();
        while self.in_use + unused + shape.bytes > budget
            && let Some((oldest, _)) = self.unused.pop_front()
        {
            unused -= oldest.bytes;
        }
        None
    }
}

impl Lease {
    pub(super) fn storage(&self) -> &Resource {
        &self.storage
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut inner = self.spare.inner.borrow_mut();
        inner.in_use -= self.shape.bytes;
        inner.unused.push_back((self.shape, self.storage.clone()));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use pollster::block_on;

    use super::super::{GpuOptions, Recording};
    use super::*;

    fn shape(bytes: u64) -> Shape {
        Shape { bytes, texture: None }
    }

    fn buffer(lease: &Lease) -> wgpu::Buffer {
        match lease.storage() {
            Resource::Buffer(buffer) => buffer.clone(),
            Resource::Texture(_) => panic!("a texture"),
        }
    }

    #[test]
    fn storage_is_used_again_when_nobody_else_has_it() {
        let gpu = block_on(Gpu::open(&GpuOptions::default())).unwrap();
        let spare = Spare::new(1000);
        let first = spare.lease(&gpu, "a", shape(400)).unwrap();
        let second = spare.lease(&gpu, "b", shape(400)).unwrap();
        assert_ne!(buffer(&first), buffer(&second));
        let storage = buffer(&first);
        let mut recording = Recording::new();
        recording.hold(&first);
        drop(first);
        let third = spare.lease(&gpu, "c", shape(400)).unwrap();
        assert_ne!(buffer(&third), storage, "a recording still reads it");
        drop(recording);
        let texture = Shape { bytes: 400, texture: Some(true) };
        assert!(matches!(spare.lease(&gpu, "d", texture).unwrap().storage(), Resource::Texture(_)));
        drop(third);
        // 800 bytes are in use and unused: what was unused goes first, though another use would have liked it.
        let large = spare.lease(&gpu, "e", shape(600)).unwrap();
        assert_eq!(spare.inner.borrow().unused.len(), 0);
        assert_eq!(spare.inner.borrow().in_use, 1000);
        drop((second, large));
        let again = spare.lease(&gpu, "f", shape(600)).unwrap();
        assert_eq!((spare.inner.borrow().unused.len(), spare.inner.borrow().in_use), (1, 600));
        drop(again);
    }
}
