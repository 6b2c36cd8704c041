//! The strategies that the search is compared with: their measures against Hugging Face transformers, their orders, resuming.

use std::collections::BTreeMap;
use std::rc::Rc;

use blockpruner::export::Plan;
use blockpruner::gpu::{Gpu, GpuOptions, KernelChoice};
use blockpruner::model::Checkpoint;
use blockpruner::search::{
    self, Arithmetic, BlockTypes, CandidateState, MemoryError, MemoryPlan, Random, SearchOptions, SearchState, Step,
    Unit, Units,
};
use blockpruner::session::{Event, Search, Session};
use blockpruner::text::{CalibrationText, Windows};
use blockpruner_tests::{fixture, fixture_folder, greedy, open, options};
use pollster::block_on;
use serde::Deserialize;

const ONCE: [&str; 4] = ["one-shot", "short-gpt", "cosine", "relative-magnitude"];

fn tiny(window: usize, count: usize) -> (Rc<Checkpoint>, Windows) {
    let checkpoint = block_on(Checkpoint::builtin_tiny()).unwrap();
    let text = CalibrationText::builtin_sample();
    let windows = Windows::cut(&text, checkpoint.tokenizer().unwrap(), window, Some(count)).unwrap();
    (Rc::new(checkpoint), windows)
}

/// A search by the strategy of a name, for units that it knows.
fn wanted(remove: usize, name: &str, units: Units) -> SearchOptions {
    options(remove, BlockTypes::Mix, name).units(units)
}

fn ends(mut search: Search) -> Search {
    while block_on(search.next()).unwrap().is_some() {}
    search
}

/// Everything of a step but its time.
fn result(state: &SearchState) -> Vec<Step> {
    state.steps.iter().cloned().map(|step| Step { seconds: 0.0, ..step }).collect()
}

fn removed(state: &SearchState) -> Vec<Unit> {
    state.steps.iter().map(|step| step.removed).collect()
}

/// The units of a step by their values; of equals, the first of the candidates first.
fn ranked(step: &Step) -> Vec<Unit> {
    let mut candidates: Vec<_> =
        step.candidates.iter().map(|candidate| (candidate.value.unwrap(), candidate.unit)).collect();
    candidates.sort_by(|one, other| one.0.total_cmp(&other.0));
    candidates.into_iter().map(|(_, unit)| unit).collect()
}

/// What PyTorch says that blocks make of the states; `tests/reference/state_changes.py` documents the fields.
#[derive(Deserialize)]
struct Change {
    cosine_distance: f64,
    relative_magnitude: f64,
}

/// Every measure of every kind of unit, where blocks follow one another and where they are parallel, by both forms of kernels.
#[test]
fn measures_are_those_of_transformers() {
    let devices = [open(&GpuOptions::default()), open(&GpuOptions::default().kernel(KernelChoice::Tile))];
    // Of blocks, pairs and layers two values each, and of layers a third.
    let counts = [2 * (6 + 5 + 3) + 3, 2 * (4 + 2) + 2];
    let fixtures = [("llama-f32", &Units::ALL[..]), ("phi", &[Units::Blocks, Units::Layers])];
    for ((name, units), count) in fixtures.into_iter().zip(counts) {
        let (checkpoint, reference) = fixture(name);
        let windows = Windows::from_ids(reference.ids, reference.window, None).unwrap();
        let json = std::fs::read(fixture_folder(name).join("changes.json")).unwrap();
        let expected: BTreeMap<String, Change> = serde_json::from_slice(&json).unwrap();
        for gpu in &devices {
            let mut compared = 0;
            for units in units {
                for strategy in ["short-gpt", "cosine", "relative-magnitude"] {
                    if strategy == "short-gpt" && *units != Units::Layers {
                        continue;
                    }
                    let (_, state) = greedy(gpu, &checkpoint, &windows, &wanted(1, strategy, *units), None);
                    for candidate in &state.steps[0].candidates {
                        let expected = &expected[&candidate.unit.to_string()];
                        let expected = match strategy {
                            "relative-magnitude" => expected.relative_magnitude,
                            _ => expected.cosine_distance,
                        };
                        let off = (candidate.value.unwrap() - expected).abs();
                        assert!(
                            off < 1e-5,
                            "{name}, {strategy}: {} is {:?}, not {expected}",
                            candidate.unit,
                            candidate.value
                        );
                        compared += 1;
                    }
                    assert_eq!(state.steps[0].removed, ranked(&state.steps[0])[0], "{name}, {strategy}, {units}");
                }
            }
            assert_eq!(compared, count, "{name}");
        }
    }
}

