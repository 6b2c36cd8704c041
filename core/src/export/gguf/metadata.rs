//! The entries of a written file: those of the GGUF file that it is made from, or those of the architecture; and what they read
//! back as.

use std::future::ready;
use std::rc::Rc;

use crate::export::ExportError;
use crate::model::families::exaone4;
use crate::model::family::Biases;
use crate::model::gguf::STUBS;
use crate::model::spec::{Attention, AttentionBias, Layer, Positions};
use crate::model::{BlockId, BlockKind, KeptLayer, ModelError, ModelSpec};
use crate::text::gguf_entries;
use crate::weights::gguf::{self, ALIGNMENT, ALIGNMENT_KEY, GgufFile, StoredValue, header};
use crate::weights::{ByteSource, DType, ReadFuture};

use super::tensors::{Output, STUB_WIDTH};
use super::{Entry, GgufForm, GgufOptions, GgufSource, Stubs, rows};

const ARCHITECTURE: &str = "general.architecture";
const NAME: &str = "general.name";
const FILE_TYPE: &str = "general.file_type";
const QUANTISATION_VERSION: &str = "general.quantization_version";
const TOKENIZER: &str = "tokenizer.";
/// The settings that a `deci` lists for each layer.
const LISTED: [&str; 3] = ["attention.head_count", "attention.head_count_kv", "feed_forward_length"];
const PATTERN: &str = "attention.sliding_window_pattern";

/// The metadata of a file, in its order.
#[derive(Clone)]
pub(super) struct Entries(pub Vec<Entry>);

impl Entries {
    fn get(&self, key: &str) -> Option<&StoredValue> {
        self.0.iter().find(|(other, _)| other == key).map(|(_, value)| value)
    }

    /// Sets a value in the place of the one that is there, or at the end.
    fn set(&mut self, key: &str, value: StoredValue) {
        match self.0.iter_mut().find(|(other, _)| other == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.to_string(), value)),
        }
    }

    fn remove(&mut self, prefix: &str) {
        self.0.retain(|(key, _)| !key.starts_with(prefix));
    }

    /// `general.architecture`.
    pub fn architecture(&self) -> String {
        self.get(ARCHITECTURE).and_then(StoredValue::text).unwrap_or_default()
    }

    /// Says that all layers but every so manieth have a sliding window, as llama.cpp reads it: it does not read lists.
    pub fn set_period(&mut self, period: usize) {
        let key = format!("{}.{PATTERN}", self.architecture());
        self.set(&key, number(period));
    }

    /// Why a file with these entries and tensors would not read as `target`, if it would not.
    pub async fn judge(&self, target: &ModelSpec, tensors: &[Output]) -> Result<Option<String>, ExportError> {
        let entries: Vec<Entry> = self.0.iter().filter(|(key, value)| decides(key, value)).cloned().collect();
        let mut bytes = header(&entries, &rows(tensors), ALIGNMENT);
        // The numbers that reading asks for come first.
        for tensor in tensors {
            let Some(given) = tensor.given() else { break };
            bytes.extend(given);
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
        }
        let len = bytes.len() as u64 + tensors.iter().map(|tensor| tensor.bytes() + ALIGNMENT).sum::<u64>();
        let file = gguf::open(Rc::new(Beginning { bytes, len }), &[]).await?;
        match ModelSpec::from_gguf(&file) {
            Ok(read) => Ok(difference(&read, target)?),
            Err(error) => Ok(Some(error.to_string())),
        }
    }
}

/// Whether an entry says something of the architecture. Lists of layers that slide are left out: llama.cpp does not read them.
fn decides(key: &str, value: &StoredValue) -> bool {
    let list_of_windows = key.ends_with(PATTERN) && value.len().is_some();
    !key.starts_with(TOKENIZER) && key != ALIGNMENT_KEY && !list_of_windows
}

/// The beginning of a file that is not written yet.
struct Beginning {
    bytes: Vec<u8>,
    len: u64,
}

impl ByteSource for Beginning {
    fn name(&self) -> &str {
        "the file to be written"
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read<'a>(&'a self, offset: u64, len: usize) -> ReadFuture<'a> {
        let there = usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..)).unwrap_or(&[]);
        let mut bytes = there[..there.len().min(len)].to_vec();
        bytes.resize(len, 0);
        Box::pin(ready(Ok(bytes)))
    }
}

