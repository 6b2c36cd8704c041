//! Models as files: opened and exported, without a device.

use std::rc::Rc;

use blockpruner::export::{HfFormat, HfOptions, export_hf};
use blockpruner::model::{BlockSet, Checkpoint as CoreCheckpoint, ModelSummary};
use blockpruner::weights::{ByteSource, FloatType};
use js_sys::{Array, Object, Uint8Array};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;
use web_sys::Blob;

use crate::error::Error;
use crate::export::{JsFolder, Sink};
use crate::source::BlobSource;
use crate::{describe, options, remote, to_js};

/// An open model: its architecture, where its weights are, and its tokenizer.
#[wasm_bindgen]
pub struct Checkpoint {
    pub(crate) inner: Rc<CoreCheckpoint>,
}

#[derive(Serialize)]
struct ModelInfo<'a> {
    name: &'a str,
    #[serde(flatten)]
    summary: ModelSummary,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExportOptions {
    removed: BlockSet,
    format: Option<String>,
    dtype: Option<String>,
}

#[derive(Serialize)]
struct ExportSummary {
    files: Vec<String>,
    tensors: usize,
    bytes: u64,
}

#[wasm_bindgen]
impl Checkpoint {
    /// Opens a model from its files by name: one GGUF file, or those of a Hugging Face folder called `name`. Only what is
    /// needed is read, piece by piece.
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

    /// Opens the model at a URL: a `.gguf` file, or a folder as Hugging Face lays it out. Reads by HTTP range requests
    /// and keeps what it has read; a server that knows no ranges sends each file whole, to where the browser keeps `Blob`s.
    #[wasm_bindgen(js_name = fromUrl)]
    pub async fn from_url(name: String, url: String) -> Result<Checkpoint, Error> {
        Self::open(&name, remote::open(&url).await?).await
    }

    async fn open(name: &str, files: Vec<(String, Rc<dyn ByteSource>)>) -> Result<Checkpoint, Error> {
        Ok(Checkpoint { inner: Rc::new(CoreCheckpoint::from_files(name, files).await?) })
    }

    /// What the model is.
    #[wasm_bindgen(unchecked_return_type = "ModelInfo")]
    pub fn info(&self) -> Result<JsValue, Error> {
        to_js(&ModelInfo { name: &self.inner.name, summary: self.inner.summary() })
    }

    /// Streams the model without some blocks into `folder`, as a Hugging Face folder. After an error it is up to the
    /// caller that nothing half-written stays.
    #[wasm_bindgen(unchecked_return_type = "ExportSummary")]
    pub async fn export(
        &self,
        folder: JsFolder,
        #[wasm_bindgen(unchecked_param_type = "ExportOptions")] export_options: JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "Progress")] progress: Option<js_sys::Function>,
    ) -> Result<JsValue, Error> {
        let ExportOptions { removed, format, dtype } = options(export_options)?;
        let format = match format.as_deref() {
            None | Some("hf") => HfFormat::Removed,
            Some("hf-zeroed") => HfFormat::Zeroed,
            Some(other) => return Err(Error::Argument(format!("format `{other}`: expected hf or hf-zeroed"))),
        };
        let dtype = match dtype.as_deref() {
            None => None,
            Some("bf16") => Some(FloatType::BF16),
            Some("f16") => Some(FloatType::F16),
            Some("f32") => Some(FloatType::F32),
            Some(other) => return Err(Error::Argument(format!("dtype `{other}`: expected bf16, f16 or f32"))),
        };
        let options = HfOptions { dtype, ..HfOptions::new(removed, format) };
        let mut tell = |done, total| report(progress.as_ref(), done, total);
        let summary = export_hf(&*self.inner, &options, &mut Sink::new(folder), &mut tell).await?;
        to_js(&ExportSummary { files: summary.files, tensors: summary.tensors, bytes: summary.bytes })
    }
}

/// Tells a `Progress` function, if there is one. What it throws is its own affair.
pub(crate) fn report(progress: Option<&js_sys::Function>, done: u64, total: u64) {
    if let Some(progress) = progress {
        let _ = progress.call2(&JsValue::NULL, &(done as f64).into(), &(total as f64).into());
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
