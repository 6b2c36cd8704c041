#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use serde_json::{Map, Value, json};

use super::*;
use crate::model::family::stored;
use crate::model::{BlockId, BlockKind};

/// The smallest configuration that every family takes, with more or other keys.
fn config(family: &str, keys: Value) -> Map<String, Value> {
    let base = json!({
        "model_type": family, "hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 8,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 300,
        "max_position_embeddings": 256, "sliding_window": 32, "ffn_dim": 100, "norm_head": true,
    });
    let mut config = base.as_object().unwrap().clone();
    for (name, own) in ALL.iter().filter(|other| other.name == family).flat_map(|family| family.key_names) {
        if keys.get(own).is_some() {
            config.remove(*name);
        }
    }
    config.extend(keys.as_object().unwrap().clone());
    config
}

fn read(family: &str, keys: Value) -> Result<ModelSpec, ModelError> {
    ModelSpec::from_config(&config(family, keys))
}

fn refusal(family: &str, keys: Value) -> String {
    read(family, keys).unwrap_err().to_string()
}

/// For each layer, whether it slides and which rotary embedding it turns by.
fn layers(spec: &ModelSpec) -> Vec<(bool, Option<usize>)> {
    let of = |layer: &Layer| {
        let rope = match layer.attention.positions {
            Positions::Rope(index) => Some(index),
            Positions::None | Positions::Alibi(_) => None,
        };
        (layer.attention.sliding_window.is_some(), rope)
    };
    spec.layers.iter().map(of).collect()
}

#[test]
fn every_table_has_what_its_models_need() {
    for family in ALL {
        let spec = read(family.name, json!({})).unwrap();
        let attention = stored(&spec.block_tensors(BlockId::mha(0)));
        let feed_forward = stored(&spec.block_tensors(BlockId::mlp(0)));
        // A norm before, after or on both sides, and at least two matrices.
        assert!(attention.len() >= 3 && feed_forward.len() >= 3, "{family}: {attention:?} {feed_forward:?}");
        let inner: usize =
            attention.iter().filter(|(_, shape)| shape.len() == 2).map(|(_, shape)| shape[0] * shape[1] / 48).sum();
        let shape = &spec.layers[0].attention;
        assert_eq!(inner, shape.query_width() + 2 * shape.key_width() + 48, "{family}");
        let outer: Vec<String> = stored(&spec.outer_tensors()).into_iter().map(|(name, _)| name).collect();
        assert!(outer.contains(&spec.embedding_name()) && outer.contains(&spec.head_name()), "{family}: {outer:?}");

        // A norm that both read is of neither, and is there once.
        let family = spec.family;
        let shared = |name: &str| family.shared_norms().iter().any(|norm| name.contains(&format!(".{norm}.")));
        for kind in BlockKind::ALL {
            let block = BlockId { kind, layer: 3 };
            for tensor in spec.block_tensors(block) {
                let expected = (!shared(&tensor.name)).then_some(kind);
                assert_eq!(family.place(&tensor.name), Some((3, expected)), "{family}: {}", tensor.name);
            }
        }
        let needed: Vec<String> = spec.needed_tensors().map(|(name, _)| name).collect();
        assert!(needed.iter().all(|name| needed.iter().filter(|other| *other == name).count() == 1), "{family}");
        let (layers, attention) = (family.layers, family.modules(BlockKind::Mha)[0]);
        let frequencies = format!("{layers}.3.{attention}.rotary_emb.inv_freq");
        assert_eq!(family.place(&frequencies), Some((3, Some(BlockKind::Mha))), "{family}");
        assert_eq!(family.place(&format!("{layers}.3.note")), Some((3, None)), "{family}");
        assert_eq!(family.place(&spec.embedding_name()), None);
    }
}

/// What is counted of a norm that two blocks read, with one of them and without both.
#[test]
fn a_shared_norm_goes_with_the_second_block() {
    let spec = read("cohere2", json!({})).unwrap();
    let (mha, mlp) = (BlockId::mha(2), BlockId::mlp(2));
    let whole = spec.parameters();
    let norm = 48;
    let without = |blocks: &[BlockId]| whole - spec.parameters_without(&blocks.iter().copied().collect());
    assert_eq!(without(&[mha]), spec.block_parameters(mha) - norm);
    assert_eq!(without(&[mha, mlp]), spec.block_parameters(mha) + spec.block_parameters(mlp) - norm);
    let absent = |blocks: Value| read("cohere2", json!({"per_layer_config": {"2": {"skip": blocks}}})).unwrap();
    let has_norm =
        |spec: ModelSpec| spec.needed_tensors().any(|(name, _)| name == "model.layers.2.input_layernorm.weight");
    assert!(has_norm(absent(json!(["attention"]))) && has_norm(absent(json!(["mlp"]))));
    assert!(!has_norm(absent(json!(["attention", "mlp"]))));
}

/// The most heads and layers that a file may claim are listed in a moment, though each head has a norm of its own.
#[test]
fn norms_of_thousands_of_heads_are_listed() {
    let sizes = json!({
        "hidden_size": 8 * most::HEADS, "num_attention_heads": most::HEADS, "num_key_value_heads": most::HEADS,
        "num_hidden_layers": 32, "qk_layernorm": true,
    });
    let spec = read("stablelm", sizes).unwrap();
    let norms = spec.needed_tensors().filter(|(name, _)| name.contains("_layernorm.norms.")).count();
    assert_eq!(norms, 2 * 32 * most::HEADS);
}

