//! How JavaScript has a model written: into a folder of its own, the other end of the library's export, and in which format.

use std::str::FromStr;

use blockpruner::export::{ExportError, FolderSink, GgufQuantisation, ModelFormat, ModelOptions, SinkFuture};
use blockpruner::model::BlockSet;
use blockpruner::weights::FloatType;
use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;

use crate::describe;
use crate::error::Error;

#[wasm_bindgen]
extern "C" {
    /// An object with the methods of `FolderSink` in `types.ts`.
    #[wasm_bindgen(typescript_type = "FolderSink")]
    pub type JsFolder;

    #[wasm_bindgen(method, catch, js_name = beginFile)]
    async fn begin_file(this: &JsFolder, name: &str) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch)]
    async fn write(this: &JsFolder, bytes: Uint8Array) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch, js_name = endFile)]
    async fn end_file(this: &JsFolder) -> Result<JsValue, JsValue>;
}

/// Hands files on to JavaScript.
pub struct Sink {
    folder: JsFolder,
    /// The file under way, for messages.
    file: String,
}

impl Sink {
    /// Files go into `folder`.
    pub fn new(folder: JsFolder) -> Self {
        Self { folder, file: String::new() }
    }

    fn checked(&self, result: Result<JsValue, JsValue>) -> Result<(), ExportError> {
        result.map(drop).map_err(|error| {
            let full = error.dyn_ref::<js_sys::Error>().is_some_and(|error| error.name() == "QuotaExceededError");
            ExportError::Write {
                path: self.file.clone(),
                reason: describe(&error),
                advice: if full { "free some space or choose another disk" } else { "choose another folder" },
            }
        })
    }
}

impl FolderSink for Sink {
    fn begin_file<'a>(&'a mut self, name: &'a str) -> SinkFuture<'a> {
        Box::pin(async move {
            self.file = name.to_string();
            let result = self.folder.begin_file(name).await;
            self.checked(result)
        })
    }

    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> SinkFuture<'a> {
        Box::pin(async move {
            // A copy, which JavaScript may keep: the memory behind `bytes` moves.
            let result = self.folder.write(Uint8Array::from(bytes)).await;
            self.checked(result)
        })
    }

    fn end_file(&mut self) -> SinkFuture<'_> {
        Box::pin(async move {
            let result = self.folder.end_file().await;
            self.checked(result)
        })
    }
}

/// How a model is written, by the names that options have.
pub fn model_options(
    without: BlockSet,
    format: Option<&str>,
    dtype: Option<&str>,
    quantize: Option<&str>,
) -> Result<ModelOptions, Error> {
    let format = format.map(ModelFormat::from_str).transpose().map_err(Error::Argument)?;
    let dtype = match dtype {
        None => None,
        Some("bf16") => Some(FloatType::BF16),
        Some("f16") => Some(FloatType::F16),
        Some("f32") => Some(FloatType::F32),
        Some(other) => return Err(Error::Argument(format!("dtype `{other}`: expected bf16, f16 or f32"))),
    };
    let quantize = match quantize {
        None => None,
        Some("q8_0") => Some(GgufQuantisation::Q8_0),
        Some("q4_0") => Some(GgufQuantisation::Q4_0),
        Some(other) => return Err(Error::Argument(format!("quantize `{other}`: expected q8_0 or q4_0"))),
    };
    Ok(ModelOptions::new(without, format).dtype(dtype).quantize(quantize))
}
