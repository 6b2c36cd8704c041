//! The layer-major sweep: walks the blocks once for many candidates. A candidate is born at its first block, from the states
//! before it, by skipping it; from there on all that are born advance together, so that every weight is bound, or
//! streamed, once for all of them. The states have the same bits as those of a whole pass, because copying them is all that differs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

use super::bound::{Bound, least_sum};
use super::likely::{LikelyHead, likely_tokens};
use super::{MemoryPlan, Reason, SearchError, Unit, Work};
use crate::gpu::Recording;
use crate::model::BlockSet;
use crate::model::forward::{Batch, Branch, Rows};
use crate::score::{Score, ScoreError, Scorer, states_bytes};

/// What scoring a candidate came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Every token was scored.
    Complete(Score),
    /// A bound showed that it cannot win.
    Bounded {
        /// The mean NLL is no less, in nats.
        mean_nll: f64,
        /// Which bound it was.
        by: Reason,
    },
}

/// What a wave found out about one candidate.
#[derive(Debug)]
pub(super) struct Scored {
    pub unit: Unit,
    pub outcome: Result<Outcome, ScoreError>,
    /// As [`super::Candidate::head_tokens`].
    pub head_tokens: u64,
}

/// Told of the share of a wave that is done, 0 to 1, and of the work since [`Sweep::take_work`]; says whether to go on.
pub(super) type Progress<'p> = &'p mut dyn FnMut(f64, Work) -> ControlFlow<()>;

/// Candidates that advance together through one batch of windows.
struct Run {
    batch: usize,
    /// The states before the next candidate, and the depth that they have come to; None if no candidate needs them.
    base: Option<(usize, wgpu::Buffer)>,
    slabs: Vec<Slab>,
}

/// Hidden states of as many candidates as a dispatch takes, one after the other.
struct Slab {
    states: wgpu::Buffer,
    candidates: Vec<Unit>,
}

/// Scores candidates over a scorer's text, without the blocks that were removed before.
pub(super) struct Sweep<'s> {
    scorer: &'s Scorer<'s>,
    /// What a race begins with: the first tokens of the first window.
    opening: Option<Batch>,
    plan: MemoryPlan,
    removed: BlockSet,
    /// Sublayers that candidates begin at, or began at before they were removed: prefixes are kept before them, so that
    /// a search that is resumed keeps what an uninterrupted one has kept.
    candidates: BTreeSet<usize>,
    /// For every batch, and the opening as the last, states by the sublayer that they have come to: the embeddings at 0,
    /// others if the plan keeps them.
    prefixes: Vec<BTreeMap<usize, wgpu::Buffer>>,
    /// The head over the tokens that the step's favourite finds likely.
    likely_head: Option<LikelyHead>,
    free_slabs: Vec<wgpu::Buffer>,
    block_tokens: u64,
    /// Logits computed.
    logits: u64,
}

impl<'s> Sweep<'s> {
    /// Embeds the text. `candidates` are those of the unpruned model.
    pub(super) async fn new(
        scorer: &'s Scorer<'s>,
        plan: MemoryPlan,
        removed: BlockSet,
        candidates: &[Unit],
    ) -> Result<Self, ScoreError> {
        let opening = (plan.needs.opening > 0)
            .then(|| Batch::new(scorer.model.gpu(), &scorer.first_window[..plan.needs.opening], plan.needs.opening))
            .transpose()?;
        let batches: Vec<&Batch> = scorer.batches.iter().chain(&opening).collect();
        let mut prefixes = Vec::new();
        for batch in &batches {
            prefixes.push(BTreeMap::from([(0, states(scorer, batch.rows() as usize)?)]));
        }
        let embeddings = prefixes.iter().flat_map(BTreeMap::values);
        let pairs: Vec<(&Batch, &wgpu::Buffer)> = batches.iter().copied().zip(embeddings).collect();
        scorer.model.embed(&pairs).await?;
        Ok(Self {
            scorer,
            opening,
            plan,
            removed,
            candidates: candidates.iter().map(|unit| scorer.model.spec().sublayer_of(unit.first())).collect(),
            prefixes,
            likely_head: None,
            free_slabs: Vec::new(),
            block_tokens: 0,
            logits: 0,
        })
    }

    /// Batches of windows, numbered from 0, that the text is in.
    pub(super) fn batches(&self) -> usize {
        self.scorer.batches.len()
    }

    /// The number of the batch that a race begins with, if there is one besides those of the text.
    pub(super) fn opening(&self) -> Option<usize> {
        self.opening.as_ref().map(|_| self.batches())
    }

