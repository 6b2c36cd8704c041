//! The job, from an open model to the check of what was written: a [`Session`] is a model and a device, plans the device's
//! memory for what is asked of it, brings the weights there as the plan says, and scores, continues and searches.
//!
//! What the command line, the page and other programs share lives here; nothing here knows of screens, and of files only
//! [`OutFolder`], the folder that a finished pruning is written to.

mod evaluate;
#[cfg(not(target_arch = "wasm32"))]
mod folder;
mod generations;
mod nearly_plain;
mod search;
mod text;

use std::cell::RefCell;
use std::rc::Rc;

use crate::Error;
use crate::generate::{GenerateOptions, Generator};
use crate::gpu::{Gpu, GpuOptions, give_way};
use crate::model::{BlockSet, Checkpoint, DeviceModel, device_needs};
use crate::score::{Score, Scorer};
use crate::search::{Cost, MemoryPlan, SearchOptions, SearchState};
use crate::text::Windows;

pub use evaluate::{EvaluateOptions, Evaluating};
#[cfg(not(target_arch = "wasm32"))]
pub use folder::{OutFolder, WriteOptions, Writing, Written, write_model};
pub use nearly_plain::NearlyPlain;
pub use search::{Event, Search};
pub use text::WindowOptions;

/// What a session is doing before its work begins.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Preparation {
    /// Memory was planned.
    Planned(MemoryPlan),
    /// Weights come to the device.
    Load {
        /// Parameters that are there.
        done: u64,
        /// Parameters to bring.
        total: u64,
    },
    /// Shaders are compiled, so that what runs afterwards takes its usual time.
    Compile,
    /// Everything is ready.
    Ready,
}

/// A model on a device. Not `Send`: a device belongs to one thread.
pub struct Session {
    checkpoint: Rc<Checkpoint>,
    gpu: Rc<Gpu>,
    memory_budget: Option<u64>,
    /// The weights as the last plan wanted them on the device.
    model: RefCell<Option<Rc<DeviceModel>>>,
}

/// How a [`Session`] is opened.
pub struct SessionBuilder {
    checkpoint: Rc<Checkpoint>,
    options: GpuOptions,
    memory_budget: Option<u64>,
}

impl SessionBuilder {
    /// Index of a device in [`crate::gpu::adapters`], or part of its name. Default: the first.
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.options.device = Some(device.into());
        self
    }

    /// All choices of a device; what the model needs of it is added.
    pub fn gpu_options(mut self, options: GpuOptions) -> Self {
        self.options = options;
        self
    }

    /// Bytes of device memory to keep to; None keeps to what [`MemoryPlan::new`] says. Weights that do not fit are streamed.
    pub fn memory_budget(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.memory_budget = bytes.into();
        self
    }

    /// Opens the device, and tests on it what the model needs.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NoDevice`] and [`crate::ErrorKind::UnusableDevice`].
    pub async fn open(mut self) -> Result<Session, Error> {
        let wishes = std::mem::take(&mut self.options);
        let GpuOptions { largest_weight, needs, .. } = device_needs(&self.checkpoint);
        let gpu = Gpu::open(&GpuOptions { largest_weight, needs, ..wishes }).await?;
        Ok(self.with_gpu(Rc::new(gpu)))
    }

    /// On a device that is open already, of whose choices none are made here.
    pub fn with_gpu(self, gpu: Rc<Gpu>) -> Session {
        Session { checkpoint: self.checkpoint, gpu, memory_budget: self.memory_budget, model: RefCell::new(None) }
    }
}

impl Session {
    /// A session with a model; its device is chosen next.
    pub fn builder(checkpoint: impl Into<Rc<Checkpoint>>) -> SessionBuilder {
        SessionBuilder { checkpoint: checkpoint.into(), options: GpuOptions::default(), memory_budget: None }
    }

    /// The model.
    pub fn checkpoint(&self) -> &Rc<Checkpoint> {
        &self.checkpoint
    }

    /// The device.
    pub fn gpu(&self) -> &Rc<Gpu> {
        &self.gpu
    }

