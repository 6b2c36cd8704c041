//! What a model family is: how its containers spell its tensors and settings, and what those mean.
//!
//! A [`Family`] is data, one file in [`super::families`]. Everything that has to do with a tensor's name goes through its
//! table: reading both containers, loading, counting parameters, taking blocks out, zeroing, and the exported Python module.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use super::error::ModelError;
use super::families::Defaults;
use super::settings::{Key, Settings};
use super::spec::{Attention, FeedForward, Layer, ModelSpec, Norm, Over};
use super::{BlockId, BlockKind};
use crate::weights::{Heads, Renamed, RowOrder, Weights};

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the parts of a transformer")]
pub enum Role {
    Embedding,
    Positions,
    FinalNorm,
    Head,
    AttentionNorm,
    Query,
    Key,
    Value,
    QueryNorm,
    KeyNorm,
    AttentionOut,
    AttentionPostNorm,
    FeedForwardNorm,
    Gate,
    Up,
    Down,
    FeedForwardPostNorm,
}

impl Role {
    /// The kind of block that a tensor goes with; None outside the layers.
    pub(crate) fn kind(self) -> Option<BlockKind> {
        match self {
            Self::Embedding | Self::Positions | Self::FinalNorm | Self::Head => None,
            Self::FeedForwardNorm | Self::Gate | Self::Up | Self::Down | Self::FeedForwardPostNorm => {
                Some(BlockKind::Mlp)
            }
            _ => Some(BlockKind::Mha),
        }
    }

    /// Whether its values multiply what was normalised.
    pub(crate) fn is_norm(self) -> bool {
        match self {
            Self::FinalNorm | Self::AttentionNorm | Self::QueryNorm | Self::KeyNorm => true,
            Self::AttentionPostNorm | Self::FeedForwardNorm | Self::FeedForwardPostNorm => true,
            Self::Embedding | Self::Positions | Self::Head => false,
            Self::Query | Self::Key | Self::Value | Self::AttentionOut => false,
            Self::Gate | Self::Up | Self::Down => false,
        }
    }

    /// Whether it is the projection by which a block writes: if that is zero, so is what the block adds.
    pub(crate) fn is_output(self) -> bool {
        matches!(self, Self::AttentionOut | Self::Down)
    }
}

/// A container of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    /// A Hugging Face folder.
    HuggingFace,
    /// A GGUF file.
    Gguf,
}

/// One row of a family's table: a tensor, with or without a bias beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensor {
    pub role: Role,
    /// The module that holds it in a Hugging Face checkpoint, within its layer if it has one. Modules named in several rows
    /// hold these tensors one below the other, in the order of the rows.
    pub hf: &'static str,
    /// What GGUF calls it, within its layer; empty if such files are not read.
    pub gguf: &'static str,
    /// The container whose rows are laid out for rotary embedding of neighbouring elements; here it turns halves.
    pub interleaved: Option<Container>,
    /// Whether a Hugging Face checkpoint holds Q, K and V of one tensor group by group: the query heads that share a key
    /// head, that, and its value head. GGUF files hold all of Q, then K, then V.
    pub grouped: bool,
    /// Whether a Hugging Face checkpoint holds a norm's values less 1. GGUF files hold them as they are.
    pub plus_one: bool,
    /// Whether a Hugging Face checkpoint holds a matrix by columns, `[in, out]`; several then lie side by side. GGUF files hold
    /// it by rows, as those of other families.
    pub transposed: bool,
    /// Whether a Hugging Face checkpoint holds a vector of its own for each head, with the head's number behind the module. GGUF
    /// files hold a matrix with these for rows.
    pub each_head: bool,
}

/// A row of a table; see [`Tensor`].
pub(crate) const fn tensor(role: Role, hf: &'static str, gguf: &'static str) -> Tensor {
    Tensor { role, hf, gguf, interleaved: None, grouped: false, plus_one: false, transposed: false, each_head: false }
}

impl Tensor {
    pub const fn interleaved(self, container: Container) -> Self {
        Self { interleaved: Some(container), ..self }
    }

    pub const fn grouped(self) -> Self {
        Self { grouped: true, ..self }
    }

    pub const fn plus_one(self) -> Self {
        Self { plus_one: true, ..self }
    }

    pub const fn transposed(self) -> Self {
        Self { transposed: true, ..self }
    }

    pub const fn each_head(self) -> Self {
        Self { each_head: true, ..self }
    }
}

