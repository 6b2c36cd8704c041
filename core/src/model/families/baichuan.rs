//! Baichuan 1 and 2: Llama with Q, K and V in one tensor. The 7B turn queries and keys; in the 13B, the positions of keys bias
//! their scores instead, and their configurations have no `max_position_embeddings`.
//!
//! transformers has no class of it: what is computed here is what the Python files beside the published weights say
//! (Baichuan2-7B-Base and Baichuan2-13B-Base), so a folder of it needs those files. In the second generation's, the head is a
//! `NormHead`, whose rows are divided by their lengths; nothing in a configuration says so but the size of the vocabulary, or
//! `norm_head`, a key of our own for models whose vocabulary is neither generation's.
//!
//! In a GGUF file Q, K and V are apart, and llama.cpp divides no row of a head: a 7B there is a Llama in all but the name of its
//! architecture, and is read and written as one. llama.cpp knows by their number of layers what positions do, 32 of the 7B or 40
//! of the 13B; the latter has no class in transformers and no Python files beside it, and is refused.

use super::*;

const PACKED: &str = "self_attn.W_pack";

pub(super) static FAMILY: Family = Family {
    name: "baichuan",
    class: "BaichuanForCausalLM",
    config_class: "BaichuanConfig",
    gguf: gguf("baichuan", &DEFAULTS, |_| json!({})),
    tensors: &llama_tensors(
        [
            tensor(Role::Query, PACKED, QUERY.gguf),
            tensor(Role::Key, PACKED, KEY.gguf),
            tensor(Role::Value, PACKED, VALUE.gguf),
        ],
        FEED_FORWARD_NORM,
    ),
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults { kv_heads_key: NO_KEY, ..super::DEFAULTS };

const MOST_TOKENS: Key = key("model_max_length", "");
const NORM_HEAD: Key = key("norm_head", "");
/// Layers of the 7B.
const TURNED: usize = 32;
/// Entries of the vocabularies of both generations.
const FIRST: usize = 64_000;
const SECOND: usize = 125_696;

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    if !settings.has_defaults() {
        return gguf_spec(settings);
    }
    refuse_if_set(settings, TIED, "the head must have weights of its own")?;
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    if settings.size(POSITIONS, most::POSITIONS)?.is_none() {
        spec.max_positions = settings.required_size(MOST_TOKENS, most::POSITIONS)?;
        spec.set_alibi(Alibi::Plain);
    }
    spec.head.unit_rows = match (settings.flag(NORM_HEAD)?, spec.vocab_size) {
        (Some(is), _) => is,
        (None, FIRST) => false,
        (None, SECOND) => true,
        (None, _) => {
            let expected = format!(
                "true if the head of the model's own Python files is a NormHead, or else false, because a vocabulary that has \
                 neither {FIRST} entries (Baichuan) nor {SECOND} (Baichuan 2) does not tell"
            );
            return Err(settings.missing(NORM_HEAD, &expected));
        }
    };
    Ok(spec)
}

fn gguf_spec(settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    match settings.required_size(LAYERS, most::LAYERS)? {
        TURNED => (llama::FAMILY.spec)(&llama::FAMILY, settings),
        layers => {
            let supported =
                format!("a Baichuan in a GGUF file must be a 7B, with {TURNED} layers: give the folder of others");
            Err(settings.unsupported(LAYERS, layers.to_string(), &supported))
        }
    }
}
