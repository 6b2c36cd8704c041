//! The forward pass, recorded: embedding, blocks, final norm and head, over a batch of equally long windows.
//!
//! Every function appends dispatches to a [`Recording`] and reads top to bottom like the model itself.

use blockpruner_shaders::{self as shaders, GemmKernel, Kernel, attention, groups_of_64, rotary};

use super::device_model::{Attention, DeviceModel, FeedForward, ForwardError, VOCABULARY_CHUNK};
use super::{BlockId, BlockKind};
use crate::gpu::{Gpu, GpuError, Operand, Recording};

/// Targets whose logits exist at a time.
const HEAD_ROWS: u32 = 2048;
/// One attention dispatch does about this much arithmetic at most, unless one window alone does more.
const ATTENTION_FLOPS: u64 = 8_000_000_000;

/// Device memory that a forward pass over up to `windows` windows works in, shared by all batches.
pub(crate) struct Scratch {
    window: u32,
    /// `[window, head_dim / 2]` of (cos, sin).
    rope: wgpu::Buffer,
    normed: wgpu::Buffer,
    qkv: wgpu::Buffer,
    heads: wgpu::Buffer,
    branch: wgpu::Buffer,
    /// Rows that the feed-forward buffers hold: fewer than a batch where the binding limit is small.
    mlp_rows: u32,
    gate_up: wgpu::Buffer,
    activated: wgpu::Buffer,
    logits: wgpu::Buffer,
    running: wgpu::Buffer,
    /// Left sides of products, for the panel kernels.
    packed: wgpu::TextureView,
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
        let floats = |label: &str, rows: u32, columns: u32| gpu.storage(label, rows as u64 * columns as u64 * 4);
        let mlp_rows = (gpu.max_binding() / (8 * inner as u64)).clamp(1, rows as u64) as u32;
        let head_rows = rows.min(HEAD_ROWS);
        let chunk = VOCABULARY_CHUNK.min(spec.vocab_size) as u32;
        let frequencies = spec.rope.frequencies(window as usize)?;
        let table = rotary::table(&frequencies.inv_freq, frequencies.attention_scaling, window as usize);
        let texels = |rows, inner| Operand::scratch_texels(gpu.gemm(), rows, inner);
        let packed = texels(rows, hidden.max(queries)).max(texels(mlp_rows, inner));
        Ok(Self {
            window,
            rope: gpu.upload("rotary table", bytemuck::cast_slice(&table))?,
            normed: floats("normed states", rows, hidden)?,
            qkv: floats("Q, K and V", rows, queries + 2 * keys)?,
            heads: floats("attention output", rows, queries)?,
            branch: floats("branch", rows, hidden)?,
            mlp_rows,
            gate_up: floats("gate and up", mlp_rows, 2 * inner)?,
            activated: floats("activated", mlp_rows, inner)?,
            logits: floats("logits of a vocabulary chunk", head_rows, chunk)?,
            running: floats("running log-sum-exp", head_rows, 4)?,
            packed: gpu.texture("packed rows", packed, false)?,
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
    let texels = |heads: usize, rows: u32| match gpu.gemm() {
        GemmKernel::Tile => 0,
        GemmKernel::Panel { .. } => {
            heads as u64 * rows as u64 * attention::head_texels(head_dim as u32) as u64 * windows as u64
        }
    };
    let lanes = attention::block_queries(gpu.gemm(), head_dim as u32);
    Ok([
        gpu.texture("packed Q", texels(heads, window.next_multiple_of(lanes)), false)?,
        gpu.texture("packed K", texels(kv_heads, window), false)?,
        gpu.texture("packed V", texels(kv_heads, window), false)?,
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
        self.record_norm(recording, states, &weights.norm, &scratch.normed, 0, rows, (1, 1));
        let normed = Operand::record(gpu, recording, &scratch.normed, rows, weights.qkv.inner(), &scratch.packed);
        weights.qkv.record_product(gpu, recording, &normed, &scratch.qkv);
        self.record_rotary(recording, scratch, rows);
        self.record_attend(recording, scratch, windows);
        let heads = Operand::record(gpu, recording, &scratch.heads, rows, weights.o.inner(), &scratch.packed);
        weights.o.record_product(gpu, recording, &heads, &scratch.branch);
        self.record_residual(recording, &scratch.branch, states, 0, rows);
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
        let inner = self.spec.intermediate_size as u32;
        for first_row in (0..all).step_by(scratch.mlp_rows as usize) {
            let rows = scratch.mlp_rows.min(all - first_row);
            self.record_norm(recording, states, &weights.norm, &scratch.normed, first_row, rows, (1, 1));
            let normed =
                Operand::record(gpu, recording, &scratch.normed, rows, weights.gate_up.inner(), &scratch.packed);
            weights.gate_up.record_product(gpu, recording, &normed, &scratch.gate_up);
            recording.dispatch(
                Kernel::SwiGlu,
                &shaders::swiglu::Params { rows, columns: inner },
                [(&scratch.gate_up).into(), (&scratch.activated).into()],
                [groups_of_64(inner), rows, 1],
                rows as u64 * inner as u64 * 8,
            );
            let activated = Operand::record(gpu, recording, &scratch.activated, rows, inner, &scratch.packed);
            weights.down.record_product(gpu, recording, &activated, &scratch.branch);
            self.record_residual(recording, &scratch.branch, states, first_row, rows);
        }
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
            self.record_norm(recording, states, &self.final_norm, &scratch.normed, part.first_row, rows, map);
            let hidden = self.spec.hidden_size as u32;
            let normed = Operand::record(&self.gpu, recording, &scratch.normed, rows, hidden, &scratch.packed);
            for (chunk, matrix) in self.head.iter().enumerate() {
                matrix.record_product(&self.gpu, recording, &normed, &scratch.logits);
                let params = shaders::log_sum_exp::Params {
                    rows,
                    columns: matrix.columns(),
                    first_token: (chunk * VOCABULARY_CHUNK) as u32,
                    is_first: (chunk == 0) as u32,
                    is_last: (chunk + 1 == self.head.len()) as u32,
                };
                recording.dispatch(
                    Kernel::LogSumExp,
                    &params,
                    [(&scratch.logits).into(), (&part.targets).into(), (&scratch.running).into(), (&part.nll).into()],
                    shaders::folded_grid(rows),
                    rows as u64 * matrix.columns() as u64 * 8,
                );
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one dispatch, spelt out")]
    fn record_norm(
        &self,
        recording: &mut Recording,
        input: &wgpu::Buffer,
        weight: &wgpu::Buffer,
        output: &wgpu::Buffer,
        first_row: u32,
        rows: u32,
        (window, kept): (u32, u32),
    ) {
        let columns = self.spec.hidden_size as u32;
        let epsilon = self.spec.rms_norm_eps;
        let params = shaders::rms_norm::Params { rows, columns, first_row, window, kept, epsilon };
        let bindings = [input.into(), weight.into(), output.into()];
        let flops = rows as u64 * columns as u64 * 8;
        recording.dispatch(Kernel::RmsNorm, &params, bindings, shaders::folded_grid(rows), flops);
    }

    fn record_residual(
        &self,
        recording: &mut Recording,
        branch: &wgpu::Buffer,
        states: &wgpu::Buffer,
        first_row: u32,
        rows: u32,
    ) {
        let columns = self.spec.hidden_size as u32;
        let params = shaders::residual_add::Params { rows, columns, first_row };
        let grid = [groups_of_64(columns), rows, 1];
        let flops = rows as u64 * columns as u64 * 2;
        recording.dispatch(Kernel::ResidualAdd, &params, [branch.into(), states.into()], grid, flops);
    }

    fn record_rotary(&self, recording: &mut Recording, scratch: &Scratch, rows: u32) {
        let spec = &self.spec;
        let heads = (spec.heads + spec.kv_heads) as u32;
        let half_dim = (spec.head_dim / 2) as u32;
        let stride = ((spec.heads + 2 * spec.kv_heads) * spec.head_dim) as u32;
        let params = rotary::Params { rows, stride, heads, half_dim, window: scratch.window };
        let bindings = [(&scratch.rope).into(), (&scratch.qkv).into()];
        let grid = [groups_of_64(heads * half_dim), rows, 1];
        recording.dispatch(Kernel::Rotary, &params, bindings, grid, rows as u64 * stride as u64 * 4);
    }

    fn record_attend(&self, recording: &mut Recording, scratch: &Scratch, windows: u32) {
        let spec = &self.spec;
        let [heads, kv_heads, head_dim] = [spec.heads as u32, spec.kv_heads as u32, spec.head_dim as u32];
        let window = scratch.window;
        let kernel = self.gpu.gemm();
        let scale = 1.0 / (head_dim as f32).sqrt();
        let share = heads / kv_heads;
        let queries = attention::block_queries(kernel, head_dim);
        let blocks = window.div_ceil(queries);
        let name = Kernel::Attention { kernel, head_dim };
        if let GemmKernel::Panel { lanes, .. } = kernel {
            self.record_attention_pack(recording, scratch, windows, lanes);
        }
        let window_flops = heads as u64 * window as u64 * window as u64 * head_dim as u64 * 2;
        let step = (ATTENTION_FLOPS / window_flops.max(1)).clamp(1, windows as u64) as u32;
        for first_window in (0..windows).step_by(step as usize) {
            let count = step.min(windows - first_window);
            let grid = [blocks, heads, count];
            let flops = window_flops * count as u64;
            let output = (&scratch.heads).into();
            match kernel {
                GemmKernel::Tile => {
                    let params = attention::TileParams { window, heads, share, head_dim, scale, first_window };
                    recording.dispatch(name, &params, [(&scratch.qkv).into(), output], grid, flops);
                }
                GemmKernel::Panel { .. } => {
                    let params = attention::PanelParams { window, heads, share, head_dim, blocks, scale, first_window };
                    let [q, k, v] = &scratch.packed_heads;
                    recording.dispatch(name, &params, [q.into(), k.into(), v.into(), output], grid, flops);
                }
            }
        }
    }

    fn record_attention_pack(&self, recording: &mut Recording, scratch: &Scratch, windows: u32, lanes: u32) {
        let spec = &self.spec;
        let [heads, kv_heads, head_dim] = [spec.heads as u32, spec.kv_heads as u32, spec.head_dim as u32];
        let window = scratch.window;
        let parts = [(0, heads, lanes), (heads, kv_heads, 1), (heads + kv_heads, kv_heads, 1)];
        for ((first_head, part_heads, group), texture) in parts.into_iter().zip(&scratch.packed_heads) {
            let params = attention::PackParams {
                window,
                stride: (heads + 2 * kv_heads) * head_dim,
                first_column: first_head * head_dim,
                heads: part_heads,
                head_dim,
                group,
                blocks: window.div_ceil(group),
            };
            let texels = params.blocks * group * attention::head_texels(head_dim);
            recording.dispatch(
                Kernel::AttentionPack { lanes, head_dim },
                &params,
                [(&scratch.qkv).into(), texture.into()],
                [groups_of_64(texels), part_heads, windows],
                texels as u64 * part_heads as u64 * windows as u64 * 8,
            );
        }
    }
}
