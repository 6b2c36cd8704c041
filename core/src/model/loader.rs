//! Bringing weights to the device: rows of the checkpoint's tensors are read, checked and packed into staging memory piece by
//! piece, natively on several threads.
//!
//! A thread reads so many rows at a time that they stay in its cache until they are packed, into memory that is used again.
//! Host memory for that is [`READ`] bytes, as many again where rows have to be converted, and as many once packed, a thread.
//! Matrices that are stored by columns are in memory whole, twice.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use blockpruner_shaders::{GemmKernel, WeightFormat, gemm, stride};

use super::device_model::{BlockWeights, ForwardError};
use super::family::{Role, TensorRef};
use super::forward::VOCABULARY_CHUNK;
use super::spec::{self, NormKind, QkNorm};
use super::{BlockId, BlockKind, ModelSpec};
use crate::gpu::{Gpu, GpuError, HeadNorms, Matrix, Norm, Piece, Spare, Staged, give_way};
use crate::weights::{ByteSource, DType, Form, Tensor, Weights, WeightsError};

/// Bytes of rows that are read at a time, unless the rows that are packed together are more.
const READ: usize = 256 << 10;

/// What bringing weights uses again and again.
pub(super) struct Supply {
    /// Storage of blocks that come and go.
    spare: Rc<Spare>,
    buffers: RefCell<Vec<Buffers>>,
}

impl Supply {
    /// `budget` bytes of storage are for blocks that come and go.
    pub(super) fn new(budget: u64) -> Self {
        Self { spare: Spare::new(budget), buffers: RefCell::default() }
    }
}

/// Memory of one thread.
#[derive(Default)]
struct Buffers {
    /// Stored rows that are to be converted or put in order.
    stored: Vec<u8>,
    /// Rows as they are packed.
    rows: Vec<u8>,
    packed: Vec<u8>,
}

