//! What llama.cpp calls models of which layers may lack a block, NVIDIA's Nemotron-NAS (DeciLM) among them: Llama, with the
//! heads and the width of each layer in lists, and 0 where there is none.
//!
//! It is how a GGUF file holds the blocks that a pruning keeps, where they are no ordinary model. llama.cpp leaves out the
//! attention of a layer that has no feed-forward block, and knows no width of heads where the first layer has none; there,
//! our files have a *stub*, a block that adds zeros, and say so in keys of their own (`gguf::STUBS`). A stub counts as absent.
//!
//! config.json says each of these models by the family whose biases it has.

use super::*;

const ARCHITECTURE: &str = "deci";

pub(super) static FAMILY: Family = Family { spec, ..of(llama::LLAMA) };
static QWEN2: Family = of(qwen2::QWEN2);
static SEED_OSS: Family = of(seed_oss::SEED_OSS);

/// A family as such files hold it.
const fn of(family: Family) -> Family {
    let gguf = match family.gguf {
        Some(gguf) => Some(Gguf { architecture: ARCHITECTURE, by_layer: true, biases: Biases::Any, ..gguf }),
        None => None,
    };
    Family { gguf, tensors: INTERLEAVED_TENSORS, ..family }
}

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    let bias = AttentionBias { qkv: qkv_bias(settings, NO_KEY, false)?, out: out_bias(settings, NO_KEY, false)? };
    let mlp = mlp_bias(settings, NO_KEY, false)?;
    spec.set_bias(bias, mlp);
    spec.family = of_biases(bias, mlp).unwrap_or(family);
    Ok(spec)
}

/// The family that has biases only in these places; None if Llama has them there, too.
fn of_biases(bias: AttentionBias, mlp: bool) -> Option<&'static Family> {
    match (bias.qkv == bias.out, bias.qkv, mlp) {
        (true, ..) => None,
        (false, true, false) => Some(&QWEN2),
        (false, ..) => Some(&SEED_OSS),
    }
}

/// The model as llama.cpp's `deci` can hold it, whatever its own family; None if it does more than Llama does. A window that no
/// text of its length fills is not missed.
pub(crate) fn of_spec(spec: &ModelSpec) -> Option<ModelSpec> {
    let spec = spec.clone().without_unfilled_windows();
    let rms = |norm: Norm| norm.kind == NormKind::Rms && !norm.bias && norm.eps == spec.final_norm.eps;
    let plain = |branch: &Branch| branch.norm.is_some_and(rms) && branch.post_norm.is_none() && branch.scale == 1.0;
    let first = spec.layers.first()?;
    let layer = |layer: &Layer| {
        let (attention, dense) = (&layer.attention, layer.dense());
        let width = attention.head_dim;
        plain(&attention.branch)
            && plain(&dense.branch)
            && (attention.heads, attention.kv_heads, width, attention.bias)
                == (first.attention.heads, first.attention.kv_heads, first.attention.head_dim, first.attention.bias)
            && (dense.inner, dense.bias) == (first.dense().inner, first.dense().bias)
            && (attention.qk_norm, attention.soft_cap, attention.sliding_window) == (None, None, None)
            && attention.positions == Positions::Rope(0)
            && spec.rotated(attention) == width
            && attention.scale == 1.0 / (width as f32).sqrt()
            && (dense.gated, dense.activation) == (true, Activation::Silu)
            && !layer.parallel
    };
    let outside = spec.embedding == Embedding { scale: 1.0, positions: None }
        && spec.head == Head { tied: spec.head.tied, bias: false, unit_rows: false, scale: 1.0, soft_cap: None };
    let fits = outside
        && rms(spec.final_norm)
        && spec.ropes.len() == 1
        && spec.restarts_after.is_none()
        && spec.layers.iter().all(layer);
    let family = of_biases(first.attention.bias, first.dense().bias).unwrap_or(&FAMILY);
    fits.then_some(ModelSpec { family, ..spec })
}
