//! What is searched for, and how.

use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::strategy::{Exact, Strategy};
use super::{SearchError, SearchState};
use crate::model::{BlockId, BlockKind, ModelSpec};

/// Which blocks are candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockTypes {
    /// Attention and feed-forward blocks.
    #[default]
    Mix,
    /// Attention blocks only.
    Mha,
    /// Feed-forward blocks only.
    Mlp,
}

impl BlockTypes {
    /// Whether blocks of this kind are candidates.
    pub fn has(self, kind: BlockKind) -> bool {
        match self {
            Self::Mix => true,
            Self::Mha => kind == BlockKind::Mha,
            Self::Mlp => kind == BlockKind::Mlp,
        }
    }
}

impl fmt::Display for BlockTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mix => "mix",
            Self::Mha => "mha",
            Self::Mlp => "mlp",
        })
    }
}

impl FromStr for BlockTypes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mix" => Ok(Self::Mix),
            "mha" => Ok(Self::Mha),
            "mlp" => Ok(Self::Mlp),
            _ => Err(format!("`{text}` is not a block type: expected mix, mha or mlp")),
        }
    }
}

/// When a search is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// When so many blocks are removed, the K of the paper.
    Blocks(usize),
}

impl Target {
    /// Steps that it takes at most.
    pub fn most_steps(self) -> usize {
        let Self::Blocks(blocks) = self;
        blocks
    }

    /// The search that has come to this target first, of one that may have come further.
    pub(crate) fn cut(self, found: &SearchState) -> SearchState {
        match self.is_reached(found) {
            false => found.clone(),
            true => SearchState {
                dense: found.dense,
                steps: found.steps[..self.most_steps()].to_vec(),
                ..SearchState::default()
            },
        }
    }

    /// Whether a search that has come so far is done.
    pub fn is_reached(self, state: &SearchState) -> bool {
        state.steps.len() >= self.most_steps()
    }
}

/// What is measured of a candidate. The lowest value wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Objective {
    /// The perplexity of the text without it, as published.
    #[default]
    Perplexity,
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Perplexity => "perplexity",
        })
    }
}

/// What to search for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SearchOptions {
    /// When it is done.
    pub target: Target,
    /// Which blocks are candidates.
    pub block_types: BlockTypes,
    /// What is measured of them.
    pub objective: Objective,
    /// How they are scored.
    pub strategy: Rc<dyn Strategy>,
}

impl SearchOptions {
    /// Removes `blocks` blocks of any kind by the exact search.
    pub fn remove(blocks: usize) -> Self {
        Self {
            target: Target::Blocks(blocks),
            block_types: BlockTypes::Mix,
            objective: Objective::Perplexity,
            strategy: Rc::new(Exact),
        }
    }

    /// Only blocks of these types are candidates.
    pub fn block_types(mut self, block_types: BlockTypes) -> Self {
        self.block_types = block_types;
        self
    }

    /// Candidates are scored in another way.
    pub fn strategy(mut self, strategy: impl Strategy + 'static) -> Self {
        self.strategy = Rc::new(strategy);
        self
    }

    /// The blocks that the first step scores, in the published order.
    pub fn candidates<'a>(&'a self, spec: &'a ModelSpec) -> impl Iterator<Item = BlockId> + 'a {
        spec.blocks().filter(|block| self.block_types.has(block.kind))
    }

    /// Checks that there are as many blocks as should be removed.
    ///
    /// # Errors
    /// [`SearchError::TooMany`].
    pub fn check(&self, spec: &ModelSpec) -> Result<(), SearchError> {
        let (remove, blocks) = (self.target.most_steps(), self.candidates(spec).count());
        match remove <= blocks {
            true => Ok(()),
            false => Err(SearchError::TooMany { remove, block_types: self.block_types, blocks }),
        }
    }
}
