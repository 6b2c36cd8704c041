//! Losses, perplexities and the greedy search on every fixture, against Hugging Face transformers.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use blockpruner::gpu::{Gpu, GpuOptions};
use blockpruner::model::{BlockId, BlockSet, Checkpoint, DeviceModel};
use blockpruner::score::Scorer;
use blockpruner::search::BlockTypes;
use blockpruner::text::Windows;
use blockpruner_tests::{
    Reference, TOLERANCE, every_kernel, fixture, fixture_names, greedy, on_all, open, options, relative,
};
use pollster::block_on;

/// One of each: f32, tied bf16, shards of f16, QKV biases, a head_dim of 40.
const REPRESENTATIVE: [&str; 5] = ["llama-f32", "llama-bf16-tied", "llama-f16-sharded", "qwen2-bf16", "wide"];

/// One for each variant of a shader that only some families use: caps, post-norms, sliding windows and GELU; blocks without a
/// norm before them and norms over rows; norms over heads; a part of a head turned; nothing turned; multipliers; layer norms
/// that parallel blocks share, and a head with a bias; Q, K and V in groups, and GELU itself; the square of what is positive;
/// positions that are added; biases by position, rounded and not, and a head of rows of length 1; layer norms of each head.
const VARIANTS: [&str; 13] = [
    "gemma2",
    "olmo2",
    "gemma3",
    "glm4",
    "smollm3",
    "granite",
    "phi",
    "falcon-new",
    "nemotron",
    "gpt2",
    "falcon-alibi",
    "baichuan-alibi",
    "stablelm-qk-norm",
];

fn check_losses(name: &str, reference: &Reference, found: &[f32]) {
    let targets = reference.window - 1;
    assert_eq!(found.len(), reference.windows * targets, "{name}");
    for (w, expected) in reference.nll.iter().flatten().enumerate() {
        for (i, (found, expected)) in found[w * targets..].iter().zip(expected).enumerate() {
            let error = (*found as f64 - expected).abs();
            assert!(error <= TOLERANCE * expected.max(1.0), "{name}: window {w}, target {i}: {found}, not {expected}");
        }
    }
    for (w, expected) in reference.window_nll.iter().flatten().enumerate() {
        let mean = found[w * targets..][..targets].iter().map(|x| *x as f64).sum::<f64>() / targets as f64;
        assert!(relative(mean, *expected) <= TOLERANCE, "{name}: window {w}: mean {mean}, expected {expected}");
    }
    assert!(reference.nll.is_some() || reference.window_nll.is_some(), "{name}: the reference has no losses");
}

/// Whether something is different in this fixture from those that are not named above.
fn differs(name: &str) -> bool {
    REPRESENTATIVE.iter().chain(&VARIANTS).any(|other| *other == name)
}

/// Everything that the reference says; the worst relative error of a perplexity.
fn check(gpu: &Rc<Gpu>, name: &str, (checkpoint, reference): &(Rc<Checkpoint>, Reference), with_search: bool) -> f64 {
    let mut told = (0, 1);
    block_on(DeviceModel::stream(gpu.clone(), checkpoint, &mut |done, total| told = (done, total))).unwrap();
    assert_eq!(told.0, told.1, "{name}: parameters that are streamed from");
    let model = block_on(DeviceModel::load(gpu.clone(), checkpoint, &mut |done, total| told = (done, total))).unwrap();
    assert_eq!(told.0, told.1, "{name}: parameters that are loaded");
    let windows = Windows::from_ids(reference.ids.clone(), reference.window, None).unwrap();
    let scorer = Scorer::new(&model, &windows).unwrap();
    check_losses(name, reference, &block_on(scorer.nll(&BlockSet::new())).unwrap());
    let mut worst: f64 = 0.0;
    let mut compare = |what: &str, found: f64, expected: f64| {
        let error = relative(found, expected);
        assert!(error <= TOLERANCE, "{name}, {what}: perplexity {found}, expected {expected}, off by {error:e}");
        worst = worst.max(error);
    };
    compare("dense", block_on(scorer.perplexity(&BlockSet::new())).unwrap().perplexity, reference.perplexity);
    for (block, expected) in &reference.without {
        let removed: BlockSet = [block.parse::<BlockId>().unwrap()].into_iter().collect();
        compare(block, block_on(scorer.perplexity(&removed)).unwrap().perplexity, *expected);
    }
    if let Some(expected) = reference.greedy.as_ref().filter(|_| with_search) {
        let remove = expected.order.len();
        let steps = |strategy| {
            let (_, state) = greedy(gpu, checkpoint, &windows, &options(remove, BlockTypes::Mix, strategy), None);
            state.steps.iter().map(|step| (step.removed, step.perplexity)).collect::<Vec<_>>()
        };
        // The same bits: shortcuts of the default search may change the work, never the result. The literal loop is most of the
        // time that a fixture takes, so it runs where something differs.
        let exhaustive = differs(name).then(|| steps("exhaustive"));
        let steps = steps("exact");
        let order: Vec<String> = steps.iter().map(|(block, _)| block.to_string()).collect();
        assert_eq!(order, expected.order, "{name}: greedy order");
        for ((block, found), expected) in steps.iter().zip(&expected.perplexities) {
            compare(&format!("greedy {block}"), *found, *expected);
        }
        if let Some(exhaustive) = exhaustive {
            assert_eq!(steps, exhaustive, "{name}: exhaustive search");
        }
    }
    worst
}

