//! Rotary position embedding, `rotary.wgsl` (Su et al., 2021), with rotated halves as in Hugging Face checkpoints.

use bytemuck::{Pod, Zeroable};

/// Uniform block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens.
    pub rows: u32,
    /// Columns of the fused projection.
    pub stride: u32,
    /// Heads to rotate: query heads and key heads, which stand first.
    pub heads: u32,
    /// Half of head_dim.
    pub half_dim: u32,
    /// Positions of a window; row r is position r % window.
    pub window: u32,
}

/// The table `[window, half_dim]` of (cos, sin) that the shader reads.
pub fn table(inv_freq: &[f32], attention_scaling: f32, window: usize) -> Vec<[f32; 2]> {
    (0..window).flat_map(|position| table_row(inv_freq, attention_scaling, position)).collect()
}

/// The row of the table for one position, computed in f32 as transformers does.
pub fn table_row(inv_freq: &[f32], attention_scaling: f32, position: usize) -> Vec<[f32; 2]> {
    let angles = inv_freq.iter().map(|frequency| position as f32 * frequency);
    angles.map(|angle| [angle.cos() * attention_scaling, angle.sin() * attention_scaling]).collect()
}

/// CPU twin, in place on `qkv [rows, stride]`.
pub fn cpu(params: &Params, table: &[[f32; 2]], qkv: &mut [f32]) {
    let half = params.half_dim as usize;
    for (row, values) in qkv.chunks_mut(params.stride as usize).enumerate() {
        let turns = &table[row % params.window as usize * half..][..half];
        for head in values.chunks_mut(2 * half).take(params.heads as usize) {
            let (first, second) = head.split_at_mut(half);
            for ((x1, x2), [cos, sin]) in first.iter_mut().zip(second).zip(turns) {
                (*x1, *x2) = (*x1 * cos - *x2 * sin, *x2 * cos + *x1 * sin);
            }
        }
    }
}