pub(super) struct Loader<'a> {
    gpu: &'a Gpu,
    weights: &'a Weights,
    supply: &'a Supply,
    /// Whether storage of matrices comes out of the supply and goes back there.
    reuse: bool,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<'a> Loader<'a> {
    /// Checks that the device's kernel takes the model.
    pub(super) fn new(
        gpu: &'a Gpu,
        spec: &ModelSpec,
        weights: &'a Weights,
        supply: &'a Supply,
        total: u64,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Result<Self, ForwardError> {
        let ragged = spec.layers.iter().map(|layer| layer.attention.head_dim).find(|width| !width.is_multiple_of(4));
        if let Some(head_dim) = ragged.filter(|_| gpu.gemm().is_panel()) {
            return Err(GpuError::Unsuitable {
                wanted: format!("the kernel {}", gpu.gemm().name()),
                device: gpu.name().into(),
                reason: format!("it needs a head_dim that is a multiple of 4, and the model has {head_dim}"),
            }
            .into());
        }
        Ok(Self { gpu, weights, supply, reuse: false, done: 0, total, progress })
    }

    /// Brings what is needed for a while: told to nobody.
    pub(super) fn quiet(
        gpu: &'a Gpu,
        weights: &'a Weights,
        supply: &'a Supply,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        Self { gpu, weights, supply, reuse: false, done: 0, total: 0, progress }
    }

    /// Storage of matrices comes out of the supply from now on: those of blocks that come and go.
    pub(super) fn reusing(mut self) -> Self {
        self.reuse = true;
        self
    }

    fn advance(&mut self, parameters: usize) {
        self.done += parameters as u64;
        (self.progress)(self.done, self.total);
    }

    /// The norm of this role among a block's tensors.
    pub(super) async fn norm(
        &mut self,
        tensors: &[TensorRef],
        role: Role,
        norm: spec::Norm,
    ) -> Result<Norm, ForwardError> {
        let find = |bias| tensors.iter().filter(move |tensor| tensor.role == role && tensor.bias == bias);
        let Some(tensor) = find(false).next() else { unreachable!("only norms that the model has are loaded") };
        // More than one where each head has its own.
        let mut weight = Vec::new();
        for tensor in find(false) {
            weight.extend(self.vector(&tensor.name).await?);
        }
        if tensor.plus_one {
            weight.iter_mut().for_each(|value| *value += 1.0);
        }
        let bias = match (find(true).next(), norm.kind) {
            (Some(bias), _) => Some(self.vector(&bias.name).await?),
            (None, NormKind::Layer) => Some(vec![0.0; weight.len()]),
            (None, NormKind::Rms) => None,
        };
        Ok(Norm::new(self.gpu, &tensor.name, weight, bias.as_deref(), norm.eps)?)
    }

    async fn vector(&mut self, name: &str) -> Result<Vec<f32>, ForwardError> {
        let values = self.weights.read_f32(name).await?;
        self.advance(values.len());
        Ok(values)
    }

    pub(super) async fn matrices(&mut self, stacks: impl Iterator<Item = Stack>) -> Result<Vec<Matrix>, ForwardError> {
        let mut chunks = Vec::new();
        for stack in stacks {
            chunks.push(self.matrix(&stack).await?);
        }
        Ok(chunks)
    }

    pub(super) async fn block(&mut self, spec: &ModelSpec, block: BlockId) -> Result<BlockWeights, ForwardError> {
        let (tensors, layer) = (spec.block_tensors(block), &spec.layers[block.layer]);
        let [input, output] = Stack::of_tensors(&tensors);
        let (before, after) = match block.kind {
            BlockKind::Mha => (Role::AttentionNorm, Role::AttentionPostNorm),
            BlockKind::Mlp => (Role::FeedForwardNorm, Role::FeedForwardPostNorm),
        };
        let branch = layer.branch(block.kind);
        let qk_norm = layer.attention.qk_norm.filter(|_| block.kind == BlockKind::Mha);
        Ok(BlockWeights {
            norm: match branch.norm {
                Some(norm) => Some(self.norm(&tensors, before, norm).await?),
                None => None,
            },
            input: self.matrix(&input).await?,
            head_norms: match qk_norm {
                Some(QkNorm { norm, over }) => Some(HeadNorms {
                    query: self.norm(&tensors, Role::QueryNorm, norm).await?,
                    key: self.norm(&tensors, Role::KeyNorm, norm).await?,
                    over,
                }),
                None => None,
            },
            output: self.matrix(&output).await?,
            post_norm: match branch.post_norm {
                Some(norm) => Some(self.norm(&tensors, after, norm).await?),
                None => None,
            },
        })
    }

    pub(super) async fn matrix(&mut self, stack: &Stack) -> Result<Matrix, ForwardError> {
        let Stack { parts, inner } = stack;
        let transposed = parts.iter().filter(|part| part.transposed).map(|part| part.name.as_str());
        let transposed = self.weights.transposed(&transposed.collect()).await?;
        let weights = if parts.iter().any(|part| part.transposed) { &transposed } else { self.weights };
        let (format, columns, inner) = (stack.format(weights), stack.columns(), *inner);
        let mut bias = Vec::new();
        for part in parts {
            if let Some(name) = &part.bias {
                bias.extend(self.weights.read_rows(name, part.rows.clone()).await?.to_f32());
                bias.resize(bias.len() + part.height - part.rows.len(), 0.0);
                self.advance(part.rows.len());
            }
        }
        bias.resize(stride(bias.len() as u32) as usize, 0.0);
        let bias = match bias.is_empty() {
            true => None,
            false => Some(self.gpu.upload("bias", bytemuck::cast_slice(&bias))?),
        };
        let mut matrix = Matrix::new(format, columns as u32, inner as u32, bias);
        let label = parts.first().map_or("", |part| part.name.as_str());
        let strips = Strips::new(weights, parts, inner, format)?;
        matrix.make_room(self.gpu, label, self.reuse.then_some(&self.supply.spare))?;
        let largest = self.bring(&strips, &matrix.pieces(self.gpu)).await?;
        matrix.contains(largest);
        self.advance(parts.iter().map(|part| part.rows.len()).sum::<usize>() * inner);
        give_way().await;
        Ok(matrix)
    }

    /// Packs pieces of the stack and puts them on their way. What [`Strips::fill`] tells of them.
    async fn bring(&self, strips: &Strips<'_, dyn ByteSource>, pieces: &[Piece]) -> Result<f32, ForwardError> {
        #[cfg(not(target_arch = "wasm32"))]
        if pieces.len() > 1
            && let Some(shared) = strips.shared()
        {
            return threads::bring(self.gpu, &self.supply.buffers, &shared, pieces);
        }
        let mut buffers = self.supply.buffers.borrow_mut().pop().unwrap_or_default();
        let mut most = 0.0;
        for piece in pieces {
            let mut staged = self.gpu.stage(piece.bytes)?;
            match strips.fill(self.gpu.gemm(), &piece.rows, &mut buffers, &mut staged).await {
                Ok(largest) => {
                    most = f32::max(most, largest);
                    self.gpu.send(staged, &piece.storage, piece.offset)?;
                }
                Err(error) => {
                    self.gpu.unstage(staged);
                    return Err(error.into());
                }
            }
        }
        self.supply.buffers.borrow_mut().push(buffers);
        Ok(most)
    }
}

/// Rows of one or more tensors, one below the other, as they are read.
struct Strips<'a, S: ByteSource + ?Sized> {
    /// With the first row of each in the stack, in order.
    strips: Vec<(usize, Tensor<'a, S>, &'a Part)>,
    inner: u32,
    format: WeightFormat,
}

