//! A model on the device: every weight packed for the device's GEMM kernel.

use std::collections::BTreeMap;
use std::rc::Rc;

use blockpruner_shaders::WeightFormat;

use super::family::Role;
use super::forward::{self, VOCABULARY_CHUNK};
use super::loader::{Loader, Stack, Supply};
use super::spec::Layer;
use super::{BlockId, BlockKind, BlockSet, Checkpoint, ModelError, ModelSpec};
use crate::gpu::{AttentionNeed, Gpu, GpuError, GpuOptions, HeadNorms, KernelNeeds, Matrix, Norm};
use crate::weights::{Weights, WeightsError};

/// What went wrong while bringing a model to the device or running it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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

/// Weights of a block.
pub(crate) struct BlockWeights {
    /// Of what the block reads.
    pub norm: Option<Norm>,
    /// Q, K and V projections, or gate and up, one below the other.
    pub input: Matrix,
    /// Of Q and K.
    pub head_norms: Option<HeadNorms>,
    /// The projection back to the hidden size.
    pub output: Matrix,
    /// Of what the block adds.
    pub post_norm: Option<Norm>,
}

impl BlockWeights {
    /// Bytes of its matrices on the device.
    pub(crate) fn packed_bytes(&self, gpu: &Gpu) -> u64 {
        self.input.packed_bytes(gpu) + self.output.packed_bytes(gpu)
    }
}

/// A model whose weights are on the device, or are brought there block by block.
pub struct DeviceModel {
    pub(crate) gpu: Rc<Gpu>,
    pub(crate) spec: ModelSpec,
    weights: Weights,
    /// The embedding in chunks of [`VOCABULARY_CHUNK`] rows; empty where it is streamed.
    pub(super) embedding: Rc<Vec<Matrix>>,
    /// The table of positions in such chunks; empty where there is none, or it is streamed.
    pub(super) positions: Vec<Matrix>,
    /// The head in the same chunks; the embedding itself when tied.
    pub(crate) head: Rc<Vec<Matrix>>,
    pub(crate) final_norm: Norm,
    /// Blocks that stay on the device: all that there are, or none.
    blocks: BTreeMap<BlockId, Rc<BlockWeights>>,
    supply: Supply,
}

/// Bytes that a model's weights take on a device, packed as the device's kernel wants them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WeightBytes {
    /// All blocks.
    pub blocks: u64,
    /// The largest block.
    pub largest_block: u64,
    /// The head with the final norm.
    pub head: u64,
    /// The embedding unless it is the head, and the table of positions.
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
    let widest = |layer: &Layer| {
        let attention = layer.attention.query_width() + 2 * layer.attention.key_width();
        attention.max(layer.dense().products() * layer.dense().inner)
    };
    let columns = spec.layers.iter().map(widest).max().unwrap_or(0).max(VOCABULARY_CHUNK.min(spec.vocab_size));
    let stacks = spec.blocks().flat_map(|block| Stack::of(spec, block)).chain(Stack::head(spec));
    let used: Vec<WeightFormat> = stacks.map(|stack| stack.format(weights)).collect();
    let mut needs = KernelNeeds {
        formats: WeightFormat::ALL.into_iter().filter(|format| used.contains(format)).collect(),
        norms: vec![spec.final_norm.kind],
        soft_capped_logits: spec.head.soft_cap.is_some(),
        ..Default::default()
    };
    needs.attention = attention_needs(spec);
    for layer in &spec.layers {
        needs.activations.push((layer.dense().activation, layer.dense().gated));
        for branch in [&layer.attention.branch, &layer.dense().branch] {
            needs.no_norm |= branch.norm.is_none();
            needs.norms.extend(branch.norm.map(|norm| norm.kind));
            needs.post_norms.extend(branch.post_norm.map(|norm| norm.kind));
        }
    }
    GpuOptions { largest_weight: columns as u64 * spec.hidden_size as u64 * 4, needs, ..Default::default() }
}

/// Each kind of attention that a model has.
pub(crate) fn attention_needs(spec: &ModelSpec) -> Vec<AttentionNeed> {
    let mut needs = Vec::new();
    for layer in &spec.layers {
        let over = layer.attention.qk_norm.map(|norm| norm.over);
        let attention = AttentionNeed::new(&forward::attention(spec, &layer.attention), over);
        if !needs.contains(&attention) {
            needs.push(attention);
        }
    }
    needs
}