#[test]
fn layers_are_parallel_by_each_familys_key() {
    let of = |family, keys| {
        let spec = read(family, keys).unwrap();
        let norm = spec.block_tensors(BlockId::mlp(1)).into_iter().find(|tensor| tensor.role == Role::FeedForwardNorm);
        let norm = norm.unwrap().name;
        (spec.layers.iter().all(|layer| layer.parallel), norm.rsplit('.').nth(1).unwrap().to_string())
    };
    let expect =
        |family, keys, parallel, norm: &str| assert_eq!(of(family, keys), (parallel, norm.to_string()), "{family}");
    expect("llama", json!({}), false, "post_attention_layernorm");
    expect("cohere2", json!({}), true, "input_layernorm");
    expect("phi", json!({}), true, "input_layernorm");
    expect("stablelm", json!({}), false, "post_attention_layernorm");
    expect("stablelm", json!({"use_parallel_residual": true}), true, "input_layernorm");
    expect("gpt_neox", json!({}), true, "post_attention_layernorm");
    expect("gpt_neox", json!({"use_parallel_residual": false}), false, "post_attention_layernorm");
    expect("falcon", json!({}), true, "input_layernorm");
    expect("falcon", json!({"parallel_attn": false}), false, "post_attention_layernorm");
    expect("falcon", json!({"new_decoder_architecture": true, "num_kv_heads": 2}), true, "ln_mlp");
    let one_norm = json!({"new_decoder_architecture": true, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1});
    expect("falcon", one_norm, true, "input_layernorm");
    let heads = |keys| read("falcon", keys).unwrap().layers[0].attention.kv_heads;
    assert_eq!(heads(json!({})), 1);
    assert_eq!(heads(json!({"multi_query": false})), 6);
    assert_eq!(heads(json!({"new_decoder_architecture": true, "num_kv_heads": 3})), 3);
}

/// Nothing says so directly, which model of Baichuan it is.
#[test]
fn models_of_baichuan_are_told_apart() {
    let of = |without: &str, keys: Value| {
        let mut config = config("baichuan", json!({}));
        config.extend(keys.as_object().unwrap().clone());
        config.retain(|key, _| key != "norm_head" && !without.split(' ').any(|gone| gone == key));
        let spec = ModelSpec::from_config(&config).map_err(|error| error.to_string())?;
        Ok::<_, String>((spec.max_positions, spec.layers[0].attention.positions, spec.head.unit_rows))
    };
    let (rope, alibi) = (Positions::Rope(0), Positions::Alibi(Alibi::Plain));
    let second = json!({"vocab_size": 125_696, "model_max_length": 512});
    assert_eq!(of("", json!({"vocab_size": 64_000})), Ok((256, rope, false)));
    assert_eq!(of("", second.clone()), Ok((256, rope, true)));
    assert_eq!(of("max_position_embeddings", second), Ok((512, alibi, true)));
    for (without, keys, key) in [
        ("max_position_embeddings", json!({"vocab_size": 64_000}), "`model_max_length`"),
        ("", json!({"vocab_size": 64_002}), "`norm_head`"),
    ] {
        let error = of(without, keys).unwrap_err();
        assert!(error.contains(key) && error.contains("missing"), "{error}");
    }
}

#[test]
fn tensors_of_several_roles_lie_one_below_the_other() {
    let spec = read("phi3", json!({})).unwrap();
    let rows: Vec<_> =
        spec.block_tensors(BlockId::mha(1)).into_iter().filter(|tensor| tensor.columns == Some(48)).collect();
    let [query, key, value, out] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!([&query.rows, &key.rows, &value.rows], [&(0..48), &(48..64), &(64..80)]);
    assert!(query.name == value.name && out.rows == (0..48));
    let names = stored(&spec.block_tensors(BlockId::mha(1)));
    assert_eq!(names[1], ("model.layers.1.self_attn.qkv_proj.weight".to_string(), vec![80, 48]));
    let parameters = spec.block_parameters(BlockId::mha(1));
    assert_eq!(parameters, read("llama", json!({})).unwrap().block_parameters(BlockId::mha(1)));
}

