//! The fast search against the literal one: the same bits, whatever the memory, and less work.

use std::rc::Rc;

use blockpruner::export::PlanStatus;
use blockpruner::gpu::{Gpu, GpuOptions};
use blockpruner::model::{Checkpoint, DeviceModel, device_needs};
use blockpruner::score::Scorer;
use blockpruner::search::{
    self, Arithmetic, BlockTypes, CandidateState, MemoryError, MemoryPlan, Reason, SearchState, Units,
};
use blockpruner::session::{Event, Search, Session};
use blockpruner::text::{CalibrationText, Windows};
use blockpruner_tests::{SMOLLM2, fixture, greedy, open, options};
use pollster::block_on;

fn tiny(window: usize, count: usize) -> (Rc<Checkpoint>, Windows) {
    let checkpoint = block_on(Checkpoint::builtin_tiny()).unwrap();
    let text = CalibrationText::builtin_sample();
    let windows = Windows::cut(&text, checkpoint.tokenizer().unwrap(), window, Some(count)).unwrap();
    (Rc::new(checkpoint), windows)
}

/// What must not depend on how it was computed: order and winners' perplexities, bit for bit.
fn result(state: &SearchState) -> Vec<(String, u64)> {
    state.steps.iter().map(|step| (step.removed.to_string(), step.perplexity.to_bits())).collect()
}

/// Every perplexity and every bound of `fast` against the exhaustive search's.
fn assert_consistent(fast: &SearchState, exhaustive: &SearchState) {
    assert_eq!(result(fast), result(exhaustive));
    for (fast, all) in fast.steps.iter().zip(&exhaustive.steps) {
        assert_eq!(fast.candidates.len(), all.candidates.len());
        for (found, expected) in fast.candidates.iter().zip(&all.candidates) {
            assert_eq!(found.unit, expected.unit);
            let exact = expected.perplexity.unwrap();
            match found.state {
                CandidateState::Complete => assert_eq!(found.perplexity, Some(exact), "{}", found.unit),
                CandidateState::Bounded => {
                    let bound = found.at_least.unwrap();
                    assert!(fast.perplexity < bound && bound <= exact * 1.00001, "{}: {bound}, {exact}", found.unit);
                }
                other => panic!("{}: {other:?}", found.unit),
            }
        }
    }
}

/// The budgets that make the plan stream, with and without room for likely tokens, advance one candidate at a time, or do
/// without kept prefixes.
fn budgets(gpu: &Rc<Gpu>, checkpoint: &Checkpoint, windows: &Windows) -> Vec<u64> {
    let options = options(3, BlockTypes::Mix, "exact");
    let plan = |budget| MemoryPlan::new(gpu, checkpoint, windows, Some(&options), budget);
    let Err(MemoryError::TooSmall { needed, .. }) = plan(Some(1)) else { panic!("one byte is enough?") };
    let all = plan(None).unwrap();
    let (mut streamed, mut likely, mut wave, mut prefixes) = (false, false, false, false);
    let mut budgets = Vec::new();
    for budget in (needed..all.total()).step_by(1 << 14).chain([all.total()]) {
        let plan = plan(Some(budget)).unwrap();
        assert!(plan.total() <= budget);
        let new = (plan.streamed && !streamed)
            || (plan.streamed && plan.likely_head && !likely)
            || (!plan.streamed && !wave)
            || (plan.keeps_prefixes && !prefixes);
        if new {
            budgets.push(budget);
        }
        streamed |= plan.streamed;
        likely |= plan.streamed && plan.likely_head;
        wave |= !plan.streamed;
        prefixes |= plan.keeps_prefixes;
    }
    assert!(streamed && likely && wave && prefixes, "a path is not tried");
    budgets
}

