//! Writes a checkpoint without some of its blocks as a Hugging Face folder.
//!
//! [`HfFormat::Plain`] is an ordinary model of fewer layers; [`HfFormat::Removed`] leaves the blocks' tensors out and adds the Python module that loads such a folder;
//! [`HfFormat::Zeroed`] keeps every tensor and zeroes what the blocks write, so that any program loads it. [`HfFormat::Deci`] is in
//! `deci.rs`.
//! Tensors are streamed in pieces of bounded size; no tensor is ever whole in memory.

mod config;
mod deci;
mod shards;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use crate::json;
use crate::model::family::{TensorRef, stored};
use crate::model::{BlockId, BlockKind, BlockSet, CARD, Checkpoint, Family, KvCache, ModelSpec, Origin, block_configs};
use crate::search::Units;
use crate::weights::{DType, FloatType, Rows, Weights};
use serde_json::{Map, Value};

use super::card::Subject;
use super::sizes::Table;
use super::{ExportError, FolderSink, Provenance};
use shards::Shard;

/// How a removed block is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HfFormat {
    /// Its tensors are absent. Loads with `trust_remote_code=True` through the Python module written beside them.
    Removed,
    /// Its output projection is zero, so it adds nothing. Loads everywhere, saves no memory and no time.
    Zeroed,
    /// What is left is an ordinary model of fewer layers, which loads everywhere. Only where no block is left without the other
    /// half of a layer: [`ModelSpec::plain_layers`].
    Plain,
    /// A DeciLM (`nemotron-nas`), whose config.json says which blocks each layer has; their tensors are absent. MLX loads it as it
    /// stands, vLLM, SGLang and transformers with `trust_remote_code`. Only of models that compute what Llama does:
    /// [`HfSource::check_deci`].
    Deci,
}

impl HfFormat {
    /// `plain`, `hf`, `hf-zeroed` or `deci`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Removed => "hf",
            Self::Zeroed => "hf-zeroed",
            Self::Deci => "deci",
        }
    }

    /// The best that a model without some blocks can be written in: an ordinary model, one without their tensors, or else one
    /// in which they are zero.
    pub fn best<'a>(source: impl Into<HfSource<'a>>, removed: &BlockSet) -> Self {
        let source = source.into();
        match (source.plain(removed), source.check_removal()) {
            (Ok(_), _) => Self::Plain,
            (Err(_), Ok(())) => Self::Removed,
            (Err(_), Err(_)) => Self::Zeroed,
        }
    }
}

/// What an export is made from: the parts of an open checkpoint.
#[derive(Clone, Copy)]
pub struct HfSource<'a> {
    /// What the model is called.
    pub name: &'a str,
    /// Where it was published.
    pub origin: &'a Origin,
    /// The architecture, with the blocks that are absent already.
    pub spec: &'a ModelSpec,
    /// The tensors.
    pub weights: &'a Weights,
    /// config.json.
    pub config: &'a Map<String, Value>,
    /// Tokenizer and other files to carry over, by name.
    pub side_files: &'a [(String, Vec<u8>)],
    /// Whether config.json was rebuilt from GGUF metadata, which know no `torch_dtype`.
    pub from_gguf: bool,
    /// What the files call tensors, by the names that they have here, where these differ: [`Checkpoint::stored_names`].
    pub stored_names: &'a BTreeMap<String, String>,
}

impl<'a> From<&'a Rc<Checkpoint>> for HfSource<'a> {
    fn from(checkpoint: &'a Rc<Checkpoint>) -> Self {
        checkpoint.as_ref().into()
    }
}

impl<'a> From<&'a Checkpoint> for HfSource<'a> {
    fn from(checkpoint: &'a Checkpoint) -> Self {
        let Checkpoint { name, origin, spec, weights, config, side_files, from_gguf, stored_names, .. } = checkpoint;
        Self { name, origin, spec, weights, config, side_files, from_gguf: *from_gguf, stored_names }
    }
}

