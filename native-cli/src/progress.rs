//! Progress of what takes long: what is told of it, and bars where stderr is a terminal.

use std::rc::Rc;

use blockpruner::gpu::Gpu;
#[cfg(feature = "hub")]
use blockpruner::hub;
use blockpruner::search::{self, CandidateState, Unit};
use blockpruner::session::{Evaluating, Preparation, Search, Session, Writing};
use indicatif::ProgressBar;

use crate::event::Event;
use crate::kept_pipelines;
use crate::screen::{self, Stage, tell};

/// Shows how a session prepares its work.
pub struct Preparing {
    gpu: Rc<Gpu>,
    stage: Stage,
}

impl Preparing {
    /// Nothing is shown yet.
    pub fn new(session: &Session) -> Self {
        Self { gpu: session.gpu().clone(), stage: Stage::none() }
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
                words: &screen::memory(&plan),
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

/// Shows how tasks are evaluated.
pub struct EvaluatingBars {
    preparing: Preparing,
    stage: Stage,
}

impl EvaluatingBars {
    /// Nothing is shown yet.
    pub fn new(session: &Session) -> Self {
        Self { preparing: Preparing::new(session), stage: Stage::none() }
    }

    /// Shows what is being done.
    pub fn tell(&mut self, evaluating: Evaluating) {
        match evaluating {
            Evaluating::Prepare(preparation) => self.preparing.tell(preparation),
            Evaluating::Score { done, total } => self.stage.transfer("scoring items", done as u64, total as u64),
            Evaluating::Generate { done, total } => {
                self.stage.transfer("continuing prompts", done as u64, total as u64);
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

/// Shows how a model is downloaded.
#[cfg(feature = "hub")]
pub struct Downloading {
    /// Until the first file begins.
    asking: Stage,
    bar: ProgressBar,
    file: String,
    percent: u64,
    /// Bytes of the file that were there at first, and that are there now.
    first: u64,
    last: u64,
    /// Bytes of the files before it that have arrived.
    arrived: u64,
}

#[cfg(feature = "hub")]
impl Downloading {
    /// The hub is being asked what there is.
    pub fn new() -> Self {
        let asking = Stage::spinner("asking the hub for its files");
        Self { asking, bar: ProgressBar::hidden(), file: String::new(), percent: 0, first: 0, last: 0, arrived: 0 }
    }

    /// Shows what is being done.
    pub fn tell(&mut self, progress: hub::Progress<'_>) {
        match progress {
            hub::Progress::File { file, done, total } => {
                let percent = done * 100 / total.max(1);
                let begins = self.file != file;
                if begins {
                    self.asking = Stage::none();
                    self.finish();
                    (self.file, self.first) = (file.to_string(), done);
                    self.bar = screen::bar("{prefix} {bar:32} {bytes} of {total_bytes}, {eta} left", total);
                    self.bar.set_prefix(screen::printable(file));
                }
                // A server that cannot go on with a file begins it again.
                self.first = self.first.min(done);
                self.last = done;
                if begins || percent != self.percent {
                    self.percent = percent;
                    tell(&Event::Download { file, done, total });
                }
                self.bar.set_position(done);
            }
            hub::Progress::Waiting { file } => {
                screen::message(format!("another process is downloading {file}: waiting for it"));
            }
            _ => {}
        }
    }

    /// Clears the bar. Returns how many bytes have arrived in all.
    pub fn finish(&mut self) -> u64 {
        self.asking = Stage::none();
        self.bar.finish_and_clear();
        self.arrived += self.last - self.first;
        (self.first, self.last) = (0, 0);
        self.arrived
    }
}

#[cfg(feature = "hub")]
impl Drop for Downloading {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Parts of a search that its bar counts in.
const PARTS: u64 = 10_000;

/// Tells how the search goes.
pub struct Searching {
    bar: ProgressBar,
    /// While the unpruned model is scored.
    dense: Stage,
    /// Whether it was said what the search takes.
    told_cost: bool,
    percent: u64,
    /// Of the step under way.
    step: Step,
}

/// What is known of a step that is not finished.
#[derive(Default)]
struct Step {
    done: usize,
    best: Option<(Unit, f64)>,
}

impl Step {
    fn add(&mut self, candidates: &[search::Candidate]) {
        for candidate in candidates {
            if let (CandidateState::Complete, Some(perplexity)) = (candidate.state, candidate.perplexity)
                && self.best.is_none_or(|(_, best)| perplexity < best)
            {
                self.best = Some((candidate.unit, perplexity));
            }
        }
        self.done += candidates.len();
    }
}

impl Searching {
    /// A search that is about to go on from its state.
    pub fn new(search: &Search) -> Self {
        let mut step = Step::default();
        step.add(&search.state().candidates);
        let mut searching =
            Self { bar: ProgressBar::hidden(), dense: Stage::none(), told_cost: false, percent: 0, step };
        if search.state().dense.is_some() {
            searching.begin(search);
        }
        searching
    }

    /// Here the candidates of this run begin.
    fn begin(&mut self, search: &Search) {
        self.dense = Stage::none();
        self.bar = screen::bar("{prefix} {wide_bar} {percent}%{msg}", PARTS);
        self.advance(search);
    }

    /// Shows how far the search is, as the library foresees it.
    fn advance(&mut self, search: &Search) {
        let (Some(cost), state) = (search.cost(), search.state()) else { return };
        let steps = search.options().target.steps();
        let step = (state.steps.len() + 1).min(steps.unwrap_or(usize::MAX));
        let of = cost.candidates(step);
        let (done, tokens_per_second, seconds_left) = (cost.done(), cost.tokens_per_second(), cost.seconds_left());
        if let (false, Some(seconds_left)) = (self.told_cost, seconds_left) {
            self.told_cost = true;
            let (passes, tokens, steps) = (cost.passes(), search.windows().ids.len(), cost.steps());
            tell(&Event::Cost { passes, tokens, seconds_left, steps });
        }
        let best = self
            .step
            .best
            .map_or(String::new(), |(unit, perplexity)| format!(", best {unit} {}", screen::short(perplexity)));
        let steps = steps.map_or(String::new(), |steps| format!("/{steps}"));
        self.bar.set_prefix(format!("step {step}{steps}: {}/{of}{best}", self.step.done));
        let rate = tokens_per_second.map_or(String::new(), |rate| format!(", {rate:.0} tokens/s"));
        let left = seconds_left.map_or(String::new(), |left| format!(", {} left", screen::duration(left)));
        self.bar.set_message(rate + &left);
        self.bar.set_position((done * PARTS as f64) as u64);
        let percent = (done * 100.0) as u64;
        if percent != self.percent {
            self.percent = percent;
            tell(&Event::Progress { step, done, tokens_per_second, seconds_left });
        }
    }

    /// Shows what was found out.
    pub fn tell(&mut self, search: &Search, event: &search::Event) {
        let dense = search.state().dense.map_or(f64::INFINITY, |dense| dense.perplexity);
        match event {
            search::Event::Dense(dense) => {
                self.dense = Stage::none();
                tell(&Event::Dense { perplexity: dense.perplexity });
                self.begin(search);
            }
            search::Event::Wave { step, candidates, .. } => {
                self.step.add(candidates);
                for candidate in candidates {
                    let search::Candidate { unit, state, value, perplexity, at_least, .. } = candidate;
                    let (step, block, state) = (*step, *unit, *state);
                    let (value, perplexity, at_least) = (*value, *perplexity, *at_least);
                    tell(&Event::Candidate { step, block, state, value, perplexity, at_least });
                    if let (CandidateState::Rejected, Some(reason)) = (state, &candidate.reason) {
                        screen::warn(format!("rejected {block}: {reason}"));
                    }
                }
            }
            search::Event::Progress { step: 0, done, .. } => {
                self.dense.transfer("scoring the whole model", (done * 1000.0) as u64, 1000);
                return;
            }
            search::Event::Progress { .. } => {}
            search::Event::Step(step) => {
                let complete = step.candidates.iter().filter(|c| c.state == CandidateState::Complete).count();
                tell(&Event::Step {
                    step: step.step,
                    steps: search.options().target.steps(),
                    removed: step.removed,
                    perplexity: step.perplexity,
                    params_left: step.params_left,
                    ratio_removed: step.ratio_removed,
                    candidates: step.candidates.len(),
                    complete,
                    approximate: search.options().strategy.is_approximate(),
                    seconds: step.seconds,
                });
                if !search.is_finished() {
                    self.step = Step::default();
                }
            }
            search::Event::Beyond(step) => {
                let most = search.options().target.most_perplexity(dense).unwrap_or(f64::NAN);
                tell(&Event::Beyond { step: step.step, block: step.removed, perplexity: step.perplexity, most });
            }
        }
        self.advance(search);
    }
}

impl Drop for Searching {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
