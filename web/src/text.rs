//! Calibration text and its windows.

use std::rc::Rc;

use blockpruner::text::{CalibrationText as CoreText, TextOptions, Windows as CoreWindows};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use crate::error::Error;
use crate::options::Options;
use crate::to_js;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TextSettings {
    field: Option<String>,
    samples: Option<usize>,
    seed: Option<u32>,
}

/// A text that perplexity is measured on.
#[wasm_bindgen]
pub struct CalibrationText {
    pub(crate) inner: CoreText,
}

#[wasm_bindgen]
impl CalibrationText {
    /// The sample text that comes with the library.
    pub fn sample() -> CalibrationText {
        CalibrationText { inner: CoreText::builtin_sample() }
    }

    /// A text, JSON or JSON Lines file; what is in it says which.
    #[wasm_bindgen(js_name = fromBytes)]
    pub fn from_bytes(
        name: &str,
        bytes: &[u8],
        #[wasm_bindgen(unchecked_optional_param_type = "TextOptions")] options: JsValue,
    ) -> Result<CalibrationText, Error> {
        let TextSettings { field, samples, seed } = Options::new(options)?.settings()?;
        let options = TextOptions::default().field(field).samples(samples).seed(seed.map(u64::from));
        Ok(CalibrationText { inner: CoreText::from_bytes(name, bytes, &options)? })
    }

    /// The same of a string.
    #[wasm_bindgen(js_name = fromString)]
    pub fn from_string(
        name: &str,
        text: &str,
        #[wasm_bindgen(unchecked_optional_param_type = "TextOptions")] options: JsValue,
    ) -> Result<CalibrationText, Error> {
        Self::from_bytes(name, text.as_bytes(), options)
    }
}

/// A text cut into windows of one model's tokens; `Checkpoint.windows` cuts it.
#[wasm_bindgen]
pub struct Windows {
    pub(crate) inner: Rc<CoreWindows>,
    /// What to say of them to users of their model.
    pub(crate) too_long: Option<String>,
}

#[derive(Serialize)]
struct WindowsInfo<'a> {
    source: &'a str,
    rows: usize,
    tokens: usize,
    windows: usize,
    window: usize,
    predicted: usize,
    notes: Vec<String>,
}

#[wasm_bindgen]
impl Windows {
    /// How much text that is.
    #[wasm_bindgen(unchecked_return_type = "WindowsInfo")]
    pub fn info(&self) -> Result<JsValue, Error> {
        let CoreWindows { source, rows, tokens, count, window, .. } = &*self.inner;
        let notes = self.too_long.clone().into_iter().chain(self.inner.too_few()).collect();
        let (windows, predicted) = (*count, self.inner.predicted());
        to_js(&WindowsInfo { source, rows: *rows, tokens: *tokens, windows, window: *window, predicted, notes })
    }

    /// The windows from `start` on, without the first ones: a text that a search over these has not seen.
    pub fn after(&self, start: usize) -> Result<Windows, Error> {
        let all = &*self.inner;
        if start >= all.count {
            return Err(Error::Argument(format!("there are {} windows, none after the first {start}", all.count)));
        }
        let ids = all.ids[start * all.window..].to_vec();
        let inner = Rc::new(CoreWindows { ids, count: all.count - start, ..all.clone() });
        Ok(Windows { inner, too_long: self.too_long.clone() })
    }
}
