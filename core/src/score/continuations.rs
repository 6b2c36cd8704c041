//! How likely texts are to follow others: the log-likelihoods by which multiple-choice questions are answered.
//!
//! A context runs once: its rows, and then those of its continuations without their last tokens, which are only predicted, are
//! one window, in which a continuation sees the context and itself (a tree of depth one, as in tree attention; Miao et al.,
//! 2023) and stands right behind the context. Windows of similar lengths run together, padded behind their ends, which nothing
//! before sees; what comes of a window does not depend on the others. The head runs at the rows that predict a continuation's
//! token and at no others.

use std::cell::Cell;

use blockpruner_shaders::attention::Place;
use blockpruner_shaders::heads;

use super::layout::{self, Window};
use super::{BATCH_TOKENS, MOST_ROWS, ScoreError, states_bytes};
use crate::gpu::{Gpu, Recording, Resource};
use crate::model::forward::{Attend, Batch, Rows, Scratch};
use crate::model::{BlockSet, DeviceModel, ForwardError, ModelSpec, attention_needs};

/// A context and texts that may follow it, as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// At least one token.
    pub context: Vec<u32>,
    /// Each at least one token.
    pub continuations: Vec<Vec<u32>>,
}

impl Prompt {
    /// Of the context and the longest continuation.
    pub(crate) fn tokens(&self) -> usize {
        self.context.len() + self.continuations.iter().map(Vec::len).max().unwrap_or(0)
    }
}

/// How likely a continuation is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Likelihood {
    /// Of all its tokens together, in nats: the sum of their logarithms.
    pub log_likelihood: f64,
    /// Whether greedy decoding would write it: no token has a larger logit than any of its own, each where it stands.
    pub is_greedy: bool,
}

/// How much is done at a time, which decides how much memory a [`PromptScorer`] takes. What comes of it does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptBatching {
    /// Tokens of the longest context with a continuation.
    longest: usize,
    /// Rows of a batch.
    rows: usize,
    /// Batches whose states are held at a time.
    together: usize,
    /// Whether continuations share their context.
    shares: bool,
}

impl PromptBatching {
    /// For contexts that have up to `longest` tokens with a continuation: one batch at a time.
    pub fn new(gpu: &Gpu, spec: &ModelSpec, longest: usize) -> Self {
        Self { longest, rows: 0, together: 1, shares: true }.of(gpu, spec, BATCH_TOKENS)
    }

    /// Whether continuations share their context. They do where nobody chooses; without, results differ by rounding.
    pub fn sharing(self, shares: bool) -> Self {
        Self { shares, ..self }
    }

    /// This and ever smaller batches, which take less memory and more time.
    pub fn smaller(self, gpu: &Gpu, spec: &ModelSpec) -> impl Iterator<Item = Self> {
        let sizes = (0..4).map(move |half| self.of(gpu, spec, BATCH_TOKENS >> half));
        sizes.filter(move |batching| batching.rows <= self.rows)
    }

    /// The states of as many batches at a time as `bytes` bytes hold in all, and at least one: where weights are streamed, each is
    /// then brought once for all of them.
    pub fn within(self, gpu: &Gpu, spec: &ModelSpec, bytes: u64) -> Self {
        let one = Self { together: 1, ..self };
        let more = bytes.saturating_sub(one.bytes(gpu, spec)) / one.batch_bytes(gpu, spec).max(1);
        Self { together: 1 + usize::try_from(more).unwrap_or(usize::MAX).min(MOST_TOGETHER), ..self }
    }

    /// Bytes of everything that a [`PromptScorer`] allocates, and that [`PromptScorer::score`] does.
    pub fn bytes(&self, gpu: &Gpu, spec: &ModelSpec) -> u64 {
        Scratch::bytes_without_ropes(gpu, spec, self.rows as u32) + self.together as u64 * self.batch_bytes(gpu, spec)
    }