impl<'a> Strips<'a, dyn ByteSource> {
    fn new(weights: &'a Weights, parts: &'a [Part], inner: usize, format: WeightFormat) -> Result<Self, WeightsError> {
        let mut first = 0;
        let mut strips = Vec::with_capacity(parts.len());
        for part in parts {
            strips.push((first, weights.tensor(&part.name)?, part));
            first += part.height;
        }
        Ok(Self { strips, inner: inner as u32, format })
    }

    /// The same for several threads, where all sources can be shared.
    #[cfg(not(target_arch = "wasm32"))]
    fn shared(&self) -> Option<Strips<'a, crate::weights::SharedSource>> {
        let strips = self.strips.iter().map(|(first, tensor, part)| Some((*first, tensor.shared()?, *part)));
        Some(Strips { strips: strips.collect::<Option<_>>()?, inner: self.inner, format: self.format })
    }
}

impl<S: ByteSource + ?Sized> Strips<'_, S> {
    /// Packs rows of the stack, from rows that are packed together on, into staging memory. What no element is larger than,
    /// if the kernel needs it.
    async fn fill(
        &self,
        kernel: GemmKernel,
        rows: &Range<usize>,
        buffers: &mut Buffers,
        staged: &mut Staged,
    ) -> Result<f32, WeightsError> {
        let mut largest = 0.0;
        let row_bytes = self.format.row_bytes(self.inner);
        let together = gemm::packed_together(kernel) as usize;
        let step = (READ / (together * row_bytes).max(1)).max(1) * together;
        for first in rows.clone().step_by(step) {
            let now = first..(first + step).min(rows.end);
            let columns = now.len();
            let to = at_least(&mut buffers.rows, columns * row_bytes);
            self.read(now, row_bytes, &mut buffers.stored, to).await?;
            largest = f32::max(largest, gemm::largest(kernel, self.format, to));
            let bytes = gemm::packed_bytes(kernel, self.format, columns as u32, self.inner) as usize;
            if gemm::packed_as_stored(kernel, self.format, self.inner) {
                staged.append(to);
                continue;
            }
            let packed = at_least(&mut buffers.packed, bytes);
            gemm::pack_rows(kernel, self.format, self.inner, to, packed);
            staged.append(packed);
        }
        Ok(largest)
    }

    /// Rows of the stack, of `row_bytes` bytes each.
    async fn read(
        &self,
        rows: Range<usize>,
        row_bytes: usize,
        stored: &mut Vec<u8>,
        mut to: &mut [u8],
    ) -> Result<(), WeightsError> {
        // The last that begins at or before the first row. Those without rows before it do not matter.
        let begin = self.strips.partition_point(|(first, ..)| *first <= rows.start).saturating_sub(1);
        for (first, tensor, part) in self.strips.iter().skip(begin).take_while(|(first, ..)| *first < rows.end) {
            let within = |row: usize| row.clamp(*first, first + part.height) - first;
            let (start, end) = (within(rows.start), within(rows.end));
            let there = start.min(part.rows.len())..end.min(part.rows.len());
            let (these, rest) = to.split_at_mut((end - start) * row_bytes);
            to = rest;
            let (filled, zeros) = these.split_at_mut(there.len() * row_bytes);
            zeros.fill(0);
            if !there.is_empty() {
                let from = part.rows.start + there.start..part.rows.start + there.end;
                let form = if self.format == WeightFormat::F32 { Form::F32 } else { Form::Stored };
                tensor.read(from, form, stored, filled).await?;
                if part.unit_rows {
                    filled.chunks_mut(row_bytes).for_each(divide_by_length);
                }
            }
        }
        Ok(())
    }
}