    /// One of the batches of the text, or the opening.
    fn batch(&self, number: usize) -> &Batch {
        self.scorer.batches.get(number).or(self.opening.as_ref()).unwrap_or_else(|| unreachable!("batches are counted"))
    }

    /// From here on `unit` is left out, too. States that had it are forgotten.
    pub(super) fn remove(&mut self, unit: Unit) {
        self.removed.extend(unit.blocks());
        let depth = self.scorer.model.spec().sublayer_of(unit.first());
        self.likely_head = None;
        for prefixes in &mut self.prefixes {
            let kept = prefixes.range(..=depth).map(|(depth, _)| *depth).max().unwrap_or(0);
            prefixes.split_off(&(kept + 1));
        }
    }

    /// The arithmetic done since this was asked last.
    pub(super) fn take_work(&mut self) -> Work {
        let work = self.work();
        (self.block_tokens, self.logits) = (0, 0);
        work
    }

    fn work(&self) -> Work {
        Work { block_tokens: self.block_tokens, head_tokens: self.head_tokens(self.logits) }
    }

    /// Tokens that would have had so many logits over the whole vocabulary.
    fn head_tokens(&self, logits: u64) -> u64 {
        logits.div_ceil((self.scorer.model.spec().vocab_size as u64).max(1))
    }

    /// Keeps the states, if the plan does, that a search has kept which came to the units `reached`, in the first step after
    /// its dense pass.
    pub(super) async fn catch_up(
        &mut self,
        reached: impl Iterator<Item = Unit>,
        first_step: bool,
        progress: Progress<'_>,
    ) -> Result<(), SearchError> {
        if !self.plan.keeps_prefixes {
            return Ok(());
        }
        let spec = self.scorer.model.spec();
        // States before a sublayer are kept when it is walked.
        let reached = reached.map(|unit| spec.sublayer_of(unit.first()) + 1).max().unwrap_or(0);
        let text = if first_step { spec.sublayer_count() } else { reached };
        let ends = (0..self.batches()).map(|batch| (batch, text)).chain(self.opening().map(|batch| (batch, reached)));
        for (batch, end) in ends.filter(|(_, end)| *end > 0).collect::<Vec<_>>() {
            self.advance(batch..batch + 1, &[], end, progress).await?;
        }
        Ok(())
    }

    /// Scores the model without any candidate left out, keeping the states before each candidate on the way.
    pub(super) async fn dense(&mut self, progress: Progress<'_>) -> Result<Score, SearchError> {
        let mut nll = Vec::new();
        let end = self.scorer.model.spec().sublayer_count();
        let batches = self.batches();
        for batch in 0..batches {
            let mut part = |done: f64, work| progress((batch as f64 + done) / batches as f64, work);
            let runs = self.advance(batch..batch + 1, &[], end, &mut part).await?;
            for run in runs {
                if let Some((_, states)) = &run.base {
                    nll.extend(self.finish(run.batch, states, 0).await?);
                }
            }
        }
        Ok(Score::from_nll(&nll, self.scorer.kept(), &self.removed)?)
    }

    /// NLL of every target of a batch, whose final states begin at `first_row`.
    async fn finish(&mut self, batch: usize, states: &wgpu::Buffer, first_row: u32) -> Result<Vec<f32>, ScoreError> {
        let scorer = self.scorer;
        let nll = scorer.finish(Recording::new(), self.batch(batch), states, first_row).await?;
        self.logits += (nll.len() * scorer.model.spec().vocab_size) as u64;
        Ok(nll)
    }

