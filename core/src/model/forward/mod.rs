//! The forward pass, recorded from the numbers and choices of a [`ModelSpec`]: embedding, blocks, final norm and head.
//!
//! `pass` walks the blocks and brings their weights; `branch` records one block's residual branch, `head` what follows the
//! last; `batch` holds what windows need on the device, `scratch` what they work in; `decode` continues a text through a KV
//! cache. Every function appends dispatches to a [`crate::gpu::Recording`] and reads top to bottom like the model itself.

mod batch;
mod branch;
pub(crate) mod decode;
mod head;
mod pass;
mod scratch;

use super::spec::{Attention, ModelSpec, Positions};
use crate::gpu;

pub(crate) use batch::{Batch, HeadPart};
pub(crate) use branch::{Attend, Rows};
pub(crate) use head::VOCABULARY_CHUNK;
pub(crate) use pass::{Branch, every_block};
pub(crate) use scratch::Scratch;

/// The shape of an attention block, as the device's kernels take it.
pub(crate) fn attention(spec: &ModelSpec, attention: &Attention) -> gpu::Attention {
    let alibi = match attention.positions {
        Positions::Alibi(alibi) => Some(alibi),
        Positions::None | Positions::Rope(_) => None,
    };
    gpu::Attention {
        heads: attention.heads as u32,
        kv_heads: attention.kv_heads as u32,
        head_dim: attention.head_dim as u32,
        rotated: spec.rotated(attention) as u32,
        scale: attention.scale,
        alibi,
        soft_cap: attention.soft_cap,
        sliding_window: attention.sliding_window,
    }
}
