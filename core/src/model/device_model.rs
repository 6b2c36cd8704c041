//! A model on the device: every weight packed for the device's GEMM kernel.

use std::collections::BTreeMap;
use std::rc::Rc;

use blockpruner_shaders::{WeightFormat, stride};

use super::loader::{Loader, Part, Stack, Supply};
use super::{BlockId, Checkpoint, ModelError, ModelSpec};
use crate::gpu::{Gpu, GpuError, GpuOptions, Matrix, Resource};
use crate::weights::{Weights, WeightsError};

/// Vocabulary entries whose logits exist at a time. Fixed, so that the order of summation, and with it every bit of a
/// result, depends on nothing else.
pub(crate) const VOCABULARY_CHUNK: usize = 1024;

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
    pub norm: Resource,
    /// Q, K and V projections, one below the other.
    pub qkv: Matrix,
    /// Output projection.
    pub o: Matrix,
}

/// Weights of a feed-forward block.
pub(crate) struct FeedForward {
    /// `post_attention_layernorm`, `[hidden_size]` f32.
    pub norm: Resource,
    /// Gate and up projections, one below the other.
    pub gate_up: Matrix,
    /// Down projection.
    pub down: Matrix,
}

/// Weights of a block.
pub(crate) enum BlockWeights {
    /// Of an attention block.
    Attention(Attention),
    /// Of a feed-forward block.
    FeedForward(FeedForward),
}

impl BlockWeights {
    /// Bytes of its matrices on the device.
    pub(crate) fn packed_bytes(&self, gpu: &Gpu) -> u64 {
        let matrices = match self {
            BlockWeights::Attention(weights) => [&weights.qkv, &weights.o],
            BlockWeights::FeedForward(weights) => [&weights.gate_up, &weights.down],
        };
        matrices.into_iter().map(|matrix| matrix.packed_bytes(gpu)).sum()
    }
}

/// A model whose weights are on the device, or are brought there block by block.
pub struct DeviceModel {
    pub(crate) gpu: Rc<Gpu>,
    pub(crate) spec: ModelSpec,
    weights: Weights,
    /// The embedding in chunks of [`VOCABULARY_CHUNK`] rows; empty where it is streamed.
    pub(super) embedding: Rc<Vec<Matrix>>,
    /// The head in the same chunks; the embedding itself when tied.
    pub(crate) head: Rc<Vec<Matrix>>,
    pub(crate) final_norm: Resource,
    /// Blocks that stay on the device: all that there are, or none.
    blocks: BTreeMap<BlockId, Rc<BlockWeights>>,
    supply: Supply,
}

/// Bytes that a model's weights take on a device, packed as the device's kernel wants them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightBytes {
    /// All blocks.
    pub blocks: u64,
    /// The largest block.
    pub largest_block: u64,
    /// The head with the final norm.
    pub head: u64,
    /// The embedding, 0 if it is the head.
    pub embedding: u64,
}

impl WeightBytes {
    /// Bytes with everything on the device.
    pub fn resident(&self) -> u64 {
        self.blocks + self.head + self.embedding
    }

    /// Bytes with the blocks streamed: one is used while the next is brought. The embedding is needed once, a chunk at a
    /// time.
    pub fn streamed(&self) -> u64 {
        self.head + 2 * self.largest_block
    }
}

/// What a device is asked for on behalf of this model; the caller adds its own wishes.
pub fn device_needs(checkpoint: &Checkpoint) -> GpuOptions {
    let (spec, weights) = (&checkpoint.spec, &checkpoint.weights);
    let attention = (spec.heads + 2 * spec.kv_heads) * spec.head_dim;
    let columns = attention.max(2 * spec.intermediate_size).max(VOCABULARY_CHUNK.min(spec.vocab_size));
    let stacks =
        spec.blocks().flat_map(|block| Stack::of(spec, block)).chain(Stack::vocabulary(spec, spec.head_name()));
    let used: Vec<WeightFormat> = stacks.map(|stack| stack.format(weights)).collect();
    GpuOptions {
        largest_weight: columns as u64 * spec.hidden_size as u64 * 4,
        formats: WeightFormat::ALL.into_iter().filter(|format| used.contains(format)).collect(),
        head_dim: Some(spec.head_dim as u32),
        ..Default::default()
    }
}

