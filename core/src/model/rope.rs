//! Rotary position embedding: how fast each pair of dimensions turns, for every scaling that checkpoints use.
//!
//! Formulas and names are those of Hugging Face transformers, `modeling_rope_utils.py` (checked against 5.23), which
//! follow RoFormer (Su et al., 2021), position interpolation (Chen et al., 2023; kaiokendev), dynamic NTK (bloc97,
//! emozilla), YaRN (Peng et al., 2023), LongRoPE (Ding et al., 2024) and Llama 3.1. The order of the f32 operations is
//! theirs too: a last-bit difference in a frequency is multiplied by the position.

use serde_json::{Map, Value, json};

use super::error::ModelError;
use super::keys::Keys;

/// What the base and the share of a head that is turned are called in most families.
pub(crate) const KEYS: [&str; 2] = [THETA, SHARE];
const THETA: &str = "rope_theta";
const SHARE: &str = "partial_rotary_factor";
const ORIGINAL: &str = "original_max_position_embeddings";

/// Positions are multiplied as f32, which counts exactly up to here.
const MOST_POSITIONS: usize = 1 << 24;

/// How a model turns its queries and keys.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RopeSpec {
    /// Dimensions of a head that are turned, the first ones, in pairs `(i, i + rotated / 2)`.
    pub rotated: usize,
    /// Base of the wavelengths.
    pub theta: f64,
    /// `max_position_embeddings`, which some scalings refer to.
    pub max_positions: usize,
    /// What is done to the frequencies to reach further than the model was first trained for.
    pub scaling: RopeScaling,
}

/// The scalings, named after `rope_type`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// None.
    Default,
    /// Every frequency divided by a factor.
    Linear {
        /// Times further.
        factor: f64,
    },
    /// NTK: the base grows with the window once that passes `max_positions`.
    Dynamic {
        /// How fast it grows.
        factor: f64,
    },
    /// Low frequencies interpolated, high ones kept, a ramp between.
    Yarn {
        /// Times further.
        factor: f64,
        /// Multiplies cos and sin.
        attention_factor: f64,
        /// Turns within the original window from which a frequency is kept.
        beta_fast: f64,
        /// Turns within the original window down to which a frequency is fully interpolated.
        beta_slow: f64,
        /// Whether the ramp begins and ends at whole dimensions.
        truncate: bool,
        /// Window of the first training.
        original_max_positions: usize,
    },
    /// One divisor for each frequency: one list for windows up to the original one, one for longer ones.
    LongRope {
        /// Divisors within the original window, one for each pair.
        short_factor: Vec<f64>,
        /// Divisors beyond, one for each pair.
        long_factor: Vec<f64>,
        /// Multiplies cos and sin.
        attention_factor: f64,
        /// Window of the first training.
        original_max_positions: usize,
    },
    /// Long wavelengths divided by a factor, short ones kept, a ramp between.
    Llama3 {
        /// Times further.
        factor: f64,
        /// The original window over this is the wavelength from which the factor applies in full.
        low_freq_factor: f64,
        /// The original window over this is the wavelength up to which nothing changes.
        high_freq_factor: f64,
        /// Window of the first training.
        original_max_positions: usize,
    },
}

/// What the forward pass needs: position `p` turns pair `i` by `p * inv_freq[i]`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RopeFrequencies {
    /// Radians a position, one for each pair.
    pub inv_freq: Vec<f32>,
    /// Multiplies cos and sin.
    pub attention_scaling: f32,
}

/// What a rotary embedding is read for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeRequest {
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Longest window that the model was made for.
    pub max_positions: usize,
    /// The base where none is given.
    pub theta: f64,
    /// The share of a head that is turned where none is given; None where the whole head must be.
    pub rotated: Option<f64>,
    /// What the family calls the base and the share outside of `rope_parameters`.
    pub keys: [&'static str; 2],
    /// The window of the first training where none is given, if not `max_positions`.
    pub original_max_positions: Option<usize>,
}

