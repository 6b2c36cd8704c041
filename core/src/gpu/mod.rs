//! The device layer: adapters, limits, buffers, pipelines, and running recorded work. Knows nothing of models.
//!
//! [`Gpu`] is an open device. Work is data: a [`Recording`] is a list of dispatches of kernels of `blockpruner-shaders`,
//! which [`Gpu::submit`] runs in slices bounded in count and time. Everything is async and single-threaded; natively the
//! futures are driven by `pollster`, in the browser by its event loop.

mod activation;
mod adapter;
mod attention;
mod device;
mod device_memory;
mod error;
#[cfg(feature = "fault-injection")]
mod fault;
mod log_sum_exp;
mod matrix;
mod needs;
mod norm;
mod pipeline_cache;
mod raw;
mod recording;
mod resource;
mod self_test;
mod spare;
mod upload;

pub use activation::record_activation;
pub use adapter::{AdapterSummary, GpuOptions, KeptPipelines, KernelChoice, Tier, adapters};
pub use attention::{Attention, AttentionBuffers, CachedBuffers, HeadNorms, KeyValues, Projection};
pub use device::Gpu;
pub(crate) use device::give_way;
pub use device_memory::DeviceMemory;
pub use error::GpuError;
#[cfg(feature = "fault-injection")]
pub use fault::FaultPoint;
pub use log_sum_exp::{LogSumExp, LogSumExpBuffers, VocabularyChunk};
pub(crate) use matrix::Piece;
pub use matrix::{Matrix, Operand};
pub use needs::{AttentionNeed, KernelNeeds};
pub use norm::Norm;
pub use recording::Recording;
pub use resource::{Residual, Resource};
pub(crate) use spare::Spare;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use upload::MOST_AWAY;
pub(crate) use upload::Staged;