#[test]
fn layers_slide_and_turn_by_each_familys_rule() {
    let (full, slides) = ((false, Some(0)), (true, Some(0)));
    let of = |family, keys| layers(&read(family, keys).unwrap());
    assert_eq!(of("llama", json!({})), [full; 8]);
    assert_eq!(of("mistral", json!({})), [slides; 8]);
    assert_eq!(of("mistral", json!({"sliding_window": null})), [full; 8]);
    assert_eq!(of("phi3", json!({})), [slides; 8]);
    assert_eq!(of("ministral", json!({})), [slides; 8]);
    assert_eq!(of("gemma2", json!({}))[..3], [slides, full, slides]);
    let gemma3 = of("gemma3_text", json!({}));
    assert_eq!(gemma3[4..7], [(true, Some(1)), (false, Some(0)), (true, Some(1))]);
    assert_eq!(of("gemma3_text", json!({"sliding_window_pattern": 2}))[..2], [(true, Some(1)), (false, Some(0))]);
    assert_eq!(of("olmo3", json!({}))[2..5], [(true, Some(1)), (false, Some(0)), (true, Some(1))]);
    assert_eq!(of("exaone4", json!({}))[2..5], [slides, (false, None), slides]);
    assert_eq!(of("exaone4", json!({"sliding_window": null})), [full; 8]);
    assert_eq!(of("smollm3", json!({}))[2..5], [full, (false, None), full]);
    let every_other = json!({"no_rope_layers": [0, 1, 0, 1, 0, 1, 0, 1], "use_sliding_window": true});
    assert_eq!(of("smollm3", every_other)[..2], [(true, None), full]);
}

/// A text may be longer than those that the model was made for.
#[test]
fn windows_are_kept_that_are_longer_than_the_models_positions() {
    let window = |spec: &ModelSpec| spec.layers[0].attention.sliding_window;
    for family in ["mistral", "ministral", "gemma2", "gemma3_text", "phi3", "olmo3", "exaone4", "starcoder2", "cohere2"]
    {
        let of = |window: u64| read(family, json!({"sliding_window": window})).unwrap();
        assert_eq!((window(&of(256)), window(&of(1 << 20))), (Some(256), Some(1 << 20)), "{family}");
        assert_eq!(window(&of(1 << 40)), Some(most::POSITIONS as u32), "{family}");
        assert_eq!(window(&of(256).without_unfilled_windows()), None);
        assert_eq!(window(&of(255).without_unfilled_windows()), Some(255));
    }
    // Such a model is as good as a Llama.
    let mistral = |window: u64| read("mistral", json!({"sliding_window": window})).unwrap();
    assert!(deci::of_spec(&mistral(255)).is_none());
    assert_eq!(deci::of_spec(&mistral(256)).map(|spec| window(&spec)), Some(None));
}

/// Layers that are listed slide, whatever else is said (transformers masks by the list).
#[test]
fn listed_layers_of_smollm3_slide() {
    let types = ["sliding_attention", "full_attention"].repeat(4);
    let of = |keys| layers(&read("smollm3", keys).unwrap()).iter().map(|(slides, _)| *slides).collect::<Vec<_>>();
    for use_them in [json!(false), json!(true), json!(null)] {
        let slides = of(json!({"layer_types": types.clone(), "use_sliding_window": use_them}));
        assert_eq!(slides, [true, false].repeat(4));
    }
    assert!(refusal("smollm3", json!({"layer_types": types, "sliding_window": null})).contains("`sliding_window`"));
    assert_eq!(of(json!({"use_sliding_window": true, "sliding_window": null})), [false; 8]);
}

/// One activation has several names, and the same ones everywhere.
#[test]
fn gelu_by_tanh_has_many_names() {
    let of = |family, key: &str, name: &str| read(family, json!({key: name})).unwrap().layers[0].dense().activation;
    for name in ["gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate", "gelu_python_tanh"] {
        for (family, key) in [
            ("gpt_neox", "hidden_act"),
            ("gpt2", "activation_function"),
            ("opt", "activation_function"),
            ("phi", "hidden_act"),
            ("starcoder2", "hidden_act"),
            ("gemma", "hidden_act"),
            ("gemma3_text", "hidden_activation"),
        ] {
            assert_eq!(of(family, key, name), Activation::GeluTanh, "{family}: {name}");
        }
    }
    assert_eq!(of("gpt_neox", "hidden_act", "gelu"), Activation::Gelu);
    assert_eq!(of("gemma", "hidden_act", "gelu"), Activation::GeluTanh);
}

/// GPT-NeoX has names of its own outside, and the usual ones inside, where these count.
#[test]
fn rotary_settings_of_gpt_neox_are_those_that_transformers_takes() {
    let of = |keys| {
        let rope = read("gpt_neox", keys).unwrap().ropes.remove(0);
        (rope.theta, rope.rotated)
    };
    assert_eq!(of(json!({})), (10_000.0, 2));
    assert_eq!(of(json!({"rotary_emb_base": 77, "rotary_pct": 0.5})), (77.0, 4));
    assert_eq!(of(json!({"rotary_emb_base": 77, "rope_theta": 77, "partial_rotary_factor": 0.25})), (77.0, 2));
    let inside = json!({"rope_theta": 5, "partial_rotary_factor": 1.0, "rope_type": "default"});
    assert_eq!(of(json!({"rope_parameters": inside, "rotary_emb_base": 77, "rope_theta": 9})), (5.0, 8));
}