impl RopeSpec {
    /// Reads both spellings: `rope_parameters`, or `rope_scaling` beside `rope_theta`. As in transformers, `rope_scaling`
    /// wins if it is there and not empty, and a `rope_theta` inside wins over one outside.
    pub(crate) fn from_config(keys: &Keys, request: &RopeRequest) -> Result<Self, ModelError> {
        let scaling = keys.object("rope_scaling")?.filter(|map| !map.is_empty()).map(|map| ("rope_scaling.", map));
        let parameters = keys.object("rope_parameters")?.map(|map| ("rope_parameters.", map));
        let empty = Map::new();
        let (path, map) = scaling.or(parameters).unwrap_or(("rope_parameters.", &empty));
        let rope = Keys { path, map, ..*keys };
        let [theta, share] = request.keys;
        check_usual(keys, &rope, THETA, theta, request.theta)?;
        check_usual(keys, &rope, SHARE, share, request.rotated.unwrap_or(1.0))?;
        Self::read(keys, &rope, keys.positive(theta)?.unwrap_or(request.theta), request)
    }

    /// The embeddings of layers with full and with sliding attention: those of `rope_parameters`, which has one for each, or
    /// `rope_scaling` and `rope_theta` for the first, and for the second none but the base, which may stand at `sliding_theta`.
    pub(crate) fn by_layer_type(
        keys: &Keys,
        full: &RopeRequest,
        sliding: &RopeRequest,
        sliding_theta: Option<&str>,
    ) -> Result<[Self; 2], ModelError> {
        let theta = keys.positive(THETA)?.unwrap_or(full.theta);
        let local = sliding_theta.map(|key| keys.positive(key)).transpose()?.flatten().unwrap_or(sliding.theta);
        let empty = Map::new();
        let at = |path, map| Keys { path, map, ..*keys };
        let scaling = keys.object("rope_scaling")?.filter(|map| !map.is_empty());
        let Some(map) = keys.object("rope_parameters")?.filter(|map| !map.is_empty()) else {
            let scaling = at("rope_scaling.", scaling.unwrap_or(&empty));
            // Transformers does not look at the older key in this place.
            if let Some(kind) = scaling.get("type").filter(|_| scaling.get("rope_type").is_none()) {
                return Err(scaling.unsupported("type", super::error::shown(kind), "this family calls it rope_type"));
            }
            let none = at("rope_parameters.", &empty);
            return Ok([Self::of_type(keys, &scaling, theta, full)?, Self::of_type(keys, &none, local, sliding)?]);
        };
        let parameters = at("rope_parameters.", map);
        if let Some((key, value)) = map.iter().find(|(_, value)| !value.is_object() && !value.is_null()) {
            let supported = "this family has one entry for full_attention and one for sliding_attention";
            return Err(parameters.unsupported(key, super::error::shown(value), supported));
        }
        if scaling.is_some() {
            let supported = "one of rope_scaling and rope_parameters, not both";
            return Err(keys.unsupported("rope_scaling", "there beside rope_parameters", supported));
        }
        let part = |name| Ok::<_, ModelError>(parameters.object(name)?.unwrap_or(&empty));
        let full_keys = at("rope_parameters.full_attention.", part("full_attention")?);
        let sliding_keys = at("rope_parameters.sliding_attention.", part("sliding_attention")?);
        Ok([Self::of_type(keys, &full_keys, theta, full)?, Self::of_type(keys, &sliding_keys, local, sliding)?])
    }

    /// From the keys of the rotary embedding of layers of one type, for which transformers takes no notice of some others.
    fn of_type(keys: &Keys, rope: &Keys, theta: f64, request: &RopeRequest) -> Result<Self, ModelError> {
        let spec = Self::read(keys, rope, theta, request)?;
        let inside = rope.size(ORIGINAL, MOST_POSITIONS)?.unwrap_or(request.max_positions);
        let outside = keys.size(ORIGINAL, MOST_POSITIONS)?.filter(|outside| *outside != inside);
        if let (Some(outside), Some(_)) = (outside, spec.scaling.original_max_positions()) {
            let supported = "it must stand among the settings of rotary embedding, with the same value";
            return Err(keys.unsupported(ORIGINAL, outside.to_string(), supported));
        }
        if let RopeScaling::Yarn { truncate: false, .. } = spec.scaling {
            let supported = "the ramp of this family begins and ends at whole dimensions (true)";
            return Err(rope.unsupported("truncate", rope.get("truncate").map_or("null", |_| "false"), supported));
        }
        Ok(spec)
    }

