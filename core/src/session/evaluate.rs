//! Zero-shot tasks on a model, and prompts that it continues.

use web_time::Instant;

use super::{Preparation, Session};
use crate::Error;
use crate::eval::{Bos, EVALUATION_FORMAT, Encoder, EvalError, Evaluation, ItemScores, TaskItems};
use crate::export::PlanModel;
use crate::gpu::give_way;
use crate::model::BlockSet;
use crate::score::ScoreError;
use crate::score::continuations::{Likelihood, Prompt, PromptBatching, PromptScorer};
use crate::search::{MemoryError, MemoryPlan};

/// How a model is evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EvaluateOptions {
    /// What stands at the front of each text. Default: what the tokenizer puts there.
    pub bos: Bos,
    /// Draws of the bootstrap that LAMBADA's perplexity gets its standard error from; 0 does without. Default: 100,000, as
    /// lm-evaluation-harness.
    pub draws: usize,
    /// Texts to continue, by the whole model and without the blocks. Default: none.
    pub prompts: Vec<String>,
    /// New tokens of each of them at most. Default: 64.
    pub max_tokens: usize,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self { bos: Bos::default(), draws: 100_000, prompts: Vec::new(), max_tokens: 64 }
    }
}

impl EvaluateOptions {
    /// What stands at the front of each text.
    pub fn bos(mut self, bos: Bos) -> Self {
        self.bos = bos;
        self
    }

    /// Draws of the bootstrap.
    pub fn draws(mut self, draws: usize) -> Self {
        self.draws = draws;
        self
    }

    /// Texts to continue, such as [`crate::eval::GENERATION_PROMPTS`], by so many tokens at most.
    pub fn generation(mut self, prompts: impl IntoIterator<Item = String>, max_tokens: usize) -> Self {
        self.prompts = prompts.into_iter().collect();
        self.max_tokens = max_tokens;
        self
    }
}

/// What is being done while a model is evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Evaluating {
    /// The model is brought to the device.
    Prepare(Preparation),
    /// Items are scored.
    Score {
        /// Tokens that have run.
        done: usize,
        /// That will have.
        total: usize,
    },
    /// Prompts are continued.
    Generate {
        /// Continuations that are there.
        done: usize,
        /// That will be.
        total: usize,
    },
}

impl Session {
    /// The accuracy on zero-shot tasks without some blocks, and what was found of each item; and what follows prompts, if there
    /// are any.
    ///
    /// # Errors
    /// Neither tasks nor prompts, a task twice, a model without a tokenizer, items that the model cannot be asked, likelihoods that
    /// are not finite, blocks that the model does not have, and those of [`Session::memory`] and [`Session::load`].
    pub async fn evaluate(
        &self,
        tasks: &[TaskItems],
        removed: &BlockSet,
        options: EvaluateOptions,
        tell: &mut dyn FnMut(Evaluating),
    ) -> Result<(Evaluation, ItemScores), Error> {
        let twice = |(index, items): (usize, &TaskItems)| {
            tasks[..index].iter().any(|other| other.task == items.task).then_some(items.task)
        };
        if let Some(task) = tasks.iter().enumerate().find_map(twice) {
            return Err(EvalError::Twice { task }.into());
        }
        let EvaluateOptions { bos, draws, prompts, max_tokens } = options;
        if tasks.is_empty() && prompts.is_empty() {
            return Err(EvalError::NoTask.into());
        }
        self.checkpoint.spec.check_blocks(removed)?;
        let (likelihoods, seconds) = match tasks {
            [] => Default::default(),
            tasks => self.likelihoods(tasks, removed, bos, tell).await?,
        };
        let generation = match prompts.as_slice() {
            [] => None,
            prompts => Some(self.generations(prompts, removed, max_tokens, tell).await?),
        };
        let items = ItemScores::new(tasks, bos, &likelihoods);
        let tasks = items.results(draws);
        let evaluation = Evaluation {
            format: EVALUATION_FORMAT.into(),
            model: PlanModel::of(&self.checkpoint),
            removed: removed.clone(),
            plan: None,
            device: self.gpu.info(),
            bos,
            mean: Evaluation::mean_of(&tasks),
            tasks,
            differences: Default::default(),
            generation,
            seconds,
        };
        Ok((evaluation, items))
    }

    /// How likely each choice of each item is, in their order, and the seconds that finding out took.
    async fn likelihoods(
        &self,
        tasks: &[TaskItems],
        removed: &BlockSet,
        bos: Bos,
        tell: &mut dyn FnMut(Evaluating),
    ) -> Result<(Vec<Likelihood>, f64), Error> {
        let encoder = Encoder::new(&self.checkpoint, bos)?;
        // Whose item a prompt is.
        let (mut prompts, mut owners): (Vec<Prompt>, Vec<(&str, usize)>) = (Vec::new(), Vec::new());
        for TaskItems { file, items, .. } in tasks {
            for item in items {
                prompts.extend(encoder.prompts(file, item)?);
                owners.resize(prompts.len(), (file, item.row));
            }
        }
        let longest = prompts.iter().map(Prompt::tokens).max().ok_or(EvalError::NoTask)?;

        let (plan, batching) = self.memory_of_prompts(longest)?;
        let model = self.load(&plan, &mut |preparation| tell(Evaluating::Prepare(preparation))).await?;
        let named = |error: ScoreError| match prompt_of(&error) {
            Some(prompt) => {
                let (file, row) = owners.get(prompt).copied().unwrap_or_default();
                EvalError::Score { file: file.into(), row, error: Box::new(error) }.into()
            }
            None => Error::from(error),
        };
        let scorer = PromptScorer::batched(&model, batching)?;
        tell(Evaluating::Prepare(Preparation::Compile));
        give_way().await;
        scorer.warm_up(&prompts).await.map_err(named)?;
        tell(Evaluating::Prepare(Preparation::Ready));
        let start = Instant::now();
        let mut progress = |done, total| tell(Evaluating::Score { done, total });
        let likelihoods = scorer.score(&prompts, removed, &mut progress).await.map_err(named)?;
        Ok((likelihoods.concat(), start.elapsed().as_secs_f64()))
    }

    /// A plan for prompts of up to so many tokens, and how many of them run at a time.
    fn memory_of_prompts(&self, longest: usize) -> Result<(MemoryPlan, PromptBatching), Error> {
        let (gpu, spec) = (&self.gpu, &self.checkpoint.spec);
        let plan = self.memory_for(longest)?;
        let usual = PromptBatching::new(gpu, spec, longest);
        let bytes = |batching: &PromptBatching| batching.bytes(gpu, spec);
        let room = self.memory_budget.map_or(bytes(&usual), |budget| budget.saturating_sub(plan.weights));
        let batching = usual.smaller(gpu, spec).find(|batching| bytes(batching) <= room);
        let Some(batching) = batching else {
            let needed = plan.weights + usual.smaller(gpu, spec).map(|batching| bytes(&batching)).min().unwrap_or(0);
            return Err(MemoryError::TooSmall { budget: plan.weights + room, needed }.into());
        };
        let batching = if plan.streamed { batching.within(gpu, spec, room) } else { batching };
        Ok((MemoryPlan { scratch: bytes(&batching), ..plan }, batching))
    }
}

/// The prompt that an error is about.
fn prompt_of(error: &ScoreError) -> Option<usize> {
    match error {
        ScoreError::EmptyPrompt { prompt, .. }
        | ScoreError::PromptTooLong { prompt, .. }
        | ScoreError::PromptVocabulary { prompt, .. }
        | ScoreError::PromptNotFinite { prompt, .. } => Some(*prompt),
        _ => None,
    }
}
