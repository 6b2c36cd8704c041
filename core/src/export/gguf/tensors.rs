//! The tensors of a written file: where their content comes from, in which type and in which order of rows.

use std::ops::Range;

use crate::export::ExportError;
use crate::export::hf::convert;
use crate::model::family::{Container, Role, TensorRef};
use crate::model::{BlockId, BlockKind, KeptLayer, ModelError, ModelSpec};
use crate::weights::gguf::TensorRow;
use crate::weights::quantize::quantize;
use crate::weights::{DType, FloatType, Form, RowOrder, Rows, Weights};

use super::{GgufOptions, GgufQuantisation};

/// Most bytes of a tensor that are in memory at once, counted as f32, where its rows lie near each other in the input.
const CHUNK_BYTES: usize = 32 << 20;
/// The width of a feed-forward block that adds zeros: what the blocks of the types that it is written in hold.
pub(super) const STUB_WIDTH: usize = 32;

/// What tensors are read from: the file as it is, of a GGUF file.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub spec: &'a ModelSpec,
    pub weights: &'a Weights,
    pub container: Container,
}

/// A tensor of the output.
pub(super) struct Output {
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    pub dtype: DType,
    content: Content,
}

enum Content {
    /// Rows of tensors of the input, one below the other.
    Stored(Vec<Piece>),
    /// One value everywhere.
    Constant(f32),
    /// These numbers.
    Given(Vec<f32>),
}

/// Rows of a tensor of the input.
#[derive(Clone, PartialEq)]
struct Piece {
    tensor: String,
    order: RowOrder,
    plus_one: bool,
    /// As `order` counts them.
    rows: Range<usize>,
}

/// A part of an output that is in memory at once.
pub(super) struct Chunk<'a> {
    piece: Option<&'a Piece>,
    rows: Range<usize>,
}

impl Output {
    /// A small tensor of F32.
    pub fn of_values(name: &str, values: Vec<f32>) -> Self {
        Self { name: name.to_string(), shape: vec![values.len()], dtype: DType::F32, content: Content::Given(values) }
    }

    /// The content of such a tensor.
    pub fn given(&self) -> Option<Vec<u8>> {
        let Content::Given(values) = &self.content else { return None };
        Some(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn columns(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// What the table of tensors says of it.
    pub fn row(&self) -> TensorRow<'_> {
        TensorRow { name: &self.name, shape: &self.shape, dtype: self.dtype, bytes: self.bytes() }
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> u64 {
        self.dtype.bytes_of(self.shape.iter().product()).unwrap_or(0)
    }

    /// Whether what was read is rounded.
    pub fn is_rounded(&self, input: &Input<'_>) -> bool {
        let Content::Stored(pieces) = &self.content else { return false };
        let read_as = |piece: &Piece| input.weights.get(&piece.tensor).map(|info| info.dtype);
        pieces.iter().filter_map(read_as).any(|dtype| dtype != self.dtype && self.dtype != DType::F32)
    }

    /// Its rows, in order, in parts of bounded size.
    pub fn chunks(&self) -> Vec<Chunk<'_>> {
        let step = (CHUNK_BYTES / (self.columns() * 4).max(1)).max(1);
        let cut = |rows: Range<usize>, step: usize| {
            let (start, end) = (rows.start, rows.end);
            (start..end).step_by(step).map(move |row| row..end.min(row + step))
        };
        let Content::Stored(pieces) = &self.content else {
            let rows = 0..self.shape.first().copied().unwrap_or(1);
            return cut(rows, step).map(|rows| Chunk { piece: None, rows }).collect();
        };
        let mut chunks = Vec::new();
        for piece in pieces {
            // A matrix with rows for columns is read whole, whatever is asked for.
            let step = if piece.order == RowOrder::Transposed { piece.rows.len().max(1) } else { step };
            chunks.extend(cut(piece.rows.clone(), step).map(|rows| Chunk { piece: Some(piece), rows }));
        }
        chunks
    }

    /// The bytes of one of its chunks.
    pub async fn content(&self, input: &Input<'_>, chunk: &Chunk<'_>) -> Result<Vec<u8>, ExportError> {
        let values = match (&self.content, chunk.piece) {
            (Content::Given(values), _) => values[chunk.rows.clone()].to_vec(),
            // No bits set are zeros in blocks of every type.
            (Content::Constant(0.0), _) => {
                let elements = chunk.rows.len() * self.columns();
                return Ok(vec![0; self.dtype.bytes_of(elements).unwrap_or(0) as usize]);
            }
            (Content::Constant(value), _) => vec![*value; chunk.rows.len() * self.columns()],
            (Content::Stored(_), None) => Vec::new(),
            (Content::Stored(_), Some(piece)) => {
                let stored = input.weights.get(&piece.tensor).map(|info| info.dtype);
                let same = stored == Some(self.dtype) && !piece.plus_one;
                let form = if same { Form::Stored } else { Form::F32 };
                let read = input.weights.read_in_order(&piece.tensor, piece.order, chunk.rows.clone(), form).await?;
                if same {
                    return Ok(read);
                }
                let mut values = Rows::of_f32(read).to_f32();
                if piece.plus_one {
                    values.iter_mut().for_each(|value| *value += 1.0);
                }
                values
            }
        };
        self.encode(values)
    }

    fn encode(&self, values: Vec<f32>) -> Result<Vec<u8>, ExportError> {
        if let Some(blocks) = quantize(self.dtype, &values) {
            // Scales are f16.
            let most = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            if most > f32::from(half::f16::MAX) {
                return Err(ExportError::Overflow { tensor: self.name.clone(), value: most, dtype: FloatType::F16 });
            }
            return Ok(blocks);
        }
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        convert(&self.name, Rows::of_f32(bytes), self.dtype.read_as())
    }
}

/// Chooses the outputs for the tensors of a model.
pub(super) struct Selection<'a> {
    pub input: Input<'a>,
    /// The model of the written file, in the layers of that file.
    pub target: &'a ModelSpec,
    pub options: &'a GgufOptions,
    pub outputs: Vec<Output>,
}

impl Selection<'_> {
    /// The tensors outside the layers.
    pub fn outer(&mut self) -> Result<(), ExportError> {
        let from = self.input.spec.outer_tensors_in(self.input.container);
        self.copied(&self.target.outer_tensors_in(Container::Gguf), &from, false)
    }

