//! Causal grouped-query attention with an online softmax: `attention_tile.wgsl` and `attention_panel.wgsl` (after
//! FlashAttention, Dao et al., 2022), over heads that [`crate::heads`] wrote.

use bytemuck::{Pod, Zeroable};
use minijinja::context;

use crate::gemm::{self, panel_rows};
use crate::{GemmKernel, TEXTURE_WIDTH};

/// Uniform block of `attention_tile.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct TileParams {
    /// Rows of a window.
    pub window: u32,
    /// Query heads.
    pub heads: u32,
    /// Query heads that share a key head.
    pub share: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// What scores are multiplied by.
    pub scale: f32,
    /// First window of this dispatch.
    pub first_window: u32,
    /// Elements from one row of the output to the next.
    pub output_stride: u32,
    /// What the variant that caps keeps scores below: cap * tanh(score / cap).
    pub cap: f32,
    /// Keys that a query sees, itself included, in the variant that slides.
    pub sliding_window: u32,
}

/// Uniform block of `attention_panel.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct PanelParams {
    /// Rows of a window.
    pub window: u32,
    /// Query heads.
    pub heads: u32,
    /// Query heads that share a key head.
    pub share: u32,
    /// Blocks of queries in a window.
    pub blocks: u32,
    /// [`crate::gemm::inner_texels`] of the output's columns.
    pub inner4: u32,
    /// What scores are multiplied by.
    pub scale: f32,
    /// First window of this dispatch.
    pub first_window: u32,
    /// What the variant that caps keeps scores below: cap * tanh(score / cap).
    pub cap: f32,
    /// Keys that a query sees, itself included, in the variant that slides.
    pub sliding_window: u32,
}

/// Where a row stands in a window that is a context and continuations of it, one after the other, of which none sees another.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Place {
    /// First row of the row's continuation; 0 within the context.
    pub start: u32,
    /// Rows of the context; 0 within the context.
    pub context: u32,
}

impl Place {
    /// The position in its text of a row that a query of this place sees, which may be the query's own.
    pub fn position(self, row: u32) -> u32 {
        if row >= self.start { row - self.start + self.context } else { row }
    }

    /// Whether a query of this place sees a key.
    fn sees(self, query: usize, key: usize) -> bool {
        key <= query && (key < self.context as usize || key >= self.start as usize)
    }
}

/// What attention with linear biases (ALiBi; Press et al., 2022) adds to the score of a key: its position times the slope of the
/// query head. A softmax does not see that the position of the query is not taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alibi {
    /// `scale * q k + slope * position`.
    Plain,
    /// `scale * (q k + slope * position)`, where the slope, the position and their product each are rounded to bf16, whatever
    /// the model's type is.
    Rounded,
}

impl Alibi {
    /// The slopes of so many heads: powers of `2^(-8 / heads)`; for a number that is no power of two those of the next lower
    /// one, and then every second one of the next higher one.
    pub fn slopes(self, heads: u32) -> Vec<f32> {
        let lower = 1 << heads.max(1).ilog2();
        let power = |numerator: u32, denominator: u32| (-8.0 * numerator as f64 / denominator as f64).exp2() as f32;
        let slopes =
            (1..=lower).map(|i| power(i, lower)).chain((0..heads - lower).map(|i| power(2 * i + 1, 2 * lower)));
        slopes.map(|slope| if self == Self::Rounded { bf16(slope) } else { slope }).collect()
    }

    /// What is added for a key, in the twin.
    fn bias(self, scale: f32, slope: f32, position: usize) -> f32 {
        match self {
            Self::Plain => slope * position as f32,
            Self::Rounded => scale * bf16(slope * bf16(position as f32)),
        }
    }
}

fn bf16(value: f32) -> f32 {
    half::bf16::from_f32(value).to_f32()
}

/// What is made of scores before the softmax: the variants of `scores.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scores {
    /// What is added for where keys stand, and for how many query heads.
    pub alibi: Option<(Alibi, u32)>,
    /// Whether they are then capped.
    pub soft_cap: bool,
    /// Whether a query sees a part of the positions before it.
    pub sliding: bool,
}

impl Scores {
    /// What there is, in words, each after a comma.
    pub(crate) fn label(self) -> String {
        let alibi = self.alibi.map(|(alibi, _)| format!(", {alibi:?} ALiBi")).unwrap_or_default();
        let [capped, sliding] = [(self.soft_cap, ", capped"), (self.sliding, ", sliding")];
        let words = [capped, sliding].map(|(is, word)| if is { word } else { "" });
        alibi + &words.concat()
    }

    pub(crate) fn context(self) -> minijinja::Value {
        let slopes = self.alibi.map(|(alibi, heads)| alibi.slopes(heads)).unwrap_or_default();
        context! {
            // The shortest digits that are this number, an exponent where there are many zeros.
            SLOPES => slopes.iter().map(|slope| format!("{slope:?}f")).collect::<Vec<_>>(),
            ROUNDED => matches!(self.alibi, Some((Alibi::Rounded, _))),
            SOFT_CAP => self.soft_cap,
            SLIDING => self.sliding,
        }
    }
}

/// Texels of 4 elements that one head takes; the panel kernels need whole ones.
pub fn head_texels(head_dim: u32) -> u32 {
    head_dim.div_ceil(4)
}

