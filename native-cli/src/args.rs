//! Arguments that several commands take.

use std::path::Path;

use blockpruner::eval::EvaluatedPlan;
use blockpruner::export::{
    GgufFormat, GgufQuantisation, HfFormat, ModelFormat, Plan, Provenance, parse_order, steps_to_ratio,
};
use blockpruner::gpu::{GpuOptions, KernelChoice, Tier};
use blockpruner::model::{BlockSet, ModelSpec};
use blockpruner::search::{BlockTypes, SearchOptions, Target, Units};
use blockpruner::session::WindowOptions;
use blockpruner::text::TextOptions;
use blockpruner::weights::FloatType;
use clap::{Args, ValueEnum};

use crate::exit::bad_input;
use crate::strategy::StrategyArgs;
use crate::target::share_removed;
use crate::{kept_pipelines, open};

/// Which device, and how it is used.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Device")]
pub struct DeviceArgs {
    /// Index or part of the name of a device, as `blockpruner devices` lists them [default: the first]
    #[arg(long, value_name = "NAME|INDEX")]
    pub device: Option<String>,
    /// Use no more than this tier: baseline or subgroups
    #[arg(long, value_name = "TIER")]
    pub tier: Option<Tier>,
    /// Use this matrix kernel: tile, tile-subgroup, cooperative-f32, cooperative-f16, panel or panel-subgroup
    #[arg(long, value_name = "KERNEL")]
    pub kernel: Option<KernelChoice>,
    /// Store weights in pieces of at most this many bytes
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, allow_hyphen_values = true)]
    pub max_binding_bytes: Option<u64>,
    /// Use only what browsers offer
    #[arg(long)]
    pub strict_webgpu: bool,
    /// Device memory to keep to, for example 6GiB; weights that do not fit are streamed from the file [default: three
    /// quarters of the device's own memory, or half of what it shares with the computer, where the driver tells]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, allow_hyphen_values = true)]
    pub memory_budget: Option<u64>,
}

impl DeviceArgs {
    /// The choices of a device.
    pub fn options(&self) -> GpuOptions {
        GpuOptions::default()
            .device(self.device.clone())
            .tier(self.tier)
            .kernel(self.kernel)
            .max_binding_bytes(self.max_binding_bytes)
            .strict_webgpu(self.strict_webgpu)
            .pipeline_cache(kept_pipelines::load)
    }
}

/// `1500000000`, `1.5GB` or `6GiB` in bytes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        other if !digits.is_empty() => {
            return Err(format!("`{other}` is not a unit of bytes: expected KB, MB, GB, TB, KiB, MiB, GiB or TiB"));
        }
        _ => 1,
    };
    let whole = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
    let is_decimal = digits.contains('.') && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let decimal = digits.parse::<f64>().ok().filter(|_| is_decimal).map(|count| count * unit as f64);
    let bytes = whole.or(decimal.filter(|bytes| *bytes < u64::MAX as f64).map(|bytes| bytes as u64));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| format!("`{text}` is not a number of bytes"))
}

/// A number that counts something.
pub fn whole_number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a whole number".into())
}

/// A number of blocks to remove.
pub fn block_count(text: &str) -> Result<u32, String> {
    let advice = "expected how many blocks to remove, at least 1, for example 8; `blockpruner inspect` says how many a model has";
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ if text.ends_with('%') || text.parse::<f64>().is_ok_and(|share| share > 0.0 && share < 1.0) => {
            Err(format!("for a share of the parameters there is --ratio; {advice}"))
        }
        _ => Err(advice.into()),
    }
}

/// Which part of the text, in which windows.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Text")]
pub struct TextArgs {
    /// Field of a JSON or JSONL file's rows that holds the text [default: text]
    #[arg(long)]
    pub field: Option<String>,
    /// Take the first N rows of the file
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>)]
    pub samples: Option<usize>,
    /// Draw the rows with this seed instead of taking the first
    #[arg(long, value_parser = whole_number::<u64>)]
    pub seed: Option<u64>,
    /// Tokens a window, at least 2 [default: 2048, or the model's maximum if smaller]
    #[arg(long, value_name = "TOKENS", value_parser = whole_number::<usize>)]
    pub window: Option<usize>,
    /// Score the first N windows only
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>)]
    pub max_windows: Option<usize>,
}

impl TextArgs {
    /// For reading the text.
    pub fn options(&self) -> TextOptions {
        TextOptions::default().field(self.field.clone()).samples(self.samples).seed(self.seed)
    }

    /// For cutting it.
    pub fn windows(&self) -> WindowOptions {
        WindowOptions::default().window(self.window).max_windows(self.max_windows)
    }
}

