//! The device layer: its test of itself, what it keeps and what it says when something is not to be had.

use std::cell::RefCell;
use std::time::Instant;

use blockpruner::gpu::{Gpu, GpuError, GpuOptions};
use blockpruner::model::{BlockSet, DeviceModel, device_needs};
use blockpruner::score::Scorer;
use blockpruner::testing::{AttentionNeed, KernelNeeds};
use blockpruner::text::Windows;
use blockpruner_shaders::{Activation, Alibi, NormKind, Over, WeightFormat};
use blockpruner_tests::{every_kernel, fixture, open};
use pollster::block_on;

/// What a model like Llama needs.
fn needs(formats: Vec<WeightFormat>, head_dim: u32) -> KernelNeeds {
    let attention =
        AttentionNeed { head_dim, rotated: head_dim, over: None, alibi: None, soft_cap: false, sliding: false };
    let (attention, activations) = (vec![attention], vec![(Activation::Silu, true)]);
    KernelNeeds { formats, attention, activations, norms: vec![NormKind::Rms], ..Default::default() }
}

/// Every kernel that this device is given passes its own test, with heads of many sizes, and with everything that a model
/// can need.
#[test]
fn every_kernel_passes_its_self_test() {
    for (label, options) in every_kernel() {
        for head_dim in [24, 64, 128] {
            let formats = if head_dim == 64 { WeightFormat::ALL.to_vec() } else { vec![WeightFormat::Bf16] };
            let start = Instant::now();
            let mut needs = needs(formats, head_dim);
            if head_dim == 64 {
                needs.attention.extend([
                    AttentionNeed { rotated: 32, over: Some(Over::Head), sliding: true, ..needs.attention[0] },
                    AttentionNeed { rotated: 0, over: Some(Over::Row), soft_cap: true, ..needs.attention[0] },
                    AttentionNeed { over: Some(Over::EachHead), ..needs.attention[0] },
                    AttentionNeed { rotated: 0, alibi: Some(Alibi::Plain), ..needs.attention[0] },
                    AttentionNeed { rotated: 0, alibi: Some(Alibi::Rounded), ..needs.attention[0] },
                ]);
                needs.activations =
                    Activation::ALL.into_iter().flat_map(|function| [(function, false), (function, true)]).collect();
                needs.norms = NormKind::ALL.to_vec();
                (needs.no_norm, needs.soft_capped_logits) = (true, true);
                needs.post_norms = NormKind::ALL.to_vec();
            }
            let gpu = open(&options.clone().needs(needs));
            assert_eq!(gpu.warnings(), [""; 0]);
            println!("{label}, heads of {head_dim}: {:.2} s", start.elapsed().as_secs_f64());
        }
    }
}

thread_local! {
    /// What a caller keeps: the key that it was asked for last, and the bytes.
    static KEPT: RefCell<(String, Option<Vec<u8>>)> = RefCell::default();
}

#[test]
fn compiled_shaders_are_kept() {
    fn kept(key: &str) -> Option<Vec<u8>> {
        KEPT.with_borrow_mut(|kept| {
            kept.0 = key.into();
            kept.1.clone()
        })
    }
    let without = GpuOptions::default().needs(needs(vec![WeightFormat::Bf16], 24));
    let options = without.clone().pipeline_cache(kept);
    let gpu = open(&options);
    let Some((key, data)) = gpu.pipeline_cache() else {
        assert_ne!(gpu.backend(), "vulkan", "Vulkan has a pipeline cache");
        return;
    };
    assert_eq!(KEPT.with_borrow(|kept| kept.0.clone()), key);
    assert!(open(&without).pipeline_cache().is_none());
    let mut flipped = data.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let foreign = [&data[..32], &[7; 4096]].concat();
    for bytes in [data.clone(), Vec::new(), data[..data.len() / 2].to_vec(), flipped, foreign, vec![0; 100]] {
        KEPT.with_borrow_mut(|kept| kept.1 = Some(bytes));
        // The device is opened, its kernels compute the right values, and there is a cache to keep again.
        let (again, data) = open(&options).pipeline_cache().unwrap();
        assert_eq!(again, key);
        assert!(data.len() > 32);
    }
}

