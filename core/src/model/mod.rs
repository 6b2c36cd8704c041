//! What a checkpoint is made of: its architecture, its blocks and where their weights are.
//!
//! A [`Family`] in `families` says how containers spell a model and what that means; a Hugging Face config.json or GGUF
//! metadata become a [`ModelSpec`] by it, which is numbers and choices only. [`DeviceModel`] is the model on a device;
//! `forward` records its forward pass from the spec.

mod block;
pub(crate) mod block_configs;
mod checkpoint;
mod composite;
mod config;
pub(crate) mod device_model;
mod error;
pub mod families;
pub(crate) mod family;
mod folder;
pub(crate) mod forward;
pub(crate) mod gguf;
mod kept;
mod keys;
mod kv_cache;
mod loader;
mod origin;
pub(crate) mod rope;
mod settings;
pub mod spec;
mod summary;
mod tensor_names;
mod warm_up;

pub use block::{BlockId, BlockKind, BlockSet, ParseBlockError};
pub use checkpoint::Checkpoint;
pub use config::PRUNED_TYPE_PREFIX;
pub(crate) use device_model::attention_needs;
pub use device_model::{DeviceModel, ForwardError, WeightBytes, device_needs};
pub use error::ModelError;
pub use family::Family;
#[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
pub(crate) use folder::{ADAPTER, ADAPTER_ADVICE, CACHED, CONFIG, gguf_models, is_weights, named_models};
pub(crate) use folder::{is_carried, read_all};
pub use kept::{KeptLayer, PlainChange};
pub use kv_cache::KvCache;
pub(crate) use origin::CARD;
pub use origin::Origin;
pub use rope::{RopeFrequencies, RopeScaling, RopeSpec};
pub use spec::ModelSpec;
pub use summary::{BlockSummary, ModelSummary};