    /// Scores the candidates of a wave, given in any order, against the incumbent's mean NLL. The `lead`, if it is among
    /// them, shows which tokens are likely, and becomes the incumbent where all of the text runs together.
    pub(super) async fn score(
        &mut self,
        wave: &[Unit],
        mut incumbent: Option<Bound>,
        lead: Option<Unit>,
        progress: Progress<'_>,
    ) -> Result<Vec<Scored>, SearchError> {
        let mut outcomes: BTreeMap<Unit, Result<Outcome, ScoreError>> = BTreeMap::new();
        let mut logits: BTreeMap<Unit, u64> = BTreeMap::new();
        let mut nll: BTreeMap<Unit, Vec<f32>> = wave.iter().map(|unit| (*unit, Vec::new())).collect();
        let rounds = self.batches().div_ceil(self.plan.round);
        for index in 0..rounds {
            let live: Vec<Unit> = wave.iter().copied().filter(|unit| !outcomes.contains_key(unit)).collect();
            if live.is_empty() {
                break;
            }
            let first = index * self.plan.round;
            let round = first..(first + self.plan.round).min(self.batches());
            let mut part = |done: f64, work| progress((index as f64 + done) / rounds as f64, work);
            let runs = self.advance(round, &live, 0, &mut part).await?;
            let mut order = live.clone();
            order.sort_by_key(|unit| Some(*unit) != lead);
            for unit in order {
                let so_far = nll.entry(unit).or_default();
                for run in &runs {
                    if Some(unit) == lead && self.plan.likely_head && self.likely_head.is_none() {
                        self.find_likely_tokens(run, unit).await?;
                    }
                    let before = self.logits;
                    let outcome = self.head(run, unit, so_far, incumbent).await?;
                    *logits.entry(unit).or_default() += self.logits - before;
                    if let Some(outcome) = outcome {
                        outcomes.insert(unit, outcome);
                        break;
                    }
                }
                if rounds == 1
                    && Some(unit) == lead
                    && let Some(Ok(Outcome::Complete(score))) = outcomes.get(&unit)
                {
                    incumbent = Some(Bound::new(score.mean_nll));
                }
            }
            self.release(runs);
        }
        // Rounded one by one, so that their sum does not depend on how the waves fell.
        let whole = self.scorer.model.spec().vocab_size as u64;
        for logits in logits.values_mut() {
            let rounded = logits.next_multiple_of(whole);
            self.logits += rounded - *logits;
            *logits = rounded;
        }
        let head_tokens = |unit: &Unit| self.head_tokens(logits.get(unit).copied().unwrap_or_default());
        let scored =
            outcomes.into_iter().map(|(unit, outcome)| Scored { head_tokens: head_tokens(&unit), unit, outcome });
        Ok(scored.collect())
    }

    /// NLL of every target of one batch without each of the candidates, which `wave` at most may be together.
    pub(super) async fn nll(
        &mut self,
        batch: usize,
        wave: &[Unit],
        progress: Progress<'_>,
    ) -> Result<Vec<(Unit, Vec<f32>)>, SearchError> {
        let runs = self.advance(batch..batch + 1, wave, 0, progress).await?;
        let mut losses = Vec::new();
        for run in &runs {
            for unit in wave {
                let mut nll = Vec::new();
                self.head(run, *unit, &mut nll, None).await?;
                losses.push((*unit, nll));
            }
        }
        self.release(runs);
        Ok(losses)
    }

    /// Walks the blocks for a round of batches: every candidate of `wave` ends with its final states in a slab, and the
    /// base comes at least as far as `base_end`.
    async fn advance(
        &mut self,
        round: Range<usize>,
        wave: &[Unit],
        base_end: usize,
        progress: Progress<'_>,
    ) -> Result<Vec<Run>, SearchError> {
        let (scorer, spec) = (self.scorer, self.scorer.model.spec());
        let mut births: BTreeMap<usize, Vec<Unit>> = BTreeMap::new();
        for unit in wave {
            births.entry(spec.sublayer_of(unit.first())).or_default().push(*unit);
        }
        let mut runs = Vec::new();
        for batch in round {
            runs.push(self.run(batch, births.keys().copied(), base_end).await?);
        }
        let base_end = births.keys().last().copied().unwrap_or(0).max(base_end);
        let start = births.keys().next().copied().into_iter();
        let start = start.chain(runs.iter().filter_map(|run| Some(run.base.as_ref()?.0))).min().unwrap_or(0);
        let last = if births.is_empty() { base_end } else { spec.sublayer_count() };
        let removed = self.removed.clone();
        let mut recording = Recording::new();
        let walk = scorer.model.walk(&mut recording, start..last, &removed, async |recording, depth, branches| {
            for run in &mut runs {
                for slab in &run.slabs {
                    self.record_slab(recording, branches, run.batch, slab);
                }
                for unit in births.get(&depth).into_iter().flatten() {
                    self.bear(recording, run, *unit, depth, branches)?;
                }
                self.keep(recording, run, depth)?;
                if let Some((base_depth, states)) = &mut run.base
                    && *base_depth == depth
                    && depth < base_end
                {
                    self.record(recording, branches, run.batch, states, 0, 1);
                    *base_depth = depth + 1;
                }
                scorer.model.gpu().submit(&std::mem::take(recording)).await?;
            }
            let done = (depth + 1 - start) as f64 / (last - start) as f64;
            if progress(done, self.work()).is_break() { Err(SearchError::Stopped) } else { Ok(()) }
        });
        walk.await?;
        Ok(runs)
    }

