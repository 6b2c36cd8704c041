//! A model on the device: every weight packed for the device's GEMM kernel.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use blockpruner_shaders::{WeightFormat, stride};

use super::family::{Role, TensorRef};
use super::forward::{self, VOCABULARY_CHUNK};
use super::spec::{Layer, QkNorm};
use super::{BlockId, BlockKind, BlockSet, Checkpoint, ModelError, ModelSpec};
use crate::gpu::{AttentionNeed, Gpu, GpuError, GpuOptions, HeadNorms, KernelNeeds, Matrix, Norm};
use crate::weights::{DType, FloatType, RowOrder, Weights, WeightsError};

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

/// A model whose weights are on the device, or are brought there block by block.
pub struct DeviceModel {
    pub(crate) gpu: Rc<Gpu>,
    pub(crate) spec: ModelSpec,
    weights: Weights,
    /// The embedding in chunks of [`VOCABULARY_CHUNK`] rows; empty where it is streamed.
    pub(super) embedding: Rc<Vec<Matrix>>,
    /// The head in the same chunks; the embedding itself when tied.
    pub(crate) head: Rc<Vec<Matrix>>,
    pub(crate) final_norm: Norm,
    /// Blocks that stay on the device: all that there are, or none.
    blocks: BTreeMap<BlockId, Rc<BlockWeights>>,
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
    let widest = |layer: &Layer| {
        let attention = layer.attention.query_width() + 2 * layer.attention.key_width();
        attention.max(2 * layer.dense().inner)
    };
    let columns = spec.layers.iter().map(widest).max().unwrap_or(0).max(VOCABULARY_CHUNK.min(spec.vocab_size));
    let head = spec.head_name();
    let stacks = spec.blocks().flat_map(|block| Stack::of(spec, block)).chain(Stack::vocabulary(spec, &head));
    let used: Vec<WeightFormat> = stacks.map(|stack| stack.format(weights)).collect();
    let mut needs = KernelNeeds {
        formats: WeightFormat::ALL.into_iter().filter(|format| used.contains(format)).collect(),
        soft_capped_logits: spec.head.soft_cap.is_some(),
        ..Default::default()
    };
    for layer in &spec.layers {
        let over = layer.attention.qk_norm.map(|norm| norm.over);
        let attention = AttentionNeed::new(&forward::attention(spec, &layer.attention), over);
        if !needs.attention.contains(&attention) {
            needs.attention.push(attention);
        }
        if !needs.activations.contains(&layer.dense().activation) {
            needs.activations.push(layer.dense().activation);
        }
        for branch in [&layer.attention.branch, &layer.dense().branch] {
            needs.no_norm |= branch.norm.is_none();
            needs.post_norm |= branch.post_norm.is_some();
        }
    }
    GpuOptions { largest_weight: columns as u64 * spec.hidden_size as u64 * 4, needs, ..Default::default() }
}

