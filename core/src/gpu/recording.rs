//! Work as data: a list of dispatches that the device runs later.

use blockpruner_shaders::Kernel;
use bytemuck::Pod;

/// What a binding is bound to. Cloning shares the underlying object.
#[derive(Clone, Debug)]
pub enum Resource {
    /// A whole storage buffer.
    Buffer(wgpu::Buffer),
    /// A storage texture.
    Texture(wgpu::TextureView),
}

impl From<&wgpu::Buffer> for Resource {
    fn from(buffer: &wgpu::Buffer) -> Self {
        Self::Buffer(buffer.clone())
    }
}

impl From<&wgpu::TextureView> for Resource {
    fn from(view: &wgpu::TextureView) -> Self {
        Self::Texture(view.clone())
    }
}

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
}

impl Command {
    pub(super) fn flops(&self) -> u64 {
        match self {
            Command::Dispatch { flops, .. } => *flops,
            // A copy moves memory: as slow as about one operation a byte.
            Command::Copy { bytes, .. } => *bytes,
        }
    }
}

/// A list of dispatches in order.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub(super) commands: Vec<Command>,
}

impl Recording {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a kernel. `flops` is about the arithmetic that it does; an empty grid is left out.
    pub fn dispatch<P: Pod, const N: usize>(
        &mut self,
        kernel: Kernel,
        params: &P,
        bindings: [Resource; N],
        grid: [u32; 3],
        flops: u64,
    ) {
        if grid.contains(&0) {
            return;
        }
        let params = bytemuck::bytes_of(params).to_vec();
        self.commands.push(Command::Dispatch { kernel, params, bindings: bindings.into(), grid, flops });
    }

    /// Appends a copy of the first `bytes` of a buffer to `offset` bytes into another; both multiples of 4.
    pub fn copy(&mut self, source: &wgpu::Buffer, target: &wgpu::Buffer, offset: u64, bytes: u64) {
        self.commands.push(Command::Copy { source: source.clone(), target: target.clone(), offset, bytes });
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}
