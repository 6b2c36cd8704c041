//! The forward pass, recorded: embedding, blocks, final norm and head, over a batch of equally long windows.
//!
//! Every function appends dispatches to a [`Recording`] and reads top to bottom like the model itself.

pub(crate) mod decode;

use std::collections::BTreeSet;
use std::ops::Range;

use blockpruner_shaders::{Activation, gemm, heads, stride};

use super::ModelSpec;
use super::device_model::{Attention, BlockWeights, DeviceModel, FeedForward, ForwardError, VOCABULARY_CHUNK};
use crate::gpu::{
    self, AttentionBuffers, Gpu, GpuError, LogSumExp, LogSumExpBuffers, Matrix, Operand, Projection, Recording,
    Residual, Resource, VocabularyChunk, record_activation,
};

/// Targets whose logits exist at a time.
const HEAD_ROWS: u32 = 2048;

/// Device memory that a forward pass works in, over as many rows as it was made for or fewer; shared by all batches.
pub(crate) struct Scratch {
    /// `[window, head_dim / 2]` of (cos, sin).
    rope: Resource,
    /// The rows that a block adds to, for the panel kernels.
    residual: Option<wgpu::TextureView>,
    /// The left side of the product under way: normed states, attention output or activated feed-forward rows.
    operand: Resource,
    /// Q, K and V; and the sums of the attention block, for the panel kernels.
    qkv: Resource,
    /// Rows that the feed-forward buffers hold: fewer than a batch where the binding limit is small.
    mlp_rows: u32,
    /// Gate and up; and the sums of the feed-forward block, for the panel kernels.
    gate_up: Resource,
    logits: Resource,
    /// Q, K and V, each by itself.
    packed_heads: [Resource; 3],
}

/// Sizes of everything in [`Scratch`], in bytes but for the rows.
struct ScratchSizes {
    rope: u64,
    residual: u64,
    operand: u64,
    qkv: u64,
    mlp_rows: u32,
    gate_up: u64,
    logits: u64,
    packed_heads: [u64; 3],
}

impl ScratchSizes {
    fn new(gpu: &Gpu, spec: &ModelSpec, window: u32, windows: u32) -> Self {
        let rows = window * windows;
        let [hidden, inner] = [spec.hidden_size as u32, spec.intermediate_size as u32];
        let queries = (spec.heads * spec.head_dim) as u32;
        let keys = (spec.kv_heads * spec.head_dim) as u32;
        let product = |rows: u32, columns: u32| gemm::output_bytes(gpu.gemm(), rows, stride(columns));
        let mlp_rows = (gpu.max_binding() / (8 * stride(inner) as u64)).clamp(1, rows as u64) as u32;
        let chunk = VOCABULARY_CHUNK.min(spec.vocab_size) as u32;
        let operand = |rows, inner| gemm::operand_bytes(gpu.gemm(), rows, inner);
        Self {
            rope: window as u64 * (spec.head_dim / 2) as u64 * 8,
            residual: Residual::copy_bytes(gpu, rows, hidden),
            operand: operand(rows, hidden.max(queries)).max(operand(mlp_rows, inner)),
            qkv: product(rows, hidden.max(queries + 2 * keys)),
            mlp_rows,
            gate_up: product(mlp_rows, hidden.max(2 * stride(inner))),
            logits: product(rows.min(HEAD_ROWS), chunk),
            packed_heads: attention(spec).packed_bytes(gpu.gemm(), window, windows),
        }
    }
}

impl Scratch {
    /// Allocates the buffers and textures for batches of up to `windows` windows.
    pub(crate) fn new(model: &DeviceModel, window: u32, windows: u32) -> Result<Self, ForwardError> {
        let (gpu, spec) = (&*model.gpu, &model.spec);
        let sizes = ScratchSizes::new(gpu, spec, window, windows);
        let frequencies = spec.rope.frequencies(window as usize)?;
        let table = heads::table(&frequencies.inv_freq, frequencies.attention_scaling, window as usize);
        Ok(Self {
            rope: gpu.upload_readable("rotary table", table.as_flattened())?,
            residual: Residual::copy(gpu, window * windows, spec.hidden_size as u32)?,
            operand: gpu.readable("left side of a product", sizes.operand)?,
            qkv: gpu.readable("Q, K and V", sizes.qkv)?,
            mlp_rows: sizes.mlp_rows,
            gate_up: gpu.readable("gate and up", sizes.gate_up)?,
            logits: gpu.readable("logits of a vocabulary chunk", sizes.logits)?,
            packed_heads: attention(spec).packed(gpu, window, windows)?,
        })
    }

