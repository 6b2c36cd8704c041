//! Writes a checkpoint without some of its blocks as one GGUF file, which llama.cpp loads.
//!
//! llama.cpp reads layers that all have both blocks, but for one architecture. So what a plan keeps is written in one of three
//! forms ([`GgufForm`]): an ordinary model of fewer layers, a `deci`, or the whole model with zeros where blocks were. What an
//! architecture can say is decided by reading: the header that would be written is read back, as llama.cpp means it, before
//! anything else is.
//!
//! Blocks of few bits of a GGUF file are copied as they are. Tensors are streamed in pieces of bounded size.
//! `metadata.rs` has the entries of the file, `tensors.rs` its tensors.

mod metadata;
mod tensors;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::model::family::Container;
use crate::model::{
    BlockId, BlockKind, BlockSet, Checkpoint, Family, KeptLayer, KvCache, ModelError, ModelSpec, families,
};
use crate::search::Units;
use crate::text::Tokenizer;
use crate::weights::gguf::{ALIGNMENT, ALIGNMENT_KEY, GgufFile, StoredValue, TensorRow, header};
use crate::weights::{DType, FloatType, Form, RowOrder, Weights};

use super::sizes::Table;
use super::{ExportError, FolderSink};
use metadata::Entries;
use tensors::{Input, Output, STUB_WIDTH, Selection};

/// Which form is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GgufFormat {
    /// The first of [`GgufForm::Plain`], [`GgufForm::Deci`] and [`GgufForm::Zeroed`] that can hold the model.
    #[default]
    Auto,
    /// An ordinary model, or an error.
    Plain,
    /// A `deci`, or an error.
    Deci,
    /// All blocks, the removed ones with zeros.
    Zeroed,
}

/// How a file holds the blocks that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GgufForm {
    /// In the model's own architecture, with fewer layers: the kept blocks are an ordinary model.
    Plain,
    /// As llama.cpp's `deci`, an architecture whose layers may lack a block. Where it cannot do without one, there is a small
    /// one of zeros.
    Deci,
    /// In the model's own architecture, with all its layers, and zeros for the output projections of the removed blocks. It
    /// saves no memory and no time.
    Zeroed,
}

/// Types of few bits that matrices can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GgufQuantisation {
    /// 8 bits, and a scale for each 32 weights.
    Q8_0,
    /// 4 bits, and a scale for each 32 weights; Q8_0 for the head, or the embedding that is the head.
    Q4_0,
}

impl GgufQuantisation {
    /// `q8_0` or `q4_0`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }
}

/// What to write.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GgufOptions {
    /// Blocks to take out besides those that are absent from the checkpoint.
    pub removed: BlockSet,
    /// In which form.
    pub format: GgufFormat,
    /// Convert matrices of floats to this type; without it they keep theirs. Vectors are F32, as llama.cpp wants them.
    pub dtype: Option<FloatType>,
    /// Convert matrices of floats to a type of few bits, where their rows are whole blocks of 32. Counts before `dtype`.
    pub quantize: Option<GgufQuantisation>,
}

impl GgufOptions {
    /// Tensors keep their types.
    pub fn new(removed: BlockSet, format: GgufFormat) -> Self {
        Self { removed, format, dtype: None, quantize: None }
    }

    /// Matrices of floats are converted to this type; None: they keep theirs.
    pub fn dtype(mut self, dtype: impl Into<Option<FloatType>>) -> Self {
        self.dtype = dtype.into();
        self
    }

    /// Matrices of floats are quantised; None: they stay floats.
    pub fn quantize(mut self, quantize: impl Into<Option<GgufQuantisation>>) -> Self {
        self.quantize = quantize.into();
        self
    }
}

/// What a file is made from: the parts of an open checkpoint.
#[derive(Clone, Copy)]
pub struct GgufSource<'a> {
    /// The model's name, for people.
    pub name: &'a str,
    /// The architecture, with the blocks that are absent already.
    pub spec: &'a ModelSpec,
    /// The tensors under their Hugging Face names.
    pub weights: &'a Weights,
    /// The tokenizer, if there is one.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Files that say more of the tokenizer, by name.
    pub side_files: &'a [(String, Vec<u8>)],
    /// Whether it is the text model of a model of images and text.
    pub text_only: bool,
    gguf: Option<&'a GgufFile>,
}

