//! Decoding, recorded: a prompt as one window, then one position at a time through a KV cache.

use blockpruner_shaders::{Kernel, argmax, heads, stride};

use super::{Scratch, attention};
use crate::gpu::{CachedBuffers, GpuError, KeyValues, Recording, Resource};
use crate::model::device_model::{Attention, BlockWeights, VOCABULARY_CHUNK};
use crate::model::{BlockId, BlockKind, BlockSet, DeviceModel, ForwardError};

/// What a continuation keeps on the device from one token to the next.
pub(crate) struct DecodeState {
    /// The blocks that run, in order; attention blocks with their part of the cache. What does not run has none.
    blocks: Vec<(BlockId, Option<KeyValues>)>,
    /// Positions that the cache has room for.
    capacity: u32,
    /// Positions that it holds.
    positions: u32,
    /// For passes over one position.
    scratch: Scratch,
    /// `[1, head_dim / 2]` of (cos, sin), for the position under way.
    rope: Resource,
    /// Q of the position under way.
    query: wgpu::Buffer,
    token: wgpu::Buffer,
    /// The hidden state under way, `[1, hidden_size]`.
    state: wgpu::Buffer,
    /// See `argmax.wgsl`.
    best: wgpu::Buffer,
}

impl DecodeState {
    /// An empty cache with room for `capacity` positions.
    pub(crate) fn new(model: &DeviceModel, removed: &BlockSet, capacity: u32) -> Result<Self, ForwardError> {
        let (gpu, spec) = (&*model.gpu, &model.spec);
        let kept = (0..2 * spec.layers).map(BlockId::at_depth);
        let kept = kept.filter(|block| spec.has(*block) && !removed.contains(*block));
        let with_cache = |block: BlockId| {
            let is_attention = block.kind == BlockKind::Mha;
            Ok((block, is_attention.then(|| attention(spec).cache(gpu, capacity)).transpose()?))
        };
        Ok(Self {
            blocks: kept.map(with_cache).collect::<Result<_, GpuError>>()?,
            capacity,
            positions: 0,
            scratch: Scratch::new(model, 1, 1)?,
            rope: gpu.readable("rotary table of a position", spec.head_dim as u64 * 4)?,
            query: gpu.storage("Q of a position", attention(spec).query_bytes(1))?,
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
        let attention = attention(&model.spec);
        let bytes = attention.cache_bytes(self.positions);
        for entry in self.blocks.iter_mut().filter_map(|(_, entry)| entry.as_mut()) {
            let larger = attention.cache(&model.gpu, capacity)?;
            let mut recording = Recording::new();
            recording.copy(&entry.keys, &larger.keys, 0, bytes);
            recording.copy(&entry.values, &larger.values, 0, bytes);
            // Block by block, so that no more than one is there twice.
            model.gpu.submit(&recording).await?;
            *entry = larger;
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
    /// Runs a prompt (at least one token), whose positions become the cache's. The most likely token to follow, or
    /// None if a logit is not finite.
    pub(crate) async fn prefill(&self, decode: &mut DecodeState, prompt: &[u32]) -> Result<Option<u32>, ForwardError> {
        let gpu = &*self.gpu;
        let rows = prompt.len() as u32;
        let scratch = Scratch::new(self, rows, 1)?;
        let tokens = gpu.upload("token ids", bytemuck::cast_slice(prompt))?;
        let states = gpu.storage("hidden states", rows as u64 * stride(self.spec.hidden_size as u32) as u64 * 4)?;
        let mut recording = Recording::new();
        self.record_lookups(&mut recording, &[(&tokens, rows, &states)]).await?;
        for (block, cache) in &decode.blocks {
            let Some(weights) = self.block(*block).await? else { continue };
            match (&*weights, cache) {
                (BlockWeights::Attention(weights), Some(cache)) => {
                    let residual = self.residual(&mut recording, &scratch, &states, 0, rows);
                    let normed = weights.norm.record(gpu, &mut recording, &residual, rows, &scratch.operand);
                    weights.qkv.record_product(gpu, &mut recording, &normed, &scratch.qkv);
                    let input = scratch.projection(&scratch.rope);
                    attention(&self.spec).record_append(gpu, &mut recording, &input, cache, 0, rows);
                    let heads = self.record_attend(&mut recording, &scratch, (1, rows));
                    weights.o.record_residual(gpu, &mut recording, &heads, 1.0, &residual, &scratch.qkv);
                }
                (weights, _) => self.record_block(&mut recording, &scratch, (1, rows), weights, &states),
            }
            if self.streams() {
                gpu.submit(&std::mem::take(&mut recording)).await?;
            }
        }
        self.record_most_likely(&mut recording, decode, &states, rows - 1);
        gpu.submit(&recording).await?;
        let best = gpu.read(&decode.best, 3).await?;
        decode.positions = rows;
        Ok(most_likely(&best))
    }

    /// Runs one more token, for which there must be room. The most likely one to follow, or None if a logit is not finite.
    ///
    /// As in transformers with a cache, the new position is turned with the frequencies for the length that the text has
    /// now; what the cache holds stays as it was turned. So with the scalings `dynamic` and `longrope`, whose frequencies
    /// change with the length, a continuation is not what passes over the whole text would give.
    pub(crate) async fn decode(&self, decode: &mut DecodeState, token: u32) -> Result<Option<u32>, ForwardError> {
        let gpu = &*self.gpu;
        let position = decode.positions as usize;
        let frequencies = self.spec.rope.frequencies(position + 1)?;
        let turns = heads::table_row(&frequencies.inv_freq, frequencies.attention_scaling, position);
        gpu.write(&decode.rope, bytemuck::cast_slice(&turns))?;
        gpu.write(&Resource::from(&decode.token), bytemuck::bytes_of(&token))?;
        let mut recording = Recording::new();
        self.record_lookups(&mut recording, &[(&decode.token, 1, &decode.state)]).await?;
        for (block, cache) in &decode.blocks {
            let Some(weights) = self.block(*block).await? else { continue };
            match (&*weights, cache) {
                (BlockWeights::Attention(weights), Some(cache)) => {
                    self.record_cached_attention(&mut recording, decode, weights, cache);
                }
                (weights, _) => self.record_block(&mut recording, &decode.scratch, (1, 1), weights, &decode.state),
            }
            if self.streams() {
                gpu.submit(&std::mem::take(&mut recording)).await?;
            }
        }
        self.record_most_likely(&mut recording, decode, &decode.state, 0);
        gpu.submit(&recording).await?;
        let best = gpu.read(&decode.best, 3).await?;
        decode.positions += 1;
        Ok(most_likely(&best))
    }

    /// state += attention(norm(state)) at the position under way.
    fn record_cached_attention(
        &self,
        recording: &mut Recording,
        decode: &DecodeState,
        weights: &Attention,
        cache: &KeyValues,
    ) {
        let (gpu, scratch, past) = (&*self.gpu, &decode.scratch, decode.positions);
        let residual = self.residual(recording, scratch, &decode.state, 0, 1);
        let normed = weights.norm.record(gpu, recording, &residual, 1, &scratch.operand);
        weights.qkv.record_product(gpu, recording, &normed, &scratch.qkv);
        let input = scratch.projection(&decode.rope);
        let buffers = CachedBuffers { cache, query: &decode.query, output: &scratch.operand };
        let heads = attention(&self.spec).record_cached(gpu, recording, &input, &buffers, past, 1);
        weights.o.record_residual(gpu, recording, &heads, 1.0, &residual, &scratch.qkv);
    }

    /// `decode.best` = the most likely token after position `row` of `states`, which have the last block behind them.
    fn record_most_likely(&self, recording: &mut Recording, decode: &DecodeState, states: &wgpu::Buffer, row: u32) {
        let scratch = &decode.scratch;
        let residual = self.residual(recording, scratch, states, row, 1);
        let normed = self.final_norm.record(&self.gpu, recording, &residual, 1, &scratch.operand);
        for (chunk, matrix) in self.head.iter().enumerate() {
            matrix.record_product(&self.gpu, recording, &normed, &scratch.logits);
            let params = argmax::Params {
                columns: matrix.columns(),
                first_token: (chunk * VOCABULARY_CHUNK) as u32,
                is_first: (chunk == 0) as u32,
            };
            let bindings = [scratch.logits.clone(), (&decode.best).into()];
            let kernel = Kernel::Argmax { kernel: self.gpu.gemm() };
            recording.dispatch(kernel, &params, bindings, [1, 1, 1], matrix.columns() as u64);
        }
    }
}
