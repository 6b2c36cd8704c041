//! The architecture of one model in numbers, and from them its blocks, the names and shapes of its tensors, its size.

use std::fmt;

use super::error::ModelError;
use super::rope::RopeSpec;
use super::{BlockId, BlockKind, BlockSet};
use crate::weights::Weights;

/// Model families: which keys, tensors and arithmetic a checkpoint has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Llama and everything published under its name.
    Llama,
    /// Qwen2 and Qwen2.5.
    Qwen2,
}

impl Family {
    /// All that are supported.
    pub const ALL: [Family; 2] = [Family::Llama, Family::Qwen2];

    /// The `model_type` of Hugging Face and the `general.architecture` of GGUF.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Qwen2 => "qwen2",
        }
    }

    /// The Hugging Face class that computes it.
    pub fn hf_class(self) -> &'static str {
        match self {
            Family::Llama => "LlamaForCausalLM",
            Family::Qwen2 => "Qwen2ForCausalLM",
        }
    }

    pub(super) fn defaults(self) -> FamilyDefaults {
        match self {
            Family::Llama => super::llama::DEFAULTS,
            Family::Qwen2 => super::qwen2::DEFAULTS,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a family's configuration means when it leaves a key out.
pub(super) struct FamilyDefaults {
    /// None: as many as heads.
    pub kv_heads: Option<usize>,
    pub max_positions: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub tied: bool,
}

/// Which linear layers have a bias.
#[derive(Clone, Copy)]
pub(super) struct Biases {
    pub qkv: bool,
    pub o: bool,
    pub mlp: bool,
}

/// The architecture of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Which family's blocks it is made of.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward blocks.
    pub intermediate_size: usize,
    /// Layers, each of an MHA and an MLP block, those in `absent` included.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, even; `heads * head_dim` need not be `hidden_size`.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f32,
    /// How queries and keys are turned.
    pub rope: RopeSpec,
    /// Whether the head is the embedding.
    pub tied_embeddings: bool,
    /// Longest window that the model was made for.
    pub max_positions: usize,
    /// Whether `q_proj`, `k_proj` and `v_proj` have a bias.
    pub qkv_bias: bool,
    /// Whether `o_proj` has a bias.
    pub o_bias: bool,
    /// Whether `gate_proj`, `up_proj` and `down_proj` have a bias.
    pub mlp_bias: bool,
    /// Blocks that an earlier pruning took out of this checkpoint. Layers keep their indices.
    pub absent: BlockSet,
    /// The token that begins a text, if the configuration says.
    pub bos_token_id: Option<u32>,
    /// The tokens that end one; a configuration may name several.
    pub eos_token_ids: Vec<u32>,
}

/// Tensor names of one layer by their role. Biases are there only if the model has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerNames {
    /// Norm before attention, `[hidden_size]`.
    pub input_layernorm: String,
    /// `[heads * head_dim, hidden_size]`.
    pub q_proj: String,
    /// `[heads * head_dim]`.
    pub q_proj_bias: Option<String>,
    /// `[kv_heads * head_dim, hidden_size]`.
    pub k_proj: String,
    /// `[kv_heads * head_dim]`.
    pub k_proj_bias: Option<String>,
    /// `[kv_heads * head_dim, hidden_size]`.
    pub v_proj: String,
    /// `[kv_heads * head_dim]`.
    pub v_proj_bias: Option<String>,
    /// `[hidden_size, heads * head_dim]`.
    pub o_proj: String,
    /// `[hidden_size]`.
    pub o_proj_bias: Option<String>,
    /// Norm before the feed-forward network, `[hidden_size]`.
    pub post_attention_layernorm: String,
    /// `[intermediate_size, hidden_size]`.
    pub gate_proj: String,
    /// `[intermediate_size]`.
    pub gate_proj_bias: Option<String>,
    /// `[intermediate_size, hidden_size]`.
    pub up_proj: String,
    /// `[intermediate_size]`.
    pub up_proj_bias: Option<String>,
    /// `[hidden_size, intermediate_size]`.
    pub down_proj: String,
    /// `[hidden_size]`.
    pub down_proj_bias: Option<String>,
}

