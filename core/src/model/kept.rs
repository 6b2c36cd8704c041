//! The layers that are left when blocks go.
//!
//! A block carries its own norm. So where the branches of a layer follow each other, a kept attention block and the kept
//! feed-forward block behind it are an ordinary layer, whatever layers they came from.

use super::spec::{Layer, ModelSpec};
use super::{BlockId, BlockKind, BlockSet};

/// A layer made of kept blocks, named by the layers that they came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptLayer {
    /// Layer of its attention block; None if it has none.
    pub mha: Option<usize>,
    /// Layer of its feed-forward block; None if it has none.
    pub mlp: Option<usize>,
}

impl KeptLayer {
    /// The layers that both blocks came from, of a layer that has both.
    pub fn whole(self) -> Option<(usize, usize)> {
        self.mha.zip(self.mlp)
    }
}

/// Blocks more or less, after which what is left is an ordinary model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlainChange {
    /// These go, too.
    pub remove: BlockSet,
    /// These stay.
    pub restore: BlockSet,
}

impl PlainChange {
    /// The blocks that are gone after it.
    pub fn of(&self, removed: &BlockSet) -> BlockSet {
        removed.iter().filter(|block| !self.restore.contains(*block)).chain(self.remove.iter()).collect()
    }
}

impl ModelSpec {
    /// The fewest layers that hold the blocks which are not in `gone` in their order, without those that are absent already.
    pub fn kept_layers(&self, gone: &BlockSet) -> Vec<KeptLayer> {
        let mut kept: Vec<KeptLayer> = Vec::new();
        let mut last = None;
        for block in (0..self.sublayer_count()).flat_map(|index| self.sublayer(index)) {
            if !self.has(block) || gone.contains(block) {
                continue;
            }
            let parallel = self.layers[block.layer].parallel;
            // Branches of a parallel layer read the same states; those of others may come from two layers.
            let joins = block.kind == BlockKind::Mlp
                && matches!(last, Some((BlockKind::Mha, layer, other)) if parallel == other && (!parallel || layer == block.layer));
            match (block.kind, kept.last_mut()) {
                (BlockKind::Mlp, Some(open)) if joins => open.mlp = Some(block.layer),
                (BlockKind::Mha, _) => kept.push(KeptLayer { mha: Some(block.layer), mlp: None }),
                (BlockKind::Mlp, _) => kept.push(KeptLayer { mha: None, mlp: Some(block.layer) }),
            }
            last = Some((block.kind, block.layer, parallel));
        }
        kept
    }

    /// The ordinary model of the blocks that are not in `gone`: the layers that each of its layers took its blocks from. None
    /// if these blocks are no ordinary model.
    pub fn plain_layers(&self, gone: &BlockSet) -> Option<Vec<(usize, usize)>> {
        self.kept_layers(gone).into_iter().map(KeptLayer::whole).collect()
    }

    /// The smallest changes of `removed` that leave an ordinary model: of one block, or else of two. None if it is one, or if that
    /// takes more.
    pub fn plain_changes(&self, removed: &BlockSet) -> Vec<PlainChange> {
        if self.plain_layers(removed).is_some() {
            return Vec::new();
        }
        let blocks: Vec<BlockId> = self.blocks().collect();
        let changed = |blocks: &[BlockId]| {
            let (restore, remove) = blocks.iter().copied().partition(|block| removed.contains(*block));
            Some(PlainChange { remove, restore }).filter(|change| {
                let left = self.plain_layers(&change.of(removed));
                left.is_some_and(|layers| !layers.is_empty())
            })
        };
        let single: Vec<_> = blocks.iter().filter_map(|block| changed(&[*block])).collect();
        if !single.is_empty() {
            return single;
        }
        let pairs =
            blocks.iter().enumerate().flat_map(|(at, one)| blocks[at + 1..].iter().map(move |other| [*one, *other]));
        pairs.filter_map(|pair| changed(&pair)).collect()
    }

    /// The model with all its blocks, those that are absent among them.
    pub(crate) fn whole(&self) -> Self {
        Self { absent: BlockSet::new(), ..self.clone() }
    }