    /// Bytes that [`Scratch::new`] allocates.
    pub(crate) fn bytes(gpu: &Gpu, spec: &ModelSpec, window: u32, windows: u32) -> u64 {
        let sizes = ScratchSizes::new(gpu, spec, window, windows);
        let [q, k, v] = sizes.packed_heads;
        let all = [sizes.rope, sizes.residual, sizes.operand, sizes.qkv, sizes.gate_up, sizes.logits, q, k, v];
        all.into_iter().map(|bytes| gpu.readable_bytes(bytes)).sum()
    }
}

/// The head over a part of the vocabulary that holds a text's targets and the tokens that a model finds most likely there.
/// Its log-sum-exp is a lower bound of that over the whole vocabulary, and not far below.
pub(crate) struct LikelyHead {
    /// Rows of the head, in chunks of at most [`VOCABULARY_CHUNK`].
    chunks: Vec<Matrix>,
    /// After so many chunks each, the bound is worth looking at.
    stages: Vec<usize>,
    /// For every batch and part of its head, the targets as indices into the rows of all chunks.
    targets: Vec<Vec<wgpu::Buffer>>,
}

/// Parts of the vocabulary that the stages of a [`LikelyHead`] take: one of so many entries, the most likely first.
const LIKELY_PARTS: [usize; 4] = [32, 8, 4, 2];
/// No stage takes more entries than this: they are held beside the head itself.
const LIKELY_ENTRIES: usize = 16_384;
/// Logits that the likely tokens are found by, at most.
const LIKELY_LOGITS: usize = 1 << 24;

impl LikelyHead {
    /// Entries of the last stage, for a text of `distinct` different tokens.
    pub(crate) fn largest(vocabulary: usize, distinct: usize) -> usize {
        let stages = LIKELY_PARTS.map(|part| vocabulary / part).into_iter();
        (stages.filter(|size| *size <= LIKELY_ENTRIES).max().unwrap_or(0) + distinct).min(vocabulary)
    }

