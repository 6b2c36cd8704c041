//! What a model needs of the kernels, beyond what every model does.

use blockpruner_shaders::{Activation, Alibi, NormKind, Over, WeightFormat};

use super::Attention;

/// The variants of kernels that a model uses: a device is opened with those that compute all of them rightly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelNeeds {
    /// Formats of the weights; with the first one, everything else is tested. None: nothing is tested.
    pub formats: Vec<WeightFormat>,
    /// Each kind of attention. Heads that are not whole vectors of 4 elements are for the tile kernels alone.
    pub attention: Vec<AttentionNeed>,
    /// Activations of feed-forward blocks, and whether they gate another product.
    pub activations: Vec<(Activation, bool)>,
    /// Norms of what is read.
    pub norms: Vec<NormKind>,
    /// Norms of what blocks add.
    pub post_norms: Vec<NormKind>,
    /// Whether there are blocks that read what is not normed.
    pub no_norm: bool,
    /// Whether logits are capped.
    pub soft_capped_logits: bool,
}

/// What decides which kernels one kind of attention uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionNeed {
    /// Elements of a head.
    pub head_dim: u32,
    /// Leading elements of a head that are turned by their position.
    pub rotated: u32,
    /// What norms of Q and K are over; None: there are none.
    pub over: Option<Over>,
    /// What is added to scores for where keys stand.
    pub alibi: Option<Alibi>,
    /// Whether scores are capped.
    pub soft_cap: bool,
    /// Whether a query sees a part of the positions before it.
    pub sliding: bool,
}

impl AttentionNeed {
    /// What attention of this shape needs, with Q and K normed over `over`.
    pub fn new(attention: &Attention, over: Option<Over>) -> Self {
        let Attention { head_dim, rotated, alibi, soft_cap, sliding_window, .. } = *attention;
        Self { head_dim, rotated, over, alibi, soft_cap: soft_cap.is_some(), sliding: sliding_window.is_some() }
    }
}
