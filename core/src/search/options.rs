//! What is searched for, and how.

use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::strategy::{Exact, Strategy};
use super::{BlockSizes, SearchError, Target, Unit, Units};
use crate::model::{BlockKind, BlockSet, ModelSpec};

/// Which blocks are candidates, where they are so one by one.
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

/// What is measured of a candidate. The lowest value wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Objective {
    /// The perplexity of the text without it, as published.
    #[default]
    Perplexity,
    /// [`crate::score::StateChange::cosine_distance`] of it.
    CosineDistance,
    /// [`crate::score::StateChange::relative_magnitude`] of it.
    RelativeMagnitude,
    /// Nothing: the value is drawn, 0 to 1.
    Random,
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Perplexity => "perplexity",
            Self::CosineDistance => "cosine-distance",
            Self::RelativeMagnitude => "relative-magnitude",
            Self::Random => "random",
        })
    }
}

/// What to search for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SearchOptions {
    /// When it is done.
    pub target: Target,
    /// What a step removes.
    pub units: Units,
    /// Which blocks are candidates; all, where units are not blocks.
    pub block_types: BlockTypes,
    /// What is measured of them, unless the strategy measures something of its own; see [`SearchOptions::measured`].
    pub objective: Objective,
    /// How they are scored.
    pub strategy: Rc<dyn Strategy>,
    /// What the model takes as it will be written: for [`Target::Bytes`], and for the plan.
    pub sizes: Option<Rc<BlockSizes>>,
}

impl SearchOptions {
    /// Removes so many blocks of any kind, or so many other units, by the exact search.
    pub fn remove(units: usize) -> Self {
        Self::until(Target::Units(units))
    }

    /// Removes blocks of any kind until the target is reached, by the exact search.
    pub fn until(target: Target) -> Self {
        Self {
            target,
            units: Units::Blocks,
            block_types: BlockTypes::Mix,
            objective: Objective::Perplexity,
            strategy: Rc::new(Exact),
            sizes: None,
        }
    }

    /// A step removes this.
    pub fn units(mut self, units: Units) -> Self {
        self.units = units;
        self
    }

    /// Only blocks of these types are candidates.
    pub fn block_types(mut self, block_types: BlockTypes) -> Self {
        self.block_types = block_types;
        self
    }

    /// Candidates are scored in another way. A strategy that knows one kind of units only makes them those.
    pub fn strategy(mut self, strategy: impl Strategy + 'static) -> Self {
        self.units = strategy.units().unwrap_or(self.units);
        self.strategy = Rc::new(strategy);
        self
    }

    /// The model takes so many bytes as it will be written; None: nobody knows.
    pub fn sizes(mut self, sizes: impl Into<Option<BlockSizes>>) -> Self {
        self.sizes = sizes.into().map(Rc::new);
        self
    }

    /// What is measured of candidates.
    pub fn measured(&self) -> Objective {
        self.strategy.objective().unwrap_or(self.objective)
    }

    /// What a step removes of this model. Where the branches of layers are parallel, the neighbour of a block is the other one
    /// of its layer: pairs are layers.
    pub fn units_of(&self, spec: &ModelSpec) -> Units {
        let parallel = spec.layers.iter().any(|layer| layer.parallel);
        if self.units == Units::Pairs && parallel { Units::Layers } else { self.units }
    }

    /// What a step scores of a model without the blocks in `removed`, in the order in which the first of equals wins.
    pub fn candidates(&self, spec: &ModelSpec, removed: &BlockSet) -> Vec<Unit> {
        self.units_of(spec).of(self.block_types, spec.layers.len(), &spec.absent.union(removed)).collect()
    }

    /// Checks that the target can be reached.
    ///
    /// # Errors
    /// [`SearchError::UnitsOfStrategy`], [`SearchError::TypesOfBlocks`], and those of targets: [`SearchError::TooMany`],
    /// [`SearchError::TooMuch`], [`SearchError::TooSmall`], [`SearchError::FitsAlready`], [`SearchError::Target`].
    pub fn check(&self, spec: &ModelSpec) -> Result<(), SearchError> {
        let (units, block_types) = (self.units_of(spec), self.block_types);
        if let Some(only) = self.strategy.units().filter(|only| *only != units) {
            return Err(SearchError::UnitsOfStrategy { strategy: self.strategy.name().into(), only, units });
        }
        if units != Units::Blocks && block_types != BlockTypes::Mix {
            return Err(SearchError::TypesOfBlocks { units, block_types });
        }
        self.check_target(spec)
    }
}
