//! Progress on stderr: bars on a terminal, and a line for what should stay.

use std::rc::Rc;
use std::time::Instant;

use blockpruner::gpu::Gpu;
use blockpruner::search::{self, CandidateState, SearchOptions, Strategy};
use blockpruner::session::{Preparation, Search, Session, Writing};
use indicatif::ProgressBar;

use crate::kept_pipelines;
use crate::screen::{self, say};

/// The bar or spinner of what is under way; gone with the value.
struct Stage {
    what: &'static str,
    bar: ProgressBar,
}

impl Stage {
    /// Nothing is under way.
    fn none() -> Self {
        Self { what: "", bar: ProgressBar::hidden() }
    }

    /// So much of something that is counted is done.
    fn transfer(&mut self, what: &'static str, done: u64, total: u64) {
        if self.what != what {
            *self = Self { what, bar: screen::transfer_bar(what) };
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

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
            Preparation::Planned(plan) => say!("memory: {}", screen::memory(&plan, self.search.as_ref())),
            Preparation::Load { done, total } => self.stage.transfer("loading weights", done, total),
            Preparation::Compile => {
                let what = "compiling shaders";
                // The spinner draws itself: what it replaces is cleared before.
                self.stage = Stage::none();
                self.stage = Stage { what, bar: screen::spinner(what) };
                if self.stage.bar.is_hidden() {
                    say!("{what}");
                }
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

/// Tells people how the search goes.
pub struct Searching {
    bar: ProgressBar,
    start: Instant,
    /// Candidates of the first step.
    blocks: u64,
    /// Blocks to remove.
    remove: u64,
    tokens: u64,
    approximate: bool,
    /// Time of all passes over that of as many whole ones, at most.
    share: f64,
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
        let mut searching = Self {
            bar: ProgressBar::hidden(),
            start: Instant::now(),
            blocks,
            remove,
            tokens: search.windows().ids.len() as u64,
            approximate: options.strategy == Strategy::Racing,
            share,
        };
        let done = searching.candidates(state.steps.len() as u64) + state.candidates.len() as u64;
        searching.bar = screen::search_bar(searching.candidates(remove), done);
        searching
    }

    /// Candidates of the first `steps` steps.
    fn candidates(&self, steps: u64) -> u64 {
        (0..steps).map(|step| self.blocks - step).sum()
    }

    /// Shows what was found out.
    pub fn tell(&mut self, event: &search::Event) {
        match event {
            search::Event::Dense(dense) => {
                let passes = self.candidates(self.remove);
                let seconds = self.start.elapsed().as_secs_f64() * self.share * passes as f64;
                let (perplexity, tokens) = (screen::short(dense.perplexity), screen::grouped(self.tokens));
                let (passes, time) = (screen::grouped(passes), screen::duration(seconds));
                self.bar.suspend(|| {
                    say!("dense perplexity: {perplexity}");
                    say!("cost: {passes} candidate passes over {tokens} tokens, roughly {time} at most");
                });
                self.bar.reset_eta();
            }
            search::Event::Wave { candidates, .. } => {
                for candidate in candidates {
                    if let (CandidateState::Rejected, Some(reason)) = (candidate.state, &candidate.reason) {
                        self.bar.suspend(|| say!("rejected {}: {reason}", candidate.block));
                    }
                }
            }
            search::Event::Progress { step: 0, .. } => {}
            search::Event::Progress { step, done } => {
                let before = self.candidates(*step as u64 - 1);
                let here = (self.blocks + 1 - *step as u64) as f64 * done;
                self.bar.set_position(before * screen::CANDIDATE + (here * screen::CANDIDATE as f64) as u64);
            }
            search::Event::Step(step) => {
                self.bar.set_position(self.candidates(step.step as u64) * screen::CANDIDATE);
                let (perplexity, took) = (screen::short(step.perplexity), screen::duration(step.seconds));
                let approximate = if self.approximate { ", approximate" } else { "" };
                let complete = step.candidates.iter().filter(|c| c.state == CandidateState::Complete).count();
                let (step, removed, all) = (step.step, step.removed, step.candidates.len());
                let scored =
                    if complete < all { format!(", {complete} of {all} scored to the end") } else { String::new() };
                self.bar.suspend(|| {
                    say!("step {step}: {removed} goes, perplexity {perplexity} ({took}{scored}{approximate})")
                });
            }
        }
    }
}

impl Drop for Searching {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
