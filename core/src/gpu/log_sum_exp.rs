//! The NLL of targets over a vocabulary whose logits come in chunks.

use blockpruner_shaders::log_sum_exp::{self, Params, meant};
use blockpruner_shaders::{Kernel, stride};

use super::{Gpu, Recording, Resource};

/// What a model makes of its logits before their softmax: cap * tanh(logit * scale / cap).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogSumExp {
    /// What logits are multiplied by.
    pub scale: f32,
    /// What they then come near to at most, if the model caps them.
    pub soft_cap: Option<f32>,
}

/// A chunk of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct VocabularyChunk {
    /// Entries.
    pub columns: u32,
    /// Token id of the first one.
    pub first_token: u32,
    /// Whether it is the first chunk.
    pub is_first: bool,
    /// Whether it is the last one, which ends in the NLL.
    pub is_last: bool,
}

/// What a log-sum-exp reads and writes on the device.
#[derive(Clone, Copy, Debug)]
pub struct LogSumExpBuffers<'a> {
    /// `[rows, columns]` of the chunk, as a product is written.
    pub logits: &'a Resource,
    /// `[rows]` token ids.
    pub targets: &'a wgpu::Buffer,
    /// `[rows]` of (maximum, sum of exp(logit - maximum), logit of the target, unused), carried from chunk to chunk.
    pub running: &'a wgpu::Buffer,
    /// `[rows]`, in nats.
    pub nll: &'a wgpu::Buffer,
}

impl LogSumExp {
    /// A logit as the model means it.
    pub fn meant(&self, logit: f32) -> f32 {
        meant(logit, self.scale, self.soft_cap)
    }

    /// Appends one chunk of the vocabulary; chunks must come in order.
    pub fn record(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        buffers: &LogSumExpBuffers<'_>,
        rows: u32,
        chunk: &VocabularyChunk,
    ) {
        let params = Params {
            rows,
            columns: chunk.columns,
            stride: stride(chunk.columns),
            first_token: chunk.first_token,
            is_first: chunk.is_first as u32,
            is_last: chunk.is_last as u32,
            scale: self.scale,
            cap: self.soft_cap.unwrap_or(0.0),
        };
        let LogSumExpBuffers { logits, targets, running, nll } = *buffers;
        recording.dispatch(
            Kernel::LogSumExp { kernel: gpu.gemm(), soft_cap: self.soft_cap.is_some() },
            &params,
            [logits.clone(), targets.into(), running.into(), nll.into()],
            log_sum_exp::grid(gpu.gemm(), rows),
            rows as u64 * chunk.columns as u64 * 8,
        );
    }
}
