//! The size of a model as it was read and as it will be written, told before the work.

use blockpruner::export::{GgufFormat, HfFormat, ModelFormat, ModelOptions, folder_format, model_bytes};
use blockpruner::model::{BlockSet, Checkpoint};
use blockpruner::search::{SearchOptions, Target, Unit};
use blockpruner::weights::FloatType;

use crate::event::Event;
use crate::screen::{self, bytes, tell};

/// The blocks of the units that save the least, as many as a search removes at least: whatever it finds, the model becomes no
/// larger.
pub fn smallest_blocks(checkpoint: &Checkpoint, options: &SearchOptions) -> BlockSet {
    let spec = &checkpoint.spec;
    let parameters = |unit: &Unit| -> u64 { unit.blocks().map(|block| spec.block_parameters(block)).sum() };
    let mut units = options.candidates(spec, &BlockSet::new());
    units.sort_by_key(parameters);
    // Pairs have blocks in common; what a search removes has not.
    let mut smallest = BlockSet::new();
    let mut count = 0;
    for unit in units {
        if unit.blocks().any(|block| smallest.contains(block)) {
            continue;
        }
        count += 1;
        let more = smallest.with(unit.blocks());
        let goes = match options.target {
            Target::Units(units) => count <= units,
            // Other blocks may overshoot less.
            Target::Ratio(ratio) => spec.parameters_without(&more) as f64 > (1.0 - ratio) * spec.parameters() as f64,
            _ => false,
        };
        if !goes {
            break;
        }
        smallest = more;
    }
    smallest
}

/// Tells the sizes, and warns of a written model that is larger than what was read. `at_most`: the blocks of `options` stand
/// for ones that are not known yet, and the written model takes no more than this.
///
/// # Errors
/// Weights that cannot be written so.
pub async fn tell_sizes(checkpoint: &Checkpoint, options: &ModelOptions, at_most: Option<u64>) -> anyhow::Result<()> {
    let (read, written) = (checkpoint.weights.stored_bytes(), model_bytes(checkpoint, options).await?);
    let (written, at_most) = (written.min(at_most.unwrap_or(u64::MAX)), at_most.is_some());
    tell(&Event::Size { bytes_read: read, bytes_written: written, at_most });
    if written <= read {
        return Ok(());
    }
    let with = async |other: ModelOptions| -> anyhow::Result<_> {
        let smaller = model_bytes(checkpoint, &other).await?;
        // A norm or two that become smaller are not worth a word.
        Ok((smaller < written / 4 * 3).then(|| bytes(smaller)))
    };
    let is_quantised = checkpoint.weights.iter().any(|tensor| tensor.dtype.is_quantised());
    let gguf = match options.format_for(checkpoint) {
        ModelFormat::Folder(_) if is_quantised => {
            let gguf = ModelOptions::new(options.removed.clone(), Some(GgufFormat::Auto.into()));
            // Not every model can be one.
            with(gguf).await.unwrap_or_default()
        }
        _ => None,
    };
    let halves = with(options.clone().dtype(FloatType::BF16).quantize(None)).await?;
    let without = match folder_format(checkpoint) {
        HfFormat::Removed => {
            let removed = ModelOptions::new(options.removed.clone(), Some(HfFormat::Removed.into()));
            with(removed.dtype(options.dtype)).await?
        }
        _ => None,
    };
    let advice = match (gguf, halves, without) {
        (Some(size), ..) => format!("--format gguf keeps them quantised, which makes it {size}"),
        (None, Some(size), _) => format!("--dtype bf16 makes it {size}"),
        (None, None, Some(size)) => format!("--format hf leaves removed blocks out, which makes it {size}"),
        (None, None, None) => "quantised weights can be written as bf16 or f16 (--dtype), or as GGUF".into(),
    };
    let most = if at_most { "up to " } else { "" };
    screen::warn(format!(
        "the written model takes {most}{}, more than the {} that were read: {advice}",
        bytes(written),
        bytes(read)
    ));
    Ok(())
}
