//! Causal attention: the heads of a projection, and the product itself, over windows or through a KV cache.

use blockpruner_shaders::attention::{self, head_texels};
use blockpruner_shaders::heads::{PanelsParams, RowsParams};
use blockpruner_shaders::{Alibi, GemmKernel, HeadsTo, Kernel, Over, Scores, cached, gemm, stride};

use super::{Gpu, GpuError, Norm, Operand, Recording, Resource};

/// The shape of an attention block, whose projection `[rows, stride]` holds Q, K and V side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads, a divisor of `heads`.
    pub kv_heads: u32,
    /// Elements of a head, even.
    pub head_dim: u32,
    /// Leading elements of a head that are turned by their position, even; 0 for none.
    pub rotated: u32,
    /// What scores are multiplied by.
    pub scale: f32,
    /// What is added to scores for where keys stand.
    pub alibi: Option<Alibi>,
    /// What scores then come near to at most: cap * tanh(score / cap).
    pub soft_cap: Option<f32>,
    /// Positions that a query sees, its own included; None: all before it.
    pub sliding_window: Option<u32>,
}

/// Norms of Q and K before they are turned.
#[derive(Clone, Debug)]
pub struct HeadNorms {
    /// Of Q; as many columns as `over` says, or those of all heads where each has its own.
    pub query: Norm,
    /// Of K.
    pub key: Norm,
    /// What they are over.
    pub over: Over,
}

/// A projection, and what its heads are made of it with.
#[derive(Clone, Copy, Debug)]
pub struct Projection<'a> {
    /// `[window, rotated / 2]` of (cos, sin), as [`blockpruner_shaders::heads::table`] makes it, as [`Gpu::readable`];
    /// `[rows, rotated / 2]` where there are places; anything where nothing is turned.
    pub rope: &'a Resource,
    /// Q, K and V side by side, as a product is written.
    pub qkv: &'a Resource,
    /// Norms, if the model has them.
    pub norms: Option<&'a HeadNorms>,
    /// Where windows are contexts and continuations of them, `[rows]` of [`attention::Place`]. A KV cache has none.
    pub places: Option<&'a wgpu::Buffer>,
}

/// What attention over windows writes on the device.
#[derive(Clone, Copy, Debug)]
pub struct AttentionBuffers<'a> {
    /// Q, K and V of [`Attention::packed_bytes`] or more.
    pub packed: &'a [Resource; 3],
    /// The left side of the output projection.
    pub output: &'a Resource,
}

/// The KV cache of one attention block: normed and turned keys, and values, of the positions that it has seen; see
/// [`cached`].
#[derive(Clone, Debug)]
pub struct KeyValues {
    /// `[positions, kv_heads, head_texels]` of 4 f32.
    pub keys: wgpu::Buffer,
    /// As the keys.
    pub values: wgpu::Buffer,
}

/// What attention through a KV cache reads and writes on the device.
#[derive(Clone, Copy, Debug)]
pub struct CachedBuffers<'a> {
    /// The cache, with room for the new positions.
    pub cache: &'a KeyValues,
    /// Q of the new positions, of [`Attention::query_bytes`] or more.
    pub query: &'a wgpu::Buffer,
    /// The left side of the output projection.
    pub output: &'a Resource,
}

/// One of Q, K and V in the projection.
struct Part<'a> {
    first_head: u32,
    heads: u32,
    /// Rows side by side in the texture.
    group: u32,
    norm: Option<&'a Norm>,
    rotated: u32,
}

impl Attention {
    /// Elements from one row of the projection to the next.
    pub fn stride(&self) -> u32 {
        stride((self.heads + 2 * self.kv_heads) * self.head_dim)
    }

    /// Columns of the output.
    pub fn columns(&self) -> u32 {
        self.heads * self.head_dim
    }

