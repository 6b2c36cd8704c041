//! A model's settings, and whole models up to what is written of them.

use std::rc::Rc;

use arbitrary::{Result, Unstructured};
use blockpruner::export::{ExportError, FolderSink, HfFormat, HfOptions, SinkFuture, check_hf, export_hf};
use blockpruner::model::{BlockSet, Checkpoint, ModelSpec};
use blockpruner::weights::{ByteSource, FloatType};
use pollster::block_on;
use serde_json::Value;

use crate::bases;
use crate::containers::{safetensors_file, source};
use crate::edits;

/// Windows for which rotary frequencies are asked.
const WINDOWS: [usize; 6] = [0, 1, 16, 4097, 1 << 20, usize::MAX];

/// config.json, up to rotary frequencies.
pub fn config(bytes: &[u8]) {
    let bases = bases::configs();
    let document = edits::json(bytes, &bases.documents, &bases.words);
    let Ok(Value::Object(config)) = serde_json::from_slice(&document) else { return };
    if let Ok(spec) = ModelSpec::from_config(&config) {
        use_spec(&spec);
    }
}

fn use_spec(spec: &ModelSpec) {
    let blocks: BlockSet = spec.blocks().take(100).collect();
    let _ = spec.check_blocks(&blocks);
    let (all, left) = (spec.parameters(), spec.parameters_without(&blocks));
    // Blocks that share a norm have it each.
    let gone: u64 = blocks.iter().map(|block| spec.block_parameters(block)).sum();
    assert!(left <= all && all - left <= gone);
    for rope in &spec.ropes {
        WINDOWS.iter().for_each(|window| drop(rope.frequencies(*window)));
    }
}

/// A folder: config.json, model.safetensors, the tokenizer's files and generation_config.json; what all commands do with
/// it up to a device, and an export.
///
/// # Panics
/// If something is wrong.
pub fn folder(bytes: &[u8]) {
    let data = &mut Unstructured::new(bytes);
    let Ok(files) = changed_folder(data) else { return };
    if let Ok(checkpoint) = block_on(Checkpoint::from_files("model", files)) {
        use_checkpoint(data, &checkpoint);
    }
}

type Files = Vec<(String, Rc<dyn ByteSource>)>;

/// The files of a base folder, of which some are changed.
fn changed_folder(data: &mut Unstructured<'_>) -> Result<Files> {
    let base = data.choose(bases::folders())?;
    let mut files = Files::new();
    let mut add = |name: &str, bytes: Vec<u8>| files.push((name.to_string(), source(name, bytes)));
    let changes: u8 = data.arbitrary()?;
    let is_changed = |bit: u8| changes & 1 << bit != 0;
    let mut document = |changed: bool, base: &Value, words| match changed {
        true => edits::changed(data, base, words),
        false => base.to_string().into_bytes(),
    };
    add("config.json", document(is_changed(0), &base.config, &bases::configs().words));
    let header = document(is_changed(1), &base.header, bases::headers());
    let tokenizers = bases::tokenizers();
    let tokenizer = tokenizers.documents.get(usize::from(changes % 7)).unwrap_or(&Value::Null);
    add("tokenizer.json", document(is_changed(2), tokenizer, &tokenizers.words));
    let sides = bases::side_files();
    let names = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json"];
    for (bit, (name, base)) in (3..).zip(names.into_iter().zip(&sides.documents)) {
        if is_changed(bit) {
            add(name, document(true, base, &sides.words));
        }
    }
    let mut weights = base.data.clone();
    if is_changed(7) {
        change_weights(data, &mut weights)?;
    }
    add("model.safetensors", safetensors_file(data, &header, &weights));
    Ok(files)
}

/// Some elements take other bits: infinities, NaN, whatever.
fn change_weights(data: &mut Unstructured<'_>, weights: &mut Vec<u8>) -> Result<()> {
    for _ in 0..data.int_in_range(1..=4)? {
        let at = data.int_in_range(0..=weights.len())?;
        let new: [u8; 4] = if data.arbitrary()? { f32::INFINITY.to_le_bytes() } else { data.arbitrary()? };
        weights.iter_mut().skip(at).zip(new).for_each(|(byte, new)| *byte = new);
    }
    if data.ratio(1, 8)? {
        weights.truncate(data.int_in_range(0..=weights.len())?);
    }
    Ok(())
}

/// What the commands do with a model without a device: its figures, and one export.
pub(crate) fn use_checkpoint(data: &mut Unstructured<'_>, checkpoint: &Checkpoint) {
    use_spec(&checkpoint.spec);
    let _ = checkpoint.eos_token_ids();
    if let Ok(options) = options(data, checkpoint) {
        export(checkpoint, &options);
    }
}

fn options(data: &mut Unstructured<'_>, checkpoint: &Checkpoint) -> Result<HfOptions> {
    let format = if data.arbitrary()? { HfFormat::Zeroed } else { HfFormat::Removed };
    let removed: u16 = data.arbitrary()?;
    let is_removed = |at: usize| at < 16 && removed & 1 << at != 0;
    let removed = checkpoint.spec.blocks().enumerate().filter(|(at, _)| is_removed(*at)).map(|(_, block)| block);
    let mut options = HfOptions::new(removed.collect(), format);
    options.dtype = *data.choose(&[None, None, Some(FloatType::F32), Some(FloatType::F16), Some(FloatType::BF16)])?;
    options.shard_bytes = *data.choose(&[5_000_000_000, 20_000, 1])?;
    Ok(options)
}

/// A model that is written reads back as what was written.
fn export(checkpoint: &Checkpoint, options: &HfOptions) {
    let mut written = Written::default();
    if block_on(export_hf(checkpoint, options, &mut written, &mut |_, _| {})).is_err() {
        return;
    }
    let files = written.files.into_iter().map(|(name, bytes)| (name.clone(), source(&name, bytes))).collect();
    let again = block_on(Checkpoint::from_folder_files(&checkpoint.name, files));
    let again = again.unwrap_or_else(|error| panic!("an exported folder is refused: {error}"));
    let checked = block_on(check_hf(checkpoint, options, &again, &mut |_, _| {}));
    checked.unwrap_or_else(|error| panic!("an exported folder differs: {error}"));
}

/// A folder in memory.
#[derive(Debug, Default)]
struct Written {
    files: Vec<(String, Vec<u8>)>,
    is_open: bool,
}

impl FolderSink for Written {
    fn begin_file<'a>(&'a mut self, name: &'a str) -> SinkFuture<'a> {
        assert!(!self.is_open, "{name} is begun before the file before it ended");
        assert!(!name.contains(['/', '\\']), "{name} is no plain name");
        assert!(self.files.iter().all(|(other, _)| other != name), "{name} is written twice");
        self.files.push((name.to_string(), Vec::new()));
        self.is_open = true;
        Box::pin(async { Ok::<_, ExportError>(()) })
    }

    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> SinkFuture<'a> {
        assert!(self.is_open, "no file is open");
        self.files.iter_mut().last().into_iter().for_each(|(_, file)| file.extend(bytes));
        Box::pin(async { Ok(()) })
    }

    fn end_file(&mut self) -> SinkFuture<'_> {
        assert!(self.is_open, "no file is open");
        self.is_open = false;
        Box::pin(async { Ok(()) })
    }
}
