//! What blocks make of the hidden states, measured in one pass over the text: at every token, the states before and after some
//! blocks that follow one another are compared.

use super::{Batching, ScoreError, Scorer, states_bytes};
use crate::gpu::{GpuError, Recording, record_change};
use crate::model::forward::{Branch, Rows};
use crate::model::{BlockSet, ForwardError, ModelSpec};

/// What some blocks make of the hidden states x in front of them, with y behind them: means over all tokens of the text, the last
/// of each window among them. A token whose x or y is zero has no direction and is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct StateChange {
    /// 1 - cos(x, y): 0 where they turn nothing, 2 at most.
    pub cosine_distance: f64,
    /// |y - x| / |y|: what they add, relative to what comes of it; at least 0.
    pub relative_magnitude: f64,
}

/// Sums over tokens.
#[derive(Clone, Copy, Default)]
struct Sums {
    tokens: usize,
    cosine_distance: f64,
    relative_magnitude: f64,
}

impl Sums {
    /// Adds tokens by what `change.wgsl` says of each.
    fn add(&mut self, rows: &[f32]) {
        for row in rows.as_chunks::<4>().0 {
            let [product, before, after, added] = row.map(f64::from);
            if before != 0.0 && after != 0.0 {
                self.tokens += 1;
                self.cosine_distance += 1.0 - product / (before * after).sqrt();
                self.relative_magnitude += (added / after).sqrt();
            }
        }
    }

    fn means(self) -> StateChange {
        let tokens = self.tokens as f64;
        StateChange {
            cosine_distance: self.cosine_distance / tokens,
            relative_magnitude: self.relative_magnitude / tokens,
        }
    }
}

/// Blocks that are measured together, and the sublayers that they begin and end in.
struct Span<'b> {
    blocks: &'b BlockSet,
    first: usize,
    last: usize,
}

impl<'b> Span<'b> {
    fn new(spec: &ModelSpec, blocks: &'b BlockSet) -> Self {
        let sublayers = || blocks.iter().map(|block| spec.sublayer_of(block));
        let (first, last) = (sublayers().min().unwrap_or(0), sublayers().max().unwrap_or(0));
        Self { blocks, first, last }
    }
}

/// Bytes that measuring takes beside a [`Scorer`]: of the states that `overlapping` units of blocks begin with at a time, and of
/// what is said of each token.
pub(crate) fn change_bytes(spec: &ModelSpec, batching: &Batching, overlapping: u64) -> u64 {
    let rows = batching.together() * batching.window;
    overlapping * states_bytes(spec, rows) + rows as u64 * 16
}

impl Scorer<'_> {
    /// What each of `units` makes of the states in the model without `removed`, in one pass for all of them. Those blocks of a unit
    /// follow one another in that model; of parallel branches a unit may be one, which is then run alone on the same states. With
    /// values, the blocks times tokens that were run. A mean is not finite where a loss would not be.
    ///
    /// # Errors
    /// Those of [`Scorer::nll`], and whatever `progress` returns, which is told of the share that is done, 0 to 1.
    pub(crate) async fn changes<E: From<ScoreError> + From<ForwardError> + From<GpuError>>(
        &self,
        units: &[BlockSet],
        removed: &BlockSet,
        mut progress: impl FnMut(f64) -> Result<(), E>,
    ) -> Result<(Vec<StateChange>, u64), E> {
        let (gpu, spec) = (self.model.gpu(), self.model.spec());
        let spans: Vec<Span> = units.iter().map(|blocks| Span::new(spec, blocks)).collect();
        let mut sums = vec![Sums::default(); units.len()];
        let (most, columns) = (self.batching.together() * self.batching.window, spec.hidden_size as u32);
        let measured = gpu.storage("changes of states", most as u64 * 16)?;
        let mut free: Vec<wgpu::Buffer> = Vec::new();
        let mut block_tokens = 0;
        let sublayers = spec.sublayer_count() as f64;
        for (index, batch) in self.batches.iter().enumerate() {
            // Units that have begun, with the states before them.
            let mut begun: Vec<(usize, wgpu::Buffer)> = Vec::new();
            let measure = async |recording: &mut Recording, states: (&wgpu::Buffer, &wgpu::Buffer)| {
                record_change(recording, states, (batch.rows(), columns), &measured);
                gpu.submit(&std::mem::take(recording)).await?;
                gpu.read(&measured, batch.rows() as usize * 4).await
            };
            let mut recording = Recording::new();
            self.walk(&mut recording, batch, removed, async |recording, depth, branches, rows| {
                for (unit, span) in spans.iter().enumerate().filter(|(_, span)| span.first == depth) {
                    let copy = match free.pop() {
                        Some(copy) => copy,
                        None => gpu.storage("states before a unit", states_bytes(spec, most))?,
                    };
                    recording.copy(&self.states, &copy, 0, states_bytes(spec, batch.rows() as usize));
                    let is_own = |branch: &&Branch| span.blocks.contains(branch.block);
                    let own: Vec<Branch> = branches.iter().filter(is_own).cloned().collect();
                    if own.len() == branches.len() {
                        begun.push((unit, copy));
                        continue;
                    }
                    let alone = Rows { states: &copy, ..*rows };
                    self.model.record_sublayer(recording, &self.scratch, &own, &alone);
                    block_tokens += (own.len() * batch.rows() as usize) as u64;
                    sums[unit].add(&measure(recording, (&self.states, &copy)).await?);
                    free.push(copy);
                }
                self.model.record_sublayer(recording, &self.scratch, branches, rows);
                block_tokens += (branches.len() * batch.rows() as usize) as u64;
                for (unit, before) in begun.extract_if(.., |(unit, _)| spans[*unit].last == depth) {
                    sums[unit].add(&measure(recording, (&before, &self.states)).await?);
                    free.push(before);
                }
                progress((index as f64 + (depth + 1) as f64 / sublayers) / self.batches.len() as f64)
            })
            .await?;
        }
        Ok((sums.into_iter().map(Sums::means).collect(), block_tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_without_a_direction_are_left_out() {
        let mut sums = Sums::default();
        // Turned by a right angle and doubled; a zero before; as it was.
        sums.add(&[0.0, 1.0, 4.0, 5.0, 0.0, 0.0, 4.0, 4.0, 9.0, 9.0, 9.0, 0.0]);
        let StateChange { cosine_distance, relative_magnitude } = sums.means();
        assert_eq!(cosine_distance, 0.5);
        assert!((relative_magnitude - 1.25f64.sqrt() / 2.0).abs() < 1e-15);
        sums.add(&[f32::INFINITY; 4]);
        assert!(sums.means().cosine_distance.is_nan());
    }
}