    /// From the keys of a rotary embedding; `theta` is the base if they do not say.
    fn read(keys: &Keys, rope: &Keys, theta: f64, request: &RopeRequest) -> Result<Self, ModelError> {
        refuse_other_layouts(rope)?;
        let rotated = rotated(keys, rope, request)?;
        let theta = rope.positive(THETA)?.unwrap_or(theta);
        let scaling = RopeScaling::from_config(keys, rope, rotated, request)?;
        let spec = Self { rotated, theta, max_positions: request.max_positions, scaling };
        spec.check(rope)?;
        Ok(spec)
    }

    /// The share of a head's dimensions that are turned, of which so many times as many are those, rounded down.
    pub(super) fn share(&self, head_dim: usize) -> f64 {
        let share = self.rotated as f64 / head_dim as f64;
        if (head_dim as f64 * share) as usize == self.rotated { share } else { share.next_up() }
    }

    /// The window beyond which `longrope` turns in another way, if it does.
    pub(crate) fn longrope_switch(&self) -> Option<usize> {
        match &self.scaling {
            RopeScaling::LongRope { short_factor, long_factor, original_max_positions, .. } => {
                (short_factor != long_factor).then_some(*original_max_positions)
            }
            _ => None,
        }
    }

    /// Combinations that have no frequencies.
    pub(super) fn check(&self, rope: &Keys) -> Result<(), ModelError> {
        if matches!(self.scaling, RopeScaling::Dynamic { .. }) && self.rotated == 2 {
            return Err(rope.contradiction(
                "rope_type",
                "\"dynamic\"",
                "more than 2 turned dimensions, which its exponent divides by",
            ));
        }
        if matches!(self.scaling, RopeScaling::Yarn { .. }) && self.theta <= 1.0 {
            return Err(rope.contradiction("rope_theta", self.theta.to_string(), "a number greater than 1 for yarn"));
        }
        for window in [1, self.max_positions.clamp(1, MOST_POSITIONS), MOST_POSITIONS] {
            let RopeFrequencies { inv_freq, attention_scaling } = self.frequencies(window)?;
            if !attention_scaling.is_finite() || inv_freq.iter().any(|frequency| !frequency.is_finite()) {
                return Err(rope.contradiction(
                    "rope_type",
                    format!("{:?} with frequencies that are not finite at a window of {window}", self.scaling.name()),
                    "a rope_theta and factors that give finite ones",
                ));
            }
        }
        Ok(())
    }

    /// The frequencies with which one forward pass over `window` positions is made: `dynamic` and `longrope` take other
    /// ones for windows beyond those of the (first) training, the rest is the same for all.
    ///
    /// # Errors
    /// [`ModelError::Window`].
    pub fn frequencies(&self, window: usize) -> Result<RopeFrequencies, ModelError> {
        if !(1..=MOST_POSITIONS).contains(&window) {
            return Err(ModelError::Window { window, most: MOST_POSITIONS });
        }
        let (inv_freq, attention_scaling) = match &self.scaling {
            RopeScaling::Default => (self.plain(self.theta as f32), 1.0),
            RopeScaling::Linear { factor } => {
                (self.plain(self.theta as f32).into_iter().map(|f| f / *factor as f32).collect(), 1.0)
            }
            RopeScaling::Dynamic { factor } => (self.plain(self.dynamic_base(window, *factor)), 1.0),
            RopeScaling::Yarn { attention_factor, .. } => (self.yarn(), *attention_factor),
            RopeScaling::LongRope { short_factor, long_factor, attention_factor, original_max_positions } => {
                let divisors = if window > *original_max_positions { long_factor } else { short_factor };
                let powers = self.powers(self.theta as f32);
                (powers.zip(divisors).map(|(p, d)| 1.0 / (*d as f32 * p)).collect(), *attention_factor)
            }
            RopeScaling::Llama3 { .. } => (self.llama3(), 1.0),
        };
        Ok(RopeFrequencies { inv_freq, attention_scaling: attention_scaling as f32 })
    }

