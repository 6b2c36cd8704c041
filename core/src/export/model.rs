//! The one door to every format: what the command line, the page and a finished search write a model by.

use std::fmt;
use std::str::FromStr;

use super::card::Subject;
use super::{
    ExportError, FolderSink, GgufForm, GgufFormat, GgufOptions, GgufQuantisation, GgufSummary, HfFormat, HfOptions,
    HfSource, HfSummary, Provenance, check_gguf, check_hf, export_gguf, export_hf, written_bytes, written_gguf_bytes,
};
use crate::model::{BlockSet, CARD, Checkpoint, KvCache};
use crate::weights::FloatType;

/// How a model is written. Prints and parses as `plain`, `hf`, `hf-zeroed`, `deci`, `gguf` and `gguf-zeroed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFormat {
    /// A Hugging Face folder.
    Folder(HfFormat),
    /// One GGUF file.
    Gguf(GgufFormat),
}

impl ModelFormat {
    /// Those that have names.
    pub const ALL: [Self; 6] = [
        Self::Folder(HfFormat::Plain),
        Self::Folder(HfFormat::Removed),
        Self::Folder(HfFormat::Zeroed),
        Self::Folder(HfFormat::Deci),
        Self::Gguf(GgufFormat::Auto),
        Self::Gguf(GgufFormat::Zeroed),
    ];
}

impl From<HfFormat> for ModelFormat {
    fn from(format: HfFormat) -> Self {
        Self::Folder(format)
    }
}

impl From<GgufFormat> for ModelFormat {
    fn from(format: GgufFormat) -> Self {
        Self::Gguf(format)
    }
}

impl fmt::Display for ModelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder(format) => format.as_str(),
            Self::Gguf(GgufFormat::Zeroed) => "gguf-zeroed",
            Self::Gguf(_) => "gguf",
        })
    }
}

impl FromStr for ModelFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.to_string() == text);
        found.ok_or_else(|| {
            format!("format `{text}`: expected {}", Self::ALL.map(|format| format.to_string()).join(", "))
        })
    }
}

/// What to write.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelOptions {
    /// Blocks to take out besides those that are absent from the checkpoint.
    pub removed: BlockSet,
    /// How; None: as the Hugging Face folder that is [`HfFormat::best`].
    pub format: Option<ModelFormat>,
    /// Convert the weights; without it they keep their types, but quantised ones become bf16 in a folder.
    pub dtype: Option<FloatType>,
    /// Quantise the weights, which only a GGUF file can hold.
    pub quantize: Option<GgufQuantisation>,
    /// How the blocks were found, for the model card.
    pub provenance: Provenance,
}

impl ModelOptions {
    /// Without these blocks, in this format or the best one.
    pub fn new(removed: BlockSet, format: impl Into<Option<ModelFormat>>) -> Self {
        Self { removed, format: format.into(), dtype: None, quantize: None, provenance: Provenance::default() }
    }

    /// All weights are converted to this type; None: they keep theirs.
    pub fn dtype(mut self, dtype: impl Into<Option<FloatType>>) -> Self {
        self.dtype = dtype.into();
        self
    }

    /// Matrices are quantised; None: they are not.
    pub fn quantize(mut self, quantize: impl Into<Option<GgufQuantisation>>) -> Self {
        self.quantize = quantize.into();
        self
    }

    /// The model card says how the blocks were found.
    pub fn provenance(mut self, provenance: Provenance) -> Self {
        self.provenance = provenance;
        self
    }

    /// The format, chosen.
    pub fn format_for(&self, checkpoint: &Checkpoint) -> ModelFormat {
        self.format.unwrap_or_else(|| HfFormat::best(checkpoint, &self.removed).into())
    }

    pub(super) fn of_format(&self, checkpoint: &Checkpoint) -> Result<Options, ExportError> {
        let removed = self.removed.clone();
        match self.format_for(checkpoint) {
            ModelFormat::Folder(_) if self.quantize.is_some() => Err(ExportError::QuantisedFolder),
            ModelFormat::Folder(format) => {
                let options = HfOptions::new(removed, format).dtype(self.dtype);
                Ok(Options::Hf(Box::new(options.provenance(self.provenance.clone()))))
            }
            ModelFormat::Gguf(format) => {
                Ok(Options::Gguf(GgufOptions::new(removed, format).dtype(self.dtype).quantize(self.quantize)))
            }
        }
    }
}

/// The options of the format that is asked for.
pub(super) enum Options {
    Hf(Box<HfOptions>),
    Gguf(GgufOptions),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelSummary {
    /// In which format.
    pub format: ModelFormat,
    /// File names in the order of writing; what opens the model is the folder, or the first one that ends in `.gguf`.
    pub files: Vec<String>,
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Whether values were rounded to the type that they are written in; if not, the model computes what it did.
    pub rounded: bool,
    /// The KV cache of the written model: that of the whole one, where it holds all blocks.
    pub kv_cache: KvCache,
    /// Why it is as it is, and what of the input is not in it; for people.
    pub notes: Vec<String>,
}

impl ModelSummary {
    /// The file that holds the model, if it is not the folder.
    pub fn gguf_file(&self) -> Option<&str> {
        self.files.iter().map(String::as_str).find(|file| file.ends_with(".gguf"))
    }