#[test]
fn numbers_are_where_their_familys_keys_put_them() {
    let granite = json!({
        "embedding_multiplier": 12.0, "attention_multiplier": 0.015625, "residual_multiplier": 0.22, "logits_scaling": 8.0,
    });
    let spec = read("granite", granite).unwrap();
    assert_eq!((spec.embedding.scale, spec.head.scale, spec.layers[0].attention.scale), (12.0, 0.125, 0.015625));
    assert_eq!((spec.layers[7].dense().branch.scale, spec.layers[7].attention.branch.scale), (0.22, 0.22));
    assert_eq!(read("granite", json!({})).unwrap().layers[0].attention.scale, 1.0);

    let spec = read("gemma2", json!({"final_logit_softcapping": null, "query_pre_attn_scalar": 64})).unwrap();
    let attention = &spec.layers[0].attention;
    assert_eq!((attention.soft_cap, spec.head.soft_cap, attention.scale), (Some(50.0), None, 0.125));
    assert_eq!(spec.embedding.scale, 48f32.sqrt());
    assert_eq!(spec.layers[0].dense().activation, Activation::GeluTanh);
    // Stored, but not applied there.
    let spec = read("gemma3_text", json!({"attn_logit_softcapping": 50.0})).unwrap();
    assert_eq!(spec.layers[0].attention.soft_cap, None);

    let spec = read("glm4", json!({})).unwrap();
    assert_eq!((spec.ropes[0].rotated, spec.final_norm.eps), (4, 1.5625e-7));
    assert_eq!(read("glm4", json!({"partial_rotary_factor": null})).unwrap().ropes[0].rotated, 8);
    assert_eq!(read("phi3", json!({"partial_rotary_factor": 0.75})).unwrap().ropes[0].rotated, 6);
    let qwen3 = config("qwen3", json!({"head_dim": 0}));
    let without: Map<_, _> = qwen3.into_iter().filter(|(key, _)| key != "head_dim").collect();
    assert_eq!(ModelSpec::from_config(&without).unwrap().layers[0].attention.head_dim, 128);
    assert_eq!(read("seed_oss", json!({"head_dim": null})).unwrap().layers[0].attention.head_dim, 8);
}

#[test]
fn positions_are_a_table() {
    let outer = |spec: &ModelSpec| stored(&spec.outer_tensors());
    let spec = read("gpt2", json!({"n_positions": 100})).unwrap();
    assert!(outer(&spec).contains(&("transformer.wpe.weight".to_string(), vec![100, 48])));
    assert!(spec.ropes.is_empty() && layers(&spec) == [(false, None); 8]);
    let spec = read("opt", json!({})).unwrap();
    assert!(outer(&spec).contains(&("model.decoder.embed_positions.weight".to_string(), vec![258, 48])));
    spec.check_window(256).unwrap();
    let error = spec.check_window(257).unwrap_err().to_string();
    assert!(error.contains("257") && error.contains("256 positions") && error.contains("shorter window"), "{error}");
    read("llama", json!({})).unwrap().check_window(257).unwrap();
}

/// Matrices that are stored by columns lie side by side, where others lie one below the other.
#[test]
fn gpt2_holds_matrices_by_columns() {
    let spec = read("gpt2", json!({})).unwrap();
    let attention = stored(&spec.block_tensors(BlockId::mha(1)));
    let shape =
        |name: &str| &attention.iter().find(|(other, _)| other == &format!("transformer.h.1.{name}")).unwrap().1;
    assert_eq!(shape("attn.c_attn.weight"), &[48, 144]);
    assert_eq!(shape("attn.c_attn.bias"), &[144]);
    assert_eq!(spec.family.modules(BlockKind::Mlp), ["mlp"]);
    let scales =
        |keys| read("gpt2", keys).unwrap().layers.iter().map(|layer| layer.attention.scale).collect::<Vec<_>>();
    assert_eq!(scales(json!({"scale_attn_weights": false})), [1.0; 8]);
    assert_eq!(scales(json!({"scale_attn_by_inverse_layer_idx": true}))[3], 1.0 / 8f32.sqrt() / 4.0);
}

#[test]
fn a_block_of_opt_is_two_modules_of_its_layer() {
    let spec = read("opt", json!({})).unwrap();
    assert_eq!(spec.family.modules(BlockKind::Mha), ["self_attn"]);
    assert_eq!(spec.family.modules(BlockKind::Mlp), ["fc1", "fc2"]);
    assert_eq!(spec.family.place("model.decoder.layers.3.fc2.bias"), Some((3, Some(BlockKind::Mlp))));
}

