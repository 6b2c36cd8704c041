//! Greedy generation: the fixtures' continuations against Hugging Face transformers with its own KV cache
//! (`generate.json`, made by `tests/reference/generate.py`).

use std::rc::Rc;

use blockpruner::eval::{GENERATION_PROMPTS, Generation};
use blockpruner::generate::{FinishReason, GenerateError, GenerateOptions, Generator, prompt_ids};
use blockpruner::gpu::{Gpu, GpuOptions};
use blockpruner::model::{BlockSet, Checkpoint, DeviceModel};
use blockpruner_tests::{every_kernel, fixture, fixture_folder, fixture_names, on_all, open};
use pollster::block_on;
use serde::Deserialize;

/// Documented where it is made.
#[derive(Deserialize)]
struct Case {
    removed: Vec<String>,
    prompt: Vec<u32>,
    tokens: Vec<u32>,
}

fn cases(name: &str) -> Vec<Case> {
    let path = fixture_folder(name).join("generate.json");
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

/// A fixture's model on the device, and the tokens that end its texts.
fn load(gpu: &Rc<Gpu>, name: &str) -> (Rc<DeviceModel>, Vec<u32>) {
    let (checkpoint, _) = fixture(name);
    let model = block_on(DeviceModel::load(gpu.clone(), &checkpoint, &mut |_, _| {})).unwrap();
    (Rc::new(model), checkpoint.eos_token_ids().unwrap())
}

fn generator(model: &Rc<DeviceModel>, removed: &BlockSet, prompt: &[u32], max: usize, eos: &[u32]) -> Generator {
    let options = GenerateOptions::max_tokens(max).eos_token_ids(eos.to_vec());
    Generator::new(model.clone(), removed.clone(), prompt.to_vec(), options).unwrap()
}

fn all(mut generator: Generator) -> (Vec<u32>, FinishReason) {
    let mut tokens = Vec::new();
    while let Some(token) = block_on(generator.next()).unwrap() {
        tokens.push(token);
    }
    assert!(block_on(generator.next()).unwrap().is_none(), "it went on after its end");
    (tokens, generator.finish_reason().unwrap())
}

fn check(gpu: &Rc<Gpu>, label: &str, name: &str) {
    let (model, eos) = load(gpu, name);
    for case in cases(name) {
        let removed: BlockSet = case.removed.iter().map(|block| block.parse().unwrap()).collect();
        let what = format!("{label}, {name} without [{removed}], prompt of {}", case.prompt.len());
        let (tokens, reason) = all(generator(&model, &removed, &case.prompt, 24, &eos));
        assert_eq!(tokens, case.tokens, "{what}");
        let ended = case.tokens.last().is_some_and(|token| eos.contains(token));
        let expected = if ended { FinishReason::EndOfSequence } else { FinishReason::MaxTokens };
        assert_eq!(reason, expected, "{what}");
    }
}

#[test]
fn every_fixture_continues_as_in_transformers() {
    let gpu = open(&GpuOptions::default());
    let names = fixture_names();
    assert!(names.len() >= 15, "fixtures are missing: only {names:?}");
    for name in names {
        check(&gpu, "default kernel", &name);
    }
}

#[test]
fn every_kernel_continues_as_in_transformers() {
    on_all(every_kernel(), |label, options| {
        let gpu = open(&options);
        // f32, tied bf16 with grouped queries, biases, a head_dim of 40, and frequencies that change on the way.
        for name in ["llama-f32", "llama-bf16-tied", "qwen2-bf16", "wide", "rope-dynamic", "rope-longrope"] {
            check(&gpu, label, name);
        }
        println!("{label}: {} continues as transformers", gpu.gemm().name());
    });
}

/// One token at a time through the cache, and whole passes over the growing text, say the same.
#[test]
fn cached_equals_uncached() {
    let gpu = open(&GpuOptions::default());
    for name in ["llama-f32", "llama-bf16-tied", "qwen2-f32", "rope-yarn", "rope-llama3", "gguf-rope-freqs"] {
        let (model, _) = load(&gpu, name);
        for removed in ["", "mha:0", "mha:0,mlp:1"] {
            let removed: BlockSet = match removed {
                "" => BlockSet::new(),
                blocks => blocks.parse().unwrap(),
            };
            let mut text = cases(name)[0].prompt.clone();
            let (tokens, _) = all(generator(&model, &removed, &text, 16, &[]));
            for (index, token) in tokens.into_iter().enumerate() {
                let (next, _) = all(generator(&model, &removed, &text, 1, &[]));
                assert_eq!(next, [token], "{name} without [{removed}], token {index}");
                text.push(token);
            }
        }
    }
}

/// A model without any attention has no cache.
#[test]
fn a_model_without_attention_still_speaks() {
    let gpu = open(&GpuOptions::default());
    let (model, _) = load(&gpu, "llama-f32");
    let removed: BlockSet = "mha:0,mha:1,mha:2".parse().unwrap();
    let (whole, _) = all(generator(&model, &removed, &[5, 17, 9], 8, &[]));
    // Only the last token counts.
    assert_eq!(all(generator(&model, &removed, &[9], 8, &[])).0, whole);
}

#[test]
fn a_continuation_ends_where_it_should() {
    let gpu = open(&GpuOptions::default());
    let (model, _) = load(&gpu, "llama-f32");
    let none = BlockSet::new();
    let prompt = cases("llama-f32")[0].prompt.clone();
    let (whole, reason) = all(generator(&model, &none, &prompt, 24, &[]));
    assert_eq!((whole.len(), reason), (24, FinishReason::MaxTokens));
    // Any token can be one that ends a text; it is given, too.
    let first = whole.iter().position(|token| *token == whole[5]).unwrap();
    let (ended, reason) = all(generator(&model, &none, &prompt, 24, &[306, whole[5]]));
    assert_eq!((&ended[..], reason), (&whole[..=first], FinishReason::EndOfSequence));
    assert_eq!(all(generator(&model, &none, &prompt, 0, &[])), (vec![], FinishReason::MaxTokens));

    // To the last of the 256 positions, past the room that the cache has at first.
    let (tokens, reason) = all(generator(&model, &none, &prompt[..1], 1000, &[]));
    assert_eq!((tokens.len(), reason), (256, FinishReason::Positions));
    let full: Vec<u32> = prompt.iter().copied().cycle().take(256).collect();
    let (last, reason) = all(generator(&model, &none, &full, 1000, &[]));
    assert_eq!((last.len(), reason), (1, FinishReason::Positions));

    // Frequencies that grow with the text are for going beyond the 32 positions of the configuration.
    let (dynamic, _) = load(&gpu, "rope-dynamic");
    assert_eq!(all(generator(&dynamic, &none, &[5], 40, &[])).1, FinishReason::MaxTokens);

    let refused = |prompt: Vec<u32>, removed: &str| {
        let removed: BlockSet = removed.parse().unwrap();
        let options = GenerateOptions::max_tokens(1);
        Generator::new(model.clone(), removed, prompt, options).err().unwrap()
    };
    let long = refused([full, vec![1]].concat(), "mha:0");
    assert!(matches!(long, GenerateError::PromptTooLong { tokens: 257, most: 256 }), "{long}");
    let unknown = refused(vec![1, 307], "mha:0");
    assert!(matches!(unknown, GenerateError::Vocabulary { position: 1, id: 307, .. }), "{unknown}");
    assert!(matches!(refused(vec![], "mha:0"), GenerateError::EmptyPrompt));
    assert!(refused(vec![1], "mha:3").to_string().contains("mha:3"));
}

/// A cache that has grown holds what it held: new tokens are those of a text whose cache was large enough at once.
#[test]
fn a_cache_grows() {
    let gpu = open(&GpuOptions::default());
    let none = BlockSet::new();
    let (model, _) = load(&gpu, "window-2048");
    let prompt: Vec<u32> = (0..61).cycle().take(40).collect();
    let (tokens, _) = all(generator(&model, &none, &prompt, 300, &[]));
    let text = [&prompt[..], &tokens[..290]].concat();
    assert_eq!(all(generator(&model, &none, &text, 10, &[])).0, tokens[290..], "after the cache grew");
}

/// What a model writes beside what it writes without a block is what [`Generator`] gives for both.
#[test]
fn generations_are_compared_token_by_token() {
    let checkpoint = block_on(Checkpoint::open("builtin:tiny")).unwrap();
    let gpu = open(&GpuOptions::default());
    let model = Rc::new(block_on(DeviceModel::load(gpu, &checkpoint, &mut |_, _| {})).unwrap());
    let prompts = GENERATION_PROMPTS[3..5].iter().map(|prompt| prompt.to_string()).collect::<Vec<_>>();
    let removed: BlockSet = ["mha:0".parse().unwrap(), "mlp:0".parse().unwrap()].into_iter().collect();
    let mut told = Vec::new();
    let mut compared = |removed| {
        let tell = &mut |done, total| told.push((done, total));
        block_on(Generation::new(&model, &checkpoint, &prompts, removed, 12, tell)).unwrap()
    };
    let none = BlockSet::new();
    let same = compared(&none);
    assert!(same.agreement == 1.0 && same.prompts.iter().all(|prompt| prompt.first_difference.is_none()));
    assert_eq!(same.repetition_dense, same.repetition_pruned);
    let differs = compared(&removed);
    assert_eq!(told[..4], [(1, 4), (2, 4), (3, 4), (4, 4)]);
    let eos = checkpoint.eos_token_ids().unwrap();
    for (found, prompt) in differs.prompts.iter().zip(&prompts) {
        let ids = prompt_ids(&checkpoint, prompt).unwrap();
        let [dense, pruned] =
            [&BlockSet::new(), &removed].map(|removed| all(generator(&model, removed, &ids, 12, &eos)).0);
        let decode = |ids: &[u32]| checkpoint.tokenizer().unwrap().decode(ids).unwrap();
        assert_eq!((&found.dense, &found.pruned), (&decode(&dense), &decode(&pruned)));
        let differing = dense.iter().zip(&pruned).position(|(dense, pruned)| dense != pruned);
        assert!(differing.is_some() && found.first_difference == differing, "{found:?}");
        assert!(found.agreement < 1.0);
    }
    assert_eq!(differs.agreement, differs.prompts.iter().map(|prompt| prompt.agreement).sum::<f64>() / 2.0);
}