#[test]
fn the_fast_search_is_the_published_one() {
    let (checkpoint, windows) = tiny(32, 4);
    let gpu = open(&GpuOptions::default());
    let search = |strategy, budget| greedy(&gpu, &checkpoint, &windows, &options(3, BlockTypes::Mix, strategy), budget);
    let (_, exhaustive) = search("exhaustive", None);
    let (memory, fast) = search("exact", None);
    assert!(memory.keeps_prefixes && !memory.streamed, "{memory:?}");
    assert_consistent(&fast, &exhaustive);
    let states = |step: usize| fast.steps[step].candidates.iter().map(|candidate| candidate.state);
    assert!(states(0).all(|state| state == CandidateState::Complete), "the first step is complete");
    let bounded = states(1).chain(states(2)).filter(|state| *state == CandidateState::Bounded).count();
    assert!(bounded >= 10, "only {bounded} candidates were dropped");
    let work = |state: &SearchState| {
        let sum = |of: fn(&blockpruner::search::Step) -> u64| state.steps.iter().map(of).sum::<u64>() as f64;
        (sum(|step| step.work.block_tokens), sum(|step| step.work.head_tokens))
    };
    let ((blocks, heads), (all_blocks, all_heads)) = (work(&fast), work(&exhaustive));
    println!("blocks {:.3}, heads {:.3}, {bounded} dropped", blocks / all_blocks, heads / all_heads);
    assert!(blocks <= 0.53 * all_blocks && heads < 0.9 * all_heads);
    for budget in budgets(&gpu, &checkpoint, &windows) {
        let (memory, state) = search("exact", Some(budget));
        println!("{budget} bytes: {memory:?}");
        assert_consistent(&state, &exhaustive);
    }
}

/// On a real model, which is downloaded once; skipped without a network. Two steps, so that the second one drops candidates.
fn smollm2(window: usize, count: usize, block_types: BlockTypes) {
    let Some(file) = SMOLLM2.fetch_or_skip() else { return };
    let checkpoint = Rc::new(block_on(Checkpoint::open(&file.to_string_lossy())).unwrap());
    let text = CalibrationText::builtin_sample();
    let windows = Windows::cut(&text, checkpoint.tokenizer().unwrap(), window, Some(count)).unwrap();
    let gpu = open(&device_needs(&checkpoint));
    let search = |strategy| greedy(&gpu, &checkpoint, &windows, &options(2, block_types, strategy), None).1;
    assert_consistent(&search("exact"), &search("exhaustive"));
}

#[test]
fn the_fast_search_is_the_published_one_on_smollm2() {
    smollm2(16, 1, BlockTypes::Mlp);
}

#[test]
#[ignore = "a quarter of an hour on two cores"]
fn the_fast_search_is_the_published_one_on_four_windows_of_smollm2() {
    smollm2(256, 4, BlockTypes::Mix);
}

/// Many windows in several batches, some of which run together, and the smallest shards.
#[test]
fn batches_and_shards_change_nothing() {
    let (checkpoint, windows) = tiny(64, 18);
    let whole = open(&GpuOptions::default());
    let sharded = open(&GpuOptions::default().max_binding_bytes(1));
    let mlp = |strategy| options(2, BlockTypes::Mlp, strategy);
    let (_, exhaustive) = greedy(&whole, &checkpoint, &windows, &mlp("exhaustive"), None);
    let (memory, fast) = greedy(&sharded, &checkpoint, &windows, &mlp("exact"), None);
    assert_consistent(&fast, &exhaustive);
    let exact = mlp("exact");
    let plan = |budget| MemoryPlan::new(&whole, &checkpoint, &windows, Some(&exact), Some(budget));
    let Err(MemoryError::TooSmall { needed, .. }) = plan(1) else { panic!("one byte is enough?") };
    // Room for all candidates in two batches at a time, but not for the weights.
    let mut budget = needed;
    while plan(budget).unwrap().wave < 12 {
        budget += 1 << 16;
    }
    let (streamed, state) = greedy(&whole, &checkpoint, &windows, &mlp("exact"), Some(budget));
    println!("{memory:?}\n{streamed:?}");
    assert_consistent(&state, &exhaustive);
}

