//! The compute shaders of blockpruner and a CPU twin of each.
//!
//! One module a stage of the forward pass: its parameters (the uniform block of the `.wgsl` file of the same name), its
//! grid, and a plain Rust function that computes the same thing, which tests compare the shader with. A [`Kernel`] names
//! one variant; [`Kernel::render`] turns the template in `shaders/wgsl` into WGSL text. Nothing here touches a GPU.
//!
//! All activations are f32, row-major, rows [`stride`] elements apart; `rows` counts tokens.

#![warn(clippy::missing_errors_doc)]

pub mod activation;
pub mod argmax;
pub mod attention;
pub mod cached;
pub mod change;
pub mod embedding;
pub mod gemm;
pub mod heads;
pub mod log_sum_exp;
pub mod norm;

use minijinja::Environment;

pub use activation::Activation;
pub use attention::{Alibi, Scores};
pub use embedding::Index;
pub use heads::{HeadsTo, Over};
pub use norm::{NormKind, NormRows};

/// Texels in a row of every storage texture: WebGPU's guaranteed maximum, so that a linear texel index `t` lies at
/// `(t % TEXTURE_WIDTH, t / TEXTURE_WIDTH)` on every device.
pub const TEXTURE_WIDTH: u32 = 8192;

/// Elements from one row of an activation to the next: rows are padded with zeros to whole vectors of 4.
pub fn stride(columns: u32) -> u32 {
    columns.next_multiple_of(4)
}

/// How the elements of a weight matrix are stored on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// 32-bit floats.
    F32,
    /// IEEE half precision, two to a word.
    F16,
    /// bfloat16, two to a word.
    Bf16,
    /// ggml's blocks of 32 signed bytes and a scale.
    Q8_0,
    /// ggml's blocks of 32 nibbles and a scale.
    Q4_0,
    /// ggml's blocks of 32 nibbles, a scale and a minimum.
    Q4_1,
}

impl WeightFormat {
    /// All formats.
    pub const ALL: [Self; 6] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4_1];

    /// Neighbouring elements of a row that a checkpoint stores together: rows are whole blocks.
    pub fn block_elements(self) -> u32 {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => 32,
        }
    }

    /// Bytes of a row of `inner` elements, whole blocks, as a checkpoint stores it.
    pub fn row_bytes(self, inner: u32) -> usize {
        let block_bytes = match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
        };
        (inner / self.block_elements()) as usize * block_bytes
    }

    /// Whether elements are unpacked from blocks.
    pub fn is_quantised(self) -> bool {
        self.block_elements() > 1
    }

    /// `f32`, `f16`, `bf16`, `q8_0`, `q4_0` or `q4_1`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
        }
    }
}

/// What a binding of a shader is. Binding 0 of every shader is its uniform block, bound with a dynamic offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Storage buffer that is only read.
    Read,
    /// Storage buffer that is read and written.
    ReadWrite,
    /// Storage texture of four f32 a texel, only read.
    TextureF32,
    /// Storage texture of four u32 a texel, only read.
    TextureU32,
    /// Storage texture of four f32 a texel, only written.
    TextureWrite,
}

/// A matrix product kernel, with its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GemmKernel {
    /// Workgroup tiles in shared memory, for real GPUs. Without the two additions it needs baseline WebGPU only.
    Tile {
        /// Whether reductions over a row go by subgroups.
        subgroups: bool,
        /// The cooperative matrices that compute the products, if any.
        cooperative: Option<Cooperative>,
    },
    /// One vector of lanes a workgroup, operands and activations in storage textures, for CPU-type adapters.
    Panel {
        /// Lanes of a workgroup; with `subgroups`, the exact size of the device's subgroups.
        lanes: u32,
        /// Whether rows are shared between lanes by subgroup shuffles, or loaded one by one.
        subgroups: bool,
    },
}

