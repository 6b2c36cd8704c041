//! Everything that can go wrong, as one type, and of which kind it is: what a program decides by, where people read the
//! message.

use std::error::Error as StdError;

use crate::eval::EvalError;
use crate::export::{ExportError, ResumeError};
use crate::generate::GenerateError;
use crate::gpu::GpuError;
#[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
use crate::hub::HubError;
use crate::model::{ForwardError, ModelError, ParseBlockError};
use crate::score::ScoreError;
use crate::search::{MemoryError, SearchError};
use crate::text::TextError;
use crate::weights::WeightsError;

/// Any error of this library. Its message says what is wrong with what, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// Weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A model's files.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The text or the tokenizer.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Bringing a model to the device, or running it.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// Scoring a text.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// Planning device memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Searching.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// Continuing a prompt.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Tasks and evaluations.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Writing or reading the files of a pruning.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Going on with a saved search.
    #[error("cannot resume: {0}")]
    Resume(#[from] ResumeError),
    /// The name of a block.
    #[error(transparent)]
    Block(#[from] ParseBlockError),
    /// Downloading a model.
    #[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
    #[error(transparent)]
    Hub(#[from] HubError),
}

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was given cannot be used: files, text, settings.
    Input,
    /// A text's rows have no field of the name asked for.
    MissingField,
    /// The memory budget is too small for what should be done.
    MemoryBudget,
    /// A saved search is damaged, or belongs to something else.
    CannotResume,
    /// There is no device, or none of that name.
    NoDevice,
    /// The device cannot be opened, cannot do what was asked for, or computes wrong values.
    UnusableDevice,
    /// The driver failed, or refused a command.
    Driver,
    /// The device went away. What was saved can be gone on with.
    DeviceLost,
    /// The device's memory is exhausted.
    OutOfMemory,
    /// Something is larger than the device allows.
    TooLarge,
    /// A loss or a logit is not finite.
    NotFinite,
    /// No candidate of a search's step has a finite loss.
    NoCandidate,
    /// A file could not be written, or is not what was written.
    Write,
    /// The search was asked to stop.
    Stopped,
    /// The network or a server failed, or what came through it is damaged.
    Network,
}

impl Error {
    /// What it is about.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Gpu(error) => gpu(error),
            Self::Weights(_) | Self::Model(_) | Self::Block(_) => ErrorKind::Input,
            Self::Text(error) => text(error),
            Self::Forward(error) => forward(error),
            Self::Score(error) => score(error),
            Self::Memory(error) => memory(error),
            Self::Search(error) => search(error),
            Self::Generate(error) => generate(error),
            Self::Eval(error) => eval(error),
            Self::Export(error) => export(error),
            Self::Resume(_) => ErrorKind::CannotResume,
            #[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
            Self::Hub(error) => hub(error),
        }
    }

    /// The device's error inside of it.
    pub fn device(&self) -> Option<&GpuError> {
        let forward = match self {
            Self::Gpu(error) => return Some(error),
            Self::Forward(error)
            | Self::Memory(MemoryError::Forward(error))
            | Self::Generate(GenerateError::Forward(error))
            | Self::Score(ScoreError::Forward(error))
            | Self::Search(SearchError::Score(ScoreError::Forward(error))) => error,
            _ => return None,
        };
        match forward {
            ForwardError::Gpu(error) => Some(error),
            _ => None,
        }
    }
}

impl ErrorKind {
    /// The kind of any of this library's errors; None for others. For programs that carry errors of all kinds: this one
    /// looks at `error` only, not at its source.
    pub fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        fn is<E: StdError + 'static>(error: &(dyn StdError + 'static), kind: fn(&E) -> ErrorKind) -> Option<ErrorKind> {
            error.downcast_ref().map(kind)
        }
        #[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
        if let Some(kind) = is(error, hub) {
            return Some(kind);
        }
        is(error, Error::kind)
            .or_else(|| is(error, gpu))
            .or_else(|| is(error, |_: &WeightsError| Self::Input))
            .or_else(|| is(error, |_: &ModelError| Self::Input))
            .or_else(|| is(error, text))
            .or_else(|| is(error, |_: &ParseBlockError| Self::Input))
            .or_else(|| is(error, forward))
            .or_else(|| is(error, score))
            .or_else(|| is(error, memory))
            .or_else(|| is(error, search))
            .or_else(|| is(error, generate))
            .or_else(|| is(error, eval))
            .or_else(|| is(error, export))
            .or_else(|| is(error, |_: &ResumeError| Self::CannotResume))
    }
}

