//! Greedy generation: its shaders against their CPU twins, and the fixtures' continuations against Hugging Face
//! transformers with its own KV cache (`generate.json`, made by `tests/reference/generate.py`).
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::rc::Rc;

use blockpruner::generate::{FinishReason, GenerateError, GenerateOptions, Generator};
use blockpruner::gpu::{Gpu, GpuOptions, Matrix, Operand, Recording};
use blockpruner::model::{BlockSet, DeviceModel};
use blockpruner_shaders::{GemmKernel, Kernel, WeightFormat, argmax, attention, cached, gemm, rotary, stride};
use blockpruner_tests::{assert_close, every_kernel, fixture, fixture_folder, fixture_names, open, random};
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
    let options = GenerateOptions { max_tokens: max, eos_token_ids: eos.to_vec() };
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
    for (label, options) in every_kernel() {
        let gpu = open(&options);
        // f32, tied bf16 with grouped queries, biases, a head_dim of 40, and frequencies that change on the way.
        for name in ["llama-f32", "llama-bf16-tied", "qwen2-bf16", "wide", "rope-dynamic", "rope-longrope"] {
            check(&gpu, &label, name);
        }
        println!("{label}: {} continues as transformers", gpu.gemm().name());
    }
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
        let options = GenerateOptions { max_tokens: 1, eos_token_ids: vec![] };
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

/// What a shader wrote as the left side of a product, seen by multiplying with the identity.
fn read_operand(gpu: &Gpu, storage: &blockpruner::gpu::Resource, rows: usize, columns: usize) -> Vec<f32> {
    let mut ones = vec![0.0f32; columns * columns];
    ones.iter_mut().step_by(columns + 1).for_each(|x| *x = 1.0);
    let mut identity = Matrix::new(WeightFormat::F32, columns as u32, columns as u32, None);
    for range in Matrix::shards(gpu, WeightFormat::F32, columns as u32, columns as u32).unwrap() {
        let part = &ones[range.start as usize * columns..range.end as usize * columns];
        identity.push(gpu, "identity", range, bytemuck::cast_slice(part)).unwrap();
    }
    let padded = columns.next_multiple_of(4);
    let bytes = gemm::output_bytes(gpu.gemm(), rows as u32, padded as u32);
    let output = gpu.readable("rows", bytes).unwrap();
    let mut recording = Recording::new();
    identity.record_product(gpu, &mut recording, &Operand::new(storage, rows as u32), &output);
    block_on(gpu.submit(&recording)).unwrap();
    let found = block_on(gpu.read(&output, bytes as usize / 4)).unwrap();
    let found = gemm::unpack_output(gpu.gemm(), rows as u32, padded as u32, &found);
    found.chunks(padded).flat_map(|row| &row[..columns]).copied().collect()
}

