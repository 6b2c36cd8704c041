//! Causal grouped-query attention with an online softmax: `attention_tile.wgsl`, and `attention_pack.wgsl` with
//! `attention_panel.wgsl` (after FlashAttention, Dao et al., 2022).

use bytemuck::{Pod, Zeroable};
use minijinja::context;

use crate::gemm::{output_context, panel_rows};
use crate::{GemmKernel, TEXTURE_WIDTH};

/// Uniform block of `attention_tile.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct TileParams {
    /// Rows of a window.
    pub window: u32,
    /// Query heads.
    pub heads: u32,
    /// Query heads that share a key head.
    pub share: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// 1 / sqrt(head_dim).
    pub scale: f32,
    /// First window of this dispatch.
    pub first_window: u32,
    /// Elements from one row of the fused projection to the next.
    pub stride: u32,
    /// Elements from one row of the output to the next.
    pub output_stride: u32,
}

/// Uniform block of `attention_pack.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct PackParams {
    /// Rows of a window.
    pub window: u32,
    /// Elements from one row of the fused projection to the next.
    pub stride: u32,
    /// First column of the heads to copy.
    pub first_column: u32,
    /// Heads to copy.
    pub heads: u32,
    /// Rows that lie side by side in the texture: [`block_queries`] for Q, [`panel_keys`] for K and V.
    pub group: u32,
    /// Blocks of `group` rows in a window.
    pub blocks: u32,
    /// 1 to turn the heads by their position, as Q and K are.
    pub rotate: u32,
}

/// Uniform block of `attention_panel.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct PanelParams {
    /// Rows of a window.
    pub window: u32,
    /// Query heads.
    pub heads: u32,
    /// Query heads that share a key head.
    pub share: u32,
    /// Blocks of queries in a window.
    pub blocks: u32,
    /// [`crate::gemm::inner_texels`] of the output's columns.
    pub inner4: u32,
    /// 1 / sqrt(head_dim).
    pub scale: f32,
    /// First window of this dispatch.
    pub first_window: u32,
}

/// Texels of 4 elements that one head takes; the panel kernels need whole ones.
pub fn head_texels(head_dim: u32) -> u32 {
    head_dim.div_ceil(4)
}

/// Queries that one workgroup handles.
pub fn block_queries(kernel: GemmKernel, head_dim: u32) -> u32 {
    match kernel {
        GemmKernel::Tile { .. } => tile_queries(head_dim),
        GemmKernel::Panel { lanes, .. } => lanes * panel_queries(head_dim),
    }
}

/// Keys that the panel kernel takes at a time: enough to pay for rescaling the output.
pub fn panel_keys(lanes: u32) -> u32 {
    lanes.max(8)
}

/// Queries of one lane of the panel kernel: two use each key twice, more text than that compiles slowly.
fn panel_queries(head_dim: u32) -> u32 {
    if head_dim <= 64 { 2 } else { 1 }
}

/// Queries and keys of a tile: their rows of a head and their scores share 16 KiB of workgroup memory.
fn tile_queries(head_dim: u32) -> u32 {
    if head_dim <= 128 { 16 } else { 8 }
}

fn tile_keys(head_dim: u32) -> u32 {
    match head_dim {
        0..=64 => 16,
        65..=192 => 8,
        _ => 4,
    }
}

pub(crate) fn context(kernel: GemmKernel, head_dim: u32) -> minijinja::Value {
    let texels = head_texels(head_dim);
    match kernel {
        GemmKernel::Tile { .. } => {
            let queries = tile_queries(head_dim);
            let per_query = 64 / queries;
            context! {
                QUERIES => queries,
                KEYS => tile_keys(head_dim),
                PER_QUERY => per_query,
                PER_INVOCATION => texels.div_ceil(per_query),
                HEAD_TEXELS => texels,
            }
        }
        GemmKernel::Panel { lanes, subgroups } => context! {
            LANES => lanes,
            SUBGROUPS => subgroups,
            QUERIES => panel_queries(head_dim),
            KEYS => panel_keys(lanes),
            HEAD_TEXELS => texels,
            ROWS => panel_rows(lanes),
            TEXTURE_WIDTH,
        },
    }
}

/// Heads whose halves are whole texels are read as such.
pub(crate) fn pack_context(kernel: GemmKernel, head_dim: u32) -> minijinja::Value {
    let aligned = head_dim.is_multiple_of(8);
    context! {
        HEAD_DIM => head_dim,
        HEAD_TEXELS => head_texels(head_dim),
        ALIGNED => aligned,
        ..output_context(kernel)
    }
}

/// CPU twin: `qkv [rows, (heads + 2 * heads / share) * head_dim]`, Q, K and V side by side, windows of `window` rows;
/// result `[rows, heads * head_dim]`.
pub fn cpu(qkv: &[f32], window: usize, heads: usize, share: usize, head_dim: usize) -> Vec<f32> {
    let kv_heads = heads / share;
    let stride = (heads + 2 * kv_heads) * head_dim;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut output = Vec::with_capacity(qkv.len() / stride * heads * head_dim);
    for rows in qkv.chunks(window * stride) {
        for query in 0..window {
            for head in 0..heads {
                let q = &rows[query * stride + head * head_dim..][..head_dim];
                let column = |part: usize| (heads + part * kv_heads + head / share) * head_dim;
                let scores: Vec<f32> = (0..=query)
                    .map(|key| {
                        let k = &rows[key * stride + column(0)..][..head_dim];
                        q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>() * scale
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f32::MIN, f32::max);
                let weights: Vec<f32> = scores.iter().map(|s| (s - largest).exp()).collect();
                let sum: f32 = weights.iter().sum();
                output.extend((0..head_dim).map(|d| {
                    let values = weights.iter().enumerate();
                    values.map(|(key, p)| p * rows[key * stride + column(1) + d]).sum::<f32>() / sum
                }));
            }
        }
    }
    output
}
