//! A model on the device: every weight packed for the device's GEMM kernel.

use std::ops::Range;
use std::rc::Rc;

use blockpruner_shaders::WeightFormat;

use super::{BlockId, Checkpoint, ModelError, ModelSpec};
use crate::gpu::{Gpu, GpuError, Matrix};
use crate::weights::{FloatType, Weights, WeightsError};

/// Vocabulary entries whose logits exist at a time. Fixed, so that the order of summation, and with it every bit of a
/// result, depends on nothing else.
pub(crate) const VOCABULARY_CHUNK: usize = 4096;

/// What went wrong while bringing a model to the device or running it.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The device.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The model's files.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The model's configuration.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Weights of an attention block.
pub(crate) struct Attention {
    /// `input_layernorm`, `[hidden_size]` f32.
    pub norm: wgpu::Buffer,
    /// Q, K and V projections, one below the other.
    pub qkv: Matrix,
    /// Output projection.
    pub o: Matrix,
}

/// Weights of a feed-forward block.
pub(crate) struct FeedForward {
    /// `post_attention_layernorm`, `[hidden_size]` f32.
    pub norm: wgpu::Buffer,
    /// Gate and up projections, one below the other.
    pub gate_up: Matrix,
    /// Down projection.
    pub down: Matrix,
}

/// A model whose weights are on the device.
pub struct DeviceModel {
    pub(crate) gpu: Rc<Gpu>,
    pub(crate) spec: ModelSpec,
    /// The embedding in chunks of [`VOCABULARY_CHUNK`] rows.
    pub(crate) embedding: Rc<Vec<Matrix>>,
    /// The head in the same chunks; the embedding itself when tied.
    pub(crate) head: Rc<Vec<Matrix>>,
    pub(crate) final_norm: wgpu::Buffer,
    pub(crate) attention: Vec<Option<Attention>>,
    pub(crate) feed_forward: Vec<Option<FeedForward>>,
}

/// Bytes of the largest weight that [`DeviceModel::load`] stores in one piece if the device allows it, for
/// [`crate::gpu::GpuOptions::largest_weight`].
pub fn largest_weight(spec: &ModelSpec) -> u64 {
    let attention = (spec.heads + 2 * spec.kv_heads) * spec.head_dim;
    let columns = attention.max(2 * spec.intermediate_size).max(VOCABULARY_CHUNK.min(spec.vocab_size));
    columns as u64 * spec.hidden_size as u64 * 4
}