impl HfSource<'_> {
    /// Whether [`HfFormat::Removed`] can be written: whether there is a class for the module that loads it to rest on.
    ///
    /// # Errors
    /// A family that transformers does not have; a model of images and text.
    pub fn check_removal(&self) -> Result<(), ExportError> {
        let family = self.spec.family;
        match (family.in_transformers(), self.stored_names.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(ExportError::Composite),
            (false, _) => Err(ExportError::NoClass { family: family.name }),
        }
    }

    /// Whether [`HfFormat::Plain`] can be written without some blocks.
    ///
    /// # Errors
    /// Blocks that are no ordinary model, or one that a config.json of the family cannot describe; a model of images and text.
    pub fn check_plain(&self, removed: &BlockSet) -> Result<(), ExportError> {
        self.plain(removed).map(drop)
    }

    /// The ordinary model that is left without some blocks.
    ///
    /// # Errors
    /// Blocks that are no ordinary model, or one that a config.json of the family cannot describe; a model of images and text.
    fn plain(&self, removed: &BlockSet) -> Result<Plain, ExportError> {
        let spec = self.spec;
        let Some(layers) = spec.plain_layers(removed) else { return Err(not_plain(spec, removed)) };
        if !self.stored_names.is_empty() {
            return Err(ExportError::Composite);
        }
        let meant = spec.of_layers(&layers);
        let config = config::of_layers(self.config, spec, &layers);
        match ModelSpec::from_config(&config) {
            Ok(found) if found == meant => Ok(Plain { layers, spec: meant, config }),
            _ => Err(ExportError::PlainConfig { family: spec.family.name }),
        }
    }
}

/// An ordinary model made of some blocks of another one.
struct Plain {
    /// Layers that each layer's attention and feed-forward blocks come from.
    layers: Vec<(usize, usize)>,
    spec: ModelSpec,
    config: Map<String, Value>,
}

impl Plain {
    /// What the ordinary model calls a tensor; None if it does not have it.
    fn name(&self, family: &Family, name: &str) -> Option<String> {
        let Some((layer, kind)) = family.place(name) else { return Some(name.to_string()) };
        // What belongs to neither block goes with attention.
        let from = |(mha, mlp): &(usize, usize)| layer == if kind == Some(BlockKind::Mlp) { *mlp } else { *mha };
        family.in_layer(name, self.layers.iter().position(from)?)
    }
}

/// Names the first blocks that are left without the other half of a layer.
fn not_plain(spec: &ModelSpec, removed: &BlockSet) -> ExportError {
    let halves = spec.kept_layers(removed).into_iter().filter(|layer| layer.whole().is_none());
    let alone = halves.filter_map(|layer| layer.mha.map(BlockId::mha).or(layer.mlp.map(BlockId::mlp)));
    let alone = alone.map(|block| block.to_string()).collect::<Vec<_>>();
    const LISTED: usize = 4;
    let more = if alone.len() > LISTED { ", .." } else { "" };
    ExportError::NotPlain { alone: alone.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ") + more }
}

/// What to write.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HfOptions {
    /// Blocks to take out besides those that are absent from the checkpoint.
    pub removed: BlockSet,
    /// How to take them out.
    pub format: HfFormat,
    /// Convert all tensors to this type; without it they keep theirs, and quantised ones become bf16.
    pub dtype: Option<FloatType>,
    /// A weight file is closed before it grows beyond this, except for one tensor that alone is larger.
    pub shard_bytes: u64,
    /// How the blocks were found, for the model card.
    pub provenance: Provenance,
}

impl HfOptions {
    /// Tensors keep their type; weight files of at most 5 GB, as is usual.
    pub fn new(removed: BlockSet, format: HfFormat) -> Self {
        Self { removed, format, dtype: None, shard_bytes: 5_000_000_000, provenance: Provenance::default() }
    }

    /// All tensors are converted to this type; None: they keep theirs.
    pub fn dtype(mut self, dtype: impl Into<Option<FloatType>>) -> Self {
        self.dtype = dtype.into();
        self
    }

    /// The model card says how the blocks were found.
    pub fn provenance(mut self, provenance: Provenance) -> Self {
        self.provenance = provenance;
        self
    }

    /// Weight files of at most so many bytes.
    pub fn shard_bytes(mut self, bytes: u64) -> Self {
        self.shard_bytes = bytes;
        self
    }
}