#[test]
fn fixtures_are_searched_the_same_in_any_memory() {
    let gpu = open(&GpuOptions::default());
    for name in ["qwen2-bf16", "llama-f16-sharded", "gguf-legacy"] {
        let (checkpoint, reference) = fixture(name);
        let windows = Windows::from_ids(reference.ids, reference.window, None).unwrap();
        let search = |strategy, budget| {
            let options = options(2, BlockTypes::Mix, strategy);
            greedy(&gpu, &checkpoint, &windows, &options, budget)
        };
        let (_, exhaustive) = search("exhaustive", None);
        let exact = options(2, BlockTypes::Mix, "exact");
        let plan = MemoryPlan::new(&gpu, &checkpoint, &windows, Some(&exact), Some(1));
        let Err(MemoryError::TooSmall { needed, .. }) = plan else { panic!("{name}: one byte is enough?") };
        let (memory, least) = search("exact", Some(needed));
        assert!(memory.streamed && memory.total() == needed, "{name}: {memory:?}");
        assert_consistent(&least, &exhaustive);
        assert_consistent(&search("exact", None).1, &exhaustive);
    }
}

/// A race may end in another result, but what it says is true.
#[test]
fn races_say_what_they_did() {
    // Windows for every heat; and fewer, so that the race opens with the beginning of the first.
    for (window, count) in [(32, 16), (128, 4)] {
        race(window, count);
    }
}

fn race(window: usize, count: usize) {
    let (checkpoint, windows) = tiny(window, count);
    let gpu = open(&GpuOptions::default());
    let search = |strategy| greedy(&gpu, &checkpoint, &windows, &options(1, BlockTypes::Mix, strategy), None).1;
    let (exact, raced) = (search("exact"), search("racing"));
    let step = &raced.steps[0];
    let all = exact.steps[0].candidates.iter().zip(&step.candidates);
    let (mut dropped, mut soonest) = (0, u64::MAX);
    for (exact, raced) in all {
        match raced.state {
            CandidateState::Complete => assert_eq!(exact.perplexity, raced.perplexity, "{}", raced.unit),
            CandidateState::Raced => {
                dropped += 1;
                soonest = soonest.min(raced.head_tokens);
                assert!(raced.perplexity.is_none() && raced.at_least.is_none());
                assert!(matches!(raced.reason, Some(Reason::Behind { .. })), "{:?}", raced.reason);
            }
            other => panic!("{}: {other:?}", raced.unit),
        }
    }
    assert!(dropped >= 8, "only {dropped} candidates were dropped");
    assert!(soonest < 128, "the first candidates were dropped after {soonest} of {} tokens", windows.ids.len());
    assert!(step.work.head_tokens < exact.steps[0].work.head_tokens);
}

/// A fixture's model whose layers' branches read the same states.
fn with_parallel_layers(name: &str, layers: &[usize]) -> (Rc<Checkpoint>, Windows) {
    let (mut checkpoint, reference) = fixture(name);
    let model = Rc::get_mut(&mut checkpoint).unwrap();
    layers.iter().for_each(|layer| model.spec.layers[*layer].parallel = true);
    let windows = Windows::from_ids(reference.ids.clone(), reference.window, None).unwrap();
    (checkpoint, windows)
}

/// Layers with parallel branches are one step of the sweep: the same choices and bits as the literal loop's, and a layer whose
/// other block is gone is as a sequential one.
#[test]
fn parallel_branches_are_searched_exactly() {
    let gpu = open(&GpuOptions::default());
    for layers in [&[0, 1, 2][..], &[1]] {
        let (checkpoint, windows) = with_parallel_layers("llama-f32", layers);
        let steps = |strategy| {
            let (_, state) = greedy(&gpu, &checkpoint, &windows, &options(4, BlockTypes::Mix, strategy), None);
            result(&state)
        };
        assert_eq!(steps("exact"), steps("exhaustive"), "layers {layers:?}");

        let nll = |checkpoint: &Checkpoint, removed: &str| {
            let model = block_on(DeviceModel::load(gpu.clone(), checkpoint, &mut |_, _| {})).unwrap();
            let scorer = Scorer::new(&model, &windows).unwrap();
            block_on(scorer.nll(&removed.parse().unwrap())).unwrap()
        };
        let (sequential, _) = fixture("llama-f32");
        assert_ne!(nll(&checkpoint, "mha:0"), nll(&sequential, "mha:0"), "layer 1 has both blocks");
        let one_of_each = "mlp:0,mha:1,mlp:2";
        assert_eq!(nll(&checkpoint, one_of_each), nll(&sequential, one_of_each));
    }
}

