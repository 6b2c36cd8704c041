//! Progress of what takes long: what is told of it, and bars where stderr is a terminal.

use std::rc::Rc;
use std::time::Instant;

use blockpruner::gpu::Gpu;
use blockpruner::model::BlockId;
use blockpruner::search::{self, CandidateState, SearchOptions, Strategy};
use blockpruner::session::{Preparation, Search, Session, Writing};
use indicatif::ProgressBar;

use crate::event::Event;
use crate::kept_pipelines;
use crate::screen::{self, Stage, tell};

/// Shows how a session prepares for a search, or (None) for scoring.
pub struct Preparing {
    gpu: Rc<Gpu>,
    search: Option<SearchOptions>,
    stage: Stage,
}

impl Preparing {
    /// Nothing is shown yet.
    pub fn new(session: &Session, search: Option<SearchOptions>) -> Self {
        Self { gpu: session.gpu().clone(), search, stage: Stage::none() }
    }

    /// Shows what is being done.
    pub fn tell(&mut self, preparation: Preparation) {
        match preparation {
            Preparation::Planned(plan) => tell(&Event::Memory {
                weights: plan.weights,
                states: plan.states,
                scratch: plan.scratch,
                total: plan.total(),
                streamed: plan.streamed,
                wave: plan.wave,
                words: &screen::memory(&plan, self.search.as_ref()),
            }),
            Preparation::Load { done, total } => self.stage.transfer("loading weights", done, total),
            Preparation::Compile => {
                // The spinner draws itself: what it replaces is cleared before.
                self.stage = Stage::none();
                self.stage = Stage::spinner("compiling shaders");
            }
            Preparation::Ready => {
                self.stage = Stage::none();
                kept_pipelines::save(&self.gpu);
            }
            _ => {}
        }
    }
}

/// Shows how a model is written and checked.
pub struct WritingBars(Stage);

impl WritingBars {
    /// Nothing is shown yet.
    pub fn new() -> Self {
        Self(Stage::none())
    }

    /// Shows what is being done.
    pub fn tell(&mut self, writing: Writing) {
        match writing {
            Writing::Write { done, total } => self.0.transfer("writing the model", done, total),
            Writing::Compare { done, total } => self.0.transfer("checking the model", done, total),
            Writing::Prepare(Preparation::Load { done, total }) => {
                self.0.transfer("loading the written model", done, total);
            }
            // What it takes was told of the search already.
            _ => {}
        }
    }
}

/// Candidates are told of in thousandths.
const CANDIDATE: u64 = 1000;

/// Tells how the search goes.
pub struct Searching {
    bar: ProgressBar,
    /// While the unpruned model is scored.
    dense: Stage,
    start: Instant,
    /// Candidates of the first step.
    blocks: u64,
    /// Blocks to remove.
    remove: u64,
    tokens: u64,
    approximate: bool,
    /// Time of all passes over that of as many whole ones, at most.
    share: f64,
    /// Of that time, in seconds, when the unpruned model was scored.
    estimate: Option<f64>,
    /// In thousandths of candidates: what was done when this run began to search, and what is.
    begun: u64,
    position: u64,
    /// Of the step under way.
    step: Step,
}

/// What is known of a step that is not finished.
#[derive(Default)]
struct Step {
    done: usize,
    best: Option<(BlockId, f64)>,
}

impl Step {
    fn add(&mut self, candidates: &[search::Candidate]) {
        for candidate in candidates {
            if let (CandidateState::Complete, Some(perplexity)) = (candidate.state, candidate.perplexity)
                && self.best.is_none_or(|(_, best)| perplexity < best)
            {
                self.best = Some((candidate.block, perplexity));
            }
        }
        self.done += candidates.len();
    }
}

impl Searching {
    /// A search that is about to go on from its state.
    pub fn new(search: &Search) -> Self {
        let (spec, options, state) = (&search.session().checkpoint().spec, search.options(), search.state());
        let head = (spec.vocab_size * spec.hidden_size) as f64;
        let body: u64 = spec.blocks().map(|block| spec.block_parameters(block)).sum();
        let share = match options.strategy {
            Strategy::Exhaustive => 1.0,
            // The parts of the pass that candidates share are run once: half of the blocks' arithmetic on average.
            Strategy::Exact | Strategy::Racing => (body as f64 / 2.0 + head) / (body as f64 + head),
        };
        let (blocks, remove) = (options.candidates(spec).count() as u64, options.remove as u64);
        let mut step = Step::default();
        step.add(&state.candidates);
        let mut searching = Self {
            bar: ProgressBar::hidden(),
            dense: Stage::none(),
            start: Instant::now(),
            blocks,
            remove,
            tokens: search.windows().ids.len() as u64,
            approximate: options.strategy == Strategy::Racing,
            share,
            estimate: None,
            begun: 0,
            position: 0,
            step,
        };
        if state.dense.is_some() {
            let done = searching.candidates(state.steps.len() as u64) + state.candidates.len() as u64;
            searching.begin(done * CANDIDATE, state.steps.len() + 1);
        }
        searching
    }

