//! A model on the device: every weight packed for the device's GEMM kernel.

use std::ops::Range;
use std::rc::Rc;

use blockpruner_shaders::{GemmKernel, WeightFormat, stride};

use super::{BlockId, Checkpoint, ModelError, ModelSpec};
use crate::gpu::{Gpu, GpuError, GpuOptions, Matrix};
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

/// What a device is asked for on behalf of this model; the caller adds its own wishes.
pub fn device_needs(spec: &ModelSpec) -> GpuOptions {
    let attention = (spec.heads + 2 * spec.kv_heads) * spec.head_dim;
    let columns = attention.max(2 * spec.intermediate_size).max(VOCABULARY_CHUNK.min(spec.vocab_size));
    let largest_weight = columns as u64 * spec.hidden_size as u64 * 4;
    GpuOptions { largest_weight, ragged_heads: !spec.head_dim.is_multiple_of(4), ..Default::default() }
}

impl DeviceModel {
    /// Reads every weight and uploads it; `progress` is told the parameters done and their total.
    pub async fn load(
        gpu: Rc<Gpu>,
        checkpoint: &Checkpoint,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ForwardError> {
        let spec = checkpoint.spec.clone();
        if gpu.gemm() != GemmKernel::Tile && !spec.head_dim.is_multiple_of(4) {
            return Err(GpuError::Unsuitable {
                wanted: format!("the kernel {}", gpu.gemm().name()),
                device: gpu.name().into(),
                reason: format!("it needs a head_dim that is a multiple of 4, and the model has {}", spec.head_dim),
            }
            .into());
        }
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
        let mut values = self.weights.read_f32(name).await?;
        self.advance(values.len());
        values.resize(stride(values.len() as u32) as usize, 0.0);
        Ok(self.gpu.upload(name, bytemuck::cast_slice(&values))?)
    }

    async fn vocabulary(&mut self, spec: &ModelSpec, name: &str) -> Result<Vec<Matrix>, ForwardError> {
        let mut chunks = Vec::new();
        for first in (0..spec.vocab_size).step_by(VOCABULARY_CHUNK) {
            let rows = first..(first + VOCABULARY_CHUNK).min(spec.vocab_size);
            chunks.push(self.matrix(&[Part::new(name, rows)], spec.hidden_size, &[]).await?);
        }
        Ok(chunks)
    }

    async fn attention(&mut self, spec: &ModelSpec, layer: usize) -> Result<Attention, ForwardError> {
        let names = spec.layer_names(layer);
        let (queries, keys) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let parts = [
            Part::new(&names.q_proj, 0..queries),
            Part::new(&names.k_proj, 0..keys),
            Part::new(&names.v_proj, 0..keys),
        ];
        let biases = [names.q_proj_bias, names.k_proj_bias, names.v_proj_bias];
        Ok(Attention {
            norm: self.vector(&names.input_layernorm).await?,
            qkv: self.matrix(&parts, spec.hidden_size, &biases).await?,
            o: self.matrix(&[Part::new(&names.o_proj, 0..spec.hidden_size)], queries, &[names.o_proj_bias]).await?,
        })
    }

    async fn feed_forward(&mut self, spec: &ModelSpec, layer: usize) -> Result<FeedForward, ForwardError> {
        let names = spec.layer_names(layer);
        let inner = spec.intermediate_size;
        let parts = [Part::new(&names.gate_proj, 0..inner).padded(), Part::new(&names.up_proj, 0..inner).padded()];
        let biases = [names.gate_proj_bias, names.up_proj_bias];
        Ok(FeedForward {
            norm: self.vector(&names.post_attention_layernorm).await?,
            gate_up: self.matrix(&parts, spec.hidden_size, &biases).await?,
            down: self
                .matrix(&[Part::new(&names.down_proj, 0..spec.hidden_size)], inner, &[names.down_proj_bias])
                .await?,
        })
    }

    /// One matrix from rows of one or more tensors, one below the other, `[sum of rows, inner]`; either all of the tensors
    /// have a bias or none. Tensors of different types meet in f32.
    async fn matrix(
        &mut self,
        parts: &[Part<'_>],
        inner: usize,
        biases: &[Option<String>],
    ) -> Result<Matrix, ForwardError> {
        let format = self.common_format(parts);
        let columns: usize = parts.iter().map(|part| part.height).sum();
        let mut bias = Vec::new();
        for (part, name) in parts.iter().zip(biases) {
            if let Some(name) = name {
                let values = self.weights.read_f32(name).await?;
                self.advance(values.len());
                bias.extend(values);
                bias.resize(bias.len() + part.height - part.rows.len(), 0.0);
            }
        }
        bias.resize(stride(bias.len() as u32) as usize, 0.0);
        let bias = match bias.is_empty() {
            true => None,
            false => Some(self.gpu.upload("bias", bytemuck::cast_slice(&bias))?),
        };
        let mut matrix = Matrix::new(format, columns as u32, inner as u32, bias);
        let label = parts.first().map_or("", |part| part.name);
        for range in Matrix::shards(self.gpu, format, columns as u32, inner as u32)? {
            let rows = self.stacked_rows(parts, inner, format, range.start as usize..range.end as usize).await?;
            matrix.push(self.gpu, label, range, &rows)?;
        }
        self.advance(parts.iter().map(|part| part.rows.len()).sum::<usize>() * inner);
        Ok(matrix)
    }

    fn common_format(&self, parts: &[Part<'_>]) -> WeightFormat {
        let mut types = parts.iter().filter_map(|part| Some(self.weights.get(part.name)?.dtype.read_as()));
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
        parts: &[Part<'_>],
        inner: usize,
        format: WeightFormat,
        range: Range<usize>,
    ) -> Result<Vec<u8>, ForwardError> {
        let mut bytes = Vec::new();
        let mut first = 0;
        for part in parts {
            let within = |row: usize| row.clamp(first, first + part.height) - first;
            let (start, end) = (within(range.start), within(range.end));
            let there = start.min(part.rows.len())..end.min(part.rows.len());
            if !there.is_empty() {
                let rows = part.rows.start + there.start..part.rows.start + there.end;
                let read = self.weights.read_rows(part.name, rows).await?;
                if format == WeightFormat::F32 && read.dtype != FloatType::F32 {
                    bytes.extend_from_slice(bytemuck::cast_slice(&read.to_f32()));
                } else {
                    bytes.extend_from_slice(&read.bytes);
                }
            }
            let zeros = end - start - there.len();
            bytes.resize(bytes.len() + zeros * inner * format.bytes(), 0);
            first += part.height;
        }
        Ok(bytes)
    }
}

/// Rows of a tensor that a matrix is stacked from.
struct Part<'a> {
    name: &'a str,
    rows: Range<usize>,
    /// Rows that it takes in the matrix; what is over is zeros.
    height: usize,
}

impl<'a> Part<'a> {
    fn new(name: &'a str, rows: Range<usize>) -> Self {
        let height = rows.len();
        Self { name, rows, height }
    }

    /// The next part then begins at a whole vector of a product's row.
    fn padded(mut self) -> Self {
        self.height = stride(self.height as u32) as usize;
        self
    }
}