    /// The head of the targets of all batches and of the tokens that stand first in `likely`.
    pub(crate) async fn new(model: &DeviceModel, batches: &[Batch], likely: &[u32]) -> Result<Self, ForwardError> {
        let parts = || batches.iter().flat_map(|batch| &batch.head);
        let mut seen: BTreeSet<u32> = parts().flat_map(|part| part.tokens.iter().copied()).collect();
        let mut fresh: BTreeSet<u32> = seen.clone();
        let (mut chunks, mut stages, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for part in LIKELY_PARTS {
            let size = model.spec.vocab_size / part;
            if size > LIKELY_ENTRIES && !stages.is_empty() {
                break;
            }
            let more = likely.iter().take(size.min(LIKELY_ENTRIES));
            fresh.extend(more.filter(|token| seen.insert(**token)));
            let tokens: Vec<u32> = std::mem::take(&mut fresh).into_iter().collect();
            if stages.is_empty() {
                let upload = |part: &HeadPart| {
                    // The first chunks hold every target, ascending and all but the last of one size.
                    let index = |token: &u32| tokens.binary_search(token).map_or(0, |index| index as u32);
                    let indices: Vec<u32> = part.tokens.iter().map(index).collect();
                    model.gpu.upload("targets among the likely tokens", bytemuck::cast_slice(&indices))
                };
                let upload = |batch: &Batch| batch.head.iter().map(upload).collect::<Result<Vec<_>, GpuError>>();
                targets = batches.iter().map(upload).collect::<Result<_, _>>()?;
            }
            for chunk in tokens.chunks(VOCABULARY_CHUNK) {
                chunks.push(model.head_of(chunk).await?);
            }
            stages.push(chunks.len());
        }
        stages.dedup();
        Ok(Self { chunks, stages, targets })
    }

    /// Numbers of chunks after which the bound is worth looking at, ascending.
    pub(crate) fn stages(&self) -> &[usize] {
        &self.stages
    }

    /// Vocabulary entries of some chunks.
    pub(crate) fn entries(&self, chunks: Range<usize>) -> u64 {
        entries(&self.chunks[chunks])
    }
}

fn entries(chunks: &[Matrix]) -> u64 {
    chunks.iter().map(|matrix| matrix.columns() as u64).sum()
}

/// Targets that the head scores together, with their place in the batch and their NLL.
pub(crate) struct HeadPart {
    /// First of the rows of the states that it covers,
    first_row: u32,
    /// how many they are,
    span: u32,
    /// and which of them have a target, counted from the first.
    indices: wgpu::Buffer,
    /// Targets.
    pub(crate) rows: u32,
    /// Token of each target.
    pub(crate) tokens: Vec<u32>,
    targets: wgpu::Buffer,
    /// (maximum, sum of exp(logit - maximum), logit of the target, unused) over the vocabulary seen so far, `[rows]`.
    pub(crate) running: wgpu::Buffer,
    /// NLL of each target, in nats.
    pub(crate) nll: wgpu::Buffer,
}

/// Windows that run together.
pub(crate) struct Batch {
    pub(crate) windows: u32,
    /// Tokens of a window.
    pub(crate) window: u32,
    tokens: wgpu::Buffer,
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
            let indices: Vec<u32> = indices.collect();
            head.push(HeadPart {
                first_row: first_row as u32,
                span: (targets.len().div_ceil(kept) * window) as u32,
                indices: gpu.upload("rows with a target", bytemuck::cast_slice(&indices))?,
                rows: targets.len() as u32,
                tokens: targets.to_vec(),
                targets: gpu.upload("targets", bytemuck::cast_slice(targets))?,
                running: gpu.storage("running log-sum-exp", targets.len() as u64 * 16)?,
                nll: gpu.storage("NLL", targets.len() as u64 * 4)?,
            });
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
        Ok(Self { windows: (ids.len() / window) as u32, window: window as u32, tokens, head })
    }

    /// Rows of its states.
    pub(crate) fn rows(&self) -> u32 {
        self.windows * self.window
    }
}

impl DeviceModel {
    /// states = embedding[tokens] for every batch.
    pub(crate) async fn embed(&self, batches: &[(&Batch, &wgpu::Buffer)]) -> Result<(), ForwardError> {
        let mut recording = Recording::new();
        self.record_embedding(&mut recording, batches).await?;
        Ok(self.gpu.submit(&recording).await?)
    }

    /// states = embedding[tokens] for every batch; waits only where the embedding is streamed.
    pub(crate) async fn record_embedding(
        &self,
        recording: &mut Recording,
        batches: &[(&Batch, &wgpu::Buffer)],
    ) -> Result<(), ForwardError> {
        let lookups: Vec<(&wgpu::Buffer, u32, &wgpu::Buffer)> =
            batches.iter().map(|(batch, states)| (&batch.tokens, batch.rows(), *states)).collect();
        self.record_lookups(recording, &lookups).await
    }

    /// states = embedding[tokens] for (tokens, how many, states).
    async fn record_lookups(
        &self,
        recording: &mut Recording,
        lookups: &[(&wgpu::Buffer, u32, &wgpu::Buffer)],
    ) -> Result<(), ForwardError> {
        self.embedding_chunks(|first_token, matrix| {
            for (tokens, rows, states) in lookups {
                matrix.record_lookup(&self.gpu, recording, tokens, *rows, first_token, 1.0, states);
            }
        })
        .await
    }

