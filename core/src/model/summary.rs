//! What a model is, in numbers, for people and programs to read.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{BlockId, BlockSet, Checkpoint, KvCache};

/// A model's architecture, size and blocks.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ModelSummary {
    /// Model family, as `plan.json` names it.
    pub family: &'static str,
    /// Decoder layers.
    pub layers: usize,
    /// Elements of a hidden state.
    pub hidden_size: usize,
    /// Elements between the feed-forward block's products.
    pub intermediate_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// The longest text that it was made for, in tokens.
    pub max_positions: usize,
    /// Whether the head is the embedding.
    pub tied_embeddings: bool,
    /// Parameters that it has; a tied head counts once.
    pub parameters: u64,
    /// What a text takes while it is generated.
    pub kv_cache: KvCache,
    /// Tensors by the type that they are stored in.
    pub dtypes: BTreeMap<String, usize>,
    /// Why text cannot be tokenised, if so.
    pub tokenizer_problem: Option<String>,
    /// Blocks that an earlier pruning took out.
    pub absent: Vec<BlockId>,
    /// The blocks that it has, in the published order.
    pub blocks: Vec<BlockSummary>,
}

/// A block's size.
#[derive(Clone, Debug, Serialize)]
pub struct BlockSummary {
    /// Which one.
    pub block: BlockId,
    /// Parameters that its removal saves.
    pub parameters: u64,
}

impl Checkpoint {
    /// What this model is.
    pub fn summary(&self) -> ModelSummary {
        let spec = &self.spec;
        // A model has at least one layer, and they are of one size in all families.
        let layer = &spec.layers[0];
        let mut dtypes = BTreeMap::new();
        for tensor in self.weights.iter() {
            *dtypes.entry(tensor.dtype.to_string()).or_default() += 1;
        }
        let block = |block| BlockSummary { block, parameters: spec.block_parameters(block) };
        ModelSummary {
            family: spec.family.name,
            layers: spec.layers.len(),
            hidden_size: spec.hidden_size,
            intermediate_size: layer.dense().inner,
            heads: layer.attention.heads,
            kv_heads: layer.attention.kv_heads,
            head_dim: layer.attention.head_dim,
            vocab_size: spec.vocab_size,
            max_positions: spec.max_positions,
            tied_embeddings: spec.head.tied,
            parameters: spec.parameters(),
            kv_cache: spec.kv_cache(&BlockSet::new()),
            dtypes,
            tokenizer_problem: self.tokenizer_problem.clone(),
            absent: spec.absent.iter().collect(),
            blocks: spec.blocks().map(block).collect(),
        }
    }
}