/// Cooperative matrices (tensor cores, simdgroup matrices), which a device may offer; they sum up in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cooperative {
    /// Of f16, the left operand as the sum of two, so that products are good to about 22 bits; else of f32.
    pub f16: bool,
    /// Rows and columns of a matrix, 8 or 16.
    pub size: u32,
    /// Lanes of the device's subgroups, if they are of one size.
    pub lanes: Option<u32>,
}

impl GemmKernel {
    /// The tile kernel that needs baseline WebGPU only.
    pub const BASELINE: Self = Self::Tile { subgroups: false, cooperative: None };

    /// The cooperative matrices that compute the products, if any.
    pub fn cooperative(self) -> Option<Cooperative> {
        match self {
            Self::Tile { cooperative, .. } => cooperative,
            Self::Panel { .. } => None,
        }
    }

    /// Whether operands and activations lie in storage textures.
    pub fn is_panel(self) -> bool {
        matches!(self, Self::Panel { .. })
    }

    /// The name that `--kernel` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tile { cooperative: Some(Cooperative { f16: false, .. }), .. } => "cooperative-f32",
            Self::Tile { cooperative: Some(_), .. } => "cooperative-f16",
            Self::Tile { subgroups: true, .. } => "tile-subgroup",
            Self::Tile { .. } => "tile",
            Self::Panel { subgroups: false, .. } => "panel",
            Self::Panel { subgroups: true, .. } => "panel-subgroup",
        }
    }
}

/// One variant of one shader.
#[allow(missing_docs, reason = "the fields are the kernel, the format and the choices that they say")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Token ids to hidden states; or what positions add to them.
    Embedding { kernel: GemmKernel, weight: WeightFormat, index: Index },
    /// Norm of rows.
    Norm { kernel: GemmKernel, kind: NormKind, rows: NormRows },
    /// Rows of the residual stream as they are, to the left side of a product.
    Operand { kernel: GemmKernel },
    /// Matrix product with a weight. `residual` is for the panel kernels and says whether it is added to something; the tile
    /// kernels are told so by a parameter.
    Gemm { kernel: GemmKernel, weight: WeightFormat, residual: bool },
    /// Heads of a fused projection: normed or not, the first `rotated` elements of each turned by its position, to
    /// storage that attention reads. To [`HeadsTo::Rows`], V is only copied.
    Heads { kernel: GemmKernel, head_dim: u32, rotated: u32, normed: Option<Over>, to: HeadsTo },
    /// Causal attention, to the left side of a product. With `continuations`, windows are contexts and what may follow them.
    Attention { kernel: GemmKernel, head_dim: u32, scores: Scores, continuations: bool },
    /// Activation, gated or not, to the left side of a product.
    Activation { kernel: GemmKernel, function: Activation, gated: bool },
    /// Log-sum-exp and the NLL of targets.
    LogSumExp { kernel: GemmKernel, soft_cap: bool },
    /// Causal attention of new positions to the KV cache, to the left side of a product.
    CachedAttention { kernel: GemmKernel, head_dim: u32, scores: Scores },
    /// The most likely token of one position.
    Argmax { kernel: GemmKernel },
    /// What becomes of rows of the residual stream, the same for all matrix kernels.
    Change,
}

/// A rendered shader, ready for a device. The entry point is `main`.
#[derive(Clone, Debug)]
pub struct Shader {
    /// Name for labels and error messages.
    pub label: String,
    /// WGSL text.
    pub wgsl: String,
    /// Bindings 1, 2, ..; binding 0 is the uniform block.
    pub bindings: Vec<Binding>,
}

