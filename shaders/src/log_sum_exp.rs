//! NLL of each target by an online log-sum-exp over chunks of the vocabulary, `log_sum_exp.wgsl` and
//! `log_sum_exp_panel.wgsl`.

use bytemuck::{Pod, Zeroable};

use crate::{GemmKernel, folded_grid};

/// Uniform block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Targets.
    pub rows: u32,
    /// Vocabulary entries of this chunk.
    pub columns: u32,
    /// Elements from one row of logits to the next.
    pub stride: u32,
    /// Token id of the chunk's first entry.
    pub first_token: u32,
    /// 1 for the first chunk.
    pub is_first: u32,
    /// 1 for the last chunk.
    pub is_last: u32,
    /// What logits are multiplied by.
    pub scale: f32,
    /// What the variant that caps then keeps them below: cap * tanh(logit * scale / cap).
    pub cap: f32,
}

/// Workgroups for `rows` rows.
pub fn grid(kernel: GemmKernel, rows: u32) -> [u32; 3] {
    match kernel {
        GemmKernel::Tile { .. } => folded_grid(rows),
        GemmKernel::Panel { lanes, .. } => [rows.div_ceil(lanes), 1, 1],
    }
}

/// A logit as the model means it: scaled, and capped if the model caps them.
pub fn meant(logit: f32, scale: f32, soft_cap: Option<f32>) -> f32 {
    match soft_cap {
        Some(cap) => cap * (logit * scale / cap).tanh(),
        None => logit * scale,
    }
}

/// CPU twin over the whole vocabulary: `logits [rows, vocabulary]`, see [`meant`], to the NLL of each target, in nats.
pub fn cpu(vocabulary: usize, logits: &[f32], targets: &[u32]) -> Vec<f32> {
    let rows = logits.chunks(vocabulary).zip(targets);
    rows.map(|(row, target)| {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f32 = row.iter().map(|x| (x - largest).exp()).sum();
        largest + sum.ln() - row[*target as usize]
    })
    .collect()
}
