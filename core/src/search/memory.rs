//! How a search fits into memory: what stays on the device, what is streamed, and how many candidates advance together.

use std::collections::BTreeSet;

use super::likely::LikelyHead;
use super::strategy::StrategyNeeds;
use super::{SearchOptions, Units};
use crate::gpu::{DeviceMemory, Gpu};
use crate::model::forward::Batch;
use crate::model::{BlockSet, Checkpoint, DeviceModel, ForwardError, ModelSpec};
use crate::score::{Batching, change_bytes, states_bytes};
use crate::text::Windows;

/// Hidden states take up to this much where no budget is given and the device has no memory of its own.
const USUAL_STATES: u64 = 1 << 30;

/// Why no plan was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The device or the model.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// Even with streamed weights and one candidate at a time it does not fit.
    #[error(
        "a memory budget of {budget} bytes is too small: this model and text need at least {} MiB; use \
         shorter or fewer windows or a larger budget",
        needed.div_ceil(1 << 20)
    )]
    TooSmall {
        /// Asked for, in bytes.
        budget: u64,
        /// The least that works, in bytes.
        needed: u64,
    },
}

/// Device memory of a search or of scoring one text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights on the device at a time.
    pub weights: u64,
    /// Whether the blocks' weights are brought from the file each time that they are needed.
    pub streamed: bool,
    /// Token ids, losses and what the forward pass works in.
    pub scratch: u64,
    /// Hidden states.
    pub states: u64,
    /// Whether the states before every candidate are kept, so that no prefix is run twice.
    pub keeps_prefixes: bool,
    /// Candidates that advance together, at least 1.
    pub wave: usize,
    /// Batches of windows that advance together: each weight is bound or streamed once for all of them.
    pub round: usize,
    /// How the text is batched.
    pub batching: Batching,
    /// What it is made for. There is always room for it, but for the head over likely tokens.
    pub needs: StrategyNeeds,
    /// Whether there is room for that, if it is needed.
    pub likely_head: bool,
}

impl MemoryPlan {
    /// A plan for a search over a text, or (None) for scoring it only, within `budget` bytes of device memory. Without a budget
    /// it keeps to three quarters of a device's own memory, or to half of what it shares with the computer; where nobody tells
    /// how much there is, the weights stay on the device, whatever they take. Where memory is short, the weights are streamed;
    /// then batches are made smaller; then the head over likely tokens is done without.
    ///
    /// # Errors
    /// A budget that is too small, and weights that the device cannot bind even in pieces.
    pub fn new(
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        windows: &Windows,
        search: Option<&SearchOptions>,
        budget: Option<u64>,
    ) -> Result<Self, MemoryError> {
        let spec = &checkpoint.spec;
        let weights = DeviceModel::weight_bytes(gpu, checkpoint)?;
        let needs = search.map_or(StrategyNeeds { together: false, ..StrategyNeeds::default() }, |options| {
            options.strategy.needs(windows)
        });
        let StrategyNeeds { together, heats, opening, likely_head: wants_likely, changes } = needs;
        let candidates =
            search.filter(|_| together).map_or(0, |options| options.candidates(spec, &BlockSet::new()).len());
        let likely = match wants_likely {
            false => 0,
            true => {
                let distinct = windows.ids.iter().collect::<BTreeSet<_>>().len().min(spec.vocab_size);
                let rows = LikelyHead::largest(spec.vocab_size, distinct);
                DeviceModel::head_bytes(gpu, checkpoint, rows)? + windows.ids.len() as u64 * 4
            }
        };
        // Of neighbours among the blocks, one pair begins before the other ends.
        let overlapping = search.map_or(1, |options| if options.units_of(spec) == Units::Pairs { 2 } else { 1 });
        let usual = Batching::new(windows, heats);
        let sizes = |batching| Sizes::new(spec, batching, opening, candidates);
        let plan = |streamed: bool, batching: Batching, likely_head: bool| Self {
            weights: if streamed { weights.streamed() } else { weights.resident() },
            streamed,
            scratch: batching.scorer_bytes(gpu, spec) + Batch::bytes(opening) + if likely_head { likely } else { 0 },
            states: match (candidates, changes) {
                (0, false) => 0,
                (0, true) => change_bytes(spec, &batching, overlapping),
                _ => sizes(batching).least(),
            },
            keeps_prefixes: false,
            wave: 1,
            round: 1,
            batching,
            needs,
            likely_head,
        };
        let resident = plan(false, usual, wants_likely);
        let usual_total = resident.total() - resident.states + resident.states.max(USUAL_STATES);
        let budget = budget.unwrap_or(usual_budget(gpu.memory(), usual_total));
        let streamed = [true, false].into_iter().filter(|likely_head| *likely_head <= wants_likely);
        let streamed = streamed.flat_map(|likely_head| usual.smaller().map(move |batching| (batching, likely_head)));
        let streamed = streamed.map(|(batching, likely_head)| plan(true, batching, likely_head));
        let mut needed = resident.total();
        for plan in std::iter::once(resident).chain(streamed) {
            needed = needed.min(plan.total());
            if plan.total() > budget {
                continue;
            }
            let room = budget - plan.weights - plan.scratch;
            return Ok(if candidates == 0 { plan } else { sizes(plan.batching).fill(plan, room) });
        }
        Err(MemoryError::TooSmall { budget, needed })
    }

    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.weights + self.scratch + self.states
    }
}

