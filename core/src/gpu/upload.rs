//! Copies from the host into device memory, and the pieces of a copy between a texture and a buffer.

use blockpruner_shaders::TEXTURE_WIDTH;

use super::{Gpu, GpuError, Resource};

/// Staging memory that is filled before it is submitted.
const CHUNK: usize = 16 << 20;
/// Bytes of a row of a weight's texture.
const ROW: usize = TEXTURE_WIDTH as usize * 16;

/// Where a piece goes.
enum Target<'a> {
    /// At this offset in bytes.
    Buffer(&'a wgpu::Buffer, u64),
    /// Rows from this one on, or the start of it.
    Texture(&'a wgpu::Texture, u32),
}

impl Gpu {
    /// Overwrites the start of a buffer, or of a texture by whole texels of 16 bytes: zeros follow where the last is a part.
    pub fn write(&self, target: &Resource, bytes: &[u8]) -> Result<(), GpuError> {
        match target {
            Resource::Buffer(buffer) => self.write_buffer(buffer, bytes),
            Resource::Texture(view) => self.write_texture(view.texture(), bytes),
        }
    }

    fn write_buffer(&self, buffer: &wgpu::Buffer, bytes: &[u8]) -> Result<(), GpuError> {
        let (whole, rest) = bytes.split_at(bytes.len() / 4 * 4);
        let mut offset = 0;
        for piece in whole.chunks(CHUNK) {
            self.copy(piece, Target::Buffer(buffer, offset))?;
            offset += piece.len() as u64;
        }
        if !rest.is_empty() {
            let mut word = [0; 4];
            word[..rest.len()].copy_from_slice(rest);
            self.copy(&word, Target::Buffer(buffer, offset))?;
        }
        Ok(())
    }

    /// Writes texels in rows, whole rows first; the last row may be a part.
    fn write_texture(&self, texture: &wgpu::Texture, bytes: &[u8]) -> Result<(), GpuError> {
        if !bytes.len().is_multiple_of(16) {
            let mut texels = bytes.to_vec();
            texels.resize(bytes.len().next_multiple_of(16), 0);
            return self.write_texture(texture, &texels);
        }
        let (whole, rest) = bytes.split_at(bytes.len() / ROW * ROW);
        let mut row = 0;
        for piece in whole.chunks(CHUNK / ROW * ROW).chain((!rest.is_empty()).then_some(rest)) {
            self.copy(piece, Target::Texture(texture, row))?;
            row += (piece.len() / ROW) as u32;
        }
        Ok(())
    }

    fn copy(&self, piece: &[u8], target: Target<'_>) -> Result<(), GpuError> {
        if self.staging.borrow().pending + piece.len() > CHUNK {
            self.flush_uploads()?;
        }
        self.staging.borrow_mut().copy(piece, target).map_err(|error| self.lost(&error.to_string()))?;
        self.check()
    }

    /// Puts what was written on its way; work that is submitted afterwards finds it. Waits for the flush before, so that
    /// reading goes on while the device copies, but not far ahead of it.
    pub(super) fn flush_uploads(&self) -> Result<(), GpuError> {
        let _before = self.staging.borrow_mut().flush();
        #[cfg(not(target_arch = "wasm32"))]
        if _before.is_some() {
            self.poll(wgpu::PollType::Wait { submission_index: _before, timeout: None })?;
        }
        self.check()
    }
}

/// The pieces of a copy between the first `bytes` bytes of a texture and a buffer from `offset` on.
pub(super) fn pieces<'a>(
    view: &'a wgpu::TextureView,
    buffer: &'a wgpu::Buffer,
    offset: u64,
    bytes: u64,
) -> impl Iterator<Item = (wgpu::TexelCopyTextureInfo<'a>, wgpu::TexelCopyBufferInfo<'a>, wgpu::Extent3d)> {
    let whole = bytes as usize / ROW * ROW;
    let parts = [(0, whole), (whole, bytes as usize - whole)].into_iter().filter(|(_, bytes)| *bytes > 0);
    parts.map(move |(start, bytes)| {
        let (texels, bytes_per_row, extent) = rows(view.texture(), (start / ROW) as u32, bytes);
        let layout = layout(offset + start as u64, bytes_per_row, extent);
        (texels, wgpu::TexelCopyBufferInfo { buffer, layout }, extent)
    })
}