/// The entries of a file, but for those of a tokenizer that is no GGUF file's.
pub(super) async fn entries(
    source: &GgufSource<'_>,
    options: &GgufOptions,
    target: &ModelSpec,
    (form, layers, stubs): (GgufForm, &[KeptLayer], &Stubs),
    tensors: &[Output],
) -> Result<Entries, ExportError> {
    let mut entries = match source.gguf {
        Some(file) if is_same(source, form, layers) => carried(file).await?,
        Some(file) => {
            let mut entries = carried(file).await?;
            entries.adapt(file.metadata.architecture(), source.spec, target, layers)?;
            entries
        }
        None => {
            let mut entries = Entries(Vec::new());
            entries.set(ARCHITECTURE, StoredValue::String(architecture(target).to_string()));
            entries.set("general.type", StoredValue::String("model".to_string()));
            entries.set(NAME, StoredValue::String(source.name.to_string()));
            entries.0.extend(target.gguf_settings()?);
            entries
        }
    };
    if form == GgufForm::Deci {
        entries.list_blocks(target, stubs);
    }
    let pruned = !options.removed.is_empty() || !source.spec.absent.is_empty();
    if pruned && let Some(name) = entries.get(NAME).and_then(StoredValue::text) {
        entries.set(NAME, StoredValue::String(format!("{name} pruned")));
    }
    if source.gguf.is_none() || options.dtype.is_some() || options.quantize.is_some() {
        if let Some(file_type) = file_type(tensors) {
            entries.set(FILE_TYPE, StoredValue::U32(file_type));
        }
        if tensors.iter().any(|tensor| tensor.dtype.is_quantised()) {
            entries.set(QUANTISATION_VERSION, StoredValue::U32(2));
        }
    }
    Ok(entries)
}

/// Whether a file has the layers of the GGUF file that it is made from, in the same architecture.
pub(super) fn is_same(source: &GgufSource<'_>, form: GgufForm, layers: &[KeptLayer]) -> bool {
    let by_layer = source.spec.family.gguf.is_some_and(|gguf| gguf.by_layer);
    let whole = source.spec.absent.is_empty() && layers.len() == source.spec.layers.len();
    source.gguf.is_some() && form != GgufForm::Deci && whole && !by_layer
}

/// What a GGUF file says, but for its being a part of a model.
async fn carried(file: &GgufFile) -> Result<Entries, ExportError> {
    let mut entries = Entries(file.stored_entries().await?);
    entries.set(ARCHITECTURE, StoredValue::String(file.metadata.architecture().to_string()));
    entries.remove("split.");
    Ok(entries)
}

impl Entries {
    /// Makes the entries of the file of `spec` those of `target`, whose layers come from these.
    fn adapt(
        &mut self,
        old: &str,
        spec: &ModelSpec,
        target: &ModelSpec,
        layers: &[KeptLayer],
    ) -> Result<(), ExportError> {
        let new = architecture(target);
        let prefix = format!("{old}.");
        for (key, value) in &mut self.0 {
            let Some(rest) = key.strip_prefix(&prefix).map(str::to_string) else { continue };
            *key = format!("{new}.{rest}");
            // One number for each layer. Of turning there are lists for each section of a head.
            if value.len() == Some(spec.layers.len()) && !rest.starts_with("rope.") {
                let from = |kept: &KeptLayer| match rest.starts_with("feed_forward") {
                    true => kept.mlp.or(kept.mha),
                    false => kept.mha.or(kept.mlp),
                };
                let places: Vec<usize> = layers.iter().filter_map(from).collect();
                *value = value.picked(&places).unwrap_or_else(|| value.clone());
            }
        }
        self.set(ARCHITECTURE, StoredValue::String(new.to_string()));
        for (_, stubs) in STUBS {
            self.remove(stubs);
        }
        for (key, value) in target.gguf_settings()? {
            // What both architectures call so means the same; only what is said in another way changes.
            if old != new || key.ends_with(".block_count") {
                self.set(&key, value);
            }
        }
        Ok(())
    }

