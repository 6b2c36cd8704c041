//! Norms of the residual stream, and rows of it that are not normed.

use blockpruner_shaders::norm::{self, OperandParams, Params};
use blockpruner_shaders::{Kernel, NormKind, NormRows, gemm, stride};

use super::{Gpu, GpuError, Operand, Recording, Residual, Resource};

/// A norm of rows.
#[derive(Clone, Debug)]
pub struct Norm {
    pub(super) kind: NormKind,
    /// `[columns]` f32, padded with zeros to [`stride`]; for a layer norm, its bias behind it likewise.
    pub(crate) weight: Resource,
    /// Elements of a row.
    pub(super) columns: u32,
    /// Added to the mean square, or to the variance.
    pub(super) epsilon: f32,
}

impl Norm {
    /// A root mean square norm, or with a bias, as long as the weight, a layer norm.
    ///
    /// # Errors
    /// A device that has no room for it or fails.
    pub fn new(
        gpu: &Gpu,
        label: &str,
        mut weight: Vec<f32>,
        bias: Option<&[f32]>,
        epsilon: f32,
    ) -> Result<Self, GpuError> {
        let columns = weight.len() as u32;
        let padded = stride(columns) as usize;
        weight.resize(padded, 0.0);
        if let Some(bias) = bias {
            weight.extend_from_slice(bias);
            weight.resize(2 * padded, 0.0);
        }
        let kind = if bias.is_some() { NormKind::Layer } else { NormKind::Rms };
        Ok(Self { kind, weight: gpu.upload_readable(label, &weight)?, columns, epsilon })
    }

    /// Bytes that one of `columns` elements takes.
    pub(crate) fn bytes(gpu: &Gpu, kind: NormKind, columns: u32) -> u64 {
        let vectors = if kind == NormKind::Layer { 2 } else { 1 };
        gpu.readable_bytes(vectors * stride(columns) as u64 * 4)
    }

    fn kernel(&self, gpu: &Gpu, rows: NormRows) -> Kernel {
        Kernel::Norm { kernel: gpu.gemm(), kind: self.kind, rows }
    }

    /// Appends `output[r] = norm(input[r])` for the first `rows` rows.
    pub fn record(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        input: &Residual<'_>,
        rows: u32,
        output: &Resource,
    ) -> Operand {
        let kernel = self.kernel(gpu, NormRows::Contiguous);
        let (input, first_row) = input.input();
        let params = self.params(rows, first_row, 1.0);
        let bindings = [input, self.weight.clone(), output.clone()];
        recording.dispatch(kernel, &params, bindings, norm::grid(gpu.gemm(), rows), self.flops(rows));
        Operand::new(output, rows)
    }

    /// Appends `output[r] = norm(input[indices[r]])` for the first `rows` of the indices, which are u32.
    pub fn record_rows(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        input: &Residual<'_>,
        indices: &wgpu::Buffer,
        rows: u32,
        output: &Resource,
    ) -> Operand {
        let kernel = self.kernel(gpu, NormRows::Indexed);
        let (input, first_row) = input.input();
        let params = self.params(rows, first_row, 1.0);
        let bindings = [input, self.weight.clone(), output.clone(), indices.into()];
        recording.dispatch(kernel, &params, bindings, norm::grid(gpu.gemm(), rows), self.flops(rows));
        Operand::new(output, rows)
    }

    /// Appends `residual += scale * norm(product)` for the first `rows` rows of a product of as many columns as the norm
    /// has. `sums` is as for [`super::Matrix::record_residual`].
    #[allow(clippy::too_many_arguments, reason = "one dispatch, spelt out")]
    pub fn record_residual(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        product: &Resource,
        rows: u32,
        scale: f32,
        residual: &Residual<'_>,
        sums: &Resource,
    ) {
        let kernel = self.kernel(gpu, NormRows::Product);
        let (input, first_row) = residual.input();
        let (params, weight) = (self.params(rows, first_row, scale), self.weight.clone());
        let (grid, flops) = (norm::grid(gpu.gemm(), rows), self.flops(rows));
        match gpu.gemm().is_panel() {
            true => recording.dispatch(kernel, &params, [product.clone(), weight, sums.clone(), input], grid, flops),
            false => recording.dispatch(kernel, &params, [product.clone(), weight, input], grid, flops),
        }
        residual.record_store(recording, sums, rows, self.columns);
    }

    fn params(&self, rows: u32, first_row: u32, scale: f32) -> Params {
        let Self { columns, epsilon, .. } = *self;
        Params {
            rows,
            columns,
            stride: stride(columns),
            inner4: gemm::inner_texels(columns),
            first_row,
            epsilon,
            scale,
        }
    }

    fn flops(&self, rows: u32) -> u64 {
        rows as u64 * self.columns as u64 * 8
    }
}

impl Residual<'_> {
    /// Appends `output[r] = self[r]` for the first `rows` rows of `columns` elements, for products with what is not normed.
    pub fn record_operand(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        rows: u32,
        columns: u32,
        output: &Resource,
    ) -> Operand {
        let (input, first_row) = self.input();
        let inner4 = gemm::inner_texels(columns);
        let params = OperandParams { rows, columns, stride: stride(columns), inner4, first_row };
        let kernel = Kernel::Operand { kernel: gpu.gemm() };
        let flops = rows as u64 * columns as u64;
        recording.dispatch(kernel, &params, [input, output.clone()], params.grid(gpu.gemm()), flops);
        Operand::new(output, rows)
    }
}
