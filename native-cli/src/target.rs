//! How much `prune` removes.

use blockpruner::search::Target;
use clap::Args;

use crate::args::{block_count, parse_bytes};

/// How much is removed; exactly one of these.
#[derive(Args, Clone, Debug, Default)]
#[group(id = "target", required = true, multiple = false)]
pub struct TargetArgs {
    /// Remove so many blocks, or of what --units says; about a third of all is the usual maximum
    #[arg(long, value_name = "K", value_parser = block_count)]
    remove: Option<u32>,
    /// Remove this share of all parameters, for example 0.25 or 25%: up to the first step that reaches it
    #[arg(long, value_name = "SHARE", value_parser = share_removed, allow_hyphen_values = true)]
    ratio: Option<f64>,
    /// Remove until the written weights take at most this, for example 6GiB, in the --format, --dtype and --quantize that are
    /// chosen
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, allow_hyphen_values = true)]
    fit: Option<u64>,
    /// Remove for as long as the perplexity rises by at most this share of the whole model's, for example 20% or 0.2
    #[arg(long, value_name = "SHARE", value_parser = increase, allow_hyphen_values = true)]
    max_increase: Option<f64>,
    /// Remove for as long as the perplexity is at most this
    #[arg(long, value_name = "PERPLEXITY", value_parser = perplexity)]
    max_perplexity: Option<f64>,
}

impl TargetArgs {
    /// So many blocks.
    pub fn remove(blocks: u32) -> Self {
        Self { remove: Some(blocks), ..Self::default() }
    }

    /// As the library calls it.
    pub fn library(&self) -> Target {
        let Self { remove, ratio, fit, max_increase, max_perplexity } = *self;
        let target = ratio.map(Target::Ratio).or(fit.map(Target::Bytes)).or(max_increase.map(Target::MaxIncrease));
        // One of them is there.
        target.or(max_perplexity.map(Target::MaxPerplexity)).unwrap_or(Target::Units(remove.unwrap_or(0) as usize))
    }
}

/// `0.25` or `25%`.
pub fn share(text: &str) -> Option<f64> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number.trim_end(), 100.0),
        None => (text, 1.0),
    };
    let value = number.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)?;
    // 20 is hardly 2000 %.
    (unit == 100.0 || value <= 1.0).then_some(value / unit)
}

/// A share of the parameters.
pub fn share_removed(text: &str) -> Result<f64, String> {
    let share = share(text).filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "expected a share of the parameters above 0, for example 0.25 or 25%".into())
}

fn increase(text: &str) -> Result<f64, String> {
    share(text).ok_or_else(|| "expected a share of the whole model's perplexity, for example 0.2 or 20%".into())
}

fn perplexity(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 1.0);
    value.ok_or_else(|| "expected a perplexity, at least 1, for example 12.5".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read() {
        assert_eq!(["0.25", "25%", "12.5%", "1", "100%"].map(share_removed), [0.25, 0.25, 0.125, 1.0, 1.0].map(Ok));
        assert_eq!(["0", "0.2", "20%", "150%"].map(increase), [0.0, 0.2, 0.2, 1.5].map(Ok));
        for bad in ["", "%", "0", "-0.1", "25", "101%", "nan", "inf", "0,25", "a lot"] {
            assert!(share_removed(bad).is_err_and(|error| error.contains("0.25 or 25%")), "{bad}");
        }
        for bad in ["20", "-1%", "nan%", "inf", ""] {
            assert!(increase(bad).is_err_and(|error| error.contains("0.2 or 20%")), "{bad}");
        }
        assert_eq!(perplexity("12.5"), Ok(12.5));
        for bad in ["0.9", "-3", "nan", "20%"] {
            assert!(perplexity(bad).is_err(), "{bad}");
        }
    }
}
