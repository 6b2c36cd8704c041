//! Sessions: a model on a device.

use std::rc::Rc;

use blockpruner::generate::{GenerateOptions, prompt_ids};
use blockpruner::gpu::{DeviceInfo, GpuOptions};
use blockpruner::model::BlockSet;
use blockpruner::session::{Preparation, Session as CoreSession};
use blockpruner::text::DecodeStream;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use crate::abort::abortable;
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::options::{Options, Stage, blocks};
use crate::search;
use crate::text::Windows;
use crate::to_js;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct DeviceOptions {
    tier: Option<String>,
    kernel: Option<String>,
    max_binding_bytes: Option<u64>,
    name: Option<String>,
}

impl DeviceOptions {
    fn wishes(self) -> Result<GpuOptions, Error> {
        Ok(GpuOptions::default()
            .tier(self.tier.map(|tier| tier.parse()).transpose().map_err(Error::Argument)?)
            .kernel(self.kernel.map(|kernel| kernel.parse()).transpose().map_err(Error::Argument)?)
            .max_binding_bytes(self.max_binding_bytes)
            .unnamed(self.name))
    }
}

#[derive(Serialize)]
struct SessionDevice {
    #[serde(flatten)]
    info: DeviceInfo,
    max_binding_bytes: u64,
}