/// Which biases of attention's output and of the feed-forward projections llama.cpp loads in an architecture, beside those of Q, K
/// and V, of which it needs none. It does not load files with others, or without those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Biases {
    /// None, nor any other one.
    None,
    /// None of these.
    Queries,
    /// Those that are there, but for the feed-forward projections.
    Attention,
    /// Those that are there.
    Any,
    /// All, and those of Q, K and V, too.
    All,
}

/// How GGUF files hold a family.
#[derive(Clone, Copy)]
pub(crate) struct Gguf {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Where another family has the same architecture: the key that only files of this one have.
    pub marked_by: Option<Key>,
    /// Whether files say layer by layer which blocks there are: one of no heads, or of width 0, is not there.
    pub by_layer: bool,
    /// How the family calls the settings that all families have in config.json.
    pub defaults: &'static Defaults,
    /// The biases that llama.cpp loads.
    pub biases: Biases,
    /// Whether llama.cpp wants all heads together to be as wide as the states.
    pub whole_width: bool,
    /// Settings that not all families have, and that a file may state.
    pub keys: &'static [Key],
    /// Keys of a config.json that such a file implies, besides those.
    pub config: fn(&ModelSpec) -> serde_json::Value,
}

/// A model family. Two are equal if they have the same name.
pub struct Family {
    /// The `model_type` of Hugging Face.
    pub name: &'static str,
    /// The Hugging Face class that computes it.
    pub class: &'static str,
    /// The class of its configuration.
    pub config_class: &'static str,
    /// The package of both within `transformers.models`; empty where it has neither, and folders bring their own programs.
    pub package: &'static str,
    /// What its config.json usually calls keys that have another name elsewhere, which transformers reads, too.
    pub(crate) key_names: &'static [(&'static str, &'static str)],
    /// The modules that hold a Hugging Face model's layers: `model.layers`.
    pub(crate) layers: &'static str,
    /// None if its GGUF files are not read.
    pub(crate) gguf: Option<Gguf>,
    /// The tensors that its models may have.
    pub(crate) tensors: &'static [Tensor],
    /// What its settings mean.
    pub(crate) spec: fn(&'static Family, &dyn Settings) -> Result<ModelSpec, ModelError>,
}

/// How the names of a GGUF layer's tensors begin.
const GGUF_LAYER: &str = "blk.";

/// The layer of a GGUF tensor's name, and what follows it: 7 and `attn_q.bias` of `blk.7.attn_q.bias`.
pub(super) fn gguf_layer(name: &str) -> Option<(usize, &str)> {
    let (layer, rest) = name.strip_prefix(GGUF_LAYER)?.split_once('.')?;
    let is_number = !layer.is_empty() && layer.bytes().all(|byte| byte.is_ascii_digit());
    Some((layer.parse().ok().filter(|_| is_number)?, rest))
}

impl Family {
    /// The `general.architecture` of its GGUF files, if they are read.
    pub fn gguf_architecture(&self) -> Option<&'static str> {
        self.gguf.as_ref().map(|gguf| gguf.architecture)
    }

    /// Whether transformers has its class.
    pub fn in_transformers(&self) -> bool {
        !self.package.is_empty()
    }

