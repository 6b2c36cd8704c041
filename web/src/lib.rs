//! BlockPruner for JavaScript: the library behind classes that a page or a worker can use, with TypeScript types.
//!
//! Nothing is decided here: files, `Blob`s and URLs become the library's sources, its futures become promises, a search
//! becomes an async iterator, and errors become `Error`s with a `code`. The types of what is handed over are in
//! `types.ts`, which wasm-bindgen copies into the package's `.d.ts`.
#![cfg(target_arch = "wasm32")]

mod checkpoint;
mod device;
mod error;
mod export;
mod remote;
mod search;
mod source;
mod text;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::*;

use error::Error;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = include_str!("types.ts");

/// Runs once when the module is loaded.
#[wasm_bindgen(start)]
pub fn start() {
    // A panic is a bug and ends the module; at least the console says which.
    console_error_panic_hook::set_once();
}

/// A plain object for JavaScript. Numbers that are not finite stay as they are.
fn to_js(value: &impl Serialize) -> Result<JsValue, Error> {
    let serializer = serde_wasm_bindgen::Serializer::json_compatible();
    value.serialize(&serializer).map_err(|error| Error::Argument(error.to_string()))
}

/// Options from JavaScript; `undefined` and `null` are the defaults.
fn options<T: DeserializeOwned + Default>(value: JsValue) -> Result<T, Error> {
    if value.is_undefined() || value.is_null() {
        return Ok(T::default());
    }
    // As JSON, where a misspelt name is an error.
    let json =
        js_sys::JSON::stringify(&value).map_err(|error| Error::Argument(format!("options: {}", describe(&error))))?;
    serde_json::from_str(&String::from(json)).map_err(|error| Error::Argument(format!("options: {error}")))
}

/// The text of an exception.
fn describe(value: &JsValue) -> String {
    match value.dyn_ref::<js_sys::Error>() {
        Some(error) => format!("{}: {}", error.name(), error.message()),
        None => value.as_string().unwrap_or_else(|| format!("{value:?}")),
    }
}
