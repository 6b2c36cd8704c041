//! What a search takes, foreseen: its arithmetic from the model, the text and the plan of memory, its time from what it has
//! taken so far.

use super::{Event, MemoryPlan, SearchOptions, SearchState, Units, Work};
use crate::model::{BlockKind, BlockSet, ModelSpec};
use crate::text::Windows;

/// A rate is believed when it was measured for so long, in seconds, or on a whole wave of candidates.
const MEASURED_SECONDS: f64 = 3.0;

/// How much a model's parts cost.
#[derive(Clone, Copy, Debug)]
pub struct Arithmetic {
    /// Multiplications and additions of a block for a token, about: that of the mean block.
    pub block: f64,
    /// Of the head for a token.
    pub head: f64,
}

impl Arithmetic {
    /// Of a model that runs windows of `window` tokens.
    pub fn new(spec: &ModelSpec, window: usize) -> Self {
        let attention = |id: crate::model::BlockId| match (id.kind, spec.layers.get(id.layer)) {
            (BlockKind::Mha, Some(layer)) => (2 * layer.attention.query_width() * (window + 1)) as f64,
            _ => 0.0,
        };
        let blocks: Vec<f64> = spec.blocks().map(|id| 2.0 * spec.block_parameters(id) as f64 + attention(id)).collect();
        Self {
            block: blocks.iter().sum::<f64>() / blocks.len().max(1) as f64,
            head: 2.0 * (spec.vocab_size * spec.hidden_size) as f64,
        }
    }

    /// Multiplications and additions of some work.
    pub fn flops(&self, work: &Work) -> f64 {
        work.block_tokens as f64 * self.block + work.head_tokens as f64 * self.head
    }
}

/// What a search takes.
#[derive(Clone, Debug)]
pub struct Cost {
    spec: ModelSpec,
    options: SearchOptions,
    arithmetic: Arithmetic,
    memory: MemoryPlan,
    /// Of the unpruned model.
    blocks: usize,
    units: Units,
    /// Of the first step.
    first: usize,
    /// Of the whole search, as far as anybody knows.
    steps: Option<usize>,
    /// The one under way, 1-based, or the last one.
    step: usize,
    tokens: usize,
    targets: usize,
    /// What a step does of [`Cost::complete`], as the last step that is finished has shown.
    shown: Option<f64>,
    /// Arithmetic of candidates, the published loop's passes for it, and the time, when it was first looked at.
    start: Option<(f64, f64, f64)>,
    /// Arithmetic a second.
    rate: Option<f64>,
    tokens_per_second: Option<f64>,
    /// Arithmetic done and left, in flops.
    flops: (f64, f64),
    done: f64,
}

impl Cost {
    /// Of a search that begins, or goes on from a state.
    pub fn new(
        spec: &ModelSpec,
        windows: &Windows,
        options: &SearchOptions,
        memory: &MemoryPlan,
        state: &SearchState,
    ) -> Self {
        let mut cost = Self {
            spec: spec.clone(),
            options: options.clone(),
            arithmetic: Arithmetic::new(spec, windows.window),
            memory: *memory,
            blocks: spec.blocks().count(),
            units: options.units_of(spec),
            first: options.candidates(spec, &BlockSet::new()).len(),
            steps: None,
            step: 1,
            tokens: windows.ids.len(),
            targets: windows.count * (windows.window - 1),
            shown: None,
            start: None,
            rate: None,
            tokens_per_second: None,
            flops: (0.0, 0.0),
            done: 0.0,
        };
        cost.look(state, state.work, state.candidates.len());
        cost
    }

    /// Steps of the whole search: as many as were asked for, a guess by the sizes of blocks for a target that is a size, or None
    /// where the perplexity decides. Nobody knows the end then, and what is said here is of the search up to the end of the
    /// step under way.
    pub fn steps(&self) -> Option<usize> {
        self.steps
    }

    fn last_step(&self) -> usize {
        self.steps.unwrap_or(self.step)
    }

    /// Passes that all steps count as, see [`Strategy::passes`](super::Strategy::passes): of a search by perplexity those of the
    /// published loop, one for every candidate.
    pub fn passes(&self) -> usize {
        (1..=self.last_step()).map(|step| self.step_passes(step)).sum()
    }

    fn step_passes(&self, step: usize) -> usize {
        self.options.strategy.passes(step, self.candidates(step))
    }

    /// Candidates of a step, 1-based.
    pub fn candidates(&self, step: usize) -> usize {
        self.units.count(self.first, step)
    }

    /// Arithmetic of the whole search, in passes of the unpruned model over the text: what it takes where one such pass was
    /// measured. Candidates that advance together may take less time than that.
    pub fn whole_passes(&self) -> f64 {
        let (tokens, targets) = ((self.blocks * self.tokens) as u64, self.targets as u64);
        let pass = self.arithmetic.flops(&Work { block_tokens: tokens, head_tokens: targets });
        (self.flops.0 + self.flops.1) / pass.max(1.0)
    }

