//! Zero-shot tasks from local files, by the rules of lm-evaluation-harness (EleutherAI, versions 0.4.0 and later).
//!
//! `rows` reads a [`Task`]'s file into [`TaskItems`], `task` has what each task asks, `request` the token rules. What the model
//! says of it ([`crate::score::continuations::PromptScorer`]) becomes [`ItemScores`], by `metrics` an [`Evaluation`].
//! [`crate::session::Session::evaluate`] does all of it.

mod evaluation;
mod generation;
mod items;
mod metrics;
mod request;
mod rows;
mod task;

pub use evaluation::{Bos, Difference, EVALUATION_FORMAT, EvaluatedPlan, Evaluation, TaskDifference, TaskResult};
pub use generation::{GENERATION_PROMPTS, Generation, PromptGeneration, generation_prompts};
pub use items::{ITEMS_FORMAT, ItemScore, ItemScores};
pub(crate) use request::Encoder;
pub use rows::TaskItems;
pub use task::{Item, Task};

use crate::score::ScoreError;
use crate::text::TextError;

/// What went wrong with tasks and evaluations.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
#[non_exhaustive]
pub enum EvalError {
    /// No task of that name.
    #[error(
        "there is no task `{name}`: expected piqa, winogrande, hellaswag, arc_easy, arc_challenge, openbookqa or lambada"
    )]
    NoSuchTask { name: String },
    /// A file without prompts.
    #[error("{file}: there is no prompt; write one on each line")]
    NoPrompt { file: String },
    /// One task twice in one evaluation.
    #[error("the task {task} is there twice; evaluate one of its files at a time")]
    Twice { task: Task },
    /// Nothing to evaluate.
    #[error("there is nothing to evaluate; give a task or a prompt")]
    NoTask,
    /// A file that cannot be read, or that is no JSON.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A file without rows.
    #[error("{file}: {reason}")]
    Rows { file: String, reason: String },
    /// A row that is no item of the task.
    #[error("{file}: row {row} is no item of {task}: {reason}")]
    Row { file: String, row: usize, task: Task, reason: String },
    /// An item that cannot be asked of this model.
    #[error("{file}: row {row}: {reason}")]
    Item { file: String, row: usize, reason: String },
    /// An item of which the model has no likelihoods.
    #[error("{file}: row {row}: {error}")]
    Score { file: String, row: usize, error: Box<ScoreError> },
    /// Not an evaluation.
    #[error("{file}: not a usable evaluation: {problem}; {advice}")]
    Document { file: String, problem: String, advice: &'static str },
    /// Not the items of a run.
    #[error("{file}: line {line}: {problem}; give a file that `blockpruner evaluate --items` wrote")]
    Items { file: String, line: usize, problem: String },
    /// The items of a run over other items.
    #[error("{file}: it cannot be compared with, item by item: {what}")]
    OtherItems { file: String, what: String },
}