    /// The blocks of layer `layer` of the file, from these of the input.
    pub fn layer(&mut self, layer: usize, from: KeptLayer) -> Result<(), ExportError> {
        for (kind, from) in [(BlockKind::Mha, from.mha), (BlockKind::Mlp, from.mlp)] {
            if let Some(from) = from {
                self.block(BlockId { kind, layer }, BlockId { kind, layer: from }, false)?;
            }
        }
        Ok(())
    }

    /// A block of the file, of one of the input. A silent one has zeros for its output projection.
    pub fn block(&mut self, block: BlockId, from: BlockId, silent: bool) -> Result<(), ExportError> {
        let from = self.input.spec.block_tensors_in(self.input.container, from);
        self.copied(&self.target.block_tensors_in(Container::Gguf, block), &from, silent)
    }

    fn copied(&mut self, tensors: &[TensorRef], from: &[TensorRef], silent: bool) -> Result<(), ExportError> {
        let mut outputs: Vec<Output> = Vec::new();
        for (i, tensor) in tensors.iter().enumerate() {
            check_name(tensor)?;
            // A norm that both blocks of a layer read.
            if self.outputs.iter().any(|output| output.name == tensor.name) {
                continue;
            }
            let same = |other: &TensorRef| other.role == tensor.role && other.bias == tensor.bias;
            // One of several where each head has its own.
            let place = tensors[..i].iter().filter(|other| same(other)).count();
            let found = from.iter().filter(|found| same(found)).nth(place);
            let Some(found) = found else { return Err(no_place(tensor).into()) };
            let order = if found.transposed { RowOrder::Transposed } else { found.order };
            let piece = Piece {
                tensor: found.name.clone(),
                order: order.then(tensor.order.inverse()),
                plus_one: found.plus_one,
                rows: found.rows.clone(),
            };
            if let Some(output) = outputs.iter_mut().find(|output| output.name == tensor.name) {
                output.append(tensor.rows.len(), piece);
                continue;
            }
            let stored = self.input.weights.require_type(&piece.tensor)?;
            let dtype = self.dtype(tensor, &piece.tensor, stored)?;
            let shape = [Some(tensor.rows.len()), tensor.columns].into_iter().flatten().collect();
            let zeros = silent && tensor.role.is_output();
            let content = if zeros { Content::Constant(0.0) } else { Content::Stored(vec![piece]) };
            outputs.push(Output { name: tensor.name.clone(), shape, dtype, content });
        }
        self.outputs.append(&mut outputs);
        Ok(())
    }

    /// The type of a tensor whose content is stored so.
    fn dtype(&self, tensor: &TensorRef, name: &str, stored: DType) -> Result<DType, ExportError> {
        let GgufOptions { dtype, quantize, .. } = self.options;
        let hugging_face = self.input.container == Container::HuggingFace;
        let Some(columns) = tensor.columns.filter(|_| tensor.role != Role::Positions && !tensor.role.is_norm()) else {
            // As llama.cpp wants norms and biases, and what is added to the embedding.
            return Ok(if hugging_face || stored.is_quantised() { DType::F32 } else { stored });
        };
        if stored.is_quantised() {
            return match (dtype, quantize) {
                (None, None) => Ok(stored),
                _ => Err(ExportError::Requantised { tensor: name.to_string(), dtype: stored }),
            };
        }
        let float = dtype.map_or(stored, DType::from);
        let head = tensor.role == Role::Head || tensor.role == Role::Embedding && self.target.head.tied;
        Ok(match quantize {
            Some(_) if columns % STUB_WIDTH != 0 => float,
            Some(GgufQuantisation::Q4_0) if !head => DType::Q4_0,
            // The head decides more than a layer does; llama.cpp gives it more bits, too.
            Some(_) => DType::Q8_0,
            None => float,
        })
    }

