//! What a model takes as it will be written, block by block: before a search, which knows nothing of formats, and without
//! reading any values.

use super::model::Options;
use super::{ExportError, ModelFormat, ModelOptions, gguf, hf};
use crate::model::{BlockId, Checkpoint};
use crate::search::{BlockSizes, SearchOptions, Target, Units};

/// Bytes of what belongs to no block, headers included, and of every block.
pub(super) type Table = (u64, Vec<(BlockId, u64)>);

/// The search with the sizes of blocks as `model` says that they will be written. Where these cannot be foreseen, it knows none,
/// unless its target is a number of bytes.
///
/// # Errors
/// Those of [`block_sizes`], of a search for [`Target::Bytes`].
pub async fn with_sizes(
    search: SearchOptions,
    checkpoint: &Checkpoint,
    model: &ModelOptions,
) -> Result<SearchOptions, ExportError> {
    match block_sizes(checkpoint, model, search.units_of(&checkpoint.spec)).await {
        Err(error) if matches!(search.target, Target::Bytes(_)) => Err(error),
        sizes => Ok(search.sizes(sizes.ok())),
    }
}

/// The bytes of the weight files that [`super::export_model`] would write, headers included, as a sum over blocks, if a search removes
/// `units`. `options.removed` does not count. What the sum says of a model is never below what its files take: it is some hundred
/// bytes above, or some thousand of a GGUF file. In a format that keeps removed blocks as zeros no block takes anything.
///
/// # Errors
/// As [`super::export_model`], as far as no value has to be read.
pub async fn block_sizes(
    checkpoint: &Checkpoint,
    options: &ModelOptions,
    units: Units,
) -> Result<BlockSizes, ExportError> {
    let whole = ModelOptions { removed: Default::default(), ..options.clone() };
    let (rest, blocks) = match whole.of_format(checkpoint)? {
        Options::Hf(hf) => hf::block_sizes(&checkpoint.into(), &hf, options.format.is_none(), units)?,
        Options::Gguf(gguf) => gguf::block_sizes(&checkpoint.into(), &gguf, units).await?,
    };
    let format = options.format.map_or("folder".to_string(), |format| ModelFormat::to_string(&format));
    let dtype = options.dtype.map(|dtype| dtype.as_str().to_lowercase());
    let types = [dtype, options.quantize.map(|to| to.as_str().to_string())];
    let written_as: Vec<String> = [Some(format)].into_iter().chain(types).flatten().collect();
    Ok(BlockSizes::new(written_as.join(", "), rest, blocks))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::export::{FolderSink, GgufFormat, GgufQuantisation, HfFormat, SinkFuture, export_model};
    use crate::model::BlockSet;
    use crate::weights::FloatType;

    /// A folder that only counts the bytes of weight files.
    #[derive(Default)]
    struct Counted {
        is_weights: bool,
        bytes: u64,
    }

    impl FolderSink for Counted {
        fn begin_file<'a>(&'a mut self, name: &'a str) -> SinkFuture<'a> {
            self.is_weights = name.ends_with(".safetensors") || name.ends_with(".gguf");
            Box::pin(async { Ok(()) })
        }

        fn write<'a>(&'a mut self, bytes: &'a [u8]) -> SinkFuture<'a> {
            self.bytes += if self.is_weights { bytes.len() as u64 } else { 0 };
            Box::pin(async { Ok(()) })
        }

        fn end_file(&mut self) -> SinkFuture<'_> {
            Box::pin(async { Ok(()) })
        }
    }

    /// Whatever goes, the files take what the table says or less, and little less: stubs that a `deci` can do without.
    #[test]
    fn files_take_no_more_than_the_table_says() {
        let checkpoint = pollster::block_on(Checkpoint::open("builtin:tiny")).unwrap();
        let model = |format: ModelFormat| ModelOptions::new(BlockSet::new(), format);
        let hf = || model(HfFormat::Removed.into());
        let gguf = || model(GgufFormat::Auto.into());
        let all_mlp = (1..12).map(|layer| format!("mlp:{layer}")).collect::<Vec<_>>().join(",");
        let sets = [
            "",
            "mha:0",
            "mlp:0",
            "mha:3,mlp:3",
            "mlp:3,mha:4",
            "mha:0,mlp:0,mha:1",
            "mlp:11,mlp:10,mha:7",
            all_mlp.as_str(),
        ];
        for (options, slack) in [
            (ModelOptions::new(BlockSet::new(), None::<ModelFormat>), 2_000),
            (hf(), 2_000),
            (hf().dtype(FloatType::F32), 2_000),
            (model(HfFormat::Zeroed.into()), 2_000),
            (model(HfFormat::Deci.into()), 2_000),
            // A feed-forward block of zeros, three times 32 x 128, and an attention block, 128 x 128.
            (gguf(), 60_000),
            (gguf().quantize(GgufQuantisation::Q8_0), 30_000),
            (gguf().dtype(FloatType::F16), 60_000),
            (model(GgufFormat::Zeroed.into()), 5_000),
        ] {
            let table = pollster::block_on(block_sizes(&checkpoint, &options, Units::Blocks)).unwrap();
            for set in sets {
                let mut counted = Counted::default();
                let written = ModelOptions { removed: set.parse().unwrap(), ..options.clone() };
                pollster::block_on(export_model(&checkpoint, &written, &mut counted, &mut |_, _| {})).unwrap();
                let (told, found) = (table.without(&written.removed), counted.bytes);
                let how = format!("{}, without {set}: {found} bytes, {told} said", table.written_as());
                assert!(found <= told && told <= found + slack, "{how}");
            }
        }
    }
}
