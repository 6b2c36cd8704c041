//! Llama (`LlamaForCausalLM`): what differs from the other families.
//!
//! RMS norm before attention and feed-forward, grouped-query attention with rotary embedding, SwiGLU.
//! Hugging Face names: `model.layers.N.self_attn.q_proj`, `model.layers.N.mlp.gate_proj`, and so on.

use super::error::ModelError;
use super::keys::Keys;
use super::spec::{Biases, FamilyDefaults};

/// What transformers' `LlamaConfig` assumes for keys that config.json leaves out.
pub(super) const DEFAULTS: FamilyDefaults =
    FamilyDefaults { kv_heads: None, max_positions: 2048, rms_norm_eps: 1e-6, rope_theta: 10_000.0, tied: false };

/// Llama has no biases unless its configuration asks: `attention_bias` gives all four projections one, `mlp_bias` all three.
pub(super) fn biases(keys: &Keys) -> Result<Biases, ModelError> {
    let attention = keys.flag("attention_bias")?.unwrap_or(false);
    Ok(Biases { qkv: attention, o: attention, mlp: keys.flag("mlp_bias")?.unwrap_or(false) })
}
