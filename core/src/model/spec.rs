//! The architecture of one model in numbers and choices: what the forward pass is recorded from. No names, no family's rules.

use super::error::ModelError;
use super::family::{Family, TensorRef, stored};
use super::rope::RopeSpec;
use super::tensor_names;
use super::{BlockId, BlockKind, BlockSet};
use crate::weights::Weights;

/// The architecture of one model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelSpec {
    /// How its containers spell it.
    pub family: &'static Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Longest window that the model was made for.
    pub max_positions: usize,
    /// Token ids to hidden states.
    pub embedding: Embedding,
    /// Layers, those with blocks in `absent` included.
    pub layers: Vec<Layer>,
    /// After the last layer.
    pub final_norm: Norm,
    /// Hidden states to logits.
    pub head: Head,
    /// The rotary embeddings that layers refer to.
    pub ropes: Vec<RopeSpec>,
    /// A text that grows beyond so many positions is run anew, because its keys are turned in another way from there on.
    pub restarts_after: Option<usize>,
    /// Blocks that an earlier pruning took out of this checkpoint. Layers keep their indices.
    pub absent: BlockSet,
    /// The token that begins a text, if the configuration says.
    pub bos_token_id: Option<u32>,
    /// The tokens that end one; a configuration may name several.
    pub eos_token_ids: Vec<u32>,
}

/// Token ids to hidden states.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Embedding {
    /// Multiplies a row of the embedding.
    pub scale: f32,
    /// What is added for the place where a token stands; such a model has no more than `max_positions`.
    pub positions: Option<LearnedPositions>,
}

/// A vector for each position: `embedding + positions[offset + position]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LearnedPositions {
    /// The table's rows before that of the first position.
    pub offset: usize,
}

/// Hidden states to logits: `soft_cap(scale * x W^T)`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Head {
    /// Whether its weights are the embedding.
    pub tied: bool,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether each row of its weights is divided by its length.
    pub unit_rows: bool,
    /// Multiplies the logits.
    pub scale: f32,
    /// A logit x becomes `cap * tanh(x / cap)`.
    pub soft_cap: Option<f32>,
}

/// A transformer layer: two residual branches.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Layer {
    /// The attention block.
    pub attention: Attention,
    /// The feed-forward block.
    pub feed_forward: FeedForward,
    /// Whether both read the layer's input, instead of the second what the first has added to.
    pub parallel: bool,
}

/// A residual branch around a function f: `x + scale * post_norm(f(norm(x)))`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Branch {
    /// Before f.
    pub norm: Option<Norm>,
    /// After f.
    pub post_norm: Option<Norm>,
    /// Multiplies what is added.
    pub scale: f32,
}

/// How activations are normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Norm {
    /// By what.
    pub kind: NormKind,
    /// Added to the mean square, or to the variance.
    pub eps: f32,
    /// Whether there is a bias; that of a layer norm without one is zero.
    pub bias: bool,
}

/// Attention with grouped queries: `softmax(mask(soft_cap(scale * q k^T + alibi))) v`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Attention {
    /// What is around it.
    pub branch: Branch,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, even; `heads * head_dim` need not be `hidden_size`.
    pub head_dim: usize,
    /// Which projections have a bias.
    pub bias: AttentionBias,
    /// The norm of queries and keys before they are turned.
    pub qk_norm: Option<QkNorm>,
    /// How it knows where a token stands.
    pub positions: Positions,
    /// Multiplies the scores.
    pub scale: f32,
    /// A score x becomes `cap * tanh(x / cap)`.
    pub soft_cap: Option<f32>,
    /// A query sees so many keys, its own among them, at most.
    pub sliding_window: Option<u32>,
}

/// Which projections of an attention block have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttentionBias {
    /// Those of queries, keys and values.
    pub qkv: bool,
    /// The output projection.
    pub out: bool,
}

/// The norm of queries and of keys.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct QkNorm {
    /// How.
    pub norm: Norm,
    /// Over what.
    pub over: Over,
}

pub use blockpruner_shaders::{Activation, Alibi, NormKind, Over};

/// How attention knows where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Positions {
    /// Not at all, but for what the mask tells.
    None,
    /// Queries and keys are turned by this one of the model's rotary embeddings.
    Rope(usize),
    /// Scores are biased by the positions of their keys.
    Alibi(Alibi),
}

/// A feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum FeedForward {
    /// One network for every token.
    Dense(Dense),
    /// A choice of networks for each token. Not built yet: such models are refused when they are opened.
    Experts {
        /// Networks of a layer.
        count: usize,
    },
}