    /// The shortest window that has the frequencies of this one.
    pub(crate) fn shortest_alike(&self, window: usize) -> usize {
        match &self.scaling {
            RopeScaling::Dynamic { .. } if window > self.max_positions => window,
            RopeScaling::LongRope { original_max_positions, .. } if window > *original_max_positions => {
                original_max_positions + 1
            }
            _ => 1,
        }
    }

    /// `base ** (2 i / rotated)` for each pair `i`. The power is taken in f64 and rounded once, which is what a correctly
    /// rounded f32 power gives on every platform.
    fn powers(&self, base: f32) -> impl Iterator<Item = f32> {
        let dim = self.rotated as f32;
        (0..self.rotated / 2).map(move |i| f64::from(base).powf(f64::from((2 * i) as f32 / dim)) as f32)
    }

    fn plain(&self, base: f32) -> Vec<f32> {
        self.powers(base).map(|power| 1.0 / power).collect()
    }

    /// Beyond the trained window transformers knows the length as a tensor, so the base is computed in f32 there (the
    /// exponent alone stays f64).
    fn dynamic_base(&self, window: usize, factor: f64) -> f32 {
        let (dim, trained) = (self.rotated as f64, self.max_positions);
        if window <= trained {
            return self.theta as f32;
        }
        let ratio = factor as f32 * window as f32 / trained as f32 - (factor - 1.0) as f32;
        let growth = f64::from(ratio).powf(dim / (dim - 2.0)) as f32;
        growth * self.theta as f32
    }

    fn yarn(&self) -> Vec<f32> {
        let RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate, original_max_positions, .. } = &self.scaling
        else {
            return Vec::new();
        };
        let dim = self.rotated as f64;
        // The (fractional) dimension that makes so many turns within the original window.
        let dimension_of = |turns: f64| {
            let wavelength = *original_max_positions as f64 / (turns * 2.0 * std::f64::consts::PI);
            dim * wavelength.ln() / (2.0 * self.theta.ln())
        };
        let (mut low, mut high) = (dimension_of(*beta_fast), dimension_of(*beta_slow));
        if *truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001;
        }
        let ramp = move |i: usize| ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let mix = |(i, power): (usize, f32)| {
            let (kept, interpolated) = (1.0 / power, 1.0 / (*factor as f32 * power));
            let share_kept = 1.0 - ramp(i);
            interpolated * (1.0 - share_kept) + kept * share_kept
        };
        self.powers(self.theta as f32).enumerate().map(mix).collect()
    }

    fn llama3(&self) -> Vec<f32> {
        let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } = &self.scaling
        else {
            return Vec::new();
        };
        let (original, factor32) = (*original_max_positions as f64, *factor as f32);
        let longest_kept = (original / high_freq_factor) as f32;
        let shortest_divided = (original / low_freq_factor) as f32;
        let scale = |frequency: f32| {
            // A number divided by a tensor is the tensor's reciprocal times the number, in torch.
            let wavelength = (1.0 / frequency) * (2.0 * std::f64::consts::PI) as f32;
            if wavelength > shortest_divided {
                return frequency / factor32;
            }
            if wavelength < longest_kept {
                return frequency;
            }
            let smooth = ((1.0 / wavelength) * original as f32 - *low_freq_factor as f32)
                / (high_freq_factor - low_freq_factor) as f32;
            (1.0 - smooth) * frequency / factor32 + smooth * frequency
        };
        self.plain(self.theta as f32).into_iter().map(scale).collect()
    }

    /// Writes the keys with which transformers computes the same frequencies, in the spelling that old and new versions
    /// read: `rope_theta`, and `rope_scaling` if there is any.
    pub(crate) fn write_config(&self, config: &mut Map<String, Value>) {
        config.insert("rope_theta".to_string(), json!(self.theta));
        let mut scaling = match &self.scaling {
            RopeScaling::Default => return,
            RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor } => json!({ "factor": factor }),
            RopeScaling::Yarn { factor, attention_factor, beta_fast, beta_slow, truncate, original_max_positions } => {
                json!({
                    "factor": factor, "attention_factor": attention_factor, "beta_fast": beta_fast, "beta_slow": beta_slow,
                    "truncate": truncate, "original_max_position_embeddings": original_max_positions,
                })
            }
            RopeScaling::LongRope { short_factor, long_factor, attention_factor, original_max_positions } => json!({
                "short_factor": short_factor, "long_factor": long_factor, "attention_factor": attention_factor,
                "factor": (self.max_positions as f64 / *original_max_positions as f64).max(1.0),
                "original_max_position_embeddings": original_max_positions,
            }),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => json!({
                "factor": factor, "low_freq_factor": low_freq_factor, "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_positions,
            }),
        };
        scaling["rope_type"] = json!(self.scaling.name());
        config.insert("rope_scaling".to_string(), scaling);
    }
}

