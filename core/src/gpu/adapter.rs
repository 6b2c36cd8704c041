//! Adapters, capability tiers and the choice of a GEMM kernel.

use std::fmt;
use std::str::FromStr;

use blockpruner_shaders::{Cooperative, GemmKernel, gemm};
use serde::{Deserialize, Serialize};

use super::{DeviceMemory, GpuError, KernelNeeds};

/// What a device is trusted with, from the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Tier {
    /// WebGPU's guaranteed limits and nothing else.
    Baseline,
    /// Subgroup operations of one known size, and the adapter's own limits.
    Subgroups,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Baseline => "baseline",
            Tier::Subgroups => "subgroups",
        })
    }
}

impl FromStr for Tier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "baseline" => Ok(Tier::Baseline),
            "subgroups" => Ok(Tier::Subgroups),
            _ => Err(format!("`{text}` is not a tier: expected baseline or subgroups")),
        }
    }
}

/// A GEMM kernel by name, as `--kernel` takes it; see [`GemmKernel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernels say what they are")]
#[non_exhaustive]
pub enum KernelChoice {
    Tile,
    TileSubgroup,
    CooperativeF32,
    CooperativeF16,
    Panel,
    PanelSubgroup,
}

impl FromStr for KernelChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tile" => Ok(Self::Tile),
            "tile-subgroup" => Ok(Self::TileSubgroup),
            "cooperative-f32" => Ok(Self::CooperativeF32),
            "cooperative-f16" => Ok(Self::CooperativeF16),
            "panel" => Ok(Self::Panel),
            "panel-subgroup" => Ok(Self::PanelSubgroup),
            _ => Err(format!(
                "`{text}` is not a kernel: expected tile, tile-subgroup, cooperative-f32, cooperative-f16, panel or \
                 panel-subgroup"
            )),
        }
    }
}

/// Finds a pipeline cache by its key; None if there is none.
pub type KeptPipelines = fn(key: &str) -> Option<Vec<u8>>;

/// How to choose and open a device. What a model needs of it is added by [`crate::model::device_needs`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GpuOptions {
    /// Index in [`adapters`], or part of an adapter's name (case does not matter). Default: the first.
    pub device: Option<String>,
    /// Use no more than this tier.
    pub tier: Option<Tier>,
    /// Use this GEMM kernel instead of the table's.
    pub kernel: Option<KernelChoice>,
    /// Store weights in shards of at most this many bytes (below the device's own limit).
    pub max_binding_bytes: Option<u64>,
    /// The largest single weight of the model, in bytes: limits above WebGPU's guaranteed ones are asked for up to this.
    #[doc(hidden)]
    pub largest_weight: u64,
    /// What the model needs: tested when the device is opened.
    #[doc(hidden)]
    pub needs: KernelNeeds,
    /// Asked for the pipeline cache that an earlier [`super::Gpu::pipeline_cache`] returned with this key. None: no cache
    /// is kept.
    pub pipeline_cache: Option<KeptPipelines>,
    /// What to call an adapter that has no name: browsers may hide it.
    pub unnamed: Option<String>,
    /// Restrict wgpu to what browsers offer (`STRICT_WEBGPU_COMPLIANCE`).
    pub strict_webgpu: bool,
}

impl GpuOptions {
    /// A device by its index, or part of its name.
    pub fn device(mut self, device: impl Into<Option<String>>) -> Self {
        self.device = device.into();
        self
    }

    /// No more than this tier.
    pub fn tier(mut self, tier: impl Into<Option<Tier>>) -> Self {
        self.tier = tier.into();
        self
    }

    /// This matrix kernel.
    pub fn kernel(mut self, kernel: impl Into<Option<KernelChoice>>) -> Self {
        self.kernel = kernel.into();
        self
    }

    /// Shards of at most so many bytes.
    pub fn max_binding_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.max_binding_bytes = bytes.into();
        self
    }

    /// These kernels are tested when it is opened.
    #[doc(hidden)]
    pub fn needs(mut self, needs: KernelNeeds) -> Self {
        self.needs = needs;
        self
    }

    /// Where pipelines were kept.
    pub fn pipeline_cache(mut self, kept: KeptPipelines) -> Self {
        self.pipeline_cache = Some(kept);
        self
    }

    /// What an adapter without a name is called.
    pub fn unnamed(mut self, name: impl Into<Option<String>>) -> Self {
        self.unnamed = name.into();
        self
    }

    /// Only what browsers offer.
    pub fn strict_webgpu(mut self, strict: bool) -> Self {
        self.strict_webgpu = strict;
        self
    }
}

