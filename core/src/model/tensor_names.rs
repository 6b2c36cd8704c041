//! Tensors that a file names in another way than transformers, has too many of, or has instead of those that are needed.

use std::collections::BTreeSet;

use super::error::ModelError;
use super::families::LAYERS;
use super::family::{Role, gguf_layer};
use super::spec::ModelSpec;
use super::{BlockId, BlockKind};
use crate::weights::{Renamed, Weights, WeightsError};

/// What programs put before every name: `torch.compile`, wrappers for training on several devices, and classes that hold a model.
const WRAPPERS: [&str; 4] = ["_orig_mod.", "module.", "_fsdp_wrapped_module.", "model."];
/// What most families call the head, and transformers the head of all.
const HEAD: &str = "lm_head.weight";

impl ModelSpec {
    /// The tensors under the names of transformers: without what wrappers put before them, and with the `model.` (or
    /// `transformer.`) that is missing where the base class was saved. A tied head that is there alone is the embedding. Other
    /// names stay.
    pub(super) fn with_usual_names(&self, weights: Weights) -> Result<Weights, WeightsError> {
        let (embedding, head) = (self.embedding_name(), self.family.weight_name(Role::Head));
        // What stands before all names but the head's.
        let (base, inner) = embedding.split_once('.').unwrap_or(("", &embedding));
        let is_usual = weights.all_names().any(|name| name == embedding);
        if is_usual && (head == HEAD || weights.all_names().all(|name| name != HEAD)) {
            return Ok(weights);
        }
        let lacks_base = !is_usual && weights.all_names().any(|name| unwrapped(name) == inner);
        let is_wrapped = lacks_base || !is_usual && weights.all_names().any(|name| unwrapped(name) == embedding);
        let plain: fn(&str) -> &str = if is_wrapped { unwrapped } else { |name| name };
        let has_head = weights.all_names().any(|name| plain(name) == head);
        let is_embedding = self.head.tied && !is_usual && !is_wrapped;
        let head_name = if is_embedding { &embedding } else { &head };
        weights.renamed(|name| {
            let plain = plain(name);
            let name = match plain == head || plain == HEAD && !has_head {
                true => head_name.clone(),
                false if lacks_base => format!("{base}.{plain}"),
                false => plain.to_string(),
            };
            Some(Renamed::only(name))
        })
    }

    /// Reads the head that the weights have if it is not the embedding, although the configuration says so: it was trained,
    /// and no one can have meant to throw it away. What people should know then.
    pub(super) async fn use_own_head(&mut self, weights: &Weights) -> Result<Option<String>, ModelError> {
        const ROWS: usize = 1024;
        let head = self.family.weight_name(Role::Head);
        if !self.head.tied || !weights.all_names().any(|name| name == head) {
            return Ok(None);
        }
        let refuse = |error: WeightsError| ModelError::File {
            file: error.to_string(),
            problem: "tie_word_embeddings says that it is the embedding".to_string(),
            advice: "take it out of the file, or set tie_word_embeddings to false".to_string(),
        };
        weights.require(&head, &[self.vocab_size, self.hidden_size]).map_err(refuse)?;
        let embedding = self.embedding_name();
        for start in (0..self.vocab_size).step_by(ROWS) {
            let rows = start..self.vocab_size.min(start + ROWS);
            let own = weights.read_rows(&head, rows.clone()).await?;
            let tied = weights.read_rows(&embedding, rows).await?;
            if own.to_f32() != tied.to_f32() {
                self.head.tied = false;
                return Ok(Some(format!(
                    "{head} is another matrix than {embedding}, although tie_word_embeddings is true: it is used as the head"
                )));
            }
        }
        Ok(None)
    }

    /// What the weights have and the model does not read, if anything: what people should know then.
    pub(super) fn unused(&self, weights: &Weights) -> Option<String> {
        let needed: BTreeSet<String> = self.needed_tensors().map(|(name, _)| name).collect();
        let harmless = |name: &str| {
            // Frequencies and masks that old versions saved, the tied head, and blocks that an earlier pruning took out.
            let absent = |(layer, kind): (usize, Option<BlockKind>)| {
                kind.is_some_and(|kind| self.absent.contains(BlockId { kind, layer }))
            };
            let mut attention = self.family.modules(BlockKind::Mha).into_iter();
            name.ends_with(".rotary_emb.inv_freq")
                || attention
                    .any(|part| [".bias", ".masked_bias"].iter().any(|end| name.ends_with(&format!(".{part}{end}"))))
                || self.is_unused_head(name)
                || self.family.place(name).is_some_and(absent)
        };
        let unused: Vec<&str> = weights.names().filter(|name| !needed.contains(*name) && !harmless(name)).collect();
        let first = unused.first()?;
        let beyond = unused.iter().filter_map(|name| self.family.place(name)).map(|(layer, _)| layer).max();
        Some(match beyond.filter(|layer| *layer >= self.layers.len()) {
            Some(last) => {
                let (key, layers) = (LAYERS.hf, self.layers.len());
                format!(
                    "the weights have layers up to {last}, of which those from {layers} on are not used: {key} is {layers}"
                )
            }
            None => format!(
                "{} tensors are not part of the architecture and are not used, the first: {first}",
                unused.len()
            ),
        })
    }

