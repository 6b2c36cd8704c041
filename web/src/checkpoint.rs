//! Models as files: opened and exported, without a device.

use std::rc::Rc;
use std::str::FromStr;

use blockpruner::export::{GgufQuantisation, ModelFormat, ModelOptions, export_model};
use blockpruner::model::{BlockSet, Checkpoint as CoreCheckpoint, ModelSummary};
use blockpruner::session::WindowOptions;
use blockpruner::weights::{ByteSource, FloatType};
use js_sys::{Array, Object, Uint8Array};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;
use web_sys::Blob;

use crate::abort::abortable;
use crate::error::Error;
use crate::export::{JsFolder, Sink};
use crate::options::{Options, Stage, blocks};
use crate::source::BlobSource;
use crate::text::{CalibrationText, Windows};
use crate::{describe, remote, to_js};

/// An open model: its architecture, where its weights are, and its tokenizer.
#[wasm_bindgen]
pub struct Checkpoint {
    pub(crate) inner: Rc<CoreCheckpoint>,
}

#[derive(Serialize)]
struct ModelInfo<'a> {
    name: &'a str,
    bytes: u64,
    notes: &'a [String],
    #[serde(flatten)]
    summary: ModelSummary,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExportSettings {
    #[serde(deserialize_with = "blocks")]
    without: BlockSet,
    format: Option<String>,
    dtype: Option<String>,
    quantize: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct WindowSettings {
    window: Option<usize>,
    max_windows: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct UrlSettings {
    files: Option<Vec<String>>,
}

#[derive(Serialize)]
struct ExportSummary {
    files: Vec<String>,
    tensors: usize,
    bytes: u64,
}

#[wasm_bindgen]
impl Checkpoint {
    /// Opens a model from its files by name: one GGUF file, all parts of a split one, or those of a Hugging Face folder called
    /// `name`. Only what is needed is read, piece by piece.
    #[wasm_bindgen(js_name = fromFiles)]
    pub async fn from_files(
        name: String,
        #[wasm_bindgen(unchecked_param_type = "Record<string, Blob | Uint8Array>")] files: Object,
    ) -> Result<Checkpoint, Error> {
        let mut sources = Vec::new();
        for entry in Object::entries(&files).iter() {
            let entry = Array::from(&entry);
            let file = entry.get(0).as_string().unwrap_or_default();
            let source: Rc<dyn ByteSource> = Rc::new(BlobSource::new(file.clone(), as_blob(&file, entry.get(1))?));
            sources.push((file, source));
        }
        Self::open(&name, sources).await
    }

    /// Opens the model at a URL: a `.gguf` file, the first one of a split model, or a folder as Hugging Face lays it out. Reads by
    /// HTTP range requests and keeps what it has read; a server that knows no ranges sends each file whole, to where the browser
    /// keeps `Blob`s.
    #[wasm_bindgen(js_name = fromUrl)]
    pub async fn from_url(
        name: String,
        url: String,
        #[wasm_bindgen(unchecked_optional_param_type = "UrlOptions")] options: JsValue,
    ) -> Result<Checkpoint, Error> {
        let options = Options::new(options)?;
        let signal = options.signal()?;
        let UrlSettings { files } = options.settings()?;
        let opening = async { Self::open(&name, remote::open(&url, files).await?).await };
        abortable(signal.as_ref(), opening).await
    }

    async fn open(name: &str, files: Vec<(String, Rc<dyn ByteSource>)>) -> Result<Checkpoint, Error> {
        Ok(Checkpoint { inner: Rc::new(CoreCheckpoint::from_files(name, files).await?) })
    }

    /// What the model is.
    #[wasm_bindgen(unchecked_return_type = "ModelInfo")]
    pub fn info(&self) -> Result<JsValue, Error> {
        let Self { inner } = self;
        let bytes = inner.weights.iter().map(|tensor| tensor.bytes).sum();
        to_js(&ModelInfo { name: &inner.name, bytes, notes: &inner.notes, summary: inner.summary() })
    }

    /// Tokenises a text and cuts it into windows.
    pub fn windows(
        &self,
        text: &CalibrationText,
        #[wasm_bindgen(unchecked_optional_param_type = "WindowOptions")] options: JsValue,
    ) -> Result<Windows, Error> {
        let WindowSettings { window, max_windows } = Options::new(options)?.settings()?;
        let windows =
            self.inner.windows(&text.inner, WindowOptions::default().window(window).max_windows(max_windows))?;
        Ok(Windows { too_long: self.inner.too_long(&windows), inner: Rc::new(windows) })
    }

    /// Streams the model without some blocks into `folder`, as a Hugging Face folder or a GGUF file. After an error it is up to the
    /// caller that nothing half-written stays.
    #[wasm_bindgen(unchecked_return_type = "ExportSummary")]
    pub async fn export(
        &self,
        folder: JsFolder,
        #[wasm_bindgen(unchecked_optional_param_type = "ExportOptions")] options: JsValue,
    ) -> Result<JsValue, Error> {
        let options = Options::new(options)?;
        let (signal, progress) = (options.signal()?, options.progress()?);
        let ExportSettings { without, format, dtype, quantize } = options.settings()?;
        let format = format.map(|name| ModelFormat::from_str(&name)).transpose().map_err(Error::Argument)?;
        let quantize = match quantize.as_deref() {
            None => None,
            Some("q8_0") => Some(GgufQuantisation::Q8_0),
            Some("q4_0") => Some(GgufQuantisation::Q4_0),
            Some(other) => return Err(Error::Argument(format!("quantize `{other}`: expected q8_0 or q4_0"))),
        };
        let dtype = match dtype.as_deref() {
            None => None,
            Some("bf16") => Some(FloatType::BF16),
            Some("f16") => Some(FloatType::F16),
            Some("f32") => Some(FloatType::F32),
            Some(other) => return Err(Error::Argument(format!("dtype `{other}`: expected bf16, f16 or f32"))),
        };
        let options = ModelOptions::new(without, format).dtype(dtype).quantize(quantize);
        let mut tell = |done, total| progress.tell(Stage::Write { done, total });
        let mut sink = Sink::new(folder);
        let writing = async { Ok(export_model(&self.inner, &options, &mut sink, &mut tell).await?) };
        let summary = abortable(signal.as_ref(), writing).await?;
        to_js(&ExportSummary { files: summary.files, tensors: summary.tensors, bytes: summary.bytes })
    }
}

/// Bytes become a blob too, so that the library's memory never holds a whole file.
fn as_blob(name: &str, value: JsValue) -> Result<Blob, Error> {
    if let Some(bytes) = value.dyn_ref::<Uint8Array>() {
        return Blob::new_with_u8_array_sequence(&Array::of1(bytes))
            .map_err(|error| Error::Argument(format!("{name}: {}", describe(&error))));
    }
    value.dyn_into().map_err(|_| Error::Argument(format!("{name}: neither a Blob nor a Uint8Array")))
}
