//! Likelihoods of continuations: against the losses of the same texts as windows, and against greedy decoding.

use std::collections::BTreeMap;
use std::rc::Rc;

use blockpruner::generate::{GenerateOptions, Generator};
use blockpruner::gpu::{Gpu, GpuOptions};
use blockpruner::model::{BlockSet, Checkpoint, DeviceModel, ModelSpec, RopeSpec};
use blockpruner::score::continuations::{Likelihood, Prompt, PromptBatching, PromptScorer};
use blockpruner::score::{ScoreError, Scorer};
use blockpruner::text::Windows;
use blockpruner_tests::{each_kernel, fixture, fixture_names, on_all, open, relative};
use pollster::block_on;

/// Prompts of many lengths from a text; the last one is longer than some fixtures' first training, with
/// `dynamic` and `longrope` frequencies.
fn prompts(spec: &ModelSpec, ids: &[u32]) -> Vec<Prompt> {
    let ids: Vec<u32> = ids.iter().copied().cycle().take(LONGEST).collect();
    // A table of positions may be shorter.
    let longest = if spec.check_window(LONGEST).is_ok() { LONGEST } else { spec.max_positions };
    let prompt = |context: usize, continuations: &[(usize, usize)]| Prompt {
        context: ids[..context].to_vec(),
        continuations: continuations.iter().map(|(from, count)| ids[*from..][..*count].to_vec()).collect(),
    };
    vec![
        prompt(9, &[(9, 4), (1, 1), (20, 7), (9, 9)]),
        prompt(1, &[(1, 1), (2, 1)]),
        prompt(23, &[(23, 3), (5, 5), (5, 2)]),
        prompt(5, &[]),
        prompt(longest - 8, &[(0, 3), (30, 3), (9, 8)]),
    ]
}

const LONGEST: usize = 68;

fn score(scorer: &PromptScorer<'_>, prompts: &[Prompt], removed: &BlockSet) -> Vec<Vec<Likelihood>> {
    let mut told = Vec::new();
    let found = block_on(scorer.score(prompts, removed, &mut |done, total| told.push((done, total)))).unwrap();
    assert!(told.is_sorted() && told.last().is_some_and(|(done, total)| done == total), "{told:?}");
    assert_eq!(
        found.iter().map(Vec::len).collect::<Vec<_>>(),
        prompts.iter().map(|prompt| prompt.continuations.len()).collect::<Vec<_>>()
    );
    found
}

/// The log-likelihood of each continuation by [`Scorer`], which runs it as a window with its last token; None where that makes
/// the text so much longer that its rotary frequencies are others.
fn by_windows(model: &DeviceModel, prompts: &[Prompt], removed: &BlockSet) -> Vec<Vec<Option<f64>>> {
    let mut texts: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    let pairs =
        || prompts.iter().flat_map(|prompt| prompt.continuations.iter().map(|tokens| (&prompt.context, tokens)));
    for (context, tokens) in pairs() {
        texts.entry(context.len() + tokens.len()).or_default().extend(context.iter().chain(tokens));
    }
    let mut losses: BTreeMap<usize, std::vec::IntoIter<f32>> = BTreeMap::new();
    for (length, ids) in texts {
        let windows = Windows::from_ids(ids, length, None).unwrap();
        let nll = block_on(Scorer::new(model, &windows).unwrap().nll(removed)).unwrap();
        losses.insert(length, nll.into_iter());
    }
    let mut likelihood = |context: &[u32], tokens: &[u32]| {
        let length = context.len() + tokens.len();
        let nll: Vec<f32> = losses.get_mut(&length).unwrap().take(length - 1).collect();
        let sum = -nll[context.len() - 1..].iter().map(|nll| f64::from(*nll)).sum::<f64>();
        let ropes = &model.spec().ropes;
        let alike = |rope: &RopeSpec| rope.frequencies(length).unwrap() == rope.frequencies(length - 1).unwrap();
        ropes.iter().all(alike).then_some(sum)
    };
    prompts
        .iter()
        .map(|Prompt { context, continuations }| {
            continuations.iter().map(|tokens| likelihood(context, tokens)).collect()
        })
        .collect()
}

