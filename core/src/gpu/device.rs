//! An open device: memory, pipelines, and running recordings.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blockpruner_shaders::{Binding, GemmKernel, Kernel, Shader, TEXTURE_WIDTH, gemm};
use futures_channel::oneshot;
use web_time::Instant;

use super::adapter::{self, DeviceInfo, GpuOptions, Tier};
use super::pipeline_cache;
use super::raw::Raw;
use super::recording::{Command, Recording};
use super::self_test::{self, Distort};
use super::upload::{self, Staging};
use super::{AttentionNeed, DeviceMemory, GpuError, Resource};

/// The largest heads whose tiles fit WebGPU's guaranteed workgroup memory.
const MOST_HEAD_DIM: u32 = 256;
/// Uniform blocks lie this far apart: WebGPU's guaranteed offset alignment.
const UNIFORM_SLOT: u64 = 256;
/// A submit holds at most this many commands,
const SLICE_COMMANDS: usize = 256;
/// and about this much time: watchdogs end a submit after about 2 s, and a stop should take effect quickly.
const SLICE_SECONDS: f64 = 0.15;
/// Arithmetic of the first submits, before the device's speed is known.
const FIRST_SLICE_FLOPS: f64 = 1e9;
/// A dispatch of a slow device does at most this much arithmetic: what it does in less than a submit should take.
const LEAST_DISPATCH_FLOPS: u64 = 8_000_000_000;
/// Share of a submit that one dispatch of a fast device may be: small ones leave most of it idle.
const DISPATCH_SHARE: f64 = 0.125;
/// Submits on their way at a time: one runs while the next is recorded.
const IN_FLIGHT: usize = 2;
/// After an error, work on its way is given so much time to end.
const LAST_WORK: Duration = Duration::from_secs(5);

/// An open device with its pipelines.
pub struct Gpu {
    pub(super) raw: Raw,
    info: wgpu::AdapterInfo,
    memory: Option<DeviceMemory>,
    tier: Tier,
    gemm: GemmKernel,
    warnings: Vec<String>,
    max_binding: u64,
    weight_binding: u64,
    pipelines: RefCell<HashMap<Kernel, Rc<Pipeline>>>,
    pipeline_cache: Option<wgpu::PipelineCache>,
    nothing: wgpu::Buffer,
    failure: Failure,
    pub(super) staging: RefCell<Staging>,
    flying: RefCell<VecDeque<Submitted>>,
    last_done: Cell<Option<Instant>>,
    slice_flops: Cell<f64>,
}

struct Pipeline {
    layout: wgpu::BindGroupLayout,
    pipeline: wgpu::ComputePipeline,
}

/// The first error that wgpu reported outside a call.
pub(super) type Failure = Arc<Mutex<Option<GpuError>>>;

struct Submitted {
    index: wgpu::SubmissionIndex,
    done: oneshot::Receiver<()>,
    /// Arithmetic; 0 where shaders were compiled on the way, whose time says nothing about the device's speed.
    flops: u64,
    at: Instant,
}

impl Gpu {
    /// Opens the device that the options ask for, or the best one, and compares its kernels with their CPU twins. Where
    /// they disagree, the next kernel of the table is used and [`Gpu::warnings`] says so; a kernel that was asked for, and
    /// the last one, end in [`GpuError::SelfTest`].
    ///
    /// # Errors
    /// [`GpuError::NoAdapter`], [`GpuError::NoSuchDevice`], [`GpuError::Unsuitable`] for what was asked for and the device cannot,
    /// [`GpuError::Open`], [`GpuError::SelfTest`].
    pub async fn open(options: &GpuOptions) -> Result<Self, GpuError> {
        Self::open_distorted(options, |_, _, _| {}).await
    }

