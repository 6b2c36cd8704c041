//! What a call is given besides its subject: one object with settings, which JSON can hold, and with functions and a signal,
//! which it cannot.

use blockpruner::model::BlockSet;
use blockpruner::search::Unit;
use blockpruner::session::Preparation;
use js_sys::{Function, JSON, Object, Reflect};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::error::Error;
use crate::{describe, to_js};

/// The options of a call. What is taken out of them is what the call knows; anything left over is refused by name.
pub struct Options(Object);

impl Options {
    /// `undefined` and `null` are no options at all.
    pub fn new(value: JsValue) -> Result<Self, Error> {
        let own = Object::new();
        if value.is_undefined() || value.is_null() {
            return Ok(Self(own));
        }
        let given: &Object = value.dyn_ref().ok_or_else(|| wrong("expected an object".into()))?;
        Ok(Self(Object::assign(&own, given)))
    }

    /// Ends the call early.
    pub fn signal(&self) -> Result<Option<AbortSignal>, Error> {
        self.take("signal", "an AbortSignal")
    }

    /// Is told how far the call is.
    pub fn progress(&self) -> Result<Progress, Error> {
        self.function("onProgress").map(Progress)
    }

    /// A function to call.
    pub fn function(&self, name: &str) -> Result<Option<Function>, Error> {
        self.take(name, "a function")
    }

    fn take<T: JsCast>(&self, name: &str, kind: &str) -> Result<Option<T>, Error> {
        let key = JsValue::from(name);
        let value = Reflect::get(&self.0, &key).map_err(|error| wrong(describe(&error)))?;
        // Fails only for frozen objects, and this one is a copy.
        let _ = Reflect::delete_property(&self.0, &key);
        match value.is_undefined() || value.is_null() {
            true => Ok(None),
            false => value.dyn_into().map(Some).map_err(|_| wrong(format!("`{name}`: expected {kind}"))),
        }
    }

    /// All others, by their names.
    pub fn settings<T: DeserializeOwned>(self) -> Result<T, Error> {
        let functions = Object::keys(&self.0);
        let is_function = |key: &JsValue| Reflect::get(&self.0, key).is_ok_and(|value| value.is_function());
        // JSON would leave it out without a word.
        if let Some(key) = functions.iter().find(is_function) {
            return Err(wrong(format!("`{}` takes no function here", key.as_string().unwrap_or_default())));
        }
        let json = JSON::stringify(&self.0).map_err(|error| wrong(describe(&error)))?;
        serde_json::from_str(&String::from(json)).map_err(|error| wrong(error.to_string()))
    }
}

/// The blocks of a list of units, such as a search's order.
pub fn blocks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BlockSet, D::Error> {
    let units = Vec::<Unit>::deserialize(deserializer)?;
    Ok(units.into_iter().flat_map(Unit::blocks).collect())
}

fn wrong(problem: String) -> Error {
    Error::Argument(format!("options: {problem}"))
}

/// `Progress` in `types.ts`: what is being done before the work itself, or while a model is written.
#[derive(Clone, Copy, Serialize)]
#[serde(tag = "stage", rename_all = "camelCase")]
pub enum Stage {
    Open,
    Load { done: u64, total: u64 },
    Compile,
    Write { done: u64, total: u64 },
}

impl Stage {
    /// What JavaScript is told of a preparation, if anything.
    pub fn of(preparation: Preparation) -> Option<Self> {
        match preparation {
            Preparation::Load { done, total } => Some(Self::Load { done, total }),
            Preparation::Compile => Some(Self::Compile),
            _ => None,
        }
    }
}

/// The caller's `onProgress`, if there is one. What it throws is its own affair.
#[derive(Clone)]
pub struct Progress(Option<Function>);

impl Progress {
    pub fn tell(&self, stage: Stage) {
        if let (Some(function), Ok(stage)) = (&self.0, to_js(&stage)) {
            let _ = function.call1(&JsValue::NULL, &stage);
        }
    }

    pub fn prepare(&self, preparation: Preparation) {
        if let Some(stage) = Stage::of(preparation) {
            self.tell(stage);
        }
    }
}