/// Pairs and layers, too: the literal loop's result whatever the memory, an ordinary model after every step, and a search that
/// was saved after any wave ends in the same steps.
#[test]
fn pairs_and_layers_are_searched_exactly() {
    let (checkpoint, windows) = tiny(32, 2);
    let gpu = open(&GpuOptions::default());
    for units in [Units::Pairs, Units::Layers] {
        let options = |strategy| options(2, BlockTypes::Mix, strategy).units(units);
        let search = |strategy, budget| greedy(&gpu, &checkpoint, &windows, &options(strategy), budget);
        let (_, exhaustive) = search("exhaustive", None);
        let counts: Vec<_> = exhaustive.steps.iter().map(|step| step.candidates.len()).collect();
        assert_eq!(counts, if units == Units::Pairs { [23, 21] } else { [12, 11] });
        for steps in 1..=2 {
            let removed = exhaustive.steps[..steps].iter().flat_map(|step| step.removed.blocks()).collect();
            assert_eq!(checkpoint.spec.plain_layers(&removed).unwrap().len(), 12 - steps, "{units}: {removed}");
        }
        let (memory, fast) = search("exact", None);
        assert!(memory.keeps_prefixes && !memory.streamed, "{memory:?}");
        assert_consistent(&fast, &exhaustive);
        for budget in budgets(&gpu, &checkpoint, &windows) {
            let (memory, state) = search("exact", Some(budget));
            println!("{units}, {budget} bytes: {memory:?}");
            assert_consistent(&state, &exhaustive);
        }
        let (_, raced) = search("racing", None);
        assert_eq!(raced.steps.len(), 2);

        let session = Rc::new(Session::builder(checkpoint.clone()).with_gpu(gpu.clone()));
        let start = |saved: Option<&[u8]>| block_on(session.search(windows.clone(), options("exact"), saved)).unwrap();
        let (mut whole, mut saved) = (start(None), Vec::new());
        while let Some(event) = block_on(whole.next()).unwrap() {
            if matches!(event, Event::Found(search::Event::Wave { .. })) {
                saved.push(whole.save().to_json());
            }
        }
        assert!(saved.len() >= 2, "{} waves", saved.len());
        for saved in saved.iter().step_by(saved.len().div_ceil(3)) {
            let mut resumed = start(Some(saved.as_bytes()));
            while block_on(resumed.next()).unwrap().is_some() {}
            assert_eq!(result(resumed.state()), result(&fast));
            let work = |state: &SearchState| state.steps.iter().map(|step| step.work).collect::<Vec<_>>();
            assert_eq!(work(resumed.state()), work(whole.state()), "{units}");
        }
    }
}

/// Where branches are parallel, pairs are layers.
#[test]
fn pairs_of_parallel_branches_are_layers() {
    let (checkpoint, reference) = fixture("phi");
    let windows = Windows::from_ids(reference.ids, reference.window, None).unwrap();
    let gpu = open(&GpuOptions::default());
    let search = |strategy, units| {
        greedy(&gpu, &checkpoint, &windows, &options(1, BlockTypes::Mix, strategy).units(units), None).1
    };
    let layers = search("exhaustive", Units::Layers);
    assert_consistent(&search("exact", Units::Pairs), &layers);
    assert!(checkpoint.spec.plain_layers(&layers.removed()).is_some());
}

