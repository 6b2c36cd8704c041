//! What a step of the search removes: one block, or two that leave an ordinary model of fewer layers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BlockTypes;
use crate::model::{BlockId, BlockKind, BlockSet};

/// What goes together. Prints and parses as `mha:25`, or as `mha:4,mlp:3`.
///
/// `Ord` is the order in which the first of equals wins: the published one for blocks, depth for pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// One block.
    Block(BlockId),
    /// An attention block and a feed-forward block between which nothing is left.
    Pair {
        /// Layer of the attention block.
        mha: usize,
        /// Layer of the feed-forward block.
        mlp: usize,
    },
}

impl Unit {
    /// Two blocks, if they are of two kinds.
    pub fn pair(one: BlockId, other: BlockId) -> Option<Self> {
        match (one.kind, other.kind) {
            (BlockKind::Mha, BlockKind::Mlp) => Some(Self::Pair { mha: one.layer, mlp: other.layer }),
            (BlockKind::Mlp, BlockKind::Mha) => Some(Self::Pair { mha: other.layer, mlp: one.layer }),
            _ => None,
        }
    }

    /// Its blocks, the one that comes first in the forward pass first.
    pub fn blocks(self) -> impl Iterator<Item = BlockId> {
        let (first, second) = match self {
            Self::Block(block) => (block, None),
            Self::Pair { mha, mlp } if mlp < mha => (BlockId::mlp(mlp), Some(BlockId::mha(mha))),
            Self::Pair { mha, mlp } => (BlockId::mha(mha), Some(BlockId::mlp(mlp))),
        };
        std::iter::once(first).chain(second)
    }

    /// The block that comes first in the forward pass.
    pub fn first(self) -> BlockId {
        match self {
            Self::Block(block) => block,
            Self::Pair { mha, mlp } if mlp < mha => BlockId::mlp(mlp),
            Self::Pair { mha, .. } => BlockId::mha(mha),
        }
    }

    /// Whether a block is part of it.
    pub fn contains(self, block: BlockId) -> bool {
        self.blocks().any(|own| own == block)
    }

    /// What units are sorted by in the order of the forward pass.
    pub fn by_layer(&self) -> (usize, BlockKind) {
        self.first().by_layer()
    }
}

impl From<BlockId> for Unit {
    fn from(block: BlockId) -> Self {
        Self::Block(block)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(block) => block.fmt(f),
            Self::Pair { mha, mlp } => write!(f, "{},{}", BlockId::mha(*mha), BlockId::mlp(*mlp)),
        }
    }
}

impl FromStr for Unit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let blocks: Vec<BlockId> = text
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|error: crate::model::ParseBlockError| error.to_string())?;
        let unit = match blocks.as_slice() {
            [block] => Some(Self::Block(*block)),
            [one, other] => Self::pair(*one, *other),
            _ => None,
        };
        unit.ok_or_else(|| format!("`{text}` is neither a block nor a pair of mha:N and mlp:N"))
    }
}

impl Serialize for Unit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Unit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a step of the search removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Units {
    /// One block, as published.
    #[default]
    Blocks,
    /// An attention block and a feed-forward block that are neighbours among those which are left, in either order. What
    /// is left of an ordinary model is one again.
    Pairs,
    /// Both blocks of a layer.
    Layers,
}