/// An open device and how it is used, as plans and programs tell of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// The driver's name of the device.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`, `gl` or `webgpu`.
    pub backend: String,
    /// Driver and version.
    pub driver: String,
    /// Tier that it is used at.
    pub tier: String,
    /// GEMM kernel that it is used with.
    pub kernel: String,
}

/// One adapter as `blockpruner devices` lists it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct AdapterSummary {
    /// What `--device` takes.
    pub index: usize,
    /// The driver's name of the device.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`, `gl` or `webgpu`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub kind: String,
    /// Driver and version.
    pub driver: String,
    /// Tier it would be used at.
    pub tier: Tier,
    /// GEMM kernel it would be used with.
    pub kernel: String,
    /// Smallest and largest subgroup, in lanes; 0 without subgroups.
    pub subgroup_sizes: [u32; 2],
    /// Memory that the device computes in, in bytes; None where nobody tells.
    pub memory_bytes: Option<u64>,
    /// Largest storage binding in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
    /// Workgroup memory in bytes.
    pub max_workgroup_bytes: u32,
    /// Invocations of a workgroup.
    pub max_workgroup_invocations: u32,
    /// f16 arithmetic.
    pub f16: bool,
}

/// An adapter and what was decided about it.
pub(super) struct Candidate {
    pub adapter: wgpu::Adapter,
    pub info: wgpu::AdapterInfo,
    pub tier: Tier,
    pub memory: Option<DeviceMemory>,
    pub textures: bool,
    pub cooperative: Vec<Cooperative>,
}

impl Candidate {
    /// The kernel table: which GEMM kernels this device is given, the fastest first. Where one fails its test, the next
    /// one is tried; one that was asked for is the only one, on any type of adapter.
    ///
    /// | kernel | conditions |
    /// |---|---|
    /// | `cooperative-f32` | not a CPU-type adapter, tier subgroups, native, cooperative matrices of 8 x 8 f32 |
    /// | `cooperative-f16` | the same with 16 x 16 or 8 x 8 f16 that sum up in f32 |
    /// | `tile-subgroup` | not a CPU-type adapter, tier subgroups, native |
    /// | `panel-subgroup` | CPU-type adapter, read-only storage textures, head_dim a multiple of 4, subgroups of exactly 4, 8 or 16 lanes |
    /// | `panel` | CPU-type adapter, read-only storage textures, head_dim a multiple of 4 |
    /// | `tile` | everything else |
    pub fn kernels(&self, choice: Option<KernelChoice>) -> Result<Vec<GemmKernel>, String> {
        use KernelChoice::{CooperativeF16, CooperativeF32, Panel, PanelSubgroup, Tile, TileSubgroup};
        if let Some(choice) = choice {
            return Ok(vec![self.kernel(choice)?]);
        }
        let table: &[KernelChoice] = match self.info.device_type {
            wgpu::DeviceType::Cpu => &[PanelSubgroup, Panel, Tile],
            _ => &[CooperativeF32, CooperativeF16, TileSubgroup, Tile],
        };
        Ok(table.iter().filter_map(|choice| self.kernel(*choice).ok()).collect())
    }