    /// Lists the blocks of each layer.
    fn list_blocks(&mut self, target: &ModelSpec, stubs: &Stubs) {
        let Some(Layer { attention, feed_forward: _, .. }) = target.layers.first() else { return };
        let Attention { heads, kv_heads, .. } = *attention;
        let inner = target.layers[0].dense().inner;
        let has = |kind, layer| target.has(BlockId { kind, layer });
        let list = |number: &dyn Fn(usize) -> usize| {
            StoredValue::I32s((0..target.layers.len()).map(|layer| i32_of(number(layer))).collect())
        };
        let lists = [
            list(&|layer| if has(BlockKind::Mha, layer) || stubs.attention.contains(&layer) { heads } else { 0 }),
            list(&|layer| if has(BlockKind::Mha, layer) { kv_heads } else { 0 }),
            list(&|layer| match has(BlockKind::Mlp, layer) {
                true => inner,
                false if stubs.feed_forward.contains(&layer) => STUB_WIDTH,
                false => 0,
            }),
        ];
        for (rest, list) in LISTED.iter().zip(lists) {
            self.set(&format!("{}.{rest}", architecture(target)), list);
        }
        for (kind, key) in STUBS {
            let layers = if kind == BlockKind::Mha { &stubs.attention } else { &stubs.feed_forward };
            if !layers.is_empty() {
                self.set(key, StoredValue::I32s(layers.iter().map(|layer| i32_of(*layer)).collect()));
            }
        }
    }
}

fn number(number: usize) -> StoredValue {
    StoredValue::U32(u32::try_from(number).unwrap_or(u32::MAX))
}

fn i32_of(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn architecture(target: &ModelSpec) -> &'static str {
    target.family.gguf_architecture().unwrap_or_default()
}

/// llama.cpp's number of the type that most matrices have, of those that are written.
fn file_type(tensors: &[Output]) -> Option<u32> {
    const NUMBERS: [(DType, u32); 5] =
        [(DType::F32, 0), (DType::F16, 1), (DType::Q4_0, 2), (DType::Q8_0, 7), (DType::BF16, 32)];
    let count = |dtype: DType| {
        let matrices = tensors.iter().filter(|tensor| tensor.shape.len() > 1 && tensor.dtype == dtype);
        matrices.map(Output::bytes).sum::<u64>()
    };
    NUMBERS.into_iter().max_by_key(|(dtype, _)| count(*dtype)).map(|(_, number)| number)
}

/// Adds the tokenizer that does not come from a GGUF file; what is to be said of it.
pub(super) fn add_tokenizer(source: &GgufSource<'_>, entries: &mut Entries) -> Result<Vec<String>, ExportError> {
    if source.gguf.is_some() {
        return Ok(Vec::new());
    }
    let find = |name: &str| {
        let file = source.side_files.iter().find(|(file, _)| file == name);
        file.map(|(_, bytes)| bytes.as_slice())
    };
    let (tokenizer, note) = gguf_entries(source.tokenizer, find, source.spec);
    entries.0.extend(tokenizer);
    Ok(note.into_iter().collect())
}

/// Why llama.cpp would not load a file of this model, if it would not.
pub(super) fn unloadable(target: &ModelSpec) -> Option<String> {
    let (gguf, layer) = (target.family.gguf?, target.layers.first()?);
    let (attention, mlp) = (&layer.attention, layer.dense().bias);
    let AttentionBias { qkv, out } = attention.bias;
    let (fits, expected) = match gguf.biases {
        Biases::None => (!qkv && !out && !mlp, "no biases"),
        Biases::Queries => (!out && !mlp, "no biases but those of Q, K and V"),
        Biases::Attention => (!mlp, "no biases of feed-forward projections"),
        Biases::Any => (true, ""),
        Biases::All => (qkv && out && mlp, "all biases"),
    };
    let architecture = gguf.architecture;
    if !fits {
        return Some(format!("the architecture {architecture} has {expected} in llama.cpp"));
    }
    let narrow = gguf.whole_width && attention.query_width() != target.hidden_size;
    narrow.then(|| {
        let (found, expected) = (attention.query_width(), target.hidden_size);
        format!(
            "llama.cpp wants the heads of the architecture {architecture} to be {expected} wide together, not {found}"
        )
    })
}

