//! Compiling the shaders of a model before its work is timed.

use blockpruner_shaders::stride;

use super::forward::{Batch, Rows, Scratch, every_block};
use super::{BlockSet, DeviceModel, ForwardError};
use crate::gpu::{Lookup, Recording};

/// Tokens of the window that runs: the fewest that have a target.
const WINDOW: usize = 2;

impl DeviceModel {
    /// Runs a window of two tokens through a part of the model that needs every shader that the whole needs. Drivers compile a
    /// shader when it is created or when it first runs, which may take seconds; what runs afterwards takes its usual time.
    ///
    /// # Errors
    /// Everything that a device can do wrong, and reading weights that are streamed.
    pub async fn warm_up(&self) -> Result<(), ForwardError> {
        let gpu = self.gpu();
        let scratch = Scratch::new(self, WINDOW as u32, 1)?;
        let batch = Batch::new(gpu, &[0; WINDOW], WINDOW)?;
        let tokens = gpu.upload("token ids", bytemuck::cast_slice(&[0u32; WINDOW]))?;
        let states = gpu.storage("hidden states", WINDOW as u64 * stride(self.spec.hidden_size as u32) as u64 * 4)?;
        let mut recording = Recording::new();
        // A streamed embedding is left on its file: unless it has another format than the head, its shader is the same. That of
        // streamed positions is compiled when they are first brought.
        for matrix in [self.embedding.first(), self.head.first()].into_iter().flatten() {
            let lookup = Lookup::Tokens { tokens: &tokens, scale: 1.0 };
            matrix.record_lookup(gpu, &mut recording, lookup, WINDOW as u32, 0, &states);
        }
        if let Some(matrix) = self.positions.first() {
            let lookup = Lookup::Positions { window: WINDOW as u32, first: 0 };
            matrix.record_lookup(gpu, &mut recording, lookup, WINDOW as u32, 0, &states);
        }
        let different = self.different_blocks();
        let left_out: BlockSet = every_block(&self.spec).filter(|block| !different.contains(*block)).collect();
        let rows = Rows { states: &states, first: 0, windows: 1, window: WINDOW as u32 };
        self.walk(&mut recording, 0..self.spec.sublayer_count(), &left_out, async |recording, _, branches| {
            self.record_sublayer(recording, &scratch, branches, &rows);
            Ok::<_, ForwardError>(())
        })
        .await?;
        let mut result = None;
        for part in &batch.head {
            let normed = self.record_final_norm(&mut recording, &scratch, part, &states, 0);
            self.record_head(&mut recording, &scratch, part, &normed, (&self.head, &part.targets), 0..1);
            result = Some(&part.nll);
        }
        gpu.submit(&recording).await?;
        if let Some(nll) = result {
            gpu.read(nll, 1).await?;
        }
        Ok(())
    }
}
