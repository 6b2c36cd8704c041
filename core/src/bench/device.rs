//! What a device can do at best: the limits that kernels are measured by.

use blockpruner_shaders::{WeightFormat, gemm, stride};
use serde::Serialize;

use super::Timing;
use crate::gpu::{Gpu, GpuError, Matrix, Operand, Recording};

/// Bytes that are copied at a time, unless a binding holds fewer: more than caches hold.
const COPY_BYTES: u64 = 128 << 20;
/// Sizes of the square products that are tried, while one takes less than [`LONG_PRODUCT`].
const PRODUCTS: [u32; 4] = [512, 1024, 2048, 4096];
/// Seconds.
const LONG_PRODUCT: f64 = 0.05;

/// The best rates of a device.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct DeviceRates {
    /// Copying from buffer to buffer, in 1e9 bytes read and written a second.
    pub copy_gb_per_second: f64,
    /// Bytes that were copied at a time.
    pub copy_bytes: u64,
    /// A large product of f32 matrices with the GEMM kernel in use, in 1e9 multiplications and additions a second.
    pub gemm_gflop_per_second: f64,
    /// Rows, columns and inner dimension of the fastest product.
    pub gemm_size: u32,
}

impl DeviceRates {
    /// Measures a device.
    ///
    /// # Errors
    /// Everything that a device can do wrong.
    pub async fn measure(gpu: &Gpu) -> Result<Self, GpuError> {
        let copy_bytes = COPY_BYTES.min(gpu.max_binding());
        let copy_gb_per_second = copy(gpu, copy_bytes).await?;
        let (mut best, mut best_size) = (0.0, PRODUCTS[0]);
        for size in PRODUCTS {
            let seconds = product(gpu, size).await?;
            let rate = 2.0 * (size as f64).powi(3) / seconds / 1e9;
            if rate > best {
                (best, best_size) = (rate, size);
            }
            if seconds > LONG_PRODUCT {
                break;
            }
        }
        Ok(Self { copy_gb_per_second, copy_bytes, gemm_gflop_per_second: best, gemm_size: best_size })
    }
}

async fn copy(gpu: &Gpu, bytes: u64) -> Result<f64, GpuError> {
    let (source, target) = (gpu.storage("copied from", bytes)?, gpu.storage("copied to", bytes)?);
    let mut recording = Recording::new();
    recording.copy(&source, &target, 0, bytes);
    let timing = Timing::of(gpu, &recording).await?;
    Ok(2.0 * bytes as f64 / timing.minimum / 1e9)
}

/// Seconds of a product of square f32 matrices.
async fn product(gpu: &Gpu, size: u32) -> Result<f64, GpuError> {
    // Ordinary numbers: zeros and denormals may take another time.
    let values: Vec<f32> = (0..size * size).map(|i| ((i % 127) as f32 - 63.0) / 64.0).collect();
    let rows: &[u8] = bytemuck::cast_slice(&values);
    let mut matrix = Matrix::new(WeightFormat::F32, size, size, None);
    for range in Matrix::shards(gpu, WeightFormat::F32, size, size)? {
        let part = range.start as usize * size as usize * 4..range.end as usize * size as usize * 4;
        matrix.push(gpu, "weight of the measured product", range, &rows[part])?;
    }
    let packed = gemm::pack_operand(gpu.gemm(), size, &values);
    let label = "left side of the measured product";
    let storage = gpu.upload_readable(label, &packed)?;
    let output = gpu.readable("the measured product", gemm::output_bytes(gpu.gemm(), size, stride(size)))?;
    let mut recording = Recording::new();
    matrix.record_product(gpu, &mut recording, &Operand::new(&storage, size), &output);
    Ok(Timing::of(gpu, &recording).await?.minimum)
}