    /// Some branches over the candidates of a slab, but for those that a candidate leaves out.
    fn record_slab(&mut self, recording: &mut Recording, branches: &[Branch], batch: usize, slab: &Slab) {
        let left = |unit: &Unit| -> Vec<Branch> {
            branches.iter().filter(|branch| !unit.contains(branch.block)).cloned().collect()
        };
        let whole = |unit: &Unit| branches.iter().all(|branch| !unit.contains(branch.block));
        let rows = self.batch(batch).rows();
        let mut place = 0;
        // What all of them run is one dispatch.
        for alike in slab.candidates.chunk_by(|one, other| whole(one) && whole(other)) {
            let own = alike.first().map(left).unwrap_or_default();
            self.record(recording, &own, batch, &slab.states, place * rows, alike.len());
            place += alike.len() as u32;
        }
    }

    /// Some branches over so many candidates' states of one batch, which lie one after the other from a row on.
    fn record(
        &mut self,
        recording: &mut Recording,
        branches: &[Branch],
        batch: usize,
        states: &wgpu::Buffer,
        first: u32,
        candidates: usize,
    ) {
        let Batch { windows, window, .. } = *self.batch(batch);
        let rows = Rows { states, first, windows: windows * candidates as u32, window };
        self.scorer.model.record_sublayer(recording, &self.scorer.scratch, branches, &rows);
        self.block_tokens += windows as u64 * window as u64 * (candidates * branches.len()) as u64;
    }

    /// A run over one batch, its base at the deepest prefix from which everything that is not kept can be reached.
    async fn run(&self, batch: usize, births: impl Iterator<Item = usize>, base_end: usize) -> Result<Run, ScoreError> {
        let (scorer, prefixes) = (self.scorer, &self.prefixes[batch]);
        let needed = births.chain((base_end > 0).then_some(base_end));
        let missing = needed.filter(|depth| !prefixes.contains_key(depth)).min();
        let mut base = None;
        if let Some((depth, prefix)) = missing.and_then(|missing| prefixes.range(..=missing).next_back()) {
            let rows = self.batch(batch).rows() as usize;
            let states = states(scorer, rows)?;
            let mut recording = Recording::new();
            recording.copy(prefix, &states, 0, states_bytes(scorer.model.spec(), rows));
            scorer.model.gpu().submit(&recording).await?;
            base = Some((*depth, states));
        }
        Ok(Run { batch, base, slabs: Vec::new() })
    }

    /// Gives a candidate its states: those before its first block, and what else its sublayer adds to them.
    fn bear(
        &mut self,
        recording: &mut Recording,
        run: &mut Run,
        unit: Unit,
        depth: usize,
        branches: &[Branch],
    ) -> Result<(), ScoreError> {
        let scorer = self.scorer;
        let rows = self.batch(run.batch).rows() as usize;
        let group = (scorer.batching.most_rows() / rows).max(1);
        if run.slabs.last().is_none_or(|slab| slab.candidates.len() >= group) {
            let states = match self.free_slabs.pop() {
                Some(states) => states,
                None => states(scorer, scorer.batching.most_rows())?,
            };
            run.slabs.push(Slab { states, candidates: Vec::new() });
        }
        let base = run.base.as_ref().filter(|(base_depth, _)| *base_depth == depth).map(|(_, states)| states);
        let source = self.prefixes[run.batch].get(&depth).or(base);
        let (Some(source), Some(slab)) = (source, run.slabs.last_mut()) else {
            unreachable!("the base comes by every candidate whose prefix is not kept");
        };
        let bytes = states_bytes(scorer.model.spec(), rows);
        let place = slab.candidates.len();
        recording.copy(source, &slab.states, place as u64 * bytes, bytes);
        slab.candidates.push(unit);
        let others: Vec<Branch> = branches.iter().filter(|branch| !unit.contains(branch.block)).cloned().collect();
        self.record(recording, &others, run.batch, &slab.states, (place * rows) as u32, 1);
        Ok(())
    }

    /// Keeps the base's states if they are a prefix that later candidates begin with.
    fn keep(&mut self, recording: &mut Recording, run: &Run, depth: usize) -> Result<(), ScoreError> {
        let Some((base_depth, base)) = &run.base else { return Ok(()) };
        let wanted = self.plan.keeps_prefixes && *base_depth == depth && self.candidates.contains(&depth);
        if wanted && !self.prefixes[run.batch].contains_key(&depth) {
            let scorer = self.scorer;
            let rows = self.batch(run.batch).rows() as usize;
            let kept = states(scorer, rows)?;
            recording.copy(base, &kept, 0, states_bytes(scorer.model.spec(), rows));
            self.prefixes[run.batch].insert(depth, kept);
        }
        Ok(())
    }

