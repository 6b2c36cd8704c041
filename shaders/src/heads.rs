//! The heads of a fused projection, `heads.wgsl` and `heads_panel.wgsl`: Q and K normed where the model does so (QK norm,
//! Henry et al., 2020) and turned by their position (rotary embedding, Su et al., 2021, with rotated halves as in
//! Hugging Face checkpoints), then Q, K and V each to storage of its own.

use bytemuck::{Pod, Zeroable};
use minijinja::context;

use crate::attention::head_texels;
use crate::gemm::panel_rows;
use crate::{GemmKernel, TEXTURE_WIDTH, groups_of_64, norm};

/// What the norm of Q and K is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Over {
    /// Each head by itself, with one weight for all of them.
    Head,
    /// All heads of Q together, and all of K.
    Row,
    /// Each head by itself, with a weight of its own, and its mean is taken off first: layer norms without a bias.
    EachHead,
}

/// How heads are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadsTo {
    /// Buffers `[rows, heads, head_texels]` of 4 f32, one each for Q, K and V, as the tile attention and the KV cache want
    /// them. V is only copied.
    Rows,
    /// A texture that the panel attention reads, of one of Q, K and V; for the panel kernels.
    Panels,
    /// The same, with a row of the table for each row of the projection.
    PanelsEachRow,
}

/// Uniform block of `heads.wgsl`, and of `heads_panel.wgsl` to [`HeadsTo::Rows`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct RowsParams {
    /// Rows of the projection.
    pub rows: u32,
    /// Positions of a window; row r is position r % window.
    pub window: u32,
    /// Elements from one row of the projection to the next.
    pub stride: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Heads before this one, of those of Q, K and V together, are left out.
    pub first_head: u32,
    /// Rows of K and V that are there already.
    pub past: u32,
    /// Neighbouring columns of Q that are normed together.
    pub query_span: u32,
    /// Neighbouring columns of K that are normed together.
    pub key_span: u32,
    /// From the span of a head to that of the next: a head, or 0 where all heads are normed together.
    pub span_step: u32,
    /// Added to the mean square of Q.
    pub query_epsilon: f32,
    /// Added to the mean square of K.
    pub key_epsilon: f32,
}

impl RowsParams {
    /// Workgroups for these rows.
    pub fn grid(&self, kernel: GemmKernel, head_dim: u32, normed: bool) -> [u32; 3] {
        let heads = self.heads + 2 * self.kv_heads - self.first_head;
        match kernel {
            GemmKernel::Tile { .. } if normed => [heads, self.rows, 1],
            GemmKernel::Tile { .. } => [groups_of_64(heads * head_texels(head_dim)), self.rows, 1],
            GemmKernel::Panel { lanes, .. } => [self.rows.div_ceil(lanes), heads, 1],
        }
    }
}

/// Uniform block of `heads_panel.wgsl` to [`HeadsTo::Panels`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct PanelsParams {
    /// Rows of a window.
    pub window: u32,
    /// Elements from one row of the projection to the next.
    pub stride: u32,
    /// First column of the part of the projection that is written: Q, K or V.
    pub first_column: u32,
    /// Heads of that part.
    pub heads: u32,
    /// Rows that lie side by side in the texture: [`crate::attention::block_queries`] for Q,
    /// [`crate::attention::panel_keys`] for K and V.
    pub group: u32,
    /// Blocks of `group` rows in a window.
    pub blocks: u32,
    /// Neighbouring columns that are normed together.
    pub span: u32,
    /// From the span of a head to that of the next: a head, or 0 where all heads are normed together.
    pub span_step: u32,
    /// Added to the mean square.
    pub epsilon: f32,
}

impl PanelsParams {
    /// Workgroups for `windows` windows.
    pub fn grid(&self, windows: u32) -> [u32; 3] {
        [groups_of_64(self.blocks * self.group), self.heads, windows]
    }
}

