//! What a checkpoint is made of: its architecture, its blocks and where their weights are.

pub mod block;

pub use block::{BlockId, BlockKind, BlockSet, ParseBlockError};