impl Units {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Blocks, Self::Pairs, Self::Layers];

    /// `blocks`, `pairs` or `layers`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::Pairs => "pairs",
            Self::Layers => "layers",
        }
    }

    /// Blocks of a unit.
    pub fn size(self) -> usize {
        match self {
            Self::Blocks => 1,
            Self::Pairs | Self::Layers => 2,
        }
    }

    /// The units of a model of `layers` layers without the blocks in `gone`, in the order in which the first of equals wins.
    pub(crate) fn of(
        self,
        block_types: BlockTypes,
        layers: usize,
        gone: &BlockSet,
    ) -> Box<dyn Iterator<Item = Unit> + '_> {
        let left = |block: &BlockId| !gone.contains(*block);
        match self {
            Self::Blocks => {
                let blocks = (0..layers).map(BlockId::mha).chain((0..layers).map(BlockId::mlp));
                Box::new(blocks.filter(move |block| block_types.has(block.kind) && left(block)).map(Unit::Block))
            }
            Self::Pairs => {
                let blocks = (0..layers).flat_map(|layer| [BlockId::mha(layer), BlockId::mlp(layer)]).filter(left);
                let mut before: Option<BlockId> = None;
                Box::new(blocks.filter_map(move |block| Unit::pair(before.replace(block)?, block)))
            }
            Self::Layers => {
                let whole = move |layer: &usize| left(&BlockId::mha(*layer)) && left(&BlockId::mlp(*layer));
                Box::new((0..layers).filter(whole).map(|layer| Unit::Pair { mha: layer, mlp: layer }))
            }
        }
    }

    /// How many of these units a step (1-based) has that began with `first` of them.
    pub(crate) fn count(self, first: usize, step: usize) -> usize {
        // Two neighbours less are two pairs less.
        let fewer = if self == Self::Pairs { 2 } else { 1 };
        first.saturating_sub(fewer * step.saturating_sub(1))
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Units {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|units| units.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is not a kind of unit: expected blocks, pairs or layers"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn names(units: Units, gone: &str) -> String {
        let gone = gone.parse().unwrap();
        let found: Vec<_> = units.of(BlockTypes::Mix, 3, &gone).map(|unit| format!("[{unit}]")).collect();
        found.concat()
    }

    #[test]
    fn units_print_and_parse() {
        for text in ["mha:3", "mlp:0", "mha:4,mlp:3", "mha:4,mlp:4"] {
            assert_eq!(text.parse::<Unit>().unwrap().to_string(), text);
        }
        assert_eq!("mlp:3,mha:4".parse::<Unit>().unwrap().to_string(), "mha:4,mlp:3");
        for bad in ["", "mha:1,mha:2", "mha:1,mlp:1,mha:2", "mha:1,", "layer:1"] {
            assert!(bad.parse::<Unit>().is_err(), "{bad}");
        }
        for units in Units::ALL {
            assert_eq!(units.to_string().parse::<Units>().unwrap(), units);
        }
        assert!("layer".parse::<Units>().unwrap_err().contains("expected blocks"));
    }

    #[test]
    fn pairs_are_neighbours_among_what_is_left() {
        assert_eq!(names(Units::Blocks, "mha:1"), "[mha:0][mha:2][mlp:0][mlp:1][mlp:2]");
        assert_eq!(names(Units::Pairs, ""), "[mha:0,mlp:0][mha:1,mlp:0][mha:1,mlp:1][mha:2,mlp:1][mha:2,mlp:2]");
        assert_eq!(names(Units::Pairs, "mha:1,mlp:0"), "[mha:0,mlp:1][mha:2,mlp:1][mha:2,mlp:2]");
        // Where two blocks of a kind are neighbours, they are no pair.
        assert_eq!(names(Units::Pairs, "mha:1"), "[mha:0,mlp:0][mha:2,mlp:1][mha:2,mlp:2]");
        assert_eq!(names(Units::Layers, "mha:1"), "[mha:0,mlp:0][mha:2,mlp:2]");
    }

    #[test]
    fn a_pair_begins_with_what_runs_first() {
        let unit = Unit::Pair { mha: 2, mlp: 1 };
        assert_eq!(unit.first(), BlockId::mlp(1));
        assert_eq!(unit.blocks().collect::<Vec<_>>(), [BlockId::mlp(1), BlockId::mha(2)]);
        assert_eq!(Unit::Pair { mha: 2, mlp: 2 }.first(), BlockId::mha(2));
        assert!(unit.contains(BlockId::mha(2)) && !unit.contains(BlockId::mlp(2)));
    }

    /// By what a search foresees its cost, against the candidates that its steps have.
    #[test]
    fn steps_are_counted_beforehand() {
        for (units, remove) in [
            (Units::Blocks, "mha:0 mlp:2"),
            (Units::Layers, "mha:1,mlp:1 mha:0,mlp:0"),
            (Units::Pairs, "mha:1,mlp:0 mha:2,mlp:1"),
        ] {
            let mut gone = BlockSet::new();
            let first = units.of(BlockTypes::Mix, 4, &gone).count();
            for (step, unit) in remove.split(' ').enumerate() {
                assert_eq!(units.of(BlockTypes::Mix, 4, &gone).count(), units.count(first, step + 1), "{units} {gone}");
                gone.extend(unit.parse::<Unit>().unwrap().blocks());
            }
        }
    }
}
