//! Attention of new positions through a KV cache, `attention_cached.wgsl`.
//!
//! A cache is two buffers `[positions, kv_heads, head_texels]` of 4 f32, one of normed and turned keys and one of values, as
//! [`crate::heads`] writes them. The CPU twin is that of whole windows: the rows `past..` of [`crate::attention::cpu`] are
//! what the new positions give.

use bytemuck::{Pod, Zeroable};
use minijinja::context;

use crate::GemmKernel;
use crate::attention::{Scores, head_texels};
use crate::gemm::output_context;

/// Positions that a query can attend to: more would need too many iterations of one loop on software drivers.
pub const MOST_POSITIONS: u32 = 131_072;

/// Keys that a workgroup takes at a time.
const KEYS: u32 = 64;

/// Uniform block of `attention_cached.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct AttendParams {
    /// Positions that the cache held before the new rows were appended.
    pub past: u32,
    /// Query heads.
    pub heads: u32,
    /// Query heads that share a key head.
    pub share: u32,
    /// What scores are multiplied by.
    pub scale: f32,
    /// From one row of the output to the next: elements for the tile kernel, [`crate::gemm::inner_texels`] for panels.
    pub output_stride: u32,
    /// What the variant that caps keeps scores below: cap * tanh(score / cap).
    pub cap: f32,
    /// Keys that a query sees, itself included, in the variant that slides.
    pub sliding_window: u32,
}

/// Bytes of the keys, or of the values, of `positions` positions.
pub fn cache_bytes(positions: u32, kv_heads: u32, head_dim: u32) -> u64 {
    positions as u64 * kv_heads as u64 * head_texels(head_dim) as u64 * 16
}

pub(crate) fn context(kernel: GemmKernel, head_dim: u32, scores: Scores) -> minijinja::Value {
    let texels = head_texels(head_dim);
    // At least 4, so that a part of the keys is a multiple of 4, which are taken in one iteration.
    let lanes_per_part = texels.next_power_of_two().clamp(4, KEYS);
    let parts = KEYS / lanes_per_part;
    let shape = context! {
        HEAD_DIM => head_dim,
        HEAD_TEXELS => texels,
        LANES_PER_PART => lanes_per_part,
        PARTS => parts,
        KEYS_PER_PART => KEYS / parts,
        PER_INVOCATION => texels.div_ceil(KEYS),
    };
    context! { ..shape, ..scores.context(), ..output_context(kernel) }
}
