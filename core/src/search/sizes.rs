//! What a model takes as it will be written, block by block.

use std::collections::BTreeMap;

use crate::model::{BlockId, BlockSet};

/// Bytes of a model's weight files, as a sum over its blocks. `crate::export::block_sizes` makes it for a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    written_as: String,
    rest: u64,
    blocks: BTreeMap<BlockId, u64>,
}

impl BlockSizes {
    /// A model that takes `rest` bytes without any of `blocks`, and for each of these so many more, if it is written as
    /// `written_as` says: a format and a type, for people.
    pub fn new(written_as: impl Into<String>, rest: u64, blocks: impl IntoIterator<Item = (BlockId, u64)>) -> Self {
        Self { written_as: written_as.into(), rest, blocks: blocks.into_iter().collect() }
    }

    /// How it is written, for people.
    pub fn written_as(&self) -> &str {
        &self.written_as
    }

    /// Bytes that removing a block saves; 0 of one that is not there.
    pub fn of(&self, block: BlockId) -> u64 {
        self.blocks.get(&block).copied().unwrap_or(0)
    }

    /// Bytes of what is left without some blocks, at most.
    pub fn without(&self, removed: &BlockSet) -> u64 {
        let left = self.blocks.iter().filter(|(block, _)| !removed.contains(**block));
        self.rest + left.map(|(_, bytes)| bytes).sum::<u64>()
    }
}

/// Bytes for people.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1u64 << 20) as f64)
}