fn layout(offset: u64, bytes_per_row: u32, extent: wgpu::Extent3d) -> wgpu::TexelCopyBufferLayout {
    // One row needs no pitch, and a part of one would break the rule that it is a multiple of 256.
    let bytes_per_row = (extent.height > 1).then_some(bytes_per_row);
    wgpu::TexelCopyBufferLayout { offset, bytes_per_row, rows_per_image: None }
}

fn rows(texture: &wgpu::Texture, row: u32, bytes: usize) -> (wgpu::TexelCopyTextureInfo<'_>, u32, wgpu::Extent3d) {
    let to = wgpu::TexelCopyTextureInfo {
        texture,
        mip_level: 0,
        origin: wgpu::Origin3d { x: 0, y: row, z: 0 },
        aspect: wgpu::TextureAspect::All,
    };
    let width = bytes.min(ROW) as u32;
    let height = (bytes / ROW).max(1) as u32;
    (to, width, wgpu::Extent3d { width: width / 16, height, depth_or_array_layers: 1 })
}

/// Two chunks that live as long as the device: one is filled while the device copies from the other. Staging memory that
/// is made for a copy, as `Queue::write_buffer` does, comes to lie between the weights where host and device share their
/// memory, and leaves holes: weights then take up to twice their size.
#[cfg(not(target_arch = "wasm32"))]
pub(super) struct Staging {
    device: wgpu::Device,
    queue: wgpu::Queue,
    belt: wgpu::util::StagingBelt,
    encoder: Option<wgpu::CommandEncoder>,
    pending: usize,
    last: Option<wgpu::SubmissionIndex>,
}

#[cfg(not(target_arch = "wasm32"))]
impl Staging {
    pub(super) fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let belt = wgpu::util::StagingBelt::new(device.clone(), CHUNK as u64);
        Self { device: device.clone(), queue: queue.clone(), belt, encoder: None, pending: 0, last: None }
    }

    fn copy(&mut self, piece: &[u8], target: Target<'_>) -> Result<(), wgpu::MapRangeError> {
        /// A texel; copies into textures want their source aligned to it.
        const ALIGNMENT: wgpu::BufferSize = wgpu::BufferSize::new(16).expect("16 is not zero");
        let Some(size) = wgpu::BufferSize::new(piece.len() as u64) else { return Ok(()) };
        let staged = self.belt.allocate(size, ALIGNMENT);
        staged.get_mapped_range_mut()?.copy_from_slice(piece);
        let encoder = self.encoder.get_or_insert_with(|| {
            self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("uploads") })
        });
        match target {
            Target::Buffer(buffer, offset) => {
                encoder.copy_buffer_to_buffer(staged.buffer(), staged.offset(), buffer, offset, Some(size.get()));
            }
            Target::Texture(texture, row) => {
                let (to, bytes_per_row, extent) = rows(texture, row, piece.len());
                let layout = layout(staged.offset(), bytes_per_row, extent);
                let from = wgpu::TexelCopyBufferInfo { buffer: staged.buffer(), layout };
                encoder.copy_buffer_to_texture(from, to, extent);
            }
        }
        self.pending += piece.len().next_multiple_of(ALIGNMENT.get() as usize);
        Ok(())
    }

    /// The flush before, if there was one and there is something to flush.
    fn flush(&mut self) -> Option<wgpu::SubmissionIndex> {
        let encoder = self.encoder.take()?;
        self.pending = 0;
        self.belt.finish();
        let index = self.queue.submit([encoder.finish()]);
        self.belt.recall();
        self.last.replace(index)
    }
}

/// The browser has staging memory of its own, and cannot be waited for here.
#[cfg(target_arch = "wasm32")]
pub(super) struct Staging {
    queue: wgpu::Queue,
    pending: usize,
}

#[cfg(target_arch = "wasm32")]
impl Staging {
    pub(super) fn new(_: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        Self { queue: queue.clone(), pending: 0 }
    }

    fn copy(&mut self, piece: &[u8], target: Target<'_>) -> Result<(), wgpu::MapRangeError> {
        match target {
            Target::Buffer(buffer, offset) => self.queue.write_buffer(buffer, offset, piece),
            Target::Texture(texture, row) => {
                let (to, bytes_per_row, extent) = rows(texture, row, piece.len());
                let layout =
                    wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(bytes_per_row), rows_per_image: None };
                self.queue.write_texture(to, piece, layout, extent);
            }
        }
        self.pending += piece.len();
        Ok(())
    }

    /// Its staging memory grows until a submit.
    fn flush(&mut self) -> Option<wgpu::SubmissionIndex> {
        if std::mem::take(&mut self.pending) > 0 {
            self.queue.submit([]);
        }
        None
    }
}