/// Divides a row of f32 by its length; one of zeros stays.
fn divide_by_length(row: &mut [u8]) {
    let value = |bytes: &[u8]| f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let squares: f64 = row.chunks_exact(4).map(|bytes| (value(bytes) as f64).powi(2)).sum();
    // As in PyTorch's `normalize`.
    let length = (squares.sqrt() as f32).max(1e-12);
    row.chunks_exact_mut(4).for_each(|bytes| bytes.copy_from_slice(&(value(bytes) / length).to_ne_bytes()));
}

/// The first `bytes` bytes of memory that grows to them.
fn at_least(memory: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if memory.len() < bytes {
        memory.resize(bytes, 0);
    }
    &mut memory[..bytes]
}

#[cfg(not(target_arch = "wasm32"))]
mod threads {
    //! Pieces are filled by several threads; the caller's hands staging memory out, and puts it on its way.

    use std::cell::RefCell;
    use std::sync::{Mutex, mpsc};
    use std::thread;

    use super::{Buffers, Strips};
    use crate::gpu::{Gpu, MOST_AWAY, Piece, Staged};
    use crate::model::ForwardError;
    use crate::weights::SharedSource;

    /// Threads that pack at a time, at most: beyond it memory is the limit.
    const MOST: usize = 8;

    pub(super) fn bring(
        gpu: &Gpu,
        buffers: &RefCell<Vec<Buffers>>,
        strips: &Strips<'_, SharedSource>,
        pieces: &[Piece],
    ) -> Result<f32, ForwardError> {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST).min(pieces.len());
        let away = (2 * threads).min(MOST_AWAY);
        let kernel = gpu.gemm();
        let mut own: Vec<Buffers> = buffers.borrow_mut().drain(..).collect();
        own.resize_with(own.len().max(threads), Buffers::default);
        let (hand_out, jobs) = mpsc::channel::<(usize, Staged)>();
        let (hand_in, filled) = mpsc::channel();
        let jobs = Mutex::new(jobs);
        let rows: Vec<_> = pieces.iter().map(|piece| &piece.rows).collect();
        let result = thread::scope(|scope| {
            for buffers in own.iter_mut().take(threads) {
                let (jobs, hand_in, rows) = (&jobs, hand_in.clone(), &rows);
                scope.spawn(move || {
                    // Ends when there is nothing more to be handed out.
                    while let Ok((piece, mut staged)) = next(jobs) {
                        let result = pollster::block_on(strips.fill(kernel, rows[piece], buffers, &mut staged));
                        if hand_in.send((piece, staged, result)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(hand_in);
            let mut pieces_left = pieces.iter().enumerate();
            let (mut out, mut most) = (0, 0.0);
            // The first in the order of the weight, so that a damaged file always is told of in the same words.
            let mut failed: Option<(usize, ForwardError)> = None;
            loop {
                while failed.is_none()
                    && out < away
                    && let Some((number, piece)) = pieces_left.next()
                {
                    let staged = gpu.stage(piece.bytes).and_then(|staged| {
                        let gone = |_| gpu.lost("the threads that pack weights are gone");
                        hand_out.send((number, staged)).map_err(gone)
                    });
                    match staged {
                        Ok(()) => out += 1,
                        Err(error) => failed = Some((number, error.into())),
                    }
                }
                if out == 0 {
                    break;
                }
                let Ok((number, staged, result)) = filled.recv() else { break };
                out -= 1;
                let result = match result {
                    Ok(largest) if failed.is_none() => {
                        let piece = &pieces[number];
                        most = f32::max(most, largest);
                        gpu.send(staged, &piece.storage, piece.offset).map_err(ForwardError::from)
                    }
                    result => {
                        gpu.unstage(staged);
                        result.map(|_| ()).map_err(ForwardError::from)
                    }
                };
                if let Err(error) = result
                    && failed.as_ref().is_none_or(|(before, _)| number < *before)
                {
                    failed = Some((number, error));
                }
            }
            drop(hand_out);
            failed.map_or(Ok(most), |(_, error)| Err(error))
        });
        buffers.borrow_mut().extend(own);
        result
    }

    fn next(jobs: &Mutex<mpsc::Receiver<(usize, Staged)>>) -> Result<(usize, Staged), mpsc::RecvError> {
        jobs.lock().map_err(|_| mpsc::RecvError)?.recv()
    }
}

/// One matrix from rows of one or more tensors, one below the other, `[sum of rows, inner]`; either all of the tensors
/// have a bias or none. Tensors of different types meet in f32, and rows that are not whole blocks become f32.
pub(super) struct Stack {
    pub(super) parts: Vec<Part>,
    pub(super) inner: usize,
}

impl Stack {
    /// The two matrices of a block: Q, K and V, or gate and up; then the projection back to the hidden size.
    pub(super) fn of(spec: &ModelSpec, block: BlockId) -> [Self; 2] {
        Self::of_tensors(&spec.block_tensors(block))
    }

    /// The same from the block's tensors.
    fn of_tensors(tensors: &[TensorRef]) -> [Self; 2] {
        let is_output = |tensor: &&TensorRef| tensor.role.is_output();
        [
            Self::from_tensors(tensors.iter().filter(|tensor| !is_output(tensor))),
            Self::from_tensors(tensors.iter().filter(is_output)),
        ]
    }

    /// The matrices among these tensors, one below the other, with their biases.
    fn from_tensors<'t>(tensors: impl Iterator<Item = &'t TensorRef> + Clone) -> Self {
        let mut stack = Self { parts: Vec::new(), inner: 0 };
        for tensor in tensors.clone() {
            let Some(columns) = tensor.columns else { continue };
            let mut biases = tensors.clone().filter(|other| other.bias && other.role == tensor.role);
            let part = Part::new(&tensor.name, tensor.rows.clone()).biased(biases.next().map(|bias| bias.name.clone()));
            let part = Part { transposed: tensor.transposed, ..part };
            // What a gate multiplies lies at whole vectors behind it.
            stack.parts.push(if matches!(tensor.role, Role::Gate | Role::Up) { part.padded() } else { part });
            stack.inner = columns;
        }
        stack
    }

    /// The chunks of the embedding.
    pub(super) fn embedding(spec: &ModelSpec) -> impl Iterator<Item = Self> {
        let part = |rows| Part::new(&spec.embedding_name(), rows);
        Self::chunks(spec.vocab_size).map(move |rows| Self { parts: vec![part(rows)], inner: spec.hidden_size })
    }

    /// The chunks of the table of positions, if there is one.
    pub(super) fn positions(spec: &ModelSpec) -> impl Iterator<Item = Self> {
        let rows = spec.embedding.positions.map_or(0, |positions| positions.offset + spec.max_positions);
        Self::chunks(rows)
            .map(|rows| Self { parts: vec![Part::new(&spec.positions_name(), rows)], inner: spec.hidden_size })
    }

    /// The chunks of the head.
    pub(super) fn head(spec: &ModelSpec) -> impl Iterator<Item = Self> {
        Self::chunks(spec.vocab_size).map(|rows| Self::head_rows(spec, [rows]))
    }

    /// Some rows of the head. Divided by their length, they are no numbers of the stored type any more.
    pub(super) fn head_rows(spec: &ModelSpec, rows: impl IntoIterator<Item = Range<usize>>) -> Self {
        let (name, bias) = (spec.head_name(), spec.head_bias_name());
        let parts = rows.into_iter().map(|rows| Part { unit_rows: spec.head.unit_rows, ..Part::new(&name, rows) });
        let parts = parts.map(|part| part.biased(bias.clone()));
        Self { parts: parts.collect(), inner: spec.hidden_size }
    }

    fn chunks(rows: usize) -> impl Iterator<Item = Range<usize>> {
        (0..rows).step_by(VOCABULARY_CHUNK).map(move |first| first..(first + VOCABULARY_CHUNK).min(rows))
    }

    /// Bytes of its bias on a device.
    pub(super) fn bias_bytes(&self) -> u64 {
        let biased = self.parts.iter().any(|part| part.bias.is_some());
        if biased { stride(self.columns() as u32) as u64 * 4 } else { 0 }
    }

    pub(super) fn columns(&self) -> usize {
        self.parts.iter().map(|part| part.height).sum()
    }

    pub(super) fn format(&self, weights: &Weights) -> WeightFormat {
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
        let stored = self.parts.iter().all(|part| !part.unit_rows);
        let whole = (self.inner as u32).is_multiple_of(format.block_elements());
        if stored && whole && types.all(|other| other == first) { format } else { WeightFormat::F32 }
    }
}

/// Rows of a tensor that a matrix is stacked from.
pub(super) struct Part {
    name: String,
    rows: Range<usize>,
    /// The tensor whose same rows are added to products.
    bias: Option<String>,
    /// Rows that it takes in the matrix; what is over is zeros.
    height: usize,
    /// Whether the tensor is to be transposed first.
    transposed: bool,
    /// Whether each row is divided by its length.
    unit_rows: bool,
}

impl Part {
    fn new(name: &str, rows: Range<usize>) -> Self {
        let height = rows.len();
        Self { name: name.into(), rows, bias: None, height, transposed: false, unit_rows: false }
    }

    fn biased(self, bias: Option<String>) -> Self {
        Self { bias, ..self }
    }

    /// The next part then begins at a whole vector of a product's row.
    fn padded(mut self) -> Self {
        self.height = stride(self.height as u32) as usize;
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::gpu::{GpuOptions, KernelChoice};
    use crate::weights::{BytesSource, ReadFuture, RowOrder, TensorInfo};

    /// Cannot be shared between threads.
    struct Alone(BytesSource);

    impl ByteSource for Alone {
        fn name(&self) -> &str {
            self.0.name()
        }
        fn len(&self) -> u64 {
            self.0.len()
        }
        fn read<'a>(&'a self, offset: u64, len: usize) -> ReadFuture<'a> {
            self.0.read(offset, len)
        }
    }

    /// Tensors `a`, `b`, .. of these types and rows, all of `columns` elements, with bytes that are finite in every type.
    fn weights(columns: usize, tensors: &[(DType, usize, RowOrder)], spoil: &[usize], shared: bool) -> Weights {
        let mut offset = 0;
        let infos: Vec<_> = tensors
            .iter()
            .zip('a'..)
            .map(|(&(dtype, rows, row_order), name)| {
                let bytes = dtype.bytes_of(rows * columns).unwrap();
                offset += bytes;
                let (name, shape) = (name.to_string(), vec![rows, columns]);
                TensorInfo { name, dtype, shape, source: 0, offset: offset - bytes, bytes, row_order, less_one: false }
            })
            .collect();
        let mut bytes: Vec<u8> = (0..offset as usize).map(|i| ((i * 37 + i / 253) % 0x38) as u8).collect();
        spoil.iter().for_each(|at| bytes[*at..at + 2].fill(0xff));
        let source = BytesSource::new("w.bin", bytes);
        let source: Rc<dyn ByteSource> = if shared { Rc::new(source) } else { Rc::new(Alone(source)) };
        Weights::new("test", vec![source], infos, vec![], DType::ALL).unwrap()
    }

    /// The rows of a stack, by reading each tensor at once.
    fn stacked(weights: &Weights, stack: &Stack) -> Vec<u8> {
        let format = stack.format(weights);
        let row_bytes = format.row_bytes(stack.inner as u32);
        let mut bytes = Vec::new();
        for part in &stack.parts {
            let tensor = weights.tensor(&part.name).unwrap();
            let form = if format == WeightFormat::F32 { Form::F32 } else { Form::Stored };
            let mut rows = vec![0; part.rows.len() * row_bytes];
            block_on(tensor.read(part.rows.clone(), form, &mut Vec::new(), &mut rows)).unwrap();
            rows.resize(part.height * row_bytes, 0);
            bytes.extend(rows);
        }
        bytes
    }

    fn stack(inner: usize, parts: Vec<Part>) -> Stack {
        Stack { parts, inner }
    }

    #[test]
    fn every_range_of_a_stack_is_what_its_parts_hold() {
        use DType::{BF16, F16, F32, IQ3S, Q4_0, Q4_1, Q4K, Q8_0};
        let rope = RowOrder::InterleavedRope { head_dim: 8, rotated: 8 };
        let plain = RowOrder::Stored;
        let alike = [F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4K, IQ3S].map(|dtype| [dtype, dtype]);
        for types in alike.into_iter().chain([[BF16, F16], [Q8_0, IQ3S]]) {
            let weights = weights(256, &[(types[0], 16, rope), (types[1], 11, plain)], &[], true);
            let stack = stack(256, vec![Part::new("a", 0..16), Part::new("b", 2..11).padded(), Part::new("a", 3..4)]);
            let (format, row_bytes) = (stack.format(&weights), stack.format(&weights).row_bytes(256));
            let expected = stacked(&weights, &stack);
            assert_eq!(expected.len(), (16 + 12 + 1) * row_bytes);
            let strips = Strips::new(&weights, &stack.parts, 256, format).unwrap();
            for (start, end) in (0..29).flat_map(|start| (start..=29).map(move |end| (start, end))) {
                let mut rows = vec![0xa5; (end - start) * row_bytes];
                block_on(strips.read(start..end, row_bytes, &mut Vec::new(), &mut rows)).unwrap();
                assert!(rows == expected[start * row_bytes..end * row_bytes], "{types:?} {start}..{end}");
            }
        }
    }

    #[test]
    fn what_is_brought_is_what_the_kernel_wants() {
        let kernels = [None, Some(KernelChoice::Tile), Some(KernelChoice::Panel)];
        for (kernel, max_binding_bytes) in
            kernels.into_iter().flat_map(|kernel| [(kernel, None), (kernel, Some(1 << 20))])
        {
            let options = GpuOptions { kernel, max_binding_bytes, ..Default::default() };
            let Ok(gpu) = block_on(Gpu::open(&options)) else {
                println!("{kernel:?} is not to be had here");
                continue;
            };
            let supply = Supply::new(64 << 20);
            for dtype in [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q4K] {
                // Ragged in every direction, and more than a chunk of staging memory.
                let columns = if dtype.is_quantised() { 1536 } else { 771 };
                for shared in [true, false] {
                    let weights = weights(
                        columns,
                        &[(dtype, 1501, RowOrder::Stored), (dtype, 2222, RowOrder::Stored)],
                        &[],
                        shared,
                    );
                    let parts = vec![Part::new("a", 0..1501).padded(), Part::new("b", 1..2222)];
                    let stack = stack(columns, parts);
                    let format = stack.format(&weights);
                    let rows = stacked(&weights, &stack);
                    let mut quiet = |_, _| {};
                    let mut loader = Loader::quiet(&gpu, &weights, &supply, &mut quiet).reusing();
                    // The second time in storage that is used again.
                    for _ in 0..2 {
                        let matrix = block_on(loader.matrix(&stack)).unwrap();
                        let (rows_all, inner) = (stack.columns() as u32, columns as u32);
                        let pieces = matrix.pieces(&gpu);
                        assert!(pieces.len() > 1);
                        let shards = Matrix::shards(&gpu, format, rows_all, inner).unwrap();
                        let starts = pieces.iter().filter(|piece| piece.offset == 0);
                        for (range, piece) in shards.into_iter().zip(starts) {
                            let row_bytes = format.row_bytes(inner);
                            let rows = &rows[range.start as usize * row_bytes..range.end as usize * row_bytes];
                            let packed = gemm::pack_weight(gpu.gemm(), format, inner, rows);
                            let found = block_on(gpu.read(&piece.storage, packed.len() / 4)).unwrap();
                            let found: &[u8] = bytemuck::cast_slice(&found);
                            assert!(found == packed, "{kernel:?} {dtype} {shared} {range:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_damaged_row_is_told_of_and_loading_goes_on() {
        let gpu = block_on(Gpu::open(&GpuOptions::default())).unwrap();
        let supply = Supply::new(64 << 20);
        let (columns, rows) = (1000, 8000);
        let at = |row: usize| row * columns * 2 + 20;
        for _ in 0..20 {
            let weights =
                weights(columns, &[(DType::BF16, rows, RowOrder::Stored)], &[at(7000), at(1234), at(4000)], true);
            let mut quiet = |_, _| {};
            let mut loader = Loader::quiet(&gpu, &weights, &supply, &mut quiet);
            let stack = stack(columns, vec![Part::new("a", 0..rows)]);
            match block_on(loader.matrix(&stack)) {
                Err(ForwardError::Weights(WeightsError::NotFinite { row: 1234, .. })) => {}
                Err(error) => panic!("{error}"),
                Ok(_) => panic!("damaged rows were taken"),
            }
        }
    }
}
