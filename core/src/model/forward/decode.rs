//! Decoding: a prompt as one window, then one position at a time through a KV cache.

use std::collections::BTreeMap;

use blockpruner_shaders::{Kernel, argmax, heads, stride};

use super::branch::{Attend, Rows};
use super::head::EmbeddedText;
use super::{Scratch, VOCABULARY_CHUNK, attention, every_block};
use crate::gpu::{GpuError, KeyValues, Recording, Resource};
use crate::model::{BlockId, BlockKind, BlockSet, DeviceModel, ForwardError, ModelSpec};

/// What a continuation keeps on the device from one token to the next.
pub(crate) struct DecodeState {
    removed: BlockSet,
    /// The part of the cache of each attention block that runs.
    caches: BTreeMap<BlockId, KeyValues>,
    /// Positions that the cache has room for.
    capacity: u32,
    /// Positions that it holds.
    positions: u32,
    /// For passes over one position.
    scratch: Scratch,
    /// For each rotary embedding, `[1, rotated / 2]` of (cos, sin) for the position under way.
    ropes: Vec<Resource>,
    /// Q of the position under way.
    query: wgpu::Buffer,
    token: wgpu::Buffer,
    /// The hidden state under way, `[1, hidden_size]`.
    state: wgpu::Buffer,
    /// See `argmax.wgsl`.
    best: wgpu::Buffer,
}

fn shape(spec: &ModelSpec, block: BlockId) -> crate::gpu::Attention {
    attention(spec, &spec.layers[block.layer].attention)
}

impl DecodeState {
    /// An empty cache with room for `capacity` positions.
    pub(crate) fn new(model: &DeviceModel, removed: &BlockSet, capacity: u32) -> Result<Self, ForwardError> {
        let (gpu, spec) = (&*model.gpu, &model.spec);
        let runs = |block: &BlockId| spec.has(*block) && !removed.contains(*block) && block.kind == BlockKind::Mha;
        let with_cache = |block: BlockId| Ok((block, shape(spec, block).cache(gpu, capacity)?));
        let query = every_block(spec).map(|block| shape(spec, block).query_bytes(1)).max().unwrap_or(0);
        let rope = |rotated: usize| gpu.readable("rotary table of a position", rotated as u64 * 4);
        Ok(Self {
            removed: removed.clone(),
            caches: every_block(spec).filter(runs).map(with_cache).collect::<Result<_, GpuError>>()?,
            capacity,
            positions: 0,
            scratch: Scratch::new(model, 1, 1)?,
            ropes: spec.ropes.iter().map(|spec| rope(spec.rotated)).collect::<Result<_, _>>()?,
            query: gpu.storage("Q of a position", query)?,
            token: gpu.storage("token id", 4)?,
            state: gpu.storage("hidden state", stride(spec.hidden_size as u32) as u64 * 4)?,
            best: gpu.storage("most likely token", 16)?,
        })
    }

    /// Makes room for one more position if there is none: for twice as many, up to `most`.
    pub(crate) async fn grow(&mut self, model: &DeviceModel, most: u32) -> Result<(), GpuError> {
        if self.positions < self.capacity {
            return Ok(());
        }
        let capacity = self.capacity.saturating_mul(2).min(most).max(self.positions + 1);
        for (block, cache) in &mut self.caches {
            let shape = shape(&model.spec, *block);
            let (larger, bytes) = (shape.cache(&model.gpu, capacity)?, shape.cache_bytes(self.positions));
            let mut recording = Recording::new();
            recording.copy(&cache.keys, &larger.keys, 0, bytes);
            recording.copy(&cache.values, &larger.values, 0, bytes);
            // Block by block, so that no more than one is there twice.
            model.gpu.submit(&recording).await?;
            *cache = larger;
        }
        self.capacity = capacity;
        Ok(())
    }
}

/// What `argmax.wgsl` says.
fn most_likely(best: &[f32]) -> Option<u32> {
    match best {
        [_, id, 0.0, ..] => Some(*id as u32),
        _ => None,
    }
}