impl<'a> From<&'a Checkpoint> for GgufSource<'a> {
    fn from(checkpoint: &'a Checkpoint) -> Self {
        let Checkpoint { name, spec, weights, tokenizer, side_files, stored_names, gguf, .. } = checkpoint;
        let (tokenizer, gguf, text_only) = (tokenizer.as_ref(), gguf.as_ref(), !stored_names.is_empty());
        Self { name, spec, weights, tokenizer, side_files, text_only, gguf }
    }
}

impl<'a> From<&'a Rc<Checkpoint>> for GgufSource<'a> {
    fn from(checkpoint: &'a Rc<Checkpoint>) -> Self {
        checkpoint.as_ref().into()
    }
}

impl<'a> GgufSource<'a> {
    fn input(&self) -> Input<'a> {
        match self.gguf {
            Some(file) => Input { spec: self.spec, weights: &file.weights, container: Container::Gguf },
            None => Input { spec: self.spec, weights: self.weights, container: Container::HuggingFace },
        }
    }

    /// The name of the file that is written: the model's, and what became of it.
    fn file_name(&self, gone: &BlockSet) -> String {
        let safe = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let name: String = self.name.chars().map(safe).collect();
        let name = name.trim_start_matches('.');
        let name = if name.is_empty() { "model" } else { name };
        if gone.is_empty() { format!("{name}.gguf") } else { format!("{name}-pruned.gguf") }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GgufSummary {
    /// The file's name.
    pub file: String,
    /// How it holds the blocks that are kept.
    pub form: GgufForm,
    /// `general.architecture`.
    pub architecture: String,
    /// Layers that llama.cpp runs.
    pub layers: usize,
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Whether values were rounded to the type that they are written in; if not, the model computes what it did.
    pub rounded: bool,
    /// The KV cache of the written model: that of the whole one, where it holds all blocks.
    pub kv_cache: KvCache,
    /// Why it is in this form, and what it does not have; for people.
    pub notes: Vec<String>,
}

/// Writes the model without `options.removed` into `sink`, as one file. `progress` is told the tensor bytes written and their
/// total.
///
/// # Errors
/// A block that the model does not have; a model that no GGUF file holds as llama.cpp reads it, or not in the form that is asked
/// for; blocks of few bits that were to be converted; a tensor that is missing, not finite or too large for its new type; and
/// whatever the sink says. The sink must be dropped then.
pub async fn export_gguf(
    source: impl Into<GgufSource<'_>>,
    options: &GgufOptions,
    sink: &mut dyn FolderSink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<GgufSummary, ExportError> {
    let source = source.into();
    let input = source.input();
    let plan = Plan::new(&source, options).await?;
    let summary = plan.summary(&input);
    sink.begin_file(&plan.file).await?;
    sink.write(&plan.header()).await?;
    let mut done = 0;
    for tensor in &plan.tensors {
        for chunk in tensor.chunks() {
            let bytes = tensor.content(&input, &chunk).await?;
            sink.write(&bytes).await?;
            done += bytes.len() as u64;
            progress(done, summary.bytes);
        }
        let padding = tensor.bytes().next_multiple_of(plan.alignment) - tensor.bytes();
        sink.write(&vec![0; padding as usize]).await?;
    }
    sink.end_file().await?;
    Ok(summary)
}

/// Bytes of all tensors that [`export_gguf`] would write.
///
/// # Errors
/// As [`export_gguf`], as far as no value has to be read.
pub async fn written_gguf_bytes(source: impl Into<GgufSource<'_>>, options: &GgufOptions) -> Result<u64, ExportError> {
    Ok(Plan::new(&source.into(), options).await?.bytes())
}

/// What [`super::block_sizes`] says of a file.
pub(super) async fn block_sizes(
    source: &GgufSource<'_>,
    options: &GgufOptions,
    units: Units,
) -> Result<Table, ExportError> {
    // All blocks are in it, by the numbers that they have here.
    let whole = Plan::new(source, &GgufOptions { format: GgufFormat::Zeroed, ..options.clone() }).await?;
    let padded = |tensor: &Output| tensor.bytes().next_multiple_of(whole.alignment);
    let all = whole.header().len() as u64 + whole.tensors.iter().map(padded).sum::<u64>();
    let spec = source.spec;
    let as_deci = families::deci::of_spec(spec).is_some();
    let stays_plain = units != Units::Blocks && spec.plain_layers(&BlockSet::new()).is_some();
    let leaves_out = match options.format {
        GgufFormat::Auto => as_deci || stays_plain,
        GgufFormat::Plain | GgufFormat::Deci => true,
        GgufFormat::Zeroed => false,
    };
    if !leaves_out {
        return Ok((all, Vec::new()));
    }
    let names = |block| {
        let tensors = whole.target.block_tensors_in(Container::Gguf, block);
        tensors.into_iter().map(|tensor| tensor.name).collect::<BTreeSet<String>>()
    };
    let of_block = |block: BlockId| -> u64 {
        let (own, other) = (names(block), names(BlockId { kind: block.kind.other(), ..block }));
        let tensors = whole.tensors.iter().filter(|tensor| own.contains(&tensor.name) && !other.contains(&tensor.name));
        tensors.map(|tensor| padded(tensor) + tensor.row().header_bytes()).sum()
    };
    let layers = (0..spec.layers.len()).flat_map(|layer| [BlockId::mha(layer), BlockId::mlp(layer)]);
    let mut blocks: BTreeMap<BlockId, u64> = layers.map(|block| (block, of_block(block))).collect();
    let mut rest =
        all - blocks.values().sum::<u64>() + METADATA_BYTES + METADATA_BYTES_A_LAYER * spec.layers.len() as u64;
    blocks.retain(|block, _| spec.has(*block));
    if as_deci && !stays_plain {
        // A stub stands for every feed-forward block that goes at most, and one for the first block, if that is attention.
        let (attention, feed_forward) = stub_bytes(&whole.tensors, spec.hidden_size);
        for (_, bytes) in blocks.iter_mut().filter(|(block, _)| block.kind == BlockKind::Mlp) {
            *bytes = bytes.saturating_sub(feed_forward);
            rest += feed_forward;
        }
        rest += feed_forward * spec.absent.iter().filter(|block| block.kind == BlockKind::Mlp).count() as u64;
        if let Some(bytes) = spec.blocks().min_by_key(BlockId::by_layer).and_then(|first| blocks.get_mut(&first)) {
            *bytes = bytes.saturating_sub(attention);
        }
        rest += attention;
    }
    Ok((rest, blocks.into_iter().collect()))
}

/// What the metadata of a `deci` may have more than those of the whole model, beside what it says of layers.
const METADATA_BYTES: u64 = 4096;
/// Heads, key-value heads and width of a layer, and the number of a stub.
const METADATA_BYTES_A_LAYER: u64 = 16;

/// Bytes of the stubs of an attention and of a feed-forward block, at most.
fn stub_bytes(tensors: &[Output], hidden_size: usize) -> (u64, u64) {
    let matrices = || tensors.iter().filter(|tensor| tensor.shape.len() > 1).map(|tensor| tensor.dtype);
    let dtype = match matrices().any(DType::is_quantised) && hidden_size.is_multiple_of(DType::Q4_0.block_elements()) {
        true => DType::Q4_0,
        false => {
            matrices().filter(|dtype| !dtype.is_quantised()).max_by_key(|dtype| dtype.bytes_of(1)).unwrap_or(DType::F32)
        }
    };
    let bytes = |elements| dtype.bytes_of(elements).unwrap_or(4 * elements as u64);
    // The norms, and rows of the table of tensors.
    let beside = 4 * hidden_size as u64 + 1024;
    (bytes(hidden_size * hidden_size) + beside, bytes(3 * STUB_WIDTH * hidden_size) + beside)
}

/// Checks that `written`, the file that [`export_gguf`] wrote, reads back as the architecture that was meant, and that every
/// entry and every tensor holds the bits that belong there. `progress` as for [`export_gguf`].
///
/// # Errors
/// [`ExportError::Differs`] names what is different; or `source` or `written` cannot be read.
pub async fn check_gguf(
    source: impl Into<GgufSource<'_>>,
    options: &GgufOptions,
    written: &Checkpoint,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), ExportError> {
    let source = source.into();
    let input = source.input();
    let plan = Plan::new(&source, options).await?;
    let differs = |what: String| ExportError::Differs { what };
    let Some(file) = &written.gguf else { return Err(differs(format!("{} is no GGUF file", written.name))) };
    if let Some(difference) = metadata::difference(&written.spec, &plan.target)? {
        return Err(differs(format!("its metadata read as another model: {difference}")));
    }
    let entries = file.stored_entries().await?;
    if entries.len() != plan.entries.0.len() {
        return Err(differs(format!("it has {} entries, expected {}", entries.len(), plan.entries.0.len())));
    }
    for ((key, found), (wanted, value)) in entries.iter().zip(&plan.entries.0) {
        if key != wanted || found.bytes() != value.bytes() {
            return Err(differs(format!("its metadata key `{key}` has another value")));
        }
    }
    let (mut done, total) = (0, plan.bytes());
    for tensor in plan.tensors.iter().filter(|tensor| !is_factors(&tensor.name)) {
        let differs = |what: String| ExportError::Differs { what: format!("tensor `{}` {what}", tensor.name) };
        let info = file.weights.require(&tensor.name, &tensor.shape)?;
        if info.dtype != tensor.dtype {
            return Err(differs(format!("is {}, expected {}", info.dtype, tensor.dtype)));
        }
        let mut row = 0;
        let rows = tensor.shape.first().copied().unwrap_or(1) as u64;
        for chunk in tensor.chunks() {
            let expected = tensor.content(&input, &chunk).await?;
            let count = (expected.len() as u64 * rows / tensor.bytes().max(1)) as usize;
            let place = row..row + count;
            let found = file.weights.read_in_order(&tensor.name, RowOrder::Stored, place.clone(), Form::Stored).await?;
            if found != expected {
                return Err(differs(format!("has other values in rows {} to {}", place.start, place.end - 1)));
            }
            row += count;
            done += found.len() as u64;
            progress(done, total);
        }
    }
    Ok(())
}

/// Whether it is a tensor of rope factors, which is compared as a part of the architecture.
fn is_factors(name: &str) -> bool {
    use crate::weights::gguf::{ROPE_FREQS, ROPE_LONG, ROPE_SHORT};
    [ROPE_FREQS, ROPE_LONG, ROPE_SHORT].contains(&name)
}

/// A file before it is written.
struct Plan {
    file: String,
    form: GgufForm,
    /// Blocks that are gone, of the input.
    gone: BlockSet,
    /// What the file reads back as.
    target: ModelSpec,
    entries: Entries,
    /// In the order of their bytes; rope factors first.
    tensors: Vec<Output>,
    alignment: u64,
    notes: Vec<String>,
}

/// A form in which the model may be written.
struct Candidate {
    form: GgufForm,
    /// The model of the file, with the blocks that count as absent in it.
    target: ModelSpec,
    /// Where each layer's blocks come from.
    layers: Vec<KeptLayer>,
}

/// Families that are a Llama in a GGUF file: what is different in them does not come to a file, or they have no name there.
const AS_LLAMA: [&str; 3] = ["mistral", "ministral", "baichuan"];

impl Plan {
    async fn new(source: &GgufSource<'_>, options: &GgufOptions) -> Result<Self, ExportError> {
        let spec = source.spec;
        spec.check_blocks(&options.removed)?;
        let gone = spec.absent.union(&options.removed);
        let mut notes = Vec::new();
        if source.text_only {
            notes.push("only the text model is in the file".to_string());
        }
        let mut problem = None;
        for candidate in candidates(source, options.format, &gone, &mut notes)? {
            match Self::of(source, options, &gone, candidate).await? {
                Ok(mut plan) => {
                    plan.notes.splice(0..0, notes);
                    return Ok(plan);
                }
                Err((form, reason)) => {
                    let form = match form {
                        GgufForm::Plain => "an ordinary model",
                        GgufForm::Deci => "a deci",
                        GgufForm::Zeroed => "the whole model",
                    };
                    let note = format!("not written as {form}: {reason}");
                    if !notes.contains(&note) {
                        notes.push(note);
                    }
                    problem.get_or_insert(reason);
                }
            }
        }
        let what = problem.unwrap_or_else(|| {
            let form = if options.format == GgufFormat::Deci { "a deci" } else { "an ordinary model" };
            format!("without {gone} it is not {form}")
        });
        Err(ModelError::NotInGguf { what }.into())
    }

    /// A candidate's file; or why llama.cpp would not read it as what it is.
    async fn of(
        source: &GgufSource<'_>,
        options: &GgufOptions,
        gone: &BlockSet,
        candidate: Candidate,
    ) -> Result<Result<Self, (GgufForm, String)>, ExportError> {
        let Candidate { form, target, layers } = candidate;
        let same = metadata::is_same(source, form, &layers);
        let fewer = form == GgufForm::Plain && target.layers.len() < source.spec.layers.len();
        if !same && let Some(reason) = metadata::unloadable(&target) {
            return Ok(Err((form, reason)));
        }
        let misread = metadata::misread(&target).filter(|_| !same);
        let mut selection = Selection { input: source.input(), target: &target, options, outputs: Vec::new() };
        for (name, factors) in target.gguf_factors()? {
            selection.outputs.push(Output::of_values(name, factors));
        }
        selection.outer()?;
        for (layer, from) in layers.iter().enumerate() {
            match form {
                GgufForm::Zeroed => {
                    for block in [BlockId::mha(layer), BlockId::mlp(layer)] {
                        match source.spec.has(block) {
                            true => selection.block(block, block, gone.contains(block))?,
                            false => selection.constant(block)?,
                        }
                    }
                }
                GgufForm::Plain | GgufForm::Deci => selection.layer(layer, *from)?,
            }
        }
        let mut stubs = Stubs::default();
        if form == GgufForm::Deci {
            stubs = Stubs::of(&layers);
            for layer in &stubs.attention {
                selection.attention_stub(*layer)?;
            }
            for layer in &stubs.feed_forward {
                selection.feed_forward_stub(*layer)?;
            }
        }
        let tensors = selection.outputs;
        let parts = (form, layers.as_slice(), &stubs);
        let mut entries = metadata::entries(source, options, &target, parts, &tensors).await?;
        // With the same metadata in the same layers, whoever reads the one file reads the other.
        if !same && let Some(reason) = entries.fit(&target, &tensors).await? {
            return Ok(Err((form, reason)));
        }
        let mut notes = metadata::add_tokenizer(source, &mut entries)?;
        match misread {
            // With the number of layers that it had, it may have been right.
            Some(reason) if fewer && target.family.name == "exaone4" => return Ok(Err((form, reason))),
            misread => notes.extend(misread),
        }
        let alignment = match source.gguf {
            Some(file) => file.metadata.unsigned(ALIGNMENT_KEY)?.unwrap_or(ALIGNMENT),
            None => ALIGNMENT,
        };
        let file = source.file_name(gone);
        Ok(Ok(Self { file, form, gone: gone.clone(), target, entries, tensors, alignment, notes }))
    }

    fn bytes(&self) -> u64 {
        self.tensors.iter().map(Output::bytes).sum()
    }

    fn header(&self) -> Vec<u8> {
        header(&self.entries.0, &rows(&self.tensors), self.alignment)
    }

    fn summary(&self, input: &Input<'_>) -> GgufSummary {
        GgufSummary {
            file: self.file.clone(),
            form: self.form,
            architecture: self.entries.architecture(),
            layers: self.target.layers.len(),
            tensors: self.tensors.len(),
            bytes: self.bytes(),
            rounded: self.tensors.iter().any(|tensor| tensor.is_rounded(input)),
            kv_cache: match self.form {
                GgufForm::Zeroed => input.spec.whole().kv_cache(&BlockSet::new()),
                GgufForm::Plain | GgufForm::Deci => input.spec.kv_cache(&self.gone),
            },
            notes: self.notes.clone(),
        }
    }
}

fn rows(tensors: &[Output]) -> Vec<TensorRow<'_>> {
    tensors.iter().map(Output::row).collect()
}

/// Layers of a `deci` with blocks that add zeros, because llama.cpp cannot do without.
#[derive(Default)]
struct Stubs {
    attention: Vec<usize>,
    feed_forward: Vec<usize>,
}

impl Stubs {
    fn of(layers: &[KeptLayer]) -> Self {
        let at = |wanted: fn(&(usize, &KeptLayer)) -> bool| {
            layers.iter().enumerate().filter(wanted).map(|(layer, _)| layer).collect()
        };
        Self {
            // The first layer's heads say how wide all are.
            attention: at(|(layer, kept)| *layer == 0 && kept.mha.is_none()),
            // What attention adds is dropped where nothing follows it.
            feed_forward: at(|(_, kept)| kept.mlp.is_none()),
        }
    }
}

/// The forms in which the kept blocks may be written, the best first; `notes` is told why others are not among them.
fn candidates(
    source: &GgufSource<'_>,
    format: GgufFormat,
    gone: &BlockSet,
    notes: &mut Vec<String>,
) -> Result<Vec<Candidate>, ExportError> {
    let spec = source.spec;
    let (mut found, kept) = (Vec::new(), spec.kept_layers(gone));
    let wanted = |form| format == GgufFormat::Auto || format == form;
    let families = own_families(source);
    let as_deci = families::deci::of_spec(spec);
    if families.is_empty() && as_deci.is_none() {
        let what = format!("llama.cpp has no architecture for {} models", spec.family);
        return Err(ModelError::NotInGguf { what }.into());
    }
    if wanted(GgufFormat::Plain)
        && let Some(layers) = spec.plain_layers(gone).filter(|layers| !layers.is_empty())
    {
        for family in &families {
            let target = ModelSpec { family, ..spec.of_layers(&layers) };
            found.push(Candidate { form: GgufForm::Plain, target, layers: kept.clone() });
        }
    }
    let both = kept.iter().any(|kept| kept.mha.is_some()) && kept.iter().any(|kept| kept.mlp.is_some());
    if wanted(GgufFormat::Deci) {
        match as_deci {
            _ if !both => {
                notes.push("not written as a deci: blocks of one kind are all gone, and their sizes with them".to_string());
            }
            Some(deci) => {
                let target = deci_target(&deci, &kept);
                found.push(Candidate { form: GgufForm::Deci, target, layers: kept });
            }
            None if found.is_empty() => notes.push(format!(
                "not written as a deci, the architecture whose layers may lack blocks: it computes what Llama does, and {} more",
                spec.family
            )),
            None => {}
        }
    }
    // What is not pruned is written whole.
    if wanted(GgufFormat::Zeroed) {
        let layers: Vec<KeptLayer> =
            (0..spec.layers.len()).map(|layer| KeptLayer { mha: Some(layer), mlp: Some(layer) }).collect();
        for family in families {
            let target = ModelSpec { family, absent: BlockSet::new(), ..spec.clone() };
            found.push(Candidate { form: GgufForm::Zeroed, target, layers: layers.clone() });
        }
    }
    Ok(found)
}

/// The families as which an ordinary model may be written, the best first.
fn own_families(source: &GgufSource<'_>) -> Vec<&'static Family> {
    let spec = source.spec;
    // That of a `deci` has the tensors of such files.
    let by_layer = spec.family.gguf.is_some_and(|gguf| gguf.by_layer);
    let own = if by_layer { families::named(spec.family.name) } else { Some(spec.family) };
    let own = own.filter(|family| family.gguf.is_some());
    // A Llama in all but name is one where its own architecture has no place for its biases, too.
    let llama = families::named("llama").filter(|_| families::deci::of_spec(spec).is_some());
    let mut families: Vec<&Family> = own.into_iter().chain(llama).collect();
    families.dedup();
    // A file stays what it is, if it can.
    if source.gguf.is_none() && AS_LLAMA.contains(&spec.family.name) {
        families.reverse();
    }
    families
}

/// The model of a `deci` of these layers, as it reads back.
fn deci_target(deci: &ModelSpec, kept: &[KeptLayer]) -> ModelSpec {
    let without = |kind: BlockKind, block: fn(&KeptLayer) -> Option<usize>| {
        let layers = kept.iter().enumerate().filter(move |(_, kept)| block(kept).is_none());
        layers.map(move |(layer, _)| BlockId { kind, layer })
    };
    let absent = without(BlockKind::Mha, |kept| kept.mha).chain(without(BlockKind::Mlp, |kept| kept.mlp)).collect();
    // All layers of such a model are of one kind.
    let layers = deci.layers.iter().take(1).cycle().take(kept.len()).cloned().collect();
    ModelSpec { layers, absent, ..deci.clone() }
}

impl Entries {
    /// Takes what fits llama.cpp's reading: None if the file then reads as `target`, or else why not.
    async fn fit(&mut self, target: &ModelSpec, tensors: &[Output]) -> Result<Option<String>, ExportError> {
        let Some(reason) = self.judge(target, tensors).await? else { return Ok(None) };
        for period in 1..=target.layers.len() + 1 {
            let mut other = self.clone();
            other.set_period(period);
            if other.judge(target, tensors).await?.is_none() {
                *self = other;
                return Ok(None);
            }
        }
        Ok(Some(reason))
    }
}

/// A value of metadata.
type Entry = (String, StoredValue);