/// What quantised tensors become where no type is asked for: half of what F32 takes, and quantising has cost them more
/// precision than this does.
pub const QUANTISED_AS: FloatType = FloatType::BF16;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HfSummary {
    /// File names in the order of writing.
    pub files: Vec<String>,
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Whether values were rounded to the type that they are written in; if not, the model computes what it did.
    pub rounded: bool,
    /// The KV cache of the written model: that of the whole one, where it holds all blocks.
    pub kv_cache: KvCache,
    /// Tensors of the input that the model does not need and whose type could not be read; they are not in the output.
    pub left_out: Vec<String>,
    /// What of the input's files named programs and is not in the output, as `KEY in FILE`.
    pub foreign_code: Vec<String>,
    /// JSON files of the input that could not be read, and so are not in the output: other programs might find programs named in them.
    pub unreadable: Vec<String>,
    /// What of the format costs more than it should, and programs that know it and yet do not run this model, and why.
    pub limits: Vec<String>,
}

/// A tensor of the output.
#[derive(Clone, Debug, PartialEq)]
struct OutputTensor {
    /// Its name in the input.
    source: String,
    /// Its name in the model that is written.
    name: String,
    /// Its name in the file.
    written: String,
    dtype: FloatType,
    shape: Vec<usize>,
    content: Content,
}

#[derive(Clone, Debug, PartialEq)]
enum Content {
    /// That of the input's tensor.
    Copied,
    /// Rows of the input's tensor, of so many elements, and zeros behind and below them where there is more room.
    Part { rows: Range<usize>, columns: usize },
    /// One value everywhere.
    Constant(f32),
}