    /// A block that the input does not have, as zeros, with norms of ones.
    pub fn constant(&mut self, block: BlockId) -> Result<(), ExportError> {
        let constants = self.constants(&self.target.block_tensors_in(Container::Gguf, block))?;
        self.outputs.extend(constants);
        Ok(())
    }

    fn constants(&self, tensors: &[TensorRef]) -> Result<Vec<Output>, ExportError> {
        let mut outputs: Vec<Output> = Vec::new();
        for tensor in tensors {
            check_name(tensor)?;
            if self.outputs.iter().any(|output| output.name == tensor.name) {
                continue;
            }
            if let Some(output) = outputs.iter_mut().find(|output| output.name == tensor.name) {
                output.shape[0] += tensor.rows.len();
                continue;
            }
            let shape = [Some(tensor.rows.len()), tensor.columns].into_iter().flatten().collect();
            let value = if tensor.role.is_norm() && !tensor.bias { 1.0 } else { 0.0 };
            let columns = tensor.columns.filter(|_| !tensor.role.is_norm());
            let dtype = columns.map_or(DType::F32, |columns| self.zeros_type(columns));
            outputs.push(Output { name: tensor.name.clone(), shape, dtype, content: Content::Constant(value) });
        }
        Ok(outputs)
    }

    /// A type for a matrix of zeros: that of floats where the file has such, so that it can be quantised like others, and
    /// one of few bits beside others of few bits.
    fn zeros_type(&self, columns: usize) -> DType {
        let mut written = self.outputs.iter().filter(|output| output.shape.len() > 1).map(|output| output.dtype);
        let few_bits = written.clone().any(DType::is_quantised) && columns.is_multiple_of(DType::Q4_0.block_elements());
        if few_bits { DType::Q4_0 } else { written.rfind(|dtype| !dtype.is_quantised()).unwrap_or(DType::F32) }
    }

    /// A feed-forward block of `deci` that adds zeros.
    pub fn feed_forward_stub(&mut self, layer: usize) -> Result<(), ExportError> {
        let mut tensors = self.target.block_tensors_in(Container::Gguf, BlockId::mlp(layer));
        for tensor in &mut tensors {
            match tensor.role {
                Role::Gate | Role::Up => tensor.rows = 0..STUB_WIDTH,
                Role::Down => tensor.columns = tensor.columns.map(|_| STUB_WIDTH),
                _ => {}
            }
        }
        let stub = self.constants(&tensors)?;
        self.outputs.extend(stub);
        Ok(())
    }

    /// An attention block of `deci` that adds zeros: one without keys, which is a single matrix.
    pub fn attention_stub(&mut self, layer: usize) -> Result<(), ExportError> {
        let mut tensors = self.target.block_tensors_in(Container::Gguf, BlockId::mha(layer));
        tensors.retain(|tensor| !tensor.bias && matches!(tensor.role, Role::AttentionNorm | Role::AttentionOut));
        for tensor in &mut tensors {
            tensor.columns = tensor.columns.map(|_| self.target.hidden_size);
        }
        let stub = self.constants(&tensors)?;
        self.outputs.extend(stub);
        Ok(())
    }
}

impl Output {
    /// Puts so many rows below those that are there.
    fn append(&mut self, rows: usize, piece: Piece) {
        self.shape[0] += rows;
        let Content::Stored(pieces) = &mut self.content else { return };
        match pieces.last_mut() {
            Some(last)
                if (Piece { rows: last.rows.clone(), ..piece.clone() }) == *last
                    && last.rows.end == piece.rows.start =>
            {
                last.rows.end = piece.rows.end;
            }
            _ => pieces.push(piece),
        }
    }
}

fn check_name(tensor: &TensorRef) -> Result<(), ModelError> {
    // What a family's table does not name.
    if tensor.name.contains("..") || tensor.name.starts_with('.') { Err(no_place(tensor)) } else { Ok(()) }
}

fn no_place(tensor: &TensorRef) -> ModelError {
    let bias = if tensor.bias { "bias" } else { "weight" };
    ModelError::NotInGguf { what: format!("there is no place for the {bias} of {:?}", tensor.role) }
}