    /// Bytes of Q, K and V as attention over windows reads them.
    pub fn packed_bytes(&self, kernel: GemmKernel, window: u32, windows: u32) -> [u64; 3] {
        let bytes = |heads: u32, group: u32| {
            let rows = window.next_multiple_of(group) as u64 * windows as u64;
            heads as u64 * rows * head_texels(self.head_dim) as u64 * 16
        };
        let [queries, keys] = self.groups(kernel);
        [bytes(self.heads, queries), bytes(self.kv_heads, keys), bytes(self.kv_heads, keys)]
    }

    /// Storage for [`AttentionBuffers::packed`].
    ///
    /// # Errors
    /// What the device has no room for.
    pub fn packed(&self, gpu: &Gpu, window: u32, windows: u32) -> Result<[Resource; 3], GpuError> {
        let [q, k, v] = self.packed_bytes(gpu.gemm(), window, windows);
        Ok([gpu.readable("packed Q", q)?, gpu.readable("packed K", k)?, gpu.readable("packed V", v)?])
    }

    /// Bytes of Q of `rows` new positions.
    pub fn query_bytes(&self, rows: u32) -> u64 {
        cached::cache_bytes(rows, self.heads, self.head_dim)
    }

    /// Bytes of the keys, or of the values, of `positions` positions in a KV cache.
    pub fn cache_bytes(&self, positions: u32) -> u64 {
        cached::cache_bytes(positions, self.kv_heads, self.head_dim)
    }

    /// A KV cache with room for `positions` positions.
    ///
    /// # Errors
    /// What the device has no room for.
    pub fn cache(&self, gpu: &Gpu, positions: u32) -> Result<KeyValues, GpuError> {
        let buffer = |label| gpu.storage(label, self.cache_bytes(positions));
        Ok(KeyValues { keys: buffer("the KV cache's keys")?, values: buffer("the KV cache's values")? })
    }

    /// Appends `output = attention(Q, K, V)` over `windows` windows of `window` rows, with Q and K normed and turned.
    pub fn record(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        input: &Projection<'_>,
        buffers: &AttentionBuffers<'_>,
        window: u32,
        windows: u32,
    ) -> Operand {
        let Self { heads, kv_heads, head_dim, scale, .. } = *self;
        let kernel = gpu.gemm();
        let [q, k, v] = buffers.packed;
        recording.stage("heads");
        match kernel {
            GemmKernel::Tile { .. } => {
                let rows = windows * window;
                let params = self.rows_params(input, rows, if input.places.is_some() { rows } else { window });
                self.record_rows(gpu, recording, input, &params, [q.clone(), k.clone(), v.clone()]);
            }
            GemmKernel::Panel { .. } => self.record_panels(gpu, recording, input, buffers.packed, window, windows),
        }
        recording.stage("attention");
        let continuations = input.places.is_some();
        let name = Kernel::Attention { kernel, head_dim, scores: self.scores(), continuations };
        let (cap, sliding_window) = (self.soft_cap.unwrap_or(0.0), self.sliding_window.unwrap_or(0));
        let (share, blocks) = (heads / kv_heads, window.div_ceil(attention::block_queries(kernel, head_dim)));
        let seen = self.sliding_window.map_or(window, |seen| seen.min(window));
        let window_flops = heads as u64 * window as u64 * seen as u64 * head_dim as u64 * 2;
        let step = (gpu.dispatch_flops() / window_flops.max(1)).clamp(1, windows.max(1) as u64) as u32;
        for first_window in (0..windows).step_by(step as usize) {
            let count = step.min(windows - first_window);
            let grid = [blocks, heads, count];
            let flops = window_flops * count as u64;
            let bindings = [q.clone(), k.clone(), v.clone(), buffers.output.clone()];
            let bindings: Vec<Resource> = bindings.into_iter().chain(input.places.map(Resource::from)).collect();
            match kernel {
                GemmKernel::Tile { .. } => {
                    let output_stride = stride(self.columns());
                    let params = attention::TileParams {
                        window,
                        heads,
                        share,
                        head_dim,
                        scale,
                        first_window,
                        output_stride,
                        cap,
                        sliding_window,
                    };
                    recording.dispatch(name, &params, bindings, grid, flops);
                }
                GemmKernel::Panel { .. } => {
                    let inner4 = gemm::inner_texels(self.columns());
                    let params = attention::PanelParams {
                        window,
                        heads,
                        share,
                        blocks,
                        inner4,
                        scale,
                        first_window,
                        cap,
                        sliding_window,
                    };
                    recording.dispatch(name, &params, bindings, grid, flops);
                }
            }
        }
        Operand::new(buffers.output, windows * window)
    }