    async fn open_distorted(options: &GpuOptions, distort: Distort) -> Result<Self, GpuError> {
        let chosen = adapter::choose(options).await?;
        let name = chosen.info.name.clone();
        let head_dims = options.needs.attention.iter().map(|need| need.head_dim);
        if let Some(head_dim) = head_dims.max().filter(|head_dim| *head_dim > MOST_HEAD_DIM) {
            return Err(GpuError::Unsuitable {
                wanted: format!("a model with heads of {head_dim} elements"),
                device: name,
                reason: format!("the attention kernels take heads of at most {MOST_HEAD_DIM}"),
            });
        }
        let mut kernels = chosen.kernels(options.kernel).map_err(|reason| GpuError::Unsuitable {
            wanted: "the kernel".into(),
            device: name.clone(),
            reason,
        })?;
        if options.kernel.is_none() && options.needs.formats.is_empty() {
            // Untested, they are not to be used.
            kernels.retain(|kernel| kernel.cooperative().is_none());
        }
        let mut limits = required_limits(&chosen.adapter.limits(), chosen.tier, options.largest_weight);
        let mut features = wgpu::Features::empty();
        if chosen.tier >= Tier::Subgroups {
            features |= wgpu::Features::SUBGROUP;
        }
        if options.pipeline_cache.is_some() {
            features |= wgpu::Features::PIPELINE_CACHE & chosen.adapter.features();
        }
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        for cooperative in kernels.iter().filter_map(|kernel| kernel.cooperative()) {
            features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            if cooperative.f16 {
                features |= wgpu::Features::SHADER_F16;
            }
            limits.max_compute_workgroup_storage_size = gemm::COOPERATIVE_MEMORY;
            // SAFETY: wgpu asks to be told that its checks of an experimental feature may have gaps. The shaders here stay
            // within their memory by themselves, and what they compute is compared with their twin before it is used.
            #[allow(unsafe_code, reason = "wgpu offers no other way")]
            {
                experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
            }
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("blockpruner"),
            required_features: features,
            required_limits: limits.clone(),
            experimental_features,
            // By default wgpu takes device memory in blocks of 128 MiB and more, whatever is put into them: real memory would
            // stay far above a plan for a small device. There are few buffers, and they live long.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) = chosen
            .adapter
            .request_device(&descriptor)
            .await
            .map_err(|e| GpuError::Open { device: name.clone(), reason: e.to_string() })?;
        let failure = watch(&device, &name);
        let pipeline_cache = match (options.pipeline_cache, pipeline_cache::key(&chosen.info)) {
            (Some(kept), Some(key)) if features.contains(wgpu::Features::PIPELINE_CACHE) => {
                pipeline_cache::create(&device, kept(&key).as_deref()).await
            }
            _ => None,
        };
        let raw = Raw {
            device,
            queue,
            #[cfg(feature = "fault-injection")]
            faults: Rc::new(super::fault::Faults::new(failure.clone(), name)),
        };
        let nothing = raw.buffer(&wgpu::BufferDescriptor {
            label: Some("no bias"),
            size: 16,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        let max_binding = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let staging = Staging::new(&raw);
        let mut gpu = Self {
            raw,
            info: chosen.info,
            memory: chosen.memory,
            tier: chosen.tier,
            gemm: GemmKernel::BASELINE,
            warnings: Vec::new(),
            max_binding,
            weight_binding: options.max_binding_bytes.map_or(max_binding, |bytes| bytes.min(max_binding)),
            pipelines: RefCell::default(),
            pipeline_cache,
            nothing,
            failure,
            staging: RefCell::new(staging),
            flying: RefCell::default(),
            last_done: Cell::new(None),
            slice_flops: Cell::new(FIRST_SLICE_FLOPS),
        };
        gpu.choose_kernel(&kernels, options, distort).await?;
        if gpu.info.backend == wgpu::Backend::Gl {
            let name = gpu.name();
            gpu.warnings.push(format!("{name} runs through OpenGL, slowly: no Vulkan, Metal or DX12 device was found"));
        }
        gpu.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(gpu)
    }

    /// Takes the first of these kernels that agrees with its CPU twin.
    async fn choose_kernel(
        &mut self,
        kernels: &[GemmKernel],
        options: &GpuOptions,
        distort: Distort,
    ) -> Result<(), GpuError> {
        let mut reasons = Vec::new();
        for kernel in kernels {
            self.gemm = *kernel;
            let reason = match self_test::run(self, &options.needs, distort).await {
                Ok(()) => {
                    let (name, driver, used) = (self.name(), self.driver(), kernel.name());
                    let warn = |reason| format!("{name} ({driver}): {reason}; using the kernel {used} instead");
                    self.warnings = reasons.into_iter().map(warn).collect();
                    return Ok(());
                }
                Err(self_test::Failure::Disagrees(reason)) => reason,
                Err(self_test::Failure::Fails(error @ (GpuError::Driver { .. } | GpuError::Validation { .. }))) => {
                    if let Ok(mut failure) = self.failure.lock() {
                        failure.take();
                    }
                    format!("the kernel {} does not run ({error})", kernel.name())
                }
                Err(self_test::Failure::Fails(error)) => return Err(error),
            };
            self.pipelines.borrow_mut().clear();
            reasons.push(reason);
        }
        let (device, driver) = (self.info.name.clone(), self.driver());
        Err(GpuError::SelfTest { device, driver, reason: reasons.join(", ") })
    }

    /// Whether attention to contexts that continuations share, which is not tested when a device is opened, agrees with its CPU
    /// twin on this one.
    pub(crate) async fn agrees_on_continuations(&self, needs: &[AttentionNeed]) -> Result<bool, GpuError> {
        self.agrees_distorted(needs, |_, _, _| {}).await
    }

    async fn agrees_distorted(&self, needs: &[AttentionNeed], distort: Distort) -> Result<bool, GpuError> {
        match self_test::run_continuations(self, needs, distort).await {
            Ok(()) => Ok(true),
            Err(self_test::Failure::Disagrees(reason)) => {
                tracing::warn!("{} ({}): {reason}; contexts are not shared", self.name(), self.driver());
                Ok(false)
            }
            Err(self_test::Failure::Fails(error)) => Err(error),
        }
    }

    /// What people should know about this device: kernels that failed their test and are not used, a backend of last resort.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The driver's compiled shaders with the key that they should be kept by; see [`GpuOptions::pipeline_cache`].
    pub fn pipeline_cache(&self) -> Option<(String, Vec<u8>)> {
        Some((pipeline_cache::key(&self.info)?, pipeline_cache::data(self.pipeline_cache.as_ref()?)?))
    }

    /// The driver's name of the device.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// `vulkan`, `metal`, `dx12`, `gl` or `webgpu`.
    pub fn backend(&self) -> String {
        self.info.backend.to_string()
    }

    /// Driver and version.
    pub fn driver(&self) -> String {
        format!("{} {}", self.info.driver, self.info.driver_info).trim().to_string()
    }

    /// Which device that is and how it is used.
    pub fn info(&self) -> DeviceInfo {
        DeviceInfo {
            name: self.name().into(),
            backend: self.backend(),
            driver: self.driver(),
            tier: self.tier().to_string(),
            kernel: self.gemm().name().into(),
        }
    }

    /// Memory that the device computes in; None where nobody tells, as in browsers.
    pub fn memory(&self) -> Option<DeviceMemory> {
        self.memory
    }

    /// The tier that the device is used at.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The GEMM kernel in use, which also decides how weights are packed and which attention kernel runs.
    pub fn gemm(&self) -> GemmKernel {
        self.gemm
    }

    /// Largest buffer that a shader can see whole, in bytes.
    pub fn max_binding(&self) -> u64 {
        self.max_binding
    }

    /// Largest shard of a weight, in bytes.
    pub(crate) fn weight_binding(&self) -> u64 {
        self.weight_binding
    }

    /// A buffer for bindings that a kernel does not use.
    pub(crate) fn nothing(&self) -> &wgpu::Buffer {
        &self.nothing
    }

    /// A zeroed storage buffer of `bytes` (at least 16, a multiple of 4).
    #[doc(hidden)]
    pub fn storage(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer, GpuError> {
        let size = bytes.max(16).next_multiple_of(4);
        if size > self.max_binding {
            return Err(self.too_large(label, size));
        }
        let buffer = self.raw.buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.check()?;
        Ok(buffer)
    }

    /// A storage buffer with contents; padded with zeros to a multiple of 4 bytes.
    #[doc(hidden)]
    pub fn upload(&self, label: &str, bytes: &[u8]) -> Result<wgpu::Buffer, GpuError> {
        let buffer = self.storage(label, bytes.len() as u64)?;
        self.write(&Resource::from(&buffer), bytes)?;
        Ok(buffer)
    }

    /// A storage texture of `texels` texels of 16 bytes, [`TEXTURE_WIDTH`] to a row unless there are fewer; `words` for u32,
    /// else f32.
    #[doc(hidden)]
    pub fn texture(&self, label: &str, texels: u64, words: bool) -> Result<wgpu::TextureView, GpuError> {
        let width = texels.clamp(1, TEXTURE_WIDTH as u64);
        let height = texels.max(1).div_ceil(width);
        if height > TEXTURE_WIDTH as u64 {
            return Err(self.too_large(label, texels * 16));
        }
        let texture = self.raw.texture(&wgpu::TextureDescriptor {
            label: Some(label),
            size: wgpu::Extent3d { width: width as u32, height: height as u32, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: if words { wgpu::TextureFormat::Rgba32Uint } else { wgpu::TextureFormat::Rgba32Float },
            usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_SRC | wgpu::TextureUsages::COPY_DST,
            view_formats: &[],
        });
        self.check()?;
        Ok(texture.create_view(&wgpu::TextureViewDescriptor::default()))
    }

    /// Runs a recording in slices. Returns when the last slices are on their way, not when they are done: the caller may
    /// read the next weights meanwhile. [`Gpu::read`] waits for everything before it.
    ///
    /// After an error the device is of no more use: everything else ends in the same error.
    #[doc(hidden)]
    pub async fn submit(&self, recording: &Recording) -> Result<(), GpuError> {
        let done = self.submit_slices(recording).await;
        if done.is_err() {
            // Nobody waits for what is still on its way.
            self.flying.borrow_mut().clear();
        }
        done
    }

    async fn submit_slices(&self, recording: &Recording) -> Result<(), GpuError> {
        let mut rest = recording.commands.as_slice();
        while !rest.is_empty() {
            let (slice, after) = rest.split_at(self.slice_length(rest));
            rest = after;
            let submitted = self.submit_slice(slice)?;
            self.flying.borrow_mut().push_back(submitted);
            if self.flying.borrow().len() >= IN_FLIGHT {
                self.land().await?;
            }
        }
        Ok(())
    }

    /// Waits until everything that was submitted is done.
    ///
    /// # Errors
    /// What went wrong in the work, or [`GpuError::Lost`].
    pub async fn finish(&self) -> Result<(), GpuError> {
        while !self.flying.borrow().is_empty() {
            if let Err(error) = self.land().await {
                self.flying.borrow_mut().clear();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits for the oldest submit on its way, and learns the device's speed from it.
    async fn land(&self) -> Result<(), GpuError> {
        let Some(first) = self.flying.borrow_mut().pop_front() else { return Ok(()) };
        let (flops, at) = (first.flops, first.at);
        self.wait(first).await?;
        let now = Instant::now();
        // It began when it was submitted or when the one before it ended.
        let began = self.last_done.replace(Some(now)).map_or(at, |before| before.max(at));
        self.learn_speed(flops, now.duration_since(began).as_secs_f64());
        Ok(())
    }

    /// Arithmetic that one dispatch may do, about: the faster the device is known to be, the more.
    pub(super) fn dispatch_flops(&self) -> u64 {
        LEAST_DISPATCH_FLOPS.max((self.slice_flops.get() * DISPATCH_SHARE) as u64)
    }

    fn slice_length(&self, commands: &[Command]) -> usize {
        let budget = self.slice_flops.get();
        let mut flops = 0.0;
        let mut length = 0;
        for command in commands.iter().take(SLICE_COMMANDS) {
            flops += command.flops() as f64;
            if flops > budget && length > 0 {
                break;
            }
            length += 1;
        }
        length
    }

    /// Sizes the next slices so that each takes about [`SLICE_SECONDS`].
    fn learn_speed(&self, flops: u64, seconds: f64) {
        if flops > 0 && seconds > 0.0 {
            let wanted = flops as f64 / seconds * SLICE_SECONDS;
            let known = self.slice_flops.get();
            self.slice_flops.set(wanted.clamp(known / 2.0, known * 2.0).max(1e7));
        }
    }

    fn submit_slice(&self, commands: &[Command]) -> Result<Submitted, GpuError> {
        self.flush_uploads()?;
        let compiled = self.pipelines.borrow().len();
        let uniforms = self.uniforms(commands);
        let mut encoder = self.raw.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
        let mut slot = 0;
        let mut position = 0;
        while position < commands.len() {
            if !matches!(commands[position], Command::Dispatch { .. }) {
                copy(&mut encoder, &commands[position]);
                position += 1;
                continue;
            }
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            while let Some(Command::Dispatch { kernel, bindings, grid, .. }) = commands.get(position) {
                let pipeline = self.pipeline(*kernel)?;
                let group = self.bind(&pipeline, &uniforms, bindings);
                pass.set_pipeline(&pipeline.pipeline);
                pass.set_bind_group(0, &group, &[(slot * UNIFORM_SLOT) as u32]);
                pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
                slot += 1;
                position += 1;
            }
        }
        let index = self.raw.submit([encoder.finish()]);
        let (sender, done) = oneshot::channel();
        self.raw.queue.on_submitted_work_done(move || {
            // The receiver is gone only if the caller stopped waiting.
            let _ = sender.send(());
        });
        self.check()?;
        let flops = match self.pipelines.borrow().len() > compiled {
            true => 0,
            false => commands.iter().map(Command::flops).sum(),
        };
        Ok(Submitted { index, done, flops, at: Instant::now() })
    }

    fn uniforms(&self, commands: &[Command]) -> wgpu::Buffer {
        let mut bytes = Vec::with_capacity(commands.len() * UNIFORM_SLOT as usize);
        for command in commands {
            if let Command::Dispatch { params, .. } = command {
                bytes.extend_from_slice(params);
                bytes.resize(bytes.len().next_multiple_of(UNIFORM_SLOT as usize), 0);
            }
        }
        let buffer = self.raw.buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: (bytes.len() as u64).max(UNIFORM_SLOT),
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.raw.queue.write_buffer(&buffer, 0, &bytes);
        buffer
    }

    fn bind(&self, pipeline: &Pipeline, uniforms: &wgpu::Buffer, bindings: &[Resource]) -> wgpu::BindGroup {
        let block = wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: uniforms,
                offset: 0,
                size: wgpu::BufferSize::new(UNIFORM_SLOT),
            }),
        };
        let entries: Vec<_> = std::iter::once(block)
            .chain(bindings.iter().zip(1..).map(|(resource, binding)| wgpu::BindGroupEntry {
                binding,
                resource: match resource {
                    Resource::Buffer(buffer) => buffer.as_entire_binding(),
                    Resource::Texture(view) => wgpu::BindingResource::TextureView(view),
                },
            }))
            .collect();
        self.raw.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.layout,
            entries: &entries,
        })
    }

    fn pipeline(&self, kernel: Kernel) -> Result<Rc<Pipeline>, GpuError> {
        if let Some(pipeline) = self.pipelines.borrow().get(&kernel) {
            return Ok(pipeline.clone());
        }
        let shader = kernel.render();
        tracing::debug!(shader = shader.label, "compiling shader");
        let pipeline = Rc::new(self.compile(&shader));
        self.check()?;
        self.pipelines.borrow_mut().insert(kernel, pipeline.clone());
        Ok(pipeline)
    }

    fn compile(&self, shader: &Shader) -> Pipeline {
        let uniform = wgpu::BindGroupLayoutEntry {
            binding: 0,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Uniform,
                has_dynamic_offset: true,
                min_binding_size: None,
            },
            count: None,
        };
        let entries: Vec<_> = std::iter::once(uniform)
            .chain(shader.bindings.iter().zip(1..).map(|(binding, number)| wgpu::BindGroupLayoutEntry {
                binding: number,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: binding_type(*binding),
                count: None,
            }))
            .collect();
        let layout = self.raw.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(&shader.label),
            entries: &entries,
        });
        let module = self.raw.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&shader.label),
            source: wgpu::ShaderSource::Wgsl(shader.wgsl.as_str().into()),
        });
        let pipeline_layout = self.raw.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&shader.label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = self.raw.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&shader.label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            // Every kernel writes its workgroup memory before it reads it.
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: self.pipeline_cache.as_ref(),
        });
        Pipeline { layout, pipeline }
    }

    /// Reads the first `count` f32 of a buffer or a texture, after everything submitted before.
    #[doc(hidden)]
    pub async fn read(&self, source: impl Into<Resource>, count: usize) -> Result<Vec<f32>, GpuError> {
        let source = source.into();
        // Textures are copied by whole texels.
        let size = match &source {
            Resource::Buffer(_) => count as u64 * 4,
            Resource::Texture(_) => (count as u64 * 4).next_multiple_of(16),
        };
        if size == 0 {
            return Ok(Vec::new());
        }
        self.finish().await?;
        self.flush_uploads()?;
        let staging = self.raw.buffer(&wgpu::BufferDescriptor {
            label: Some("read back"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.raw.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
        let (target, offset, bytes) = (staging.clone(), 0, size);
        let read = match source {
            Resource::Buffer(source) => Command::Copy { source, target, offset, bytes },
            Resource::Texture(source) => Command::Store { source, target, offset, bytes },
        };
        copy(&mut encoder, &read);
        self.raw.submit([encoder.finish()]);
        let (sender, mapped) = oneshot::channel();
        self.raw.map_for_reading(&staging, move |result| {
            // The receiver is gone only if the caller stopped waiting.
            let _ = sender.send(result);
        });
        #[cfg(not(target_arch = "wasm32"))]
        {
            give_way().await;
            self.poll(wgpu::PollType::wait_indefinitely())?;
        }
        let result = mapped.await;
        self.check()?;
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.lost(&error.to_string())),
            Err(_) => return Err(self.lost("a read-back was dropped")),
        }
        let view = staging.slice(..).get_mapped_range().map_err(|error| self.lost(&error.to_string()))?;
        let mut values: Vec<f32> = bytemuck::pod_collect_to_vec(&view);
        values.truncate(count);
        Ok(values)
    }

    async fn wait(&self, submitted: Submitted) -> Result<(), GpuError> {
        #[cfg(not(target_arch = "wasm32"))]
        {
            give_way().await;
            self.poll(wgpu::PollType::Wait { submission_index: Some(submitted.index), timeout: None })?;
        }
        #[cfg(target_arch = "wasm32")]
        let _ = submitted.index;
        let done = submitted.done.await;
        self.check()?;
        done.map_err(|_| self.lost("a submit was dropped"))
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn poll(&self, poll: wgpu::PollType) -> Result<(), GpuError> {
        match self.raw.device.poll(poll) {
            Ok(_) => Ok(()),
            // What was reported says why; what polling says is of wgpu's insides.
            Err(_) => self.check().and(Err(self.lost("it does not answer any more"))),
        }
    }

    /// The first error that was reported since the device was opened; that the device is lost counts before what
    /// followed from it, but not before that its memory is exhausted, which is a cause.
    #[doc(hidden)]
    pub fn check(&self) -> Result<(), GpuError> {
        let failure = || match self.failure.lock() {
            Ok(failure) => failure.clone(),
            Err(_) => Some(self.lost("an error handler failed")),
        };
        let Some(first) = failure() else { return Ok(()) };
        if !matches!(first, GpuError::Lost { .. } | GpuError::OutOfMemory { .. }) {
            // Calls on a lost device fail at once, the loss itself is told when the work before it has ended. What polling
            // says besides is of no interest: there is an error to report already.
            let _ = self.raw.device.poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(LAST_WORK) });
        }
        Err(failure().unwrap_or(first))
    }

    /// Gives the device up on purpose, as a driver reset would: everything after this ends in [`GpuError::Lost`].
    pub fn destroy(&self) {
        self.raw.device.destroy();
    }

    pub(crate) fn lost(&self, reason: &str) -> GpuError {
        GpuError::Lost { device: self.info.name.clone(), reason: reason.into() }
    }

    pub(super) fn too_large(&self, what: &str, bytes: u64) -> GpuError {
        GpuError::TooLarge { what: what.into(), device: self.info.name.clone(), bytes, limit: self.max_binding }
    }
}

