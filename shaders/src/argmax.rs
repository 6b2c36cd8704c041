//! The most likely token of one position over chunks of the vocabulary, `argmax.wgsl`.

use bytemuck::{Pod, Zeroable};

/// Uniform block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Vocabulary entries of this chunk.
    pub columns: u32,
    /// Token id of the chunk's first entry.
    pub first_token: u32,
    /// 1 for the first chunk.
    pub is_first: u32,
}

/// CPU twin over the whole vocabulary: the id of the largest logit, the lowest on a tie; None if a logit is not finite.
pub fn cpu(logits: &[f32]) -> Option<u32> {
    if logits.iter().any(|logit| !logit.is_finite()) {
        return None;
    }
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    Some(best as u32)
}
