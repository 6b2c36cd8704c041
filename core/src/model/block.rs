//! Blocks and sets of blocks: the vocabulary of everything that removes, scores or saves them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The two residual branches of a transformer layer.
///
/// The order of the variants is the published candidate order: all MHA blocks before all MLP blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockKind {
    /// Multi-head attention with its pre-norm.
    Mha,
    /// Feed-forward network with its pre-norm.
    Mlp,
}

impl BlockKind {
    /// Both, in the order of the forward pass.
    pub const ALL: [Self; 2] = [Self::Mha, Self::Mlp];

    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Mha => Self::Mlp,
            Self::Mlp => Self::Mha,
        }
    }

    /// `mha` or `mlp`.
    pub fn as_str(self) -> &'static str {
        match self {
            BlockKind::Mha => "mha",
            BlockKind::Mlp => "mlp",
        }
    }
}

/// One residual branch of one layer. Prints and parses as `mha:25`; layers count from 0 and never shift.
///
/// `Ord` is the published candidate order, `mha:0, mha:1, .., mlp:0, mlp:1, ..`, in which the first of equals wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// Which branch.
    pub kind: BlockKind,
    /// 0-based layer index in the original model.
    pub layer: usize,
}

impl BlockId {
    /// The attention block of `layer`.
    pub fn mha(layer: usize) -> Self {
        Self { kind: BlockKind::Mha, layer }
    }

    /// The feed-forward block of `layer`.
    pub fn mlp(layer: usize) -> Self {
        Self { kind: BlockKind::Mlp, layer }
    }

    /// What blocks are sorted by in the order of the model's layers: attention before feed-forward.
    pub fn by_layer(&self) -> (usize, BlockKind) {
        (self.layer, self.kind)
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.layer)
    }
}

/// A block name that does not parse.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a block: expected mha:N or mlp:N with N a layer from 0")]
pub struct ParseBlockError(pub String);

impl FromStr for BlockId {
    type Err = ParseBlockError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseBlockError(text.to_string());
        let (kind, layer) = text.trim().split_once(':').ok_or_else(error)?;
        let kind = match kind {
            "mha" => BlockKind::Mha,
            "mlp" => BlockKind::Mlp,
            _ => return Err(error()),
        };
        if !layer.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        Ok(Self { kind, layer: layer.parse().map_err(|_| error())? })
    }
}

impl Serialize for BlockId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlockId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A set of blocks, iterated in the published candidate order. Prints and parses as `mha:4,mlp:7`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockSet(BTreeSet<BlockId>);

impl BlockSet {
    /// A model without these blocks, in words: `the whole model`, or `the model without mha:3,mlp:7`.
    pub fn rest(&self) -> String {
        if self.is_empty() { "the whole model".into() } else { format!("the model without {self}") }
    }

    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a block; false if it was there.
    pub fn insert(&mut self, block: BlockId) -> bool {
        self.0.insert(block)
    }

    /// Takes a block out; false if it was not there.
    pub fn remove(&mut self, block: BlockId) -> bool {
        self.0.remove(&block)
    }

    /// Whether the block is in the set.
    pub fn contains(&self, block: BlockId) -> bool {
        self.0.contains(&block)
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The blocks in the published candidate order.
    pub fn iter(&self) -> impl Iterator<Item = BlockId> + '_ {
        self.0.iter().copied()
    }

    /// The set with more blocks.
    pub fn with(&self, blocks: impl IntoIterator<Item = BlockId>) -> Self {
        let mut set = self.clone();
        set.extend(blocks);
        set
    }

    /// The blocks of both sets.
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }
}

impl Extend<BlockId> for BlockSet {
    fn extend<I: IntoIterator<Item = BlockId>>(&mut self, blocks: I) {
        self.0.extend(blocks);
    }
}

impl FromIterator<BlockId> for BlockSet {
    fn from_iter<I: IntoIterator<Item = BlockId>>(blocks: I) -> Self {
        Self(blocks.into_iter().collect())
    }
}

impl fmt::Display for BlockSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, block) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{block}")?;
        }
        Ok(())
    }
}

impl FromStr for BlockSet {
    type Err = ParseBlockError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').filter(|part| !part.trim().is_empty()).map(str::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_print_and_parse() {
        for block in (0..5).flat_map(|layer| [BlockId::mha(layer), BlockId::mlp(layer)]) {
            assert_eq!(block.to_string().parse::<BlockId>().unwrap(), block);
        }
        for bad in ["", "mha", "mha:", "mha:-1", "mha:+1", "ffn:1", "mha:1x", "mha:99999999999999999999999"] {
            assert!(bad.parse::<BlockId>().is_err(), "{bad:?} must not parse");
        }
    }

    #[test]
    fn sets_keep_the_published_order() {
        let set: BlockSet = "mlp:0,mha:3, mha:1".parse().unwrap();
        assert_eq!(set.to_string(), "mha:1,mha:3,mlp:0");
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["mha:1","mha:3","mlp:0"]"#);
    }

    fn any_block() -> impl Strategy<Value = BlockId> {
        (any::<bool>(), any::<usize>())
            .prop_map(|(mha, layer)| if mha { BlockId::mha(layer) } else { BlockId::mlp(layer) })
    }

    proptest! {
        #[test]
        fn any_set_survives_text_and_json(blocks in prop::collection::vec(any_block(), 0..20)) {
            let set: BlockSet = blocks.iter().copied().collect();
            prop_assert_eq!(&set.to_string().parse::<BlockSet>().unwrap(), &set);
            prop_assert_eq!(&serde_json::from_str::<BlockSet>(&serde_json::to_string(&set).unwrap()).unwrap(), &set);
            prop_assert!(blocks.iter().all(|block| block.to_string().parse() == Ok(*block)));
        }

        #[test]
        fn no_text_panics(text in "(mha|mlp|ffn|:|,|-|[+]|[0-9]{1,12}|\u{663}| ){0,6}") {
            if let Ok(block) = text.parse::<BlockId>() {
                let (_, layer) = text.split_once(':').unwrap();
                prop_assert_eq!(block.layer.to_string(), layer.trim_end().trim_start_matches('0').to_string().max("0".into()));
            }
            let _ = text.parse::<BlockSet>();
        }
    }
}
