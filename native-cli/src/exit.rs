//! Exit codes, and which error gets which.

use blockpruner::ErrorKind;
use blockpruner::export::ExportError;

/// Shown below `--help`.
pub const HELP: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong usage or bad input; 3 no usable device; 4 stopped with the state saved, go on with \
`prune --resume`.
Logging: BLOCKPRUNER_LOG=warn (or info, debug).";

/// Wrong usage or bad input that the library does not know of.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct BadInput {
    message: String,
    /// The options that may help.
    hint: Option<&'static str>,
}

/// The search was stopped and can go on.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// As was asked for.
    #[error("stopped; the state is saved, go on with the same command and --resume")]
    Asked,
    /// By what is said.
    #[error("{0}; the state is saved, go on with the same command and --resume")]
    Failed(String),
}

/// What exits with 2.
pub fn bad_input(message: impl Into<String>) -> anyhow::Error {
    BadInput { message: message.into(), hint: None }.into()
}

/// Before any work, an output folder that cannot be used is wrong usage, not a failure.
pub fn as_input(error: ExportError) -> anyhow::Error {
    let hint = match error {
        ExportError::Unfinished { .. } => "See --resume and --out.",
        _ => "See --out.",
    };
    BadInput { message: error.to_string(), hint: Some(hint) }.into()
}

/// The exit code of an error.
pub fn code(error: &anyhow::Error) -> u8 {
    match kind(error) {
        _ if error.is::<Stopped>() => 4,
        _ if error.is::<BadInput>() => 2,
        Some(ErrorKind::Input | ErrorKind::MissingField | ErrorKind::MemoryBudget | ErrorKind::CannotResume) => 2,
        Some(ErrorKind::NoDevice | ErrorKind::UnusableDevice) => 3,
        _ => 1,
    }
}

/// The options that may help, where the library's message cannot name them.
pub fn hint(error: &anyhow::Error) -> Option<&'static str> {
    if let Some(BadInput { hint, .. }) = error.downcast_ref() {
        return *hint;
    }
    match kind(error)? {
        ErrorKind::OutOfMemory => Some("See --window, --max-windows, --memory-budget and --device."),
        ErrorKind::TooLarge => Some("See --window and --device."),
        ErrorKind::UnusableDevice | ErrorKind::Driver => Some("See --device and --kernel."),
        ErrorKind::MemoryBudget => Some("See --window, --max-windows and --memory-budget."),
        ErrorKind::MissingField => Some("See --field."),
        _ => None,
    }
}

/// What an error of the library is about, whatever was said around it.
pub fn kind(error: &anyhow::Error) -> Option<ErrorKind> {
    error.chain().find_map(ErrorKind::of)
}