/// A feed-forward network: `down(activation(gate(x)) * up(x))`, or `down(activation(up(x)))` without a gate.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Dense {
    /// What is around it.
    pub branch: Branch,
    /// Width inside.
    pub inner: usize,
    /// What the gate, or else the first product, goes through.
    pub activation: Activation,
    /// Whether there is a gate.
    pub gated: bool,
    /// Whether the projections have a bias.
    pub bias: bool,
}

impl Attention {
    /// Columns of all query heads.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of all key heads, and of all value heads.
    pub fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

impl Dense {
    /// Projections that read the states.
    pub(crate) fn products(&self) -> usize {
        1 + self.gated as usize
    }
}

impl Layer {
    /// The feed-forward network.
    ///
    /// # Panics
    /// If it is a choice of several, which is refused when a model is opened.
    pub(crate) fn dense(&self) -> &Dense {
        match &self.feed_forward {
            FeedForward::Dense(dense) => dense,
            FeedForward::Experts { .. } => unreachable!("models with experts are refused when they are opened"),
        }
    }

    /// Steps of the forward pass.
    fn sublayers(&self) -> usize {
        if self.parallel { 1 } else { 2 }
    }

    /// What is around a block's function.
    pub(crate) fn branch(&self, kind: BlockKind) -> &Branch {
        match kind {
            BlockKind::Mha => &self.attention.branch,
            BlockKind::Mlp => &self.dense().branch,
        }
    }
}

impl ModelSpec {
    /// How many elements of a head are turned by their position.
    pub(crate) fn rotated(&self, attention: &Attention) -> usize {
        match attention.positions {
            Positions::None | Positions::Alibi(_) => 0,
            Positions::Rope(index) => self.ropes.get(index).map_or(0, |rope| rope.rotated),
        }
    }

    /// The same without the windows that no text of the model's own length fills.
    pub(crate) fn without_unfilled_windows(mut self) -> Self {
        let most = self.max_positions;
        for layer in &mut self.layers {
            let window = &mut layer.attention.sliding_window;
            *window = window.filter(|window| (*window as usize) < most);
        }
        self
    }

    /// Whether the model has this block: its layer exists and no earlier pruning took it out.
    pub fn has(&self, block: BlockId) -> bool {
        block.layer < self.layers.len() && !self.absent.contains(block)
    }

    /// Names the first block of `blocks` that this model does not have.
    ///
    /// # Errors
    /// [`ModelError::NoSuchBlock`].
    pub fn check_blocks(&self, blocks: &BlockSet) -> Result<(), ModelError> {
        let Some(block) = blocks.iter().find(|block| !self.has(*block)) else { return Ok(()) };
        let absent = if self.absent.is_empty() { String::new() } else { format!(", without {}", self.absent) };
        Err(ModelError::NoSuchBlock { block, last: self.layers.len().saturating_sub(1), absent })
    }

    /// The blocks that are there, in the published candidate order: `mha:0, mha:1, .., mlp:0, mlp:1, ..`.
    pub fn blocks(&self) -> impl Iterator<Item = BlockId> + '_ {
        let layers = 0..self.layers.len();
        let mha = layers.clone().map(BlockId::mha);
        mha.chain(layers.map(BlockId::mlp)).filter(|block| self.has(*block))
    }

    /// The steps of the forward pass, each the blocks that read the same states: two a layer, or one where its branches are
    /// parallel.
    pub(crate) fn sublayer_count(&self) -> usize {
        self.layers.iter().map(Layer::sublayers).sum()
    }

    /// The blocks of sublayer `index`, whether they are there or not.
    pub(crate) fn sublayer(&self, index: usize) -> Vec<BlockId> {
        let mut first = 0;
        for (number, layer) in self.layers.iter().enumerate() {
            if index < first + layer.sublayers() {
                let (mha, mlp) = (BlockId::mha(number), BlockId::mlp(number));
                return match (layer.parallel, index - first) {
                    (true, _) => vec![mha, mlp],
                    (false, 0) => vec![mha],
                    (false, _) => vec![mlp],
                };
            }
            first += layer.sublayers();
        }
        Vec::new()
    }

    /// The sublayer that a block is in.
    pub(crate) fn sublayer_of(&self, block: BlockId) -> usize {
        let before: usize = self.layers.iter().take(block.layer).map(Layer::sublayers).sum();
        let sequential = self.layers.get(block.layer).is_none_or(|layer| !layer.parallel);
        before + (sequential && block.kind == BlockKind::Mlp) as usize
    }

