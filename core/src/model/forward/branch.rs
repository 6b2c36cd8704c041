//! One residual branch, recorded: states += scale * post_norm(f(norm(states))).

use blockpruner_shaders::stride;

use super::pass::Branch;
use super::{Scratch, attention};
use crate::gpu::{
    AttentionBuffers, CachedBuffers, KeyValues, Norm, Operand, Projection, Recording, Residual, Resource,
    record_activation,
};
use crate::model::device_model::BlockWeights;
use crate::model::spec::{Attention, Branch as BranchSpec, Dense, Positions};
use crate::model::{BlockId, BlockKind, DeviceModel};

/// The rows of the states that blocks run over: windows of tokens.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub states: &'a wgpu::Buffer,
    /// The first row of the first window.
    pub first: u32,
    pub windows: u32,
    /// Tokens of a window.
    pub window: u32,
}

impl Rows<'_> {
    fn count(&self) -> u32 {
        self.windows * self.window
    }
}

/// What the tokens of an attention block see.
#[derive(Clone, Copy)]
pub(crate) enum Attend<'a> {
    /// Those before them in their window.
    Windows,
    /// The same, with rotary tables of their own; or their context and their own continuation, where rows have places.
    Texts { ropes: &'a [Resource], places: Option<&'a wgpu::Buffer> },
    /// Those before them in their window, and their keys and values become the cache's.
    Prompt(&'a KeyValues),
    /// One new token: the `past` ones that a cache holds.
    Position { cache: &'a KeyValues, query: &'a wgpu::Buffer, ropes: &'a [Resource], past: u32 },
}

impl DeviceModel {
    /// The blocks of one sublayer over windows of tokens.
    pub(crate) fn record_sublayer(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        branches: &[Branch],
        rows: &Rows<'_>,
    ) {
        self.record_branches(recording, scratch, branches, rows, |_| Attend::Windows);
    }

    /// The same, attending as `attend` says for each attention block.
    pub(crate) fn record_branches<'a>(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        branches: &[Branch],
        rows: &Rows<'_>,
        attend: impl Fn(BlockId) -> Attend<'a>,
    ) {
        // What the first of parallel branches adds is not for the others to read.
        let input = scratch.input.as_ref().filter(|_| branches.len() > 1);
        if let Some(input) = input {
            let row = stride(self.spec.hidden_size as u32) as u64 * 4;
            recording.copy(rows.states, input, 0, (rows.first + rows.count()) as u64 * row);
        }
        for Branch { block, weights } in branches {
            let layer = &self.spec.layers[block.layer];
            let input = Rows { states: input.unwrap_or(rows.states), ..*rows };
            match block.kind {
                BlockKind::Mha => {
                    self.record_attention(
                        recording,
                        scratch,
                        &layer.attention,
                        weights,
                        (&input, rows),
                        attend(*block),
                    );
                }
                BlockKind::Mlp => {
                    self.record_feed_forward(recording, scratch, layer.dense(), weights, (&input, rows));
                }
            }
        }
    }

    fn record_attention(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        block: &Attention,
        weights: &BlockWeights,
        (input, rows): (&Rows<'_>, &Rows<'_>),
        attend: Attend<'_>,
    ) {
        let (gpu, shape) = (&*self.gpu, attention(&self.spec, block));
        recording.stage("attention norm");
        let residual = self.residual(recording, scratch, input, 0, input.count());
        let read = self.record_read(recording, scratch, weights.norm.as_ref(), &residual, input.count());
        recording.stage("q, k, v product");
        weights.input.record_product(gpu, recording, &read, &scratch.qkv);
        let norms = weights.head_norms.as_ref();
        // Where nothing is turned, any table will do.
        let table = |ropes: &[Resource]| match block.positions {
            Positions::Rope(index) => ropes[index].clone(),
            Positions::None | Positions::Alibi(_) => scratch.logits.clone(),
        };
        let heads = match attend {
            Attend::Windows | Attend::Texts { .. } | Attend::Prompt(_) => {
                let (ropes, places) = match attend {
                    Attend::Texts { ropes, places } => (ropes, places),
                    _ => (scratch.ropes.as_slice(), None),
                };
                let rope = table(ropes);
                let from = Projection { rope: &rope, qkv: &scratch.qkv, norms, places };
                if let Attend::Prompt(cache) = attend {
                    shape.record_append(gpu, recording, &from, cache, 0, rows.count());
                }
                let buffers = AttentionBuffers { packed: &scratch.packed_heads, output: &scratch.operand };
                shape.record(gpu, recording, &from, &buffers, rows.window, rows.windows)
            }
            Attend::Position { cache, query, ropes, past } => {
                let rope = table(ropes);
                let from = Projection { rope: &rope, qkv: &scratch.qkv, norms, places: None };
                let buffers = CachedBuffers { cache, query, output: &scratch.operand };
                shape.record_cached(gpu, recording, &from, &buffers, past, rows.count())
            }
        };
        recording.stage("o product");
        let to = self.residual_to_add(recording, scratch, residual, (input, rows), 0, rows.count());
        self.record_write(recording, scratch, &block.branch, weights, &heads, &to, &scratch.qkv);
    }

    fn record_feed_forward(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        block: &Dense,
        weights: &BlockWeights,
        (input, rows): (&Rows<'_>, &Rows<'_>),
    ) {
        let gpu = &*self.gpu;
        for first in (0..rows.count()).step_by(scratch.mlp_rows as usize) {
            let count = scratch.mlp_rows.min(rows.count() - first);
            recording.stage("feed-forward norm");
            let residual = self.residual(recording, scratch, input, first, count);
            let read = self.record_read(recording, scratch, weights.norm.as_ref(), &residual, count);
            recording.stage("gate, up product");
            weights.input.record_product(gpu, recording, &read, &scratch.gate_up);
            recording.stage("activation");
            let (from, to) = (&scratch.gate_up, &scratch.operand);
            let function = (block.activation, block.gated);
            let activated = record_activation(gpu, recording, function, block.inner as u32, count, from, to);
            recording.stage("down product");
            let to = self.residual_to_add(recording, scratch, residual, (input, rows), first, count);
            self.record_write(recording, scratch, &block.branch, weights, &activated, &to, &scratch.gate_up);
        }
    }

    /// Rows of the residual stream, ready to be read: `count` of them from the row `first` of `rows` on.
    pub(super) fn residual<'a>(
        &self,
        recording: &mut Recording,
        scratch: &'a Scratch,
        rows: &Rows<'a>,
        first: u32,
        count: u32,
    ) -> Residual<'a> {
        let shape = (count, self.spec.hidden_size as u32);
        Residual::new(recording, rows.states, rows.first + first, shape, scratch.residual.as_ref())
    }

    /// Rows of the residual stream, ready to be added to: those that were read, unless branches are parallel.
    fn residual_to_add<'a>(
        &self,
        recording: &mut Recording,
        scratch: &'a Scratch,
        read: Residual<'a>,
        (input, rows): (&Rows<'a>, &Rows<'a>),
        first: u32,
        count: u32,
    ) -> Residual<'a> {
        match std::ptr::eq(input.states, rows.states) {
            true => read,
            false => self.residual(recording, scratch, rows, first, count),
        }
    }

    /// norm(states), or the states as they are, as the left side of a product.
    fn record_read(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        norm: Option<&Norm>,
        states: &Residual<'_>,
        rows: u32,
    ) -> Operand {
        match norm {
            Some(norm) => norm.record(&self.gpu, recording, states, rows, &scratch.operand),
            None => {
                let columns = self.spec.hidden_size as u32;
                states.record_operand(&self.gpu, recording, rows, columns, &scratch.operand)
            }
        }
    }

    /// states += scale * post_norm(result x output^T); `product` holds what is normed or summed up on the way.
    #[allow(clippy::too_many_arguments, reason = "where from, what with and where to")]
    fn record_write(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        branch: &BranchSpec,
        weights: &BlockWeights,
        result: &Operand,
        states: &Residual<'_>,
        product: &Resource,
    ) {
        let gpu = &*self.gpu;
        match &weights.post_norm {
            None => weights.output.record_residual(gpu, recording, result, branch.scale, states, product),
            Some(norm) => {
                weights.output.record_product(gpu, recording, result, product);
                recording.stage("post-norm");
                norm.record_residual(gpu, recording, product, result.rows(), branch.scale, states, &scratch.operand);
            }
        }
    }
}