fn gpu(error: &GpuError) -> ErrorKind {
    match error {
        GpuError::NoAdapter { .. } | GpuError::NoSuchDevice { .. } => ErrorKind::NoDevice,
        GpuError::Unsuitable { .. } | GpuError::Open { .. } | GpuError::SelfTest { .. } => ErrorKind::UnusableDevice,
        GpuError::TooLarge { .. } => ErrorKind::TooLarge,
        GpuError::OutOfMemory { .. } => ErrorKind::OutOfMemory,
        GpuError::Lost { .. } => ErrorKind::DeviceLost,
        GpuError::Driver { .. } | GpuError::Validation { .. } => ErrorKind::Driver,
    }
}

fn text(error: &TextError) -> ErrorKind {
    match error {
        TextError::MissingField { .. } => ErrorKind::MissingField,
        _ => ErrorKind::Input,
    }
}

fn forward(error: &ForwardError) -> ErrorKind {
    match error {
        ForwardError::Gpu(error) => gpu(error),
        ForwardError::Weights(_) | ForwardError::Model(_) => ErrorKind::Input,
    }
}

fn score(error: &ScoreError) -> ErrorKind {
    match error {
        ScoreError::Forward(error) => forward(error),
        ScoreError::Text(error) => text(error),
        ScoreError::WindowTooLong { .. }
        | ScoreError::EmptyPrompt { .. }
        | ScoreError::PromptTooLong { .. }
        | ScoreError::PromptVocabulary { .. } => ErrorKind::Input,
        ScoreError::NotFinite { .. } | ScoreError::PromptNotFinite { .. } => ErrorKind::NotFinite,
    }
}

fn memory(error: &MemoryError) -> ErrorKind {
    match error {
        MemoryError::Forward(error) => forward(error),
        MemoryError::TooSmall { .. } => ErrorKind::MemoryBudget,
    }
}

fn search(error: &SearchError) -> ErrorKind {
    match error {
        SearchError::Score(error) => score(error),
        SearchError::TooMany { .. }
        | SearchError::TooMuch { .. }
        | SearchError::TooSmall { .. }
        | SearchError::FitsAlready { .. }
        | SearchError::Target { .. }
        | SearchError::NothingWithin { .. }
        | SearchError::TypesOfBlocks { .. }
        | SearchError::UnitsOfStrategy { .. } => ErrorKind::Input,
        SearchError::NoCandidate { .. } => ErrorKind::NoCandidate,
        SearchError::Stopped => ErrorKind::Stopped,
    }
}

fn generate(error: &GenerateError) -> ErrorKind {
    match error {
        GenerateError::Forward(error) => forward(error),
        GenerateError::NotFinite { .. } => ErrorKind::NotFinite,
        GenerateError::Text(_)
        | GenerateError::EmptyPrompt
        | GenerateError::Vocabulary { .. }
        | GenerateError::PromptTooLong { .. } => ErrorKind::Input,
    }
}

fn eval(error: &EvalError) -> ErrorKind {
    match error {
        EvalError::Score { error, .. } => score(error),
        _ => ErrorKind::Input,
    }
}

fn export(error: &ExportError) -> ErrorKind {
    match error {
        ExportError::Write { .. } | ExportError::Differs { .. } | ExportError::OtherPerplexity { .. } => {
            ErrorKind::Write
        }
        _ => ErrorKind::Input,
    }
}

#[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
fn hub(error: &HubError) -> ErrorKind {
    match error {
        HubError::Refused { .. } | HubError::Weights(_) => ErrorKind::Input,
        HubError::Network { .. } | HubError::Damaged { .. } => ErrorKind::Network,
        HubError::Cache { .. } => ErrorKind::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However deep the device's error is, and whoever carries it.
    #[test]
    fn the_kind_is_that_of_what_went_wrong() {
        let lost = || GpuError::Lost { device: "d".into(), reason: "r".into() };
        let nested: [Box<dyn StdError>; 4] = [
            Box::new(lost()),
            Box::new(ForwardError::from(lost())),
            Box::new(SearchError::from(lost())),
            Box::new(Error::from(MemoryError::from(ForwardError::from(lost())))),
        ];
        for error in nested {
            assert_eq!(ErrorKind::of(error.as_ref()), Some(ErrorKind::DeviceLost), "{error}");
        }
        let error = Error::from(SearchError::from(lost()));
        assert!(matches!(error.device(), Some(GpuError::Lost { .. })) && error.kind() == ErrorKind::DeviceLost);
        assert_eq!(ErrorKind::of(&std::fmt::Error), None);
        assert_eq!(Error::from(ResumeError::Damaged { problem: "p".into() }).kind(), ErrorKind::CannotResume);
    }
}