/// What a table has a row for: the family, and the types of a GGUF file's matrices.
fn kinds(checkpoint: &Checkpoint, name: &str) -> BTreeSet<String> {
    let matrices = checkpoint.weights.iter().filter(|tensor| name.starts_with("gguf-") && tensor.shape.len() > 1);
    let types = matrices.map(|tensor| format!("GGUF {}", tensor.dtype));
    types.chain([format!("family {}", checkpoint.spec.family)]).collect()
}

#[test]
fn every_fixture_agrees_with_transformers() {
    let gpu = open(&GpuOptions::default());
    let names = fixture_names();
    assert!(names.len() >= 15, "fixtures are missing: only {names:?}");
    let mut worst: f64 = 0.0;
    let mut by_kind: BTreeMap<String, (usize, f64)> = BTreeMap::new();
    // A driver that compiles slowly searches where something differs; the search itself is the same everywhere.
    let is_slow = gpu.name().contains("SwiftShader");
    for name in names {
        let opened = fixture(&name);
        let error = check(&gpu, &name, &opened, !is_slow || differs(&name));
        println!("{name}: worst relative error {error:.1e}");
        worst = worst.max(error);
        for kind in kinds(&opened.0, &name) {
            let (fixtures, most) = by_kind.entry(kind).or_default();
            (*fixtures, *most) = (*fixtures + 1, most.max(error));
        }
    }
    for (kind, (fixtures, error)) in by_kind {
        println!("{kind}: worst relative error {error:.1e} of {fixtures} fixtures");
    }
    println!("{} with kernel {}: worst relative error {worst:.1e}", gpu.name(), gpu.gemm().name());
}

/// By every kernel but the one that the device gets by itself, and by the baseline of WebGPU.
fn check_other_kernels(names: &[String]) {
    let default = open(&GpuOptions::default()).gemm();
    on_all(every_kernel(), |kernel, options| {
        let gpu = open(&options);
        if gpu.gemm() == default && !options.strict_webgpu {
            return;
        }
        for name in names {
            let error = check(&gpu, name, &fixture(name), name == REPRESENTATIVE[0]);
            println!("{kernel}, {name}: worst relative error {error:.1e}");
        }
    });
}

#[test]
fn every_kernel_agrees_with_transformers() {
    let names = fixture_names().into_iter().filter(|name| differs(name)).collect::<Vec<_>>();
    assert_eq!(names.len(), REPRESENTATIVE.len() + VARIANTS.len());
    check_other_kernels(&names);
}

#[test]
#[ignore = "takes minutes on SwiftShader"]
fn every_kernel_agrees_on_every_fixture() {
    check_other_kernels(&fixture_names());
}

/// Weights and logits in many parts give the same numbers as in one.
#[test]
fn tiny_bindings_agree_with_transformers() {
    let gpu = open(&GpuOptions::default().max_binding_bytes(8192));
    for name in REPRESENTATIVE {
        println!("8 KiB bindings, {name}: worst relative error {:.1e}", check(&gpu, name, &fixture(name), false));
    }
}
