//! Calibration text and its windows.

use std::rc::Rc;

use blockpruner::session::WindowOptions;
use blockpruner::text::{CalibrationText, TextOptions, Windows as CoreWindows};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::{options, to_js};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct JsTextOptions {
    field: Option<String>,
    samples: Option<usize>,
    seed: Option<u32>,
}

/// A text that perplexity is measured on.
#[wasm_bindgen]
pub struct Text {
    text: CalibrationText,
}

#[wasm_bindgen]
impl Text {
    /// The sample text that comes with the library.
    pub fn sample() -> Text {
        Text { text: CalibrationText::builtin_sample() }
    }

    /// A text, JSON or JSON Lines file; what is in it says which.
    #[wasm_bindgen(js_name = fromBytes)]
    pub fn from_bytes(
        name: &str,
        bytes: &[u8],
        #[wasm_bindgen(unchecked_optional_param_type = "TextOptions")] options: JsValue,
    ) -> Result<Text, Error> {
        let JsTextOptions { field, samples, seed } = crate::options(options)?;
        let options = TextOptions { field, samples, seed: seed.map(u64::from) };
        Ok(Text { text: CalibrationText::from_bytes(name, bytes, &options)? })
    }
}

/// A text cut into windows of one model's tokens.
#[wasm_bindgen]
pub struct Windows {
    pub(crate) inner: Rc<CoreWindows>,
}

#[derive(Serialize)]
struct WindowsInfo<'a> {
    source: &'a str,
    rows: usize,
    tokens: usize,
    windows: usize,
    window: usize,
}

#[wasm_bindgen]
impl Windows {
    /// Tokenises a text and cuts it.
    pub fn cut(
        text: &Text,
        checkpoint: &Checkpoint,
        #[wasm_bindgen(unchecked_optional_param_type = "WindowOptions")] window_options: JsValue,
    ) -> Result<Windows, Error> {
        let windows = checkpoint.inner.windows(&text.text, options::<WindowOptions>(window_options)?)?;
        Ok(Windows { inner: Rc::new(windows) })
    }

    /// How much text that is.
    #[wasm_bindgen(unchecked_return_type = "WindowsInfo")]
    pub fn info(&self) -> Result<JsValue, Error> {
        let CoreWindows { source, rows, tokens, count, window, .. } = &*self.inner;
        to_js(&WindowsInfo { source, rows: *rows, tokens: *tokens, windows: *count, window: *window })
    }
}
