//! What stands before the first block and behind the last, recorded: the embedding, the final norm, the logits and losses.

use std::ops::Range;

use blockpruner_shaders::{gemm, stride};

use super::batch::{Batch, HeadPart};
use super::branch::Rows;
use super::scratch::Scratch;
use crate::gpu::{LogSumExp, LogSumExpBuffers, Lookup, Matrix, Operand, Recording, VocabularyChunk};
use crate::model::spec::LearnedPositions;
use crate::model::{DeviceModel, ForwardError};

/// Vocabulary entries whose logits exist at a time. Fixed, so that the order of summation, and with it every bit of a
/// result, depends on nothing else.
pub(crate) const VOCABULARY_CHUNK: usize = 1024;

/// Tokens that become hidden states.
pub(super) struct EmbeddedText<'a> {
    pub tokens: &'a wgpu::Buffer,
    /// How many.
    pub rows: u32,
    /// Those of a window.
    pub window: u32,
    /// Positions before the first of a window.
    pub past: u32,
    /// The position of each row, where they are others.
    pub positions: Option<&'a wgpu::Buffer>,
    pub states: &'a wgpu::Buffer,
}

impl DeviceModel {
    /// `states = embedding[tokens]` for every batch.
    pub(crate) async fn embed(&self, batches: &[(&Batch, &wgpu::Buffer)]) -> Result<(), ForwardError> {
        let mut recording = Recording::new();
        self.record_embedding(&mut recording, batches).await?;
        Ok(self.gpu.submit(&recording).await?)
    }

    /// `states = embedding[tokens]` for every batch, and what positions add; waits only where the embedding is streamed.
    pub(crate) async fn record_embedding(
        &self,
        recording: &mut Recording,
        batches: &[(&Batch, &wgpu::Buffer)],
    ) -> Result<(), ForwardError> {
        let texts = batches.iter().map(|(batch, states)| EmbeddedText {
            tokens: &batch.tokens,
            rows: batch.rows(),
            window: batch.window,
            past: 0,
            positions: batch.positions.as_ref(),
            states,
        });
        self.record_texts(recording, &texts.collect::<Vec<_>>()).await
    }

    /// The same for texts.
    pub(super) async fn record_texts(
        &self,
        recording: &mut Recording,
        texts: &[EmbeddedText<'_>],
    ) -> Result<(), ForwardError> {
        recording.stage("embedding");
        let scale = self.spec.embedding.scale;
        self.embedding_chunks(|first_row, matrix| {
            for EmbeddedText { tokens, rows, states, .. } in texts {
                let lookup = Lookup::Tokens { tokens, scale };
                matrix.record_lookup(&self.gpu, recording, lookup, *rows, first_row, states);
            }
        })
        .await?;
        let Some(LearnedPositions { offset }) = self.spec.embedding.positions else { return Ok(()) };
        self.position_chunks(|first_row, matrix| {
            for EmbeddedText { rows, window, past, positions, states, .. } in texts {
                let first = offset as u32 + past;
                let lookup = match positions {
                    Some(positions) => Lookup::EachPosition { positions, first },
                    None => Lookup::Positions { window: *window, first },
                };
                matrix.record_lookup(&self.gpu, recording, lookup, *rows, first_row, states);
            }
        })
        .await
    }

    /// Chunks of the vocabulary.
    pub(crate) fn vocabulary_chunks(&self) -> usize {
        self.head.len()
    }

    /// The final norm of a part's rows, from the states after the last block, which begin at `first_row`.
    pub(crate) fn record_final_norm(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        part: &HeadPart,
        states: &wgpu::Buffer,
        first_row: u32,
    ) -> Operand {
        recording.stage("final norm");
        let rows = Rows { states, first: first_row + part.first_row, windows: 1, window: part.span };
        let residual = self.residual(recording, scratch, &rows, 0, part.span);
        self.final_norm.record_rows(&self.gpu, recording, &residual, &part.indices, part.rows, &scratch.operand)
    }

    /// The log-sum-exp over these chunks of a head, which must come in order; the last one ends in the NLL. `targets` are
    /// tokens of the head's vocabulary, one for each row of the part.
    pub(crate) fn record_head(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        part: &HeadPart,
        normed: &Operand,
        (head, targets): (&[Matrix], &wgpu::Buffer),
        chunks: Range<usize>,
    ) {
        let log_sum_exp = self.log_sum_exp();
        for chunk in chunks {
            let matrix = &head[chunk];
            recording.stage("head product");
            matrix.record_product(&self.gpu, recording, normed, &scratch.logits);
            recording.stage("log-sum-exp");
            let buffers = LogSumExpBuffers { logits: &scratch.logits, targets, running: &part.running, nll: &part.nll };
            let entries = VocabularyChunk {
                columns: matrix.columns(),
                first_token: (chunk * VOCABULARY_CHUNK) as u32,
                is_first: chunk == 0,
                is_last: chunk + 1 == head.len(),
            };
            log_sum_exp.record(&self.gpu, recording, &buffers, part.rows, &entries);
        }
    }

    /// The final norm, the whole head and the losses of a batch, whose states after the last block begin at `first_row`.
    pub(crate) fn record_losses(
        &self,
        recording: &mut Recording,
        scratch: &Scratch,
        batch: &Batch,
        states: &wgpu::Buffer,
        first_row: u32,
    ) {
        for part in &batch.head {
            let normed = self.record_final_norm(recording, scratch, part, states, first_row);
            let head = (self.head.as_slice(), &part.targets);
            self.record_head(recording, scratch, part, &normed, head, 0..self.vocabulary_chunks());
        }
    }

    fn log_sum_exp(&self) -> LogSumExp {
        LogSumExp { scale: self.spec.head.scale, soft_cap: self.spec.head.soft_cap }
    }

    /// The logits of the first `rows` rows of a part, over the whole vocabulary.
    pub(crate) async fn logits(
        &self,
        scratch: &Scratch,
        part: &HeadPart,
        states: &wgpu::Buffer,
        first_row: u32,
        rows: usize,
    ) -> Result<Vec<Vec<f32>>, ForwardError> {
        let log_sum_exp = self.log_sum_exp();
        let mut recording = Recording::new();
        self.record_final_norm(&mut recording, scratch, part, states, first_row);
        let normed = Operand::new(&scratch.operand, rows as u32);
        let mut logits = vec![Vec::with_capacity(self.spec.vocab_size); rows];
        for matrix in self.head.iter() {
            matrix.record_product(&self.gpu, &mut recording, &normed, &scratch.logits);
            self.gpu.submit(&std::mem::take(&mut recording)).await?;
            let (columns, width) = (matrix.columns() as usize, stride(matrix.columns()) as usize);
            let bytes = gemm::output_bytes(self.gpu.gemm(), rows as u32, width as u32);
            let chunk = self.gpu.read(&scratch.logits, bytes as usize / 4).await?;
            let chunk = gemm::unpack_output(self.gpu.gemm(), rows as u32, width as u32, &chunk);
            for (row, chunk) in logits.iter_mut().zip(chunk.chunks(width)) {
                row.extend(chunk[..columns].iter().map(|logit| log_sum_exp.meant(*logit)));
            }
        }
        Ok(logits)
    }
}
