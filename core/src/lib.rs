//! BlockPruner on WebGPU: prune the attention (MHA) and feed-forward (MLP) blocks of a large language model by
//! perplexity, on any GPU that wgpu can drive, natively and in the browser.
//!
//! Data flows one way: [`weights`] and [`text`] -> [`model`] -> [`score`] -> [`search`] -> [`export`]; and from [`model`]
//! to [`generate`].
//! [`gpu`] knows nothing of models, [`model`] nothing of searching, [`search`] nothing of files or screens.
//!
//! The method is BlockPruner (Zhong et al., Findings of ACL 2025).

pub mod bench;
mod digest;
pub mod export;
mod file_kind;
pub mod generate;
pub mod gpu;
mod json;
pub mod model;
pub mod score;
pub mod search;
pub mod text;
pub mod weights;
