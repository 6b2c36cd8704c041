//! Devices, and models whose weights are on one.

use std::rc::Rc;

use blockpruner::generate::{GenerateOptions, prompt_ids};
use blockpruner::gpu::{Gpu, GpuOptions, adapters};
use blockpruner::model::{BlockSet, device_needs};
use blockpruner::session::{Preparation, Session};
use blockpruner::text::DecodeStream;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use crate::checkpoint::{Checkpoint, report};
use crate::error::Error;
use crate::search::{self, PruneOptions};
use crate::text::Windows;
use crate::{options, to_js};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DeviceOptions {
    tier: Option<String>,
    kernel: Option<String>,
    max_binding_bytes: Option<u64>,
    name: Option<String>,
}

impl DeviceOptions {
    fn on(self, needs: GpuOptions) -> Result<GpuOptions, Error> {
        Ok(GpuOptions {
            tier: self.tier.map(|tier| tier.parse()).transpose().map_err(Error::Argument)?,
            kernel: self.kernel.map(|kernel| kernel.parse()).transpose().map_err(Error::Argument)?,
            max_binding_bytes: self.max_binding_bytes,
            unnamed: self.name,
            ..needs
        })
    }
}

/// An open device.
#[wasm_bindgen]
pub struct Device {
    gpu: Rc<Gpu>,
}

#[derive(Serialize)]
struct DeviceInfo<'a> {
    name: &'a str,
    backend: String,
    driver: String,
    tier: String,
    kernel: &'static str,
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
struct JsGenerateOptions {
    max_tokens: Option<usize>,
    without: BlockSet,
}

#[derive(Serialize)]
struct Continuation {
    text: String,
    tokens: Vec<u32>,
    finish_reason: &'static str,
}

#[wasm_bindgen]
impl Device {
    /// Opens the device that the browser offers.
    pub async fn open(
        #[wasm_bindgen(unchecked_optional_param_type = "DeviceOptions")] device_options: JsValue,
    ) -> Result<Device, Error> {
        Self::with_needs(GpuOptions::default(), device_options).await
    }

    /// Opens the device with what a model needs of it.
    #[wasm_bindgen(js_name = openFor)]
    pub async fn open_for(
        checkpoint: &Checkpoint,
        #[wasm_bindgen(unchecked_optional_param_type = "DeviceOptions")] device_options: JsValue,
    ) -> Result<Device, Error> {
        Self::with_needs(device_needs(&checkpoint.inner), device_options).await
    }

    async fn with_needs(needs: GpuOptions, device_options: JsValue) -> Result<Device, Error> {
        let wishes = options::<DeviceOptions>(device_options)?.on(needs)?;
        Ok(Device { gpu: Rc::new(Gpu::open(&wishes).await?) })
    }

    /// What the browser offers, without opening it. Empty where there is no WebGPU.
    #[wasm_bindgen(unchecked_return_type = "Record<string, unknown>[]")]
    pub async fn adapters() -> Result<JsValue, Error> {
        to_js(&adapters(&GpuOptions::default()).await)
    }

    /// Which device that is and how it is used.
    #[wasm_bindgen(unchecked_return_type = "DeviceInfo")]
    pub fn info(&self) -> Result<JsValue, Error> {
        let gpu = &*self.gpu;
        to_js(&DeviceInfo {
            name: gpu.name(),
            backend: gpu.backend(),
            driver: gpu.driver(),
            tier: gpu.tier().to_string(),
            kernel: gpu.gemm().name(),
            max_binding_bytes: gpu.max_binding(),
        })
    }

    /// Reads every weight of a model, one tensor at a time, and uploads it. `progress` counts parameters.
    pub async fn load(
        &self,
        checkpoint: &Checkpoint,
        #[wasm_bindgen(unchecked_optional_param_type = "Progress")] progress: Option<js_sys::Function>,
    ) -> Result<Model, Error> {
        let session = Session::builder(checkpoint.inner.clone()).with_gpu(self.gpu.clone());
        let mut tell = |preparation| {
            if let Preparation::Load { done, total } = preparation {
                report(progress.as_ref(), done, total);
            }
        };
        session.preload(&mut tell).await?;
        Ok(Model { session: Rc::new(session) })
    }