    /// The stored tensors that the model needs, names and shapes. Those of absent blocks are not needed.
    pub(super) fn needed_tensors(&self) -> impl Iterator<Item = (String, Vec<usize>)> + '_ {
        let layers = (0..self.layers.len()).flat_map(|layer| {
            let blocks = [BlockId::mha(layer), BlockId::mlp(layer)].into_iter().filter(|block| self.has(*block));
            stored(&blocks.flat_map(|block| self.block_tensors(block)).collect::<Vec<_>>())
        });
        stored(&self.outer_tensors()).into_iter().chain(layers)
    }

    /// Names every tensor that the model needs and `weights` does not have, or has in another shape or in a type that
    /// cannot be read; or says what the weights are instead, if that can be told.
    pub(crate) fn check(&self, weights: &Weights) -> Result<(), ModelError> {
        const LISTED: usize = 5;
        let mut count = 0;
        let needed = self.needed_tensors().inspect(|_| count += 1);
        let problems: Vec<_> = needed.filter_map(|(name, shape)| weights.require(&name, &shape).err()).collect();
        if problems.is_empty() {
            return Ok(());
        }
        if let Some(error) = tensor_names::explain(weights, &problems, count) {
            return Err(error);
        }
        let mut listed: String = problems.iter().take(LISTED).map(|problem| format!("\n  {problem}")).collect();
        if problems.len() > LISTED {
            listed.push_str(&format!("\n  and {} more", problems.len() - LISTED));
        }
        Err(ModelError::Tensors { count: problems.len(), listed })
    }

    /// Parameters of one block, its norms included; a norm that it shares is counted for each block.
    pub fn block_parameters(&self, block: BlockId) -> u64 {
        parameters_of(stored(&self.block_tensors(block)))
    }

    /// Refuses windows that are longer than a table of positions.
    ///
    /// # Errors
    /// [`ModelError::Positions`].
    pub fn check_window(&self, window: usize) -> Result<(), ModelError> {
        match self.embedding.positions {
            Some(_) if window > self.max_positions => Err(ModelError::Positions { window, most: self.max_positions }),
            _ => Ok(()),
        }
    }

    /// Tokens of a window where nobody chooses: 2048, or the model's maximum if that is smaller.
    pub fn default_window(&self) -> usize {
        self.max_positions.min(2048)
    }

    /// Parameters of the model as it is: without absent blocks, a tied head and a shared norm counted once.
    pub fn parameters(&self) -> u64 {
        parameters_of(self.needed_tensors())
    }

    /// Parameters of the wanted tensors outside the layers.
    pub(crate) fn outer_parameters(&self, wanted: impl Fn(&TensorRef) -> bool) -> u64 {
        parameters_of(stored(&self.outer_tensors().into_iter().filter(wanted).collect::<Vec<_>>()))
    }

    /// The share of the parameters that these blocks have, 0 to 1.
    pub fn ratio_removed(&self, removed: &BlockSet) -> f64 {
        let all = self.parameters();
        (all - self.parameters_without(removed)) as f64 / all as f64
    }

    /// Parameters without these blocks, too.
    pub fn parameters_without(&self, removed: &BlockSet) -> u64 {
        Self { absent: self.absent.union(removed), ..self.clone() }.parameters()
    }
}

fn parameters_of(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> u64 {
    tensors.into_iter().map(|(_, shape)| shape.iter().map(|n| *n as u64).product::<u64>()).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn tiny() -> ModelSpec {
        ModelSpec::from_config(&serde_json::from_slice(blockpruner_tiny::CONFIG).unwrap()).unwrap()
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
        spec.head.tied = false;
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
        spec.layers[2].attention.bias.qkv = true;
        let names: Vec<String> = spec.block_tensors(BlockId::mha(2)).into_iter().map(|tensor| tensor.name).collect();
        assert_eq!(names.len(), plain + 3);
        assert!(names.contains(&"model.layers.2.self_attn.k_proj.bias".to_string()));
        let FeedForward::Dense(dense) = &mut spec.layers[2].feed_forward else { unreachable!() };
        dense.bias = true;
        let tensors = stored(&spec.block_tensors(BlockId::mlp(2)));
        let down = tensors.into_iter().find(|(name, _)| name.ends_with("down_proj.bias"));
        assert_eq!(down.unwrap().1, [128]);
    }

    /// Every block is in the sublayer that says so, whichever layers have parallel branches.
    #[test]
    fn sublayers_hold_every_block_once() {
        for parallel in [[false; 3], [true; 3], [false, true, false]] {
            let mut spec = tiny();
            spec.layers.truncate(3);
            spec.layers.iter_mut().zip(parallel).for_each(|(layer, parallel)| layer.parallel = parallel);
            let count = spec.sublayer_count();
            assert_eq!(count, 6 - parallel.iter().filter(|parallel| **parallel).count());
            let mut seen = Vec::new();
            for index in 0..count {
                for block in spec.sublayer(index) {
                    assert_eq!(spec.sublayer_of(block), index);
                    seen.push(block);
                }
            }
            assert!(seen.is_sorted_by_key(BlockId::by_layer) && seen.len() == 6, "{seen:?}");
        }
    }
}
