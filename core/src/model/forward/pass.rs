//! The one walk over a model's blocks, for scoring, sweeping, prompts, single positions and warming up.

use std::ops::Range;
use std::rc::Rc;

use crate::gpu::{GpuError, Recording};
use crate::model::device_model::BlockWeights;
use crate::model::{BlockId, BlockSet, DeviceModel, ForwardError, ModelSpec};

/// A block that runs, with its weights on the device.
#[derive(Clone)]
pub(crate) struct Branch {
    pub block: BlockId,
    pub weights: Rc<BlockWeights>,
}

/// The blocks of a model in the order of the forward pass, whether they are there or not.
pub(crate) fn every_block(spec: &ModelSpec) -> impl Iterator<Item = BlockId> + '_ {
    (0..spec.sublayer_count()).flat_map(|index| spec.sublayer(index))
}

impl DeviceModel {
    /// Walks some sublayers in order. `each` is called with the recording, the sublayer's index, and its branches that are in
    /// the checkpoint and not in `removed`, which may be none; it appends what they do. Where weights are streamed, that is
    /// submitted before the next ones are brought.
    pub(crate) async fn walk<E: From<ForwardError> + From<GpuError>>(
        &self,
        recording: &mut Recording,
        sublayers: Range<usize>,
        removed: &BlockSet,
        mut each: impl AsyncFnMut(&mut Recording, usize, &[Branch]) -> Result<(), E>,
    ) -> Result<(), E> {
        for index in sublayers {
            let mut branches = Vec::new();
            for block in self.spec.sublayer(index) {
                if self.spec.has(block) && !removed.contains(block) {
                    branches.push(Branch { block, weights: self.block(block).await? });
                }
            }
            each(recording, index, &branches).await?;
            if self.streams() && !recording.is_empty() {
                self.gpu.submit(&std::mem::take(recording)).await?;
            }
        }
        Ok(())
    }
}