/// Refuses a usual key outside where the family has another name for it: transformers does not look at that, and whoever wrote
/// it meant something.
fn check_usual(keys: &Keys, rope: &Keys, usual: &str, own: &str, default: f64) -> Result<(), ModelError> {
    if usual == own || rope.get(usual).is_some() {
        return Ok(());
    }
    let counts = keys.positive(own)?.unwrap_or(default);
    match keys.positive(usual)? {
        Some(found) if found != counts => {
            Err(keys.unsupported(usual, found.to_string(), format!("this family calls it {own}, which is {counts}")))
        }
        _ => Ok(()),
    }
}

/// Dimensions of a head that are turned. As in transformers, a share inside wins over one outside.
fn rotated(keys: &Keys, rope: &Keys, request: &RopeRequest) -> Result<usize, ModelError> {
    let [_, outside] = request.keys;
    // To transformers a null is the whole head, by the usual name.
    let null = outside == SHARE && keys.map.contains_key(SHARE);
    let (place, key, share, note) = match (rope.positive(SHARE)?, keys.positive(outside)?, request.rotated) {
        (Some(share), ..) => (rope, SHARE, share, ""),
        (None, Some(share), _) => (keys, outside, share, ""),
        (None, None, Some(share)) if !null => (keys, outside, share, ", as it is left out"),
        (None, None, _) => return Ok(request.head_dim),
    };
    if request.rotated.is_none() && share != 1.0 {
        return Err(place.unsupported(key, share.to_string(), "the whole head must be turned (1)"));
    }
    let rotated = (request.head_dim as f64 * share) as usize;
    // Of an odd number transformers turns one more, by other frequencies.
    if share > 1.0 || rotated == 0 || !rotated.is_multiple_of(2) {
        let expected = format!("a share of {} dimensions that is an even number of them", request.head_dim);
        return Err(place.contradiction(key, format!("{share}{note}"), expected));
    }
    Ok(rotated)
}

/// Rotary embeddings that are laid out in another way than one frequency for each pair of dimensions.
fn refuse_other_layouts(rope: &Keys) -> Result<(), ModelError> {
    if let Some(sections) = rope.get("mrope_section") {
        let found = super::error::shown(sections);
        return Err(rope.unsupported("mrope_section", found, "only text models, with one position for each token"));
    }
    if let Some((key, value)) = rope.map.iter().find(|(_, value)| value.is_object()) {
        let found = super::error::shown(value);
        return Err(rope.unsupported(key, found, "all layers must share one rotary embedding"));
    }
    Ok(())
}