    /// The model whose layers take their attention and feed-forward blocks from these layers of this one.
    pub(crate) fn of_layers(&self, layers: &[(usize, usize)]) -> Self {
        let layer = |(mha, mlp): &(usize, usize)| Layer {
            attention: self.layers[*mha].attention,
            feed_forward: self.layers[*mlp].feed_forward,
            parallel: self.layers[*mha].parallel,
        };
        Self { layers: layers.iter().map(layer).collect(), absent: BlockSet::new(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use serde_json::json;

    fn spec(layers: usize, parallel: bool) -> ModelSpec {
        let config = json!({
            "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": layers,
            "num_attention_heads": 2, "vocab_size": 11,
        });
        let mut spec = ModelSpec::from_config(config.as_object().unwrap()).unwrap();
        spec.layers.iter_mut().for_each(|layer| layer.parallel = parallel);
        spec
    }

    fn kept(spec: &ModelSpec, gone: &str) -> String {
        let number = |layer: Option<usize>| layer.map_or("-".to_string(), |layer| layer.to_string());
        let layers = spec.kept_layers(&gone.parse().unwrap());
        layers.iter().map(|layer| format!("({} {})", number(layer.mha), number(layer.mlp))).collect()
    }

    #[test]
    fn neighbours_are_layers_whatever_they_came_from() {
        let spec = spec(4, false);
        for (gone, layers) in [
            ("", "(0 0)(1 1)(2 2)(3 3)"),
            ("mha:1,mlp:1", "(0 0)(2 2)(3 3)"),
            ("mlp:0,mha:1", "(0 1)(2 2)(3 3)"),
            ("mlp:0,mha:2", "(0 -)(1 1)(- 2)(3 3)"),
            ("mha:0", "(- 0)(1 1)(2 2)(3 3)"),
            ("mha:0,mlp:3,mha:1", "(- 0)(- 1)(2 2)(3 -)"),
        ] {
            assert_eq!(kept(&spec, gone), layers, "{gone}");
            let plain = spec.plain_layers(&gone.parse().unwrap());
            assert_eq!(plain.is_some(), !layers.contains('-'), "{gone}");
        }
        let absent = ModelSpec { absent: "mlp:0".parse().unwrap(), ..spec.clone() };
        assert_eq!(kept(&absent, "mha:1"), "(0 1)(2 2)(3 3)");
    }

    #[test]
    fn branches_that_are_parallel_stay_with_their_layer() {
        let spec = spec(3, true);
        assert_eq!(kept(&spec, "mlp:0,mha:1"), "(0 -)(- 1)(2 2)");
        assert_eq!(spec.plain_layers(&"mlp:1,mha:1".parse().unwrap()), Some(vec![(0, 0), (2, 2)]));
    }

    /// Against every set of blocks: a run of removed blocks of even length, and only that, leaves an ordinary model.
    #[test]
    fn runs_of_even_length_are_plain() {
        let spec = spec(4, false);
        let blocks: Vec<BlockId> = (0..4).flat_map(|layer| [BlockId::mha(layer), BlockId::mlp(layer)]).collect();
        for bits in 0u32..256 {
            let gone = |at: usize| bits >> at & 1 == 1;
            let removed: BlockSet = (0..8).filter(|at| gone(*at)).map(|at| blocks[at]).collect();
            let marks: String = (0..8).map(|at| if gone(at) { 'x' } else { ' ' }).collect();
            let even = marks.split(' ').all(|run| run.len() % 2 == 0);
            assert_eq!(spec.plain_layers(&removed).is_some(), even, "{removed}");
            let changes = spec.plain_changes(&removed);
            assert!(!even || changes.is_empty(), "{removed}");
            for change in changes {
                assert!(spec.plain_layers(&change.of(&removed)).is_some(), "{removed}: {change:?}");
            }
        }
    }

    #[test]
    fn the_smallest_changes_are_found() {
        let spec = spec(4, false);
        let changes = |removed: &str| {
            let changes = spec.plain_changes(&removed.parse().unwrap());
            let shown = changes.iter().map(|change| format!("-[{}] +[{}]", change.remove, change.restore));
            shown.collect::<Vec<_>>()
        };
        assert_eq!(changes("mha:1"), ["-[] +[mha:1]", "-[mlp:0] +[]", "-[mlp:1] +[]"]);
        assert!(changes("mha:1,mha:3").contains(&"-[mlp:1] +[mha:3]".to_string()));
        assert!(changes("").is_empty());
    }
}
