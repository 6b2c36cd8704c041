//! Errors as JavaScript sees them: an `Error` with the library's message and a `code` to decide by.

use blockpruner::ErrorKind;
use blockpruner::eval::EvalError;
use blockpruner::export::ExportError;
use blockpruner::generate::GenerateError;
use blockpruner::gpu::GpuError;
use blockpruner::model::{ModelError, ParseBlockError};
use blockpruner::text::TextError;
use blockpruner::weights::WeightsError;
use wasm_bindgen::JsValue;

/// Everything that can go wrong here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Library(#[from] blockpruner::Error),
    /// What a caller passed makes no sense.
    #[error("{0}")]
    Argument(String),
    /// A file of a URL cannot be had.
    #[error("{url}: {reason}")]
    Network { url: String, reason: String },
    /// Its caller called it off, for this reason.
    #[error("aborted")]
    Aborted(JsValue),
}

macro_rules! from_library {
    ($($error:ty),+) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Library(error.into())
            }
        })+
    };
}
from_library!(EvalError, ExportError, GenerateError, GpuError, ModelError, ParseBlockError, TextError, WeightsError);

impl Error {
    fn code(&self) -> &'static str {
        let kind = match self {
            Self::Library(error) => error.kind(),
            Self::Argument(_) => ErrorKind::Input,
            Self::Network { .. } => return "network",
            Self::Aborted(_) => return "aborted",
        };
        match kind {
            ErrorKind::CannotResume => "cannot-resume",
            ErrorKind::NoDevice => "no-device",
            ErrorKind::UnusableDevice | ErrorKind::Driver => "device",
            ErrorKind::DeviceLost => "device-lost",
            ErrorKind::OutOfMemory => "out-of-memory",
            ErrorKind::TooLarge => "too-large",
            ErrorKind::NotFinite => "not-finite",
            ErrorKind::NoCandidate => "no-candidate",
            ErrorKind::Write => "write",
            _ => "input",
        }
    }
}

impl From<Error> for JsValue {
    fn from(error: Error) -> Self {
        // As everywhere on the web: the reason itself, by default a DOMException called AbortError.
        if let Error::Aborted(reason) = error {
            return reason;
        }
        let object = js_sys::Error::new(&error.to_string());
        object.set_name("BlockPrunerError");
        let set = |key: &str, value: JsValue| {
            // Fails only for frozen objects, and this one is new.
            let _ = js_sys::Reflect::set(&object, &key.into(), &value);
        };
        set("code", error.code().into());
        if let Error::Library(error) = &error
            && let Some(GpuError::TooLarge { what, bytes, limit, .. }) = error.device()
        {
            set("what", what.into());
            set("bytes", (*bytes as f64).into());
            set("limit", (*limit as f64).into());
        }
        object.into()
    }
}