    /// The row for a role.
    fn tensor(&self, role: Role) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.role == role)
    }

    /// The Hugging Face name of a role's weight.
    pub(super) fn weight_name(&self, role: Role) -> String {
        format!("{}.weight", self.tensor(role).map_or("", |tensor| tensor.hf))
    }

    /// A container's name of a tensor of a module; `suffix` is `weight` or `bias`.
    fn name_of(&self, module: &str, layer: Option<usize>, suffix: &str, container: Container) -> String {
        match (layer, container) {
            (None, _) => format!("{module}.{suffix}"),
            (Some(layer), Container::HuggingFace) => format!("{}.{layer}.{module}.{suffix}", self.layers),
            (Some(layer), Container::Gguf) => format!("{GGUF_LAYER}{layer}.{module}.{suffix}"),
        }
    }

    /// The modules of a layer that hold a kind of block, but for the norms beside them: one, or its projections themselves.
    pub(crate) fn modules(&self, kind: BlockKind) -> Vec<&'static str> {
        let projections =
            self.tensors.iter().filter(|tensor| tensor.role.kind() == Some(kind) && !tensor.role.is_norm());
        let mut modules: Vec<&str> = projections.filter_map(|tensor| tensor.hf.split('.').next()).collect();
        modules.dedup();
        modules
    }

    /// Names of the norms in a layer that belong to one kind of block alone. Where branches are parallel, they may share one,
    /// which stays while one of them does.
    pub(crate) fn norms(&self, kind: BlockKind) -> Vec<&'static str> {
        self.every_norm(kind).filter(|norm| self.every_norm(kind.other()).all(|other| other != *norm)).collect()
    }

    /// Names of the norms in a layer that both blocks read.
    pub(crate) fn shared_norms(&self) -> Vec<&'static str> {
        let read = |norm: &&str| self.every_norm(BlockKind::Mlp).any(|other| other == *norm);
        self.every_norm(BlockKind::Mha).filter(read).collect()
    }

    /// The norms beside the module of a kind of block; there may be others in it.
    fn every_norm(&self, kind: BlockKind) -> impl Iterator<Item = &'static str> {
        let beside = move |tensor: &&Tensor| {
            tensor.role.kind() == Some(kind) && tensor.role.is_norm() && !tensor.hf.contains('.')
        };
        self.tensors.iter().filter(beside).map(|tensor| tensor.hf)
    }

    /// The layer that holds the Hugging Face tensor `name`, and the kind of block that it belongs to there, if to one.
    pub(crate) fn place(&self, name: &str) -> Option<(usize, Option<BlockKind>)> {
        let (layer, rest) = name.strip_prefix(self.layers)?.strip_prefix('.')?.split_once('.')?;
        let module = rest.split('.').next()?;
        let holds = |kind: &BlockKind| self.modules(*kind).contains(&module) || self.norms(*kind).contains(&module);
        Some((layer.parse().ok()?, BlockKind::ALL.into_iter().find(holds)))
    }

    /// The Hugging Face tensor `name` of a layer, as it is called in another layer.
    pub(crate) fn in_layer(&self, name: &str, layer: usize) -> Option<String> {
        let (_, rest) = name.strip_prefix(self.layers)?.strip_prefix('.')?.split_once('.')?;
        Some(format!("{}.{layer}.{rest}", self.layers))
    }

    /// The table's row, the layer and the suffix of GGUF tensor `name`: `blk.7.attn_q.bias` is that of the queries, 7, `bias`.
    fn gguf_tensor<'n>(&self, name: &'n str) -> Option<(&Tensor, Option<usize>, &'n str)> {
        let (module, suffix) = name.rsplit_once('.').filter(|(_, suffix)| ["weight", "bias"].contains(suffix))?;
        let (layer, module) = match module.starts_with(GGUF_LAYER) {
            false => (None, module),
            true => gguf_layer(module).map(|(layer, module)| (Some(layer), module))?,
        };
        let fits = |tensor: &&Tensor| tensor.gguf == module && tensor.role.kind().is_some() == layer.is_some();
        Some((self.tensors.iter().find(fits)?, layer, suffix))
    }

    /// The Hugging Face name of GGUF tensor `name`, or those of its rows, and how its content becomes Hugging Face's; none if the
    /// table does not have it.
    pub(crate) fn hugging_face_names(&self, name: &str, spec: &ModelSpec) -> Vec<Renamed> {
        let Some((tensor, layer, suffix)) = self.gguf_tensor(name) else { return Vec::new() };
        let is_weight = suffix == "weight";
        let modules = spec.modules(tensor, layer);
        let renamed = |(row, module): (usize, String)| Renamed {
            name: self.name_of(&module, layer, suffix, Container::HuggingFace),
            row: tensor.each_head.then_some(row),
            row_order: match tensor.transposed && is_weight {
                true => RowOrder::Transposed,
                false => spec.row_order(tensor, layer, Container::Gguf),
            },
            less_one: tensor.plus_one && is_weight,
        };
        modules.into_iter().enumerate().map(renamed).collect()
    }

    /// Whether GGUF tensor `name` is the bias of a role in any layer.
    pub(crate) fn is_gguf_bias(&self, name: &str, role: Role) -> bool {
        matches!(self.gguf_tensor(name), Some((tensor, _, "bias")) if tensor.role == role)
    }

    /// What GGUF calls the weight of a role outside the layers.
    pub(crate) fn gguf_weight(&self, role: Role) -> String {
        format!("{}.weight", self.tensor(role).map_or("", |tensor| tensor.gguf))
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A tensor of one model: where a checkpoint holds it, Hugging Face's if nothing else is said, and how the forward pass wants it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorRef {
    pub role: Role,
    /// Name of the tensor that holds it, which may hold others, too.
    pub name: String,
    /// Its rows there.
    pub rows: Range<usize>,
    /// Elements of a row; None for a vector.
    pub columns: Option<usize>,
    /// Whether it is added to what another tensor of its role makes.
    pub bias: bool,
    /// The order that the forward pass wants the rows in.
    pub order: RowOrder,
    /// Whether 1 is to be added.
    pub plus_one: bool,
    /// Whether what counts here as its rows are the columns there.
    pub transposed: bool,
}