    /// The kernel, or what the device lacks for it.
    fn kernel(&self, choice: KernelChoice) -> Result<GemmKernel, String> {
        // Browsers want a directive for subgroups that naga does not know.
        let subgroups = self.tier >= Tier::Subgroups && cfg!(not(target_arch = "wasm32"));
        let one_size = self.info.subgroup_min_size == self.info.subgroup_max_size;
        let lanes = self.info.subgroup_max_size;
        let cooperative = |wanted: fn(&Cooperative) -> bool| {
            let offered = self.cooperative.iter().copied().find(|kind| subgroups && wanted(kind));
            let cooperative = offered.ok_or("it has no such cooperative matrices at this tier")?;
            Ok(GemmKernel::Tile { subgroups, cooperative: Some(cooperative) })
        };
        match choice {
            KernelChoice::Tile => Ok(GemmKernel::BASELINE),
            KernelChoice::TileSubgroup if subgroups => Ok(GemmKernel::Tile { subgroups, cooperative: None }),
            KernelChoice::TileSubgroup => Err("it has no subgroups at this tier".into()),
            KernelChoice::CooperativeF32 => cooperative(|kind| !kind.f16),
            KernelChoice::CooperativeF16 => cooperative(|kind| kind.f16),
            KernelChoice::Panel | KernelChoice::PanelSubgroup if !self.textures => {
                Err("it has no read-only storage textures, or head_dim is not a multiple of 4".into())
            }
            KernelChoice::Panel => Ok(GemmKernel::Panel { lanes: 8, subgroups: false }),
            KernelChoice::PanelSubgroup if subgroups && one_size && [4, 8, 16].contains(&lanes) => {
                Ok(GemmKernel::Panel { lanes, subgroups: true })
            }
            KernelChoice::PanelSubgroup => {
                Err("it has no subgroups of one size of 4, 8 or 16 lanes at this tier".into())
            }
        }
    }

    fn summary(&self, index: usize) -> AdapterSummary {
        let limits = self.adapter.limits();
        let features = self.adapter.features();
        let subgroups = features.contains(wgpu::Features::SUBGROUP);
        AdapterSummary {
            index,
            name: self.info.name.clone(),
            backend: self.info.backend.to_string(),
            kind: kind(self.info.device_type).into(),
            driver: format!("{} {}", self.info.driver, self.info.driver_info).trim().into(),
            tier: self.tier,
            kernel: self.kernels(None).ok().and_then(|table| Some(table.first()?.name().into())).unwrap_or_default(),
            subgroup_sizes: if subgroups { [self.info.subgroup_min_size, self.info.subgroup_max_size] } else { [0, 0] },
            memory_bytes: self.memory.map(|memory| memory.bytes),
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
            f16: features.contains(wgpu::Features::SHADER_F16),
        }
    }
}

fn kind(device_type: wgpu::DeviceType) -> &'static str {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "cpu",
        wgpu::DeviceType::Other => "other",
    }
}

/// Real GPUs before CPU adapters; the driver's order otherwise.
fn rank(info: &wgpu::AdapterInfo) -> u8 {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => 2,
        wgpu::DeviceType::Cpu => 3,
    }
}

/// Whether the tile kernels fit: old GL has compute shaders, but less of everything than WebGPU guarantees.
fn runs_compute(adapter: &wgpu::Adapter) -> bool {
    let (limits, least) = (adapter.limits(), wgpu::Limits::default());
    adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
        && limits.max_compute_workgroup_storage_size >= least.max_compute_workgroup_storage_size
        && limits.max_compute_workgroups_per_dimension >= least.max_compute_workgroups_per_dimension
        && limits.max_storage_buffers_per_shader_stage >= 4
        && limits.max_compute_invocations_per_workgroup >= 64
}

/// The cooperative matrices that an adapter offers and a kernel exists for, if it has the workgroup memory, the larger ones
/// first.
fn cooperative_matrices(adapter: &wgpu::Adapter) -> Vec<Cooperative> {
    use wgpu::{CooperativeScalarType as Scalar, Features};
    let features = adapter.features();
    let offered = if features.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        adapter.cooperative_matrix_properties()
    } else {
        Vec::new()
    };
    let offers = |size, scalar| {
        offered.iter().any(|matrix| {
            [matrix.m_size, matrix.n_size, matrix.k_size] == [size; 3]
                && matrix.ab_type == scalar
                && matrix.cr_type == Scalar::F32
        })
    };
    let f16 = |size| features.contains(Features::SHADER_F16) && offers(size, Scalar::F16);
    let info = adapter.get_info();
    let lanes = (info.subgroup_min_size == info.subgroup_max_size).then_some(info.subgroup_min_size);
    let fits = adapter.limits().max_compute_workgroup_storage_size >= gemm::COOPERATIVE_MEMORY;
    [(true, 16, f16(16)), (true, 8, f16(8)), (false, 8, offers(8, Scalar::F32))]
        .into_iter()
        .filter_map(|(f16, size, offered)| (offered && fits).then_some(Cooperative { f16, size, lanes }))
        .collect()
}