    /// Appends the keys and values of `rows` new positions to a KV cache that holds `past` of them. Row r of the projection
    /// takes row r of the table.
    pub fn record_append(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        input: &Projection<'_>,
        cache: &KeyValues,
        past: u32,
        rows: u32,
    ) {
        let params = RowsParams { first_head: self.heads, past, ..self.rows_params(input, rows, rows) };
        // There is no Q to be written.
        let outputs = [gpu.nothing().into(), (&cache.keys).into(), (&cache.values).into()];
        self.record_rows(gpu, recording, input, &params, outputs);
    }

    /// Appends `output = attention(Q, K, V)` of `rows` new positions to themselves and to the `past` before them, whose keys
    /// and values the cache holds; it holds those of the new ones afterwards. Row r of the projection takes row r of the
    /// table.
    pub fn record_cached(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        input: &Projection<'_>,
        buffers: &CachedBuffers<'_>,
        past: u32,
        rows: u32,
    ) -> Operand {
        let Self { heads, kv_heads, head_dim, scale, .. } = *self;
        let CachedBuffers { cache, query, output } = *buffers;
        let params = RowsParams { past, ..self.rows_params(input, rows, rows) };
        self.record_rows(gpu, recording, input, &params, [query.into(), (&cache.keys).into(), (&cache.values).into()]);
        let params = cached::AttendParams {
            past,
            heads,
            share: heads / kv_heads,
            scale,
            output_stride: match gpu.gemm() {
                GemmKernel::Tile { .. } => stride(self.columns()),
                GemmKernel::Panel { .. } => gemm::inner_texels(self.columns()),
            },
            cap: self.soft_cap.unwrap_or(0.0),
            sliding_window: self.sliding_window.unwrap_or(0),
        };
        let kernel = Kernel::CachedAttention { kernel: gpu.gemm(), head_dim, scores: self.scores() };
        let seen = self.sliding_window.map_or(past + rows, |seen| seen.min(past + rows));
        let flops = rows as u64 * seen as u64 * self.columns() as u64 * 4;
        let bindings = [query.into(), (&cache.keys).into(), (&cache.values).into(), output.clone()];
        recording.dispatch(kernel, &params, bindings, [heads, rows, 1], flops);
        Operand::new(output, rows)
    }

    /// What is made of scores.
    fn scores(&self) -> Scores {
        Scores {
            alibi: self.alibi.map(|alibi| (alibi, self.heads)),
            soft_cap: self.soft_cap.is_some(),
            sliding: self.sliding_window.is_some(),
        }
    }

    /// Rows of a window of which Q, K and V hold whole blocks: a power of 2.
    pub(crate) fn block_rows(&self, kernel: GemmKernel) -> u32 {
        let [queries, keys] = self.groups(kernel);
        queries.max(keys)
    }

    /// Rows of Q, and of K and V, that lie side by side.
    fn groups(&self, kernel: GemmKernel) -> [u32; 2] {
        match kernel {
            GemmKernel::Tile { .. } => [1, 1],
            GemmKernel::Panel { lanes, .. } => {
                [attention::block_queries(kernel, self.head_dim), attention::panel_keys(lanes)]
            }
        }
    }

    /// From the columns that one head is normed over to those of the next.
    fn span_step(&self, norms: &HeadNorms) -> u32 {
        match norms.over {
            Over::Head | Over::EachHead => self.head_dim,
            Over::Row => 0,
        }
    }

