//! Copies from the host into device memory, and the pieces of a copy between a texture and a buffer.

#[cfg(not(target_arch = "wasm32"))]
use std::collections::VecDeque;
use std::ops::Range;
#[cfg(not(target_arch = "wasm32"))]
use std::sync::mpsc;

use blockpruner_shaders::TEXTURE_WIDTH;

use super::raw::Raw;
use super::{Gpu, GpuError, Resource};

/// Bytes of a chunk of staging memory, unless a piece needs more.
pub(crate) const CHUNK: usize = 2 << 20;
/// Bytes that are copied by one submit, about.
const SUBMIT: usize = 4 << 20;
/// Copies want their source aligned to a texel.
const ALIGNMENT: usize = 16;
/// Bytes of a row of a weight's texture.
const ROW: usize = TEXTURE_WIDTH as usize * 16;

impl Gpu {
    /// Overwrites the start of a buffer, or of a texture by whole texels of 16 bytes: zeros follow where the last is a part.
    #[doc(hidden)]
    pub fn write(&self, target: &Resource, bytes: &[u8]) -> Result<(), GpuError> {
        for (piece, offset) in bytes.chunks(CHUNK).zip((0..).step_by(CHUNK)) {
            self.write_piece(target, offset, piece)?;
        }
        self.check()
    }

    /// Writes at most [`CHUNK`] bytes beside others.
    fn write_piece(&self, target: &Resource, offset: u64, piece: &[u8]) -> Result<(), GpuError> {
        let mut open = self.staging.borrow_mut().open.take();
        if let Some(staged) = open.take_if(|staged| staged.room() < piece.len().next_multiple_of(ALIGNMENT)) {
            self.staging.borrow_mut().close(staged);
        }
        let mut staged = match open {
            Some(staged) => staged,
            None => self.stage(CHUNK)?,
        };
        let start = staged.len();
        staged.append(piece);
        // Whole words are copied, and whole texels.
        let whole = if matches!(target, Resource::Texture(_)) { ALIGNMENT } else { 4 };
        staged.append(&[0; ALIGNMENT][..piece.len().next_multiple_of(whole) - piece.len()]);
        let bytes = staged.len() - start;
        self.staging.borrow_mut().copy(&staged, start..start + bytes, target, offset);
        staged.align();
        self.staging.borrow_mut().open = Some(staged);
        self.flush_if_full()
    }

    /// Staging memory for `bytes` bytes. Waits for the device where all that there may be is on its way; what is handed out
    /// must come back by [`Gpu::send`] or [`Gpu::unstage`].
    pub(crate) fn stage(&self, bytes: usize) -> Result<Staged, GpuError> {
        loop {
            let taken = self.staging.borrow_mut().take(bytes);
            if let Some(staged) = taken.transpose() {
                return staged.map_err(|error| match self.check() {
                    Ok(()) => self.lost(&error.to_string()),
                    Err(before) => before,
                });
            }
            self.flush_uploads()?;
            self.wait_for_upload()?;
        }
    }

    /// Puts what was filled on its way to `offset` bytes into a buffer or a texture: whole words, or whole texels.
    pub(crate) fn send(&self, staged: Staged, target: &Resource, offset: u64) -> Result<(), GpuError> {
        let mut staging = self.staging.borrow_mut();
        staging.copy(&staged, 0..staged.len(), target, offset);
        staging.close(staged);
        drop(staging);
        self.flush_if_full()
    }

    /// Takes staging memory back that is not to be copied.
    pub(crate) fn unstage(&self, staged: Staged) {
        self.staging.borrow_mut().give_back(staged);
    }

    fn flush_if_full(&self) -> Result<(), GpuError> {
        let full = self.staging.borrow().pending >= SUBMIT;
        if full { self.flush_uploads() } else { Ok(()) }
    }