#[derive(Serialize)]
struct Score {
    perplexity: f64,
    mean_nll: f64,
    windows: Vec<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ScoreSettings {
    #[serde(deserialize_with = "blocks")]
    without: BlockSet,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct GenerateSettings {
    max_tokens: Option<usize>,
    #[serde(deserialize_with = "blocks")]
    without: BlockSet,
}

#[derive(Serialize)]
struct Continuation {
    text: String,
    tokens: Vec<u32>,
    finish_reason: &'static str,
}

/// The devices that the browser offers, without opening one. None where there is no WebGPU.
#[wasm_bindgen(unchecked_return_type = "AdapterInfo[]")]
pub async fn adapters() -> Result<JsValue, Error> {
    to_js(&blockpruner::gpu::adapters(&GpuOptions::default()).await)
}

/// A model on a device.
#[wasm_bindgen]
pub struct Session {
    inner: Rc<CoreSession>,
}

#[wasm_bindgen]
impl Session {
    /// Opens the device that the browser offers, and tests on it what the model needs. Weights come to it when they are
    /// needed first, or by `preload`.
    pub async fn open(
        checkpoint: &Checkpoint,
        #[wasm_bindgen(unchecked_optional_param_type = "SessionOptions")] options: JsValue,
    ) -> Result<Session, Error> {
        let options = Options::new(options)?;
        let (signal, progress) = (options.signal()?, options.progress()?);
        let wishes = options.settings::<DeviceOptions>()?.wishes()?;
        progress.tell(Stage::Open);
        let opening = CoreSession::builder(checkpoint.inner.clone()).gpu_options(wishes).open();
        let inner = abortable(signal.as_ref(), async { Ok(opening.await?) }).await?;
        Ok(Session { inner: Rc::new(inner) })
    }

    /// Which device that is and how it is used.
    #[wasm_bindgen(unchecked_return_type = "DeviceInfo")]
    pub fn device(&self) -> Result<JsValue, Error> {
        let gpu = self.inner.gpu();
        to_js(&SessionDevice { info: gpu.info(), max_binding_bytes: gpu.max_binding() })
    }

    /// Brings the weights to the device, one tensor at a time, and compiles what the model needs.
    pub async fn preload(
        &self,
        #[wasm_bindgen(unchecked_optional_param_type = "CallOptions")] options: JsValue,
    ) -> Result<(), Error> {
        let options = Options::new(options)?;
        let (signal, progress) = (options.signal()?, options.progress()?);
        options.settings::<NoSettings>()?;
        let mut tell = |preparation| progress.prepare(preparation);
        abortable(signal.as_ref(), async { Ok(self.inner.preload(&mut tell).await?) }).await
    }

    /// Perplexity of a text, without some blocks if given.
    #[wasm_bindgen(unchecked_return_type = "Score")]
    pub async fn perplexity(
        &self,
        windows: &Windows,
        #[wasm_bindgen(unchecked_optional_param_type = "ScoreOptions")] options: JsValue,
    ) -> Result<JsValue, Error> {
        let options = Options::new(options)?;
        let (signal, progress) = (options.signal()?, options.progress()?);
        let ScoreSettings { without } = options.settings()?;
        let mut tell = |preparation| progress.prepare(preparation);
        let scoring = async { Ok(self.inner.perplexity(&windows.inner, &without, &mut tell).await?) };
        let score = abortable(signal.as_ref(), scoring).await?;
        to_js(&Score { perplexity: score.perplexity, mean_nll: score.mean_nll, windows: score.windows })
    }

    /// Continues a prompt greedily.
    #[wasm_bindgen(unchecked_return_type = "Continuation")]
    pub async fn generate(
        &self,
        prompt: String,
        #[wasm_bindgen(unchecked_optional_param_type = "GenerateOptions")] options: JsValue,
    ) -> Result<JsValue, Error> {
        let options = Options::new(options)?;
        let (signal, progress, on_text) = (options.signal()?, options.progress()?, options.function("onText")?);
        let settings = options.settings()?;
        let mut prepare = |preparation| progress.prepare(preparation);
        let mut on_text = |part: &str| {
            if let Some(on_text) = &on_text {
                // What it throws is its own affair.
                let _ = on_text.call1(&JsValue::NULL, &part.into());
            }
        };
        let continuing = continued(&self.inner, &prompt, settings, &mut prepare, &mut on_text);
        to_js(&abortable(signal.as_ref(), continuing).await?)
    }

    /// Prepares the greedy search, or one that goes on from a saved one (the string that `Search.save()` gave).
    #[wasm_bindgen(unchecked_return_type = "Search")]
    pub async fn search(
        &self,
        windows: &Windows,
        #[wasm_bindgen(unchecked_param_type = "SearchOptions")] options: JsValue,
        saved: Option<String>,
    ) -> Result<JsValue, Error> {
        search::start(self.inner.clone(), windows.inner.clone(), Options::new(options)?, saved).await
    }

    /// What a search would take, foreseen.
    #[wasm_bindgen(unchecked_return_type = "Cost")]
    pub async fn cost(
        &self,
        windows: &Windows,
        #[wasm_bindgen(unchecked_param_type = "SearchOptions")] options: JsValue,
    ) -> Result<JsValue, Error> {
        search::cost(&self.inner, &windows.inner, Options::new(options)?).await
    }

    /// Gives the device and all memory on it back at once. Everything that uses it ends with `device-lost`.
    pub fn destroy(&self) {
        self.inner.gpu().destroy();
    }
}

/// Of a call that has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoSettings {}

async fn continued(
    session: &CoreSession,
    prompt: &str,
    settings: GenerateSettings,
    prepare: &mut dyn FnMut(Preparation),
    on_text: &mut dyn FnMut(&str),
) -> Result<Continuation, Error> {
    let GenerateSettings { max_tokens, without } = settings;
    let checkpoint = session.checkpoint();
    checkpoint.spec.check_blocks(&without)?;
    let tokenizer = checkpoint.tokenizer()?;
    let prompt = prompt_ids(checkpoint, prompt)?;
    let mut stream = DecodeStream::after(tokenizer, &prompt)?;
    let options = GenerateOptions::max_tokens(max_tokens.unwrap_or(128)).eos_token_ids(checkpoint.eos_token_ids()?);
    let mut generator = session.generate(prompt, &without, options, prepare).await?;
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let mut tell = |part: String| {
        on_text(&part);
        text.push_str(&part);
    };
    while let Some(token) = generator.next().await? {
        tokens.push(token);
        tell(stream.push(tokenizer, token)?);
    }
    tell(stream.finish(tokenizer)?);
    let finish_reason = generator.finish_reason().map_or("", |reason| reason.as_str());
    Ok(Continuation { text, tokens, finish_reason })
}