/// The positions `past..` of a window, appended and attended to in pieces of `rows`.
fn check_cached_attention(gpu: &Gpu, label: &str, head_dim: u32, window: u32, past: u32, rows: u32) {
    let (heads, kv_heads, half_dim) = (4, 2, head_dim / 2);
    let columns = (heads + 2 * kv_heads) * head_dim;
    let values: Vec<f32> = random(12, (window * columns) as usize).iter().map(|x| x * 2.0).collect();
    let inv_freq: Vec<f32> = (0..half_dim).map(|i| 1e4f32.powf(-(i as f32) / half_dim as f32)).collect();
    let table = rotary::table(&inv_freq, 1.25, window as usize);
    // What stands in a cache behind its positions must not count.
    let size = cached::cache_bytes(window + 3, kv_heads, head_dim);
    let rubbish = vec![7.0f32; size as usize / 4];
    let [keys, cached_values] = [(); 2].map(|()| gpu.upload("cache", bytemuck::cast_slice(&rubbish)).unwrap());
    let mut found = Vec::new();
    let mut first = 0;
    while first < window {
        let count = if first < past { past - first } else { rows.min(window - first) };
        let mut piece = Vec::new();
        for row in values[(first * columns) as usize..][..(count * columns) as usize].chunks(columns as usize) {
            piece.extend_from_slice(row);
            piece.resize(piece.len().next_multiple_of(4), 3.0);
        }
        let qkv = gpu.upload_readable("qkv", &gemm::pack_output(gpu.gemm(), stride(columns), &piece)).unwrap();
        let turns = &table[(first * half_dim) as usize..][..(count * half_dim) as usize];
        let turns = gpu.upload_readable("table", turns.as_flattened()).unwrap();
        let append = cached::AppendParams { rows: count, past: first, heads, kv_heads, stride: stride(columns) };
        let mut recording = Recording::new();
        let bindings = [turns.clone(), qkv.clone(), (&keys).into(), (&cached_values).into()];
        recording.dispatch(
            Kernel::CacheAppend { kernel: gpu.gemm(), head_dim },
            &append,
            bindings,
            append.grid(head_dim),
            1000,
        );
        let output_columns = heads * head_dim;
        let bytes = gemm::operand_bytes(gpu.gemm(), count, output_columns);
        let output = gpu.readable("operand", bytes).unwrap();
        if first >= past {
            let attend = cached::AttendParams {
                past: first,
                heads,
                share: heads / kv_heads,
                scale: 1.0 / (head_dim as f32).sqrt(),
                stride: stride(columns),
                output_stride: match gpu.gemm() {
                    GemmKernel::Tile { .. } => stride(output_columns),
                    GemmKernel::Panel { .. } => gemm::inner_texels(output_columns),
                },
            };
            let kernel = Kernel::CachedAttention { kernel: gpu.gemm(), head_dim };
            let bindings = [turns, qkv, (&keys).into(), (&cached_values).into(), output.clone()];
            recording.dispatch(kernel, &attend, bindings, [heads, count, 1], 1_000_000);
        }
        block_on(gpu.submit(&recording)).unwrap();
        if first >= past {
            found.extend(read_operand(gpu, &output, count as usize, output_columns as usize));
        }
        first += count;
    }
    let mut turned = values;
    let heads_to_turn = heads + kv_heads;
    let params = rotary::Params { rows: window, stride: columns, heads: heads_to_turn, half_dim, window };
    rotary::cpu(&params, &table, &mut turned);
    let expected =
        attention::cpu(&turned, window as usize, heads as usize, (heads / kv_heads) as usize, head_dim as usize);
    let expected = &expected[(past * heads * head_dim) as usize..];
    assert_close(
        &format!("{label}: cached attention, head_dim {head_dim}, {past} past, {rows} rows"),
        &found,
        expected,
    );
}

fn check_argmax(gpu: &Gpu, label: &str) {
    let vocabulary = 307;
    let mut texts: Vec<Vec<f32>> = (0..4).map(|seed| random(seed, vocabulary)).collect();
    // Ties within a chunk, over lanes and over chunks; all negative; the first and the last; all alike.
    for (at, value) in [(vec![7, 71, 150, 300], 5.0), (vec![306], 9.0), (vec![0], 9.0), (vec![64, 65], 2.0)] {
        let mut logits: Vec<f32> = random(40, vocabulary).iter().map(|x| x - 20.0).collect();
        at.into_iter().for_each(|index: usize| logits[index] = value);
        texts.push(logits);
    }
    texts.push(vec![-1.0; vocabulary]);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut logits = random(41, vocabulary);
        logits[200] = bad;
        texts.push(logits);
    }
    for (text, logits) in texts.iter().enumerate() {
        for step in [307, 100, 64, 306] {
            let best = gpu.storage("best", 16).unwrap();
            let mut recording = Recording::new();
            for first in (0..vocabulary).step_by(step) {
                let chunk = &logits[first..(first + step).min(vocabulary)];
                // What stands behind a chunk's logits must not count.
                let mut padded = [chunk, &[1e30; 5]].concat();
                padded.resize(padded.len().next_multiple_of(4), 1e30);
                let padded = gemm::pack_output(gpu.gemm(), padded.len() as u32, &padded);
                let padded = gpu.upload_readable("chunk", &padded).unwrap();
                let is_first = (first == 0) as u32;
                let params = argmax::Params { columns: chunk.len() as u32, first_token: first as u32, is_first };
                let kernel = Kernel::Argmax { kernel: gpu.gemm() };
                recording.dispatch(kernel, &params, [padded, (&best).into()], [1, 1, 1], 1000);
            }
            block_on(gpu.submit(&recording)).unwrap();
            let best = block_on(gpu.read(&best, 3)).unwrap();
            let found = (best[2] == 0.0).then_some(best[1] as u32);
            assert_eq!(found, argmax::cpu(logits), "{label}: text {text} in chunks of {step}");
        }
    }
}

