//! The device layer: adapters, limits, buffers, pipelines, and running recorded work. Knows nothing of models.
//!
//! [`Gpu`] is an open device. Work is data: a `Recording` is a list of dispatches of kernels of `blockpruner-shaders`,
//! which the device runs in slices bounded in count and time. Everything is async and single-threaded; natively the
//! futures are driven by `pollster`, in the browser by its event loop.

pub(crate) mod activation;
mod adapter;
pub(crate) mod attention;
mod change;
mod device;
mod device_memory;
mod error;
#[cfg(feature = "fault-injection")]
pub(crate) mod fault;
pub(crate) mod log_sum_exp;
pub(crate) mod matrix;
pub(crate) mod needs;
pub(crate) mod norm;
mod pipeline_cache;
mod raw;
pub(crate) mod recording;
pub(crate) mod resource;
mod self_test;
mod spare;
mod upload;

pub(crate) use activation::record_activation;
pub use adapter::{AdapterSummary, DeviceInfo, GpuOptions, KeptPipelines, KernelChoice, Tier, adapters};
pub(crate) use attention::{Attention, AttentionBuffers, CachedBuffers, HeadNorms, KeyValues, Projection};
/// The kernels of matrix products by name.
pub use blockpruner_shaders::GemmKernel;
pub(crate) use change::record_change;
pub use device::Gpu;
pub(crate) use device::give_way;
pub use device_memory::DeviceMemory;
pub use error::GpuError;
pub(crate) use log_sum_exp::{LogSumExp, LogSumExpBuffers, VocabularyChunk};
pub(crate) use matrix::Piece;
pub(crate) use matrix::{Lookup, Matrix, Operand};
pub(crate) use needs::{AttentionNeed, KernelNeeds};
pub(crate) use norm::Norm;
pub(crate) use recording::Recording;
pub(crate) use resource::{Residual, Resource};
pub(crate) use spare::Spare;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use upload::MOST_AWAY;
pub(crate) use upload::Staged;
