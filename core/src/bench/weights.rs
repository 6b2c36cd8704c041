//! How fast weights come to a device.

use serde::Serialize;
use web_time::Instant;

use crate::model::{DeviceModel, ForwardError};

/// The rate at which weights are read, checked, packed and brought to a device.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WeightRate {
    /// Bytes that were brought, as they are packed on the device.
    pub bytes: u64,
    /// From the first read until the last copy was done.
    pub seconds: f64,
    /// In 1e9 bytes a second.
    pub gb_per_second: f64,
}

impl WeightRate {
    /// Brings every block of a model once, as streaming does but with nothing to do between two of them. What loading has
    /// read is likely to be in the system's memory still, where that is large enough. None for a model without blocks.
    ///
    /// # Errors
    /// The device, and reading the weights.
    pub async fn measure(model: &DeviceModel) -> Result<Option<Self>, ForwardError> {
        // The first blocks find no storage to use again.
        for block in model.different_blocks().iter() {
            model.bring(block).await?;
        }
        model.gpu().read(&model.final_norm.weight, 1).await?;
        let start = Instant::now();
        let mut bytes = 0;
        for block in model.spec().blocks() {
            bytes += model.bring(block).await?.packed_bytes(model.gpu());
        }
        model.gpu().read(&model.final_norm.weight, 1).await?;
        let seconds = start.elapsed().as_secs_f64();
        Ok((bytes > 0).then_some(Self { bytes, seconds, gb_per_second: bytes as f64 / seconds / 1e9 }))
    }
}
