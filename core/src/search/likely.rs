//! The likely tokens of a text: a lower bound of every candidate's losses from a part of the vocabulary.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::gpu::{GpuError, Matrix};
use crate::model::forward::{Batch, HeadPart, Scratch, VOCABULARY_CHUNK};
use crate::model::{DeviceModel, ForwardError};

/// The head over a part of the vocabulary that holds a text's targets and the tokens that a model finds most likely there.
/// Its log-sum-exp is a lower bound of that over the whole vocabulary, and not far below.
pub(super) struct LikelyHead {
    /// Rows of the head, in chunks of at most [`VOCABULARY_CHUNK`].
    pub chunks: Vec<Matrix>,
    /// After so many chunks each, ascending, the bound is worth looking at.
    pub stages: Vec<usize>,
    /// For every batch and part of its head, the targets as indices into the rows of all chunks.
    pub targets: Vec<Vec<wgpu::Buffer>>,
}

/// Parts of the vocabulary that the stages of a [`LikelyHead`] take: one of so many entries, the most likely first.
const LIKELY_PARTS: [usize; 4] = [32, 8, 4, 2];
/// No stage takes more entries than this: they are held beside the head itself.
const LIKELY_ENTRIES: usize = 16_384;
/// Logits that the likely tokens are found by, at most.
const LIKELY_LOGITS: usize = 1 << 24;

impl LikelyHead {
    /// Entries of the last stage, for a text of `distinct` different tokens.
    pub(super) fn largest(vocabulary: usize, distinct: usize) -> usize {
        let stages = LIKELY_PARTS.map(|part| vocabulary / part).into_iter();
        (stages.filter(|size| *size <= LIKELY_ENTRIES).max().unwrap_or(0) + distinct).min(vocabulary)
    }

    /// The head of the targets of all batches and of the tokens that stand first in `likely`.
    pub(super) async fn new(model: &DeviceModel, batches: &[Batch], likely: &[u32]) -> Result<Self, ForwardError> {
        let vocabulary = model.spec().vocab_size;
        let parts = || batches.iter().flat_map(|batch| &batch.head);
        let mut seen: BTreeSet<u32> = parts().flat_map(|part| part.tokens.iter().copied()).collect();
        let mut fresh: BTreeSet<u32> = seen.clone();
        let (mut chunks, mut stages, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for part in LIKELY_PARTS {
            let size = vocabulary / part;
            if size > LIKELY_ENTRIES && !stages.is_empty() {
                break;
            }
            let more = likely.iter().take(size.min(LIKELY_ENTRIES));
            fresh.extend(more.filter(|token| seen.insert(**token)));
            let tokens: Vec<u32> = std::mem::take(&mut fresh).into_iter().collect();
            if stages.is_empty() {
                let upload = |part: &HeadPart| {
                    // The first chunks hold every target, ascending and all but the last of one size.
                    let index = |token: &u32| tokens.binary_search(token).map_or(0, |index| index as u32);
                    let indices: Vec<u32> = part.tokens.iter().map(index).collect();
                    model.gpu().upload("targets among the likely tokens", bytemuck::cast_slice(&indices))
                };
                let upload = |batch: &Batch| batch.head.iter().map(upload).collect::<Result<Vec<_>, GpuError>>();
                targets = batches.iter().map(upload).collect::<Result<_, _>>()?;
            }
            for chunk in tokens.chunks(VOCABULARY_CHUNK) {
                chunks.push(model.head_of(chunk).await?);
            }
            stages.push(chunks.len());
        }
        stages.dedup();
        Ok(Self { chunks, stages, targets })
    }

    /// Vocabulary entries of some chunks.
    pub(super) fn entries(&self, chunks: Range<usize>) -> u64 {
        self.chunks[chunks].iter().map(|matrix| matrix.columns() as u64).sum()
    }
}

/// The tokens in the order of their mean probability over some rows of a part, the most likely first; and how many logits
/// that took.
pub(super) async fn likely_tokens(
    model: &DeviceModel,
    scratch: &Scratch,
    part: &HeadPart,
    states: &wgpu::Buffer,
    first_row: u32,
) -> Result<(Vec<u32>, u64), ForwardError> {
    let vocabulary = model.spec().vocab_size;
    let rows = (LIKELY_LOGITS / vocabulary.max(1)).clamp(1, part.rows as usize);
    let mut mass = vec![0.0f32; vocabulary];
    for row in model.logits(scratch, part, states, first_row, rows).await? {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f32 = row.iter().map(|logit| (logit - largest).exp()).sum();
        for (mass, logit) in mass.iter_mut().zip(row) {
            *mass += (logit - largest).exp() / sum;
        }
    }
    let mut tokens: Vec<u32> = (0..vocabulary as u32).collect();
    tokens.sort_by(|a, b| mass[*b as usize].total_cmp(&mass[*a as usize]));
    Ok((tokens, (rows * vocabulary) as u64))
}
