//! Why a candidate was rejected or dropped.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Unit;

/// Why a candidate has no complete score. In files it is the sentence that it prints as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
#[non_exhaustive]
pub enum Reason {
    /// Rejected: its mean loss is finite, but not its perplexity.
    TooLarge {
        /// In nats a token.
        mean_nll: f64,
    },
    /// Dropped: the windows scored so far show that it cannot win.
    Windows,
    /// Dropped: a part of the vocabulary shows that it cannot win.
    Vocabulary {
        /// Entries of the part.
        seen: u64,
        /// Entries in all.
        all: u64,
    },
    /// Dropped by a race: it is behind the leader.
    Behind {
        /// The best candidate then.
        leader: Unit,
        /// By so many nats a token, to four decimals.
        mean: f64,
        /// Standard error of that, to four decimals.
        error: f64,
        /// Targets that it was compared on.
        tokens: usize,
        /// Confidence, in percent.
        confidence: f64,
    },
    /// Left out by a strategy.
    LeftOut {
        /// The strategy's name.
        strategy: String,
    },
    /// Anything else, in words: a loss that is not finite, for example.
    Other(String),
}

const CANNOT_WIN: &str = "cannot win by ";
const TOO_LARGE: [&str; 2] = ["the mean loss of ", " nats is too large for a perplexity"];
const WINDOWS: &str = "the windows scored so far";
const VOCABULARY: [&str; 3] = ["the log-sum-exp over ", " of ", " vocabulary entries"];
const BEHIND: [&str; 6] =
    ["approximate: behind ", " by ", " nats a token, standard error ", ", after ", " tokens (", " % confidence)"];
const LEFT_OUT: [&str; 2] = ["not scored by the strategy ", ""];

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { mean_nll } => write!(f, "{}{mean_nll}{}", TOO_LARGE[0], TOO_LARGE[1]),
            Self::Windows => write!(f, "{CANNOT_WIN}{WINDOWS}"),
            Self::Vocabulary { seen, all } => {
                let [over, of, entries] = VOCABULARY;
                write!(f, "{CANNOT_WIN}{over}{seen}{of}{all}{entries}")
            }
            Self::Behind { leader, mean, error, tokens, confidence } => {
                let [behind, by, deviation, after, with, end] = BEHIND;
                write!(f, "{behind}{leader}{by}{mean:.4}{deviation}{error:.4}{after}{tokens}{with}{confidence}{end}")
            }
            Self::LeftOut { strategy } => write!(f, "{}{strategy}{}", LEFT_OUT[0], LEFT_OUT[1]),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.to_string()
    }
}

impl From<String> for Reason {
    /// A sentence that this version does not print stays as it is.
    fn from(text: String) -> Self {
        Self::parse(&text).filter(|reason| reason.to_string() == text).unwrap_or(Self::Other(text))
    }
}

impl Reason {
    fn parse(text: &str) -> Option<Self> {
        if let Some(by) = text.strip_prefix(CANNOT_WIN) {
            if by == WINDOWS {
                return Some(Self::Windows);
            }
            return match between(by, &VOCABULARY)?.as_slice() {
                [seen, all] => Some(Self::Vocabulary { seen: seen.parse().ok()?, all: all.parse().ok()? }),
                _ => None,
            };
        }
        if let Some(mean_nll) = between(text, &TOO_LARGE) {
            return Some(Self::TooLarge { mean_nll: mean_nll.first()?.parse().ok()? });
        }
        if let Some(strategy) = between(text, &LEFT_OUT) {
            return Some(Self::LeftOut { strategy: strategy.first()?.to_string() });
        }
        match between(text, &BEHIND)?.as_slice() {
            [leader, mean, error, tokens, confidence] => Some(Self::Behind {
                leader: leader.parse().ok()?,
                mean: mean.parse().ok()?,
                error: error.parse().ok()?,
                tokens: tokens.parse().ok()?,
                confidence: confidence.parse().ok()?,
            }),
            _ => None,
        }
    }
}

/// What stands between the words of a sentence.
fn between<'a>(text: &'a str, words: &[&str]) -> Option<Vec<&'a str>> {
    let (first, words) = words.split_first()?;
    let mut rest = text.strip_prefix(first)?;
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let (before, after) = match at + 1 == words.len() {
            true => (rest.strip_suffix(word)?, ""),
            false => rest.split_once(word)?,
        };
        found.push(before);
        rest = after;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BlockId;

    /// What a resumed search reads is what was saved.
    #[test]
    fn reasons_read_back() {
        let (mean, error) = (0.0123, 1234.5678);
        for (reason, text) in [
            (Reason::TooLarge { mean_nll: 812.125 }, "the mean loss of 812.125 nats is too large for a perplexity"),
            (Reason::Windows, "cannot win by the windows scored so far"),
            (
                Reason::Vocabulary { seen: 1031, all: 4096 },
                "cannot win by the log-sum-exp over 1031 of 4096 vocabulary entries",
            ),
            (
                Reason::Behind { leader: BlockId::mlp(3).into(), mean, error, tokens: 448, confidence: 95.0 },
                "approximate: behind mlp:3 by 0.0123 nats a token, standard error 1234.5678, after 448 tokens (95 % \
                 confidence)",
            ),
            (Reason::LeftOut { strategy: "random".into() }, "not scored by the strategy random"),
            (Reason::Other("cannot win by magic".into()), "cannot win by magic"),
            (Reason::Other("approximate: behind x by 1".into()), "approximate: behind x by 1"),
        ] {
            assert_eq!(reason.to_string(), text);
            assert_eq!(Reason::from(text.to_string()), reason);
        }
    }
}
