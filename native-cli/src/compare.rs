//! `blockpruner compare`: plans side by side.

use blockpruner::report::{Comparison, RATIOS};
use clap::Args;

use crate::runs::RunsArgs;
use crate::screen;
use crate::target::share;

/// Arguments of `compare`.
#[derive(Args)]
pub struct CompareArgs {
    #[command(flatten)]
    runs: RunsArgs,
    /// Compare at this share of the parameters removed, too: 0.25 or 25% [default: 0.1, 0.2 and 0.3]
    #[arg(long = "ratio", value_name = "R", value_parser = share_compared)]
    ratios: Vec<f64>,
    /// Print one row a plan, for programs that read tables; without the blocks in common
    #[arg(long, group = "form")]
    csv: bool,
    /// Print Markdown
    #[arg(long, group = "form")]
    markdown: bool,
    /// Print one JSON object on stdout
    #[arg(long, group = "form")]
    json: bool,
}

/// Prints the comparison.
pub async fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let ratios = if args.ratios.is_empty() { &RATIOS[..] } else { &args.ratios };
    let comparison = Comparison::new(&args.runs.read()?, ratios);
    match args {
        CompareArgs { json: true, .. } => screen::print_json(&comparison),
        CompareArgs { csv: true, .. } => {
            // All other forms have a place for them.
            comparison.warnings.iter().for_each(screen::warn);
            screen::write(&comparison.to_csv())
        }
        CompareArgs { markdown: true, .. } => screen::print_text(&comparison.to_markdown()),
        _ => screen::print_text(&comparison.to_text()),
    }
}

fn share_compared(text: &str) -> Result<f64, String> {
    let share = share(text).filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "expected a share, such as 0.25 or 25%".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_numbers_or_percentages() {
        assert_eq!(share_compared("0.25"), Ok(0.25));
        assert_eq!(share_compared("25%"), Ok(0.25));
        for bad in ["", "0", "1", "25", "-0.1", "nan", "inf", "100%", "%", "a"] {
            assert!(share_compared(bad).is_err(), "{bad}");
        }
    }
}