    /// Neighbouring columns that are normed together.
    fn span(&self, norms: &HeadNorms, norm: &Norm) -> u32 {
        if norms.over == Over::EachHead { self.head_dim } else { norm.columns }
    }

    fn rows_params(&self, input: &Projection<'_>, rows: u32, window: u32) -> RowsParams {
        RowsParams {
            rows,
            window,
            stride: self.stride(),
            heads: self.heads,
            kv_heads: self.kv_heads,
            first_head: 0,
            past: 0,
            query_span: input.norms.map_or(0, |norms| self.span(norms, &norms.query)),
            key_span: input.norms.map_or(0, |norms| self.span(norms, &norms.key)),
            span_step: input.norms.map_or(0, |norms| self.span_step(norms)),
            query_epsilon: input.norms.map_or(0.0, |norms| norms.query.epsilon),
            key_epsilon: input.norms.map_or(0.0, |norms| norms.key.epsilon),
        }
    }

    fn record_rows(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        input: &Projection<'_>,
        params: &RowsParams,
        [q, k, v]: [Resource; 3],
    ) {
        let Self { head_dim, rotated, .. } = *self;
        let normed = input.norms.map(|norms| norms.over);
        let kernel = Kernel::Heads { kernel: gpu.gemm(), head_dim, rotated, normed, to: HeadsTo::Rows };
        let grid = params.grid(gpu.gemm(), head_dim, normed.is_some());
        let flops = params.rows as u64 * self.stride() as u64 * 8;
        let (rope, qkv) = (input.rope.clone(), input.qkv.clone());
        match input.norms {
            Some(norms) => {
                let weights = [&norms.query, &norms.key].map(|norm| norm.weight.clone());
                let [query, key] = weights;
                recording.dispatch(kernel, params, [rope, qkv, q, k, v, query, key], grid, flops);
            }
            None => recording.dispatch(kernel, params, [rope, qkv, q, k, v], grid, flops),
        }
    }

    fn record_panels(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        input: &Projection<'_>,
        packed: &[Resource; 3],
        window: u32,
        windows: u32,
    ) {
        let Self { heads, kv_heads, head_dim, rotated, .. } = *self;
        let [queries, keys] = self.groups(gpu.gemm());
        let [query_norm, key_norm] = [input.norms.map(|norms| &norms.query), input.norms.map(|norms| &norms.key)];
        let parts = [
            Part { first_head: 0, heads, group: queries, norm: query_norm, rotated },
            Part { first_head: heads, heads: kv_heads, group: keys, norm: key_norm, rotated },
            Part { first_head: heads + kv_heads, heads: kv_heads, group: keys, norm: None, rotated: 0 },
        ];
        for (part, output) in parts.into_iter().zip(packed) {
            let Part { first_head, heads, group, norm, rotated } = part;
            let params = PanelsParams {
                window,
                stride: self.stride(),
                first_column: first_head * head_dim,
                heads,
                group,
                blocks: window.div_ceil(group),
                span: input.norms.zip(norm).map_or(0, |(norms, norm)| self.span(norms, norm)),
                span_step: input.norms.map_or(0, |norms| self.span_step(norms)),
                epsilon: norm.map_or(0.0, |norm| norm.epsilon),
            };
            let normed = input.norms.filter(|_| norm.is_some()).map(|norms| norms.over);
            let each_row = input.places.is_some() && rotated > 0;
            let to = if each_row { HeadsTo::PanelsEachRow } else { HeadsTo::Panels };
            let kernel = Kernel::Heads { kernel: gpu.gemm(), head_dim, rotated, normed, to };
            let grid = params.grid(windows);
            let flops = (params.blocks * group * heads * head_dim) as u64 * windows as u64 * 2;
            let (rope, qkv, output) = (input.rope.clone(), input.qkv.clone(), output.clone());
            match norm {
                Some(norm) => {
                    recording.dispatch(kernel, &params, [rope, qkv, output, norm.weight.clone()], grid, flops);
                }
                None => recording.dispatch(kernel, &params, [rope, qkv, output], grid, flops),
            }
        }
    }
}
