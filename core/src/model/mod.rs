//! What a checkpoint is made of: its architecture, its blocks and where their weights are.
//!
//! [`ModelSpec`] comes from a Hugging Face config.json or from GGUF metadata. The files `llama` and `qwen2` hold what
//! differs between the families. [`DeviceModel`] is the model on a device; `forward` records its forward pass.

pub mod block;
mod checkpoint;
mod config;
pub(crate) mod device_model;
mod error;
pub(crate) mod forward;
mod gguf;
mod keys;
mod llama;
mod loader;
mod qwen2;
pub mod rope;
mod spec;
mod summary;
mod warm_up;

pub use block::{BlockId, BlockKind, BlockSet, ParseBlockError};
pub use checkpoint::Checkpoint;
pub use config::PRUNED_TYPE_PREFIX;
pub use device_model::{DeviceModel, ForwardError, device_needs};
pub use error::ModelError;
pub use rope::{RopeFrequencies, RopeScaling, RopeSpec};
pub use spec::{Family, LayerNames, ModelSpec};
pub use summary::{BlockSummary, ModelSummary};