    /// Submits what was written; work that is submitted afterwards finds it.
    pub(super) fn flush_uploads(&self) -> Result<(), GpuError> {
        self.staging.borrow_mut().flush();
        self.check()
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn wait_for_upload(&self) -> Result<(), GpuError> {
        let oldest = self.staging.borrow_mut().flying.pop_front();
        match oldest {
            Some(oldest) => self.poll(wgpu::PollType::Wait { submission_index: Some(oldest), timeout: None })?,
            // Everything is being filled, which callers avoid: a little more is better than to wait for ever.
            None => self.staging.borrow_mut().most += 1,
        }
        self.check()
    }

    #[cfg(target_arch = "wasm32")]
    fn wait_for_upload(&self) -> Result<(), GpuError> {
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
    runs(0..bytes as usize).map(move |run| {
        let (texels, bytes_per_row, extent) = rectangle(view.texture(), &run);
        let layout = layout(offset + run.start as u64, bytes_per_row, extent);
        (texels, wgpu::TexelCopyBufferInfo { buffer, layout }, extent)
    })
}

/// A range of a texture's bytes in rectangles: what is left of a row, whole rows, and the beginning of one.
fn runs(bytes: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let first = bytes.start.next_multiple_of(ROW).min(bytes.end);
    let last = (bytes.end / ROW * ROW).max(first);
    [bytes.start..first, first..last, last..bytes.end].into_iter().filter(|run| !run.is_empty())
}

fn layout(offset: u64, bytes_per_row: u32, extent: wgpu::Extent3d) -> wgpu::TexelCopyBufferLayout {
    // One row needs no pitch, and a part of one would break the rule that it is a multiple of 256.
    let bytes_per_row = (extent.height > 1).then_some(bytes_per_row);
    wgpu::TexelCopyBufferLayout { offset, bytes_per_row, rows_per_image: None }
}

/// Where one of [`runs`] lies, and its bytes of a row.
fn rectangle<'a>(
    texture: &'a wgpu::Texture,
    run: &Range<usize>,
) -> (wgpu::TexelCopyTextureInfo<'a>, u32, wgpu::Extent3d) {
    let to = wgpu::TexelCopyTextureInfo {
        texture,
        mip_level: 0,
        origin: wgpu::Origin3d { x: (run.start % ROW / 16) as u32, y: (run.start / ROW) as u32, z: 0 },
        aspect: wgpu::TextureAspect::All,
    };
    let width = run.len().min(ROW) as u32;
    let height = (run.len() / ROW).max(1) as u32;
    (to, width, wgpu::Extent3d { width: width / 16, height, depth_or_array_layers: 1 })
}

/// Staging memory that is being filled, by whichever thread.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) struct Staged {
    /// Mapped as a whole.
    view: wgpu::BufferViewMut,
    buffer: wgpu::Buffer,
    filled: usize,
}

#[cfg(not(target_arch = "wasm32"))]
impl Staged {
    fn new(buffer: wgpu::Buffer) -> Result<Self, wgpu::MapRangeError> {
        Ok(Self { view: buffer.slice(..).get_mapped_range_mut()?, buffer, filled: 0 })
    }

    /// Bytes that were filled.
    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    fn room(&self) -> usize {
        self.view.len() - self.filled
    }

    /// Fills the next bytes, for which there must be room. Front to back: a GPU's memory may be slow otherwise.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.view.slice(self.filled..self.filled + bytes.len()).copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    fn align(&mut self) {
        self.filled = self.filled.next_multiple_of(ALIGNMENT);
    }
}

/// Chunks that live as long as the device: some are filled while the device copies from others. Staging memory that
/// is made for a copy, as `Queue::write_buffer` does, comes to lie between the weights where host and device share their
/// memory, and leaves holes: weights then take up to twice their size.
///
/// [`MOST_CHUNKS`] of [`CHUNK`] bytes at most: 32 MiB. Where the rows that are packed together take more than a chunk, as those
/// of models with very long rows, chunks grow to that.
#[cfg(not(target_arch = "wasm32"))]
pub(super) struct Staging {
    raw: Raw,
    most: usize,
    /// Chunks that there are.
    made: usize,
    /// Mapped and not in use.
    free: Vec<wgpu::Buffer>,
    /// Mapped again, or None for one that is lost.
    mapped: mpsc::Receiver<Option<wgpu::Buffer>>,
    map: mpsc::Sender<Option<wgpu::Buffer>>,
    /// Has room for more small pieces.
    open: Option<Staged>,
    /// Filled, and part of `encoder`.
    closed: Vec<wgpu::Buffer>,
    encoder: Option<wgpu::CommandEncoder>,
    pending: usize,
    flying: VecDeque<wgpu::SubmissionIndex>,
}

/// Chunks of staging memory, more than are being packed at a time.
#[cfg(not(target_arch = "wasm32"))]
const MOST_CHUNKS: usize = 16;
/// Chunks that may be away at a time to be filled.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) const MOST_AWAY: usize = 10;

#[cfg(not(target_arch = "wasm32"))]
impl Staging {
    pub(super) fn new(raw: &Raw) -> Self {
        let (map, mapped) = mpsc::channel();
        Self {
            raw: raw.clone(),
            most: MOST_CHUNKS,
            made: 0,
            free: Vec::new(),
            mapped,
            map,
            open: None,
            closed: Vec::new(),
            encoder: None,
            pending: 0,
            flying: VecDeque::new(),
        }
    }