impl DeviceModel {
    /// Reads every weight and uploads it; `progress` is told the parameters done and their total.
    pub async fn load(
        gpu: Rc<Gpu>,
        checkpoint: &Checkpoint,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ForwardError> {
        let spec = checkpoint.spec.clone();
        let total = spec.parameters();
        let mut loader = Loader { gpu: &gpu, weights: &checkpoint.weights, done: 0, total, progress };
        let embedding = Rc::new(loader.vocabulary(&spec, ModelSpec::EMBEDDING).await?);
        let head = match spec.tied_embeddings {
            true => embedding.clone(),
            false => Rc::new(loader.vocabulary(&spec, ModelSpec::HEAD).await?),
        };
        let final_norm = loader.vector(ModelSpec::FINAL_NORM).await?;
        let (mut attention, mut feed_forward) = (Vec::new(), Vec::new());
        for layer in 0..spec.layers {
            let there = |block| spec.has(block);
            let mha = there(BlockId::mha(layer));
            attention.push(if mha { Some(loader.attention(&spec, layer).await?) } else { None });
            let mlp = there(BlockId::mlp(layer));
            feed_forward.push(if mlp { Some(loader.feed_forward(&spec, layer).await?) } else { None });
        }
        Ok(Self { gpu, spec, embedding, head, final_norm, attention, feed_forward })
    }

    /// The model's architecture.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The device that holds the weights.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }
}

struct Loader<'a> {
    gpu: &'a Gpu,
    weights: &'a Weights,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Loader<'_> {
    fn advance(&mut self, parameters: usize) {
        self.done += parameters as u64;
        (self.progress)(self.done, self.total);
    }

    async fn vector(&mut self, name: &str) -> Result<wgpu::Buffer, ForwardError> {
        let values = self.weights.read_f32(name).await?;
        self.advance(values.len());
        Ok(self.gpu.upload(name, bytemuck::cast_slice(&values))?)
    }

    async fn vocabulary(&mut self, spec: &ModelSpec, name: &str) -> Result<Vec<Matrix>, ForwardError> {
        let mut chunks = Vec::new();
        for first in (0..spec.vocab_size).step_by(VOCABULARY_CHUNK) {
            let rows = first..(first + VOCABULARY_CHUNK).min(spec.vocab_size);
            chunks.push(self.matrix(&[(name, rows)], spec.hidden_size, &[]).await?);
        }
        Ok(chunks)
    }

    async fn attention(&mut self, spec: &ModelSpec, layer: usize) -> Result<Attention, ForwardError> {
        let names = spec.layer_names(layer);
        let (queries, keys) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let parts =
            [(names.q_proj.as_str(), 0..queries), (names.k_proj.as_str(), 0..keys), (names.v_proj.as_str(), 0..keys)];
        let biases = [names.q_proj_bias, names.k_proj_bias, names.v_proj_bias];
        Ok(Attention {
            norm: self.vector(&names.input_layernorm).await?,
            qkv: self.matrix(&parts, spec.hidden_size, &biases).await?,
            o: self.matrix(&[(&names.o_proj, 0..spec.hidden_size)], queries, &[names.o_proj_bias]).await?,
        })
    }

    async fn feed_forward(&mut self, spec: &ModelSpec, layer: usize) -> Result<FeedForward, ForwardError> {
        let names = spec.layer_names(layer);
        let inner = spec.intermediate_size;
        let parts = [(names.gate_proj.as_str(), 0..inner), (names.up_proj.as_str(), 0..inner)];
        let biases = [names.gate_proj_bias, names.up_proj_bias];
        Ok(FeedForward {
            norm: self.vector(&names.post_attention_layernorm).await?,
            gate_up: self.matrix(&parts, spec.hidden_size, &biases).await?,
            down: self.matrix(&[(&names.down_proj, 0..spec.hidden_size)], inner, &[names.down_proj_bias]).await?,
        })
    }

    /// One matrix from rows of one or more tensors, one below the other, `[sum of rows, inner]`; either all of the tensors
    /// have a bias or none. Tensors of different types meet in f32.
    async fn matrix(
        &mut self,
        parts: &[(&str, Range<usize>)],
        inner: usize,
        biases: &[Option<String>],
    ) -> Result<Matrix, ForwardError> {
        let format = self.common_format(parts);
        let columns: usize = parts.iter().map(|(_, rows)| rows.len()).sum();
        let mut bias = Vec::new();
        for name in biases.iter().flatten() {
            bias.extend(self.weights.read_f32(name).await?);
        }
        let bias = match bias.is_empty() {
            true => None,
            false => Some(self.gpu.upload("bias", bytemuck::cast_slice(&bias))?),
        };
        let mut matrix = Matrix::new(format, columns as u32, inner as u32, bias);
        let label = parts.first().map_or("", |(name, _)| name);
        for range in Matrix::shards(self.gpu, format, columns as u32, inner as u32)? {
            let rows = self.stacked_rows(parts, format, range.start as usize..range.end as usize).await?;
            matrix.push(self.gpu, label, range, &rows)?;
        }
        self.advance(columns * inner);
        Ok(matrix)
    }

    fn common_format(&self, parts: &[(&str, Range<usize>)]) -> WeightFormat {
        let mut types = parts.iter().filter_map(|(name, _)| Some(self.weights.get(name)?.dtype.read_as()));
        let first = types.next().unwrap_or(FloatType::F32);
        match types.all(|other| other == first).then_some(first) {
            Some(FloatType::F16) => WeightFormat::F16,
            Some(FloatType::BF16) => WeightFormat::Bf16,
            Some(FloatType::F32) | None => WeightFormat::F32,
        }
    }

    /// Rows `range` of the stack of `parts`, in `format`.
    async fn stacked_rows(
        &self,
        parts: &[(&str, Range<usize>)],
        format: WeightFormat,
        range: Range<usize>,
    ) -> Result<Vec<u8>, ForwardError> {
        let mut bytes = Vec::new();
        let mut first = 0;
        for (name, rows) in parts {
            let start = range.start.clamp(first, first + rows.len()) - first;
            let end = range.end.clamp(first, first + rows.len()) - first;
            if start < end {
                let read = self.weights.read_rows(name, rows.start + start..rows.start + end).await?;
                if format == WeightFormat::F32 && read.dtype != FloatType::F32 {
                    bytes.extend_from_slice(bytemuck::cast_slice(&read.to_f32()));
                } else {
                    bytes.extend_from_slice(&read.bytes);
                }
            }
            first += rows.len();
        }
        Ok(bytes)
    }
}
