//! What is inside, for the tests of this workspace: no part of the interface, it may change with any release.

#[cfg(feature = "fault-injection")]
pub use crate::gpu::fault::FaultPoint;
pub use crate::gpu::{
    activation::record_activation,
    attention::{Attention, AttentionBuffers, CachedBuffers, HeadNorms, KeyValues, Projection},
    log_sum_exp::{LogSumExp, LogSumExpBuffers, VocabularyChunk},
    matrix::{Lookup, Matrix, Operand},
    needs::{AttentionNeed, KernelNeeds},
    norm::Norm,
    recording::Recording,
    resource::{Residual, Resource},
};
pub use crate::weights::dequantize::dequantize;
pub use crate::weights::gguf::{
    GgufFile, GgufMetadata, MetadataArray, MetadataValue, open as open_gguf, type_id as gguf_type_id,
};