    /// Refuses tensors of a GGUF file that the model would not read, as llama.cpp does: who wrote them meant something by it.
    pub(super) fn check_gguf_names(&self, file: &str, weights: &Weights) -> Result<(), ModelError> {
        let needed: BTreeSet<String> = self.needed_tensors().map(|(name, _)| name).collect();
        let layers = self.layers.len();
        for name in weights.all_names() {
            let layer = gguf_layer(name).map(|(layer, _)| layer);
            if let Some(layer) = layer.filter(|layer| *layer >= layers) {
                let key = format!("{}.{}", self.family.gguf_architecture().unwrap_or_default(), LAYERS.gguf);
                let expected = format!("more than {layer}, because there is a tensor `{name}`");
                return Err(ModelError::Key { file: file.to_string(), key, found: layers.to_string(), expected });
            }
            // Those of a block that adds zeros, which counts as absent.
            let absent = |name: &str| match self.family.place(name) {
                Some((layer, Some(kind))) => self.absent.contains(BlockId { kind, layer }),
                _ => false,
            };
            let renamed = self.family.hugging_face_names(name, self);
            let known = renamed.iter().any(|renamed| needed.contains(&renamed.name) || absent(&renamed.name));
            if !known && !name.ends_with(".attn_rot_embd.weight") {
                return Err(ModelError::Unsupported {
                    file: file.to_string(),
                    key: name.to_string(),
                    found: "a tensor that is no part of this architecture".to_string(),
                    supported: format!(
                        "a {} has no such tensor here, and leaving it out would change the result",
                        self.family
                    ),
                });
            }
        }
        Ok(())
    }
}

fn unwrapped(mut name: &str) -> &str {
    while let Some(inner) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = inner;
    }
    name
}

/// What ends the names of MLX's scales, among others'.
const SCALES: &str = ".scales";
/// What to do with weights that are quantised in ways that are not read.
const QUANTISED_ADVICE: &str = "take the checkpoint in bf16, f16 or f32, or a GGUF file of it";

/// How tensors beside a matrix are called, or end, that hold what is needed to read it back from few bits.
const QUANTISED: [&str; 13] = [
    SCALES,
    ".qweight",
    ".qzeros",
    ".g_idx",
    ".weight_packed",
    ".weight_scale",
    ".weight_scale_inv",
    ".absmax",
    ".quant_map",
    ".SCB",
    ".quant_state.bitsandbytes__nf4",
    ".quant_state.bitsandbytes__fp4",
    ".W_q",
];

/// What weights are with which there are `problems`, of the `count` tensors that are needed; None if that cannot be told.
pub(super) fn explain(weights: &Weights, problems: &[WeightsError], count: usize) -> Option<ModelError> {
    let unsupported: Vec<_> = problems
        .iter()
        .filter_map(|problem| match problem {
            WeightsError::UnsupportedType { file, tensor, dtype, supported } => Some((file, tensor, dtype, supported)),
            _ => None,
        })
        .collect();
    let names: Vec<&str> = weights.all_names().collect();
    if let Some((file, tensor, dtype, supported)) = unsupported.first() {
        if dtype.as_str() == "U32" && names.iter().any(|name| name.ends_with(SCALES)) {
            let problem = format!("the weights are quantised by MLX (`{tensor}` is {dtype}, beside its scales)");
            return Some(ModelError::File { file: (*file).clone(), problem, advice: QUANTISED_ADVICE.to_string() });
        }
        let types: BTreeSet<&str> = unsupported.iter().map(|(.., dtype, _)| dtype.as_str()).collect();
        let others = if types.len() > 1 {
            format!(" (the types are {})", types.into_iter().collect::<Vec<_>>().join(", "))
        } else {
            String::new()
        };
        let problem = format!(
            "{} tensors are of a type that is not supported{others}, the first: `{tensor}` is {dtype}",
            unsupported.len()
        );
        let advice = format!("take the model with weights of the types {supported}");
        return Some(ModelError::File { file: (*file).clone(), problem, advice });
    }
    let missing = problems.iter().find_map(|problem| match problem {
        WeightsError::MissingTensor { file, tensor } => Some((file, tensor)),
        _ => None,
    });
    let (file, expected) = missing?;
    let find = |wanted: &dyn Fn(&str) -> bool| names.iter().copied().find(|name| wanted(name));
    let has_part = |parts: &'static [&str]| find(&|name| parts.iter().any(|part| name.contains(part)));
    let (problem, advice) = if let Some(name) = find(&|name| QUANTISED.iter().any(|end| name.ends_with(end))) {
        (
            format!("the weights are quantised in a way that is not supported (there is a tensor `{name}`)"),
            QUANTISED_ADVICE.to_string(),
        )
    } else if let Some(name) = has_part(&[".lora_A.", ".lora_B.", ".lora_a", ".lora_b"]) {
        (
            format!("the weights are those of an adapter (LoRA), not of a model (there is a tensor `{name}`)"),
            "merge it into its model first (PEFT: merge_and_unload()), and give that model".to_string(),
        )
    } else if let Some(name) = find(&|name| name == "tok_embeddings.weight" || name.ends_with(".attention.wq.weight")) {
        (
            format!("the weights have the original names of Meta and Mistral (`{name}`)"),
            format!(
                "take those with the names of transformers (`{expected}`), often published as model.safetensors beside"
            ),
        )
    } else if problems.len() == count && !names.is_empty() {
        let some: Vec<String> = names.iter().take(3).map(|name| format!("`{name}`")).collect();
        (
            format!(
                "its tensors have other names than the model's: {}, .., where `{expected}` is expected",
                some.join(", ")
            ),
            "get configuration and weights from one place".to_string(),
        )
    } else {
        return None;
    };
    Some(ModelError::File { file: file.clone(), problem, advice })
}