#[track_caller]
fn assert_agree(what: &str, found: &[Vec<Likelihood>], expected: &[Vec<Option<f64>>]) {
    let mut compared = 0;
    for (prompt, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (continuation, (found, expected)) in found.iter().zip(expected).enumerate() {
            let Some(expected) = expected else { continue };
            let (found, what) = (found.log_likelihood, format!("{what}, prompt {prompt}, continuation {continuation}"));
            assert!(relative(found, *expected) <= 1e-5, "{what}: {found}, not {expected}");
            compared += 1;
        }
    }
    assert!(compared >= 9, "{what}: only {compared} continuations were compared");
}

fn check(gpu: &Rc<Gpu>, name: &str) {
    let (checkpoint, reference) = fixture(name);
    let model = block_on(DeviceModel::load(gpu.clone(), &checkpoint, &mut |_, _| {})).unwrap();
    let prompts = prompts(model.spec(), &reference.ids);
    let longest = prompts[4].context.len() + 8;
    let scorer = PromptScorer::new(&model, longest).unwrap();
    let alone = PromptBatching::new(gpu, model.spec(), longest).sharing(false);
    let alone = PromptScorer::batched(&model, alone).unwrap();
    let without = model.spec().layers.len() / 2;
    let without =
        [format!("mha:{without}"), format!("mlp:{without}")].iter().map(|block| block.parse().unwrap()).collect();
    for removed in [BlockSet::new(), without] {
        let expected = by_windows(&model, &prompts, &removed);
        assert_agree(&format!("{name} without {removed}"), &score(&scorer, &prompts, &removed), &expected);
        assert_agree(&format!("{name} without {removed}, not shared"), &score(&alone, &prompts, &removed), &expected);
    }
}

#[test]
fn every_fixture_agrees_with_its_windows() {
    let gpu = open(&GpuOptions::default());
    // GGUF files become the same models.
    for name in fixture_names().into_iter().filter(|name| !name.starts_with("gguf-")) {
        check(&gpu, &name);
    }
}

#[test]
fn every_kernel_agrees_with_its_windows() {
    on_all(each_kernel(), |_, options| {
        let gpu = open(&options);
        ["qwen2-bf16", "gpt2", "gemma3"].iter().for_each(|name| check(&gpu, name));
    });
}

fn tiny() -> (Rc<Checkpoint>, Vec<u32>) {
    let checkpoint = Rc::new(block_on(Checkpoint::open("builtin:tiny")).unwrap());
    let text = "The cat sat on the mat and looked at the moon. It was a long night, and nobody came to the door of the house \
                where the old man lived with his three sons, who had gone to sea a year before and never came back again.";
    let ids = blockpruner::generate::prompt_ids(&checkpoint, text).unwrap();
    (checkpoint, ids)
}

fn load(checkpoint: &Checkpoint) -> Rc<DeviceModel> {
    let gpu = open(&GpuOptions::default());
    Rc::new(block_on(DeviceModel::load(gpu, checkpoint, &mut |_, _| {})).unwrap())
}

