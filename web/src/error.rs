//! Errors as JavaScript sees them: an `Error` with the library's message and a `code` to decide by.

use blockpruner::export::{ExportError, ResumeError};
use blockpruner::generate::GenerateError;
use blockpruner::gpu::GpuError;
use blockpruner::model::{ForwardError, ModelError, ParseBlockError};
use blockpruner::score::ScoreError;
use blockpruner::search::{MemoryError, SearchError};
use blockpruner::text::TextError;
use blockpruner::weights::WeightsError;
use wasm_bindgen::JsValue;

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Score(#[from] ScoreError),
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Generate(#[from] GenerateError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("cannot resume: {0}")]
    Resume(#[from] ResumeError),
    #[error(transparent)]
    Block(#[from] ParseBlockError),
    /// What a caller passed makes no sense.
    #[error("{0}")]
    Argument(String),
    /// A file of a URL cannot be had.
    #[error("{url}: {reason}")]
    Network { url: String, reason: String },
}

impl Error {
    fn gpu(&self) -> Option<&GpuError> {
        let forward = match self {
            Error::Gpu(gpu) => return Some(gpu),
            Error::Forward(forward)
            | Error::Memory(MemoryError::Forward(forward))
            | Error::Generate(GenerateError::Forward(forward))
            | Error::Score(ScoreError::Forward(forward))
            | Error::Search(SearchError::Score(ScoreError::Forward(forward))) => forward,
            _ => return None,
        };
        match forward {
            ForwardError::Gpu(gpu) => Some(gpu),
            _ => None,
        }
    }

    fn code(&self) -> &'static str {
        if let Some(gpu) = self.gpu() {
            return match gpu {
                GpuError::NoAdapter { .. } | GpuError::NoSuchDevice { .. } => "no-device",
                GpuError::Lost { .. } => "device-lost",
                GpuError::OutOfMemory { .. } => "out-of-memory",
                GpuError::TooLarge { .. } => "too-large",
                GpuError::Unsuitable { .. }
                | GpuError::Open { .. }
                | GpuError::SelfTest { .. }
                | GpuError::Driver { .. }
                | GpuError::Validation { .. } => "device",
            };
        }
        match self {
            Error::Network { .. } => "network",
            Error::Resume(_) => "cannot-resume",
            Error::Search(SearchError::NoCandidate { .. }) => "no-candidate",
            Error::Export(ExportError::Write { .. }) => "write",
            _ => "input",
        }
    }
}

impl From<Error> for JsValue {
    fn from(error: Error) -> Self {
        let object = js_sys::Error::new(&error.to_string());
        object.set_name("BlockPrunerError");
        let set = |key: &str, value: JsValue| {
            // Fails only for frozen objects, and this one is new.
            let _ = js_sys::Reflect::set(&object, &key.into(), &value);
        };
        set("code", error.code().into());
        if let Some(GpuError::TooLarge { what, bytes, limit, .. }) = error.gpu() {
            set("what", what.into());
            set("bytes", (*bytes as f64).into());
            set("limit", (*limit as f64).into());
        }
        object.into()
    }
}