    /// states += block(norm(states)) over the first `windows` windows of `states`, each of `window` tokens.
    pub(crate) fn record_block(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        (windows, window): (u32, u32),
        weights: &BlockWeights,
        states: &wgpu::Buffer,
    ) {
        match weights {
            BlockWeights::Attention(weights) => {
                self.record_attention(recording, scratch, (windows, window), weights, states);
            }
            BlockWeights::FeedForward(weights) => {
                self.record_feed_forward(recording, scratch, windows * window, weights, states);
            }
        }
    }

    fn record_attention(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        (windows, window): (u32, u32),
        weights: &Attention,
        states: &wgpu::Buffer,
    ) {
        let gpu = &*self.gpu;
        let rows = windows * window;
        let residual = self.residual(recording, scratch, states, 0, rows);
        let normed = weights.norm.record(gpu, recording, &residual, rows, &scratch.operand);
        weights.qkv.record_product(gpu, recording, &normed, &scratch.qkv);
        let heads = self.record_attend(recording, scratch, (windows, window));
        weights.o.record_residual(gpu, recording, &heads, 1.0, &residual, &scratch.qkv);
    }

    fn record_feed_forward(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        all: u32,
        weights: &FeedForward,
        states: &wgpu::Buffer,
    ) {
        let gpu = &*self.gpu;
        for first_row in (0..all).step_by(scratch.mlp_rows as usize) {
            let rows = scratch.mlp_rows.min(all - first_row);
            let residual = self.residual(recording, scratch, states, first_row, rows);
            let normed = weights.norm.record(gpu, recording, &residual, rows, &scratch.operand);
            weights.gate_up.record_product(gpu, recording, &normed, &scratch.gate_up);
            let inner = self.spec.intermediate_size as u32;
            let (input, output) = (&scratch.gate_up, &scratch.operand);
            let activated = record_activation(gpu, recording, Activation::Silu, inner, rows, input, output);
            weights.down.record_residual(gpu, recording, &activated, 1.0, &residual, &scratch.gate_up);
        }
    }

