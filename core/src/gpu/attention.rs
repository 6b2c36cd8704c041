//! Causal attention over windows: rotary embedding, packing where the kernel in use needs it, and the product itself.

use blockpruner_shaders::{GemmKernel, Kernel, attention, gemm, groups_of_64, rotary, stride};

use super::{Gpu, GpuError, Operand, Recording, Resource};

/// One dispatch does about this much arithmetic at most, unless one window alone does more.
const DISPATCH_FLOPS: u64 = 8_000_000_000;

/// The heads of an attention block, whose projection `[rows, stride]` holds Q, K and V side by side.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads, a divisor of `heads`.
    pub kv_heads: u32,
    /// Elements of a head, even.
    pub head_dim: u32,
}

/// What attention reads and writes on the device.
pub struct AttentionBuffers<'a> {
    /// `[window, head_dim / 2]` of (cos, sin), as [`rotary::table`] makes it, as [`Gpu::readable`].
    pub rope: &'a Resource,
    /// The projection, as a product is written; the tile kernels turn Q and K in place.
    pub qkv: &'a Resource,
    /// Q, K and V of [`Heads::packed_texels`], for the panel kernels.
    pub packed: &'a [wgpu::TextureView; 3],
    /// The left side of the output projection.
    pub output: &'a Resource,
}

impl Heads {
    /// Elements from one row of the projection to the next.
    pub fn stride(&self) -> u32 {
        stride((self.heads + 2 * self.kv_heads) * self.head_dim)
    }

    /// Texels of Q, K and V as the panel kernels read them; 0 for the others.
    pub fn packed_texels(&self, kernel: GemmKernel, window: u32, windows: u32) -> [u64; 3] {
        let GemmKernel::Panel { lanes, .. } = kernel else { return [0; 3] };
        let texels = |heads: u32, group: u32| {
            let rows = window.next_multiple_of(group) as u64 * windows as u64;
            heads as u64 * rows * attention::head_texels(self.head_dim) as u64
        };
        let keys = texels(self.kv_heads, attention::panel_keys(lanes));
        [texels(self.heads, attention::block_queries(kernel, self.head_dim)), keys, keys]
    }

    /// The textures for [`AttentionBuffers::packed`].
    pub fn packed(&self, gpu: &Gpu, window: u32, windows: u32) -> Result<[wgpu::TextureView; 3], GpuError> {
        let [q, k, v] = self.packed_texels(gpu.gemm(), window, windows);
        Ok([gpu.texture("packed Q", q, false)?, gpu.texture("packed K", k, false)?, gpu.texture("packed V", v, false)?])
    }

    /// Appends `output = attention(rotate(Q), rotate(K), V)` over `windows` windows of `window` rows.
    pub fn record(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        buffers: &AttentionBuffers<'_>,
        window: u32,
        windows: u32,
    ) -> Operand {
        let Self { heads, kv_heads, head_dim } = *self;
        let kernel = gpu.gemm();
        let scale = 1.0 / (head_dim as f32).sqrt();
        let share = heads / kv_heads;
        let blocks = window.div_ceil(attention::block_queries(kernel, head_dim));
        let name = Kernel::Attention { kernel, head_dim };
        match kernel {
            GemmKernel::Tile { .. } => self.record_rotary(recording, buffers, window, windows),
            GemmKernel::Panel { lanes, .. } => self.record_pack(recording, buffers, kernel, lanes, (window, windows)),
        }
        let window_flops = heads as u64 * window as u64 * window as u64 * head_dim as u64 * 2;
        let step = (DISPATCH_FLOPS / window_flops.max(1)).clamp(1, windows.max(1) as u64) as u32;
        for first_window in (0..windows).step_by(step as usize) {
            let count = step.min(windows - first_window);
            let grid = [blocks, heads, count];
            let flops = window_flops * count as u64;
            let output = buffers.output.clone();
            match kernel {
                GemmKernel::Tile { .. } => {
                    let (stride, output_stride) = (self.stride(), stride(heads * head_dim));
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
                    recording.dispatch(name, &params, [buffers.qkv.clone(), output], grid, flops);
                }
                GemmKernel::Panel { .. } => {
                    let inner4 = gemm::inner_texels(heads * head_dim);
                    let params = attention::PanelParams { window, heads, share, blocks, inner4, scale, first_window };
                    let [q, k, v] = buffers.packed;
                    recording.dispatch(name, &params, [q.into(), k.into(), v.into(), output], grid, flops);
                }
            }
        }
        Operand::new(buffers.output, windows * window)
    }
    fn record_rotary(&self, recording: &mut Recording, buffers: &AttentionBuffers<'_>, window: u32, windows: u32) {
        let (heads, half_dim, rows) = (self.heads + self.kv_heads, self.head_dim / 2, windows * window);
        let params = rotary::Params { rows, stride: self.stride(), heads, half_dim, window };
        let grid = [groups_of_64(heads * half_dim), rows, 1];
        let flops = rows as u64 * (heads * half_dim) as u64 * 8;
        recording.dispatch(Kernel::Rotary, &params, [buffers.rope.clone(), buffers.qkv.clone()], grid, flops);
    }

    fn record_pack(
        &self,
        recording: &mut Recording,
        buffers: &AttentionBuffers<'_>,
        kernel: GemmKernel,
        lanes: u32,
        (window, windows): (u32, u32),
    ) {
        let Self { heads, kv_heads, head_dim } = *self;
        let [queries, keys] = [attention::block_queries(kernel, head_dim), attention::panel_keys(lanes)];
        let parts = [(0, heads, queries, 1), (heads, kv_heads, keys, 1), (heads + kv_heads, kv_heads, keys, 0)];
        for ((first_head, part_heads, group, rotate), texture) in parts.into_iter().zip(buffers.packed) {
            let params = attention::PackParams {
                window,
                stride: self.stride(),
                first_column: first_head * head_dim,
                heads: part_heads,
                group,
                blocks: window.div_ceil(group),
                rotate,
            };
            let texels = params.blocks * group * attention::head_texels(head_dim);
            recording.dispatch(
                Kernel::AttentionPack { kernel, head_dim },
                &params,
                [buffers.rope.clone(), buffers.qkv.clone(), texture.into()],
                [groups_of_64(texels), part_heads, windows],
                texels as u64 * part_heads as u64 * windows as u64 * 8,
            );
        }
    }
}
