//! Exit codes, and which error gets which.

use blockpruner::export::ExportError;
use blockpruner::generate::GenerateError;
use blockpruner::gpu::GpuError;
use blockpruner::model::{ForwardError, ModelError, ParseBlockError};
use blockpruner::score::ScoreError;
use blockpruner::search::{MemoryError, SearchError};
use blockpruner::text::TextError;
use blockpruner::weights::WeightsError;

/// Shown below `--help`.
pub const HELP: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong usage or bad input; 3 no usable device; 4 stopped with the state saved, go on with \
`prune --resume`.
Logging: BLOCKPRUNER_LOG=warn (or info, debug).";

/// Wrong usage or bad input that the library does not know of.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

/// The search was stopped and can go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}; the state is saved, go on with the same command and --resume")]
pub struct Stopped(pub String);

/// A [`BadInput`] as an [`anyhow::Error`].
pub fn bad_input(message: impl Into<String>) -> anyhow::Error {
    BadInput(message.into()).into()
}

/// The exit code of an error.
pub fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Stopped>() {
        return 4;
    }
    if let Some(gpu) = gpu_error(error) {
        return match gpu {
            GpuError::NoAdapter { .. }
            | GpuError::NoSuchDevice { .. }
            | GpuError::Unsuitable { .. }
            | GpuError::Open { .. }
            | GpuError::SelfTest { .. } => 3,
            _ => 1,
        };
    }
    if is_input(error) { 2 } else { 1 }
}

/// The options that may help, where the library's message cannot name them.
pub fn hint(error: &anyhow::Error) -> Option<&'static str> {
    if let Some(gpu) = gpu_error(error) {
        return match gpu {
            GpuError::OutOfMemory { .. } => Some("See --window, --max-windows, --memory-budget and --device."),
            GpuError::TooLarge { .. } => Some("See --window and --device."),
            GpuError::SelfTest { .. } | GpuError::Driver { .. } => Some("See --device and --kernel."),
            _ => None,
        };
    }
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(MemoryError::TooSmall { .. }), _) => Some("See --window, --max-windows and --memory-budget."),
        (_, Some(TextError::MissingField { .. })) => Some("See --field."),
        _ => None,
    }
}

/// The device's error inside of the library's other errors.
pub fn gpu_error(error: &anyhow::Error) -> Option<&GpuError> {
    if let Some(gpu) = error.downcast_ref::<GpuError>() {
        return Some(gpu);
    }
    let score = match error.downcast_ref::<SearchError>() {
        Some(SearchError::Score(score)) => Some(score),
        _ => error.downcast_ref::<ScoreError>(),
    };
    let memory = error.downcast_ref::<MemoryError>();
    let forward = match (score, memory, error.downcast_ref::<GenerateError>()) {
        (Some(ScoreError::Forward(forward)), _, _)
        | (_, Some(MemoryError::Forward(forward)), _)
        | (_, _, Some(GenerateError::Forward(forward))) => Some(forward),
        _ => error.downcast_ref::<ForwardError>(),
    };
    match forward {
        Some(ForwardError::Gpu(gpu)) => Some(gpu),
        _ => None,
    }
}

/// Whether the error is about what the user gave.
fn is_input(error: &anyhow::Error) -> bool {
    if error.is::<BadInput>() || error.is::<ModelError>() || error.is::<WeightsError>() || error.is::<TextError>() {
        return true;
    }
    if error.is::<ParseBlockError>() || error.is::<ForwardError>() || error.is::<MemoryError>() {
        return true;
    }
    if let Some(error) = error.downcast_ref::<ExportError>() {
        return !matches!(
            error,
            ExportError::Write { .. } | ExportError::SinkOrder { .. } | ExportError::Differs { .. }
        );
    }
    if let Some(error) = error.downcast_ref::<SearchError>() {
        return match error {
            SearchError::Score(error) => is_input_score(error),
            SearchError::TooMany { .. } => true,
            SearchError::NoCandidate { .. } | SearchError::Stopped => false,
        };
    }
    if let Some(error) = error.downcast_ref::<GenerateError>() {
        return !matches!(error, GenerateError::NotFinite { .. });
    }
    error.downcast_ref::<ScoreError>().is_some_and(is_input_score)
}

fn is_input_score(error: &ScoreError) -> bool {
    match error {
        ScoreError::Forward(_) | ScoreError::Text(_) | ScoreError::WindowTooLong { .. } => true,
        ScoreError::NotFinite { .. } => false,
    }
}