#[test]
fn every_shader_agrees_with_its_cpu_twin() {
    for (label, options) in every_kernel() {
        let gpu = open(&options);
        check_argmax(&gpu, &label);
        let ragged: &[u32] = if gpu.gemm().is_panel() { &[] } else { &[6, 50] };
        for &head_dim in [24, 12, 32, 64, 40, 128, 256].iter().chain(ragged) {
            // One position at a time, several, and all at once; windows on both sides of a block of 64 keys.
            for (window, past, rows) in [(66, 60, 1), (43, 20, 7), (5, 0, 5)] {
                check_cached_attention(&gpu, &label, head_dim, window, past, rows);
            }
        }
        check_cached_attention(&gpu, &label, 24, 2051, 2050, 1);
        println!("{label}: {} agrees", gpu.gemm().name());
    }
}

/// The most positions that there can be, with the heads that take the most iterations: software drivers end a loop
/// after 65,535 of them without a word.
#[test]
fn the_longest_cache_is_read_to_its_end() {
    let gpu = open(&GpuOptions::default());
    let (positions, head_dim) = (cached::MOST_POSITIONS as usize, 256);
    let query: Vec<f32> = random(50, head_dim).iter().map(|x| x * 4.0).collect();
    let [keys, values] = [51, 52].map(|seed| random(seed, positions * head_dim));
    let buffer = |values: &[f32]| gpu.upload("floats", bytemuck::cast_slice(values)).unwrap();
    let no_turn: Vec<f32> = [1.0, 0.0].repeat(head_dim / 2);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let output_stride = match gpu.gemm() {
        GemmKernel::Tile { .. } => head_dim as u32,
        GemmKernel::Panel { .. } => gemm::inner_texels(head_dim as u32),
    };
    let past = positions as u32 - 1;
    let params = cached::AttendParams { past, heads: 1, share: 1, scale, stride: 3 * head_dim as u32, output_stride };
    let output = gpu.readable("operand", gemm::operand_bytes(gpu.gemm(), 1, head_dim as u32)).unwrap();
    let mut qkv = query.clone();
    qkv.resize(params.stride as usize, 0.0);
    let bindings = [
        gpu.upload_readable("table", &no_turn).unwrap(),
        gpu.upload_readable("query", &gemm::pack_output(gpu.gemm(), params.stride, &qkv)).unwrap(),
        (&buffer(&keys)).into(),
        (&buffer(&values)).into(),
        output.clone(),
    ];
    let mut recording = Recording::new();
    let kernel = Kernel::CachedAttention { kernel: gpu.gemm(), head_dim: head_dim as u32 };
    recording.dispatch(kernel, &params, bindings, [1, 1, 1], 1_000_000);
    block_on(gpu.submit(&recording)).unwrap();
    let found = read_operand(&gpu, &output, 1, head_dim);

    let score = |key: &[f32]| (key.iter().zip(&query).map(|(k, q)| k * q).sum::<f32>() * scale) as f64;
    let weights: Vec<f64> = keys.chunks(head_dim).map(|key| score(key).exp()).collect();
    let mut expected = vec![0.0f64; head_dim];
    for (weight, value) in weights.iter().zip(values.chunks(head_dim)) {
        expected.iter_mut().zip(value).for_each(|(sum, x)| *sum += weight * *x as f64);
    }
    let total: f64 = weights.iter().sum();
    let expected: Vec<f32> = expected.iter().map(|sum| (sum / total) as f32).collect();
    assert_close("cached attention to the longest cache", &found, &expected);
}
