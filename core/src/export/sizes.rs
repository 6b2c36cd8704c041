//! What a model takes as it will be written, block by block: before a search, which knows nothing of formats, and without
//! reading any values.

use super::model::Options;
use super::{ExportError, ModelFormat, ModelOptions, gguf, hf};
use crate::model::{BlockId, Checkpoint};
use crate::search::{BlockSizes, Units};

/// Bytes of what belongs to no block, headers included, and of every block.
pub(super) type Table = (u64, Vec<(BlockId, u64)>);

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