/// Queries that one workgroup handles.
pub fn block_queries(kernel: GemmKernel, head_dim: u32) -> u32 {
    match kernel {
        GemmKernel::Tile { .. } => 8 * tile_shape(kernel, head_dim)[0],
        GemmKernel::Panel { lanes, .. } => lanes * panel_queries(head_dim),
    }
}

/// Keys that the panel kernel takes at a time: enough to pay for rescaling the output.
pub fn panel_keys(lanes: u32) -> u32 {
    lanes.max(8)
}

/// Queries of one lane of the panel kernel: two use each key twice, more text than that compiles slowly.
fn panel_queries(head_dim: u32) -> u32 {
    if head_dim <= 64 { 2 } else { 1 }
}

/// Queries of an invocation of the tile kernel, and keys at a time: as many as fit the workgroup memory, since what is read
/// from it once is used for all of them.
fn tile_shape(kernel: GemmKernel, head_dim: u32) -> [u32; 2] {
    let memory = if kernel.cooperative().is_some() { gemm::COOPERATIVE_MEMORY } else { 16_384 };
    let shapes = [[4, 16], [4, 8], [2, 16], [2, 8], [1, 8]];
    let rows = |[queries, keys]: [u32; 2]| 8 * queries + keys;
    let bytes = |shape: [u32; 2]| 16 * tile_pitch(head_dim) * rows(shape) + 4 * 8 * shape[0] * shape[1];
    shapes.into_iter().find(|shape| bytes(*shape) <= memory).unwrap_or([1, 4])
}

/// Texels from a row of a tile to the next: one more than there are, so that rows lie in different banks.
fn tile_pitch(head_dim: u32) -> u32 {
    head_texels(head_dim) + 1
}

pub(crate) fn context(kernel: GemmKernel, head_dim: u32, scores: Scores, continuations: bool) -> minijinja::Value {
    let texels = head_texels(head_dim);
    let shape = match kernel {
        GemmKernel::Tile { .. } => {
            let [queries, keys] = tile_shape(kernel, head_dim);
            context! {
                PER_INVOCATION => queries,
                KEYS => keys,
                VALUES => texels.div_ceil(8),
                PITCH => tile_pitch(head_dim),
                HEAD_TEXELS => texels,
            }
        }
        GemmKernel::Panel { lanes, subgroups } => context! {
            LANES => lanes,
            SUBGROUPS => subgroups,
            QUERIES => panel_queries(head_dim),
            KEYS => panel_keys(lanes),
            HEAD_TEXELS => texels,
            ROWS => panel_rows(lanes),
            TEXTURE_WIDTH,
        },
    };
    context! { ..context! { CONTINUATIONS => continuations }, ..shape, ..scores.context() }
}

/// The shape of attention for the CPU twin.
#[derive(Clone, Copy, Debug)]
pub struct CpuAttention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// What is added for where keys stand.
    pub alibi: Option<Alibi>,
    /// What scores then come near to at most.
    pub soft_cap: Option<f32>,
    /// Keys that a query sees, itself included; None: all.
    pub sliding_window: Option<usize>,
}

/// CPU twin over windows of `window` rows: `q [rows, heads * head_dim]`, `k` and `v` `[rows, kv_heads * head_dim]`; result
/// `[rows, heads * head_dim]`. `places [rows]` where windows are contexts and continuations of them.
pub fn cpu(shape: &CpuAttention, window: usize, places: Option<&[Place]>, [q, k, v]: [&[f32]; 3]) -> Vec<f32> {
    let CpuAttention { heads, kv_heads, head_dim, scale, alibi, soft_cap, sliding_window } = *shape;
    let share = heads / kv_heads;
    let slopes = alibi.map(|alibi| alibi.slopes(heads as u32)).unwrap_or_default();
    let mut output = Vec::with_capacity(q.len());
    for (row, queries) in q.chunks(heads * head_dim).enumerate() {
        let (first_row, query) = (row / window * window, row % window);
        let place = places.map_or(Place::default(), |places| places[row]);
        let position = |row: usize| place.position(row as u32) as usize;
        let seen = |key: &usize| {
            place.sees(query, *key) && sliding_window.is_none_or(|seen| position(query) - position(*key) < seen)
        };
        let keys: Vec<usize> = (0..=query).filter(seen).collect();
        for (head, q) in queries.chunks(head_dim).enumerate() {
            let at = |key: usize| ((first_row + key) * kv_heads + head / share) * head_dim;
            let scores: Vec<f32> = keys
                .iter()
                .map(|&key| {
                    let product = q.iter().zip(&k[at(key)..]).map(|(q, k)| q * k).sum::<f32>() * scale;
                    let score = product + alibi.map_or(0.0, |alibi| alibi.bias(scale, slopes[head], position(key)));
                    soft_cap.map_or(score, |cap| cap * (score / cap).tanh())
                })
                .collect();
            let largest = scores.iter().copied().fold(f32::MIN, f32::max);
            let weights: Vec<f32> = scores.iter().map(|s| (s - largest).exp()).collect();
            let sum: f32 = weights.iter().sum();
            output.extend((0..head_dim).map(|d| {
                let weighted = weights.iter().zip(&keys).map(|(p, key)| p * v[at(*key) + d]);
                weighted.sum::<f32>() / sum
            }));
        }
    }
    output
}
