//! Damaged files, wrong requests, a lost device and an interrupted search: clear errors, no panic, no lost work.

use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;

use blockpruner::gpu::{GpuError, GpuOptions};
use blockpruner::model::{BlockSet, Checkpoint, DeviceModel, ForwardError, ModelError};
use blockpruner::score::{ScoreError, Scorer};
use blockpruner::search::{BlockTypes, Event, MemoryPlan, SearchError, SearchOptions, SearchState, search};
use blockpruner::text::{CalibrationText, TextError, TextOptions, Windows};
use blockpruner::weights::{ByteSource, BytesSource};
use blockpruner_tests::{fixture, fixture_folder, open, options};
use pollster::block_on;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// A copy of a fixture that may be damaged.
fn copy() -> TempDir {
    let folder = TempDir::new().unwrap();
    for entry in std::fs::read_dir(fixture_folder("llama-f32")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn open_folder(folder: &Path) -> Result<Checkpoint, ModelError> {
    block_on(Checkpoint::open(&folder.to_string_lossy()))
}

/// Rewrites model.safetensors: 8 bytes of header length, the JSON header, the data.
fn change_weights(folder: &Path, change: impl FnOnce(&mut Map<String, Value>, &mut [u8])) {
    let path = folder.join("model.safetensors");
    let file = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header: Map<String, Value> = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let mut data = file[8 + length..].to_vec();
    change(&mut header, &mut data);
    let mut text = serde_json::to_vec(&header).unwrap();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend(text);
    file.extend(data);
    std::fs::write(path, file).unwrap();
}

#[track_caller]
fn assert_says(error: &impl ToString, parts: &[&str]) {
    let error = error.to_string();
    for part in parts {
        assert!(error.contains(part), "`{error}` does not say `{part}`");
    }
}

#[track_caller]
fn assert_refused(folder: &Path, parts: &[&str]) {
    match open_folder(folder) {
        Ok(_) => panic!("the folder was opened"),
        Err(error) => assert_says(&error, parts),
    }
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let name = "model.layers.1.mlp.up_proj.weight";
    for bad in [f32::NAN, f32::INFINITY] {
        let folder = copy();
        change_weights(folder.path(), |header, data| {
            let start = header[name]["data_offsets"][0].as_u64().unwrap() as usize;
            data[start + 40..start + 44].copy_from_slice(&bad.to_le_bytes());
        });
        let checkpoint = open_folder(folder.path()).unwrap();
        let loaded = block_on(DeviceModel::load(open(&GpuOptions::default()), &checkpoint, &mut |_, _| {}));
        assert_says(&loaded.err().unwrap(), &[name, "model.safetensors", "not finite"]);
    }
}

#[test]
fn tensors_that_are_missing_or_misshapen_are_named() {
    let name = "model.layers.2.self_attn.k_proj.weight";
    let folder = copy();
    change_weights(folder.path(), |header, _| {
        let tensor = header.remove(name).unwrap();
        header.insert("something.else".into(), tensor);
    });
    assert_refused(folder.path(), &[name, "missing"]);

    let folder = copy();
    change_weights(folder.path(), |header, _| {
        let shape = header[name]["shape"].as_array_mut().unwrap();
        shape.reverse();
    });
    assert_refused(folder.path(), &[name, "[72, 24]", "[24, 72]"]);
}

#[test]
fn truncated_files_are_refused() {
    let folder = copy();
    let path = folder.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 4, 8, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_refused(folder.path(), &["model.safetensors"]);
    }
    // A GGUF header that promises tensors, cut off at every length.
    let path = folder.path().join("model.gguf");
    let mut header = b"GGUF".to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend(5u64.to_le_bytes());
    header.extend(u64::MAX.to_le_bytes());
    for length in 0..=header.len() {
        std::fs::write(&path, &header[..length]).unwrap();
        assert_refused(&path, &["model.gguf"]);
    }
}

/// Opens what may be damaged and does with it what every command does up to the device; the outcome does not matter.
fn use_up_to_the_device(opened: Result<Checkpoint, ModelError>) {
    let Ok(checkpoint) = opened else { return };
    for info in checkpoint.weights.iter() {
        let _ = block_on(checkpoint.weights.read_rows(&info.name, 0..info.rows()));
    }
    if let Ok(tokenizer) = checkpoint.tokenizer() {
        let _ = tokenizer.encode("t1 t2 <s> \u{e9}\n\n12").and_then(|ids| tokenizer.decode(&ids));
    }
    let _ = checkpoint.spec.parameters();
}

/// Every byte of a header and some of the data are changed, one at a time: by one bit or, every other one, by all. The fuzz
/// targets try more of them.
fn flipped(bytes: &[u8], header: usize) -> impl Iterator<Item = Vec<u8>> {
    let data = (header..bytes.len()).step_by(bytes.len() / 50);
    (0..header).chain(data).map(|place| {
        let mut damaged = bytes.to_vec();
        damaged[place] ^= if place % 2 == 0 { 1 << (place / 2 % 8) } else { 0xff };
        damaged
    })
}

#[test]
fn flipped_bits_of_gguf_files_never_panic() {
    for (name, header) in [("gguf-qwen2", 7552), ("gguf-rope-freqs", 7328)] {
        let bytes = std::fs::read(fixture_folder(name).join("model.gguf")).unwrap();
        for damaged in flipped(&bytes, header) {
            let source = Rc::new(BytesSource::new("model.gguf", damaged));
            use_up_to_the_device(block_on(Checkpoint::from_gguf("model", source)));
        }
    }
}

/// What the file says of the model stands before its tokenizer.
#[test]
fn flipped_bits_of_other_families_gguf_metadata_never_panic() {
    for name in ["gguf-gemma3", "gguf-falcon-new", "gguf-phi3-longrope", "gguf-olmo3", "gguf-granite"] {
        let bytes = std::fs::read(fixture_folder(name).join("model.gguf")).unwrap();
        let tokenizer = b"tokenizer.ggml";
        let header = bytes.windows(tokenizer.len()).position(|window| window == tokenizer).unwrap();
        for damaged in flipped(&bytes, header) {
            let source = Rc::new(BytesSource::new("model.gguf", damaged));
            use_up_to_the_device(block_on(Checkpoint::from_gguf("model", source)));
        }
    }
}

#[test]
fn flipped_bits_of_folders_never_panic() {
    let names = ["config.json", "tokenizer.json", "model.safetensors"];
    let files = names.map(|name| std::fs::read(fixture_folder("llama-f32").join(name)).unwrap());
    let open_with = |changed: &str, damaged: &[u8]| {
        let source = |(name, bytes): (&&str, &Vec<u8>)| {
            let bytes = if *name == changed { damaged.to_vec() } else { bytes.clone() };
            let source: Rc<dyn ByteSource> = Rc::new(BytesSource::new(*name, bytes));
            (name.to_string(), source)
        };
        block_on(Checkpoint::from_folder_files("model", names.iter().zip(&files).map(source).collect()))
    };
    for (name, bytes) in names.iter().zip(&files) {
        let header = if *name == "model.safetensors" {
            8 + usize::from(bytes[0]) + 256 * usize::from(bytes[1])
        } else {
            bytes.len()
        };
        for damaged in flipped(bytes, header) {
            use_up_to_the_device(open_with(name, &damaged));
        }
    }
}

#[test]
fn tensors_of_gguf_files_that_are_missing_or_misshapen_are_named() {
    let bytes = std::fs::read(fixture_folder("gguf-legacy").join("model.gguf")).unwrap();
    let (stored, name) = (b"blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight");
    let place = bytes.windows(stored.len()).position(|window| window == stored).unwrap();
    let error = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = bytes.clone();
        change(&mut bytes[place..]);
        let source = Rc::new(BytesSource::new("model.gguf", bytes));
        block_on(Checkpoint::from_gguf("model", source)).err().unwrap()
    };
    assert_says(&error(&|entry| entry[0] = b'x'), &["model.gguf", name, "missing"]);
    // Behind the name: the number of dimensions (u32) and the dimensions (u64), innermost first.
    let (inner, outer) = (stored.len() + 4, stored.len() + 12);
    let size = u64::from_le_bytes(bytes[place + outer..place + outer + 8].try_into().unwrap());
    let error = error(&|entry| entry[outer..outer + 8].copy_from_slice(&(size - 1).to_le_bytes()));
    let columns = u64::from_le_bytes(bytes[place + inner..place + inner + 8].try_into().unwrap());
    let shape = |rows| format!("[{rows}, {columns}]");
    assert_says(&error, &["model.gguf", name, &shape(size - 1), &shape(size)]);
}

