//! What Hugging Face calls the tensors of a GGUF file.
//!
//! The table is that of `gguf-py/gguf/tensor_mapping.py`, read backwards, for the families whose checkpoints use Llama's
//! module names.

/// The Hugging Face name of tensor `name` of a file of architecture `architecture`, if the table has one.
pub(super) fn hugging_face(architecture: &str, name: &str) -> Option<String> {
    if !matches!(architecture, "llama" | "qwen2") {
        return None;
    }
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".to_string()),
        "output_norm.weight" => return Some("model.norm.weight".to_string()),
        "output.weight" => return Some("lm_head.weight".to_string()),
        _ => {}
    }
    let (layer, part, suffix) = layer_tensor(name)?;
    let module = match (part, suffix) {
        ("attn_norm", "weight") => "input_layernorm",
        ("ffn_norm", "weight") => "post_attention_layernorm",
        ("attn_q", _) => "self_attn.q_proj",
        ("attn_k", _) => "self_attn.k_proj",
        ("attn_v", _) => "self_attn.v_proj",
        ("attn_output", _) => "self_attn.o_proj",
        ("ffn_gate", _) => "mlp.gate_proj",
        ("ffn_up", _) => "mlp.up_proj",
        ("ffn_down", _) => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{module}.{suffix}"))
}

/// Whether the rows of tensor `name` are permuted for interleaved rotary embedding: Q and K, weights and biases, of
/// `llama` files only.
pub(super) fn has_interleaved_rope(architecture: &str, name: &str) -> bool {
    architecture == "llama" && layer_tensor(name).is_some_and(|(_, part, _)| matches!(part, "attn_q" | "attn_k"))
}

/// `blk.7.attn_q.bias` is layer `7`, part `attn_q`, suffix `bias`.
fn layer_tensor(name: &str) -> Option<(&str, &str, &str)> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, suffix) = rest.split_once('.')?;
    let number = !layer.is_empty() && layer.bytes().all(|byte| byte.is_ascii_digit());
    (number && matches!(suffix, "weight" | "bias")).then_some((layer, part, suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tensor_of_a_layer_has_its_name() {
        let cases = [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("output.weight", "lm_head.weight"),
            ("blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"),
            ("blk.1.attn_q.weight", "model.layers.1.self_attn.q_proj.weight"),
            ("blk.1.attn_q.bias", "model.layers.1.self_attn.q_proj.bias"),
            ("blk.22.attn_k.bias", "model.layers.22.self_attn.k_proj.bias"),
            ("blk.3.attn_v.weight", "model.layers.3.self_attn.v_proj.weight"),
            ("blk.3.attn_output.weight", "model.layers.3.self_attn.o_proj.weight"),
            ("blk.3.ffn_norm.weight", "model.layers.3.post_attention_layernorm.weight"),
            ("blk.3.ffn_gate.weight", "model.layers.3.mlp.gate_proj.weight"),
            ("blk.3.ffn_up.weight", "model.layers.3.mlp.up_proj.weight"),
            ("blk.3.ffn_down.weight", "model.layers.3.mlp.down_proj.weight"),
        ];
        for (stored, expected) in cases {
            assert_eq!(hugging_face("llama", stored).as_deref(), Some(expected));
            assert_eq!(hugging_face("qwen2", stored).as_deref(), Some(expected));
            assert_eq!(hugging_face("gemma3", stored), None);
        }
        for other in ["rope_freqs.weight", "blk.x.attn_q.weight", "blk..attn_q.weight", "blk.1.ffn_gate_inp.weight"] {
            assert_eq!(hugging_face("llama", other), None, "{other}");
        }
    }

    #[test]
    fn only_q_and_k_of_llama_are_permuted() {
        assert!(has_interleaved_rope("llama", "blk.0.attn_q.weight"));
        assert!(has_interleaved_rope("llama", "blk.0.attn_k.bias"));
        assert!(!has_interleaved_rope("llama", "blk.0.attn_v.weight"));
        assert!(!has_interleaved_rope("llama", "blk.0.attn_output.weight"));
        assert!(!has_interleaved_rope("qwen2", "blk.0.attn_q.weight"));
    }
}