impl ModelSpec {
    /// Name of the embedding, `[vocab_size, hidden_size]`.
    pub(crate) fn embedding_name(&self) -> String {
        self.family.weight_name(Role::Embedding)
    }

    /// Name of the table of positions.
    pub(crate) fn positions_name(&self) -> String {
        self.family.weight_name(Role::Positions)
    }

    /// Name of the tensor that the head reads, `[vocab_size, hidden_size]`: its own, or the embedding when tied.
    pub(crate) fn head_name(&self) -> String {
        self.family.weight_name(if self.head.tied { Role::Embedding } else { Role::Head })
    }

    /// Name of the head's bias, `[vocab_size]`.
    pub(crate) fn head_bias_name(&self) -> Option<String> {
        let head = self.family.tensor(Role::Head).filter(|_| self.head.bias && !self.head.tied)?;
        Some(self.family.name_of(head.hf, None, "bias", Container::HuggingFace))
    }

    /// Whether a checkpoint's tensor `name` is a head that this model does not read.
    pub(crate) fn is_unused_head(&self, name: &str) -> bool {
        self.head.tied && name == self.family.weight_name(Role::Head)
    }

    /// The tensors outside the layers.
    pub(crate) fn outer_tensors(&self) -> Vec<TensorRef> {
        self.tensors(Container::HuggingFace, None, |_| true)
    }

    /// The tensors of a block, its norms among them. A removed block takes all of them with it.
    pub(crate) fn block_tensors(&self, block: BlockId) -> Vec<TensorRef> {
        self.block_tensors_in(Container::HuggingFace, block)
    }

    /// The tensors of a block as a container holds them.
    pub(crate) fn block_tensors_in(&self, container: Container, block: BlockId) -> Vec<TensorRef> {
        self.tensors(container, Some(block.layer), |role| role.kind() == Some(block.kind))
    }

    /// A checkpoint's weights with their rows in the order of the forward pass, which is Llama's.
    pub(crate) fn in_order(&self, weights: &Weights) -> Weights {
        let tensors = self.blocks().flat_map(|block| self.block_tensors(block));
        let moved = tensors.filter(|tensor| tensor.order != RowOrder::Stored);
        // Each stored tensor once, though it may hold Q, K and V.
        weights.reordered(moved.map(|tensor| (tensor.name, tensor.order)).collect())
    }

    /// The tensors outside the layers as a container holds them.
    pub(crate) fn outer_tensors_in(&self, container: Container) -> Vec<TensorRef> {
        self.tensors(container, None, |_| true)
    }

    fn tensors(&self, container: Container, layer: Option<usize>, wanted: impl Fn(Role) -> bool) -> Vec<TensorRef> {
        let mut tensors: Vec<TensorRef> = Vec::new();
        // By name, how many rows lie above the next: a layer may have a tensor for each of thousands of heads.
        let mut ends: HashMap<String, usize> = HashMap::new();
        for tensor in self.family.tensors {
            let role = tensor.role;
            let Some((rows, columns, has_bias)) = self.shape(role, layer).filter(|_| wanted(role)) else { continue };
            let order = self.row_order(tensor, layer, Container::HuggingFace);
            let order = match container {
                Container::HuggingFace => order,
                Container::Gguf => self.row_order(tensor, layer, container).then(order),
            };
            let hugging_face = container == Container::HuggingFace;
            let (rows, columns) = if tensor.each_head && !hugging_face { (1, Some(rows)) } else { (rows, columns) };
            let parts = [Some(("weight", columns)), has_bias.then_some(("bias", None))];
            let modules = self.modules(tensor, layer);
            let parts = modules.iter().flat_map(|module| parts.into_iter().flatten().map(move |part| (module, part)));
            for (module, (suffix, columns)) in parts {
                let module = if hugging_face { module } else { tensor.gguf };
                let name = self.family.name_of(module, layer, suffix, container);
                let above = ends.get(&name).copied().unwrap_or(0);
                let rows = above..above + rows;
                ends.insert(name.clone(), rows.end);
                let bias = suffix == "bias";
                let plus_one = tensor.plus_one && !bias && hugging_face;
                let transposed = tensor.transposed && columns.is_some() && hugging_face;
                tensors.push(TensorRef { role, name, rows, columns, bias, order, plus_one, transposed });
            }
        }
        tensors
    }