/// The order of the first step's values; one-shot's first step is the published one's. Every step has the perplexity of what is
/// left, and more weights on the device than there is room for change nothing.
#[test]
fn what_is_measured_once_decides_the_order() {
    let (checkpoint, windows) = tiny(32, 2);
    let gpu = open(&GpuOptions::default());
    let (_, exhaustive) = greedy(&gpu, &checkpoint, &windows, &wanted(1, "exhaustive", Units::Blocks), None);
    for name in ONCE {
        let units = if name == "short-gpt" { Units::Layers } else { Units::Blocks };
        let search = |budget| greedy(&gpu, &checkpoint, &windows, &wanted(4, name, units), budget);
        let (memory, state) = search(None);
        let ranking = ranked(&state.steps[0]);
        assert_eq!(removed(&state), ranking[..4], "{name}");
        if name == "one-shot" {
            assert_eq!(ranking, ranked(&exhaustive.steps[0]));
        }
        for (step, unit) in state.steps.iter().zip(&ranking) {
            let measured = step.candidates.iter().filter(|candidate| candidate.perplexity.is_some()).count();
            assert!(measured == 1 || (name == "one-shot" && step.step == 1), "{name}, step {}", step.step);
            let of = |state: &SearchState| {
                let candidates = state.steps[0].candidates.iter();
                candidates.clone().find(|candidate| candidate.unit == *unit).and_then(|candidate| candidate.value)
            };
            assert_eq!(Some(step.value), of(&state), "{name}, step {}", step.step);
        }
        let least = MemoryPlan::new(&gpu, &checkpoint, &windows, Some(&wanted(4, name, units)), Some(1));
        let Err(MemoryError::TooSmall { needed, .. }) = least else { panic!("{name}: one byte is enough?") };
        let (streamed, same) = search(Some(needed));
        assert_eq!(streamed.total(), needed, "{name}");
        assert!(streamed.streamed && !memory.streamed, "{name}: {streamed:?}");
        assert_eq!(removed(&same), removed(&state), "{name}");
        for (one, other) in state.steps.iter().zip(&same.steps) {
            assert_eq!(
                (one.value, one.perplexity, &one.candidates),
                (other.value, other.perplexity, &other.candidates)
            );
        }
    }
}

/// A draw is its seed's, and the shorter one begins the longer.
#[test]
fn chance_is_seeded() {
    let (checkpoint, windows) = tiny(16, 1);
    let gpu = open(&GpuOptions::default());
    let draw = |remove, seed| {
        let options = SearchOptions::remove(remove).strategy(Random::new(seed));
        removed(&greedy(&gpu, &checkpoint, &windows, &options, None).1)
    };
    let first = draw(5, 1);
    assert_eq!((draw(5, 1), draw(2, 1)), (first.clone(), first[..2].to_vec()));
    assert_ne!(draw(5, 2), first);
}

/// Every kind of units that a strategy knows, and of blocks every type: a plan that is consistent, an arithmetic that is foreseen,
/// and a search that was stopped after any event ends in the same steps without measuring again.
#[test]
fn every_combination_runs_and_resumes() {
    let (checkpoint, windows) = tiny(16, 2);
    let session = Rc::new(Session::builder(checkpoint.clone()).with_gpu(open(&GpuOptions::default())));
    let arithmetic = Arithmetic::new(&checkpoint.spec, windows.window);
    for name in ONCE.into_iter().chain(["random"]) {
        let known = |units: &Units| name != "short-gpt" || *units == Units::Layers;
        let of_units = Units::ALL.into_iter().filter(known).map(|units| wanted(3, name, units));
        let types = [BlockTypes::Mha, BlockTypes::Mlp].map(|types| options(3, types, name));
        for options in of_units.chain(types.into_iter().filter(|_| name != "short-gpt")) {
            let start =
                |saved: Option<&[u8]>| block_on(session.search(windows.clone(), options.clone(), saved)).unwrap();
            let (mut search, mut saved, mut done, mut foreseen) = (start(None), Vec::new(), 0.0, None);
            while let Some(event) = block_on(search.next()).unwrap() {
                if matches!(event, Event::Found(search::Event::Wave { .. } | search::Event::Step(_))) {
                    saved.push(search.save().to_json());
                }
                let Some(cost) = search.cost() else { continue };
                assert!(cost.done() >= done && cost.done() <= 1.0, "{name}: {event:?}");
                done = cost.done();
                foreseen = foreseen.or((done > 0.0 && !search.state().steps.is_empty()).then(|| cost.whole_passes()));
            }
            let state = search.state();
            let what = format!("{name}, {}, {}", options.units, options.block_types);
            assert_eq!((state.steps.len(), done), (3, 1.0), "{what}");
            let all: f64 = state.steps.iter().map(|step| arithmetic.flops(&step.work)).sum();
            let passes = search.cost().unwrap().whole_passes();
            let off = foreseen.unwrap() / passes;
            assert!(all > 0.0 && (0.5..2.0).contains(&off), "{what}: {off}");
            let plan = search.plan();
            assert_eq!(Plan::parse("x", plan.to_json().as_bytes()).unwrap(), plan, "{what}");
            assert!(plan.settings.approximate && plan.settings.strategy == name, "{what}");
            for saved in saved.iter().step_by(2) {
                assert_eq!(result(ends(start(Some(saved.as_bytes()))).state()), result(state), "{what}");
            }
            let other =
                block_on(session.search(windows.clone(), wanted(3, "exact", options.units), Some(saved[0].as_bytes())));
            assert!(other.err().unwrap().to_string().contains(&format!("strategy {name}")), "{what}");
        }
    }
    let error = wanted(3, "short-gpt", Units::Blocks).check(&checkpoint.spec).unwrap_err();
    assert!(error.to_string().contains("short-gpt removes layers, not blocks"), "{error}");
}

/// Pairs that have become neighbours are measured when no other is left, so that a model can be taken apart to the end.
#[test]
fn new_pairs_are_measured_when_no_other_is_left() {
    let (checkpoint, reference) = fixture("llama-f32");
    let windows = Windows::from_ids(reference.ids, reference.window, Some(1)).unwrap();
    let gpu: Rc<Gpu> = open(&GpuOptions::default());
    for name in ["one-shot", "cosine"] {
        let (_, state) = greedy(&gpu, &checkpoint, &windows, &wanted(3, name, Units::Pairs), None);
        assert_eq!(state.removed().len(), 6, "{name}");
        for step in &state.steps {
            for candidate in &step.candidates {
                let left_out = candidate.state == CandidateState::Raced;
                assert!(
                    left_out == candidate.value.is_none() && !(left_out && step.step == 1),
                    "{name}: {candidate:?}"
                );
            }
        }
    }
}