#[test]
fn missing_configuration_is_named() {
    let keys =
        ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "model_type"];
    for key in keys {
        let folder = copy();
        let path = folder.path().join("config.json");
        let mut config: Map<String, Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config.remove(key).unwrap();
        std::fs::write(&path, json!(config).to_string()).unwrap();
        assert_refused(folder.path(), &[key, "config.json"]);
    }
}

#[test]
fn unfit_texts_and_counts_are_refused() {
    let (checkpoint, reference) = fixture("rope-linear");
    let gpu = open(&GpuOptions::default());
    let model = block_on(DeviceModel::load(gpu, &checkpoint, &mut |_, _| {})).unwrap();

    let windows = Windows::from_ids(vec![0, 101, 5, 7], 4, None).unwrap();
    let error = Scorer::new(&model, &windows).err().unwrap();
    assert!(matches!(error, ScoreError::Text(_)), "{error}");
    assert_says(&error, &["101"]);

    let text = CalibrationText::from_bytes("short.txt", b"t1 t2 t3", &TextOptions::default()).unwrap();
    let error = Windows::cut(&text, checkpoint.tokenizer().unwrap(), 64, None).err().unwrap();
    assert!(matches!(error, TextError::Window { .. }), "{error}");
    assert_says(&error, &["3", "64"]);

    let windows = Windows::from_ids(reference.ids, reference.window, Some(1)).unwrap();
    let scorer = Scorer::new(&model, &windows).unwrap();
    let options = SearchOptions::remove(5);
    let memory = MemoryPlan::new(model.gpu(), &checkpoint, &windows, Some(&options), None).unwrap();
    let mut observe = |_: Event, _: &SearchState| ControlFlow::Continue(());
    let found = block_on(search(&scorer, &options, &memory, SearchState::default(), &mut observe));
    assert!(matches!(found, Err(SearchError::TooMany { remove: 5, there: 4, .. })), "{found:?}");
}

