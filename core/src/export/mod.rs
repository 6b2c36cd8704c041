//! What a search leaves behind: the plan, the published order file and pruned checkpoints.
//!
//! `plan` and `order` turn the steps of a search into files and back. `model` writes a checkpoint without the removed blocks
//! into a [`FolderSink`], a folder on disk or whatever the embedding program streams into: by `hf` as a Hugging Face folder, or by
//! `gguf` as a file for llama.cpp, with a `card`. Nothing here decides which block goes.

mod card;
mod gguf;
mod hf;
#[cfg(not(target_arch = "wasm32"))]
mod lock;
mod model;
mod order;
mod plan;
mod pruning;
mod saved;
mod sink;
mod sizes;

pub use card::{Provenance, SearchProvenance};
pub use gguf::{
    GgufForm, GgufFormat, GgufOptions, GgufQuantisation, GgufSource, GgufSummary, check_gguf, export_gguf,
    written_gguf_bytes,
};
pub use hf::{HfFormat, HfOptions, HfSource, HfSummary, check_hf, export_hf, written_bytes};
#[cfg(not(target_arch = "wasm32"))]
pub use lock::FolderLock;
pub use model::{ModelFormat, ModelOptions, ModelSummary, check_model, export_model, folder_format, model_bytes};
pub use order::{order_json, parse_order, steps_to_ratio};
#[cfg(not(target_arch = "wasm32"))]
pub use order::{read_order, write_order};
pub use plan::{
    Fingerprint, FingerprintDifference, HeldOut, PLAN_FORMAT, Plan, PlanCalibration, PlanModel, PlanSettings,
    PlanStatus,
};
pub(crate) use pruning::Pruning;
pub use saved::{ResumeError, SavedSearch};
#[cfg(not(target_arch = "wasm32"))]
pub use sink::{Canceller, DiskFolder, write_atomically};
pub use sink::{FolderSink, SinkFuture};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use sink::{MadeFolders, read_file, remove_abandoned};
pub use sizes::{block_sizes, with_sizes};

use crate::model::ModelError;
use crate::weights::{DType, FloatType, WeightsError};

