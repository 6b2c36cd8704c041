//! Qwen2 and Qwen2.5 (`Qwen2ForCausalLM`): what differs from the other families.
//!
//! Llama's blocks and tensor names, with a bias on Q, K and V (never on the output projection), and optionally sliding
//! windows in the upper layers, which are refused here.

use super::error::ModelError;
use super::keys::Keys;
use super::spec::{Biases, FamilyDefaults};

/// What transformers' `Qwen2Config` assumes for keys that config.json leaves out.
pub(super) const DEFAULTS: FamilyDefaults =
    FamilyDefaults { kv_heads: Some(32), max_positions: 32_768, rms_norm_eps: 1e-6, rope_theta: 10_000.0, tied: false };

/// `sliding_window` and `max_window_layers` that `Qwen2Config` assumes.
const SLIDING_WINDOW: usize = 4096;
const MAX_WINDOW_LAYERS: u64 = 28;

/// Q, K and V always have a bias; no key changes that.
pub(super) const BIASES: Biases = Biases { qkv: true, o: false, mlp: false };

/// Refuses a model in which some layer sees fewer positions than the model has.
pub(super) fn refuse_sliding_window(keys: &Keys, layers: usize, max_positions: usize) -> Result<(), ModelError> {
    // An explicit null is no window; a key left out is the default one.
    let off = keys.map.get("sliding_window").is_some_and(|window| window.is_null());
    if off || !keys.flag("use_sliding_window")?.unwrap_or(false) {
        return Ok(());
    }
    let window = keys.size("sliding_window", usize::MAX)?.unwrap_or(SLIDING_WINDOW);
    let slides = match keys.list("layer_types")? {
        Some(types) => types.iter().any(|kind| kind.as_str() == Some("sliding_attention")),
        None => {
            let first = match keys.get("max_window_layers") {
                None => MAX_WINDOW_LAYERS,
                Some(value) => {
                    value.as_u64().ok_or_else(|| keys.wrong("max_window_layers", value, "a whole number from 0 up"))?
                }
            };
            (layers as u64) > first
        }
    };
    if !slides || window >= max_positions {
        return Ok(());
    }
    Err(keys.unsupported(
        "use_sliding_window",
        format!("true with a window of {window} of {max_positions} positions"),
        "every layer must see the whole window. If no text longer than that is scored, set use_sliding_window to false",
    ))
}