impl ModelSpec {
    /// Name of the embedding, `[vocab_size, hidden_size]`.
    pub const EMBEDDING: &'static str = "model.embed_tokens.weight";
    /// Name of the norm after the last layer, `[hidden_size]`.
    pub const FINAL_NORM: &'static str = "model.norm.weight";
    /// Name of the head, `[vocab_size, hidden_size]`, where it is not the embedding.
    pub const HEAD: &'static str = "lm_head.weight";

    /// The tensor that the head reads: its own, or the embedding when tied.
    pub fn head_name(&self) -> &'static str {
        if self.tied_embeddings { Self::EMBEDDING } else { Self::HEAD }
    }

    /// Whether the model has this block: its layer exists and no earlier pruning took it out.
    pub fn has(&self, block: BlockId) -> bool {
        block.layer < self.layers && !self.absent.contains(block)
    }

    /// Names the first block of `blocks` that this model does not have.
    pub fn check_blocks(&self, blocks: &BlockSet) -> Result<(), ModelError> {
        let Some(block) = blocks.iter().find(|block| !self.has(*block)) else { return Ok(()) };
        let absent = if self.absent.is_empty() { String::new() } else { format!(", without {}", self.absent) };
        Err(ModelError::NoSuchBlock { block, last: self.layers.saturating_sub(1), absent })
    }

    /// The blocks that are there, in the published candidate order: `mha:0, mha:1, .., mlp:0, mlp:1, ..`.
    pub fn blocks(&self) -> impl Iterator<Item = BlockId> + '_ {
        let mha = (0..self.layers).map(BlockId::mha);
        mha.chain((0..self.layers).map(BlockId::mlp)).filter(|block| self.has(*block))
    }

    /// Tensor names of one layer.
    pub fn layer_names(&self, layer: usize) -> LayerNames {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        let bias = |there: bool, rest: &str| there.then(|| name(rest));
        LayerNames {
            input_layernorm: name("input_layernorm.weight"),
            q_proj: name("self_attn.q_proj.weight"),
            q_proj_bias: bias(self.qkv_bias, "self_attn.q_proj.bias"),
            k_proj: name("self_attn.k_proj.weight"),
            k_proj_bias: bias(self.qkv_bias, "self_attn.k_proj.bias"),
            v_proj: name("self_attn.v_proj.weight"),
            v_proj_bias: bias(self.qkv_bias, "self_attn.v_proj.bias"),
            o_proj: name("self_attn.o_proj.weight"),
            o_proj_bias: bias(self.o_bias, "self_attn.o_proj.bias"),
            post_attention_layernorm: name("post_attention_layernorm.weight"),
            gate_proj: name("mlp.gate_proj.weight"),
            gate_proj_bias: bias(self.mlp_bias, "mlp.gate_proj.bias"),
            up_proj: name("mlp.up_proj.weight"),
            up_proj_bias: bias(self.mlp_bias, "mlp.up_proj.bias"),
            down_proj: name("mlp.down_proj.weight"),
            down_proj_bias: bias(self.mlp_bias, "mlp.down_proj.bias"),
        }
    }

    /// Names and shapes of a block's tensors, its norm first. A removed block takes all of them with it.
    pub fn block_tensors(&self, block: BlockId) -> Vec<(String, Vec<usize>)> {
        let names = self.layer_names(block.layer);
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let tensors = match block.kind {
            BlockKind::Mha => vec![
                (Some(names.input_layernorm), vec![hidden]),
                (Some(names.q_proj), vec![queries, hidden]),
                (names.q_proj_bias, vec![queries]),
                (Some(names.k_proj), vec![keys, hidden]),
                (names.k_proj_bias, vec![keys]),
                (Some(names.v_proj), vec![keys, hidden]),
                (names.v_proj_bias, vec![keys]),
                (Some(names.o_proj), vec![hidden, queries]),
                (names.o_proj_bias, vec![hidden]),
            ],
            BlockKind::Mlp => vec![
                (Some(names.post_attention_layernorm), vec![hidden]),
                (Some(names.gate_proj), vec![inner, hidden]),
                (names.gate_proj_bias, vec![inner]),
                (Some(names.up_proj), vec![inner, hidden]),
                (names.up_proj_bias, vec![inner]),
                (Some(names.down_proj), vec![hidden, inner]),
                (names.down_proj_bias, vec![hidden]),
            ],
        };
        tensors.into_iter().filter_map(|(name, shape)| Some((name?, shape))).collect()
    }

    /// Names and shapes of the tensors outside the blocks: embedding, final norm, and the head if it is its own.
    pub fn outer_tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut tensors = vec![
            (Self::EMBEDDING.to_string(), vec![self.vocab_size, self.hidden_size]),
            (Self::FINAL_NORM.to_string(), vec![self.hidden_size]),
        ];
        if !self.tied_embeddings {
            tensors.push((Self::HEAD.to_string(), vec![self.vocab_size, self.hidden_size]));
        }
        tensors
    }

    /// Names every tensor that the model needs and `weights` does not have, or has in another shape or in a type that
    /// cannot be read. Tensors of absent blocks are not needed.
    pub fn check(&self, weights: &Weights) -> Result<(), ModelError> {
        const LISTED: usize = 5;
        let blocks = (0..2 * self.layers).map(BlockId::at_depth).filter(|block| self.has(*block));
        let needed = self.outer_tensors().into_iter().chain(blocks.flat_map(|block| self.block_tensors(block)));
        let problems: Vec<_> = needed.filter_map(|(name, shape)| weights.require(&name, &shape).err()).collect();
        if problems.is_empty() {
            return Ok(());
        }
        let mut listed: String = problems.iter().take(LISTED).map(|problem| format!("\n  {problem}")).collect();
        if problems.len() > LISTED {
            listed.push_str(&format!("\n  and {} more", problems.len() - LISTED));
        }
        Err(ModelError::Tensors { count: problems.len(), listed })
    }

    /// Parameters of one block, its norm included.
    pub fn block_parameters(&self, block: BlockId) -> u64 {
        parameters_of(&self.block_tensors(block))
    }

    /// Parameters of the model as it is: without absent blocks, a tied head counted once.
    pub fn parameters(&self) -> u64 {
        let blocks: u64 = self.blocks().map(|block| self.block_parameters(block)).sum();
        blocks + parameters_of(&self.outer_tensors())
    }
}