/// How is searched. What has these has a target, the group `target`, too.
#[derive(Args, Clone, Debug, Default)]
pub struct SearchArgs {
    /// What a step removes: blocks (as published), pairs (an attention and a feed-forward block between which nothing is left) or
    /// layers; pairs and layers leave an ordinary model, which loads and is faster wherever the original does [default: blocks]
    #[arg(long, value_name = "UNITS", requires = "target")]
    pub units: Option<Units>,
    /// Which blocks may go: mix, mha (attention) or mlp (feed-forward)
    #[arg(long, value_name = "TYPES", default_value_t, requires = "target")]
    pub block_types: BlockTypes,
    #[command(flatten)]
    pub strategy: StrategyArgs,
}

impl SearchArgs {
    /// A search that ends at a target.
    ///
    /// # Errors
    /// Those of [`StrategyArgs::choose`].
    pub fn options(&self, target: Target) -> anyhow::Result<SearchOptions> {
        let options = self.strategy.choose(SearchOptions::until(target).block_types(self.block_types))?;
        Ok(match self.units {
            // Those that the strategy knows.
            None => options,
            Some(units) => options.units(units),
        })
    }
}

/// How a pruned model is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Plain where what is left is an ordinary model, else hf
    #[default]
    Auto,
    /// Hugging Face folder of an ordinary model with fewer layers; loads anywhere
    Plain,
    /// Hugging Face folder, the blocks gone; loads with trust_remote_code
    Hf,
    /// Hugging Face folder, the blocks' outputs zero; loads anywhere, saves no memory
    HfZeroed,
    /// Hugging Face folder of a DeciLM (nemotron-nas), the blocks gone, of models that compute what Llama does; loads in MLX, and
    /// with trust_remote_code in vLLM (which wants an attention block first), SGLang and transformers
    Deci,
    /// One GGUF file for llama.cpp: an ordinary model where what is left is one, else an architecture whose layers may lack a
    /// block, else zeroed
    Gguf,
    /// One GGUF file, the blocks' outputs zero
    GgufZeroed,
}

impl Format {
    /// As the library calls it; None: what is best for the blocks that go.
    pub fn library(self) -> Option<ModelFormat> {
        Some(match self {
            Format::Auto => return None,
            Format::Plain => HfFormat::Plain.into(),
            Format::Hf => HfFormat::Removed.into(),
            Format::HfZeroed => HfFormat::Zeroed.into(),
            Format::Deci => HfFormat::Deci.into(),
            Format::Gguf => GgufFormat::Auto.into(),
            Format::GgufZeroed => GgufFormat::Zeroed.into(),
        })
    }
}

/// Type of the written tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// bfloat16
    Bf16,
    /// IEEE half precision
    F16,
    /// IEEE single precision
    F32,
}

impl Dtype {
    /// As the library calls it.
    pub fn library(self) -> FloatType {
        match self {
            Dtype::Bf16 => FloatType::BF16,
            Dtype::F16 => FloatType::F16,
            Dtype::F32 => FloatType::F32,
        }
    }
}

/// Type of few bits of the written tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Quantize {
    /// 8 bits a weight and a half
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 bits a weight and a half; 8 for the head
    #[value(name = "q4_0")]
    Q4_0,
}

impl Quantize {
    /// As the library calls it.
    pub fn library(self) -> GgufQuantisation {
        match self {
            Quantize::Q8_0 => GgufQuantisation::Q8_0,
            Quantize::Q4_0 => GgufQuantisation::Q4_0,
        }
    }
}

/// Blocks to leave out.
#[derive(Args, Clone, Debug, Default)]
pub struct RemovedArgs {
    /// Leave these blocks out, for example mha:4,mlp:7
    #[arg(long, value_name = "BLOCKS")]
    without: Option<BlockSet>,
    /// Leave out the blocks that this plan.json or order.json removes
    #[arg(long, conflicts_with = "without")]
    plan: Option<String>,
    /// Only the first K steps of the plan; 0 is the unpruned model [default: all]
    #[arg(long, value_name = "K", conflicts_with = "without", value_parser = whole_number::<usize>)]
    step: Option<usize>,
    /// Only the first steps of the plan, up to the one that removes this share of all parameters, for example 0.25 or 25%
    #[arg(long, value_name = "SHARE", conflicts_with_all = ["without", "step"], requires = "plan", value_parser = share_removed, allow_hyphen_values = true)]
    ratio: Option<f64>,
}

