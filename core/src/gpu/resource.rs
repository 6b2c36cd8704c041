//! Storage that shaders read and write: buffers, and for the panel kernels textures, because software drivers read buffers
//! lane by lane, but whole vectors of texels.

use blockpruner_shaders::{TEXTURE_WIDTH, stride};

use super::{Gpu, GpuError, Recording};

/// What a binding is bound to. Cloning shares the underlying object.
#[derive(Clone, Debug)]
pub enum Resource {
    /// A whole storage buffer.
    Buffer(wgpu::Buffer),
    /// A storage texture of [`Gpu::texture`].
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

impl From<&Resource> for Resource {
    fn from(resource: &Resource) -> Self {
        resource.clone()
    }
}

impl Gpu {
    /// Storage of `bytes` bytes, or up to 15 more, that the kernels in use read fast: a texture of f32 for the panel
    /// kernels, a buffer for the others.
    #[doc(hidden)]
    pub fn readable(&self, label: &str, bytes: u64) -> Result<Resource, GpuError> {
        Ok(match self.gemm().is_panel() {
            true => Resource::Texture(self.texture(label, bytes.div_ceil(16), false)?),
            false => Resource::Buffer(self.storage(label, bytes)?),
        })
    }

    /// [`Gpu::readable`] with contents.
    #[doc(hidden)]
    pub fn upload_readable(&self, label: &str, values: &[f32]) -> Result<Resource, GpuError> {
        let resource = self.readable(label, values.len() as u64 * 4)?;
        self.write(&resource, bytemuck::cast_slice(values))?;
        Ok(resource)
    }

    /// Bytes that storage of `bytes` bytes for the kernels in use really takes: large textures have whole rows.
    pub(crate) fn readable_bytes(&self, bytes: u64) -> u64 {
        let row = TEXTURE_WIDTH as u64 * 16;
        match self.gemm().is_panel() && bytes > row {
            true => bytes.next_multiple_of(row),
            false => bytes,
        }
    }
}

/// Rows of the residual stream that a block reads and adds to. The panel kernels read them from a copy, and add to that.
pub struct Residual<'a> {
    states: &'a wgpu::Buffer,
    first_row: u32,
    copy: Option<&'a wgpu::TextureView>,
}

impl<'a> Residual<'a> {
    /// Bytes of a copy of `rows` rows of `columns` elements; 0 where the kernels in use need none.
    pub fn copy_bytes(gpu: &Gpu, rows: u32, columns: u32) -> u64 {
        if gpu.gemm().is_panel() { rows as u64 * stride(columns) as u64 * 4 } else { 0 }
    }

    /// Room for [`Residual::copy_bytes`].
    ///
    /// # Errors
    /// What the device has no room for.
    pub fn copy(gpu: &Gpu, rows: u32, columns: u32) -> Result<Option<wgpu::TextureView>, GpuError> {
        match Self::copy_bytes(gpu, rows, columns) {
            0 => Ok(None),
            bytes => gpu.texture("rows of the residual stream", bytes / 16, false).map(Some),
        }
    }

    /// Rows `first_row .. first_row + rows` of `states [.., stride(columns)]`. `copy` is a [`Residual::copy`] for as many
    /// rows or more; appends what fills it.
    pub fn new(
        recording: &mut Recording,
        states: &'a wgpu::Buffer,
        first_row: u32,
        (rows, columns): (u32, u32),
        copy: Option<&'a wgpu::TextureView>,
    ) -> Self {
        if let Some(copy) = copy {
            let row = stride(columns) as u64 * 4;
            recording.load(states, first_row as u64 * row, copy, rows as u64 * row);
        }
        Self { states, first_row, copy }
    }

    /// What shaders read the rows from, and where the first one is there.
    pub fn input(&self) -> (Resource, u32) {
        match self.copy {
            Some(copy) => (copy.into(), 0),
            None => (self.states.into(), self.first_row),
        }
    }

    /// Appends what brings the first `rows` rows back from `sums`, where the kernels in use have added to a copy of them.
    pub(super) fn record_store(&self, recording: &mut Recording, sums: &Resource, rows: u32, columns: u32) {
        if let Resource::Texture(sums) = sums {
            let row = stride(columns) as u64 * 4;
            recording.store(sums, self.states, self.first_row as u64 * row, rows as u64 * row);
        }
    }
}