    /// Of one batch: its states, its tokens and targets, its rotary tables, and its places and positions.
    fn batch_bytes(&self, gpu: &Gpu, spec: &ModelSpec) -> u64 {
        let table = |rotated: usize| gpu.readable_bytes(self.rows as u64 * (rotated / 2) as u64 * 8);
        let tables: u64 = spec.ropes.iter().map(|rope| table(rope.rotated)).sum();
        states_bytes(spec, self.rows) + Batch::bytes(self.rows) + tables + self.rows as u64 * (8 + 4)
    }

    /// Tokens that run of the longest context with a continuation.
    fn longest_run(&self) -> usize {
        self.longest.saturating_sub(1).max(1)
    }

    fn of(self, gpu: &Gpu, spec: &ModelSpec, tokens: usize) -> Self {
        Self { rows: tokens.max(window_rows(gpu, spec, self.longest_run().min(MOST_ROWS))), ..self }
    }
}

/// Batches at a time at most: with more, the weights that are streamed are a small part of the time.
const MOST_TOGETHER: usize = 64;

fn window_rows(gpu: &Gpu, spec: &ModelSpec, window: usize) -> usize {
    Scratch::window_rows(gpu, spec, window as u32) as usize
}

/// A batch on the device.
struct OnDevice {
    batch: Batch,
    /// For each rotary embedding, `[window, rotated / 2]`; with places, `[rows, rotated / 2]`.
    ropes: Vec<Resource>,
    /// Of each row, where continuations share a context.
    places: Option<wgpu::Buffer>,
}

/// Rotary tables on the CPU, for texts with the frequencies of some length.
struct Tables {
    alike: usize,
    /// For each rotary embedding, `[longest, rotated / 2]`.
    of: Vec<Vec<[f32; 2]>>,
}

/// A model, and memory to run prompts in.
pub struct PromptScorer<'m> {
    model: &'m DeviceModel,
    batching: PromptBatching,
    scratch: Scratch,
    /// The hidden states of each batch under way.
    states: Vec<wgpu::Buffer>,
    /// Whether the kernel that shares contexts agrees with its CPU twin, once that is known.
    agrees: Cell<Option<bool>>,
}

impl<'m> PromptScorer<'m> {
    /// For contexts that have up to `longest` tokens with a continuation.
    ///
    /// # Errors
    /// Those of [`PromptScorer::batched`].
    pub fn new(model: &'m DeviceModel, longest: usize) -> Result<Self, ScoreError> {
        Self::batched(model, PromptBatching::new(model.gpu(), model.spec(), longest))
    }

    /// The same in other batches.
    ///
    /// # Errors
    /// [`ScoreError::WindowTooLong`], texts that are longer than the model's table of positions, and a device that has no room.
    pub fn batched(model: &'m DeviceModel, batching: PromptBatching) -> Result<Self, ScoreError> {
        let (spec, longest) = (model.spec(), batching.longest_run());
        spec.check_window(longest)?;
        if batching.rows > MOST_ROWS || longest > batching.rows {
            return Err(ScoreError::WindowTooLong { window: batching.longest, most: MOST_ROWS });
        }
        let scratch = Scratch::without_ropes(model, batching.rows as u32)?;
        let bytes = states_bytes(spec, batching.rows);
        let states = (0..batching.together).map(|_| model.gpu().storage("hidden states", bytes));
        Ok(Self { model, batching, scratch, states: states.collect::<Result<_, _>>()?, agrees: Cell::new(None) })
    }

