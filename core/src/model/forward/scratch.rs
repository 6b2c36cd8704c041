//! The device memory that a forward pass works in.

use blockpruner_shaders::{gemm, heads, stride};

use super::batch::HEAD_ROWS;
use super::{VOCABULARY_CHUNK, attention};
use crate::gpu::{Gpu, Residual, Resource};
use crate::model::spec::Layer;
use crate::model::{DeviceModel, ForwardError, ModelSpec};

/// Device memory that a forward pass works in, over as many rows as it was made for or fewer; shared by all batches and, as
/// large as the largest needs it, by all blocks.
pub(crate) struct Scratch {
    /// For each rotary embedding of the model, `[window, rotated / 2]` of (cos, sin).
    pub(super) ropes: Vec<Resource>,
    /// The rows that a block adds to, for the panel kernels.
    pub(super) residual: Option<wgpu::TextureView>,
    /// The rows that parallel branches read, where a model has such.
    pub(super) input: Option<wgpu::Buffer>,
    /// The left side of the product under way: normed states, attention output or activated feed-forward rows; and, where
    /// what a block adds is normed, the sums of that for the panel kernels.
    pub(super) operand: Resource,
    /// Q, K and V; and what the attention block adds or, for the panel kernels, its sums.
    pub(super) qkv: Resource,
    /// Rows that the feed-forward buffers hold: fewer than a batch where the binding limit is small.
    pub(super) mlp_rows: u32,
    /// Gate and up; and what the feed-forward block adds or, for the panel kernels, its sums.
    pub(super) gate_up: Resource,
    pub(super) logits: Resource,
    /// Q, K and V, each by itself.
    pub(super) packed_heads: [Resource; 3],
}

/// Sizes of everything in [`Scratch`], in bytes but for the rows.
struct ScratchSizes {
    ropes: Vec<u64>,
    residual: u64,
    input: u64,
    operand: u64,
    qkv: u64,
    mlp_rows: u32,
    gate_up: u64,
    logits: u64,
    packed_heads: [u64; 3],
}

impl ScratchSizes {
    fn new(gpu: &Gpu, spec: &ModelSpec, window: u32, windows: u32) -> Self {
        let (rows, hidden) = (window * windows, spec.hidden_size as u32);
        let inner = spec.layers.iter().map(|layer| layer.dense().inner).max().unwrap_or(0) as u32;
        let products = spec.layers.iter().map(|layer| layer.dense().products()).max().unwrap_or(0) as u32;
        let product = |rows: u32, columns: u32| gemm::output_bytes(gpu.gemm(), rows, stride(columns));
        let operand = |rows, inner| gemm::operand_bytes(gpu.gemm(), rows, inner);
        let mlp_rows =
            (gpu.max_binding() / (4 * (products * stride(inner)).max(1) as u64)).clamp(1, rows as u64) as u32;
        let chunk = VOCABULARY_CHUNK.min(spec.vocab_size) as u32;
        let mut sizes = Self {
            ropes: spec.ropes.iter().map(|rope| window as u64 * (rope.rotated / 2) as u64 * 8).collect(),
            residual: Residual::copy_bytes(gpu, rows, hidden),
            input: spec.layers.iter().any(|layer| layer.parallel) as u64 * rows as u64 * stride(hidden) as u64 * 4,
            operand: operand(rows, hidden).max(operand(mlp_rows, inner)),
            qkv: product(rows, hidden),
            mlp_rows,
            gate_up: product(mlp_rows, hidden.max(products * stride(inner))),
            logits: product(rows.min(HEAD_ROWS), chunk),
            packed_heads: [0; 3],
        };
        for layer in &spec.layers {
            let shape = attention(spec, &layer.attention);
            sizes.operand = sizes.operand.max(operand(rows, shape.columns()));
            sizes.qkv = sizes.qkv.max(product(rows, shape.stride()));
            for (size, needed) in sizes.packed_heads.iter_mut().zip(shape.packed_bytes(gpu.gemm(), window, windows)) {
                *size = needed.max(*size);
            }
        }
        sizes
    }

