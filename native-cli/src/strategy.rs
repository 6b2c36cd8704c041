//! How candidates are scored: the published search, the ways to run it, and the strategies that it is compared with.

use blockpruner::search::{ByChange, Exhaustive, OneShot, Racing, Random, SearchOptions};
use clap::{Args, ValueEnum};

use crate::args::whole_number;
use crate::exit::bad_input;

/// Which strategy, and how it is run.
#[derive(Args, Clone, Debug, Default)]
pub struct StrategyArgs {
    /// What decides which units go
    #[arg(long, value_enum, default_value_t, requires = "target")]
    strategy: Strategy,
    /// Run the loop of --strategy blockpruner literally: slower, same result
    #[arg(long, requires = "target")]
    exhaustive: bool,
    /// In --strategy blockpruner, drop candidates that fall behind on the first windows: faster, approximate
    #[arg(long, requires = "target", conflicts_with = "exhaustive")]
    racing: bool,
    /// What the draw of --strategy random begins from [default: 0]
    #[arg(long, value_name = "SEED", requires = "target", value_parser = whole_number::<u64>)]
    strategy_seed: Option<u64>,
}

/// A strategy of the library, as its file there describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Strategy {
    /// The published search (Zhong et al., 2025): remove what leaves the lowest perplexity, score again, repeat
    #[default]
    Blockpruner,
    /// Its ablation: the perplexity without each unit alone, scored once; all go in that order
    OneShot,
    /// Block Influence of layers (ShortGPT, Men et al., 2024), measured once: 1 - mean cosine similarity of the hidden states
    /// before and after a layer; implies --units layers
    ShortGpt,
    /// 1 - mean cosine similarity of the hidden states x before and x + f(x) after a unit (LLM-Drop, He et al., 2024),
    /// measured once
    Cosine,
    /// Mean of |f(x)| / |x + f(x)| of what a unit adds to the hidden states (Samragh et al., 2023), measured once
    RelativeMagnitude,
    /// Chance: one draw, of --strategy-seed
    Random,
}

impl StrategyArgs {
    /// The options with this strategy.
    ///
    /// # Errors
    /// Ways to run one strategy beside the name of another.
    pub fn choose(&self, options: SearchOptions) -> anyhow::Result<SearchOptions> {
        let Self { strategy, exhaustive, racing, strategy_seed } = *self;
        let way = [(exhaustive, "--exhaustive"), (racing, "--racing")].into_iter().find(|(given, _)| *given);
        if let (Some((_, way)), true) = (way, strategy != Strategy::Blockpruner) {
            return Err(bad_input(format!("{way} is a way to run --strategy blockpruner: leave one of the two out")));
        }
        if strategy_seed.is_some() && strategy != Strategy::Random {
            return Err(bad_input(
                "--strategy-seed is for --strategy random, nothing else is drawn; --seed draws rows of the text",
            ));
        }
        Ok(match strategy {
            Strategy::Blockpruner if exhaustive => options.strategy(Exhaustive),
            Strategy::Blockpruner if racing => options.strategy(Racing),
            Strategy::Blockpruner => options,
            Strategy::OneShot => options.strategy(OneShot),
            Strategy::ShortGpt => options.strategy(ByChange::ShortGpt),
            Strategy::Cosine => options.strategy(ByChange::Cosine),
            Strategy::RelativeMagnitude => options.strategy(ByChange::RelativeMagnitude),
            Strategy::Random => options.strategy(Random::new(strategy_seed.unwrap_or_default())),
        })
    }
}