/// The forward pass that follows a warm-up has the same result, on a model that stays on the device and on one that is
/// streamed.
#[test]
fn a_warm_up_changes_nothing() {
    // Biases and an untied head; a tied one; tensors of several formats; positions, and matrices by columns.
    for name in ["llama-biases", "llama-bf16-tied", "gguf-floats", "gpt2", "opt-long"] {
        let (checkpoint, reference) = fixture(name);
        let gpu = open(&device_needs(&checkpoint));
        let windows = Windows::from_ids(reference.ids, reference.window, None).unwrap();
        let mut results = Vec::new();
        for (streamed, warm) in [(false, false), (false, true), (true, true)] {
            let mut quiet = |_, _| {};
            let model = match streamed {
                true => block_on(DeviceModel::stream(gpu.clone(), &checkpoint, &mut quiet)).unwrap(),
                false => block_on(DeviceModel::load(gpu.clone(), &checkpoint, &mut quiet)).unwrap(),
            };
            if warm {
                block_on(model.warm_up()).unwrap();
            }
            let scorer = Scorer::new(&model, &windows).unwrap();
            results.push(block_on(scorer.nll(&BlockSet::new())).unwrap());
        }
        assert!(results[0] == results[1] && results[0] == results[2], "{name}");
    }
}

#[test]
fn what_does_not_fit_a_binding_is_refused() {
    let heads = GpuOptions::default().needs(needs(Vec::new(), 260));
    let error = block_on(Gpu::open(&heads)).err().unwrap();
    assert!(matches!(error, GpuError::Unsuitable { .. }), "{error}");
    let gpu = open(&GpuOptions::default());
    let limit = gpu.max_binding();
    let error = gpu.storage("hidden states", limit + 4).unwrap_err();
    assert!(matches!(error, GpuError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("hidden states"), "{error}");
    let error = gpu.texture("packed Q", 1 << 40, false).unwrap_err();
    assert!(matches!(error, GpuError::TooLarge { .. }), "{error}");
    // Neither is an error of the device.
    gpu.check().unwrap();
}

/// Memory that is not there. Run by [`exhausted_memory_is_told_at_once`] in a process that has little.
#[test]
#[ignore = "takes all the memory that there is"]
fn exhaust_memory() {
    let gpu = open(&GpuOptions::default());
    let mut buffers = Vec::new();
    let error = loop {
        let label = format!("hidden states {}", buffers.len());
        match gpu.storage(&label, gpu.max_binding()) {
            Ok(buffer) => buffers.push(buffer),
            Err(error) => break error,
        }
    };
    println!("after {} buffers: {error}", buffers.len());
    assert!(matches!(error, GpuError::OutOfMemory { .. }), "{error}");
    assert!(error.to_string().contains(&format!("hidden states {}", buffers.len())), "{error}");
    // It stays the error that everything ends in.
    let after = block_on(gpu.read(&buffers[0], 4)).unwrap_err();
    assert!(matches!(after, GpuError::OutOfMemory { .. }), "{after}");
}

/// The error comes from the call that asked for too much, and says what it was for.
#[cfg(target_os = "linux")]
#[test]
fn exhausted_memory_is_told_at_once() {
    let gpu = open(&GpuOptions::default());
    // Only software devices take their memory from the process.
    let software = ["llvmpipe", "SwiftShader"].iter().any(|name| gpu.name().contains(name));
    if !software {
        println!("skipped on {}", gpu.name());
        return;
    }
    let test = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 3000000; exec \"$0\" --exact exhaust_memory --ignored --nocapture"])
        .arg(test)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    print!("{out}");
}