    /// Candidates of the first `steps` steps.
    fn candidates(&self, steps: u64) -> u64 {
        (0..steps).map(|step| self.blocks - step).sum()
    }

    /// Here the candidates of this run begin, and the time to compare with.
    fn begin(&mut self, position: u64, step: usize) {
        self.dense = Stage::none();
        self.start = Instant::now();
        (self.begun, self.position) = (position, position);
        self.bar = screen::bar("{prefix} {wide_bar} {percent}%{msg}", self.candidates(self.remove) * CANDIDATE);
        self.advance(position, step);
    }

    /// Shows that so many thousandths of candidates are done; what is known never becomes less.
    fn advance(&mut self, position: u64, step: usize) {
        let step = step.min(self.remove as usize);
        let all = self.candidates(self.remove) * CANDIDATE;
        let percent = |position: u64| position * 100 / all.max(1);
        let before = percent(self.position);
        self.position = self.position.max(position).min(all);
        let (done, elapsed) = (self.position - self.begun, self.start.elapsed());
        let passes = done as f64 / CANDIDATE as f64;
        let tokens_per_second = (done > 0).then(|| passes * self.tokens as f64 / elapsed.as_secs_f64().max(1e-3));
        let share = done as f64 / (all - self.begun).max(1) as f64;
        let seconds_left = screen::seconds_left(elapsed, share).or(self.estimate);
        let best = self
            .step
            .best
            .map_or(String::new(), |(block, perplexity)| format!(", best {block} {}", screen::short(perplexity)));
        let of = self.blocks + 1 - (step as u64).min(self.blocks);
        self.bar.set_prefix(format!("step {step}/{}: {}/{of}{best}", self.remove, self.step.done));
        let rate = tokens_per_second.map_or(String::new(), |rate| format!(", {rate:.0} tokens/s"));
        let left = seconds_left.map_or(String::new(), |left| format!(", {} left", screen::duration(left)));
        self.bar.set_message(rate + &left);
        self.bar.set_position(self.position);
        if percent(self.position) != before {
            let done = self.position as f64 / all as f64;
            tell(&Event::Progress { step, done, tokens_per_second, seconds_left });
        }
    }

    /// Shows what was found out.
    pub fn tell(&mut self, event: &search::Event) {
        match event {
            search::Event::Dense(dense) => {
                let passes = self.candidates(self.remove);
                let seconds = self.start.elapsed().as_secs_f64() * self.share * passes as f64;
                self.dense = Stage::none();
                self.estimate = Some(seconds);
                tell(&Event::Dense {
                    perplexity: dense.perplexity,
                    passes,
                    tokens: self.tokens,
                    seconds_left: seconds,
                });
                self.begin(0, 1);
            }
            search::Event::Wave { step, candidates, .. } => {
                self.step.add(candidates);
                for candidate in candidates {
                    let search::Candidate { block, state, perplexity, at_least, .. } = candidate;
                    let (step, block, state) = (*step, *block, *state);
                    tell(&Event::Candidate { step, block, state, perplexity: *perplexity, at_least: *at_least });
                    if let (CandidateState::Rejected, Some(reason)) = (state, &candidate.reason) {
                        screen::warn(format!("rejected {block}: {reason}"));
                    }
                }
                self.advance(self.position, *step);
            }
            search::Event::Progress { step: 0, done } => {
                self.dense.transfer("scoring the whole model", (done * 1000.0) as u64, 1000);
            }
            search::Event::Progress { step, done } => {
                let before = self.candidates(*step as u64 - 1);
                let here = (self.blocks + 1 - *step as u64) as f64 * done;
                self.advance(before * CANDIDATE + (here * CANDIDATE as f64) as u64, *step);
            }
            search::Event::Step(step) => {
                let complete = step.candidates.iter().filter(|c| c.state == CandidateState::Complete).count();
                tell(&Event::Step {
                    step: step.step,
                    steps: self.remove,
                    removed: step.removed,
                    perplexity: step.perplexity,
                    params_left: step.params_left,
                    ratio_removed: step.ratio_removed,
                    candidates: step.candidates.len(),
                    complete,
                    approximate: self.approximate,
                    seconds: step.seconds,
                });
                if (step.step as u64) < self.remove {
                    self.step = Step::default();
                }
                self.advance(self.candidates(step.step as u64) * CANDIDATE, step.step + 1);
            }
        }
    }
}

impl Drop for Searching {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