/// WebGPU's guaranteed limits, and above the baseline tier larger bindings where the model's weights want them.
fn required_limits(adapter: &wgpu::Limits, tier: Tier, largest_weight: u64) -> wgpu::Limits {
    let mut limits = wgpu::Limits::default().or_worse_values_from(adapter);
    if tier > Tier::Baseline {
        let binding = largest_weight.max(limits.max_storage_buffer_binding_size);
        limits.max_storage_buffer_binding_size = binding.min(adapter.max_storage_buffer_binding_size);
        limits.max_buffer_size = binding.max(limits.max_buffer_size).min(adapter.max_buffer_size);
    }
    limits
}

/// Keeps the first error that the device reports by itself.
fn watch(device: &wgpu::Device, name: &str) -> Failure {
    let failure = Failure::default();
    let (slot, label) = (failure.clone(), name.to_string());
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        let device = label.clone();
        let error = match error {
            wgpu::Error::OutOfMemory { source } => GpuError::OutOfMemory { device, reason: chain(&*source) },
            wgpu::Error::Validation { description, .. } => GpuError::Validation { device, reason: description },
            wgpu::Error::Internal { description, .. } => GpuError::Driver { device, reason: description },
        };
        if let Ok(mut first) = slot.lock() {
            first.get_or_insert(error);
        }
    }));
    let (slot, label) = (failure.clone(), name.to_string());
    device.set_device_lost_callback(move |reason, message| {
        // Dropping a device on purpose is no failure, and nobody is left to ask.
        let reason = match (reason, message.trim_matches([' ', ';'])) {
            (wgpu::DeviceLostReason::Destroyed, _) => "it was given up".to_string(),
            (_, "") => "the driver gives no reason".to_string(),
            (_, message) => message.to_string(),
        };
        let error = GpuError::Lost { device: label.clone(), reason };
        if let Ok(mut first) = slot.lock()
            && !matches!(*first, Some(GpuError::OutOfMemory { .. }))
        {
            *first = Some(error);
        }
    });
    failure
}

