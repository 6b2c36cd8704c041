//! The metadata of a GGUF file that is written from a [`ModelSpec`], as llama.cpp's converter says it: what reading asks for.

use crate::model::ModelError;
use crate::model::families::{HEAD_DIM, HEADS, HIDDEN_SIZE, LAYERS, POSITIONS};
use crate::model::rope::{RopeScaling, RopeSpec};
use crate::model::settings::Key;
use crate::model::spec::ModelSpec;
use crate::weights::FloatType;
use crate::weights::gguf::{ROPE_FREQS, ROPE_LONG, ROPE_SHORT, StoredValue};
use serde_json::Value;

/// The rope factors of a file: their tensors' names and their numbers.
pub(crate) type Factors = Vec<(&'static str, Vec<f32>)>;

impl ModelSpec {
    /// The settings that a GGUF file states, by keys that begin with the architecture's name. Which layers slide or turn is not
    /// among them.
    ///
    /// # Errors
    /// A scaling of rotary embeddings that llama.cpp does not have.
    pub(crate) fn gguf_settings(&self) -> Result<Vec<(String, StoredValue)>, ModelError> {
        let (Some(gguf), Some(layer)) = (&self.family.gguf, self.layers.first()) else { return Ok(Vec::new()) };
        let (attention, dense) = (&layer.attention, layer.dense());
        let mut settings = Vec::new();
        let mut set = |rest: &str, value: StoredValue| {
            settings.push((format!("{}.{rest}", gguf.architecture), value));
        };
        let number = |number: usize| StoredValue::U32(u32::try_from(number).unwrap_or(u32::MAX));
        set(LAYERS.gguf, number(self.layers.len()));
        set(POSITIONS.gguf, number(self.max_positions));
        set(HIDDEN_SIZE.gguf, number(self.hidden_size));
        set(gguf.defaults.inner_key.gguf, number(dense.inner));
        set(HEADS.gguf, number(attention.heads));
        set("attention.head_count_kv", number(attention.kv_heads));
        set(HEAD_DIM.gguf, number(attention.head_dim));
        set("attention.value_length", number(attention.head_dim));
        set(gguf.defaults.norm_eps_key.gguf, StoredValue::F32(self.final_norm.eps));
        set("vocab_size", number(self.vocab_size));
        for (rope, base) in self.ropes.iter().zip(["rope.freq_base", "rope.freq_base_swa"]) {
            set(base, StoredValue::F32(rope.theta as f32));
        }
        if let Some(rope) = self.ropes.first() {
            set("rope.dimension_count", number(rope.rotated));
            rope.write_gguf(&mut set)?;
        }
        let config = self.to_config(FloatType::F32);
        for Key { hf, gguf } in gguf.keys {
            match config.get(*hf) {
                Some(Value::Bool(flag)) => set(gguf, StoredValue::Bool(*flag)),
                Some(Value::Number(found)) if found.is_u64() => {
                    set(
                        gguf,
                        number(found.as_u64().and_then(|found| usize::try_from(found).ok()).unwrap_or(usize::MAX)),
                    );
                }
                Some(Value::Number(found)) => set(gguf, StoredValue::F32(found.as_f64().unwrap_or(0.0) as f32)),
                _ => {}
            }
        }
        Ok(settings)
    }

    /// The tensors of rope factors, if there are any.
    ///
    /// # Errors
    /// Those of [`RopeSpec::frequencies`].
    pub(crate) fn gguf_factors(&self) -> Result<Factors, ModelError> {
        let Some(rope) = self.ropes.first() else { return Ok(Vec::new()) };
        let f32s = |factors: &[f64]| factors.iter().map(|factor| *factor as f32).collect::<Vec<f32>>();
        Ok(match &rope.scaling {
            RopeScaling::Llama3 { .. } => {
                // What llama.cpp divides by.
                let plain = RopeSpec { scaling: RopeScaling::Default, ..rope.clone() }.frequencies(1)?.inv_freq;
                let scaled = rope.frequencies(1)?.inv_freq;
                let factor = |(plain, scaled): (&f32, &f32)| (f64::from(*plain) / f64::from(*scaled)) as f32;
                vec![(ROPE_FREQS, plain.iter().zip(&scaled).map(factor).collect())]
            }
            RopeScaling::LongRope { short_factor, long_factor, attention_factor, .. } => {
                match short_factor == long_factor && *attention_factor == 1.0 {
                    true => vec![(ROPE_FREQS, f32s(short_factor))],
                    false => vec![(ROPE_LONG, f32s(long_factor)), (ROPE_SHORT, f32s(short_factor))],
                }
            }
            _ => Vec::new(),
        })
    }
}

impl RopeSpec {
    /// The settings of the scaling, but for factors that are tensors.
    fn write_gguf(&self, set: &mut impl FnMut(&str, StoredValue)) -> Result<(), ModelError> {
        let float = |number: f64| StoredValue::F32(number as f32);
        let size = |number: usize| StoredValue::U32(u32::try_from(number).unwrap_or(u32::MAX));
        let kind = |kind: &str| StoredValue::String(kind.to_string());
        const ORIGINAL: &str = "rope.scaling.original_context_length";
        const ATTENTION: &str = "rope.scaling.attn_factor";
        match &self.scaling {
            RopeScaling::Default | RopeScaling::Llama3 { .. } => {}
            RopeScaling::Linear { factor } => {
                set("rope.scaling.type", kind("linear"));
                set("rope.scaling.factor", float(*factor));
            }
            RopeScaling::Yarn { factor, attention_factor, beta_fast, beta_slow, original_max_positions, truncate } => {
                if !truncate {
                    return Err(self.not_in_gguf("yarn whose ramp does not begin and end at whole dimensions"));
                }
                set("rope.scaling.type", kind("yarn"));
                set("rope.scaling.factor", float(*factor));
                set(ORIGINAL, size(*original_max_positions));
                set("rope.scaling.yarn_beta_fast", float(*beta_fast));
                set("rope.scaling.yarn_beta_slow", float(*beta_slow));
                // llama.cpp computes the usual factor by itself, and multiplies it by this one.
                let usual = if *factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
                if (attention_factor / usual - 1.0).abs() > 1e-6 {
                    set(ATTENTION, float(attention_factor / usual));
                }
            }
            RopeScaling::LongRope { short_factor, long_factor, attention_factor, original_max_positions } => {
                if short_factor != long_factor || *attention_factor != 1.0 {
                    set("rope.scaling.type", kind("longrope"));
                    set(ORIGINAL, size(*original_max_positions));
                    set(ATTENTION, float(*attention_factor));
                }
            }
            RopeScaling::Dynamic { .. } => return Err(self.not_in_gguf("a base that grows with the text (dynamic)")),
        }
        Ok(())
    }

    fn not_in_gguf(&self, what: &str) -> ModelError {
        ModelError::NotInGguf { what: format!("the rotary embedding's scaling: {what}") }
    }
}