    /// Rows of the residual stream, ready to be read.
    fn residual<'a>(
        &self,
        recording: &mut Recording,
        scratch: &'a Scratch,
        states: &'a wgpu::Buffer,
        first_row: u32,
        rows: u32,
    ) -> Residual<'a> {
        let columns = self.spec.hidden_size as u32;
        Residual::new(recording, states, first_row, (rows, columns), scratch.residual.as_ref())
    }

    /// Chunks of the vocabulary.
    pub(crate) fn vocabulary_chunks(&self) -> usize {
        self.head.len()
    }

    /// The final norm of a part's rows, from the states after the last block, which begin at `first_row`.
    pub(crate) fn record_final_norm(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        part: &HeadPart,
        states: &wgpu::Buffer,
        first_row: u32,
    ) -> Operand {
        let residual = self.residual(recording, scratch, states, first_row + part.first_row, part.span);
        self.final_norm.record_rows(&self.gpu, recording, &residual, &part.indices, part.rows, &scratch.operand)
    }

    /// The log-sum-exp over these chunks of the vocabulary, which must come in order; the last one ends in the NLL.
    pub(crate) fn record_head(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        part: &HeadPart,
        normed: &Operand,
        chunks: Range<usize>,
    ) {
        self.record_log_sum_exp(recording, scratch, part, normed, (&self.head, &part.targets), chunks);
    }

    /// The log-sum-exp over likely tokens; `place` is the batch and the part of its head. What `running` holds then is
    /// that over the chunks so far, and the logit of the target.
    #[allow(clippy::too_many_arguments, reason = "one dispatch, spelt out")]
    pub(crate) fn record_likely_head(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        part: &HeadPart,
        normed: &Operand,
        head: &LikelyHead,
        (batch, index): (usize, usize),
        chunks: Range<usize>,
    ) {
        let targets = &head.targets[batch][index];
        self.record_log_sum_exp(recording, scratch, part, normed, (&head.chunks, targets), chunks);
    }

    /// The tokens in the order of their mean probability over some rows of a part, the most likely first; and how many
    /// logits that took.
    pub(crate) async fn likely_tokens(
        &self,
        scratch: &Scratch,
        part: &HeadPart,
        states: &wgpu::Buffer,
        first_row: u32,
    ) -> Result<(Vec<u32>, u64), ForwardError> {
        let vocabulary = self.spec.vocab_size;
        let rows = (LIKELY_LOGITS / vocabulary.max(1)).clamp(1, part.rows as usize);
        let mut recording = Recording::new();
        self.record_final_norm(&mut recording, scratch, part, states, first_row);
        let normed = Operand::new(&scratch.operand, rows as u32);
        let mut logits = vec![Vec::with_capacity(vocabulary); rows];
        for matrix in self.head.iter() {
            matrix.record_product(&self.gpu, &mut recording, &normed, &scratch.logits);
            self.gpu.submit(&std::mem::take(&mut recording)).await?;
            let (columns, width) = (matrix.columns() as usize, stride(matrix.columns()) as usize);
            let bytes = gemm::output_bytes(self.gpu.gemm(), rows as u32, width as u32);
            let chunk = self.gpu.read(&scratch.logits, bytes as usize / 4).await?;
            let chunk = gemm::unpack_output(self.gpu.gemm(), rows as u32, width as u32, &chunk);
            for (row, chunk) in logits.iter_mut().zip(chunk.chunks(width)) {
                row.extend_from_slice(&chunk[..columns]);
            }
        }
        let mut mass = vec![0.0f32; vocabulary];
        for row in &logits {
            let largest = row.iter().copied().fold(f32::MIN, f32::max);
            let sum: f32 = row.iter().map(|logit| (logit - largest).exp()).sum();
            for (mass, logit) in mass.iter_mut().zip(row) {
                *mass += (logit - largest).exp() / sum;
            }
        }
        let mut tokens: Vec<u32> = (0..vocabulary as u32).collect();
        tokens.sort_by(|a, b| mass[*b as usize].total_cmp(&mass[*a as usize]));
        Ok((tokens, (rows * vocabulary) as u64))
    }

    fn record_log_sum_exp(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        part: &HeadPart,
        normed: &Operand,
        (head, targets): (&[Matrix], &wgpu::Buffer),
        chunks: Range<usize>,
    ) {
        for chunk in chunks {
            let matrix = &head[chunk];
            matrix.record_product(&self.gpu, recording, normed, &scratch.logits);
            let buffers = LogSumExpBuffers { logits: &scratch.logits, targets, running: &part.running, nll: &part.nll };
            let entries = VocabularyChunk {
                columns: matrix.columns(),
                first_token: (chunk * VOCABULARY_CHUNK) as u32,
                is_first: chunk == 0,
                is_last: chunk + 1 == head.len(),
            };
            LOG_SUM_EXP.record(&self.gpu, recording, &buffers, part.rows, &entries);
        }
    }

    fn record_attend(&self, recording: &mut Recording, scratch: &Scratch, (windows, window): (u32, u32)) -> Operand {
        let input = scratch.projection(&scratch.rope);
        let buffers = AttentionBuffers { packed: &scratch.packed_heads, output: &scratch.operand };
        attention(&self.spec).record(&self.gpu, recording, &input, &buffers, window, windows)
    }
}

impl Scratch {
    /// Q, K and V as they are now, to be turned with this table.
    fn projection<'a>(&'a self, rope: &'a Resource) -> Projection<'a> {
        Projection { rope, qkv: &self.qkv, norms: None }
    }
}

/// Logits are what the head says.
const LOG_SUM_EXP: LogSumExp = LogSumExp { scale: 1.0, soft_cap: None };

/// The shape of a model's attention blocks.
pub(super) fn attention(spec: &ModelSpec) -> gpu::Attention {
    gpu::Attention {
        heads: spec.heads as u32,
        kv_heads: spec.kv_heads as u32,
        head_dim: spec.head_dim as u32,
        rotated: spec.head_dim as u32,
        scale: 1.0 / (spec.head_dim as f32).sqrt(),
        soft_cap: None,
        sliding_window: None,
    }
}
