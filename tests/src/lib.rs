//! What the tests share: devices to run on, fixtures and their references, seeded inputs, and comparing.

mod download;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use blockpruner::gpu::{Gpu, GpuError, GpuOptions, KernelChoice, Tier};
use blockpruner::model::Checkpoint;
use blockpruner::search::{BlockTypes, MemoryPlan, SearchOptions, SearchState, strategy};
use blockpruner::session::Session;
use blockpruner::text::Windows;
use blockpruner_shaders::GemmKernel;
use pollster::block_on;
use serde::Deserialize;

pub use download::{GEMMA3, Published, QWEN2, SMOLLM2};

/// The largest relative difference from the reference that a perplexity may have.
pub const TOLERANCE: f64 = 1e-4;

/// What PyTorch said about a fixture; `tests/reference/make_fixtures.py` documents the fields.
#[derive(Debug, Deserialize)]
#[allow(missing_docs, reason = "documented where the files are made")]
pub struct Reference {
    pub window: usize,
    pub windows: usize,
    pub ids: Vec<u32>,
    pub nll: Option<Vec<Vec<f64>>>,
    pub window_nll: Option<Vec<f64>>,
    pub perplexity: f64,
    #[serde(default)]
    pub without: BTreeMap<String, f64>,
    pub greedy: Option<Greedy>,
}

/// The published search's result on a fixture.
#[derive(Debug, Deserialize)]
pub struct Greedy {
    /// Removed blocks in order.
    pub order: Vec<String>,
    /// Perplexity after each.
    pub perplexities: Vec<f64>,
}

/// The folder of a fixture, or with an empty name the folder of all fixtures.
pub fn fixture_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Names of all fixtures, sorted.
///
/// # Panics
/// If the folder cannot be read.
pub fn fixture_names() -> Vec<String> {
    let folder = fixture_folder("");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("reference.json").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Opens a fixture: its model (folder or GGUF) and its reference.
///
/// # Panics
/// If either cannot be read.
pub fn fixture(name: &str) -> (Rc<Checkpoint>, Reference) {
    let folder = fixture_folder(name);
    let gguf = folder.join("model.gguf");
    let model = if gguf.is_file() { &gguf } else { &folder };
    let checkpoint =
        block_on(Checkpoint::open(&model.to_string_lossy())).unwrap_or_else(|e| panic!("{}: {e}", model.display()));
    let path = folder.join("reference.json");
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let reference = serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (Rc::new(checkpoint), reference)
}

/// Every kernel choice that the default device has, with a name; panels need what strict WebGPU leaves out natively.
///
/// # Panics
/// If a device fails to open for another reason than that it lacks what the kernel needs.
pub fn every_kernel() -> Vec<(String, GpuOptions)> {
    available().into_iter().map(|(name, options, _)| (name, options)).collect()
}

/// As [`every_kernel`], with the matrix kernel that each comes to.
fn available() -> Vec<(String, GpuOptions, GemmKernel)> {
    let kernel = |kernel| GpuOptions::default().kernel(kernel);
    let choices = [
        ("tile", kernel(KernelChoice::Tile)),
        ("tile-subgroup", kernel(KernelChoice::TileSubgroup)),
        ("cooperative-f32", kernel(KernelChoice::CooperativeF32)),
        ("cooperative-f16", kernel(KernelChoice::CooperativeF16)),
        ("tile, strict WebGPU", kernel(KernelChoice::Tile).strict_webgpu(true)),
        ("panel", kernel(KernelChoice::Panel)),
        ("panel-subgroup", kernel(KernelChoice::PanelSubgroup)),
        ("baseline tier", GpuOptions::default().tier(Tier::Baseline)),
    ];
    let mut available = Vec::new();
    for (name, options) in choices {
        match block_on(Gpu::open(&options)) {
            Ok(gpu) => available.push((name.to_string(), options, gpu.gemm())),
            Err(error @ GpuError::Unsuitable { .. }) => println!("skipped {name}: {error}"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
    available
}

/// As [`every_kernel`], each matrix kernel once, which decides what every other shader is, and once more within strict WebGPU.
///
/// # Panics
/// As [`every_kernel`].
pub fn each_kernel() -> Vec<(String, GpuOptions)> {
    let mut seen = HashSet::new();
    let kernels = available().into_iter().filter(|(_, options, kernel)| seen.insert((*kernel, options.strict_webgpu)));
    kernels.map(|(name, options, _)| (name, options)).collect()
}

/// Runs a check on each of these, as many at a time as there are processors: software drivers compile on one.
///
/// # Panics
/// If the check does.
pub fn on_all(kernels: Vec<(String, GpuOptions)>, check: impl Fn(&str, GpuOptions) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let left = std::sync::Mutex::new(kernels.into_iter());
    let next = || left.lock().map_or(None, |mut left| left.next());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((label, options)) = next() {
                    check(&label, options);
                }
            });
        }
    });
}

/// Opens a device.
///
/// # Panics
/// If there is none: these tests need one, and the message says what to install.
pub fn open(options: &GpuOptions) -> Rc<Gpu> {
    Rc::new(block_on(Gpu::open(options)).unwrap_or_else(|e| panic!("{e}")))
}

/// A search to its end, with the memory that `budget` bytes leave (None: the default).
///
/// # Panics
/// If anything fails.
pub fn greedy(
    gpu: &Rc<Gpu>,
    checkpoint: &Rc<Checkpoint>,
    windows: &Windows,
    options: &SearchOptions,
    budget: Option<u64>,
) -> (MemoryPlan, SearchState) {
    let session = Rc::new(Session::builder(checkpoint.clone()).memory_budget(budget).with_gpu(gpu.clone()));
    let memory = session.memory(windows, Some(options)).unwrap_or_else(|e| panic!("{e}"));
    let state = block_on(async {
        let mut search = session.search(windows.clone(), options.clone(), None).await?;
        while search.next().await?.is_some() {}
        Ok::<_, blockpruner::Error>(search.state().clone())
    });
    (memory, state.unwrap_or_else(|e| panic!("{e}")))
}

/// A search for `remove` blocks by the strategy of a name.
///
/// # Panics
/// If there is none of that name.
pub fn options(remove: usize, block_types: BlockTypes, name: &str) -> SearchOptions {
    let strategy = strategy(name).unwrap_or_else(|e| panic!("{e}"));
    SearchOptions::remove(remove).block_types(block_types).strategy(strategy)
}

/// `count` values in -1..1 from a seed (xorshift, Marsaglia, 2003).
pub fn random(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    // The first numbers of small seeds are alike.
    for _ in 0..8 {
        next();
    }
    (0..count).map(|_| next()).collect()
}

/// Relative difference of two numbers.
pub fn relative(found: f64, expected: f64) -> f64 {
    ((found - expected) / expected).abs()
}

/// Fails unless the normalised mean squared error is at most 1e-10 and no element is off by more than 1e-4 of the largest.
///
/// # Panics
/// If the values differ by more.
#[track_caller]
pub fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let square = |x: f32| (x as f64) * (x as f64);
    let size: f64 = expected.iter().map(|x| square(*x)).sum();
    let error: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    assert!(size > 0.0, "{what}: nothing to compare with");
    assert!(error / size <= 1e-10, "{what}: normalised mean squared error {:e}", error / size);
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-4 * largest, "{what}: element {index} is {a}, expected {b}");
    }
}
