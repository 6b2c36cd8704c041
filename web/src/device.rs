//! Devices, and models whose weights are on one.

use std::rc::Rc;

use blockpruner::gpu::{Gpu, GpuOptions, adapters};
use blockpruner::model::{BlockSet, Checkpoint as CoreCheckpoint, DeviceModel, device_needs};
use blockpruner::score::Scorer;
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

#[wasm_bindgen]
impl Device {
    /// Opens the device that the browser offers, for a model if one is given.
    pub async fn open(
        checkpoint: Option<Checkpoint>,
        #[wasm_bindgen(unchecked_optional_param_type = "DeviceOptions")] device_options: JsValue,
    ) -> Result<Device, Error> {
        let needs = checkpoint.as_ref().map(|checkpoint| device_needs(&checkpoint.inner.spec)).unwrap_or_default();
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
        let mut tell = |done, total| report(progress.as_ref(), done, total);
        let model = DeviceModel::load(self.gpu.clone(), &checkpoint.inner, &mut tell).await?;
        Ok(Model { checkpoint: checkpoint.inner.clone(), model: Rc::new(model) })
    }

    /// Gives the device and all memory on it back at once. Everything that uses it ends with `device-lost`.
    pub fn destroy(&self) {
        self.gpu.destroy();
    }
}

/// A model on a device.
#[wasm_bindgen]
pub struct Model {
    checkpoint: Rc<CoreCheckpoint>,
    model: Rc<DeviceModel>,
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
        let score = Scorer::new(&self.model, &windows.windows)?.perplexity(&removed).await?;
        to_js(&Score { perplexity: score.perplexity, mean_nll: score.mean_nll, windows: score.windows })
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
        search::start(self.checkpoint.clone(), self.model.clone(), windows.clone(), settings, saved).await
    }
}

/// Blocks by their names.
fn block_set(names: Option<Vec<String>>) -> Result<BlockSet, Error> {
    let blocks = names.unwrap_or_default().iter().map(|name| name.parse()).collect::<Result<_, _>>();
    Ok(blocks?)
}