impl RopeScaling {
    /// The `rope_type` of Hugging Face configurations.
    pub fn name(&self) -> &'static str {
        match self {
            RopeScaling::Default => "default",
            RopeScaling::Linear { .. } => "linear",
            RopeScaling::Dynamic { .. } => "dynamic",
            RopeScaling::Yarn { .. } => "yarn",
            RopeScaling::LongRope { .. } => "longrope",
            RopeScaling::Llama3 { .. } => "llama3",
        }
    }

    /// The window of the first training, where that matters.
    fn original_max_positions(&self) -> Option<usize> {
        match self {
            RopeScaling::Default | RopeScaling::Linear { .. } | RopeScaling::Dynamic { .. } => None,
            RopeScaling::Yarn { original_max_positions, .. }
            | RopeScaling::LongRope { original_max_positions, .. }
            | RopeScaling::Llama3 { original_max_positions, .. } => Some(*original_max_positions),
        }
    }

    fn from_config(keys: &Keys, rope: &Keys, rotated: usize, request: &RopeRequest) -> Result<Self, ModelError> {
        let max_positions = request.max_positions;
        let key = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
        let name = rope.text(key)?;
        // Transformers takes no notice of it, and whoever wrote it meant something.
        if let Some(factor) = rope.get("factor").filter(|factor| name.is_none() && factor.as_f64() != Some(1.0)) {
            let supported = "a factor needs the rope_type that it is for (linear, dynamic, yarn, ..)";
            return Err(rope.unsupported("factor", format!("{factor} without a rope_type"), supported));
        }
        // A configuration may say what the first training's window was outside, which then counts, or inside.
        let original = || -> Result<usize, ModelError> {
            match keys.size(ORIGINAL, MOST_POSITIONS)?.or(request.original_max_positions) {
                Some(original) => Ok(original),
                None => Ok(rope.size(ORIGINAL, MOST_POSITIONS)?.unwrap_or(max_positions)),
            }
        };
        match name.unwrap_or("default") {
            "default" => Ok(Self::Default),
            "linear" => Ok(Self::Linear { factor: rope.required_positive("factor")? }),
            "dynamic" => {
                let factor = rope.required_positive("factor")?;
                if factor < 1.0 {
                    return Err(rope.contradiction("factor", factor.to_string(), "a number of at least 1"));
                }
                Ok(Self::Dynamic { factor })
            }
            // What Phi-3 called longrope at first.
            "yarn" if request.original_max_positions.is_some() => {
                Self::longrope_from_config(rope, original()?, rotated, max_positions)
            }
            "yarn" => Self::yarn_from_config(rope, original()?, max_positions),
            "longrope" => Self::longrope_from_config(rope, original()?, rotated, max_positions),
            "llama3" => Self::llama3_from_config(rope, original()?),
            other => Err(rope.unsupported(
                key,
                format!("{other:?}"),
                "one of default, linear, dynamic, yarn, longrope, llama3 is needed",
            )),
        }
    }

    fn yarn_from_config(rope: &Keys, original: usize, max_positions: usize) -> Result<Self, ModelError> {
        // An explicit null asks for the ratio of the windows; without the key transformers refuses the configuration.
        let factor = match rope.positive("factor")? {
            Some(factor) => factor,
            None if rope.map.contains_key("factor") => max_positions as f64 / original as f64,
            None => return Err(rope.missing("factor", "a number greater than 0")),
        };
        let magnitude = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
        let attention_factor = match rope.positive("attention_factor")? {
            Some(attention_factor) => attention_factor,
            None => match (non_zero(rope, "mscale")?, non_zero(rope, "mscale_all_dim")?) {
                (Some(mscale), Some(all)) => magnitude(mscale) / magnitude(all),
                _ => magnitude(1.0),
            },
        };
        Ok(Self::Yarn {
            factor,
            attention_factor,
            beta_fast: non_zero(rope, "beta_fast")?.unwrap_or(32.0),
            beta_slow: non_zero(rope, "beta_slow")?.unwrap_or(1.0),
            // To transformers, a null is false.
            truncate: rope.flag("truncate")?.unwrap_or(!rope.map.contains_key("truncate")),
            original_max_positions: original,
        })
    }

    fn longrope_from_config(
        rope: &Keys,
        original: usize,
        rotated: usize,
        max_positions: usize,
    ) -> Result<Self, ModelError> {
        let factor = rope.positive("factor")?.unwrap_or(max_positions as f64 / original as f64);
        let attention_factor = match rope.positive("attention_factor")? {
            Some(attention_factor) => attention_factor,
            None if factor <= 1.0 => 1.0,
            None if original == 1 => {
                return Err(rope.contradiction("original_max_position_embeddings", "1", "a window longer than 1"));
            }
            None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
        };
        Ok(Self::LongRope {
            short_factor: divisors(rope, "short_factor", rotated / 2)?,
            long_factor: divisors(rope, "long_factor", rotated / 2)?,
            attention_factor,
            original_max_positions: original,
        })
    }

    fn llama3_from_config(rope: &Keys, original: usize) -> Result<Self, ModelError> {
        let low_freq_factor = rope.required_positive("low_freq_factor")?;
        let high_freq_factor = rope.required_positive("high_freq_factor")?;
        if high_freq_factor <= low_freq_factor {
            return Err(rope.contradiction(
                "high_freq_factor",
                high_freq_factor.to_string(),
                format!("a number greater than low_freq_factor, {low_freq_factor}"),
            ));
        }
        let factor = rope.required_positive("factor")?;
        Ok(Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions: original })
    }
}