/// Families whose windows llama.cpp does not compute.
const WITHOUT_WINDOWS: [&str; 3] = ["mistral", "phi3", "starcoder2"];

/// What llama.cpp computes in another way than the metadata say.
pub(super) fn misread(target: &ModelSpec) -> Option<String> {
    let target = &target.clone().without_unfilled_windows();
    let window = target.layers.iter().find_map(|layer| layer.attention.sliding_window)?;
    if WITHOUT_WINDOWS.contains(&target.family.name) {
        return Some(format!(
            "llama.cpp computes no sliding windows in models of the family {}: of texts longer than {window} tokens it makes \
             something else",
            target.family
        ));
    }
    let (layers, wanted) = (target.layers.len(), exaone4::WINDOWED);
    (target.family.name == "exaone4" && layers != wanted).then(|| {
        format!("llama.cpp computes the windows of EXAONE 4 in models of {wanted} layers only, not of {layers}")
    })
}

/// In what two models differ that are to compute the same; None if in nothing. Which tokens begin and end a text does not
/// matter, nor how the frequencies of a rotary embedding are said, nor windows that no text of the model's own length fills.
pub(super) fn difference(read: &ModelSpec, target: &ModelSpec) -> Result<Option<String>, ModelError> {
    let [read, target] = &[read, target].map(|spec| spec.clone().without_unfilled_windows());
    let rest = |spec: &ModelSpec| ModelSpec {
        layers: Vec::new(),
        ropes: Vec::new(),
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        ..spec.clone()
    };
    if rest(read) != rest(target) {
        let what = format!("it would read as {:?} instead of {:?}", rest(read), rest(target));
        return Ok(Some(what));
    }
    if read.layers.len() != target.layers.len() {
        return Ok(Some(format!("it would have {} layers instead of {}", read.layers.len(), target.layers.len())));
    }
    let slides = read.layers.iter().any(|layer| layer.attention.sliding_window.is_some());
    for (layer, (read, target)) in read.layers.iter().zip(&target.layers).enumerate() {
        let (found, wanted) = (&read.attention, &target.attention);
        let biased = |positions| matches!(positions, Positions::Alibi(_));
        let what = if found.sliding_window.is_none() && wanted.sliding_window.is_some() && !slides {
            "llama.cpp computes no sliding windows in this family"
        } else if found.sliding_window != wanted.sliding_window {
            "which layers see a sliding window only follows from their number in llama.cpp"
        } else if biased(found.positions) != biased(wanted.positions) {
            "llama.cpp biases no scores by position in this family"
        } else if found.positions != wanted.positions {
            "which layers turn queries and keys follows from their number in llama.cpp"
        } else if found.scale != wanted.scale {
            "llama.cpp multiplies scores by another number, which follows from the sizes of the model"
        } else if read != target {
            "some settings have no place"
        } else {
            continue;
        };
        return Ok(Some(format!("{what} (layer {layer} would be another)")));
    }
    ropes_differ(read, target)
}

fn ropes_differ(read: &ModelSpec, target: &ModelSpec) -> Result<Option<String>, ModelError> {
    // Numbers of files are f32.
    const TOLERANCE: f64 = 2e-6;
    let near = |a: f32, b: f32| (f64::from(a) - f64::from(b)).abs() <= TOLERANCE * f64::from(b.abs());
    let mut same = read.ropes.len() == target.ropes.len();
    for (read, target) in read.ropes.iter().zip(&target.ropes) {
        for window in [1, target.max_positions.clamp(1, 1 << 24)] {
            let (found, wanted) = (read.frequencies(window)?, target.frequencies(window)?);
            same &= near(found.attention_scaling, wanted.attention_scaling);
            same &= found.inv_freq.len() == wanted.inv_freq.len();
            same &= found.inv_freq.iter().zip(&wanted.inv_freq).all(|(found, wanted)| near(*found, *wanted));
        }
    }
    Ok((!same).then(|| "it would turn queries and keys by other frequencies".to_string()))
}
