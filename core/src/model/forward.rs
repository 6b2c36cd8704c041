//! The forward pass, recorded: embedding, blocks, final norm and head, over a batch of equally long windows.
//!
//! Every function appends dispatches to a [`Recording`] and reads top to bottom like the model itself.

pub(crate) mod decode;

use blockpruner_shaders::{self as shaders, GemmKernel, Kernel, attention, gemm, groups_of_64, rotary, stride};

use super::device_model::{Attention, DeviceModel, FeedForward, ForwardError, VOCABULARY_CHUNK};
use super::{BlockId, BlockKind};
use crate::gpu::{Gpu, GpuError, Operand, Recording, Resource};

/// Targets whose logits exist at a time.
const HEAD_ROWS: u32 = 2048;
/// One attention dispatch does about this much arithmetic at most, unless one window alone does more.
const ATTENTION_FLOPS: u64 = 8_000_000_000;

/// Device memory that a forward pass over up to `windows` windows works in, shared by all batches.
pub(crate) struct Scratch {
    window: u32,
    /// `[window, head_dim / 2]` of (cos, sin).
    rope: wgpu::Buffer,
    /// The left side of the product under way: normed states, attention output or activated feed-forward rows.
    operand: Resource,
    qkv: wgpu::Buffer,
    /// Rows that the feed-forward buffers hold: fewer than a batch where the binding limit is small.
    mlp_rows: u32,
    gate_up: wgpu::Buffer,
    logits: wgpu::Buffer,
    running: wgpu::Buffer,
    /// Q, K and V, for the panel kernels.
    packed_heads: [wgpu::TextureView; 3],
}

impl Scratch {
    /// Allocates the buffers and textures for batches of up to `windows` windows.
    pub(crate) fn new(model: &DeviceModel, window: u32, windows: u32) -> Result<Self, ForwardError> {
        let (gpu, spec) = (&*model.gpu, &model.spec);
        let rows = window * windows;
        let [hidden, inner] = [spec.hidden_size as u32, spec.intermediate_size as u32];
        let queries = (spec.heads * spec.head_dim) as u32;
        let keys = (spec.kv_heads * spec.head_dim) as u32;
        let floats =
            |label: &str, rows: u32, columns: u32| gpu.storage(label, rows as u64 * stride(columns) as u64 * 4);
        let mlp_rows = (gpu.max_binding() / (8 * stride(inner) as u64)).clamp(1, rows as u64) as u32;
        let head_rows = rows.min(HEAD_ROWS);
        let chunk = VOCABULARY_CHUNK.min(spec.vocab_size) as u32;
        let frequencies = spec.rope.frequencies(window as usize)?;
        let table = rotary::table(&frequencies.inv_freq, frequencies.attention_scaling, window as usize);
        let bytes = |rows, inner| gemm::operand_bytes(gpu.gemm(), rows, inner);
        let operand = bytes(rows, hidden.max(queries)).max(bytes(mlp_rows, inner));
        Ok(Self {
            window,
            rope: gpu.upload("rotary table", bytemuck::cast_slice(&table))?,
            operand: Operand::storage(gpu, "left side of a product", operand)?,
            qkv: floats("Q, K and V", rows, queries + 2 * keys)?,
            mlp_rows,
            gate_up: floats("gate and up", mlp_rows, 2 * stride(inner))?,
            logits: floats("logits of a vocabulary chunk", head_rows, chunk)?,
            running: floats("running log-sum-exp", head_rows, 4)?,
            packed_heads: packed_heads(gpu, spec.heads, spec.kv_heads, spec.head_dim, window, windows)?,
        })
    }
}

fn packed_heads(
    gpu: &Gpu,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: u32,
    windows: u32,
) -> Result<[wgpu::TextureView; 3], GpuError> {
    let queries = attention::block_queries(gpu.gemm(), head_dim as u32);
    let texels = |heads: usize, keys: bool| match gpu.gemm() {
        GemmKernel::Tile => 0,
        GemmKernel::Panel { lanes, .. } => {
            let rows = window.next_multiple_of(if keys { attention::panel_keys(lanes) } else { queries });
            heads as u64 * rows as u64 * attention::head_texels(head_dim as u32) as u64 * windows as u64
        }
    };
    Ok([
        gpu.texture("packed Q", texels(heads, false), false)?,
        gpu.texture("packed K", texels(kv_heads, true), false)?,
        gpu.texture("packed V", texels(kv_heads, true), false)?,
    ])
}

/// Targets that the head scores together, with their place in the batch and their NLL.
pub(crate) struct HeadPart {
    first_row: u32,
    /// Rows of the states per group of `kept` targets.
    window: u32,
    kept: u32,
    /// Targets.
    pub(crate) rows: u32,
    targets: wgpu::Buffer,
    /// NLL of each target, in nats.
    pub(crate) nll: wgpu::Buffer,
}