impl DeviceModel {
    /// Reads every weight and uploads it; `progress` is told the parameters done and their total.
    pub async fn load(
        gpu: Rc<Gpu>,
        checkpoint: &Checkpoint,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ForwardError> {
        let total = checkpoint.spec.parameters();
        let mut loader = Loader::new(&gpu, checkpoint, total, progress)?;
        let spec = &checkpoint.spec;
        let embedding = Rc::new(loader.vocabulary(spec, &spec.embedding_name()).await?);
        let head = match spec.head.tied {
            true => embedding.clone(),
            false => Rc::new(loader.vocabulary(spec, &spec.head_name()).await?),
        };
        let final_norm = loader.norm(&spec.outer_tensors(), Role::FinalNorm, spec.final_norm.eps).await?;
        let mut blocks = BTreeMap::new();
        for block in forward::every_block(spec).filter(|block| spec.has(*block)) {
            blocks.insert(block, Rc::new(loader.block(spec, block).await?));
        }
        let (spec, weights) = (checkpoint.spec.clone(), loader.weights);
        Ok(Self { gpu, spec, weights, embedding, head, final_norm, blocks })
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
        let mut loader = Loader::new(&gpu, checkpoint, total, progress)?;
        let head = Rc::new(loader.vocabulary(spec, &spec.head_name()).await?);
        let embedding = if spec.head.tied { head.clone() } else { Rc::default() };
        let final_norm = loader.norm(&spec.outer_tensors(), Role::FinalNorm, spec.final_norm.eps).await?;
        let (spec, weights) = (checkpoint.spec.clone(), loader.weights);
        Ok(Self { gpu, spec, weights, embedding, head, final_norm, blocks: BTreeMap::new() })
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
        let mut bytes = WeightBytes { head: vocabulary(&spec.head_name())? + norm, ..Default::default() };
        if !spec.head.tied {
            bytes.embedding = vocabulary(&spec.embedding_name())?;
        }
        for block in spec.blocks() {
            let norms = spec.block_tensors(block).into_iter().filter(|tensor| tensor.role.is_norm());
            let norms =
                norms.map(|tensor| gpu.readable_bytes(stride(tensor.rows.len() as u32) as u64 * 4)).sum::<u64>();
            let block = norms + Stack::of(spec, block).iter().map(stack).sum::<Result<u64, _>>()?;
            bytes.blocks += block;
            bytes.largest_block = bytes.largest_block.max(block);
        }
        Ok(bytes)
    }

    /// Bytes that `rows` rows of this checkpoint's head take on a device.
    pub(crate) fn head_bytes(gpu: &Gpu, checkpoint: &Checkpoint, rows: usize) -> Result<u64, ForwardError> {
        let spec = &checkpoint.spec;
        let parts = vec![Part::new(&spec.head_name(), 0..rows)];
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

    /// The weights of a block that the checkpoint has.
    pub(crate) async fn block(&self, block: BlockId) -> Result<Rc<BlockWeights>, ForwardError> {
        if let Some(weights) = self.blocks.get(&block) {
            return Ok(weights.clone());
        }
        let mut quiet = |_, _| {};
        let mut loader =
            Loader { gpu: &self.gpu, weights: self.weights.clone(), done: 0, total: 0, progress: &mut quiet };
        Ok(Rc::new(loader.block(&self.spec, block).await?))
    }

    /// Calls `each` with every chunk of the embedding and its first token.
    pub(crate) async fn embedding_chunks(&self, mut each: impl FnMut(u32, &Matrix)) -> Result<(), ForwardError> {
        for (chunk, matrix) in self.embedding.iter().enumerate() {
            each((chunk * VOCABULARY_CHUNK) as u32, matrix);
        }
        if self.embedding.is_empty() {
            let mut quiet = |_, _| {};
            let mut loader =
                Loader { gpu: &self.gpu, weights: self.weights.clone(), done: 0, total: 0, progress: &mut quiet };
            for (chunk, stack) in Stack::vocabulary(&self.spec, &self.spec.embedding_name()).enumerate() {
                each((chunk * VOCABULARY_CHUNK) as u32, &loader.matrix(&stack).await?);
            }
        }
        Ok(())
    }

    /// Blocks that need every shader that the model needs: one for each shape and the formats of its weights.
    pub(super) fn different_blocks(&self) -> BlockSet {
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
        let name = self.spec.head_name();
        // Neighbouring tokens are one part.
        let parts = tokens.chunk_by(|a, b| a + 1 == *b).filter_map(|run| {
            let (first, last) = (*run.first()? as usize, *run.last()? as usize);
            Some(Part::new(&name, first..last + 1))
        });
        let stack = Stack { parts: parts.collect(), inner: self.spec.hidden_size, biases: Vec::new() };
        let mut quiet = |_, _| {};
        let mut loader =
            Loader { gpu: &self.gpu, weights: self.weights.clone(), done: 0, total: 0, progress: &mut quiet };
        loader.matrix(&stack).await
    }
}

struct Loader<'a> {
    gpu: &'a Gpu,
    /// With their rows in the order of the forward pass.
    weights: Weights,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<'a> Loader<'a> {
    /// Checks that the device's kernel takes the model.
    fn new(
        gpu: &'a Gpu,
        checkpoint: &'a Checkpoint,
        total: u64,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Result<Self, ForwardError> {
        let spec = &checkpoint.spec;
        let ragged = spec.layers.iter().map(|layer| layer.attention.head_dim).find(|width| !width.is_multiple_of(4));
        if let Some(head_dim) = ragged.filter(|_| gpu.gemm().is_panel()) {
            return Err(GpuError::Unsuitable {
                wanted: format!("the kernel {}", gpu.gemm().name()),
                device: gpu.name().into(),
                reason: format!("it needs a head_dim that is a multiple of 4, and the model has {head_dim}"),
            }
            .into());
        }
        let orders = spec
            .blocks()
            .flat_map(|block| spec.block_tensors(block))
            .filter_map(|tensor| (tensor.order != RowOrder::Stored).then_some((tensor.name, tensor.order)));
        Ok(Self { gpu, weights: checkpoint.weights.reordered(orders), done: 0, total, progress })
    }

    fn advance(&mut self, parameters: usize) {
        self.done += parameters as u64;
        (self.progress)(self.done, self.total);
    }

    /// The norm of this role among a block's tensors.
    async fn norm(&mut self, tensors: &[TensorRef], role: Role, epsilon: f32) -> Result<Norm, ForwardError> {
        let Some(tensor) = tensors.iter().find(|tensor| tensor.role == role) else {
            unreachable!("only norms that the model has are loaded");
        };
        let mut values = self.weights.read_f32(&tensor.name).await?;
        self.advance(values.len());
        if tensor.plus_one {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        let columns = values.len() as u32;
        values.resize(stride(columns) as usize, 0.0);
        Ok(Norm { weight: self.gpu.upload_readable(&tensor.name, &values)?, columns, epsilon })
    }

    async fn vocabulary(&mut self, spec: &ModelSpec, name: &str) -> Result<Vec<Matrix>, ForwardError> {
        let mut chunks = Vec::new();
        for stack in Stack::vocabulary(spec, name) {
            chunks.push(self.matrix(&stack).await?);
        }
        Ok(chunks)
    }

    async fn block(&mut self, spec: &ModelSpec, block: BlockId) -> Result<BlockWeights, ForwardError> {
        let (tensors, layer) = (spec.block_tensors(block), &spec.layers[block.layer]);
        let [input, output] = Stack::of(spec, block);
        let (before, after) = match block.kind {
            BlockKind::Mha => (Role::AttentionNorm, Role::AttentionPostNorm),
            BlockKind::Mlp => (Role::FeedForwardNorm, Role::FeedForwardPostNorm),
        };
        let branch = layer.branch(block.kind);
        let qk_norm = layer.attention.qk_norm.filter(|_| block.kind == BlockKind::Mha);
        Ok(BlockWeights {
            norm: match branch.norm {
                Some(norm) => Some(self.norm(&tensors, before, norm.eps).await?),
                None => None,
            },
            input: self.matrix(&input).await?,
            head_norms: match qk_norm {
                Some(QkNorm { norm, over }) => Some(HeadNorms {
                    query: self.norm(&tensors, Role::QueryNorm, norm.eps).await?,
                    key: self.norm(&tensors, Role::KeyNorm, norm.eps).await?,
                    over,
                }),
                None => None,
            },
            output: self.matrix(&output).await?,
            post_norm: match branch.post_norm {
                Some(norm) => Some(self.norm(&tensors, after, norm.eps).await?),
                None => None,
            },
        })
    }

    async fn matrix(&mut self, stack: &Stack) -> Result<Matrix, ForwardError> {
        let Stack { parts, inner, biases } = stack;
        let (format, columns, inner) = (stack.format(&self.weights), stack.columns(), *inner);
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
        let label = parts.first().map_or("", |part| part.name.as_str());
        for range in Matrix::shards(self.gpu, format, columns as u32, inner as u32)? {
            let rows = self.stacked_rows(parts, inner, format, range.start as usize..range.end as usize).await?;
            matrix.push(self.gpu, label, range, &rows)?;
        }
        self.advance(parts.iter().map(|part| part.rows.len()).sum::<usize>() * inner);
        Ok(matrix)
    }

    /// Rows `range` of the stack of `parts`, in `format`.
    async fn stacked_rows(
        &self,
        parts: &[Part],
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
                if format.is_quantised() {
                    bytes.extend(self.weights.read_stored_rows(&part.name, rows).await?);
                } else {
                    let read = self.weights.read_rows(&part.name, rows).await?;
                    bytes.extend(if format == WeightFormat::F32 && read.dtype != FloatType::F32 {
                        bytemuck::cast_slice(&read.to_f32()).to_vec()
                    } else {
                        read.bytes
                    });
                }
            }
            let zeros = end - start - there.len();
            bytes.resize(bytes.len() + zeros * format.row_bytes(inner as u32), 0);
            first += part.height;
        }
        Ok(bytes)
    }
}

/// One matrix from rows of one or more tensors, one below the other, `[sum of rows, inner]`; either all of the tensors
/// have a bias or none. Tensors of different types meet in f32, and rows that are not whole blocks become f32.
struct Stack {
    parts: Vec<Part>,
    inner: usize,
    biases: Vec<Option<String>>,
}

impl Stack {
    /// The two matrices of a block: Q, K and V, or gate and up; then the projection back to the hidden size.
    fn of(spec: &ModelSpec, block: BlockId) -> [Self; 2] {
        let tensors = spec.block_tensors(block);
        let is_output = |tensor: &&TensorRef| tensor.role.is_output();
        [
            Self::from_tensors(tensors.iter().filter(|tensor| !is_output(tensor))),
            Self::from_tensors(tensors.iter().filter(is_output)),
        ]
    }

    /// The matrices among these tensors, one below the other, with their biases.
    fn from_tensors<'t>(tensors: impl Iterator<Item = &'t TensorRef> + Clone) -> Self {
        let mut stack = Self { parts: Vec::new(), inner: 0, biases: Vec::new() };
        for tensor in tensors.clone() {
            let Some(columns) = tensor.columns else { continue };
            let part = Part::new(&tensor.name, tensor.rows.clone());
            // What a gate multiplies lies at whole vectors behind it.
            stack.parts.push(if matches!(tensor.role, Role::Gate | Role::Up) { part.padded() } else { part });
            let mut biases = tensors.clone().filter(|other| other.is_bias() && other.role == tensor.role);
            stack.biases.push(biases.next().map(|bias| bias.name.clone()));
            stack.inner = columns;
        }
        stack
    }

    /// The chunks of an embedding or a head.
    fn vocabulary(spec: &ModelSpec, name: &str) -> impl Iterator<Item = Self> {
        let (size, inner) = (spec.vocab_size, spec.hidden_size);
        (0..size).step_by(VOCABULARY_CHUNK).map(move |first| {
            let rows = first..(first + VOCABULARY_CHUNK).min(size);
            Self { parts: vec![Part::new(name, rows)], inner, biases: Vec::new() }
        })
    }

    fn columns(&self) -> usize {
        self.parts.iter().map(|part| part.height).sum()
    }

    fn format(&self, weights: &Weights) -> WeightFormat {
        let mut types = self.parts.iter().filter_map(|part| Some(weights.get(&part.name)?.dtype));
        let first = types.next().unwrap_or(DType::F32);
        let format = match first {
            DType::F16 => WeightFormat::F16,
            DType::BF16 => WeightFormat::Bf16,
            DType::Q8_0 => WeightFormat::Q8_0,
            DType::Q4_0 => WeightFormat::Q4_0,
            DType::Q4_1 => WeightFormat::Q4_1,
            _ => WeightFormat::F32,
        };
        let whole = (self.inner as u32).is_multiple_of(format.block_elements());
        if whole && types.all(|other| other == first) { format } else { WeightFormat::F32 }
    }
}

/// Rows of a tensor that a matrix is stacked from.
struct Part {
    name: String,
    rows: Range<usize>,
    /// Rows that it takes in the matrix; what is over is zeros.
    height: usize,
}

impl Part {
    fn new(name: &str, rows: Range<usize>) -> Self {
        let height = rows.len();
        Self { name: name.into(), rows, height }
    }

    /// The next part then begins at a whole vector of a product's row.
    fn padded(mut self) -> Self {
        self.height = stride(self.height as u32) as usize;
        self
    }
}