    fn of_folder(format: HfFormat, summary: HfSummary) -> Self {
        let HfSummary { files, tensors, bytes, rounded, kv_cache, left_out, foreign_code, unreadable, limits } =
            summary;
        let left_out =
            left_out.iter().map(|tensor| format!("{tensor} is not part of the architecture and was left out"));
        let code =
            foreign_code.iter().map(|key| format!("{key} names a program that comes with the input, and was left out"));
        let unreadable =
            unreadable.iter().map(|file| format!("{file} is no JSON object that can be read, and was left out"));
        let notes = left_out.chain(code).chain(unreadable).chain(limits).collect();
        Self { format: format.into(), files, tensors, bytes, rounded, kv_cache, notes }
    }
}

/// Writes the model without `options.removed` into `sink`, with a model card. `progress` is told the tensor bytes written and
/// their total.
///
/// # Errors
/// Those of [`export_hf`] and [`export_gguf`]; quantised weights in a folder.
pub async fn export_model(
    checkpoint: &Checkpoint,
    options: &ModelOptions,
    sink: &mut dyn FolderSink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ModelSummary, ExportError> {
    match options.of_format(checkpoint)? {
        Options::Hf(hf) => Ok(ModelSummary::of_folder(hf.format, export_hf(checkpoint, &hf, sink, progress).await?)),
        Options::Gguf(gguf) => {
            let summary = export_gguf(checkpoint, &gguf, sink, progress).await?;
            let card = gguf_card(checkpoint, options, &summary);
            sink.write_file(CARD, card.as_bytes()).await?;
            let GgufSummary { file, tensors, bytes, rounded, kv_cache, notes, .. } = summary;
            let files = vec![file, CARD.to_string()];
            Ok(ModelSummary { format: gguf.format.into(), files, tensors, bytes, rounded, kv_cache, notes })
        }
    }
}

/// Bytes of all tensors that [`export_model`] would write.
///
/// # Errors
/// As [`export_model`], as far as no value has to be read.
pub async fn model_bytes(checkpoint: &Checkpoint, options: &ModelOptions) -> Result<u64, ExportError> {
    match options.of_format(checkpoint)? {
        Options::Hf(hf) => written_bytes(checkpoint, &hf),
        Options::Gguf(gguf) => written_gguf_bytes(checkpoint, &gguf).await,
    }
}

/// Checks that `written`, opened from what [`export_model`] wrote, is what it should be, bit by bit.
///
/// # Errors
/// Those of [`check_hf`] and [`check_gguf`].
pub async fn check_model(
    checkpoint: &Checkpoint,
    options: &ModelOptions,
    written: &Checkpoint,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), ExportError> {
    match options.of_format(checkpoint)? {
        Options::Hf(hf) => check_hf(checkpoint, &hf, written, progress).await,
        Options::Gguf(gguf) => check_gguf(checkpoint, &gguf, written, progress).await,
    }
}

/// Whether [`HfFormat::Removed`] can hold a model, or else zeros have to.
pub fn folder_format(checkpoint: &Checkpoint) -> HfFormat {
    if HfSource::from(checkpoint).check_removal().is_ok() { HfFormat::Removed } else { HfFormat::Zeroed }
}

fn gguf_card(checkpoint: &Checkpoint, options: &ModelOptions, summary: &GgufSummary) -> String {
    let GgufSummary { file, form, architecture, layers, .. } = summary;
    let as_what = match form {
        GgufForm::Plain => format!("an ordinary model of {layers} layers, of the architecture `{architecture}`"),
        GgufForm::Deci => format!(
            "a model of {layers} layers of the architecture `{architecture}`, in which a layer may lack its attention or its \
             feed-forward block"
        ),
        GgufForm::Zeroed => format!(
            "the whole model of {layers} layers, of the architecture `{architecture}`; what the removed blocks write is zero, so that they \
             still take memory and time"
        ),
    };
    let loading = format!(
        "In llama.cpp, and in what is built on it, it is {as_what}:\n\n```\nllama-cli -m {file} -p \"Once upon a time\"\n```"
    );
    let subject = Subject {
        name: &checkpoint.name,
        spec: &checkpoint.spec,
        origin: &checkpoint.origin,
        gone: &checkpoint.spec.absent.union(&options.removed),
        kv_cache: summary.kv_cache,
        provenance: &options.provenance,
        library: "gguf",
        loading: &loading,
    };
    subject.card()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_print_and_parse() {
        for format in ModelFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "onnx".parse::<ModelFormat>();
        assert_eq!(error, Err("format `onnx`: expected plain, hf, hf-zeroed, deci, gguf, gguf-zeroed".to_string()));
    }
}
