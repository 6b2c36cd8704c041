//! Rows of a tensor, read into memory that is used again, in the order of the model, and checked while they are there.

use std::ops::Range;

use super::{ByteSource, DType, FloatType, RowOrder, Rows, TensorInfo, WeightsError, dequantize, source};

/// What rows are handed out as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As the file stores them, quantised blocks too. Rows must be whole blocks.
    Stored,
    /// f32.
    F32,
}

/// A tensor and what its bytes are read from.
pub(crate) struct Tensor<'a, S: ByteSource + ?Sized> {
    pub(super) info: &'a TensorInfo,
    pub(super) source: &'a S,
}

impl<'a> Tensor<'a, dyn ByteSource> {
    /// The same for several threads at a time, where the source can be shared.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn shared(&self) -> Option<Tensor<'a, super::SharedSource>> {
        Some(Tensor { info: self.info, source: self.source.shared()? })
    }
}

impl<S: ByteSource + ?Sized> Tensor<'_, S> {
    /// Bytes that a row takes in a form; None if rows are not whole blocks.
    fn row_bytes(&self, form: Form) -> Option<usize> {
        match form {
            Form::Stored => Some(self.info.dtype.bytes_of(self.info.columns())? as usize),
            Form::F32 => Some(self.info.columns() * 4),
        }
    }

    /// Some of its rows, as [`super::Weights::read_rows`] hands them out.
    pub(super) async fn rows(&self, rows: Range<usize>) -> Result<Rows, WeightsError> {
        let dtype = self.info.dtype.read_as();
        let form = if self.info.dtype.is_quantised() { Form::F32 } else { Form::Stored };
        Ok(Rows { dtype, bytes: self.in_form(rows, form).await? })
    }

    /// Some of its rows in a form; see [`Tensor::read`].
    pub(super) async fn in_form(&self, rows: Range<usize>, form: Form) -> Result<Vec<u8>, WeightsError> {
        self.check_rows(&rows)?;
        // What a file does not have is not made room for.
        self.check_there(&rows)?;
        let row_bytes = self.row_bytes(form).ok_or_else(|| self.no_such_rows(&rows))?;
        let mut bytes = Vec::new();
        source::make_room(self.source.name(), self.info.offset, rows.len() * row_bytes, &mut bytes)?;
        self.read(rows, form, &mut Vec::new(), &mut bytes).await?;
        Ok(bytes)
    }

    /// Fills `to` with rows of the tensor in Hugging Face order; [`WeightsError::NotFinite`] if a value is NaN or infinite,
    /// [`WeightsError::Rows`] if there are no such rows or they do not fill `to`. `scratch` holds what has to be converted or
    /// put in order.
    pub(crate) async fn read(
        &self,
        rows: Range<usize>,
        form: Form,
        scratch: &mut Vec<u8>,
        to: &mut [u8],
    ) -> Result<(), WeightsError> {
        let info = self.info;
        self.check_rows(&rows)?;
        if self.row_bytes(form).and_then(|bytes| bytes.checked_mul(rows.len())) != Some(to.len()) {
            return Err(self.no_such_rows(&rows));
        }
        if to.is_empty() {
            return Ok(());
        }
        let (blocks, offset, len) = self.stored(&rows);
        if info.row_order == RowOrder::Stored && (form == Form::Stored || info.dtype == DType::F32) {
            source::read_exact_into(self.source, offset, to).await?;
        } else {
            if scratch.len() < len {
                source::make_room(self.source.name(), offset, len, scratch)?;
            }
            let stored = &mut scratch[..len];
            source::read_exact_into(self.source, offset, stored).await?;
            self.convert(&rows, form, blocks.start, stored, to);
        }
        if info.less_one {
            self.take_one_off(form, to);
        }
        match self.first_not_finite(form, to) {
            None => Ok(()),
            Some((row, value)) => Err(WeightsError::NotFinite {
                file: self.source.name().to_string(),
                tensor: info.name.clone(),
                row: rows.start + row,
                value,
            }),
        }
    }

    /// Takes 1 off the values of rows. Quantised ones that stay so are not changed: only norms are stored with 1 added.
    fn take_one_off(&self, form: Form, bytes: &mut [u8]) {
        let float = match form {
            Form::F32 => FloatType::F32,
            Form::Stored if self.info.dtype.is_quantised() => return,
            Form::Stored => self.info.dtype.read_as(),
        };
        match float {
            FloatType::F32 => less_one(bytes, f32::from_le_bytes, |value| value.to_le_bytes()),
            FloatType::F16 => less_one(
                bytes,
                |bits| half::f16::from_le_bytes(bits).to_f32(),
                |x| half::f16::from_f32(x).to_le_bytes(),
            ),
            FloatType::BF16 => less_one(
                bytes,
                |bits| half::bf16::from_le_bytes(bits).to_f32(),
                |x| half::bf16::from_f32(x).to_le_bytes(),
            ),
        }
    }

    fn no_such_rows(&self, rows: &Range<usize>) -> WeightsError {
        WeightsError::Rows {
            file: self.source.name().to_string(),
            tensor: self.info.name.clone(),
            available: self.info.rows(),
            start: rows.start,
            end: rows.end,
        }
    }

    /// [`WeightsError::Rows`] if the tensor does not have these rows.
    pub(super) fn check_rows(&self, rows: &Range<usize>) -> Result<(), WeightsError> {
        if rows.start > rows.end || rows.end > self.info.rows() { Err(self.no_such_rows(rows)) } else { Ok(()) }
    }

    /// An error if the file ends before these rows, which the tensor has.
    pub(super) fn check_there(&self, rows: &Range<usize>) -> Result<(), WeightsError> {
        if rows.is_empty() {
            return Ok(());
        }
        let (_, offset, len) = self.stored(rows);
        source::check_range(self.source.name(), self.source.len(), offset, len as u64)
    }

    /// The blocks that hold these rows, which are not none, and where they lie in the file. Rows of a quantised vector need
    /// not begin with a block.
    fn stored(&self, rows: &Range<usize>) -> (Range<usize>, u64, usize) {
        let (info, block) = (self.info, self.info.dtype.block_elements());
        let stored = info.row_order.stored_range(rows);
        let blocks = stored.start * info.columns() / block..(stored.end * info.columns()).div_ceil(block);
        let bytes = info.dtype.block_bytes();
        (blocks.clone(), info.offset + blocks.start as u64 * bytes as u64, blocks.len() * bytes)
    }

    /// Rows in their form out of what the file stores from block `first` on.
    fn convert(&self, rows: &Range<usize>, form: Form, first: usize, stored: &[u8], to: &mut [u8]) {
        let (dtype, columns) = (self.info.dtype, self.info.columns());
        let (block, block_bytes) = (dtype.block_elements(), dtype.block_bytes());
        if !columns.is_multiple_of(block) {
            let values = dequantize::dequantize(dtype, stored).unwrap_or_default();
            for (row, to) in rows.clone().zip(to.chunks_exact_mut(columns * 4)) {
                let start = self.info.row_order.stored_row(row) * columns - first * block;
                to.copy_from_slice(bytemuck::cast_slice(&values[start..start + columns]));
            }
            return;
        }
        let row_bytes = columns / block * block_bytes;
        let to_bytes = to.len() / rows.len();
        for (row, to) in rows.clone().zip(to.chunks_exact_mut(to_bytes)) {
            let start = self.info.row_order.stored_row(row) * row_bytes - first * block_bytes;
            let from = &stored[start..start + row_bytes];
            match form {
                Form::Stored => to.copy_from_slice(from),
                Form::F32 => dequantize::dequantize_into(dtype, from, to),
            }
        }
    }

    /// The first NaN or infinity among rows: its row and value.
    fn first_not_finite(&self, form: Form, bytes: &[u8]) -> Option<(usize, f32)> {
        let (dtype, columns) = (self.info.dtype, self.info.columns());
        let float = match form {
            Form::F32 => FloatType::F32,
            Form::Stored if dtype.is_quantised() => return self.first_bad_block(bytes),
            Form::Stored => dtype.read_as(),
        };
        first_not_finite(float, bytes).map(|(element, value)| (element / columns, value))
    }

    /// As [`Tensor::first_not_finite`], of quantised rows.
    fn first_bad_block(&self, bytes: &[u8]) -> Option<(usize, f32)> {
        let dtype = self.info.dtype;
        let row_bytes = self.row_bytes(Form::Stored)?;
        for (row, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
            // Dequantising everything would be most of the cost of streaming a model.
            if dequantize::factors_are_finite(dtype, bytes) {
                continue;
            }
            let values = dequantize::dequantize(dtype, bytes).unwrap_or_default();
            if let Some((_, value)) = first_not_finite(FloatType::F32, bytemuck::cast_slice(&values)) {
                return Some((row, value));
            }
        }
        None
    }
}