    /// The device memory that a search over a text takes, or (None) scoring it.
    ///
    /// # Errors
    /// A memory budget that is too small for it.
    pub fn memory(&self, windows: &Windows, search: Option<&SearchOptions>) -> Result<MemoryPlan, Error> {
        Ok(MemoryPlan::new(&self.gpu, &self.checkpoint, windows, search, self.memory_budget)?)
    }

    /// What a search over a text will take, foreseen.
    ///
    /// # Errors
    /// Those of [`Session::memory`].
    pub fn cost(&self, windows: &Windows, options: &SearchOptions) -> Result<Cost, Error> {
        let memory = self.memory(windows, Some(options))?;
        Ok(Cost::new(&self.checkpoint.spec, windows, options, &memory, &SearchState::default()))
    }

    /// The model as a plan wants it on the device, ready to run. It stays there until another plan wants it otherwise, or
    /// [`Session::unload`].
    ///
    /// # Errors
    /// The model's files, and everything that a device can do wrong.
    pub async fn load(&self, plan: &MemoryPlan, tell: &mut dyn FnMut(Preparation)) -> Result<Rc<DeviceModel>, Error> {
        tell(Preparation::Planned(*plan));
        let loaded = self.model.borrow().clone().filter(|model| model.streams() == plan.streamed);
        let model = match loaded {
            Some(model) => model,
            None => {
                // Its memory goes first.
                self.unload();
                let mut progress = |done, total| tell(Preparation::Load { done, total });
                let model = match plan.streamed {
                    true => DeviceModel::stream(self.gpu.clone(), &self.checkpoint, &mut progress).await?,
                    false => DeviceModel::load(self.gpu.clone(), &self.checkpoint, &mut progress).await?,
                };
                tell(Preparation::Compile);
                give_way().await;
                model.warm_up().await?;
                let model = Rc::new(model);
                *self.model.borrow_mut() = Some(model.clone());
                model
            }
        };
        tell(Preparation::Ready);
        Ok(model)
    }

    /// Brings the weights to the device before there is a text, as scoring a short one takes them.
    ///
    /// # Errors
    /// Those of [`Session::memory`] and [`Session::load`].
    pub async fn preload(&self, tell: &mut dyn FnMut(Preparation)) -> Result<(), Error> {
        self.load_for(2, tell).await.map(drop)
    }

    /// The model as scoring one window of so many tokens, at least 2, takes it.
    async fn load_for(&self, tokens: usize, tell: &mut dyn FnMut(Preparation)) -> Result<Rc<DeviceModel>, Error> {
        self.load(&self.memory_for(tokens)?, tell).await
    }

    /// The device memory that scoring one window of so many tokens takes, at least 2.
    fn memory_for(&self, tokens: usize) -> Result<MemoryPlan, Error> {
        self.memory(&Windows::from_ids(vec![0; tokens], tokens, None)?, None)
    }

    /// Frees the device memory that the weights take, once nothing that runs uses them.
    pub fn unload(&self) {
        self.model.borrow_mut().take();
    }

    /// The perplexity of a text without some blocks.
    ///
    /// # Errors
    /// A text or blocks that do not fit the model, a loss that is not finite, and those of [`Session::memory`] and
    /// [`Session::load`].
    pub async fn perplexity(
        &self,
        windows: &Windows,
        removed: &BlockSet,
        tell: &mut dyn FnMut(Preparation),
    ) -> Result<Score, Error> {
        let plan = self.memory(windows, None)?;
        let model = self.load(&plan, tell).await?;
        Ok(Scorer::batched(&model, windows, plan.batching)?.perplexity(removed).await?)
    }

    /// Prepares to continue the token ids `prompt` without some blocks.
    ///
    /// # Errors
    /// Those of [`Generator::new`], [`Session::memory`] and [`Session::load`].
    pub async fn generate(
        &self,
        prompt: Vec<u32>,
        removed: &BlockSet,
        options: GenerateOptions,
        tell: &mut dyn FnMut(Preparation),
    ) -> Result<Generator, Error> {
        // The prompt runs as one window.
        let model = self.load_for(prompt.len().max(2), tell).await?;
        Ok(Generator::new(model, removed.clone(), prompt, options)?)
    }
}