/// What to keep to where no budget is given, in bytes; `usual` is enough for all weights and a reasonable number of states.
fn usual_budget(memory: Option<DeviceMemory>, usual: u64) -> u64 {
    match memory {
        // The rest is left to the screen and to other programs.
        Some(DeviceMemory { bytes, own: true }) => bytes / 4 * 3,
        Some(DeviceMemory { bytes, own: false }) => usual.min(bytes / 2),
        None => usual,
    }
}

/// Hidden states of a search, in bytes.
struct Sizes {
    candidates: usize,
    batches: usize,
    /// Embeddings of all batches and of a race's opening.
    embeddings: u64,
    /// States of one batch.
    batch: u64,
    /// States of as many windows as a dispatch takes.
    slab: u64,
    /// Candidates that share a slab.
    group: usize,
}

impl Sizes {
    fn new(spec: &ModelSpec, batching: Batching, opening: usize, candidates: usize) -> Self {
        let (batches, batch) = (batching.batches(), states_bytes(spec, batching.together() * batching.window));
        Self {
            candidates,
            batches,
            embeddings: batches as u64 * batch + states_bytes(spec, opening),
            batch,
            slab: states_bytes(spec, batching.most_rows()),
            group: batching.candidates(),
        }
    }

    /// The embeddings, the states before the next candidate, and one slab.
    fn least(&self) -> u64 {
        self.embeddings + self.batch + self.slab
    }

    fn slabs(&self, wave: usize) -> u64 {
        wave.div_ceil(self.group) as u64
    }

    /// Divides `room`, at least [`Sizes::least`], among the states.
    fn fill(&self, plan: MemoryPlan, room: u64) -> MemoryPlan {
        // Before every candidate, besides the embeddings.
        let kept = self.embeddings * self.candidates as u64;
        let all = self.slabs(self.candidates);
        let keeps_prefixes = !plan.streamed && room >= self.least() + kept;
        let fixed = self.embeddings + if keeps_prefixes { kept } else { 0 };
        let slabs = ((room - fixed - self.batch) / self.slab).clamp(1, all);
        let wave = (slabs as usize * self.group).min(self.candidates);
        // What is left serves more batches at a time, so that weights are streamed less often.
        let one = self.batch + slabs * self.slab;
        let round = match plan.streamed && slabs == all {
            true => ((room - fixed) / one).clamp(1, self.batches as u64),
            false => 1,
        };
        MemoryPlan { states: fixed + round * one, keeps_prefixes, wave, round: round as usize, ..plan }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn empty(streamed: bool) -> MemoryPlan {
        let windows = Windows::from_ids(vec![0; 4], 2, None).unwrap();
        MemoryPlan {
            weights: 0,
            streamed,
            scratch: 0,
            states: 0,
            keeps_prefixes: false,
            wave: 1,
            round: 1,
            batching: Batching::new(&windows, 1),
            needs: StrategyNeeds::default(),
            likely_head: true,
        }
    }

    #[test]
    fn without_a_budget_a_device_keeps_some_memory() {
        const GIB: u64 = 1 << 30;
        let of = |bytes, own| Some(DeviceMemory { bytes, own });
        for (memory, usual, budget) in [
            (None, 20 * GIB, 20 * GIB),
            (of(8 * GIB, true), 2 * GIB, 6 * GIB),
            (of(8 * GIB, true), 20 * GIB, 6 * GIB),
            (of(8 * GIB, false), 2 * GIB, 2 * GIB),
            (of(8 * GIB, false), 20 * GIB, 4 * GIB),
        ] {
            assert_eq!(usual_budget(memory, usual), budget, "{memory:?}");
        }
    }

    /// Whatever the room, the states fit into it, and more room never means less.
    #[test]
    fn states_fit_into_the_room() {
        for (candidates, batches, batch, slab, group, opening) in
            [(24, 1, 100, 100, 1, 0), (60, 7, 64, 64, 1, 8), (24, 1, 30, 100, 3, 0), (1, 3, 10, 10, 1, 2)]
        {
            let embeddings = batches as u64 * batch + opening;
            let sizes = Sizes { candidates, batches, embeddings, batch, slab, group };
            for streamed in [false, true] {
                let mut before = 0;
                for room in (sizes.least()..40_000).step_by(7) {
                    let plan = sizes.fill(empty(streamed), room);
                    assert!(plan.states <= room, "{plan:?} in {room}");
                    assert!((1..=candidates).contains(&plan.wave) && (1..=batches).contains(&plan.round), "{plan:?}");
                    assert!(plan.keeps_prefixes || plan.wave >= before, "{plan:?} in {room}");
                    before = plan.wave;
                }
                assert_eq!(before, candidates);
            }
        }
    }
}