#[test]
fn longrope_texts_of_phi3_start_anew_where_the_factors_change() {
    let factors = json!({"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 2, 3, 4]});
    let keys = json!({"rope_scaling": factors, "original_max_position_embeddings": 64});
    assert_eq!(read("phi3", keys.clone()).unwrap().restarts_after, Some(64));
    assert_eq!(read("llama", keys).unwrap().restarts_after, None, "cached keys stay turned");
    assert_eq!(read("phi3", json!({})).unwrap().restarts_after, None);
}

#[test]
fn what_changes_the_result_and_is_not_built_is_refused_by_name() {
    for (family, keys, parts) in [
        ("qwen3", json!({"hidden_act": "gelu"}), ["`hidden_act`", "\"gelu\""]),
        ("gemma2", json!({"hidden_activation": "gelu"}), ["`hidden_activation`", "gelu_pytorch_tanh"]),
        ("gemma3_text", json!({"use_bidirectional_attention": true}), ["`use_bidirectional_attention`", "before it"]),
        ("mistral", json!({"sliding_window": 1}), ["`sliding_window`", "at least 2"]),
        ("mistral", json!({"layer_types": vec!["full_attention"; 8]}), ["`layer_types`", "all layers slide"]),
        ("gemma2", json!({"layer_types": vec!["chunked_attention"; 8]}), ["`layer_types`", "chunked_attention"]),
        ("gemma2", json!({"attn_logit_softcapping": 0}), ["`attn_logit_softcapping`", "greater than 0"]),
        ("qwen3", json!({"partial_rotary_factor": 0.5}), ["`partial_rotary_factor`", "whole head"]),
        ("glm4", json!({"partial_rotary_factor": 0.4}), ["`partial_rotary_factor`", "even number"]),
        ("glm4", json!({"partial_rotary_factor": 1.5}), ["`partial_rotary_factor`", "1.5"]),
        ("olmo3", json!({"rope_parameters": {"rope_theta": 1e4}}), ["rope_parameters.rope_theta", "full_attention"]),
        ("qwen3", json!({"rope_parameters": {"full_attention": {}}}), ["rope_parameters.full_attention", "share"]),
        ("smollm3", json!({"no_rope_layers": [1, 0]}), ["`no_rope_layers`", "a list of 2"]),
        ("smollm3", json!({"no_rope_layers": [2, 2, 2, 2, 2, 2, 2, 2]}), ["`no_rope_layers`", "0 and 1"]),
        (
            "exaone4",
            json!({"layer_types": vec!["sliding_attention"; 8], "sliding_window": null}),
            ["`sliding_window`", "missing"],
        ),
        ("exaone4", json!({"sliding_window_pattern": "LLLG"}), ["`sliding_window_pattern`", "whole number"]),
        ("ministral3", json!({}), ["`model_type`", "ministral3"]),
        ("qwen3_moe", json!({}), ["`model_type`", "qwen3_moe"]),
        ("gemma3", json!({}), ["`text_config`", "missing"]),
        (
            "falcon",
            json!({"new_decoder_architecture": true, "num_kv_heads": 2, "parallel_attn": false}),
            ["`parallel_attn`", "must be parallel"],
        ),
        ("gpt_neox", json!({"rotary_pct": 1.5}), ["`rotary_pct`", "1.5"]),
        ("gpt_neox", json!({"rotary_pct": 0.4}), ["`rotary_pct` is 0.4", "even number"]),
        ("gpt_neox", json!({"head_dim": 20}), ["`rotary_pct` is 0.25, as it is left out", "share of 20 dimensions"]),
        ("stablelm", json!({"head_dim": 20}), ["`partial_rotary_factor` is 0.25, as it is left out", "even number"]),
        ("gpt_neox", json!({"rope_theta": 5e5}), ["`rope_theta` is 500000", "rotary_emb_base, which is 10000"]),
        (
            "gpt_neox",
            json!({"partial_rotary_factor": 0.5, "rotary_pct": 1.0}),
            ["`partial_rotary_factor` is 0.5", "rotary_pct, which is 1"],
        ),
        ("olmo3", json!({"rope_scaling": {"type": "yarn", "factor": 8.0}}), ["`rope_scaling.type`", "rope_type"]),
        (
            "olmo3",
            json!({"rope_scaling": {"rope_type": "yarn", "factor": 8.0, "truncate": false}}),
            ["`rope_scaling.truncate`", "whole dimensions"],
        ),
        (
            "gemma3_text",
            json!({"rope_scaling": {"rope_type": "yarn", "factor": 8.0}, "original_max_position_embeddings": 32}),
            ["`original_max_position_embeddings` is 32", "same value"],
        ),
        (
            "qwen2",
            json!({"layer_types": vec!["sliding_attention"; 8]}),
            ["`layer_types`", "use_sliding_window is true"],
        ),
        ("cohere2", json!({"sliding_window": null}), ["`sliding_window`", "the window of the layers that slide"]),
        ("gpt2", json!({"n_embd": 45, "n_head": 3}), ["`n_embd` is 45, and each of the 3 heads 15 wide", "even"]),
        ("phi", json!({"qk_layernorm": true}), ["`qk_layernorm`", "must not be normed"]),
        ("phi", json!({"tie_word_embeddings": true}), ["`tie_word_embeddings`", "bias"]),
        ("gpt2", json!({"n_layer": 0}), ["`n_layer` is 0", "from 1 to"]),
        ("gpt2", json!({"activation_function": "quick_gelu"}), ["`activation_function`", "gelu_new, "]),
        ("gpt2", json!({"add_cross_attention": true}), ["`add_cross_attention`", "second text"]),
        ("opt", json!({"do_layer_norm_before": false}), ["`do_layer_norm_before`", "opt-350m"]),
        ("opt", json!({"word_embed_proj_dim": 24}), ["`word_embed_proj_dim` is 24", "as wide as the layers, 48"]),
    ] {
        let error = refusal(family, keys.clone());
        assert!(parts.iter().all(|part| error.contains(part)), "{family} {keys}: {error}");
    }
}

/// What becomes of a key of config.json.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Decision {
    /// It changes what is computed.
    Read,
    /// Its value asks for what is not built.
    Refused,
    /// It does not matter here: it is for training, for other outputs, or the family has no such key.
    Ignored,
}

use Decision::{Ignored, Read, Refused};

const EVERY: &str = "llama qwen2 mistral ministral qwen3 smollm3 granite seed_oss ernie4_5 gemma gemma2 gemma3_text phi3 \
    olmo2 olmo3 glm4 exaone4 starcoder2 nemotron stablelm cohere2 phi gpt_neox falcon gpt2 opt baichuan";

/// Those of them whose attention turns queries and keys.
const TURNING: &str = "llama qwen2 mistral ministral qwen3 smollm3 granite seed_oss ernie4_5 gemma gemma2 gemma3_text phi3 \
    olmo2 olmo3 glm4 exaone4 starcoder2 nemotron stablelm cohere2 phi gpt_neox falcon baichuan";

/// A key, a value of it, and what becomes of it in which families.
type DecidedKey = (&'static str, Value, &'static [(&'static str, Decision)]);

/// The keys that the configuration classes and models of transformers 5.23 read for these families (and those that older
/// versions wrote), each with a value that is not the default, and for which families it is decided how: the first list that
/// names one counts. For a family that is not named, a key is ignored.
fn keys() -> Vec<DecidedKey> {
    const ALL_READ: &[(&str, Decision)] = &[(EVERY, Read)];
    const ALL_REFUSED: &[(&str, Decision)] = &[(EVERY, Refused)];
    const NONE: &[(&str, Decision)] = &[];
    const TURNING_READ: &[(&str, Decision)] = &[(TURNING, Read)];
    const TURNING_REFUSED: &[(&str, Decision)] = &[(TURNING, Refused)];
    let scaling = |kind: &str| json!({"rope_type": kind, "factor": 2.0});
    vec![
        ("vocab_size", json!(400), ALL_READ),
        ("hidden_size", json!(96), ALL_READ),
        ("intermediate_size", json!(64), &[("falcon gpt2 opt", Ignored), (EVERY, Read)]),
        ("n_inner", json!(64), &[("gpt2", Read)]),
        ("ffn_dim", json!(64), &[("opt", Read)]),
        ("ffn_hidden_size", json!(64), &[("falcon", Read)]),
        ("num_hidden_layers", json!(6), ALL_READ),
        ("n_embd", json!(96), &[("gpt2", Read)]),
        ("n_embed", json!(96), &[("falcon", Read)]),
        ("n_layer", json!(6), &[("gpt2", Read)]),
        ("n_head", json!(4), &[("gpt2", Read)]),
        ("n_positions", json!(512), &[("gpt2", Read)]),
        ("n_ctx", json!(512), NONE),
        ("num_attention_heads", json!(4), ALL_READ),
        ("num_key_value_heads", json!(3), &[("gpt_neox falcon gpt2 opt baichuan", Ignored), (EVERY, Read)]),
        ("multi_query", json!(false), &[("falcon", Read)]),
        ("multi_query", json!(null), &[("falcon", Read)]),
        ("new_decoder_architecture", json!(true), &[("falcon", Read)]),
        ("parallel_attn", json!(false), &[("falcon", Read)]),
        ("parallel_attn", json!(null), &[("falcon", Read)]),
        ("use_parallel_residual", json!(true), &[("stablelm", Read)]),
        ("use_parallel_residual", json!(false), &[("gpt_neox", Read)]),
        ("head_dim", json!(16), &[("gpt2 opt", Ignored), (EVERY, Read)]),
        // Of heads that turn nothing, too.
        ("head_dim", json!(15), &[("gpt2 opt", Ignored), (EVERY, Refused)]),
        ("max_position_embeddings", json!(512), ALL_READ),
        (
            "rms_norm_eps",
            json!(1e-3),
            &[("starcoder2 nemotron stablelm cohere2 phi gpt_neox falcon gpt2 opt", Ignored), (EVERY, Read)],
        ),
        ("layer_norm_eps", json!(1e-3), &[("stablelm cohere2 phi gpt_neox", Read)]),
        ("layer_norm_epsilon", json!(1e-3), &[("falcon gpt2", Read)]),
        ("norm_epsilon", json!(1e-3), &[("starcoder2", Read)]),
        ("norm_eps", json!(1e-3), &[("nemotron", Read)]),
        ("bos_token_id", json!(17), ALL_READ),
        ("eos_token_id", json!([18, 19]), ALL_READ),
        (
            "tie_word_embeddings",
            json!(true),
            &[
                (
                    "llama qwen2 mistral ministral qwen3 granite seed_oss phi3 olmo2 olmo3 glm4 exaone4 nemotron stablelm gpt_neox",
                    Read,
                ),
                ("phi baichuan", Refused),
            ],
        ),
        (
            "tie_word_embeddings",
            json!(false),
            &[("smollm3 ernie4_5 gemma gemma2 gemma3_text starcoder2 cohere2 falcon gpt2 opt", Read)],
        ),
        (
            "hidden_act",
            json!("relu"),
            &[
                ("gpt_neox", Read),
                (
                    "llama qwen2 mistral ministral qwen3 smollm3 granite seed_oss ernie4_5 gemma phi3 olmo2 olmo3 glm4 exaone4 \
                 starcoder2 nemotron stablelm cohere2 phi baichuan",
                    Refused,
                ),
            ],
        ),
        (
            "hidden_act",
            json!("gelu_fast"),
            &[
                ("gpt_neox", Read),
                ("gemma starcoder2 phi gemma2 gemma3_text falcon gpt2 opt", Ignored),
                (EVERY, Refused),
            ],
        ),
        ("hidden_act", json!("tanh"), &[("gemma2 gemma3_text falcon gpt2 opt", Ignored), (EVERY, Refused)]),
        ("activation", json!("relu"), &[("falcon", Refused)]),
        ("activation_function", json!("silu"), &[("gpt2 opt", Read)]),
        ("activation_function", json!("tanh"), &[("gpt2 opt", Refused)]),
        ("hidden_activation", json!("relu"), &[("gemma2 gemma3_text", Refused)]),
        (
            "attention_bias",
            json!(true),
            &[("llama qwen3 smollm3 granite gemma gemma2 gemma3_text olmo2 olmo3 nemotron cohere2", Read)],
        ),
        ("attention_bias", json!(false), &[("seed_oss glm4 gpt_neox", Read)]),
        ("use_qkv_bias", json!(true), &[("stablelm", Read)]),
        ("bias", json!(true), &[("falcon", Read)]),
        ("qk_layernorm", json!(true), &[("stablelm", Read), ("phi", Refused)]),
        ("alibi", json!(true), &[("falcon", Read)]),
        ("add_cross_attention", json!(true), &[("gpt2", Refused)]),
        ("scale_attn_weights", json!(false), &[("gpt2", Read)]),
        ("scale_attn_by_inverse_layer_idx", json!(true), &[("gpt2", Read)]),
        // The order of products and the type of scores, which are f32 here anyhow.
        ("reorder_and_upcast_attn", json!(true), NONE),
        ("enable_bias", json!(false), &[("opt", Read)]),
        ("do_layer_norm_before", json!(false), &[("opt", Refused)]),
        ("_remove_final_layer_norm", json!(true), &[("opt", Refused)]),
        ("layer_norm_elementwise_affine", json!(false), &[("opt", Refused)]),
        ("word_embed_proj_dim", json!(96), &[("opt", Refused)]),
        ("word_embed_proj_dim", json!(48), NONE),
        ("attention_out_bias", json!(true), &[("seed_oss", Read)]),
        ("mlp_bias", json!(true), &[("llama smollm3 granite seed_oss nemotron", Read)]),
        ("use_bias", json!(true), &[("ernie4_5", Read)]),
        ("use_bias", json!(false), &[("starcoder2", Read)]),
        ("use_bidirectional_attention", json!(true), &[("gemma gemma2 gemma3_text", Refused)]),
        ("is_causal", json!(false), ALL_REFUSED),
        ("is_causal", json!(null), ALL_REFUSED),
        ("is_causal", json!(true), NONE),
        ("use_sliding_window", json!(true), &[("smollm3", Read)]),
        (
            "sliding_window",
            json!(16),
            &[("mistral ministral gemma2 gemma3_text phi3 olmo3 exaone4 starcoder2 cohere2", Read)],
        ),
        (
            "sliding_window",
            json!(null),
            &[("mistral ministral phi3 exaone4 starcoder2", Read), ("gemma2 gemma3_text olmo3 cohere2", Refused)],
        ),
        // Longer than any text that the model was made for, and than any text at all.
        (
            "sliding_window",
            json!(300),
            &[("mistral ministral gemma2 gemma3_text phi3 olmo3 exaone4 starcoder2 cohere2", Read)],
        ),
        (
            "sliding_window",
            json!(1u64 << 31),
            &[("mistral ministral gemma2 gemma3_text phi3 olmo3 exaone4 starcoder2 cohere2", Read)],
        ),
        (
            "layer_types",
            json!(vec!["full_attention"; 8]),
            &[("ministral gemma2 gemma3_text olmo3 exaone4 cohere2", Read), ("mistral", Refused)],
        ),
        (
            "layer_types",
            json!(vec!["sliding_attention"; 8]),
            &[("gemma2 gemma3_text olmo3 exaone4 cohere2 smollm3", Read), ("qwen2 qwen3", Refused)],
        ),
        (
            "layer_types",
            json!(vec!["linear_attention"; 8]),
            &[("qwen2 qwen3 smollm3 mistral ministral gemma2 gemma3_text olmo3 exaone4 cohere2", Refused)],
        ),
        ("no_rope_layers", json!([1, 1, 1, 1, 1, 1, 1, 1]), &[("smollm3", Read)]),
        ("no_rope_layer_interval", json!(2), &[("smollm3", Read)]),
        ("sliding_window_pattern", json!(2), &[("exaone4 gemma3_text cohere2", Read)]),
        ("norm_head", json!(false), &[("baichuan", Read)]),
        ("model_max_length", json!(512), NONE),
        ("logit_scale", json!(2.0), &[("cohere2", Read)]),
        ("embedding_multiplier", json!(2.0), &[("granite", Read)]),
        ("logits_scaling", json!(2.0), &[("granite", Read)]),
        ("residual_multiplier", json!(0.5), &[("granite", Read)]),
        ("attention_multiplier", json!(0.5), &[("granite", Read)]),
        ("query_pre_attn_scalar", json!(64), &[("gemma2 gemma3_text", Read)]),
        ("final_logit_softcapping", json!(10.0), &[("gemma2 gemma3_text", Read)]),
        ("attn_logit_softcapping", json!(10.0), &[("gemma2", Read)]),
        (
            "partial_rotary_factor",
            json!(0.75),
            &[
                ("glm4 phi3 nemotron stablelm phi", Read),
                (
                    "llama qwen2 mistral ministral qwen3 smollm3 granite seed_oss ernie4_5 gemma gemma2 gemma3_text olmo2 olmo3 \
                     exaone4 starcoder2 cohere2 gpt_neox falcon baichuan",
                    Refused,
                ),
            ],
        ),
        ("rotary_pct", json!(0.75), &[("gpt_neox", Read)]),
        ("rotary_emb_base", json!(12345.0), &[("gpt_neox", Read)]),
        ("partial_rotary_factor", json!(0.4), TURNING_REFUSED),
        ("rotary_pct", json!(0.4), &[("gpt_neox", Refused)]),
        // GPT-NeoX calls it otherwise.
        ("rope_theta", json!(12345.0), &[("gpt_neox", Refused), (TURNING, Read)]),
        ("rope_local_base_freq", json!(12345.0), &[("gemma3_text", Read)]),
        ("rope_scaling", scaling("linear"), TURNING_READ),
        ("rope_scaling", json!({"type": "linear", "factor": 2.0}), &[("gemma3_text olmo3", Refused), (TURNING, Read)]),
        ("rope_scaling", scaling("unheard_of"), TURNING_REFUSED),
        ("rope_scaling", json!({"factor": 2.0}), TURNING_REFUSED),
        ("rope_scaling", json!({"mrope_section": [1, 1, 2]}), TURNING_REFUSED),
        ("drop_attn_list", json!([1]), ALL_READ),
        ("drop_mlp_list", json!([1]), ALL_READ),
        ("per_layer_config", json!({"1": {"skip": ["mlp"]}}), ALL_READ),
        ("quantization_config", json!({"quant_method": "gptq"}), ALL_REFUSED),
        ("transformers_weights", json!("other.safetensors"), ALL_REFUSED),
        ("transformers_weights", json!("model.safetensors"), NONE),
        ("num_local_experts", json!(4), ALL_REFUSED),
        ("model_type", json!("t5"), ALL_REFUSED),
        // For training.
        ("attention_dropout", json!(0.5), NONE),
        ("residual_dropout", json!(0.5), NONE),
        ("resid_pdrop", json!(0.5), NONE),
        ("embd_pdrop", json!(0.5), NONE),
        ("attn_pdrop", json!(0.5), NONE),
        ("dropout", json!(0.5), NONE),
        ("layerdrop", json!(0.5), NONE),
        ("init_std", json!(0.5), NONE),
        ("initializer_range", json!(0.5), NONE),
        ("z_loss_weight", json!(0.5), NONE),
        ("gradient_checkpointing", json!(true), NONE),
        // Slices a product, in old versions, without another result.
        ("pretraining_tp", json!(2), NONE),
        // What is given back, and how texts are generated.
        ("use_cache", json!(false), NONE),
        ("return_dict", json!(false), NONE),
        ("output_hidden_states", json!(true), NONE),
        ("output_attentions", json!(true), NONE),
        ("summary_type", json!("mean"), NONE),
        ("summary_use_proj", json!(false), NONE),
        ("id2label", json!({"0": "x"}), NONE),
        ("label2id", json!({"x": 0}), NONE),
        ("problem_type", json!("regression"), NONE),
        ("chunk_size_feed_forward", json!(2), NONE),
        ("pad_token_id", json!(3), NONE),
        ("temperature", json!(0.1), NONE),
        ("max_length", json!(5), NONE),
        // How it was stored, by whom and with what.
        ("dtype", json!("float16"), NONE),
        ("torch_dtype", json!("float16"), NONE),
        ("transformers_version", json!("4.0.0"), NONE),
        ("architectures", json!(["X"]), NONE),
        ("tokenizer_class", json!("X"), NONE),
        ("auto_map", json!({"AutoModel": "x.Y"}), NONE),
        ("_name_or_path", json!("x"), NONE),
        ("_attn_implementation", json!("eager"), NONE),
        ("unheard_of", json!(true), NONE),
    ]
}

#[test]
fn every_key_is_decided() {
    let mut wrong = Vec::new();
    for family in ALL {
        let plain = read(family.name, json!({})).unwrap();
        for (key, value, decisions) in keys() {
            let named =
                decisions.iter().find(|(families, _)| families.split_whitespace().any(|name| name == family.name));
            let expected = named.map_or(Ignored, |(_, decision)| *decision);
            let mut keys = Map::new();
            keys.insert(key.to_string(), value.clone());
            let found = match read(family.name, Value::Object(keys)) {
                Ok(spec) if spec == plain => Ignored,
                Ok(_) => Read,
                Err(error) => {
                    assert!(error.to_string().contains(key), "{family}: {key} = {value}: {error}");
                    Refused
                }
            };
            if found != expected {
                wrong.push(format!("{family}: {key} = {value} is {found:?}, expected {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