/// An error with its causes, in one line: what was created, under which label, and what the driver said.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(|error| error.to_string()).collect::<Vec<_>>().join(": ")
}

/// Encodes a command that is no dispatch.
fn copy(encoder: &mut wgpu::CommandEncoder, command: &Command) {
    match command {
        Command::Dispatch { .. } => {}
        Command::Copy { source, target, offset, bytes } => {
            encoder.copy_buffer_to_buffer(source, 0, target, *offset, Some(*bytes));
        }
        Command::Load { source, offset, target, bytes } => {
            for (texels, buffer, extent) in upload::pieces(target, source, *offset, *bytes) {
                encoder.copy_buffer_to_texture(buffer, texels, extent);
            }
        }
        Command::Store { source, target, offset, bytes } => {
            for (texels, buffer, extent) in upload::pieces(source, target, *offset, *bytes) {
                encoder.copy_texture_to_buffer(texels, buffer, extent);
            }
        }
    }
}

fn binding_type(binding: Binding) -> wgpu::BindingType {
    let buffer = |read_only| wgpu::BindingType::Buffer {
        ty: wgpu::BufferBindingType::Storage { read_only },
        has_dynamic_offset: false,
        min_binding_size: None,
    };
    let texture = |access, format| wgpu::BindingType::StorageTexture {
        access,
        format,
        view_dimension: wgpu::TextureViewDimension::D2,
    };
    match binding {
        Binding::Read => buffer(true),
        Binding::ReadWrite => buffer(false),
        Binding::TextureF32 => texture(wgpu::StorageTextureAccess::ReadOnly, wgpu::TextureFormat::Rgba32Float),
        Binding::TextureU32 => texture(wgpu::StorageTextureAccess::ReadOnly, wgpu::TextureFormat::Rgba32Uint),
        Binding::TextureWrite => texture(wgpu::StorageTextureAccess::WriteOnly, wgpu::TextureFormat::Rgba32Float),
    }
}

