//! Zero-shot tasks from local files, by the rules of lm-evaluation-harness (EleutherAI, versions 0.4.0 and later).
//!
//! [`Evaluation`] is what was found.

mod evaluation;
mod generation;
mod task;

pub use evaluation::{Bos, Difference, EVALUATION_FORMAT, EvaluatedPlan, Evaluation, TaskDifference, TaskResult};
pub use generation::{GENERATION_PROMPTS, Generation, PromptGeneration, generation_prompts};
pub use task::Task;

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
    /// Not an evaluation.
    #[error("{file}: not a usable evaluation: {problem}; {advice}")]
    Document { file: String, problem: String, advice: &'static str },
}
