//! BlockPruner for JavaScript: the library behind classes that a page or a worker can use, with TypeScript types.
//!
//! Nothing is decided here: files, `Blob`s and URLs become the library's sources, its futures become promises, a search
//! becomes an async iterator, and errors become `Error`s with a `code`. The types of what is handed over are in
//! `types.ts`, which wasm-bindgen copies into the package's `.d.ts`.
#![cfg(target_arch = "wasm32")]

mod abort;
mod checkpoint;
mod error;
mod event;
mod export;
mod options;
mod remote;
mod report;
mod search;
mod session;
mod source;
mod text;

use serde::Serialize;
use wasm_bindgen::prelude::*;

use error::Error;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = include_str!("types.ts");

/// Runs once when the module is loaded.
#[wasm_bindgen(start, private)]
pub fn start() {
    // A panic is a bug and ends the module; at least the console says which.
    console_error_panic_hook::set_once();
}

#[wasm_bindgen(inline_js = "
export function camelCase(value) {
  if (Array.isArray(value)) return value.map(camelCase);
  if (value === null || typeof value !== 'object') return value;
  const spelt = (key) => key.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [spelt(key), camelCase(inner)]));
}")]
extern "C" {
    #[wasm_bindgen(js_name = camelCase)]
    fn camel_case(value: JsValue) -> JsValue;
}

/// A plain object for JavaScript, with keys as JavaScript spells them: the library's own are those of its files. Numbers that
/// are not finite stay as they are.
fn to_js(value: &impl Serialize) -> Result<JsValue, Error> {
    let serializer = serde_wasm_bindgen::Serializer::json_compatible();
    value.serialize(&serializer).map(camel_case).map_err(|error| Error::Argument(error.to_string()))
}

/// The object that a file holds, its keys as the file spells them.
fn parsed(json: &str) -> Result<JsValue, Error> {
    js_sys::JSON::parse(json).map_err(|error| Error::Argument(describe(&error)))
}

/// The text of an exception.
fn describe(value: &JsValue) -> String {
    match value.dyn_ref::<js_sys::Error>() {
        Some(error) => format!("{}: {}", error.name(), error.message()),
        None => value.as_string().unwrap_or_else(|| format!("{value:?}")),
    }
}
