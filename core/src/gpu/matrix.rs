//! Weight matrices on the device: packed for the GEMM kernel in use, in shards that fit a binding.

use std::ops::Range;
use std::rc::Rc;

use blockpruner_shaders::{GemmKernel, Index, Kernel, WeightFormat, embedding, gemm, stride};

use super::spare::{Lease, Shape, Spare};
use super::upload::CHUNK;
use super::{Gpu, GpuError, Recording, Residual, Resource};

/// A weight `[columns, inner]` (as a checkpoint stores linear layers) with an optional bias `[columns]`.
pub struct Matrix {
    columns: u32,
    inner: u32,
    format: WeightFormat,
    shards: Vec<Shard>,
    bias: Option<wgpu::Buffer>,
    /// What no element is larger than, where the kernel needs it.
    largest: f32,
}

struct Shard {
    first: u32,
    columns: u32,
    storage: Resource,
    /// The same storage, where it is to be used again.
    lease: Option<Rc<Lease>>,
}

/// Rows of a weight and where their packed bytes go, which lie together.
pub(crate) struct Piece {
    /// Rows of the whole weight.
    pub rows: Range<usize>,
    /// Packed bytes.
    pub bytes: usize,
    /// A shard's storage,
    pub storage: Resource,
    /// and where in it, in bytes.
    pub offset: u64,
}

/// The left side of a product, in the form that the device's GEMM kernel reads: a storage that a shader has written to.
#[derive(Clone, Debug)]
pub struct Operand {
    storage: Resource,
    rows: u32,
}

impl Operand {
    /// The first `rows` rows of a storage.
    pub fn new(storage: &Resource, rows: u32) -> Self {
        Self { storage: storage.clone(), rows }
    }

    /// Rows of the left side.
    pub fn rows(&self) -> u32 {
        self.rows
    }
}

/// Where a product goes.
struct Target<'a> {
    output: &'a Resource,
    first_row: u32,
    /// What the product is added to: the output itself for the tile kernels.
    residual: Option<&'a Resource>,
    /// What it is multiplied by before.
    scale: f32,
}

/// What is looked up in a table, row by row of the output.
#[derive(Clone, Copy)]
pub enum Lookup<'a> {
    /// The rows of these tokens, multiplied by a scale.
    Tokens {
        /// Their ids.
        tokens: &'a wgpu::Buffer,
        /// The scale.
        scale: f32,
    },
    /// The rows of positions, which are added to what is there.
    Positions {
        /// Rows of a window, in each of which positions begin anew.
        window: u32,
        /// The table's row for the first of them.
        first: u32,
    },
    /// The rows of positions that are given for each row, which are added to what is there.
    EachPosition {
        /// Of each row.
        positions: &'a wgpu::Buffer,
        /// The table's row for position 0.
        first: u32,
    },
}

impl Matrix {
    /// The shards that a weight of this shape is stored in, as ranges of its rows; the first argument's limits decide.
    ///
    /// # Errors
    /// [`GpuError::TooLarge`] if not even the smallest shard fits a binding.
    pub fn shards(gpu: &Gpu, format: WeightFormat, columns: u32, inner: u32) -> Result<Vec<Range<u32>>, GpuError> {
        let block = gemm::block_columns(gpu.gemm());
        let block_bytes = gemm::packed_bytes(gpu.gemm(), format, block, inner);
        let limit = gpu.weight_binding();
        // One block is the least that a kernel can be given.
        let blocks = (limit / block_bytes.max(1)).max(1);
        if block_bytes > gpu.max_binding() {
            let what = format!("a block of {block} rows of a weight with {inner} columns");
            return Err(gpu.too_large(&what, block_bytes));
        }
        let step = blocks.saturating_mul(block as u64).min(columns.max(1) as u64) as u32;
        let starts = (0..columns).step_by(step as usize);
        Ok(starts.map(|first| first..(first + step).min(columns)).collect())
    }

    /// Bytes that a weight of this shape takes on the device in all its shards.
    ///
    /// # Errors
    /// Those of [`Matrix::shards`].
    pub fn bytes(gpu: &Gpu, format: WeightFormat, columns: u32, inner: u32) -> Result<u64, GpuError> {
        let shards = Self::shards(gpu, format, columns, inner)?;
        let packed = |shard: Range<u32>| gemm::packed_bytes(gpu.gemm(), format, shard.len() as u32, inner);
        Ok(shards.into_iter().map(|shard| gpu.readable_bytes(packed(shard))).sum())
    }

    /// A matrix without its weight; [`Matrix::push`] its shards in order.
    pub fn new(format: WeightFormat, columns: u32, inner: u32, bias: Option<wgpu::Buffer>) -> Self {
        Self { columns, inner, format, shards: Vec::new(), bias, largest: 0.0 }
    }

