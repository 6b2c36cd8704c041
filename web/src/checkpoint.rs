//! Models as files: opened and exported, without a device.

use std::rc::Rc;

use blockpruner::export::{ModelSummary as WrittenModel, export_model};
use blockpruner::model::{BlockSet, Checkpoint as CoreCheckpoint, KvCache, ModelSummary};
use blockpruner::session::WindowOptions;
use blockpruner::weights::ByteSource;
use js_sys::{Array, Object, Uint8Array};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;
use web_sys::Blob;

use crate::abort::abortable;
use crate::error::Error;
use crate::export::{JsFolder, Sink, model_options};
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
    kv_cache: KvCache,
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
        let options = model_options(without, format.as_deref(), dtype.as_deref(), quantize.as_deref())?;
        let mut tell = |done, total| progress.tell(Stage::Write { done, total });
        let mut sink = Sink::new(folder);
        let writing = async { Ok(export_model(&self.inner, &options, &mut sink, &mut tell).await?) };
        let summary = abortable(signal.as_ref(), writing).await?;
        let WrittenModel { files, tensors, bytes, kv_cache, .. } = summary;
        to_js(&ExportSummary { files, tensors, bytes, kv_cache })
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