/// What went wrong while writing or reading the files of a pruning.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
#[non_exhaustive]
pub enum ExportError {
    /// A file or folder could not be written.
    #[error("cannot write {path}: {reason}; {advice}")]
    Write { path: String, reason: String, advice: &'static str },
    /// A file could not be read.
    #[error("cannot read {path}: {reason}; {advice}")]
    Read { path: String, reason: String, advice: &'static str },
    /// The output folder holds files already.
    #[error("{path} is not an empty folder; choose a new folder, or empty this one first")]
    NotEmpty { path: String },
    /// [`Canceller::cancel`] was called.
    #[error("{path} is not written: it was cancelled")]
    Cancelled { path: String },
    /// The model lies where its result is written.
    #[error("the model is in {path}, where the smaller one is written; move it, or choose another folder")]
    InOutput { path: String },
    /// Another process writes the output folder.
    #[error("another process is at work in {path}; wait until it is done, or choose another folder")]
    Busy { path: String },
    /// The output folder holds a saved search.
    #[error("{path} holds an unfinished search; resume it, or choose another folder")]
    Unfinished { path: String },
    /// The output folder holds no saved search.
    #[error("{path} {why}, there is nothing to resume; choose another folder to start again")]
    NothingToResume { path: String, why: &'static str },
    /// Blocks cannot be left out of the text model of a model of images and text.
    #[error(
        "a model of images and text cannot be written without the tensors of removed blocks, because no module loads it \
         so: choose the format hf-zeroed, which any program loads"
    )]
    Composite,
    /// What is left is no ordinary model.
    #[error(
        "what is left is no ordinary model: beside {alone} the other half of a layer is missing; choose another format, \
         or search with units that keep a model ordinary (pairs or layers)"
    )]
    NotPlain { alone: String },
    /// Layers that the family's configuration cannot describe.
    #[error("no config.json of {family} describes the layers that are left: choose another format")]
    PlainConfig { family: &'static str },
    /// A model that is no DeciLM.
    #[error("a deci folder cannot hold this model: {what}; choose another format (plain, hf, hf-zeroed)")]
    NotDeci { what: String },
    /// Quantised weights in a folder.
    #[error("only GGUF files hold quantised weights: choose --format gguf, or --dtype for a folder")]
    QuantisedFolder,
    /// A file name that would leave the output folder.
    #[error("`{name}` is not a plain file name; an export writes into one folder only")]
    FileName { name: String },
    /// The caller used a [`FolderSink`] out of order.
    #[error("{path}: {reason}; call begin_file, write and end_file in this order")]
    SinkOrder { path: String, reason: &'static str },
    /// Not a plan, or a plan that contradicts itself.
    #[error("{file}: not a usable plan: {place}{problem}; {advice}")]
    Plan { file: String, place: JsonPlace, problem: String, advice: &'static str },
    /// Not an order file, or one that contradicts itself.
    #[error(
        "{file}: not a usable order file: {place}{problem}; expected {{\"1\": [[\"mha\", 25]], \"2\": [[\"mha\", 25], \
         [\"mlp\", 7]], ..}}, each step holding all blocks removed so far"
    )]
    Order { file: String, place: JsonPlace, problem: String },
    /// A step beyond the end of the plan.
    #[error("step {step} does not exist: the plan has {steps} steps; choose 0 (the dense model) to {steps}")]
    NoSuchStep { step: usize, steps: usize },
    /// A plan of another model.
    #[error(
        "the plan is for another model: its {key} is {plan}, that of this model is {model}; give the model it names"
    )]
    OtherModel { key: &'static str, plan: String, model: String },
    /// A value that the requested type cannot hold.
    #[error("tensor `{tensor}` holds {value}, which is beyond the range of {dtype}; export as bf16 or f32 instead")]
    Overflow { tensor: String, value: f32, dtype: FloatType },
    /// Nothing would load the folder.
    #[error(
        "transformers has no class for {family} models by which it could load one whose blocks are left out; export it \
         as hf-zeroed, which is loaded with the Python files of the original model"
    )]
    NoClass { family: &'static str },
    /// A written folder does not hold what was written.
    #[error("the written model is not what it should be: {what}; delete it and export again, to another disk")]
    Differs { what: String },
    /// A written model does not score as what was searched.
    #[error(
        "the written model in {path} has perplexity {perplexity}, but the search found {planned}; it is kept for \
         inspection, do not use it"
    )]
    OtherPerplexity { path: String, perplexity: f64, planned: f64 },
    /// Blocks of few bits that were to be converted again.
    #[error(
        "tensor `{tensor}` is quantised already ({dtype}), and would lose precision a second time: leave the type out, and \
         its blocks are copied as they are"
    )]
    Requantised { tensor: String, dtype: DType },
    /// A format that holds a model in more bytes than it should take.
    #[error(
        "as {format} the model that was found takes {bytes} bytes, more than {most}: the format cannot leave out the blocks that \
         went, and holds zeros; choose another format"
    )]
    TooLarge { format: ModelFormat, bytes: u64, most: u64 },
    /// A step of a plan or an order that removes a share of the parameters.
    #[error("the {steps} steps remove {:.1} % of the parameters, not {:.1} %; search on to a larger share", 100.0 * .most, 100.0 * .ratio)]
    NoSuchRatio { ratio: f64, most: f64, steps: usize },
    /// A tensor could not be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The model does not fit what was asked for.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Where in a JSON document something is wrong. Prints as `at steps[3].removed: `, or as nothing for the whole document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonPlace(pub String);

impl std::fmt::Display for JsonPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() || self.0 == "." { Ok(()) } else { write!(f, "at {}: ", self.0) }
    }
}