impl OutputTensor {
    fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    fn columns(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Its rows in pieces of about `chunk_bytes`, counted as f32.
    fn pieces(&self, chunk_bytes: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        // Of rows without elements there may be any number.
        let rows = if self.columns() == 0 { 0 } else { self.rows() };
        let step = (chunk_bytes / self.columns().saturating_mul(4).max(1)).max(1);
        (0..rows).step_by(step).map(move |row| row..rows.min(row + step))
    }

    /// The bytes of some of its rows.
    async fn content(&self, weights: &Weights, rows: Range<usize>) -> Result<Vec<u8>, ExportError> {
        match &self.content {
            Content::Copied => convert(&self.source, weights.read_rows(&self.source, rows).await?, self.dtype),
            Content::Part { rows: from, columns } => {
                let there = from.start + rows.start..from.end.min(from.start + rows.end);
                let read = match there.is_empty() {
                    true => Vec::new(),
                    false => convert(&self.source, weights.read_rows(&self.source, there).await?, self.dtype)?,
                };
                // No bits set are zeros in every type.
                let (found, wanted) = (columns * self.dtype.bytes(), self.columns() * self.dtype.bytes());
                let mut bytes = Vec::with_capacity(rows.len() * wanted);
                for row in read.chunks(found.max(1)) {
                    bytes.extend_from_slice(row);
                    bytes.resize(bytes.len() + wanted - found, 0);
                }
                bytes.resize(rows.len() * wanted, 0);
                Ok(bytes)
            }
            Content::Constant(value) => Ok(encode(self.dtype, &vec![*value; rows.len() * self.columns()])),
        }
    }

    fn bytes(&self) -> u64 {
        self.rows() as u64 * self.columns() as u64 * self.dtype.bytes() as u64
    }
}

/// Most bytes of a tensor that are in memory at once, counted as f32.
const CHUNK_BYTES: usize = 32 << 20;

/// Writes the model without `options.removed` into `sink`. `progress` is told the tensor bytes written and their total.
///
/// # Errors
/// A block that the model does not have, a format in which nothing could load the model, a tensor that is missing, misshapen,
/// not finite or too large for `options.dtype`, and whatever the sink says. The sink must be dropped then.
pub async fn export_hf(
    source: impl Into<HfSource<'_>>,
    options: &HfOptions,
    sink: &mut dyn FolderSink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<HfSummary, ExportError> {
    export_in_chunks(source.into(), options, CHUNK_BYTES, sink, progress).await
}

/// Bytes of all tensors that [`export_hf`] would write.
///
/// # Errors
/// As [`export_hf`], as far as no value has to be read.
pub fn written_bytes<'a>(source: impl Into<HfSource<'a>>, options: &HfOptions) -> Result<u64, ExportError> {
    let source = source.into();
    source.spec.check_blocks(&options.removed)?;
    let gone = source.spec.absent.union(&options.removed);
    Ok(total_bytes(&select(&source, options, &gone)?))
}

/// What [`super::block_sizes`] says of a folder, in the format of `options` or (`best`) the best one.
pub(super) fn block_sizes(
    source: &HfSource<'_>,
    options: &HfOptions,
    best: bool,
    units: Units,
) -> Result<Table, ExportError> {
    let leaves_out = match options.format {
        // The best format of the whole model is plain, but what a search leaves may be no ordinary model.
        HfFormat::Plain if best => units != Units::Blocks || source.check_removal().is_ok(),
        HfFormat::Plain => true,
        HfFormat::Removed => source.check_removal().map(|()| true)?,
        HfFormat::Deci => true,
        HfFormat::Zeroed => false,
    };
    let format = match (options.format, leaves_out) {
        (HfFormat::Deci, _) => HfFormat::Deci,
        (_, true) => HfFormat::Removed,
        (_, false) => HfFormat::Zeroed,
    };
    let tensors = select(source, &HfOptions { format, ..options.clone() }, &source.spec.absent)?;
    let all = total_bytes(&tensors);
    let mut blocks = BTreeMap::<BlockId, u64>::new();
    let mut rest = 0;
    for tensor in &tensors {
        let bytes = tensor.bytes() + shards::row_bytes(tensor, all);
        match source.spec.family.place(&tensor.source) {
            Some((layer, Some(kind))) if leaves_out => *blocks.entry(BlockId { kind, layer }).or_default() += bytes,
            _ => rest += bytes,
        }
    }
    let files = shards::split(tensors, options.shard_bytes).len() as u64;
    // In another order of layers there may be one file more.
    rest += shards::FRAME_BYTES * (files + u64::from(files > 1));
    Ok((rest, blocks.into_iter().collect()))
}

fn total_bytes(tensors: &[OutputTensor]) -> u64 {
    tensors.iter().map(OutputTensor::bytes).sum()
}

/// Checks that `written`, the folder that [`export_hf`] wrote, reads back as the same architecture without the removed
/// blocks, and that every tensor holds the bits that belong there. `progress` as for [`export_hf`].
///
/// # Errors
/// [`ExportError::Differs`] names what is different; or `source` or `written` cannot be read.
pub async fn check_hf(
    source: impl Into<HfSource<'_>>,
    options: &HfOptions,
    written: impl Into<HfSource<'_>>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), ExportError> {
    let (source, written) = (source.into(), written.into());
    let gone = source.spec.absent.union(&options.removed);
    let tensors = select(&source, options, &gone)?;
    let expected = match options.format {
        HfFormat::Plain => source.plain(&gone)?.spec,
        HfFormat::Zeroed => ModelSpec { absent: BlockSet::new(), ..source.spec.clone() },
        HfFormat::Removed => ModelSpec { absent: gone, ..source.spec.clone() },
        HfFormat::Deci => source.deci(&gone)?,
    };
    let weights = written_order(&source, options);
    if *written.spec != expected {
        let what = format!("its config.json reads as {:?}, expected {expected:?}", written.spec);
        return Err(ExportError::Differs { what });
    }
    let (mut done, total) = (0, total_bytes(&tensors));
    for tensor in tensors {
        let differs = |what: String| ExportError::Differs { what: format!("tensor `{}` {what}", tensor.name) };
        let info = written.weights.require(&tensor.name, &tensor.shape)?;
        if info.dtype != tensor.dtype.into() {
            return Err(differs(format!("is {}, expected {}", info.dtype, tensor.dtype)));
        }
        for rows in tensor.pieces(CHUNK_BYTES) {
            let found = written.weights.read_rows(&tensor.name, rows.clone()).await?.bytes;
            if found != tensor.content(&weights, rows.clone()).await? {
                return Err(differs(format!("has other values in rows {} to {}", rows.start, rows.end - 1)));
            }
            done += found.len() as u64;
            progress(done, total);
        }
    }
    Ok(())
}

async fn export_in_chunks(
    source: HfSource<'_>,
    options: &HfOptions,
    chunk_bytes: usize,
    sink: &mut dyn FolderSink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<HfSummary, ExportError> {
    source.spec.check_blocks(&options.removed)?;
    let gone = source.spec.absent.union(&options.removed);
    let tensors = select(&source, options, &gone)?;
    let mut summary = HfSummary {
        files: Vec::new(),
        tensors: tensors.len(),
        bytes: total_bytes(&tensors),
        rounded: tensors.iter().any(|tensor| is_rounded(source.weights, tensor)),
        kv_cache: kv_cache(&source, options.format, &gone),
        left_out: source.weights.unsupported().map(|tensor| tensor.name.clone()).collect(),
        foreign_code: Vec::new(),
        unreadable: Vec::new(),
        limits: match options.format {
            HfFormat::Deci => block_configs::limits(source.spec, &source.deci(&gone)?, &gone),
            _ => Vec::new(),
        },
    };
    let weights = written_order(&source, options);
    for (name, bytes) in small_files(&source, options, &gone, &tensors, &mut summary)? {
        sink.write_file(&name, &bytes).await?;
        summary.files.push(name);
    }
    let shards = shards::split(tensors, options.shard_bytes);
    if let Some((name, bytes)) = shards::index(&shards, summary.bytes) {
        sink.write_file(name, &bytes).await?;
        summary.files.push(name.to_string());
    }
    let mut done = 0;
    for shard in shards {
        let mut written = |bytes: u64| {
            done += bytes;
            progress(done, summary.bytes);
        };
        write_shard(&weights, &shard, chunk_bytes, sink, &mut written).await?;
        summary.files.push(shard.file);
    }
    Ok(summary)
}

/// The input's tensors with their rows in the order in which they are written.
fn written_order(source: &HfSource<'_>, options: &HfOptions) -> Weights {
    match options.format {
        HfFormat::Deci => source.spec.in_order(source.weights),
        _ => source.weights.clone(),
    }
}

/// The tensors of the output, sorted by name.
fn select(source: &HfSource<'_>, options: &HfOptions, gone: &BlockSet) -> Result<Vec<OutputTensor>, ExportError> {
    let HfSource { spec, weights, stored_names, .. } = *source;
    if options.format == HfFormat::Deci {
        return deci::select(source, options, &source.deci(gone)?);
    }
    if options.format == HfFormat::Removed && !gone.is_empty() {
        source.check_removal()?;
    }
    spec.check(weights)?;
    let zeroed = options.format == HfFormat::Zeroed;
    let plain = (options.format == HfFormat::Plain).then(|| source.plain(gone)).transpose()?;
    let written = |name: &str| stored_names.get(name).map_or(name, String::as_str).to_string();
    let left = if zeroed { &spec.absent } else { gone };
    let silent = options.removed.iter().filter(|_| zeroed).flat_map(|block| spec.block_tensors(block));
    let outputs: BTreeSet<String> = silent.filter(|tensor| tensor.role.is_output()).map(|tensor| tensor.name).collect();
    let mut tensors = Vec::new();
    for info in weights.iter() {
        let name = info.name.as_str();
        if belongs_to(spec, name, left) || spec.is_unused_head(name) {
            continue;
        }
        let own = match &plain {
            None => name.to_string(),
            Some(plain) => match plain.name(spec.family, name) {
                Some(own) => own,
                None => continue,
            },
        };
        let silenced = outputs.contains(name);
        tensors.push(OutputTensor {
            source: name.to_string(),
            written: written(&own),
            name: own,
            dtype: options.dtype.unwrap_or(kept_type(info.dtype)),
            shape: info.shape.clone(),
            content: if silenced { Content::Constant(0.0) } else { Content::Copied },
        });
    }
    if zeroed {
        let embedding = weights.get(&spec.embedding_name()).map_or(FloatType::F32, |info| kept_type(info.dtype));
        let dtype = options.dtype.unwrap_or(embedding);
        let absent: Vec<TensorRef> = spec.absent.iter().flat_map(|block| spec.block_tensors(block)).collect();
        for (name, shape) in stored(&absent) {
            // A norm that a block which is there reads, too.
            if tensors.iter().any(|tensor| tensor.name == name) {
                continue;
            }
            // A norm of zeros would do too, but ones are what an untrained norm is.
            let norm =
                |tensor: &TensorRef| tensor.name == name && tensor.role.is_norm() && !tensor.bias && !tensor.plus_one;
            let value = if absent.iter().any(norm) { 1.0 } else { 0.0 };
            let written = written(&name);
            let source = name.clone();
            tensors.push(OutputTensor { source, name, written, dtype, shape, content: Content::Constant(value) });
        }
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

/// The type of a written tensor where none is asked for.
fn kept_type(stored: DType) -> FloatType {
    if stored.is_quantised() { QUANTISED_AS } else { stored.read_as() }
}

/// Whether the tensor's type cannot hold what the input's does.
fn is_rounded(weights: &Weights, tensor: &OutputTensor) -> bool {
    let stored = weights.get(&tensor.source).filter(|_| !matches!(tensor.content, Content::Constant(_)));
    stored.is_some_and(|stored| tensor.dtype != FloatType::F32 && tensor.dtype != stored.dtype.read_as())
}

/// Whether a tensor goes with one of `blocks`, or with a layer of which both blocks go.
fn belongs_to(spec: &ModelSpec, tensor: &str, blocks: &BlockSet) -> bool {
    match spec.family.place(tensor) {
        Some((layer, Some(kind))) => blocks.contains(BlockId { kind, layer }),
        Some((layer, None)) => blocks.contains(BlockId::mha(layer)) && blocks.contains(BlockId::mlp(layer)),
        None => false,
    }
}

/// Everything but the weights: config.json, the Python module where it is needed, the carried files.
fn small_files(
    source: &HfSource<'_>,
    options: &HfOptions,
    gone: &BlockSet,
    tensors: &[OutputTensor],
    summary: &mut HfSummary,
) -> Result<Vec<(String, Vec<u8>)>, ExportError> {
    let removed = options.format == HfFormat::Removed && !gone.is_empty();
    let mut dropped = |file: &str, json: &mut Map<String, Value>| {
        let keys = config::drop_foreign_code(json);
        summary.foreign_code.extend(keys.iter().map(|key| format!("{key} in {file}")));
        !keys.is_empty()
    };
    let mut remote_code = Vec::new();
    let mut config = match options.format {
        HfFormat::Plain => source.plain(gone)?.config,
        HfFormat::Deci => source.config.clone(),
        HfFormat::Removed | HfFormat::Zeroed => config::restored(source.config, source.spec),
    };
    dropped("config.json", &mut config);
    if removed {
        config::mark_removed(&mut config, source.spec.family, gone);
        remote_code.push((config::REMOTE_CODE.to_string(), config::remote_code(source.spec.family).into_bytes()));
    }
    let quantised = source.weights.iter().any(|tensor| tensor.dtype.is_quantised());
    let converted = options.dtype.or(quantised.then_some(QUANTISED_AS));
    if let Some(dtype) = config::dtype_to_state(converted, source.from_gguf, tensors) {
        config::set_dtype(&mut config, dtype);
    }
    if options.format == HfFormat::Deci {
        let target = source.deci(gone)?;
        let dtype = config::dtype_to_state(converted, true, tensors).unwrap_or(FloatType::F32);
        config = deci::config(&target, dtype);
        remote_code.extend(deci::remote_code(&target));
    }
    let mut files = vec![("config.json".to_string(), config::to_bytes(&config))];
    const OWN: [&str; 4] = ["config.json", shards::INDEX, config::REMOTE_CODE, deci::REMOTE_CODE];
    let mut unreadable = Vec::new();
    let own = |name: &str| OWN.contains(&name) || name.ends_with(".safetensors");
    for (name, bytes) in source.side_files.iter().filter(|(name, _)| !own(name)) {
        if !name.ends_with(".json") {
            files.push((name.clone(), bytes.clone()));
            continue;
        }
        let Some(mut json) = json::object(bytes).ok().or_else(|| json::object_with_halves(bytes)) else {
            unreadable.push(name.clone());
            continue;
        };
        let clean = dropped(name, &mut json).then(|| config::to_bytes(&json));
        files.push((name.clone(), clean.unwrap_or_else(|| bytes.clone())));
    }
    summary.unreadable = unreadable;
    files.extend(remote_code);
    let subject = Subject {
        name: source.name,
        spec: source.spec,
        origin: source.origin,
        gone,
        kv_cache: kv_cache(source, options.format, gone),
        provenance: &options.provenance,
        library: "transformers",
        loading: loading(source.spec.family, options.format, removed),
    };
    files.push((CARD.to_string(), subject.card().into_bytes()));
    Ok(files)
}

/// The KV cache of a model that is written so.
fn kv_cache(source: &HfSource<'_>, format: HfFormat, gone: &BlockSet) -> KvCache {
    match format {
        HfFormat::Zeroed => source.spec.whole().kv_cache(&BlockSet::new()),
        HfFormat::Removed | HfFormat::Plain | HfFormat::Deci => source.spec.kv_cache(gone),
    }
}

/// How the card says that a folder is loaded.
fn loading(family: &Family, format: HfFormat, removed: bool) -> &'static str {
    match (format, removed, family.in_transformers()) {
        (HfFormat::Plain, _, true) | (HfFormat::Removed, false, true) => {
            "It is an ordinary model: it loads wherever models of its family do, for example in transformers:\n\n```python\nfrom \
             transformers import AutoModelForCausalLM, AutoTokenizer\n\nmodel = AutoModelForCausalLM.from_pretrained(FOLDER)\ntokenizer = \
             AutoTokenizer.from_pretrained(FOLDER)\n```"
        }
        (HfFormat::Plain, ..) | (HfFormat::Removed, false, false) => {
            "It loads wherever the original model does, in transformers with the Python files that come with that."
        }
        (HfFormat::Removed, true, _) => {
            "The blocks' tensors are gone, so that transformers loads it by the module `modeling_blockpruner.py` in this folder, which \
             you may read first:\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\nmodel = \
             AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)\ntokenizer = \
             AutoTokenizer.from_pretrained(FOLDER)\n```\n\nBlockPruner on WebGPU loads it, too. Other programs do not: export it as `hf-zeroed` for \
             those."
        }
        (HfFormat::Deci, ..) => {
            "Its config.json says as that of a DeciLM (`nemotron-nas`) which blocks each layer has. MLX loads it as it stands \
             (`mlx_lm.generate --model FOLDER`); vLLM and SGLang know such models, too, and read the configuration by a Python file in \
             this folder (`--trust-remote-code`), as transformers does:\n\n```python\nfrom transformers import AutoModelForCausalLM, \
             AutoTokenizer\n\nmodel = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)\ntokenizer = \
             AutoTokenizer.from_pretrained(FOLDER)\n```"
        }
        (HfFormat::Zeroed, ..) => {
            "It loads wherever the original model does. What the removed blocks write is zero: they still take memory and time."
        }
    }
}

async fn write_shard(
    weights: &Weights,
    shard: &Shard,
    chunk_bytes: usize,
    sink: &mut dyn FolderSink,
    written: &mut dyn FnMut(u64),
) -> Result<(), ExportError> {
    sink.begin_file(&shard.file).await?;
    sink.write(&shards::header(&shard.tensors)).await?;
    for tensor in &shard.tensors {
        for rows in tensor.pieces(chunk_bytes) {
            let bytes = tensor.content(weights, rows).await?;
            sink.write(&bytes).await?;
            written(bytes.len() as u64);
        }
    }
    sink.end_file().await
}

/// Rows in another float type, rounded to nearest, ties to even. Values that would become infinite are an error.
pub(super) fn convert(tensor: &str, rows: Rows, to: FloatType) -> Result<Vec<u8>, ExportError> {
    if rows.dtype == to {
        return Ok(rows.bytes);
    }
    let values = rows.to_f32();
    let overflows = |value: &&f32| match to {
        FloatType::F32 => false,
        FloatType::F16 => half::f16::from_f32(**value).is_infinite(),
        FloatType::BF16 => half::bf16::from_f32(**value).is_infinite(),
    };
    match values.iter().find(overflows) {
        Some(&value) => Err(ExportError::Overflow { tensor: tensor.to_string(), value, dtype: to }),
        None => Ok(encode(to, &values)),
    }
}

/// Values as little-endian bytes of a float type.
fn encode(dtype: FloatType, values: &[f32]) -> Vec<u8> {
    match dtype {
        FloatType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        FloatType::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        FloatType::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
    }
}

#[cfg(test)]
mod tests;