impl DeviceModel {
    /// Runs a prompt (at least one token), whose positions become the cache's in place of all that it held. The most likely
    /// token to follow, or None if a logit is not finite.
    pub(crate) async fn prefill(&self, decode: &mut DecodeState, prompt: &[u32]) -> Result<Option<u32>, ForwardError> {
        let gpu = &*self.gpu;
        let rows = prompt.len() as u32;
        let scratch = Scratch::new(self, rows, 1)?;
        let tokens = gpu.upload("token ids", bytemuck::cast_slice(prompt))?;
        let states = gpu.storage("hidden states", rows as u64 * stride(self.spec.hidden_size as u32) as u64 * 4)?;
        let mut recording = Recording::new();
        let text = EmbeddedText { tokens: &tokens, rows, window: rows, past: 0, positions: None, states: &states };
        self.record_texts(&mut recording, &[text]).await?;
        let attend = |block: BlockId| decode.caches.get(&block).map_or(Attend::Windows, Attend::Prompt);
        let window = Rows { states: &states, first: 0, windows: 1, window: rows };
        let sublayers = 0..self.spec.sublayer_count();
        self.walk(&mut recording, sublayers, &decode.removed, async |recording, _, branches| {
            self.record_branches(recording, &scratch, branches, &window, attend);
            Ok::<_, ForwardError>(())
        })
        .await?;
        let best = self.most_likely(recording, decode, &states, rows - 1).await?;
        decode.positions = rows;
        Ok(best)
    }

    /// Runs one more token, for which there must be room. The most likely one to follow, or None if a logit is not finite.
    ///
    /// As in transformers with a cache, the new position is turned with the frequencies for the length that the text has
    /// now; what the cache holds stays as it was turned. So with the scalings `dynamic` and `longrope`, whose frequencies
    /// change with the length, a continuation is not what passes over the whole text would give.
    pub(crate) async fn decode(&self, decode: &mut DecodeState, token: u32) -> Result<Option<u32>, ForwardError> {
        let gpu = &*self.gpu;
        let past = decode.positions;
        for (rope, spec) in decode.ropes.iter().zip(&self.spec.ropes) {
            let frequencies = spec.frequencies(past as usize + 1)?;
            let turns = heads::table_row(&frequencies.inv_freq, frequencies.attention_scaling, past as usize);
            gpu.write(rope, bytemuck::cast_slice(&turns))?;
        }
        gpu.write(&Resource::from(&decode.token), bytemuck::bytes_of(&token))?;
        let mut recording = Recording::new();
        let text =
            EmbeddedText { tokens: &decode.token, rows: 1, window: 1, past, positions: None, states: &decode.state };
        self.record_texts(&mut recording, &[text]).await?;
        let (query, ropes) = (&decode.query, decode.ropes.as_slice());
        let attend = |block: BlockId| match decode.caches.get(&block) {
            Some(cache) => Attend::Position { cache, query, ropes, past },
            None => Attend::Windows,
        };
        let position = Rows { states: &decode.state, first: 0, windows: 1, window: 1 };
        let sublayers = 0..self.spec.sublayer_count();
        self.walk(&mut recording, sublayers, &decode.removed, async |recording, _, branches| {
            self.record_branches(recording, &decode.scratch, branches, &position, attend);
            Ok::<_, ForwardError>(())
        })
        .await?;
        let best = self.most_likely(recording, decode, &decode.state, 0).await?;
        decode.positions += 1;
        Ok(best)
    }

    /// Runs what is recorded; the most likely token after position `row` of `states`, which have the last block behind them.
    async fn most_likely(
        &self,
        mut recording: Recording,
        decode: &DecodeState,
        states: &wgpu::Buffer,
        row: u32,
    ) -> Result<Option<u32>, ForwardError> {
        let scratch = &decode.scratch;
        let rows = Rows { states, first: row, windows: 1, window: 1 };
        let residual = self.residual(&mut recording, scratch, &rows, 0, 1);
        let normed = self.final_norm.record(&self.gpu, &mut recording, &residual, 1, &scratch.operand);
        for (chunk, matrix) in self.head.iter().enumerate() {
            matrix.record_product(&self.gpu, &mut recording, &normed, &scratch.logits);
            let params = argmax::Params {
                columns: matrix.columns(),
                first_token: (chunk * VOCABULARY_CHUNK) as u32,
                is_first: (chunk == 0) as u32,
            };
            let bindings = [scratch.logits.clone(), (&decode.best).into()];
            let kernel = Kernel::Argmax { kernel: self.gpu.gemm() };
            recording.dispatch(kernel, &params, bindings, [1, 1, 1], matrix.columns() as u64);
        }
        self.gpu.submit(&recording).await?;
        Ok(most_likely(&self.gpu.read(&decode.best, 3).await?))
    }
}