    /// Uploads the rows of one range of [`Matrix::shards`]: row-major blocks of the matrix's format, as a
    /// checkpoint stores them.
    ///
    /// # Errors
    /// What the device has no room for.
    pub fn push(&mut self, gpu: &Gpu, label: &str, range: Range<u32>, rows: &[u8]) -> Result<(), GpuError> {
        let packed = gemm::pack_weight(gpu.gemm(), self.format, self.inner, rows);
        let storage = self.shape(gpu, range.len() as u32).create(gpu, label)?;
        gpu.write(&storage, &packed)?;
        self.contains(gemm::largest(gpu.gemm(), self.format, rows));
        self.shards.push(Shard { first: range.start, columns: range.len() as u32, storage, lease: None });
        Ok(())
    }

    /// Makes room for all shards, out of `spare` or for good. [`Matrix::pieces`] says what must be written to it.
    pub(crate) fn make_room(&mut self, gpu: &Gpu, label: &str, spare: Option<&Rc<Spare>>) -> Result<(), GpuError> {
        for range in Self::shards(gpu, self.format, self.columns, self.inner)? {
            let shape = self.shape(gpu, range.len() as u32);
            let lease = spare.map(|spare| spare.lease(gpu, label, shape)).transpose()?;
            let storage = match &lease {
                Some(lease) => lease.storage().clone(),
                None => shape.create(gpu, label)?,
            };
            self.shards.push(Shard { first: range.start, columns: range.len() as u32, storage, lease });
        }
        Ok(())
    }

    /// Tells it of rows whose elements are at most this large.
    pub(crate) fn contains(&mut self, largest: f32) {
        self.largest = self.largest.max(largest);
    }

    fn shape(&self, gpu: &Gpu, columns: u32) -> Shape {
        let texture = gpu.gemm().is_panel().then_some(self.format != WeightFormat::F32);
        Shape { bytes: gemm::packed_bytes(gpu.gemm(), self.format, columns, self.inner), texture }
    }