    /// The modules that hold a row of the table in a Hugging Face checkpoint: one, or one for each head.
    fn modules(&self, tensor: &Tensor, layer: Option<usize>) -> Vec<String> {
        match layer.and_then(|layer| self.layers.get(layer)).filter(|_| tensor.each_head) {
            None => vec![tensor.hf.to_string()],
            Some(Layer { attention, .. }) => {
                let heads = if tensor.role == Role::QueryNorm { attention.heads } else { attention.kv_heads };
                (0..heads).map(|head| format!("{}.{head}", tensor.hf)).collect()
            }
        }
    }

    /// Rows, elements of a row (None for a vector), and whether there is a bias; None if the model has no such tensor.
    fn shape(&self, role: Role, layer: Option<usize>) -> Option<(usize, Option<usize>, bool)> {
        let hidden = self.hidden_size;
        let norm = |norm: Option<Norm>| norm.map(|norm| (hidden, None, norm.bias));
        let matrix = |rows: usize, columns: usize, bias: bool| Some((rows, Some(columns), bias));
        let Some(layer) = layer else {
            return match role {
                Role::Embedding => matrix(self.vocab_size, hidden, false),
                Role::Positions => matrix(self.embedding.positions?.offset + self.max_positions, hidden, false),
                Role::FinalNorm => norm(Some(self.final_norm)),
                Role::Head if !self.head.tied => matrix(self.vocab_size, hidden, self.head.bias),
                _ => None,
            };
        };
        let layer = self.layers.get(layer)?;
        let attention = &layer.attention;
        let (queries, keys) = (attention.query_width(), attention.key_width());
        let head_norm = |row: usize| {
            let over = attention.qk_norm?.over;
            Some((if over == Over::Row { row } else { attention.head_dim }, None, false))
        };
        let FeedForward::Dense(dense) = &layer.feed_forward else { return None };
        match role {
            Role::Embedding | Role::Positions | Role::FinalNorm | Role::Head => None,
            Role::AttentionNorm => norm(attention.branch.norm),
            Role::AttentionPostNorm => norm(attention.branch.post_norm),
            Role::Query => matrix(queries, hidden, attention.bias.qkv),
            Role::Key | Role::Value => matrix(keys, hidden, attention.bias.qkv),
            Role::QueryNorm => head_norm(queries),
            Role::KeyNorm => head_norm(keys),
            Role::AttentionOut => matrix(hidden, queries, attention.bias.out),
            Role::FeedForwardNorm => norm(dense.branch.norm),
            Role::FeedForwardPostNorm => norm(dense.branch.post_norm),
            Role::Gate if !dense.gated => None,
            Role::Gate | Role::Up => matrix(dense.inner, hidden, dense.bias),
            Role::Down => matrix(hidden, dense.inner, dense.bias),
        }
    }

    /// How the rows of a container's tensor come into the order of the next: GGUF's into Hugging Face's, and those into that
    /// of the forward pass.
    fn row_order(&self, tensor: &Tensor, layer: Option<usize>, container: Container) -> RowOrder {
        let Some(Layer { attention, .. }) = layer.and_then(|layer| self.layers.get(layer)) else {
            return RowOrder::Stored;
        };
        let Attention { heads, kv_heads, head_dim, .. } = *attention;
        match container {
            // Those of layers that turn nothing, too.
            Container::Gguf if tensor.interleaved == Some(container) => {
                let rotated = self.ropes.first().map_or(head_dim, |rope| rope.rotated);
                RowOrder::InterleavedRope { head_dim, rotated }
            }
            Container::HuggingFace if tensor.interleaved == Some(container) => {
                RowOrder::InterleavedRope { head_dim, rotated: self.rotated(attention) }
            }
            Container::Gguf if tensor.grouped => RowOrder::Regrouped(Heads { heads, kv_heads, head_dim }),
            Container::HuggingFace if tensor.grouped => RowOrder::Grouped(Heads { heads, kv_heads, head_dim }),
            _ => RowOrder::Stored,
        }
    }
}

/// The stored tensors that hold these, each once: names and shapes.
pub(crate) fn stored(tensors: &[TensorRef]) -> Vec<(String, Vec<usize>)> {
    let mut stored: Vec<(String, Vec<usize>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for tensor in tensors {
        let mut shape: Vec<usize> = [Some(tensor.rows.end), tensor.columns].into_iter().flatten().collect();
        if tensor.transposed {
            shape.reverse();
        }
        match places.get(tensor.name.as_str()) {
            // The rows of the last one end where the tensor does.
            Some(place) => stored[*place].1 = shape,
            None => {
                places.insert(&tensor.name, stored.len());
                stored.push((tensor.name.clone(), shape));
            }
        }
    }
    stored
}