#[test]
fn a_lost_device_is_an_error() {
    let (checkpoint, reference) = fixture("rope-linear");
    let gpu = open(&GpuOptions::default());
    let model = block_on(DeviceModel::load(gpu.clone(), &checkpoint, &mut |_, _| {})).unwrap();
    let windows = Windows::from_ids(reference.ids, reference.window, None).unwrap();
    let scorer = Scorer::new(&model, &windows).unwrap();
    gpu.destroy();
    let error = block_on(scorer.perplexity(&BlockSet::new())).err().unwrap();
    assert!(matches!(error, ScoreError::Forward(ForwardError::Gpu(GpuError::Lost { .. }))), "{error}");
}

/// Runs until the observer has been called `stop` times; the state that was saved then, as JSON, or the finished state.
fn run_until(
    scorer: &Scorer<'_>,
    options: &SearchOptions,
    memory: &MemoryPlan,
    state: SearchState,
    stop: usize,
) -> Result<SearchState, String> {
    let (mut calls, mut saved) = (0, serde_json::to_string(&state).unwrap());
    let result = block_on(search(scorer, options, memory, state, &mut |event, state| {
        calls += 1;
        if !matches!(event, Event::Progress { .. }) {
            saved = serde_json::to_string(state).unwrap();
        }
        if calls < stop { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }));
    match result {
        Ok(state) => Ok(state),
        Err(SearchError::Stopped) => Err(saved),
        Err(error) => panic!("{error}"),
    }
}

/// A search that is stopped anywhere and goes on from its saved state ends in the same steps, bit for bit, having done the
/// same work.
#[test]
fn a_stopped_search_resumes() {
    let checkpoint = block_on(Checkpoint::builtin_tiny()).unwrap();
    let model = block_on(DeviceModel::load(open(&GpuOptions::default()), &checkpoint, &mut |_, _| {})).unwrap();
    let text = CalibrationText::builtin_sample();
    let windows = Windows::cut(&text, checkpoint.tokenizer().unwrap(), 32, Some(2)).unwrap();
    for (strategy, block_types, keeps_prefixes, parts) in [
        // Of both kinds, what the first step removes has candidates before and behind it.
        ("exact", BlockTypes::Mix, true, 9),
        ("exact", BlockTypes::Mha, false, 5),
        ("racing", BlockTypes::Mix, true, 4),
        // In the waves of its first step, and after the values of the second.
        ("one-shot", BlockTypes::Mix, true, 5),
        ("cosine", BlockTypes::Mix, false, 5),
    ] {
        let options = options(2, block_types, strategy);
        let planned = MemoryPlan::new(model.gpu(), &checkpoint, &windows, Some(&options), None).unwrap();
        // Small waves: a step has several.
        let memory = MemoryPlan { keeps_prefixes, wave: 5, ..planned };
        let scorer = Scorer::batched(&model, &windows, memory.batching).unwrap();
        let whole = run_until(&scorer, &options, &memory, SearchState::default(), usize::MAX).unwrap();
        assert_eq!(whole.steps.len(), 2);
        let mut calls = 0;
        let mut count = |_: Event, _: &SearchState| {
            calls += 1;
            ControlFlow::Continue(())
        };
        block_on(search(&scorer, &options, &memory, SearchState::default(), &mut count)).unwrap();
        // In the dense pass, in the waves of both steps, and at the very end.
        for stop in (0..parts).map(|part| 1 + part * (calls - 1) / (parts - 1)) {
            let saved = run_until(&scorer, &options, &memory, SearchState::default(), stop).expect_err("not stopped");
            let state: SearchState = serde_json::from_str(&saved).unwrap();
            let resumed = run_until(&scorer, &options, &memory, state, usize::MAX).unwrap();
            assert_eq!(without_times(resumed), without_times(whole.clone()), "{memory:?} stopped at {stop}");
        }
    }
}

/// A state but for what differs from run to run.
fn without_times(mut state: SearchState) -> SearchState {
    state.steps.iter_mut().for_each(|step| step.seconds = 0.0);
    state.seconds = 0.0;
    state
}