/// Takes 1 off every value of so many bytes.
fn less_one<const N: usize>(bytes: &mut [u8], read: fn([u8; N]) -> f32, write: fn(f32) -> [u8; N]) {
    for value in bytes.as_chunks_mut().0 {
        *value = write(read(*value) - 1.0);
    }
}

/// The first NaN or infinity among `bytes`: its element index and value.
fn first_not_finite(dtype: FloatType, bytes: &[u8]) -> Option<(usize, f32)> {
    // A float is not finite if its exponent bits are all set. Looking at every element without an early exit is what
    // the compiler can vectorise; the place is looked for only if there is one.
    const CHUNK: usize = 4096;
    let half_mask: u16 = if dtype == FloatType::F16 { 0x7c00 } else { 0x7f80 };
    let suspicious = |chunk: &[u8]| match dtype {
        FloatType::F32 => {
            let bits = chunk.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b));
            bits.fold(false, |found, bits| found | (bits & 0x7f80_0000 == 0x7f80_0000))
        }
        FloatType::F16 | FloatType::BF16 => {
            let bits = chunk.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b));
            bits.fold(false, |found, bits| found | (bits & half_mask == half_mask))
        }
    };
    let (number, chunk) = bytes.chunks(CHUNK).enumerate().find(|(_, chunk)| suspicious(chunk))?;
    let values = dequantize::dequantize(dtype.into(), chunk)?;
    let (element, value) = values.into_iter().enumerate().find(|(_, value)| !value.is_finite())?;
    Some((number * CHUNK / dtype.bytes() + element, value))
}