    /// The weight in pieces that fit a chunk of staging memory, unless the rows that are packed together do not.
    pub(crate) fn pieces(&self, gpu: &Gpu) -> Vec<Piece> {
        let packed = |rows: u32| gemm::packed_bytes(gpu.gemm(), self.format, rows, self.inner);
        let together = gemm::packed_together(gpu.gemm());
        let step = (CHUNK as u64 / packed(together).max(1)).max(1).saturating_mul(together as u64);
        let mut pieces = Vec::new();
        for shard in &self.shards {
            for first in (0..shard.columns).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
                let rows = (shard.columns - first).min(u32::try_from(step).unwrap_or(u32::MAX));
                let start = (shard.first + first) as usize;
                pieces.push(Piece {
                    rows: start..start + rows as usize,
                    bytes: packed(rows) as usize,
                    storage: shard.storage.clone(),
                    offset: packed(first),
                });
            }
        }
        pieces
    }

    /// Bytes of its shards.
    pub(crate) fn packed_bytes(&self, gpu: &Gpu) -> u64 {
        self.shards.iter().map(|shard| self.shape(gpu, shard.columns).bytes).sum()
    }

    /// Rows of the weight, which are columns of a product.
    pub fn columns(&self) -> u32 {
        self.columns
    }

    /// Columns of the weight.
    pub fn inner(&self) -> u32 {
        self.inner
    }

    /// Appends `output [rows, columns] = operand [rows, inner] x self^T + bias`, into storage of [`Gpu::readable`] for
    /// [`gemm::output_bytes`] bytes of rows [`stride`] elements apart.
    pub fn record_product(&self, gpu: &Gpu, recording: &mut Recording, operand: &Operand, output: &Resource) {
        self.record(gpu, recording, operand, &Target { output, first_row: 0, residual: None, scale: 1.0 });
    }

    /// Appends `residual += scale * (operand [rows, inner] x self^T + bias)`. The panel kernels use `sums`, storage of
    /// [`Gpu::readable`] for as many rows of as many columns.
    pub fn record_residual(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        operand: &Operand,
        scale: f32,
        residual: &Residual<'_>,
        sums: &Resource,
    ) {
        let (input, first_row) = residual.input();
        let output = if gpu.gemm().is_panel() { sums } else { &input };
        self.record(gpu, recording, operand, &Target { output, first_row, residual: Some(&input), scale });
        residual.record_store(recording, sums, operand.rows, self.columns);
    }

    fn record(&self, gpu: &Gpu, recording: &mut Recording, operand: &Operand, target: &Target<'_>) {
        for shard in &self.shards {
            shard.lease.iter().for_each(|lease| recording.hold(lease));
            let block = gemm::block_columns(gpu.gemm());
            let blocks = shard.columns.div_ceil(block);
            let block_flops = 2 * operand.rows as u64 * self.inner as u64 * block as u64;
            let step = (gpu.dispatch_flops() / block_flops.max(1)).clamp(1, blocks.clamp(1, 65_535) as u64) as u32;
            for first_block in (0..blocks).step_by(step as usize) {
                let count = step.min(blocks - first_block);
                let flops = block_flops * count as u64;
                self.record_blocks(gpu, recording, operand, shard, first_block, count, target, flops);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one dispatch, spelt out")]
    fn record_blocks(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        operand: &Operand,
        shard: &Shard,
        first_block: u32,
        count: u32,
        target: &Target<'_>,
        flops: u64,
    ) {
        let residual = target.residual.filter(|_| gpu.gemm().is_panel());
        let kernel = Kernel::Gemm { kernel: gpu.gemm(), weight: self.format, residual: residual.is_some() };
        let bias = self.bias.as_ref().unwrap_or(gpu.nothing());
        let [a, weight, output] = [&operand.storage, &shard.storage, target.output].map(Resource::clone);
        let grid = [operand.rows.div_ceil(gemm::block_rows(gpu.gemm())), count, 1];
        let has_bias = self.bias.is_some() as u32;
        match gpu.gemm() {
            GemmKernel::Tile { .. } => {
                let params = gemm::TileParams {
                    rows: operand.rows,
                    columns: shard.columns,
                    inner: self.inner,
                    a_vectors: stride(self.inner) / 4,
                    row_units: gemm::row_units(gpu.gemm(), self.format, self.inner)
                        / if self.format.is_quantised() { 1 } else { 4 },
                    stride: stride(self.columns),
                    column_offset: shard.first,
                    has_bias,
                    first_block,
                    first_row: target.first_row,
                    add: target.residual.is_some() as u32,
                    scale: target.scale,
                    w_scale: gemm::f16_scale(self.largest),
                };
                recording.dispatch(kernel, &params, [a, weight, bias.into(), output], grid, flops);
            }
            GemmKernel::Panel { .. } => {
                let params = gemm::PanelParams {
                    rows: operand.rows,
                    columns: shard.columns,
                    inner4: gemm::inner_texels(self.inner),
                    stride: stride(self.columns),
                    column_offset: shard.first,
                    has_bias,
                    first_block,
                    scale: target.scale,
                };
                match residual.cloned() {
                    Some(residual) => {
                        recording.dispatch(kernel, &params, [a, weight, bias.into(), output, residual], grid, flops);
                    }
                    None => recording.dispatch(kernel, &params, [a, weight, bias.into(), output], grid, flops),
                }
            }
        }
    }

    /// Appends a lookup, into rows of `output [rows, inner]`, [`stride`] elements apart; of a table of which these are the rows
    /// from `first_row` on. Where it has none of them, the output stays.
    pub fn record_lookup(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        lookup: Lookup<'_>,
        rows: u32,
        first_row: u32,
        output: &wgpu::Buffer,
    ) {
        let (scale, window, first_position) = match lookup {
            Lookup::Tokens { scale, .. } => (scale, 1, 0),
            Lookup::Positions { window, first } => (1.0, window, first),
            Lookup::EachPosition { first, .. } => (1.0, 1, first),
        };
        for shard in &self.shards {
            shard.lease.iter().for_each(|lease| recording.hold(lease));
            let params = embedding::Params {
                rows,
                columns: self.inner,
                stride: stride(self.inner),
                row_units: gemm::row_units(gpu.gemm(), self.format, self.inner),
                first_row: first_row + shard.first,
                count: shard.columns,
                scale,
                window,
                first_position,
            };
            let (table, output) = (shard.storage.clone(), output.into());
            let grid = embedding::grid(gpu.gemm(), self.format, self.inner, rows);
            let kernel = |index| Kernel::Embedding { kernel: gpu.gemm(), weight: self.format, index };
            let amount = rows as u64 * self.inner as u64;
            match lookup {
                Lookup::Tokens { tokens, .. } => {
                    recording.dispatch(kernel(Index::Token), &params, [table, output, tokens.into()], grid, amount);
                }
                Lookup::Positions { .. } => {
                    recording.dispatch(kernel(Index::WindowPosition), &params, [table, output], grid, amount);
                }
                Lookup::EachPosition { positions, .. } => {
                    let bindings = [table, output, positions.into()];
                    recording.dispatch(kernel(Index::Position), &params, bindings, grid, amount);
                }
            }
        }
    }
}