/// Windows that run together.
pub(crate) struct Batch {
    pub(crate) windows: u32,
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
            head.push(HeadPart {
                first_row: first_row as u32,
                window: window as u32,
                kept: kept as u32,
                rows: targets.len() as u32,
                targets: gpu.upload("targets", bytemuck::cast_slice(targets))?,
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
        Ok(Self { windows: (ids.len() / window) as u32, tokens, head })
    }
}

impl DeviceModel {
    /// states = embedding[tokens].
    pub(crate) fn record_embedding(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        batch: &Batch,
        states: &wgpu::Buffer,
    ) {
        let rows = batch.windows * scratch.window;
        for (chunk, matrix) in self.embedding.iter().enumerate() {
            let first_token = (chunk * VOCABULARY_CHUNK) as u32;
            matrix.record_lookup(&self.gpu, recording, &batch.tokens, rows, first_token, states);
        }
    }

    /// states += block(norm(states)); nothing for a block that the checkpoint does not have.
    pub(crate) fn record_block(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        windows: u32,
        block: BlockId,
        states: &wgpu::Buffer,
    ) {
        match block.kind {
            BlockKind::Mha => {
                if let Some(Some(weights)) = self.attention.get(block.layer) {
                    self.record_attention(recording, scratch, windows, weights, states);
                }
            }
            BlockKind::Mlp => {
                if let Some(Some(weights)) = self.feed_forward.get(block.layer) {
                    self.record_feed_forward(recording, scratch, windows, weights, states);
                }
            }
        }
    }

    fn record_attention(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        windows: u32,
        weights: &Attention,
        states: &wgpu::Buffer,
    ) {
        let gpu = &*self.gpu;
        let rows = windows * scratch.window;
        let normed = self.record_norm(recording, scratch, states, &weights.norm, 0, rows, (1, 1));
        weights.qkv.record_product(gpu, recording, &normed, &scratch.qkv);
        let heads = self.record_attend(recording, scratch, windows);
        weights.o.record_residual(gpu, recording, &heads, states, 0);
    }

    fn record_feed_forward(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        windows: u32,
        weights: &FeedForward,
        states: &wgpu::Buffer,
    ) {
        let gpu = &*self.gpu;
        let all = windows * scratch.window;
        for first_row in (0..all).step_by(scratch.mlp_rows as usize) {
            let rows = scratch.mlp_rows.min(all - first_row);
            let normed = self.record_norm(recording, scratch, states, &weights.norm, first_row, rows, (1, 1));
            weights.gate_up.record_product(gpu, recording, &normed, &scratch.gate_up);
            let activated = self.record_swiglu(recording, scratch, rows);
            weights.down.record_residual(gpu, recording, &activated, states, first_row);
        }
    }

    fn record_swiglu(&self, recording: &mut Recording, scratch: &Scratch, rows: u32) -> Operand {
        let kernel = self.gpu.gemm();
        let inner = self.spec.intermediate_size as u32;
        let params = shaders::swiglu::Params { rows, stride: stride(inner), inner4: gemm::inner_texels(inner) };
        let bindings = [(&scratch.gate_up).into(), scratch.operand.clone()];
        let flops = rows as u64 * inner as u64 * 8;
        recording.dispatch(Kernel::SwiGlu { kernel }, &params, bindings, params.grid(kernel), flops);
        Operand::new(&scratch.operand, rows)
    }