impl DeviceModel {
    /// Reads every weight and uploads it; `progress` is told the parameters done and their total.
    ///
    /// # Errors
    /// Reading the weights, a weight that is not finite among it; a device that has no room for them or fails.
    pub async fn load(
        gpu: Rc<Gpu>,
        checkpoint: &Checkpoint,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ForwardError> {
        let spec = &checkpoint.spec;
        let (weights, supply) = (checkpoint.spec.in_order(&checkpoint.weights), Self::supply(&gpu, checkpoint)?);
        // Blocks are brought one by one, each with the norm that it may share.
        let blocks = spec.blocks().map(|block| spec.block_parameters(block)).sum::<u64>();
        let total = blocks + spec.outer_parameters(|_| true);
        let mut loader = Loader::new(&gpu, spec, &weights, &supply, total, progress)?;
        let embedding = Rc::new(loader.matrices(Stack::embedding(spec)).await?);
        let positions = loader.matrices(Stack::positions(spec)).await?;
        let head = match spec.head.tied {
            true => embedding.clone(),
            false => Rc::new(loader.matrices(Stack::head(spec)).await?),
        };
        let final_norm = loader.norm(&spec.outer_tensors(), Role::FinalNorm, spec.final_norm).await?;
        let mut blocks = BTreeMap::new();
        for block in forward::every_block(spec).filter(|block| spec.has(*block)) {
            blocks.insert(block, Rc::new(loader.block(spec, block).await?));
        }
        Ok(Self { gpu, spec: spec.clone(), weights, embedding, positions, head, final_norm, blocks, supply })
    }

    /// Uploads only the head and the final norm; everything else is read from the checkpoint whenever it is needed, so
    /// that a model may be larger than the device's memory.
    ///
    /// # Errors
    /// As [`DeviceModel::load`].
    pub async fn stream(
        gpu: Rc<Gpu>,
        checkpoint: &Checkpoint,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ForwardError> {
        let spec = &checkpoint.spec;
        let total = spec.outer_parameters(|tensor| match tensor.role {
            Role::Embedding => spec.head.tied,
            role => role != Role::Positions,
        });
        let (weights, supply) = (checkpoint.spec.in_order(&checkpoint.weights), Self::supply(&gpu, checkpoint)?);
        let mut loader = Loader::new(&gpu, spec, &weights, &supply, total, progress)?;
        let head = Rc::new(loader.matrices(Stack::head(spec)).await?);
        let embedding = if spec.head.tied { head.clone() } else { Rc::default() };
        let final_norm = loader.norm(&spec.outer_tensors(), Role::FinalNorm, spec.final_norm).await?;
        let (positions, blocks) = (Vec::new(), BTreeMap::new());
        Ok(Self { gpu, spec: spec.clone(), weights, embedding, positions, head, final_norm, blocks, supply })
    }

    /// For blocks that come and go: one is used while the next is brought.
    fn supply(gpu: &Gpu, checkpoint: &Checkpoint) -> Result<Supply, ForwardError> {
        Ok(Supply::new(2 * Self::weight_bytes(gpu, checkpoint)?.largest_block))
    }

    /// Bytes that this checkpoint's weights take on a device.
    ///
    /// # Errors
    /// [`GpuError::TooLarge`] for a weight that the device cannot bind even in pieces.
    pub fn weight_bytes(gpu: &Gpu, checkpoint: &Checkpoint) -> Result<WeightBytes, ForwardError> {
        let (spec, weights) = (&checkpoint.spec, &checkpoint.weights);
        let stack = |stack: &Stack| -> Result<u64, ForwardError> {
            let columns = stack.columns() as u32;
            Ok(Matrix::bytes(gpu, stack.format(weights), columns, stack.inner as u32)? + stack.bias_bytes())
        };
        let stacks =
            |stacks: &mut dyn Iterator<Item = Stack>| stacks.map(|chunk| stack(&chunk)).sum::<Result<u64, _>>();
        let norm = Norm::bytes(gpu, spec.final_norm.kind, spec.hidden_size as u32);
        let mut bytes = WeightBytes { head: stacks(&mut Stack::head(spec))? + norm, ..Default::default() };
        bytes.embedding = stacks(&mut Stack::positions(spec))?;
        if !spec.head.tied {
            bytes.embedding += stacks(&mut Stack::embedding(spec))?;
        }
        for block in spec.blocks() {
            // Norms of heads are of the kind that the others are.
            let norms = spec.block_tensors(block).into_iter().filter(|tensor| tensor.role.is_norm() && !tensor.bias);
            let norms: Vec<_> = norms.collect();
            // Those of heads that have one each lie together.
            let norms = norms.chunk_by(|a, b| a.role == b.role);
            let columns = norms.map(|norms| norms.iter().map(|tensor| tensor.rows.len() as u32).sum());
            let norms = columns.map(|columns| Norm::bytes(gpu, spec.final_norm.kind, columns)).sum::<u64>();
            let block = norms + stacks(&mut Stack::of(spec, block).into_iter())?;
            bytes.blocks += block;
            bytes.largest_block = bytes.largest_block.max(block);
        }
        Ok(bytes)
    }

    /// Bytes that `rows` rows of this checkpoint's head take on a device.
    pub(crate) fn head_bytes(gpu: &Gpu, checkpoint: &Checkpoint, rows: usize) -> Result<u64, ForwardError> {
        let spec = &checkpoint.spec;
        let stack = Stack::head_rows(spec, std::iter::once(0..rows));
        let format = stack.format(&checkpoint.weights);
        let chunk = |first| Matrix::bytes(gpu, format, VOCABULARY_CHUNK.min(rows - first) as u32, stack.inner as u32);
        Ok((0..rows).step_by(VOCABULARY_CHUNK).map(chunk).sum::<Result<u64, _>>()? + stack.bias_bytes())
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

    /// The weights of a block that the checkpoint has.
    pub(crate) async fn block(&self, block: BlockId) -> Result<Rc<BlockWeights>, ForwardError> {
        if let Some(weights) = self.blocks.get(&block) {
            return Ok(weights.clone());
        }
        Ok(Rc::new(self.bring(block).await?))
    }

    /// Brings the weights of a block that the checkpoint has, into storage that is used again for other blocks when nobody has
    /// them any more.
    pub(crate) async fn bring(&self, block: BlockId) -> Result<BlockWeights, ForwardError> {
        let mut quiet = |_, _| {};
        let mut loader = Loader::quiet(&self.gpu, &self.weights, &self.supply, &mut quiet).reusing();
        loader.block(&self.spec, block).await
    }

    /// Calls `each` with every chunk of the embedding and its first token.
    pub(crate) async fn embedding_chunks(&self, each: impl FnMut(u32, &Matrix)) -> Result<(), ForwardError> {
        self.chunks(&self.embedding, Stack::embedding(&self.spec), each).await
    }

    /// Calls `each` with every chunk of the table of positions, if there is one, and its first row.
    pub(crate) async fn position_chunks(&self, each: impl FnMut(u32, &Matrix)) -> Result<(), ForwardError> {
        self.chunks(&self.positions, Stack::positions(&self.spec), each).await
    }

    /// Calls `each` with chunks that are on the device, or else are brought one by one.
    async fn chunks(
        &self,
        resident: &[Matrix],
        stacks: impl Iterator<Item = Stack>,
        mut each: impl FnMut(u32, &Matrix),
    ) -> Result<(), ForwardError> {
        for (chunk, matrix) in resident.iter().enumerate() {
            each((chunk * VOCABULARY_CHUNK) as u32, matrix);
        }
        if resident.is_empty() {
            let mut quiet = |_, _| {};
            let mut loader = Loader::quiet(&self.gpu, &self.weights, &self.supply, &mut quiet);
            for (chunk, stack) in stacks.enumerate() {
                each((chunk * VOCABULARY_CHUNK) as u32, &loader.matrix(&stack).await?);
            }
        }
        Ok(())
    }

    /// Blocks that need every shader that the model needs: one for each shape and the formats of its weights.
    pub(crate) fn different_blocks(&self) -> BlockSet {
        let mut seen = Vec::new();
        let mut fresh = |block: &BlockId| {
            let layer = &self.spec.layers[block.layer];
            let attention = (block.kind == BlockKind::Mha).then_some(layer.attention);
            let feed_forward = (block.kind == BlockKind::Mlp).then_some(*layer.dense());
            let kind =
                (attention, feed_forward, Stack::of(&self.spec, *block).map(|stack| stack.format(&self.weights)));
            let known = seen.contains(&kind);
            seen.push(kind);
            !known
        };
        self.spec.blocks().filter(|block| fresh(block)).collect()
    }

    /// The rows of the head of these tokens (ascending), as a head of its own over a smaller vocabulary.
    pub(crate) async fn head_of(&self, tokens: &[u32]) -> Result<Matrix, ForwardError> {
        // Neighbouring tokens are one part.
        let runs = tokens.chunk_by(|a, b| a + 1 == *b).filter_map(|run| {
            let (first, last) = (*run.first()? as usize, *run.last()? as usize);
            Some(first..last + 1)
        });
        let stack = Stack::head_rows(&self.spec, runs);
        let mut quiet = |_, _| {};
        let mut loader = Loader::quiet(&self.gpu, &self.weights, &self.supply, &mut quiet);
        loader.matrix(&stack).await
    }
}