    /// Share of the work that is done, 0 to 1: of the whole search, and never less than it was, or of the step under way where
    /// nobody knows how many there are.
    pub fn done(&self) -> f64 {
        self.done
    }

    /// Seconds that are left; None before any candidates were measured.
    pub fn seconds_left(&self) -> Option<f64> {
        Some(self.flops.1 / self.rate?)
    }

    /// Tokens a second that candidates are scored on, where every candidate counts as a whole pass.
    pub fn tokens_per_second(&self) -> Option<f64> {
        self.tokens_per_second
    }

    /// Takes note of an event, when the search has run for so many seconds.
    pub fn observe(&mut self, event: &Event, state: &SearchState, seconds: f64) {
        let (work, scored) = match event {
            Event::Dense(_) | Event::Progress { step: 0, .. } => return,
            Event::Progress { work, .. } => (*work, state.candidates.len()),
            Event::Wave { .. } | Event::Step(_) | Event::Beyond(_) => (state.work, state.candidates.len()),
        };
        self.look(state, work, scored);
        let passes = self.passes_done();
        let (first, begun, then) = *self.start.get_or_insert((self.flops.0, passes, seconds));
        let (flops, took) = (self.flops.0 - first, (seconds - then).max(1e-6));
        if flops > 0.0 && (took >= MEASURED_SECONDS || !matches!(event, Event::Progress { .. })) {
            self.rate = Some(flops / took);
            self.tokens_per_second = Some((passes - begun).max(0.0) * self.tokens as f64 / took);
        }
    }

    /// Passes of the published loop for which there is a result.
    fn passes_done(&self) -> f64 {
        let (done, left) = self.flops;
        let share = if left > 0.0 { done / (done + left) } else { 1.0 };
        share * self.passes() as f64
    }

    /// Work that is done and left.
    fn look(&mut self, state: &SearchState, work: Work, scored: usize) {
        let step = state.steps.len() + 1;
        let is_over = self.options.end(&self.spec, state).is_some();
        self.steps = self.options.foreseen_steps(&self.spec, state);
        self.step = if is_over { state.steps.len() } else { step };
        if let Some(last) = state.steps.last() {
            let share = self.arithmetic.flops(&last.work) / self.complete(last.step).max(1.0);
            // The first step of an exact search scores everything, the later ones do not.
            let foreseen = self.usual(2) / self.usual(1);
            self.shown = Some(if last.step == 1 { share * foreseen } else { share });
        }
        let finished: f64 = state.steps.iter().map(|step| self.arithmetic.flops(&step.work)).sum();
        let here = self.arithmetic.flops(&work);
        let left = |step: usize| self.complete(step) * self.share(step);
        let last = self.last_step();
        let mut rest: f64 = (step + 1..=last).map(left).sum();
        if step <= last && !is_over {
            let total = self.candidates(step).max(1);
            // A step that takes more than was foreseen has still its candidates to come.
            let open = (total - scored.min(total)) as f64 / total as f64;
            rest += (left(step) - here).max(left(step) * open * 0.1);
        }
        self.flops = (finished + here, rest);
        let share = |done: f64| if rest > 0.0 { done / (done + rest) } else { 1.0 };
        self.done = match self.steps {
            Some(_) => self.done.max(share(self.flops.0)),
            None => share(here),
        };
    }

    /// The same as the strategy says; the second step stands for all later ones.
    fn usual(&self, step: usize) -> f64 {
        self.options.strategy.usual_share(step)
    }

    fn share(&self, step: usize) -> f64 {
        match (step, self.shown) {
            (1, _) => self.usual(1),
            (_, Some(shown)) => shown,
            (_, None) => self.usual(2),
        }
    }

    /// Arithmetic of a step's passes in flops: in a search by perplexity, of scoring every candidate completely.
    fn complete(&self, step: usize) -> f64 {
        let (size, candidates, passes) = (self.units.size(), self.candidates(step), self.step_passes(step));
        let blocks = self.blocks.saturating_sub(size * (step - 1));
        // What a candidate runs of the whole model.
        let rest = blocks.saturating_sub(size) as f64;
        let together = self.memory.needs.together && passes >= candidates;
        let runs = match (together, self.memory.keeps_prefixes) {
            (false, _) => passes as f64 * rest,
            // A candidate runs what is behind it, half of the blocks on average; what is before is run once for all,
            (true, true) if step == 1 => candidates as f64 * rest / 2.0,
            // from the block on that the last step removed,
            (true, true) => (candidates as f64 * rest + blocks as f64) / 2.0,
            // or up to each wave.
            (true, false) => {
                let waves = candidates.div_ceil(self.memory.wave.max(1)) as f64;
                (candidates as f64 * rest + blocks as f64 * (waves + 1.0)) / 2.0
            }
        };
        runs * self.tokens as f64 * self.arithmetic.block + (passes * self.targets) as f64 * self.arithmetic.head
    }
}