    /// NLL of every target of the batch, from the states after the last block.
    pub(crate) fn record_head(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        batch: &Batch,
        states: &wgpu::Buffer,
    ) {
        for part in &batch.head {
            let (rows, map) = (part.rows, (part.window, part.kept));
            let normed = self.record_norm(recording, scratch, states, &self.final_norm, part.first_row, rows, map);
            for (chunk, matrix) in self.head.iter().enumerate() {
                matrix.record_product(&self.gpu, recording, &normed, &scratch.logits);
                let params = shaders::log_sum_exp::Params {
                    rows,
                    columns: matrix.columns(),
                    stride: stride(matrix.columns()),
                    first_token: (chunk * VOCABULARY_CHUNK) as u32,
                    is_first: (chunk == 0) as u32,
                    is_last: (chunk + 1 == self.head.len()) as u32,
                };
                let kernel = self.gpu.gemm();
                recording.dispatch(
                    Kernel::LogSumExp { kernel },
                    &params,
                    [(&scratch.logits).into(), (&part.targets).into(), (&scratch.running).into(), (&part.nll).into()],
                    shaders::log_sum_exp::grid(kernel, rows),
                    rows as u64 * matrix.columns() as u64 * 8,
                );
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one dispatch, spelt out")]
    fn record_norm(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        input: &wgpu::Buffer,
        weight: &wgpu::Buffer,
        first_row: u32,
        rows: u32,
        (window, kept): (u32, u32),
    ) -> Operand {
        let kernel = self.gpu.gemm();
        let columns = self.spec.hidden_size as u32;
        let params = shaders::rms_norm::Params {
            rows,
            columns,
            stride: stride(columns),
            inner4: gemm::inner_texels(columns),
            first_row,
            window,
            kept,
            epsilon: self.spec.rms_norm_eps,
        };
        let bindings = [input.into(), weight.into(), scratch.operand.clone()];
        let flops = rows as u64 * columns as u64 * 8;
        let grid = shaders::rms_norm::grid(kernel, rows);
        recording.dispatch(Kernel::RmsNorm { kernel }, &params, bindings, grid, flops);
        Operand::new(&scratch.operand, rows)
    }

    /// Columns of the fused projection with their padding.
    fn qkv_stride(&self) -> u32 {
        stride(((self.spec.heads + 2 * self.spec.kv_heads) * self.spec.head_dim) as u32)
    }

    fn record_rotary(&self, recording: &mut Recording, scratch: &Scratch, rows: u32) {
        let spec = &self.spec;
        let heads = (spec.heads + spec.kv_heads) as u32;
        let half_dim = (spec.head_dim / 2) as u32;
        let params = rotary::Params { rows, stride: self.qkv_stride(), heads, half_dim, window: scratch.window };
        let bindings = [(&scratch.rope).into(), (&scratch.qkv).into()];
        let grid = [groups_of_64(heads * half_dim), rows, 1];
        recording.dispatch(Kernel::Rotary, &params, bindings, grid, rows as u64 * (heads * half_dim) as u64 * 8);
    }

    fn record_attend(&self, recording: &mut Recording, scratch: &Scratch, windows: u32) -> Operand {
        let spec = &self.spec;
        let [heads, kv_heads, head_dim] = [spec.heads as u32, spec.kv_heads as u32, spec.head_dim as u32];
        let window = scratch.window;
        let kernel = self.gpu.gemm();
        let scale = 1.0 / (head_dim as f32).sqrt();
        let share = heads / kv_heads;
        let blocks = window.div_ceil(attention::block_queries(kernel, head_dim));
        let name = Kernel::Attention { kernel, head_dim };
        match kernel {
            GemmKernel::Tile => self.record_rotary(recording, scratch, windows * window),
            GemmKernel::Panel { lanes, .. } => self.record_attention_pack(recording, scratch, windows, lanes),
        }
        let window_flops = heads as u64 * window as u64 * window as u64 * head_dim as u64 * 2;
        let step = (ATTENTION_FLOPS / window_flops.max(1)).clamp(1, windows as u64) as u32;
        for first_window in (0..windows).step_by(step as usize) {
            let count = step.min(windows - first_window);
            let grid = [blocks, heads, count];
            let flops = window_flops * count as u64;
            let output = scratch.operand.clone();
            match kernel {
                GemmKernel::Tile => {
                    let (stride, output_stride) = (self.qkv_stride(), stride(heads * head_dim));
                    let params = attention::TileParams {
                        window,
                        heads,
                        share,
                        head_dim,
                        scale,
                        first_window,
                        stride,
                        output_stride,
                    };
                    recording.dispatch(name, &params, [(&scratch.qkv).into(), output], grid, flops);
                }
                GemmKernel::Panel { .. } => {
                    let inner4 = gemm::inner_texels(heads * head_dim);
                    let params = attention::PanelParams { window, heads, share, blocks, inner4, scale, first_window };
                    let [q, k, v] = &scratch.packed_heads;
                    recording.dispatch(name, &params, [q.into(), k.into(), v.into(), output], grid, flops);
                }
            }
        }
        Operand::new(&scratch.operand, windows * window)
    }

    fn record_attention_pack(&self, recording: &mut Recording, scratch: &Scratch, windows: u32, lanes: u32) {
        let spec = &self.spec;
        let [heads, kv_heads, head_dim] = [spec.heads as u32, spec.kv_heads as u32, spec.head_dim as u32];
        let window = scratch.window;
        let [queries, keys] = [attention::block_queries(self.gpu.gemm(), head_dim), attention::panel_keys(lanes)];
        let parts = [(0, heads, queries, 1), (heads, kv_heads, keys, 1), (heads + kv_heads, kv_heads, keys, 0)];
        for ((first_head, part_heads, group, rotate), texture) in parts.into_iter().zip(&scratch.packed_heads) {
            let params = attention::PackParams {
                window,
                stride: self.qkv_stride(),
                first_column: first_head * head_dim,
                heads: part_heads,
                group,
                blocks: window.div_ceil(group),
                rotate,
            };
            let texels = params.blocks * group * attention::head_texels(head_dim);
            recording.dispatch(
                Kernel::AttentionPack { head_dim },
                &params,
                [(&scratch.rope).into(), (&scratch.qkv).into(), texture.into()],
                [groups_of_64(texels), part_heads, windows],
                texels as u64 * part_heads as u64 * windows as u64 * 8,
            );
        }
    }
}
