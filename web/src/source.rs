//! A `Blob` or `File` as a source of bytes: the piece asked for is read, never the whole.

use blockpruner::weights::{ByteSource, ReadFuture, WeightsError};
use js_sys::Uint8Array;
use wasm_bindgen_futures::JsFuture;
use web_sys::Blob;

use crate::describe;

/// A file that the browser holds, on disk or in memory.
pub struct BlobSource {
    name: String,
    blob: Blob,
}

impl BlobSource {
    /// `blob` under the name that error messages shall use.
    pub fn new(name: impl Into<String>, blob: Blob) -> Self {
        Self { name: name.into(), blob }
    }
}

impl ByteSource for BlobSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.blob.size() as u64
    }

    fn read<'a>(&'a self, offset: u64, len: usize) -> ReadFuture<'a> {
        Box::pin(async move {
            read_blob(&self.blob, offset, len).await.map_err(|reason| WeightsError::Read {
                file: self.name.clone(),
                offset,
                len: len as u64,
                reason: format!("{reason}; if the file was moved or changed, choose it again"),
            })
        })
    }
}

/// Bytes `offset .. offset + len` of a blob; fewer where it ends.
pub async fn read_blob(blob: &Blob, offset: u64, len: usize) -> Result<Vec<u8>, String> {
    let (start, end) = (offset as f64, offset as f64 + len as f64);
    let piece = blob.slice_with_f64_and_f64(start, end).map_err(|error| describe(&error))?;
    let buffer = JsFuture::from(piece.array_buffer()).await.map_err(|error| describe(&error))?;
    Ok(Uint8Array::new(&buffer).to_vec())
}