/// Every adapter that can run the compute shaders, best first. Those of OpenGL only where there is nothing else: it lists the
/// same devices again, with less of everything, and its drivers write to the terminal.
pub(super) async fn candidates(options: &GpuOptions) -> Vec<Candidate> {
    let found = candidates_of(wgpu::Backends::all() - wgpu::Backends::GL, options).await;
    if found.is_empty() { candidates_of(wgpu::Backends::GL, options).await } else { found }
}

async fn candidates_of(backends: wgpu::Backends, options: &GpuOptions) -> Vec<Candidate> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    if options.strict_webgpu {
        descriptor.flags |= wgpu::InstanceFlags::STRICT_WEBGPU_COMPLIANCE;
    }
    let instance = wgpu::Instance::new(descriptor);
    let language = instance.wgsl_language_features();
    let textures = language.contains(wgpu::WgslLanguageFeatures::ReadOnlyAndReadWriteStorageTextures);
    let mut found: Vec<Candidate> = instance
        .enumerate_adapters(backends)
        .await
        .into_iter()
        .filter(runs_compute)
        .map(|adapter| {
            let mut info = adapter.get_info();
            if info.name.is_empty() {
                info.name = options.unnamed.clone().unwrap_or_else(|| "unnamed adapter".into());
            }
            let subgroups = adapter.features().contains(wgpu::Features::SUBGROUP);
            let best = if subgroups { Tier::Subgroups } else { Tier::Baseline };
            let tier = options.tier.map_or(best, |wanted| wanted.min(best));
            let whole_heads = options.needs.attention.iter().all(|need| need.head_dim.is_multiple_of(4));
            let textures = textures && whole_heads && adapter.limits().max_storage_textures_per_shader_stage >= 4;
            let cooperative = cooperative_matrices(&adapter);
            let memory = DeviceMemory::of(&adapter, info.device_type);
            Candidate { adapter, info, tier, memory, textures, cooperative }
        })
        .collect();
    found.sort_by_key(|candidate| rank(&candidate.info));
    found
}

/// Lists the adapters of this machine, best first: the first is the default device.
pub async fn adapters(options: &GpuOptions) -> Vec<AdapterSummary> {
    candidates(options).await.iter().enumerate().map(|(index, candidate)| candidate.summary(index)).collect()
}

/// The adapter that the options ask for, and what was decided about it.
pub(super) async fn choose(options: &GpuOptions) -> Result<Candidate, GpuError> {
    let mut found = candidates(options).await;
    if found.is_empty() {
        return Err(GpuError::NoAdapter { advice: advice().into() });
    }
    let position = match &options.device {
        None => Some(0),
        Some(wanted) => match wanted.parse::<usize>() {
            Ok(index) => (index < found.len()).then_some(index),
            Err(_) => {
                let wanted = wanted.to_lowercase();
                found.iter().position(|candidate| candidate.info.name.to_lowercase().contains(&wanted))
            }
        },
    };
    let Some(position) = position else {
        let available =
            found.iter().enumerate().map(|(i, c)| format!("{i}: {} ({})", c.info.name, c.info.backend.to_str()));
        return Err(GpuError::NoSuchDevice {
            wanted: options.device.clone().unwrap_or_default(),
            available: available.collect::<Vec<_>>().join(", "),
        });
    };
    let chosen = found.swap_remove(position);
    if let Some(wanted) = options.tier
        && wanted > chosen.tier
    {
        return Err(GpuError::Unsuitable {
            wanted: format!("tier {wanted}"),
            device: chosen.info.name.clone(),
            reason: format!("its best tier is {}", chosen.tier),
        });
    }
    Ok(chosen)
}

fn advice() -> &'static str {
    if cfg!(target_arch = "wasm32") {
        "This browser does not offer WebGPU: use a current Chrome, Edge, Firefox or Safari, and check that hardware \
         acceleration is on."
    } else if cfg!(target_os = "linux") {
        "Install your GPU's Vulkan driver (Debian and Ubuntu: mesa-vulkan-drivers for AMD and Intel, the NVIDIA driver for \
         NVIDIA). Without a GPU, mesa-vulkan-drivers also brings lavapipe, which runs on the CPU: \
         sudo apt-get install mesa-vulkan-drivers"
    } else if cfg!(target_os = "windows") {
        "Install your GPU vendor's current driver (DirectX 12 or Vulkan)."
    } else {
        "Metal is part of macOS 10.13 and later: check that this machine has a supported GPU. Elsewhere install a Vulkan driver."
    }
}
