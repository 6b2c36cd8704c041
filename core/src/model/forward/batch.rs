//! Windows on the device, and the targets that the head scores.

use crate::gpu::{Gpu, GpuError};

/// Targets whose logits exist at a time.
pub(super) const HEAD_ROWS: u32 = 2048;

/// Targets that the head scores together, with their place in the batch and their NLL.
pub(crate) struct HeadPart {
    /// First of the rows of the states that it covers,
    pub(super) first_row: u32,
    /// how many they are,
    pub(super) span: u32,
    /// and which of them have a target, counted from the first.
    pub(super) indices: wgpu::Buffer,
    /// Targets.
    pub(crate) rows: u32,
    /// Token of each target.
    pub(crate) tokens: Vec<u32>,
    /// The same on the device.
    pub(crate) targets: wgpu::Buffer,
    /// (maximum, sum of exp(logit - maximum), logit of the target, unused) over the vocabulary seen so far, `[rows]`.
    pub(crate) running: wgpu::Buffer,
    /// NLL of each target, in nats.
    pub(crate) nll: wgpu::Buffer,
}

impl HeadPart {
    fn new(gpu: &Gpu, first_row: u32, span: u32, indices: &[u32], targets: &[u32]) -> Result<Self, GpuError> {
        Ok(Self {
            first_row,
            span,
            indices: gpu.upload("rows with a target", bytemuck::cast_slice(indices))?,
            rows: targets.len() as u32,
            tokens: targets.to_vec(),
            targets: gpu.upload("targets", bytemuck::cast_slice(targets))?,
            running: gpu.storage("running log-sum-exp", targets.len() as u64 * 16)?,
            nll: gpu.storage("NLL", targets.len() as u64 * 4)?,
        })
    }
}

/// Windows that run together.
pub(crate) struct Batch {
    pub(crate) windows: u32,
    /// Tokens of a window.
    pub(crate) window: u32,
    pub(super) tokens: wgpu::Buffer,
    /// The position of each row, where they are not those of its window: for models whose positions are vectors.
    pub(super) positions: Option<wgpu::Buffer>,
    pub(crate) head: Vec<HeadPart>,
}

impl Batch {
    /// A batch of the windows `ids [windows, window]`. The last position of a window has no target and no logits.
    pub(crate) fn new(gpu: &Gpu, ids: &[u32], window: usize) -> Result<Self, GpuError> {
        let tokens = gpu.upload("token ids", bytemuck::cast_slice(ids))?;
        let kept = window - 1;
        let mut head = Vec::new();
        let mut part = |first_row: usize, window: usize, kept: usize, targets: &[u32]| -> Result<(), GpuError> {
            let indices = (0..targets.len()).map(|target| (target / kept * window + target % kept) as u32);
            let span = targets.len().div_ceil(kept) * window;
            head.push(HeadPart::new(gpu, first_row as u32, span as u32, &indices.collect::<Vec<_>>(), targets)?);
            Ok(())
        };
        let group = (HEAD_ROWS as usize / kept).max(1);
        for (index, ids) in ids.chunks(group * window).enumerate() {
            let first_row = index * group * window;
            let targets: Vec<u32> = ids.chunks(window).flat_map(|ids| &ids[1..]).copied().collect();
            if group > 1 {
                part(first_row, window, kept, &targets)?;
                continue;
            }
            for (piece, targets) in targets.chunks(HEAD_ROWS as usize).enumerate() {
                let first_row = first_row + piece * HEAD_ROWS as usize;
                part(first_row, targets.len(), targets.len(), targets)?;
            }
        }
        Ok(Self { windows: (ids.len() / window) as u32, window: window as u32, tokens, positions: None, head })
    }

    /// The same with these targets alone, each a row of the batch, of which a row may have several, and the token that follows.
    pub(crate) fn with_targets(
        gpu: &Gpu,
        ids: &[u32],
        window: usize,
        targets: &[(u32, u32)],
        positions: Option<&[u32]>,
    ) -> Result<Self, GpuError> {
        let tokens = gpu.upload("token ids", bytemuck::cast_slice(ids))?;
        let part = |targets: &[(u32, u32)]| {
            let (rows, tokens): (Vec<u32>, Vec<u32>) = targets.iter().copied().unzip();
            let [first, last] = [rows.iter().min(), rows.iter().max()].map(|row| row.copied().unwrap_or(0));
            let indices: Vec<u32> = rows.iter().map(|row| row - first).collect();
            HeadPart::new(gpu, first, last - first + 1, &indices, &tokens)
        };
        let head = targets.chunks(HEAD_ROWS as usize).map(part).collect::<Result<_, _>>()?;
        let positions =
            positions.map(|positions| gpu.upload("positions", bytemuck::cast_slice(positions))).transpose()?;
        Ok(Self { windows: (ids.len() / window) as u32, window: window as u32, tokens, positions, head })
    }

    /// Rows of its states.
    pub(crate) fn rows(&self) -> u32 {
        self.windows * self.window
    }

    /// Bytes that a text of so many tokens takes: a token id; a target, its row, its running log-sum-exp and its NLL.
    pub(crate) fn bytes(tokens: usize) -> u64 {
        tokens as u64 * (4 + 4 + 4 + 16 + 4)
    }
}