impl Kernel {
    /// Renders the WGSL text of this variant.
    ///
    /// # Panics
    /// If a template is broken, which the test that renders and validates every variant excludes.
    pub fn render(self) -> Shader {
        use Binding::{TextureF32, TextureU32, TextureWrite};
        let (name, source, bindings) = self.template();
        let mut parts = vec![source];
        match self {
            Self::Embedding { weight, .. } | Self::Gemm { weight, .. } if weight.is_quantised() => {
                parts.push(include_str!("../wgsl/unpack.wgsl"));
            }
            _ => {}
        }
        match self {
            Self::Gemm { kernel: GemmKernel::Tile { .. }, .. } => {
                parts.push(include_str!("../wgsl/gemm_operands.wgsl"));
            }
            Self::Attention { .. } | Self::CachedAttention { .. } => {
                parts.push(include_str!("../wgsl/scores.wgsl"));
            }
            Self::Activation { .. } => {
                parts.push(include_str!("../wgsl/activations.wgsl"));
            }
            Self::Norm { kernel: GemmKernel::Tile { .. }, .. }
            | Self::LogSumExp { kernel: GemmKernel::Tile { .. }, .. }
            | Self::Heads { kernel: GemmKernel::Tile { .. }, normed: Some(_), .. } => {
                parts.push(include_str!("../wgsl/reduce.wgsl"));
            }
            _ => {}
        }
        if bindings.iter().any(|binding| matches!(binding, TextureF32 | TextureU32 | TextureWrite)) {
            parts.push(include_str!("../wgsl/texels.wgsl"));
        }
        let wgsl = Environment::new()
            .render_str(&parts.concat(), self.context())
            .unwrap_or_else(|error| panic!("template {name}.wgsl does not render for {self:?}: {error:#}"));
        Shader { label: self.label(name), wgsl, bindings }
    }

    fn label(self, name: &str) -> String {
        match self {
            Self::Embedding { weight, index, .. } => format!("{name} {} by {index:?}", weight.name()),
            Self::Gemm { weight, residual, .. } => {
                format!("{name} {}{}", weight.name(), if residual { ", added" } else { "" })
            }
            Self::Attention { head_dim, scores, continuations: true, .. } => {
                format!("{name} head_dim {head_dim}{}, of continuations", scores.label())
            }
            Self::Attention { head_dim, scores, .. } | Self::CachedAttention { head_dim, scores, .. } => {
                format!("{name} head_dim {head_dim}{}", scores.label())
            }
            Self::Heads { head_dim, rotated, normed, to, .. } => {
                let normed = match normed {
                    None => "",
                    Some(Over::EachHead) => ", each normed",
                    Some(Over::Head | Over::Row) => ", normed",
                };
                format!("{name} head_dim {head_dim}, {rotated} turned{normed}, to {to:?}")
            }
            Self::Norm { kind, rows, .. } => format!("{name} {kind:?} {rows:?}"),
            Self::Activation { function, gated, .. } => {
                format!("{name} {}{}", function.name(), if gated { ", gated" } else { "" })
            }
            Self::LogSumExp { soft_cap: true, .. } => format!("{name}, capped"),
            _ => name.to_string(),
        }
    }

