//! What the keys and values of a text take, which attention keeps for the tokens that follow.

use serde::{Deserialize, Serialize};

use super::{BlockKind, BlockSet, ModelSpec};

/// Bytes of an element, as f16, in which programs usually keep the cache.
const ELEMENT: u64 = 2;

/// The KV cache of a model, in f16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KvCache {
    /// Bytes that a token adds, before any window is full.
    pub bytes_per_token: u64,
    /// The longest text that the model was made for, in tokens.
    pub context: usize,
    /// Bytes for a text of that length; an attention block with a sliding window keeps no more than the window.
    pub bytes: u64,
}

impl ModelSpec {
    /// The KV cache without these blocks, too: each attention block that is left keeps the keys and the values of its heads.
    pub fn kv_cache(&self, removed: &BlockSet) -> KvCache {
        let left = |block: &super::BlockId| block.kind == BlockKind::Mha && !removed.contains(*block);
        let mut cache = KvCache { context: self.max_positions, ..KvCache::default() };
        for layer in self.blocks().filter(left).filter_map(|block| self.layers.get(block.layer)) {
            let attention = &layer.attention;
            let token = 2 * attention.key_width() as u64 * ELEMENT;
            let window = attention.sliding_window.map_or(self.max_positions, |window| window as usize);
            cache.bytes_per_token += token;
            cache.bytes += token * window.min(self.max_positions) as u64;
        }
        cache
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use serde_json::json;

    #[test]
    fn caches_are_those_of_the_attention_blocks_that_are_left() {
        let config = json!({
            "model_type": "llama", "hidden_size": 32, "intermediate_size": 12, "num_hidden_layers": 4,
            "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 11, "max_position_embeddings": 100,
        });
        let mut spec = ModelSpec::from_config(config.as_object().unwrap()).unwrap();
        // Keys and values of 2 heads of 4 elements of 2 bytes.
        let token = 2 * 2 * 4 * 2;
        let cache = |blocks, bytes| KvCache { bytes_per_token: token * blocks, context: 100, bytes };
        assert_eq!(spec.kv_cache(&BlockSet::new()), cache(4, token * 4 * 100));
        let removed = "mha:1,mha:3,mlp:0".parse().unwrap();
        assert_eq!(spec.kv_cache(&removed), cache(2, token * 2 * 100));
        spec.layers[0].attention.sliding_window = Some(10);
        spec.layers[2].attention.sliding_window = Some(1000);
        assert_eq!(spec.kv_cache(&removed), cache(2, token * (10 + 100)));
        spec.absent = "mha:0".parse().unwrap();
        assert_eq!(spec.kv_cache(&removed), cache(1, token * 100));
    }
}