/// What was told is what was done: a search waits between two events, whatever waits natively for the device, so that it can be
/// stopped, saved and gone on with.
#[test]
fn a_search_waits_until_it_is_asked() {
    let (checkpoint, windows) = tiny(64, 2);
    let session = Rc::new(Session::builder(checkpoint).with_gpu(open(&GpuOptions::default())));
    let start = |saved: Option<&[u8]>| {
        block_on(session.search(windows.clone(), options(2, BlockTypes::Mha, "exact"), saved)).unwrap()
    };
    let next = |search: &mut Search| block_on(search.next()).unwrap();
    let mut whole = start(None);
    while next(&mut whole).is_some() {}

    let mut search = start(None);
    while !matches!(next(&mut search), Some(Event::Found(search::Event::Dense(_)))) {
        assert!(search.state().dense.is_none(), "the whole model is scored before that is told");
    }
    while !matches!(next(&mut search), Some(Event::Found(search::Event::Step(_)))) {
        assert!(search.state().steps.is_empty(), "a step is finished before that is told");
    }
    assert_eq!(search.state().steps.len(), 1);
    let saved = search.save().to_json();
    search.stop();
    assert!(next(&mut search).is_none() && !search.is_finished());

    let mut resumed = start(Some(saved.as_bytes()));
    while next(&mut resumed).is_some() {}
    assert!(resumed.is_finished());
    let steps = |search: &Search| result(search.state());
    assert_eq!(steps(&resumed), steps(&whole));
    assert_eq!(resumed.plan().order(), whole.plan().order());

    // A plan can be gone on with, too, and the beginning of a search is a search.
    assert_eq!(search.plan().status, PlanStatus::Stopped);
    let plan = search.plan().to_json();
    let mut extended = start(Some(plan.as_bytes()));
    while next(&mut extended).is_some() {}
    assert_eq!((steps(&extended), extended.plan().status), (steps(&whole), PlanStatus::Finished));
    let saved = whole.save();
    let json = saved.to_json();
    let one = session.search(windows.clone(), options(1, BlockTypes::Mha, "exact"), Some(json.as_bytes()));
    let mut one = block_on(one).unwrap();
    assert!(one.is_finished() && one.is_cut() && next(&mut one).is_none());
    assert_eq!((steps(&one), one.save()), (steps(&whole)[..1].to_vec(), saved));
}

/// What a search is said to take: the share that is done never falls, and the arithmetic is foreseen within a factor of two as
/// soon as a time is said.
#[test]
fn costs_are_foreseen() {
    let (checkpoint, windows) = tiny(32, 4);
    for (name, budget) in [("exact", None), ("racing", None), ("exhaustive", None), ("exact", Some(8_500_000))] {
        let session = Session::builder(checkpoint.clone()).memory_budget(budget);
        let session = Rc::new(session.with_gpu(open(&GpuOptions::default())));
        let mut search = block_on(session.search(windows.clone(), options(3, BlockTypes::Mix, name), None)).unwrap();
        let arithmetic = Arithmetic::new(&checkpoint.spec, windows.window);
        let (mut done, mut foreseen) = (0.0, None);
        while let Some(event) = block_on(search.next()).unwrap() {
            let Some(cost) = search.cost() else { continue };
            assert!(cost.done() >= done && cost.done() <= 1.0, "{name}: {event:?}");
            done = cost.done();
            let (state, last) = (search.state(), search.state().steps.last().map(|step| step.work));
            let so_far = arithmetic.flops(&(last.unwrap_or_default() + state.work));
            // A time may be said within the first wave, where that takes long; its work is told at its end.
            if let (None, Some(seconds), true) = (foreseen, cost.seconds_left(), so_far > 0.0) {
                assert!(seconds.is_finite() && seconds > 0.0, "{name}: {seconds}");
                foreseen = Some(so_far / done);
            }
        }
        assert_eq!((done, search.cost().unwrap().passes()), (1.0, 24 + 23 + 22), "{name}");
        let all: f64 = search.state().steps.iter().map(|step| arithmetic.flops(&step.work)).sum();
        let off = foreseen.unwrap() / all;
        println!("{name}: {off:.2} of the arithmetic was foreseen");
        assert!((0.5..2.0).contains(&off), "{name}: {off}");
    }
}