    fn template(self) -> (&'static str, &'static str, Vec<Binding>) {
        use Binding::{Read, ReadWrite, TextureF32, TextureWrite};
        macro_rules! wgsl {
            ($name:literal) => {
                ($name, include_str!(concat!("../wgsl/", $name, ".wgsl")))
            };
        }
        let ((name, source), bindings) = match self {
            Self::Embedding { kernel, weight, index } => {
                let (shader, table) = match kernel {
                    GemmKernel::Tile { .. } => (wgsl!("embedding_rows"), Read),
                    GemmKernel::Panel { .. } => (wgsl!("embedding_panel"), texture(weight)),
                };
                let mut bindings = vec![table, ReadWrite];
                bindings.extend((index != Index::WindowPosition).then_some(Read));
                (shader, bindings)
            }
            Self::Norm { kernel: GemmKernel::Tile { .. }, rows, .. } => {
                let mut bindings = vec![Read, Read, ReadWrite];
                bindings.extend((rows == NormRows::Indexed).then_some(Read));
                (wgsl!("norm"), bindings)
            }
            Self::Norm { rows, .. } => {
                let mut bindings = vec![TextureF32, TextureF32, TextureWrite];
                match rows {
                    NormRows::Contiguous => {}
                    NormRows::Indexed => bindings.push(Read),
                    NormRows::Product => bindings.push(TextureF32),
                }
                (wgsl!("norm_panel"), bindings)
            }
            Self::Operand { kernel } => {
                let bindings = if kernel.is_panel() { [TextureF32, TextureWrite] } else { [Read, ReadWrite] };
                (wgsl!("operand"), bindings.into())
            }
            Self::Gemm { kernel: GemmKernel::Tile { cooperative, .. }, .. } => {
                let template = if cooperative.is_some() { wgsl!("gemm_cooperative") } else { wgsl!("gemm_tile") };
                (template, vec![Read, Read, Read, ReadWrite])
            }
            Self::Gemm { weight, residual, .. } => {
                let mut bindings = vec![TextureF32, texture(weight), Read, TextureWrite];
                bindings.extend(residual.then_some(TextureF32));
                (wgsl!("gemm_panel"), bindings)
            }
            Self::Heads { kernel, normed, to, .. } => {
                let input = if kernel.is_panel() { TextureF32 } else { Read };
                let mut bindings = vec![input, input];
                match to {
                    HeadsTo::Rows => {
                        bindings.extend([ReadWrite; 3]);
                        bindings.extend([input; 2].into_iter().filter(|_| normed.is_some()));
                    }
                    HeadsTo::Panels | HeadsTo::PanelsEachRow => {
                        bindings.push(TextureWrite);
                        bindings.extend(normed.map(|_| input));
                    }
                }
                (if kernel.is_panel() { wgsl!("heads_panel") } else { wgsl!("heads") }, bindings)
            }
            Self::Attention { kernel, continuations, .. } => {
                let (shader, mut bindings) = match kernel {
                    GemmKernel::Tile { .. } => (wgsl!("attention_tile"), vec![Read, Read, Read, ReadWrite]),
                    GemmKernel::Panel { .. } => {
                        (wgsl!("attention_panel"), vec![TextureF32, TextureF32, TextureF32, TextureWrite])
                    }
                };
                bindings.extend(continuations.then_some(Read));
                (shader, bindings)
            }
            Self::Activation { kernel: GemmKernel::Tile { .. }, .. } => (wgsl!("activation"), vec![Read, ReadWrite]),
            Self::Activation { .. } => (wgsl!("activation_panel"), vec![TextureF32, TextureWrite]),
            Self::LogSumExp { kernel: GemmKernel::Tile { .. }, .. } => {
                (wgsl!("log_sum_exp"), vec![Read, Read, ReadWrite, ReadWrite])
            }
            Self::LogSumExp { .. } => (wgsl!("log_sum_exp_panel"), vec![TextureF32, Read, ReadWrite, ReadWrite]),
            Self::CachedAttention { kernel, .. } => {
                let output = if kernel.is_panel() { TextureWrite } else { ReadWrite };
                (wgsl!("attention_cached"), vec![Read, Read, Read, output])
            }
            Self::Argmax { kernel } => {
                let input = if kernel.is_panel() { TextureF32 } else { Read };
                (wgsl!("argmax"), vec![input, ReadWrite])
            }
            Self::Change => (wgsl!("change"), vec![Read, Read, ReadWrite]),
        };
        (name, source, bindings)
    }

    fn context(self) -> minijinja::Value {
        match self {
            Self::Embedding { kernel, weight, index } => embedding::context(kernel, weight, index),
            Self::Gemm { kernel, weight, residual } => gemm::context(kernel, weight, residual),
            Self::Heads { kernel, head_dim, rotated, normed, to } => {
                heads::context(kernel, head_dim, rotated, normed, to)
            }
            Self::Attention { kernel, head_dim, scores, continuations } => {
                attention::context(kernel, head_dim, scores, continuations)
            }
            Self::CachedAttention { kernel, head_dim, scores } => cached::context(kernel, head_dim, scores),
            Self::Norm { kernel, kind, rows } => norm::context(kernel, kind, rows),
            Self::LogSumExp { kernel, soft_cap } => {
                minijinja::context! { SOFT_CAP => soft_cap, ..row_context(kernel) }
            }
            Self::Activation { kernel, function, gated } => activation::context(kernel, function, gated),
            Self::Operand { kernel } | Self::Argmax { kernel } => gemm::output_context(kernel),
            Self::Change => minijinja::context! {},
        }
    }
}

