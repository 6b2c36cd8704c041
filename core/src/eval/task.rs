//! The tasks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::EvalError;

/// A zero-shot task. Its name decides how its rows become prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Task {
    /// PIQA (Bisk et al., 2020).
    Piqa,
    /// WinoGrande (Sakaguchi et al., 2020).
    Winogrande,
    /// HellaSwag (Zellers et al., 2019).
    Hellaswag,
    /// ARC-easy (Clark et al., 2018).
    ArcEasy,
    /// ARC-challenge (Clark et al., 2018).
    ArcChallenge,
    /// OpenBookQA (Mihaylov et al., 2018).
    Openbookqa,
    /// LAMBADA (Paperno et al., 2016) as OpenAI has it.
    Lambada,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Piqa,
        Self::Winogrande,
        Self::Hellaswag,
        Self::ArcEasy,
        Self::ArcChallenge,
        Self::Openbookqa,
        Self::Lambada,
    ];

    /// As files and the command line have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Piqa => "piqa",
            Self::Winogrande => "winogrande",
            Self::Hellaswag => "hellaswag",
            Self::ArcEasy => "arc_easy",
            Self::ArcChallenge => "arc_challenge",
            Self::Openbookqa => "openbookqa",
            Self::Lambada => "lambada",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Task {
    type Err = EvalError;

    fn from_str(name: &str) -> Result<Self, EvalError> {
        let task = Self::ALL.into_iter().find(|task| task.name() == name);
        task.ok_or_else(|| EvalError::NoSuchTask { name: name.into() })
    }
}

impl Serialize for Task {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Task {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