/// A positive number; 0 stands for the default, as it does in transformers.
fn non_zero(rope: &Keys, key: &str) -> Result<Option<f64>, ModelError> {
    match rope.get(key).and_then(Value::as_f64) {
        Some(0.0) => Ok(None),
        _ => rope.positive(key),
    }
}

/// One positive number for each pair of dimensions.
fn divisors(rope: &Keys, key: &str, pairs: usize) -> Result<Vec<f64>, ModelError> {
    let expected = || format!("a list of {pairs} numbers greater than 0, one for each pair of dimensions of a head");
    let list = rope.list(key)?.ok_or_else(|| rope.missing(key, expected()))?;
    if list.len() != pairs {
        return Err(rope.contradiction(key, format!("a list of {}", list.len()), expected()));
    }
    let number = |value: &Value| {
        let number = value.as_f64().filter(|n| *n as f32 > 0.0 && (*n as f32).is_finite());
        number.ok_or_else(|| rope.wrong(key, value, expected()))
    };
    list.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::model::ModelSpec;

    /// What transformers 5.23 computes for one configuration in a forward pass over `window` positions.
    #[derive(serde::Deserialize)]
    struct Reference {
        name: String,
        window: usize,
        config: Map<String, Value>,
        inv_freq: Vec<f64>,
        attention_scaling: f64,
    }

    fn references() -> Vec<Reference> {
        serde_json::from_str(include_str!("testdata/rope.json")).unwrap()
    }

    /// Two units in the last place: what torch's vectorised power may be off.
    fn assert_close(found: f32, expected: f64, what: &str) {
        assert!((f64::from(found) - expected).abs() <= 2.4e-7 * expected.abs(), "{what}: {found} is not {expected}");
    }

    #[test]
    fn frequencies_are_those_of_transformers() {
        for reference in references() {
            let spec = ModelSpec::from_config(&reference.config).unwrap();
            let found = spec.ropes[0].frequencies(reference.window).unwrap();
            assert_eq!(found.inv_freq.len(), reference.inv_freq.len(), "{}", reference.name);
            for (i, (found, expected)) in found.inv_freq.iter().zip(&reference.inv_freq).enumerate() {
                assert_close(*found, *expected, &format!("{} at {}, pair {i}", reference.name, reference.window));
            }
            assert_close(found.attention_scaling, reference.attention_scaling, &reference.name);
        }
    }

    #[test]
    fn written_keys_read_back_to_the_same_frequencies() {
        for reference in references() {
            let rope = ModelSpec::from_config(&reference.config).unwrap().ropes.remove(0);
            let mut config = reference.config.clone();
            for key in ["rope_theta", "rope_scaling", "rope_parameters", "original_max_position_embeddings"] {
                config.shift_remove(key);
            }
            rope.write_config(&mut config);
            let again = ModelSpec::from_config(&config).unwrap().ropes.remove(0);
            assert_eq!(again.frequencies(reference.window).unwrap(), rope.frequencies(reference.window).unwrap());
        }
    }

    #[test]
    fn windows_change_only_what_depends_on_them() {
        let of = |name: &str| {
            let reference = references().into_iter().find(|reference| reference.name == name).unwrap();
            ModelSpec::from_config(&reference.config).unwrap().ropes.remove(0)
        };
        for (name, last) in [("dynamic", 64), ("longrope", 64)] {
            let rope = of(name);
            assert_eq!(rope.frequencies(1).unwrap(), rope.frequencies(last).unwrap(), "{name}");
            assert_ne!(rope.frequencies(last).unwrap(), rope.frequencies(last + 1).unwrap(), "{name}");
            for window in [1, last, last + 1, last + 2, 3 * last] {
                let alike = rope.shortest_alike(window);
                assert_eq!(rope.frequencies(alike).unwrap(), rope.frequencies(window).unwrap(), "{name}: {window}");
                if alike > 1 {
                    assert_ne!(
                        rope.frequencies(alike - 1).unwrap(),
                        rope.frequencies(window).unwrap(),
                        "{name}: {window}"
                    );
                }
            }
        }
        for name in ["default", "linear, new spelling", "yarn", "llama3, small window"] {
            assert_eq!(of(name).frequencies(1).unwrap(), of(name).frequencies(100_000).unwrap(), "{name}");
        }
        for window in [0, MOST_POSITIONS + 1, usize::MAX] {
            let error = of("default").frequencies(window).unwrap_err().to_string();
            assert!(error.contains(&window.to_string()), "{error}");
        }
    }

    /// As transformers has it, which asks whether the value counts as true.
    #[test]
    fn a_ramp_without_truncate_is_truncated() {
        let of = |keys: Value| {
            let mut rope = json!({"rope_type": "yarn", "factor": 2.0});
            rope.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
            let mut config: Map<String, Value> = serde_json::from_slice(blockpruner_tiny::CONFIG).unwrap();
            config.insert("rope_scaling".to_string(), rope);
            match ModelSpec::from_config(&config).unwrap().ropes.remove(0).scaling {
                RopeScaling::Yarn { truncate, .. } => truncate,
                other => panic!("{other:?}"),
            }
        };
        assert!(of(json!({})) && of(json!({"truncate": true})));
        assert!(!of(json!({"truncate": false})) && !of(json!({"truncate": null})));
    }

    #[test]
    fn wrong_rope_keys_are_named() {
        let cases = [
            (json!({"rope_scaling": {"type": "su", "factor": 2.0}}), ["rope_scaling.type", "\"su\"", "longrope"]),
            (json!({"rope_scaling": {"type": "linear"}}), ["rope_scaling.factor", "missing", "greater than 0"]),
            (json!({"rope_scaling": {"type": "linear", "factor": -1}}), ["rope_scaling.factor", "-1", "than 0"]),
            (json!({"rope_scaling": {"type": 3}}), ["rope_scaling.type", "is 3", "a string"]),
            (json!({"rope_scaling": "linear"}), ["`rope_scaling`", "\"linear\"", "an object"]),
            (json!({"rope_theta": 0}), ["`rope_theta`", "is 0", "greater than 0"]),
            (json!({"rope_theta": 1e300}), ["`rope_theta`", "1e+300", "greater than 0"]),
            (json!({"rope_theta": "10000"}), ["`rope_theta`", "\"10000\"", "a number"]),
            (json!({"partial_rotary_factor": 0.5}), ["partial_rotary_factor", "0.5", "whole head"]),
            (
                json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}}),
                ["rope_parameters.partial_rotary_factor", "0.25", "whole head"],
            ),
            (
                json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
                ["rope_parameters.full_attention", "default", "all layers must share"],
            ),
            (
                json!({"rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24]}}),
                ["rope_parameters.mrope_section", "[16,24,24]", "text models"],
            ),
            (
                json!({"rope_scaling": {"type": "longrope", "short_factor": [1, 2], "long_factor": [1, 2]}}),
                ["rope_scaling.short_factor", "a list of 2", "a list of 16 numbers"],
            ),
            (
                json!({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}}),
                ["rope_scaling.high_freq_factor", "4", "greater than low_freq_factor"],
            ),
            (json!({"rope_scaling": {"rope_type": "yarn"}}), ["rope_scaling.factor", "missing", "a number"]),
        ];
        for (keys, parts) in cases {
            let mut config: Map<String, Value> = serde_json::from_slice(blockpruner_tiny::CONFIG).unwrap();
            config.extend(keys.as_object().unwrap().clone());
            let error = ModelSpec::from_config(&config).unwrap_err().to_string();
            for part in ["config.json"].iter().chain(&parts) {
                assert!(error.contains(part), "{keys}: `{error}` does not say `{part}`");
            }
        }
    }
}