/// What shaders need to know that take whole rows.
pub(crate) fn row_context(kernel: GemmKernel) -> minijinja::Value {
    use minijinja::context;
    match kernel {
        GemmKernel::Tile { subgroups, .. } => context! { SUBGROUPS => subgroups },
        GemmKernel::Panel { lanes, .. } => context! { LANES => lanes, ROWS => gemm::panel_rows(lanes), TEXTURE_WIDTH },
    }
}

fn texture(weight: WeightFormat) -> Binding {
    match weight {
        WeightFormat::F32 => Binding::TextureF32,
        _ => Binding::TextureU32,
    }
}

/// Workgroups of 64 that cover `items` in one dimension.
pub fn groups_of_64(items: u32) -> u32 {
    items.div_ceil(64)
}

/// A grid of at least `groups` workgroups that keeps within WebGPU's 65,535 a dimension; shaders that use it count
/// `y * grid.x + x` and ignore what is over.
pub fn folded_grid(groups: u32) -> [u32; 3] {
    let x = groups.min(32_768);
    [x, groups.div_ceil(x.max(1)), 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kernel() -> Vec<Kernel> {
        let cooperative = |f16, size, lanes| GemmKernel::Tile {
            subgroups: true,
            cooperative: Some(Cooperative { f16, size, lanes }),
        };
        let gemms = [4, 8, 16]
            .into_iter()
            .flat_map(|lanes| [true, false].map(|subgroups| GemmKernel::Panel { lanes, subgroups }))
            .chain([true, false].map(|subgroups| GemmKernel::Tile { subgroups, cooperative: None }))
            .chain([cooperative(false, 8, None)]);
        let mut kernels = vec![Kernel::Change];
        for kernel in gemms {
            let rows = [NormRows::Contiguous, NormRows::Indexed, NormRows::Product];
            for kind in NormKind::ALL {
                kernels.extend(rows.map(|rows| Kernel::Norm { kernel, kind, rows }));
            }
            for function in Activation::ALL {
                kernels.extend([false, true].map(|gated| Kernel::Activation { kernel, function, gated }));
            }
            kernels.extend([false, true].map(|soft_cap| Kernel::LogSumExp { kernel, soft_cap }));
            kernels.extend([Kernel::Operand { kernel }, Kernel::Argmax { kernel }]);
            for weight in WeightFormat::ALL {
                let indices = [Index::Token, Index::WindowPosition, Index::Position];
                kernels.extend(indices.map(|index| Kernel::Embedding { kernel, weight, index }));
                kernels.extend([false, kernel.is_panel()].map(|residual| Kernel::Gemm { kernel, weight, residual }));
            }
            for head_dim in [4, 12, 16, 24, 32, 40, 64, 80, 96, 128, 192, 256] {
                kernels.extend(every_attention(kernel, head_dim, Scores::default()));
                kernels.extend(every_heads(kernel, head_dim));
            }
            for head_dim in [24, 128, 256] {
                for alibi in [None, Some((Alibi::Plain, 71)), Some((Alibi::Rounded, 1))] {
                    for (soft_cap, sliding) in [(false, false), (true, false), (false, true), (true, true)] {
                        kernels.extend(every_attention(kernel, head_dim, Scores { alibi, soft_cap, sliding }));
                    }
                }
            }
        }
        for lanes in [None, Some(8), Some(16), Some(32), Some(64), Some(128)] {
            for (f16, size) in [(false, 8), (true, 8), (true, 16)] {
                let kernel = cooperative(f16, size, lanes);
                kernels.extend(WeightFormat::ALL.map(|weight| Kernel::Gemm { kernel, weight, residual: false }));
            }
        }
        let kernel = GemmKernel::BASELINE;
        for head_dim in [2, 6, 50] {
            kernels.extend(every_attention(kernel, head_dim, Scores::default()));
            kernels.extend(every_heads(kernel, head_dim));
        }
        kernels.push(Kernel::CachedAttention { kernel, head_dim: 512, scores: Scores::default() });
        kernels.extend(every_heads(kernel, 512));
        kernels
    }

    fn every_attention(kernel: GemmKernel, head_dim: u32, scores: Scores) -> [Kernel; 3] {
        let windows = |continuations| Kernel::Attention { kernel, head_dim, scores, continuations };
        [windows(false), windows(true), Kernel::CachedAttention { kernel, head_dim, scores }]
    }

    /// Heads that are turned as a whole, in part, by halves that are no whole texels, and not at all.
    fn every_heads(kernel: GemmKernel, head_dim: u32) -> Vec<Kernel> {
        let mut kernels = Vec::new();
        for rotated in [0, 2, head_dim / 16 * 8, head_dim] {
            for normed in [None, Some(Over::Head), Some(Over::EachHead)] {
                let to = [HeadsTo::Rows, HeadsTo::Panels, HeadsTo::PanelsEachRow];
                for to in to.into_iter().take(1 + 2 * kernel.is_panel() as usize) {
                    kernels.push(Kernel::Heads { kernel, head_dim, rotated, normed, to });
                }
            }
        }
        kernels
    }

    /// Every variant that can be rendered is valid WGSL and fits baseline WebGPU's workgroup memory and size.
    #[test]
    fn every_variant_is_valid() {
        use wgpu::naga::valid::{Capabilities, SubgroupOperationSet, ValidationFlags, Validator};
        for kernel in every_kernel() {
            let shader = kernel.render();
            let module = wgpu::naga::front::wgsl::parse_str(&shader.wgsl)
                .unwrap_or_else(|e| panic!("{kernel:?}: {}", e.emit_to_string(&shader.wgsl)));
            // unpack2x16float is part of WebGPU; naga keeps it apart for old GL.
            let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
            capabilities.set(Capabilities::SUBGROUP, shader.wgsl.contains("subgroup"));
            capabilities.set(Capabilities::COOPERATIVE_MATRIX, shader.wgsl.contains("enable wgpu_cooperative_matrix;"));
            capabilities.set(Capabilities::SHADER_FLOAT16, shader.wgsl.contains("enable f16;"));
            Validator::new(ValidationFlags::all(), capabilities)
                .subgroup_operations(SubgroupOperationSet::all())
                .subgroup_stages(wgpu::naga::valid::ShaderStages::COMPUTE)
                .validate(&module)
                .unwrap_or_else(|e| panic!("{kernel:?}: {}", e.emit_to_string(&shader.wgsl)));
            let entry = &module.entry_points[0];
            assert!(entry.workgroup_size.iter().product::<u32>() <= 256, "{kernel:?}: workgroup too large");
            let shared: u32 = module
                .global_variables
                .iter()
                .filter(|(_, v)| v.space == wgpu::naga::AddressSpace::WorkGroup)
                .map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx()))
                .sum();
            let cooperative = |kernel: GemmKernel| kernel.cooperative().is_some();
            let most = match kernel {
                Kernel::Gemm { kernel, .. } | Kernel::Attention { kernel, .. } if cooperative(kernel) => {
                    gemm::COOPERATIVE_MEMORY
                }
                _ => 16_384,
            };
            assert!(shared <= most, "{kernel:?}: {shared} bytes of workgroup memory");
            let globals = module.global_variables.iter().filter(|(_, v)| v.binding.is_some()).count();
            assert_eq!(globals, shader.bindings.len() + 1, "{kernel:?}: bindings");
        }
    }

    #[test]
    fn folded_grids_cover_and_fit() {
        for groups in [1, 2, 32_768, 32_769, 65_536, 1_000_000, 100_000_000] {
            let [x, y, z] = folded_grid(groups);
            assert!(x <= 65_535 && y <= 65_535 && z == 1);
            assert!(x as u64 * y as u64 >= groups as u64);
        }
    }
}
