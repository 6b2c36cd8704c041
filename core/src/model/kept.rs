//! The layers that are left when blocks go.
//!
//! A block carries its own norm. So where the branches of a layer follow each other, a kept attention block and the kept
//! feed-forward block behind it are an ordinary layer, whatever layers they came from.

use super::spec::{Layer, ModelSpec};
use super::{BlockKind, BlockSet};

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