/// What comes of a prompt does not depend on what it is padded to, on how many batches there are at a time, or on streaming.
#[test]
fn batches_change_no_bit() {
    let (checkpoint, ids) = tiny();
    let model = load(&checkpoint);
    let prompts = prompts(model.spec(), &ids);
    let removed: BlockSet = ["mha:1".parse().unwrap()].into_iter().collect();
    let expected = score(&PromptScorer::new(&model, LONGEST).unwrap(), &prompts, &removed);
    let alone = PromptScorer::new(&model, LONGEST).unwrap();
    for (prompt, expected) in prompts.iter().zip(&expected).filter(|(prompt, _)| !prompt.continuations.is_empty()) {
        assert_eq!(&score(&alone, std::slice::from_ref(prompt), &removed)[0], expected);
    }
    let streamed = open(&GpuOptions::default());
    let streamed = block_on(DeviceModel::stream(streamed, &checkpoint, &mut |_, _| {})).unwrap();
    let (gpu, spec) = (model.gpu(), model.spec());
    let usual = PromptBatching::new(gpu, spec, LONGEST);
    let smallest = usual.smaller(gpu, spec).last().unwrap();
    assert!(smallest.bytes(gpu, spec) < usual.bytes(gpu, spec));
    let many = prompts.iter().cycle().take(20 * prompts.len()).cloned().collect::<Vec<_>>();
    for batching in [smallest, smallest.within(gpu, spec, 3 * smallest.bytes(gpu, spec))] {
        for model in [&model, &streamed] {
            let found = score(&PromptScorer::batched(model, batching).unwrap(), &many, &removed);
            found.chunks(prompts.len()).for_each(|found| assert_eq!(found, expected));
        }
    }
}

#[test]
fn greedy_continuations_are_those_that_are_generated() {
    let (checkpoint, ids) = tiny();
    let model = load(&checkpoint);
    let removed: BlockSet = ["mlp:2".parse().unwrap()].into_iter().collect();
    let context = ids[..12].to_vec();
    let mut generator =
        Generator::new(model.clone(), removed.clone(), context.clone(), GenerateOptions::max_tokens(6)).unwrap();
    let greedy: Vec<u32> = (0..6).map(|_| block_on(generator.next()).unwrap().unwrap()).collect();
    let changed = |at: usize| {
        let mut tokens = greedy.clone();
        tokens[at] = (tokens[at] + 1) % model.spec().vocab_size as u32;
        tokens
    };
    let continuations = vec![greedy.clone(), greedy[..1].to_vec(), changed(0), changed(3), changed(5)];
    let found = score(&PromptScorer::new(&model, 18).unwrap(), &[Prompt { context, continuations }], &removed);
    let is_greedy: Vec<bool> = found[0].iter().map(|likelihood| likelihood.is_greedy).collect();
    assert_eq!(is_greedy, [true, true, false, false, false]);
    assert!(found[0].iter().all(|likelihood| likelihood.log_likelihood < 0.0));
}

#[test]
fn unusable_prompts_are_named() {
    let (checkpoint, ids) = tiny();
    let model = load(&checkpoint);
    let scorer = PromptScorer::new(&model, 20).unwrap();
    let good = Prompt { context: ids[..3].to_vec(), continuations: vec![ids[3..5].to_vec()] };
    let refused =
        |bad: Prompt| block_on(scorer.score(&[good.clone(), bad], &BlockSet::new(), &mut |_, _| {})).err().unwrap();
    let error = refused(Prompt { context: Vec::new(), ..good.clone() });
    assert_eq!(error.to_string(), "prompt 1 has no token in its context; at least one is needed");
    let error = refused(Prompt { continuations: vec![vec![1], vec![]], ..good.clone() });
    assert_eq!(error.to_string(), "prompt 1 has no token in continuation 1; at least one is needed");
    let error = refused(Prompt { context: ids[..19].to_vec(), ..good.clone() });
    assert!(matches!(error, ScoreError::PromptTooLong { prompt: 1, tokens: 21, most: 20 }), "{error}");
    let vocab_size = model.spec().vocab_size;
    let error = refused(Prompt { context: vec![vocab_size as u32], ..good.clone() });
    assert!(matches!(error, ScoreError::PromptVocabulary { prompt: 1, .. }), "{error}");
    let error = PromptScorer::new(&model, 70_000).err().unwrap();
    assert!(matches!(error, ScoreError::WindowTooLong { window: 70_000, .. }), "{error}");
}