    /// Gives the device and all memory on it back at once. Everything that uses it ends with `device-lost`.
    pub fn destroy(&self) {
        self.gpu.destroy();
    }
}

/// A model on a device.
#[wasm_bindgen]
pub struct Model {
    session: Rc<Session>,
}

#[wasm_bindgen]
impl Model {
    /// Perplexity of a text, without some blocks if given.
    #[wasm_bindgen(unchecked_return_type = "Score")]
    pub async fn perplexity(
        &self,
        windows: &Windows,
        #[wasm_bindgen(unchecked_optional_param_type = "BlockId[]")] without: Option<Vec<String>>,
    ) -> Result<JsValue, Error> {
        let removed = block_set(without)?;
        let session = self.session.clone();
        let score = session.perplexity(&windows.inner.clone(), &removed, &mut |_| {}).await?;
        to_js(&Score { perplexity: score.perplexity, mean_nll: score.mean_nll, windows: score.windows })
    }

    /// Continues a prompt greedily. `onText` is given the text as it becomes certain.
    #[wasm_bindgen(unchecked_return_type = "Continuation")]
    pub async fn generate(
        &self,
        prompt: String,
        #[wasm_bindgen(unchecked_optional_param_type = "GenerateOptions")] generate_options: JsValue,
        #[wasm_bindgen(js_name = onText, unchecked_optional_param_type = "(part: string) => void")] on_text: Option<
            js_sys::Function,
        >,
    ) -> Result<JsValue, Error> {
        let JsGenerateOptions { max_tokens, without } = options(generate_options)?;
        let session = self.session.clone();
        let checkpoint = session.checkpoint();
        checkpoint.spec.check_blocks(&without)?;
        let tokenizer = checkpoint.tokenizer()?;
        let prompt = prompt_ids(checkpoint, &prompt)?;
        let mut stream = DecodeStream::after(tokenizer, &prompt)?;
        let options =
            GenerateOptions { max_tokens: max_tokens.unwrap_or(128), eos_token_ids: checkpoint.eos_token_ids()? };
        let mut generator = session.generate(prompt, &without, options, &mut |_| {}).await?;
        let (mut text, mut tokens) = (String::new(), Vec::new());
        let mut tell = |part: String| {
            if let Some(on_text) = &on_text {
                // What it throws is its own affair.
                let _ = on_text.call1(&JsValue::NULL, &part.as_str().into());
            }
            text.push_str(&part);
        };
        while let Some(token) = generator.next().await? {
            tokens.push(token);
            tell(stream.push(tokenizer, token)?);
        }
        tell(stream.finish(tokenizer)?);
        let finish_reason = generator.finish_reason().map_or("", |reason| reason.as_str());
        to_js(&Continuation { text, tokens, finish_reason })
    }

    /// Starts the greedy search, or goes on with a saved one (the string that `Search.save()` gave).
    #[wasm_bindgen(unchecked_return_type = "Search")]
    pub async fn prune(
        &self,
        windows: &Windows,
        #[wasm_bindgen(unchecked_param_type = "PruneOptions")] prune_options: JsValue,
        saved: Option<String>,
    ) -> Result<JsValue, Error> {
        let settings: PruneOptions = options(prune_options)?;
        search::start(self.session.clone(), windows.inner.clone(), settings, saved).await
    }
}

/// Blocks by their names.
fn block_set(names: Option<Vec<String>>) -> Result<BlockSet, Error> {
    let blocks = names.unwrap_or_default().iter().map(|name| name.parse()).collect::<Result<_, _>>();
    Ok(blocks?)
}