/// Whole texels that are turned with whole texels are read as such.
pub(crate) fn context(
    kernel: GemmKernel,
    head_dim: u32,
    rotated: u32,
    normed: Option<Over>,
    to: HeadsTo,
) -> minijinja::Value {
    let aligned = rotated.is_multiple_of(8);
    let (lanes, subgroups) = match kernel {
        GemmKernel::Tile { subgroups, .. } => (0, subgroups),
        GemmKernel::Panel { lanes, subgroups } => (lanes, subgroups),
    };
    context! {
        HEAD_DIM => head_dim,
        HEAD_TEXELS => head_texels(head_dim),
        HALF => rotated / 2,
        ALIGNED => aligned,
        NORMED => normed.is_some(),
        EACH_HEAD => normed == Some(Over::EachHead),
        PANELS => to != HeadsTo::Rows,
        EACH_ROW => to == HeadsTo::PanelsEachRow,
        SUBGROUPS => subgroups,
        LANES => lanes,
        ROWS => panel_rows(lanes),
        TEXTURE_WIDTH,
    }
}

/// The table `[window, rotated / 2]` of (cos, sin) that the shaders read.
pub fn table(inv_freq: &[f32], attention_scaling: f32, window: usize) -> Vec<[f32; 2]> {
    (0..window).flat_map(|position| table_row(inv_freq, attention_scaling, position)).collect()
}

/// The row of the table for one position, computed in f32 as transformers does.
pub fn table_row(inv_freq: &[f32], attention_scaling: f32, position: usize) -> Vec<[f32; 2]> {
    let angles = inv_freq.iter().map(|frequency| position as f32 * frequency);
    angles.map(|angle| [angle.cos() * attention_scaling, angle.sin() * attention_scaling]).collect()
}

/// How the CPU twin norms Q and K.
#[derive(Clone, Copy, Debug)]
pub struct CpuNorms<'a> {
    /// What they are over.
    pub over: Over,
    /// Weight of Q, `[head_dim]` or `[heads * head_dim]`.
    pub query: &'a [f32],
    /// Weight of K, `[head_dim]` or `[kv_heads * head_dim]`.
    pub key: &'a [f32],
    /// Added to both mean squares.
    pub epsilon: f32,
}

/// CPU twin: Q, K and V, each `[rows, its heads * head_dim]`, from `qkv [rows, (heads + 2 * kv_heads) * head_dim]`. Row r
/// takes row r % window of `table [window, rotated / 2]`. A root mean square norm is over as many columns as its
/// weight has.
pub fn cpu<'a>(
    [heads, kv_heads, head_dim]: [usize; 3],
    table: &[[f32; 2]],
    rotated: usize,
    window: usize,
    norms: Option<CpuNorms<'a>>,
    qkv: &[f32],
) -> [Vec<f32>; 3] {
    let half = rotated / 2;
    let [mut q, mut k, mut v] = [(); 3].map(|()| Vec::new());
    for (row, values) in qkv.chunks((heads + 2 * kv_heads) * head_dim).enumerate() {
        let (queries, rest) = values.split_at(heads * head_dim);
        let (keys, values) = rest.split_at(kv_heads * head_dim);
        let normed = |values: &[f32], weight: fn(&CpuNorms<'a>) -> &'a [f32]| match &norms {
            Some(norms) if norms.over == Over::EachHead => {
                let heads = values.chunks(head_dim).zip(weight(norms).chunks(head_dim));
                heads
                    .flat_map(|(head, weight)| norm::cpu(head, weight, Some(&vec![0.0; head_dim]), norms.epsilon))
                    .collect()
            }
            Some(norms) => norm::cpu(values, weight(norms), None, norms.epsilon),
            None => values.to_vec(),
        };
        let mut parts = [normed(queries, |norms| norms.query), normed(keys, |norms| norms.key)];
        let turns = &table[row % window * half..][..half];
        for head in parts.iter_mut().flat_map(|part| part.chunks_mut(head_dim)) {
            let (first, second) = head[..rotated].split_at_mut(half);
            for ((x1, x2), [cos, sin]) in first.iter_mut().zip(second).zip(turns) {
                (*x1, *x2) = (*x1 * cos - *x2 * sin, *x2 * cos + *x1 * sin);
            }
        }
        let [queries, keys] = parts;
        q.extend(queries);
        k.extend(keys);
        v.extend_from_slice(values);
    }
    [q, k, v]
}
