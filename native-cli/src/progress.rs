//! Progress on stderr: bars on a terminal, and a line for what should stay.

use std::rc::Rc;

use blockpruner::gpu::Gpu;
use blockpruner::search::{self, CandidateState};
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
            Preparation::Planned(plan) => say!("memory: {}", screen::memory(&plan)),
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
    tokens: u64,
    approximate: bool,
    /// Whether it was said what the search takes.
    told_cost: bool,
}

impl Searching {
    /// A search that is about to go on from its state.
    pub fn new(search: &Search) -> Self {
        Self {
            bar: screen::search_bar(),
            tokens: search.windows().ids.len() as u64,
            approximate: search.options().strategy.is_approximate(),
            told_cost: false,
        }
    }

    /// Shows what was found out.
    pub fn tell(&mut self, search: &Search, event: &search::Event) {
        screen::show_cost(&self.bar, search);
        self.tell_cost(search);
        match event {
            search::Event::Dense(dense) => {
                let perplexity = screen::short(dense.perplexity);
                self.bar.suspend(|| say!("dense perplexity: {perplexity}"));
            }
            search::Event::Wave { candidates, .. } => {
                for candidate in candidates {
                    if let (CandidateState::Rejected, Some(reason)) = (candidate.state, &candidate.reason) {
                        self.bar.suspend(|| say!("rejected {}: {reason}", candidate.block));
                    }
                }
            }
            search::Event::Progress { .. } => {}
            search::Event::Step(step) => {
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

    /// Says once, as soon as that was measured, what the search takes.
    fn tell_cost(&mut self, search: &Search) {
        if let (false, Some(cost)) = (self.told_cost, search.cost())
            && let Some(seconds) = cost.seconds_left()
        {
            self.told_cost = true;
            let (passes, tokens) = (screen::grouped(cost.passes() as u64), screen::grouped(self.tokens));
            let time = screen::duration(seconds);
            self.bar.suspend(|| say!("cost: {passes} candidate passes over {tokens} tokens, about {time} left"));
        }
    }
}

impl Drop for Searching {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