/// Blocks to leave out, and how they were found.
pub struct Removed {
    /// Which.
    pub blocks: BlockSet,
    /// The steps of a plan that remove them, where less than all were asked for.
    pub step: Option<usize>,
    /// The plan, if there is one, and how many of its steps.
    pub plan: Option<EvaluatedPlan>,
    /// For the model card.
    pub provenance: Provenance,
}

impl RemovedArgs {
    /// The blocks, all of which the model has.
    pub fn blocks(&self, spec: &ModelSpec) -> anyhow::Result<BlockSet> {
        Ok(self.found(spec)?.blocks)
    }

    /// The blocks, and how they were found.
    pub fn found(&self, spec: &ModelSpec) -> anyhow::Result<Removed> {
        let step = self.step;
        let chosen = |blocks| Removed { blocks, step, plan: None, provenance: Provenance::default() };
        let removed = match (&self.without, &self.plan, step) {
            (Some(blocks), _, _) => chosen(blocks.clone()),
            (None, Some(plan), step) => removed_by_plan(plan, step, self.ratio, spec)?,
            (None, None, None | Some(0)) => chosen(BlockSet::new()),
            (None, None, Some(step)) => {
                return Err(bad_input(format!("--step {step} of which pruning? Give its plan.json with --plan")));
            }
        };
        spec.check_blocks(&removed.blocks)?;
        Ok(removed)
    }

    /// The plan, if there is one.
    pub fn plan(&self) -> Option<&Path> {
        self.plan.as_deref().map(Path::new)
    }

    /// Whether nothing says which blocks.
    pub fn is_empty(&self) -> bool {
        self.without.is_none() && self.plan.is_none() && self.step.is_none()
    }
}

/// The blocks that the first `step` steps of a plan file remove, or those that remove a share of the parameters, or all, and how
/// they were found. `order.json` files, the published ones too, are read as well.
fn removed_by_plan(file: &str, step: Option<usize>, ratio: Option<f64>, spec: &ModelSpec) -> anyhow::Result<Removed> {
    let bytes = open::file(file.as_ref(), "give a plan.json")?;
    let taken = |step| Some(EvaluatedPlan { file: file.to_string(), step });
    if is_order(&bytes) {
        let order = parse_order(file, &bytes)?;
        for unit in &order {
            spec.check_blocks(&unit.blocks().collect())?;
        }
        let step = ratio.map(|ratio| steps_to_ratio(spec, &order, ratio)).transpose()?.or(step);
        let steps = order.get(..step.unwrap_or(order.len())).ok_or_else(|| {
            let step = step.unwrap_or_default();
            bad_input(format!("step {step} does not exist: {file} has {} steps; choose 0 to that", order.len()))
        })?;
        let blocks = steps.iter().flat_map(|unit| unit.blocks()).collect();
        return Ok(Removed { blocks, step, plan: taken(steps.len()), provenance: Provenance::default() });
    }
    let plan = Plan::parse(file, &bytes)?;
    plan.check_model(spec)?;
    let step = ratio.map(|ratio| steps_to_ratio(spec, &plan.order(), ratio)).transpose()?.or(step);
    let steps = step.unwrap_or(plan.steps.len());
    let provenance = Provenance::of_plan(&plan, steps);
    Ok(Removed { blocks: plan.removed_after(steps)?, step, plan: taken(steps), provenance })
}

/// Whether the file is a published order: an object whose keys are step numbers.
fn is_order(bytes: &[u8]) -> bool {
    let keys = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes);
    keys.is_ok_and(|map| map.keys().next().is_some_and(|key| key.parse::<usize>().is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted() {
        assert_eq!(block_count("12"), Ok(12));
        for share in ["30%", "0.3"] {
            assert!(block_count(share).is_err_and(|error| error.starts_with("for a share")), "{share}");
        }
        for bad in ["0", "-1", "-0.5", "2.5", "many", "", "nan", "inf", "-inf"] {
            assert!(block_count(bad).is_err_and(|error| error.starts_with("expected how many")), "{bad}");
        }
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(["17", "2KB", "3MiB", "1G"].map(parse_bytes), [Ok(17), Ok(2000), Ok(3 << 20), Ok(1 << 30)]);
        assert_eq!(["1.5GB", "0.5KiB", "2.5"].map(parse_bytes), [Ok(1_500_000_000), Ok(512), Ok(2)]);
        assert_eq!(["1TB", "2TiB", "1T"].map(parse_bytes), [Ok(1_000_000_000_000), Ok(2 << 40), Ok(1 << 40)]);
        for bad in [
            "",
            "0",
            "-1",
            "-1GiB",
            "--json",
            "99999999TiB",
            "1.5.1G",
            ".",
            "G",
            "1e3",
            "0.1",
            "3 GB",
            "3XB",
            "99999999999999999999",
        ] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