    /// Scores a candidate's batch from its final states, adding to its losses `nll`. None while there are batches left and
    /// nothing speaks against it.
    async fn head(
        &mut self,
        run: &Run,
        unit: Unit,
        nll: &mut Vec<f32>,
        incumbent: Option<Bound>,
    ) -> Result<Option<Result<Outcome, ScoreError>>, ScoreError> {
        if let Some(incumbent) = incumbent
            && let Some(outcome) = self.bounded(run, unit, nll, incumbent).await?
        {
            return Ok(Some(Ok(outcome)));
        }
        let (states, first_row) = self.place(run, unit);
        nll.extend(self.finish(run.batch, states, first_row).await?);
        let finite = nll.iter().all(|loss| loss.is_finite());
        if finite && nll.len() < self.scorer.targets() {
            return Ok(None);
        }
        let score = Score::from_nll(nll, self.scorer.kept(), &self.removed.with(unit.blocks()));
        Ok(Some(score.map(Outcome::Complete)))
    }

    /// Whether the losses so far and a lower bound of this batch's show that a candidate cannot win.
    async fn bounded(
        &mut self,
        run: &Run,
        unit: Unit,
        nll: &[f32],
        incumbent: Bound,
    ) -> Result<Option<Outcome>, ScoreError> {
        let (model, scratch) = (self.scorer.model, &self.scorer.scratch);
        let batch = self.batch(run.batch);
        let targets = self.scorer.targets() as f64;
        let before: f64 = nll.iter().map(|loss| *loss as f64).sum();
        // A lower bound of the mean over the whole text, from one of the sum over this batch: no loss is negative.
        let mean = |sum: f64| (before + sum) / targets;
        if incumbent.beats(mean(0.0)) {
            return Ok(Some(Outcome::Bounded { mean_nll: mean(0.0), by: Reason::Windows }));
        }
        let Some(head) = &self.likely_head else { return Ok(None) };
        let (states, first_row) = self.place(run, unit);
        let (mut done, mut logits, mut outcome) = (0, 0, None);
        for end in head.stages.iter().copied() {
            let mut sum = 0.0;
            for (index, part) in batch.head.iter().enumerate() {
                let mut recording = Recording::new();
                let normed = model.record_final_norm(&mut recording, scratch, part, states, first_row);
                let likely = (head.chunks.as_slice(), &head.targets[run.batch][index]);
                model.record_head(&mut recording, scratch, part, &normed, likely, done..end);
                model.gpu().submit(&recording).await?;
                sum += least_sum(&model.gpu().read(&part.running, part.rows as usize * 4).await?);
                logits += part.rows as u64 * head.entries(done..end);
            }
            done = end;
            if incumbent.beats(mean(sum)) {
                let (seen, all) = (head.entries(0..end), model.spec().vocab_size as u64);
                let by = Reason::Vocabulary { seen, all };
                outcome = Some(Outcome::Bounded { mean_nll: mean(sum), by });
                break;
            }
        }
        self.logits += logits;
        Ok(outcome)
    }

    /// The states of these runs are not needed any more: their memory serves the next ones.
    fn release(&mut self, runs: Vec<Run>) {
        self.free_slabs.extend(runs.into_iter().flat_map(|run| run.slabs).map(|slab| slab.states));
    }

    /// Where a candidate's final states are: their buffer and first row.
    fn place<'r>(&self, run: &'r Run, unit: Unit) -> (&'r wgpu::Buffer, u32) {
        let rows = self.batch(run.batch).rows();
        let place = run.slabs.iter().find_map(|slab| {
            let position = slab.candidates.iter().position(|candidate| *candidate == unit)?;
            Some((&slab.states, position as u32 * rows))
        });
        place.unwrap_or_else(|| unreachable!("every candidate of a wave is born in every run"))
    }

    /// The likely tokens of this step, by a candidate's final states.
    async fn find_likely_tokens(&mut self, run: &Run, unit: Unit) -> Result<(), ScoreError> {
        let scorer = self.scorer;
        let Some(part) = self.batch(run.batch).head.first() else { return Ok(()) };
        let (states, first_row) = self.place(run, unit);
        let (likely, logits) = likely_tokens(scorer.model, &scorer.scratch, part, states, first_row).await?;
        self.logits += logits;
        self.likely_head = Some(LikelyHead::new(scorer.model, &scorer.batches, &likely).await?);
        Ok(())
    }
}

fn states(scorer: &Scorer<'_>, rows: usize) -> Result<wgpu::Buffer, ScoreError> {
    let bytes = states_bytes(scorer.model.spec(), rows);
    Ok(scorer.model.gpu().storage("hidden states", bytes)?)
}