    /// How likely each continuation of each prompt is without the blocks `removed`: one list a prompt, in order. `tell` is called
    /// with the tokens that have run and those that will.
    ///
    /// # Errors
    /// Prompts that are empty, longer than was foreseen or of another vocabulary, [`ScoreError::PromptNotFinite`], blocks that
    /// the model does not have, everything that a device can do wrong, and reading weights that are streamed.
    pub async fn score(
        &self,
        prompts: &[Prompt],
        removed: &BlockSet,
        tell: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Vec<Likelihood>>, ScoreError> {
        let (model, spec) = (self.model, self.model.spec());
        spec.check_blocks(removed)?;
        let windows = self.windows(prompts).await?;
        let certain = Likelihood { log_likelihood: 0.0, is_greedy: true };
        let mut likelihoods: Vec<_> = prompts.iter().map(|prompt| vec![certain; prompt.continuations.len()]).collect();
        let (mut done, total) = (0, windows.iter().map(|window| window.tokens.len()).sum());
        let rows = |window| window_rows(model.gpu(), spec, window);
        let batches = layout::batches(windows, self.batching.rows, rows);
        let mut tables = Tables { alike: 0, of: Vec::new() };
        for together in batches.chunks(self.states.len()) {
            let upload = together.iter().map(|batch| self.upload(batch, &mut tables));
            let batches = upload.collect::<Result<Vec<OnDevice>, ScoreError>>()?;
            self.run(&batches, removed).await?;
            for (windows, OnDevice { batch, .. }) in together.iter().zip(&batches) {
                let mut targets = windows.iter().flat_map(|window| &window.targets);
                for part in &batch.head {
                    let nll = model.gpu().read(&part.nll, part.rows as usize).await?;
                    let running = model.gpu().read(&part.running, part.rows as usize * 4).await?;
                    for ((nll, running), target) in nll.iter().zip(running.chunks(4)).zip(&mut targets) {
                        let (prompt, continuation) = (target.prompt, target.continuation);
                        if !nll.is_finite() {
                            let (value, model) = (*nll, removed.rest());
                            return Err(ScoreError::PromptNotFinite { prompt, continuation, value, model });
                        }
                        let likelihood = &mut likelihoods[prompt][continuation];
                        likelihood.log_likelihood -= f64::from(*nll);
                        // The largest logit and that of the target.
                        likelihood.is_greedy &= running[0] == running[2];
                    }
                }
                done += windows.iter().map(|window| window.tokens.len()).sum::<usize>();
            }
            tell(done, total);
        }
        Ok(likelihoods)
    }

    /// Compiles and tests what scoring these prompts takes beside what [`DeviceModel::warm_up`] has compiled: where they share
    /// contexts, the kernels for that.
    ///
    /// # Errors
    /// Prompts that [`PromptScorer::score`] would refuse, and what a device can do wrong.
    pub async fn warm_up(&self, prompts: &[Prompt]) -> Result<(), ScoreError> {
        self.windows(prompts).await.map(drop)
    }

    /// What runs of the prompts. They share contexts where that is wanted and the device agrees.
    async fn windows(&self, prompts: &[Prompt]) -> Result<Vec<Window>, ScoreError> {
        prompts.iter().enumerate().try_for_each(|(index, prompt)| self.check(index, prompt))?;
        let windows = |shares| layout::windows(self.model.spec(), prompts, self.batching.rows, shares);
        let shared = windows(self.batching.shares);
        match shared.iter().any(|window| window.branches) && !self.agrees().await? {
            true => Ok(windows(false)),
            false => Ok(shared),
        }
    }

    /// Whether the device computes rightly what sharing a context takes.
    async fn agrees(&self) -> Result<bool, ScoreError> {
        if let Some(agrees) = self.agrees.get() {
            return Ok(agrees);
        }
        let agrees = self.model.gpu().agrees_on_continuations(&attention_needs(self.model.spec())).await?;
        self.agrees.set(Some(agrees));
        Ok(agrees)
    }

    fn check(&self, index: usize, prompt: &Prompt) -> Result<(), ScoreError> {
        let Prompt { context, continuations } = prompt;
        let empty = |what: String| Err(ScoreError::EmptyPrompt { prompt: index, what });
        if context.is_empty() {
            return empty("its context".into());
        }
        if let Some(at) = continuations.iter().position(Vec::is_empty) {
            return empty(format!("continuation {at}"));
        }
        let tokens = prompt.tokens();
        if tokens > self.batching.longest {
            return Err(ScoreError::PromptTooLong { prompt: index, tokens, most: self.batching.longest });
        }
        let vocab_size = self.model.spec().vocab_size;
        match context.iter().chain(continuations.iter().flatten()).find(|id| **id as usize >= vocab_size) {
            Some(id) => Err(ScoreError::PromptVocabulary { prompt: index, id: *id, vocab_size }),
            None => Ok(()),
        }
    }

    /// Brings windows to the device, padded to the longest, which is the first one.
    fn upload(&self, windows: &[Window], tables: &mut Tables) -> Result<OnDevice, ScoreError> {
        let (gpu, spec) = (self.model.gpu(), self.model.spec());
        let (longest, branches) = (windows[0].tokens.len(), windows[0].branches);
        let (mut ids, mut places, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for window in windows {
            let (first_row, rows) = (ids.len() as u32, window.tokens.len());
            targets.extend(window.targets.iter().map(|target| (first_row + target.row, target.token)));
            ids.extend(&window.tokens);
            places.extend(&window.places);
            // Any token that the model knows will do, which sees itself: nothing else sees it.
            ids.resize(ids.len() + longest - rows, window.tokens[0]);
            places.extend((rows..longest).map(|row| Place { start: row as u32, context: 0 }));
        }
        let rows = places.iter().enumerate();
        let positions: Vec<u32> = rows.map(|(row, place)| place.position((row % longest) as u32)).collect();
        self.turn(tables, windows[0].alike)?;
        let ropes = spec.ropes.iter().zip(&tables.of).map(|(rope, table)| {
            let half = rope.rotated / 2;
            let each_row = || positions.iter().flat_map(|position| &table[*position as usize * half..][..half]);
            match branches {
                true => gpu.upload_readable("rotary table", each_row().copied().collect::<Vec<_>>().as_flattened()),
                false => gpu.upload_readable("rotary table", table[..longest * half].as_flattened()),
            }
        });
        let ropes = ropes.collect::<Result<_, _>>()?;
        let added = Some(positions.as_slice()).filter(|_| branches && spec.embedding.positions.is_some());
        let places = branches.then(|| gpu.upload("places of rows", bytemuck::cast_slice(&places))).transpose()?;
        Ok(OnDevice { batch: Batch::with_targets(gpu, &ids, longest, &targets, added)?, ropes, places })
    }

    /// Makes tables for texts that have the frequencies of one of `alike` tokens.
    fn turn(&self, tables: &mut Tables, alike: usize) -> Result<(), ScoreError> {
        if tables.alike == alike {
            return Ok(());
        }
        tables.alike = alike;
        tables.of.clear();
        for rope in &self.model.spec().ropes {
            let frequencies = rope.frequencies(alike)?;
            let (turns, scaling) = (&frequencies.inv_freq, frequencies.attention_scaling);
            tables.of.push(heads::table(turns, scaling, self.batching.longest_run()));
        }
        Ok(())
    }

    /// Runs batches, as many as there are states, in one walk over the blocks.
    async fn run(&self, batches: &[OnDevice], removed: &BlockSet) -> Result<(), ScoreError> {
        let (model, scratch) = (self.model, &self.scratch);
        let with_states = || batches.iter().zip(&self.states);
        model.embed(&with_states().map(|(on, states)| (&on.batch, states)).collect::<Vec<_>>()).await?;
        let mut recording = Recording::new();
        let sublayers = 0..model.spec().sublayer_count();
        model
            .walk(&mut recording, sublayers, removed, async |recording, _, branches| {
                for (OnDevice { batch, ropes, places }, states) in with_states() {
                    let rows = Rows { states, first: 0, windows: batch.windows, window: batch.window };
                    let attend = Attend::Texts { ropes, places: places.as_ref() };
                    model.record_branches(recording, scratch, branches, &rows, |_| attend);
                }
                Ok::<_, ForwardError>(())
            })
            .await?;
        for (OnDevice { batch, .. }, states) in with_states() {
            model.record_losses(&mut recording, scratch, batch, states, 0);
        }
        Ok(model.gpu().submit(&recording).await?)
    }
}