fn parameters_of(tensors: &[(String, Vec<usize>)]) -> u64 {
    tensors.iter().map(|(_, shape)| shape.iter().map(|n| *n as u64).product::<u64>()).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn tiny() -> ModelSpec {
        let config = include_str!("../../../assets/tiny/config.json");
        ModelSpec::from_config(&serde_json::from_str(config).unwrap()).unwrap()
    }

    #[test]
    fn parameters_are_those_of_the_model_card() {
        let mut spec = tiny();
        assert_eq!(spec.parameters(), 2_739_328);
        let whole = spec.parameters();
        let gone = [BlockId::mha(3), BlockId::mlp(11)];
        let without: u64 = gone.iter().map(|block| spec.block_parameters(*block)).sum();
        spec.absent = gone.into_iter().collect();
        assert_eq!(spec.parameters(), whole - without);
        spec.tied_embeddings = false;
        assert_eq!(spec.parameters(), whole - without + 4096 * 128);
    }

    #[test]
    fn blocks_leave_out_what_is_absent() {
        let mut spec = tiny();
        assert_eq!(spec.blocks().count(), 24);
        spec.absent = "mha:0,mlp:5".parse().unwrap();
        let blocks: Vec<BlockId> = spec.blocks().collect();
        assert_eq!(blocks.len(), 22);
        assert_eq!(blocks[0], BlockId::mha(1));
        assert!(blocks.is_sorted());
        assert!(spec.check_blocks(&"mha:1,mlp:11".parse().unwrap()).is_ok());
        for (bad, expected) in [("mlp:5", "mlp:5"), ("mha:12", "mha:12")] {
            let error = spec.check_blocks(&bad.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("0 to 11") && error.contains("mha:0,mlp:5"), "{error}");
        }
    }

    #[test]
    fn biases_are_tensors_of_their_block() {
        let mut spec = tiny();
        let plain = spec.block_tensors(BlockId::mha(2)).len();
        spec.qkv_bias = true;
        let names: Vec<String> = spec.block_tensors(BlockId::mha(2)).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), plain + 3);
        assert!(names.contains(&"model.layers.2.self_attn.k_proj.bias".to_string()));
        spec.mlp_bias = true;
        let down = spec.block_tensors(BlockId::mlp(2)).into_iter().find(|(n, _)| n.ends_with("down_proj.bias"));
        assert_eq!(down.unwrap().1, [128]);
    }
}
