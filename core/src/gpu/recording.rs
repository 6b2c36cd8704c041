//! Work as data: a list of dispatches that the device runs later.

use std::rc::Rc;

use blockpruner_shaders::Kernel;
use bytemuck::Pod;

use super::Resource;
use super::spare::Lease;

/// One kernel to run, or a copy.
#[derive(Clone, Debug)]
pub(super) enum Command {
    Dispatch {
        kernel: Kernel,
        /// The uniform block's bytes.
        params: Vec<u8>,
        /// Bindings 1, 2, ..
        bindings: Vec<Resource>,
        grid: [u32; 3],
        /// Arithmetic, about: bounds the time of a submit.
        flops: u64,
    },
    Copy {
        source: wgpu::Buffer,
        target: wgpu::Buffer,
        /// Where in the target, in bytes.
        offset: u64,
        bytes: u64,
    },
    /// From an offset of a buffer to the start of a texture.
    Load { source: wgpu::Buffer, offset: u64, target: wgpu::TextureView, bytes: u64 },
    /// From the start of a texture to an offset of a buffer.
    Store { source: wgpu::TextureView, target: wgpu::Buffer, offset: u64, bytes: u64 },
}

impl Command {
    pub(super) fn flops(&self) -> u64 {
        match self {
            Command::Dispatch { flops, .. } => *flops,
            // A copy moves memory: as slow as about one operation a byte.
            Command::Copy { bytes, .. } | Command::Load { bytes, .. } | Command::Store { bytes, .. } => *bytes,
        }
    }
}

/// A list of dispatches in order.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub(super) commands: Vec<Command>,
    /// What each command is a part of.
    stages: Vec<&'static str>,
    stage: &'static str,
    /// Storage that must not be used again before the commands are submitted.
    held: Vec<Rc<Lease>>,
}

impl Recording {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is appended from here on is a part of this, as whoever measures calls it.
    pub fn stage(&mut self, stage: &'static str) {
        self.stage = stage;
    }

    fn push(&mut self, command: Command) {
        self.commands.push(command);
        self.stages.push(self.stage);
    }

    /// Appends a kernel. `flops` is about the arithmetic that it does; an empty grid is left out.
    pub fn dispatch<P: Pod>(
        &mut self,
        kernel: Kernel,
        params: &P,
        bindings: impl Into<Vec<Resource>>,
        grid: [u32; 3],
        flops: u64,
    ) {
        if grid.contains(&0) {
            return;
        }
        let params = bytemuck::bytes_of(params).to_vec();
        self.push(Command::Dispatch { kernel, params, bindings: bindings.into(), grid, flops });
    }

    /// Appends a copy of the first `bytes` of a buffer to `offset` bytes into another; both multiples of 4.
    pub fn copy(&mut self, source: &wgpu::Buffer, target: &wgpu::Buffer, offset: u64, bytes: u64) {
        self.push(Command::Copy { source: source.clone(), target: target.clone(), offset, bytes });
    }

    /// Appends a copy of `bytes` bytes from `offset` on to the start of a texture of [`super::Gpu::texture`]; both
    /// multiples of 16.
    pub fn load(&mut self, source: &wgpu::Buffer, offset: u64, target: &wgpu::TextureView, bytes: u64) {
        self.push(Command::Load { source: source.clone(), offset, target: target.clone(), bytes });
    }

    /// Appends a copy of the first `bytes` bytes of a texture of [`super::Gpu::texture`] to `offset` bytes into a buffer;
    /// both multiples of 16.
    pub fn store(&mut self, source: &wgpu::TextureView, target: &wgpu::Buffer, offset: u64, bytes: u64) {
        self.push(Command::Store { source: source.clone(), target: target.clone(), offset, bytes });
    }

    /// Keeps storage that commands use from being used again, as long as there is this recording.
    pub(super) fn hold(&mut self, lease: &Rc<Lease>) {
        if self.held.last().is_none_or(|last| !Rc::ptr_eq(last, lease)) {
            self.held.push(lease.clone());
        }
    }

    /// Appends everything that another recording holds.
    pub fn append(&mut self, other: &Self) {
        self.held.extend(other.held.iter().cloned());
        self.commands.extend(other.commands.iter().cloned());
        self.stages.extend(&other.stages);
    }

    /// Dispatches and copies.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// The same in parts, in the order in which their stages begin, with the stages' names.
    pub(crate) fn by_stage(&self) -> Vec<(&'static str, Self)> {
        let mut parts: Vec<(&'static str, Self)> = Vec::new();
        for (stage, command) in self.stages.iter().zip(&self.commands) {
            let index = parts.iter().position(|(name, _)| name == stage).unwrap_or_else(|| {
                let part = Self { stage, held: self.held.clone(), ..Self::default() };
                parts.push((stage, part));
                parts.len() - 1
            });
            parts[index].1.push(command.clone());
        }
        parts
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}