    fn without_ropes(gpu: &Gpu, spec: &ModelSpec, rows: u32) -> Self {
        Self { ropes: Vec::new(), ..Self::new(gpu, spec, rows, 1) }
    }

    fn bytes(&self, gpu: &Gpu) -> u64 {
        let Self { residual, operand, qkv, gate_up, logits, packed_heads, .. } = self;
        let readable = [residual, operand, qkv, gate_up, logits].into_iter().chain(packed_heads).chain(&self.ropes);
        self.input + readable.map(|bytes| gpu.readable_bytes(*bytes)).sum::<u64>()
    }
}

impl Scratch {
    /// Allocates the buffers and textures for batches of up to `windows` windows.
    pub(crate) fn new(model: &DeviceModel, window: u32, windows: u32) -> Result<Self, ForwardError> {
        let (gpu, spec) = (&*model.gpu, &model.spec);
        let mut ropes = Vec::new();
        for rope in &spec.ropes {
            let frequencies = rope.frequencies(window as usize)?;
            let table = heads::table(&frequencies.inv_freq, frequencies.attention_scaling, window as usize);
            ropes.push(gpu.upload_readable("rotary table", table.as_flattened())?);
        }
        Ok(Self { ropes, ..Self::of_sizes(model, &ScratchSizes::new(gpu, spec, window, windows), window * windows)? })
    }

    /// The same for windows of any length that bring their own rotary tables, of `rows` rows in all, where each window takes
    /// as many as [`Scratch::window_rows`] says.
    pub(crate) fn without_ropes(model: &DeviceModel, rows: u32) -> Result<Self, ForwardError> {
        Self::of_sizes(model, &ScratchSizes::without_ropes(&model.gpu, &model.spec, rows), rows)
    }

    /// Everything but the rotary tables.
    fn of_sizes(model: &DeviceModel, sizes: &ScratchSizes, rows: u32) -> Result<Self, ForwardError> {
        let (gpu, spec) = (&*model.gpu, &model.spec);
        let [q, k, v] = sizes.packed_heads;
        let input = (sizes.input > 0).then(|| gpu.storage("what parallel branches read", sizes.input)).transpose()?;
        Ok(Self {
            ropes: Vec::new(),
            residual: Residual::copy(gpu, rows, spec.hidden_size as u32)?,
            input,
            operand: gpu.readable("left side of a product", sizes.operand)?,
            qkv: gpu.readable("Q, K and V", sizes.qkv)?,
            mlp_rows: sizes.mlp_rows,
            gate_up: gpu.readable("gate and up", sizes.gate_up)?,
            logits: gpu.readable("logits of a vocabulary chunk", sizes.logits)?,
            packed_heads: [gpu.readable("Q", q)?, gpu.readable("K", k)?, gpu.readable("V", v)?],
        })
    }

    /// Bytes that [`Scratch::new`] allocates.
    pub(crate) fn bytes(gpu: &Gpu, spec: &ModelSpec, window: u32, windows: u32) -> u64 {
        ScratchSizes::new(gpu, spec, window, windows).bytes(gpu)
    }

    /// Bytes that [`Scratch::without_ropes`] allocates.
    pub(crate) fn bytes_without_ropes(gpu: &Gpu, spec: &ModelSpec, rows: u32) -> u64 {
        ScratchSizes::without_ropes(gpu, spec, rows).bytes(gpu)
    }

    /// Rows that a window of `window` tokens takes, where Q, K and V lie in whole blocks of them.
    pub(crate) fn window_rows(gpu: &Gpu, spec: &ModelSpec, window: u32) -> u32 {
        let block = |layer: &Layer| attention(spec, &layer.attention).block_rows(gpu.gemm());
        window.next_multiple_of(spec.layers.iter().map(block).max().unwrap_or(1))
    }
}