impl DeviceModel {
    /// Reads every weight and uploads it; `progress` is told the parameters done and their total.
    pub async fn load(
        gpu: Rc<Gpu>,
        checkpoint: &Checkpoint,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ForwardError> {
        let total = checkpoint.spec.parameters();
        let supply = Self::supply(&gpu, checkpoint)?;
        let mut loader = Loader::new(&gpu, checkpoint, &supply, total, progress)?;
        let spec = &checkpoint.spec;
        let embedding = Rc::new(loader.vocabulary(spec, ModelSpec::EMBEDDING).await?);
        let head = match spec.tied_embeddings {
            true => embedding.clone(),
            false => Rc::new(loader.vocabulary(spec, ModelSpec::HEAD).await?),
        };
        let final_norm = loader.vector(ModelSpec::FINAL_NORM).await?;
        let mut blocks = BTreeMap::new();
        for depth in 0..2 * spec.layers {
            let block = BlockId::at_depth(depth);
            if spec.has(block) {
                blocks.insert(block, Rc::new(loader.block(spec, block).await?));
            }
        }
        let (spec, weights) = (checkpoint.spec.clone(), checkpoint.weights.clone());
        Ok(Self { gpu, spec, weights, embedding, head, final_norm, blocks, supply })
    }

    /// Uploads only the head and the final norm; everything else is read from the checkpoint whenever it is needed, so
    /// that a model may be larger than the device's memory.
    pub async fn stream(
        gpu: Rc<Gpu>,
        checkpoint: &Checkpoint,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ForwardError> {
        let spec = &checkpoint.spec;
        let total = (spec.vocab_size * spec.hidden_size + spec.hidden_size) as u64;
        let supply = Self::supply(&gpu, checkpoint)?;
        let mut loader = Loader::new(&gpu, checkpoint, &supply, total, progress)?;
        let head = Rc::new(loader.vocabulary(spec, spec.head_name()).await?);
        let embedding = if spec.tied_embeddings { head.clone() } else { Rc::default() };
        let final_norm = loader.vector(ModelSpec::FINAL_NORM).await?;
        let (spec, weights) = (checkpoint.spec.clone(), checkpoint.weights.clone());
        Ok(Self { gpu, spec, weights, embedding, head, final_norm, blocks: BTreeMap::new(), supply })
    }

    /// For blocks that come and go: one is used while the next is brought.
    fn supply(gpu: &Gpu, checkpoint: &Checkpoint) -> Result<Supply, ForwardError> {
        Ok(Supply::new(2 * Self::weight_bytes(gpu, checkpoint)?.largest_block))
    }

    /// Bytes that this checkpoint's weights take on a device.
    pub fn weight_bytes(gpu: &Gpu, checkpoint: &Checkpoint) -> Result<WeightBytes, ForwardError> {
        let (spec, weights) = (&checkpoint.spec, &checkpoint.weights);
        let stack = |stack: &Stack| -> Result<u64, ForwardError> {
            let columns = stack.columns() as u32;
            Ok(Matrix::bytes(gpu, stack.format(weights), columns, stack.inner as u32)?
                + stack.biases.iter().flatten().count() as u64 * columns as u64 * 4)
        };
        let norm = gpu.readable_bytes(stride(spec.hidden_size as u32) as u64 * 4);
        let vocabulary = |name: &str| -> Result<u64, ForwardError> {
            Stack::vocabulary(spec, name).map(|chunk| stack(&chunk)).sum::<Result<u64, _>>()
        };
        let mut bytes = WeightBytes { head: vocabulary(spec.head_name())? + norm, ..Default::default() };
        if !spec.tied_embeddings {
            bytes.embedding = vocabulary(ModelSpec::EMBEDDING)?;
        }
        for block in spec.blocks() {
            let block = norm + Stack::of(spec, block).iter().map(stack).sum::<Result<u64, _>>()?;
            bytes.blocks += block;
            bytes.largest_block = bytes.largest_block.max(block);
        }
        Ok(bytes)
    }

    /// Bytes that `rows` rows of this checkpoint's head take on a device.
    pub(crate) fn head_bytes(gpu: &Gpu, checkpoint: &Checkpoint, rows: usize) -> Result<u64, ForwardError> {
        let spec = &checkpoint.spec;
        let parts = vec![Part::new(spec.head_name(), 0..rows)];
        let stack = Stack { parts, inner: spec.hidden_size, biases: Vec::new() };
        let format = stack.format(&checkpoint.weights);
        let chunk = |first| Matrix::bytes(gpu, format, VOCABULARY_CHUNK.min(rows - first) as u32, stack.inner as u32);
        Ok((0..rows).step_by(VOCABULARY_CHUNK).map(chunk).sum::<Result<u64, _>>()?)
    }

    /// The model's architecture.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The device that holds the weights.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Whether blocks are brought to the device each time that they are needed.
    pub fn streams(&self) -> bool {
        self.blocks.is_empty() && self.spec.blocks().next().is_some()
    }

    /// The weights of a block; None if the checkpoint does not have it.
    pub(crate) async fn block(&self, block: BlockId) -> Result<Option<Rc<BlockWeights>>, ForwardError> {
        if let Some(weights) = self.blocks.get(&block) {
            return Ok(Some(weights.clone()));
        }
        if !self.spec.has(block) {
            return Ok(None);
        }
        Ok(Some(Rc::new(self.bring(block).await?)))
    }

    /// Brings the weights of a block that the checkpoint has, into storage that is used again for other blocks when nobody has
    /// them any more.
    pub(crate) async fn bring(&self, block: BlockId) -> Result<BlockWeights, ForwardError> {
        let mut quiet = |_, _| {};
        let mut loader = Loader::quiet(&self.gpu, &self.weights, &self.supply, &mut quiet).reusing();
        loader.block(&self.spec, block).await
    }

    /// Calls `each` with every chunk of the embedding and its first token.
    pub(crate) async fn embedding_chunks(&self, mut each: impl FnMut(u32, &Matrix)) -> Result<(), ForwardError> {
        for (chunk, matrix) in self.embedding.iter().enumerate() {
            each((chunk * VOCABULARY_CHUNK) as u32, matrix);
        }
        if self.embedding.is_empty() {
            let mut quiet = |_, _| {};
            let mut loader = Loader::quiet(&self.gpu, &self.weights, &self.supply, &mut quiet);
            for (chunk, stack) in Stack::vocabulary(&self.spec, ModelSpec::EMBEDDING).enumerate() {
                each((chunk * VOCABULARY_CHUNK) as u32, &loader.matrix(&stack).await?);
            }
        }
        Ok(())
    }

    /// Blocks that need every shader that the model needs: one for each kind and formats of its weights.
    pub(crate) fn different_blocks(&self) -> Vec<BlockId> {
        let mut seen = Vec::new();
        let mut fresh = |block: &BlockId| {
            let formats = Stack::of(&self.spec, *block).map(|stack| stack.format(&self.weights));
            let known = seen.contains(&(block.kind, formats));
            seen.push((block.kind, formats));
            !known
        };
        self.spec.blocks().filter(|block| fresh(block)).collect()
    }

    /// The rows of the head of these tokens (ascending), as a head of its own over a smaller vocabulary.
    pub(crate) async fn head_of(&self, tokens: &[u32]) -> Result<Matrix, ForwardError> {
        let name = self.spec.head_name();
        // Neighbouring tokens are one part.
        let parts = tokens.chunk_by(|a, b| a + 1 == *b).filter_map(|run| {
            let (first, last) = (*run.first()? as usize, *run.last()? as usize);
            Some(Part::new(name, first..last + 1))
        });
        let stack = Stack { parts: parts.collect(), inner: self.spec.hidden_size, biases: Vec::new() };
        let mut quiet = |_, _| {};
        let mut loader = Loader::quiet(&self.gpu, &self.weights, &self.supply, &mut quiet);
        loader.matrix(&stack).await
    }
}