    /// A free chunk; None where there is none and no more may be made.
    fn take(&mut self, bytes: usize) -> Result<Option<Staged>, wgpu::MapRangeError> {
        for chunk in self.mapped.try_iter() {
            match chunk {
                Some(chunk) => self.free.push(chunk),
                None => self.made -= 1,
            }
        }
        if let Some(at) = self.free.iter().rposition(|chunk| chunk.size() >= bytes as u64) {
            return Staged::new(self.free.swap_remove(at)).map(Some);
        }
        // All that are free are too small.
        if self.free.pop().is_some() {
            self.made -= 1;
        }
        if self.made >= self.most {
            return Ok(None);
        }
        self.made += 1;
        let buffer = self.raw.buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size: (bytes.max(CHUNK) as u64).next_multiple_of(ALIGNMENT as u64),
            usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: true,
        });
        Staged::new(buffer).map(Some)
    }

    fn give_back(&mut self, staged: Staged) {
        let Staged { view, buffer, .. } = staged;
        drop(view);
        self.free.push(buffer);
    }

    /// Records the copy of a part of what was staged.
    fn copy(&mut self, staged: &Staged, part: Range<usize>, target: &Resource, offset: u64) {
        if part.is_empty() {
            return;
        }
        let encoder = self.encoder.get_or_insert_with(|| {
            self.raw.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("uploads") })
        });
        self.pending += part.len();
        match target {
            Resource::Buffer(buffer) => {
                let (from, bytes) = (part.start as u64, part.len() as u64);
                encoder.copy_buffer_to_buffer(&staged.buffer, from, buffer, offset, Some(bytes));
            }
            Resource::Texture(view) => {
                let start = offset as usize;
                for run in runs(start..start + part.len()) {
                    let (to, bytes_per_row, extent) = rectangle(view.texture(), &run);
                    let layout = layout((part.start + run.start - start) as u64, bytes_per_row, extent);
                    let from = wgpu::TexelCopyBufferInfo { buffer: &staged.buffer, layout };
                    encoder.copy_buffer_to_texture(from, to, extent);
                }
            }
        }
    }

    /// Nothing more is written to this one before it is copied.
    fn close(&mut self, staged: Staged) {
        self.closed.push(staged.buffer);
    }

    fn flush(&mut self) {
        let Some(encoder) = self.encoder.take() else { return };
        self.pending = 0;
        self.closed.extend(self.open.take().map(|staged| staged.buffer));
        self.closed.iter().for_each(wgpu::Buffer::unmap);
        self.flying.push_back(self.raw.submit([encoder.finish()]));
        // Those of submits that ended long ago are of no use.
        while self.flying.len() > self.most {
            self.flying.pop_front();
        }
        for buffer in self.closed.drain(..) {
            let (map, chunk) = (self.map.clone(), buffer.clone());
            buffer.slice(..).map_async(wgpu::MapMode::Write, move |result| {
                // The receiver is gone only with the device.
                let _ = map.send(result.is_ok().then_some(chunk));
            });
        }
    }
}

/// Bytes on their way to the browser, which has staging memory of its own.
#[cfg(target_arch = "wasm32")]
pub(crate) struct Staged {
    bytes: Vec<u8>,
    room: usize,
}

#[cfg(target_arch = "wasm32")]
impl Staged {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn room(&self) -> usize {
        self.room - self.bytes.len()
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

/// The browser has staging memory of its own, and cannot be waited for here.
#[cfg(target_arch = "wasm32")]
pub(super) struct Staging {
    raw: Raw,
    /// Room that is used again.
    free: Vec<Vec<u8>>,
    open: Option<Staged>,
    pending: usize,
}

#[cfg(target_arch = "wasm32")]
impl Staging {
    pub(super) fn new(raw: &Raw) -> Self {
        Self { raw: raw.clone(), free: Vec::new(), open: None, pending: 0 }
    }

    fn take(&mut self, bytes: usize) -> Result<Option<Staged>, wgpu::MapRangeError> {
        let mut room = self.free.pop().unwrap_or_default();
        room.clear();
        room.reserve(bytes);
        Ok(Some(Staged { bytes: room, room: bytes }))
    }

    fn give_back(&mut self, staged: Staged) {
        self.close(staged);
    }

    fn copy(&mut self, staged: &Staged, part: Range<usize>, target: &Resource, offset: u64) {
        let piece = &staged.bytes[part];
        match target {
            Resource::Buffer(buffer) => self.raw.queue.write_buffer(buffer, offset, piece),
            Resource::Texture(view) => {
                let start = offset as usize;
                for run in runs(start..start + piece.len()) {
                    let (to, bytes_per_row, extent) = rectangle(view.texture(), &run);
                    let layout = wgpu::TexelCopyBufferLayout {
                        offset: (run.start - start) as u64,
                        bytes_per_row: Some(bytes_per_row),
                        rows_per_image: None,
                    };
                    self.raw.queue.write_texture(to, piece, layout, extent);
                }
            }
        }
        self.pending += piece.len();
    }

    /// What was written has been copied already.
    fn close(&mut self, staged: Staged) {
        self.free.push(staged.bytes);
    }

    /// The browser's staging memory grows until a submit.
    fn flush(&mut self) {
        let open = self.open.take();
        open.into_iter().for_each(|staged| self.close(staged));
        if std::mem::take(&mut self.pending) > 0 {
            self.raw.submit([]);
        }
    }
}