/// Lets whoever polls have the thread once. Natively, a wait blocks it: what was found out until then would be told only at the
/// end of everything.
pub(crate) async fn give_way() {
    let mut given = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use blockpruner_shaders::{Activation, NormKind, WeightFormat};
    use pollster::block_on;

    use super::super::{KernelChoice, KernelNeeds, adapters};
    use super::*;

    fn options() -> GpuOptions {
        let attention =
            AttentionNeed { head_dim: 24, rotated: 24, over: None, alibi: None, soft_cap: false, sliding: false };
        let needs = KernelNeeds {
            formats: vec![WeightFormat::F16],
            attention: vec![attention],
            activations: vec![(Activation::Silu, true)],
            norms: vec![NormKind::Rms],
            ..Default::default()
        };
        GpuOptions { needs, ..Default::default() }
    }

    /// One value, by a hundredth.
    fn spoil(values: &mut [f32]) {
        let middle = values.len() / 2;
        values[middle] += 0.01 * values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    }

    fn every_panel(kernel: GemmKernel, _: &str, values: &mut [f32]) {
        if kernel.is_panel() {
            spoil(values);
        }
    }

    #[test]
    fn continuations_are_tested_by_themselves() {
        let gpu = block_on(Gpu::open(&options())).unwrap();
        let plain = options().needs.attention[0];
        let needs = [plain, AttentionNeed { sliding: true, ..plain }];
        assert!(block_on(gpu.agrees_on_continuations(&needs)).unwrap());
        let spoiled: Distort = |_, what, values| {
            assert!(what.contains("continuations"), "{what}");
            spoil(values);
        };
        assert!(!block_on(gpu.agrees_distorted(&needs, spoiled)).unwrap());
    }

    #[test]
    fn a_kernel_that_disagrees_is_not_used() {
        let tested = block_on(Gpu::open(&options())).unwrap();
        assert_eq!(tested.warnings(), [""; 0]);
        let table = block_on(adapters(&options()));
        assert_eq!(tested.gemm().name(), table[0].kernel);

        // Without the subgroup kernel, the next one is used; without any panel, the tiles.
        let without_subgroups: Distort = |kernel, _, values| {
            if let GemmKernel::Panel { subgroups: true, .. } = kernel {
                spoil(values);
            }
        };
        for (distort, expected) in [(without_subgroups, "panel"), (every_panel as Distort, "tile")] {
            let used = block_on(Gpu::open_distorted(&options(), distort)).unwrap();
            if !tested.gemm().is_panel() {
                println!("only the tile kernel is to be had here");
                continue;
            }
            let failed =
                if expected == "tile" || tested.gemm().name() == "panel-subgroup" { expected } else { "panel" };
            assert_eq!(used.gemm().name(), failed);
            for warning in used.warnings() {
                assert!(warning.contains(used.name()) && warning.contains(&format!("kernel {expected} instead")));
                assert!(warning.contains("computes") && warning.contains("it should be"), "{warning}");
            }
            assert_eq!(used.warnings().is_empty(), used.gemm() == tested.gemm());
        }
    }

    #[test]
    fn nothing_is_left_to_fall_back_to() {
        let all = block_on(Gpu::open_distorted(&options(), |_, _, values| spoil(values)));
        let forced = GpuOptions { kernel: Some(KernelChoice::Tile), ..options() };
        let forced = block_on(Gpu::open_distorted(&forced, |_, _, values| spoil(values)));
        for result in [all, forced] {
            let Err(error @ GpuError::SelfTest { .. }) = result else { panic!("opened, or another error") };
            assert!(error.to_string().contains("the kernel tile computes the product"), "{error}");
        }
        // The twin of attention is asked, too.
        let attention: Distort = |_, what, values| {
            if what.starts_with("attention") {
                spoil(values);
            }
        };
        let error = block_on(Gpu::open_distorted(&options(), attention)).err().unwrap();
        assert!(error.to_string().contains("computes attention over heads of 24 wrongly"), "{error}");
        // A value that is no number is no agreement.
        let nan = block_on(Gpu::open_distorted(&options(), |_, _, values| values[5] = f32::NAN)).err().unwrap();
        assert!(nan.to_string().contains("value 5 is NaN"), "{nan}");
        // What the model does not use is not tested.
        let none = block_on(Gpu::open_distorted(&GpuOptions::default(), |_, _, values| spoil(values)));
        assert!(none.is_ok());
    }

    /// Whatever its length and whatever was written beside it, all of it arrives.
    #[test]
    fn writes_of_every_length_arrive_whole() {
        let gpu = block_on(Gpu::open(&options())).unwrap();
        let values: Vec<f32> = (1..=40).map(|value| value as f32).collect();
        for count in 1..=values.len() {
            let texture = Resource::from(&gpu.texture("texels", 10, false).unwrap());
            let buffer = Resource::from(&gpu.storage("words", 160).unwrap());
            for target in [&texture, &buffer] {
                gpu.write(target, bytemuck::cast_slice(&values[..count])).unwrap();
            }
            for target in [texture, buffer] {
                assert_eq!(block_on(gpu.read(target, count)).unwrap(), values[..count], "{count} values");
            }
        }
    }

    #[test]
    fn uploads_leave_no_holes_between_weights() {
        const MIB: usize = 1 << 20;
        let gpu = block_on(Gpu::open(&GpuOptions::default())).unwrap();
        let bytes: Vec<u8> = (0..2 * MIB + 100).map(|at| (at % 251) as u8).collect();
        let buffer = gpu.upload("weight", &bytes).unwrap();
        let words = block_on(gpu.read(&buffer, bytes.len() / 4)).unwrap();
        assert!(bytemuck::cast_slice::<f32, u8>(&words) == bytes);
        // A driver may give a texture more than its texels take, so that it does not fit where its staging memory was.
        let texture = || {
            let view = gpu.texture("weight", (2 * MIB as u64 + 64) / 16, true).unwrap();
            gpu.write(&Resource::from(&view), &bytes[..2 * MIB + 64]).unwrap();
            view
        };
        let textures: Vec<_> = (0..64).map(|_| texture()).collect();
        // Written in pieces, of which one begins within a row.
        let words = block_on(gpu.read(&textures[63], (2 * MIB + 64) / 4)).unwrap();
        assert!(bytemuck::cast_slice::<f32, u8>(&words) == &bytes[..2 * MIB + 64]);
        let Some(report) = gpu.raw.device.generate_allocator_report() else {
            println!("this backend does not tell what it has allocated");
            return;
        };
        let weights: u64 =
            report.allocations.iter().filter(|taken| taken.name == "weight").map(|taken| taken.size).sum();
        assert!(weights > 64 * 2 * MIB as u64, "{report:?}");
        // Besides them 32 MiB for uploads, and blocks of up to 32 MiB that are not full.
        assert!(report.total_reserved_bytes < weights + 96 * MIB as u64, "{report:?}");
    }

    #[test]
    fn after_an_error_nothing_is_waited_for() {
        let gpu = block_on(Gpu::open(&GpuOptions::default())).unwrap();
        let (from, to) = (gpu.storage("from", 1 << 20).unwrap(), gpu.storage("to", 1 << 20).unwrap());
        let mut recording = Recording::new();
        for _ in 0..3 * SLICE_COMMANDS {
            recording.copy(&from, &to, 0, 1 << 20);
        }
        block_on(gpu.submit(&recording)).unwrap();
        assert!(!gpu.flying.borrow().is_empty(), "nothing is on its way");
        gpu.destroy();
        let error = block_on(gpu.submit(&recording)).unwrap_err();
        assert!(matches!(error, GpuError::Lost { .. }), "{error}");
        assert!(gpu.flying.borrow().is_empty());
        assert!(matches!(block_on(gpu.read(&to, 4)), Err(GpuError::Lost { .. })));
    }

    #[test]
    fn a_device_may_go_while_it_works() {
        let gpu = block_on(Gpu::open(&GpuOptions::default())).unwrap();
        let (from, to) = (gpu.storage("from", 1 << 24).unwrap(), gpu.storage("to", 1 << 24).unwrap());
        let mut recording = Recording::new();
        for _ in 0..SLICE_COMMANDS {
            recording.copy(&from, &to, 0, 1 << 24);
        }
        block_on(gpu.submit(&recording)).unwrap();
        assert!(!gpu.flying.borrow().is_empty());
        drop(gpu);
    }
}
