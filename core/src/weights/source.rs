//! Where a checkpoint's bytes come from: a file, bytes in memory, or whatever a host page implements.

use std::borrow::Cow;
use std::future::{Future, ready};
use std::pin::Pin;

use super::WeightsError;

/// Bytes on their way from a [`ByteSource`].
pub type ReadFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, WeightsError>> + 'a>>;

/// One file of a checkpoint, read piece by piece.
///
/// Reading is async so that a browser `Blob` or a range request can stand behind it. Futures need not be `Send`.
pub trait ByteSource {
    /// The name that error messages use: a path, a file name or `builtin:...`.
    fn name(&self) -> &str;

    /// Bytes in all.
    fn len(&self) -> u64;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Exactly `len` bytes from `offset`; [`WeightsError::Read`] if they are not there or cannot be had.
    fn read<'a>(&'a self, offset: u64, len: usize) -> ReadFuture<'a>;
}

/// Reads `len` bytes at `offset` and holds every [`ByteSource`] to its contract.
pub(super) async fn read_exact(source: &dyn ByteSource, offset: u64, len: u64) -> Result<Vec<u8>, WeightsError> {
    let error = |reason: String| WeightsError::Read { file: source.name().to_string(), offset, len, reason };
    if offset.checked_add(len).is_none_or(|end| end > source.len()) {
        return Err(error(format!("the file ends at byte {}", source.len())));
    }
    let wanted = usize::try_from(len).map_err(|_| error("more than this machine can address".to_string()))?;
    let bytes = source.read(offset, wanted).await?;
    if bytes.len() != wanted {
        return Err(error(format!("only {} bytes arrived; read the file again", bytes.len())));
    }
    Ok(bytes)
}

fn slice(name: &str, bytes: &[u8], offset: u64, len: usize) -> Result<Vec<u8>, WeightsError> {
    let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(len)?));
    range.and_then(|range| bytes.get(range)).map(<[u8]>::to_vec).ok_or_else(|| WeightsError::Read {
        file: name.to_string(),
        offset,
        len: len as u64,
        reason: format!("the file ends at byte {}", bytes.len()),
    })
}

/// A file that is in memory already: embedded in the program, or handed over by a page.
#[derive(Clone, Debug)]
pub struct BytesSource {
    name: String,
    bytes: Cow<'static, [u8]>,
}

impl BytesSource {
    /// `bytes` under the name that error messages shall use.
    pub fn new(name: impl Into<String>, bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }
}

impl ByteSource for BytesSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read<'a>(&'a self, offset: u64, len: usize) -> ReadFuture<'a> {
        Box::pin(ready(slice(&self.name, &self.bytes, offset, len)))
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub use file::FileSource;

#[cfg(not(target_arch = "wasm32"))]
mod file {
    use std::fs::File;
    use std::future::ready;
    use std::path::Path;

    use memmap2::Mmap;

    use super::{ByteSource, ReadFuture, slice};
    use crate::weights::WeightsError;

    /// A memory-mapped file.
    #[derive(Debug)]
    pub struct FileSource {
        name: String,
        /// `None` for an empty file, which not every system can map.
        map: Option<Mmap>,
    }

    impl FileSource {
        /// Maps the file at `path`. The file must not be changed while it is in use.
        ///
        /// Fails with [`WeightsError::Open`] if it is not there, not readable or not a regular file.
        pub fn open(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
            let path = path.as_ref();
            let name = path.display().to_string();
            let error = |reason: String| WeightsError::Open { file: name.clone(), reason };
            let file = File::open(path).map_err(|e| error(format!("{e}; check the path and its permissions")))?;
            let metadata = file.metadata().map_err(|e| error(e.to_string()))?;
            if metadata.is_dir() {
                return Err(error("it is a folder; name a file in it".to_string()));
            }
            if !metadata.is_file() {
                return Err(error("it is not a regular file; copy its contents to one".to_string()));
            }
            if metadata.len() == 0 {
                return Ok(Self { name, map: None });
            }
            // SAFETY: a map is undefined behaviour only if the file shrinks or changes meanwhile, which the
            // documentation of this function forbids; the bytes are copied out before anyone looks at them.
            let map = unsafe { Mmap::map(&file) };
            let map = map.map_err(|e| error(format!("cannot be mapped into memory: {e}")))?;
            Ok(Self { name, map: Some(map) })
        }

        fn bytes(&self) -> &[u8] {
            self.map.as_deref().unwrap_or(&[])
        }
    }

    impl ByteSource for FileSource {
        fn name(&self) -> &str {
            &self.name
        }

        fn len(&self) -> u64 {
            self.bytes().len() as u64
        }

        fn read<'a>(&'a self, offset: u64, len: usize) -> ReadFuture<'a> {
            Box::pin(ready(slice(&self.name, self.bytes(), offset, len)))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use pollster::block_on;

    #[test]
    fn bytes_are_read_exactly_or_not_at_all() {
        let source = BytesSource::new("a.bin", b"0123456789");
        assert_eq!(block_on(source.read(2, 3)).unwrap(), b"234");
        assert_eq!(block_on(source.read(10, 0)).unwrap(), b"");
        for (offset, len) in [(8, 3), (11, 0), (u64::MAX, 1), (1, usize::MAX)] {
            let message = block_on(source.read(offset, len)).unwrap_err().to_string();
            assert!(message.starts_with("a.bin: ") && message.contains("ends at byte 10"), "{message}");
        }
    }

    #[test]
    fn a_source_that_delivers_too_little_is_found_out() {
        struct Short;
        impl ByteSource for Short {
            fn name(&self) -> &str {
                "short.bin"
            }
            fn len(&self) -> u64 {
                100
            }
            fn read<'a>(&'a self, _: u64, len: usize) -> ReadFuture<'a> {
                Box::pin(ready(Ok(vec![0; len / 2])))
            }
        }
        let message = block_on(read_exact(&Short, 0, 10)).unwrap_err().to_string();
        assert!(message.starts_with("short.bin: ") && message.contains("only 5 bytes"), "{message}");
        assert!(block_on(read_exact(&Short, 99, 2)).is_err());
        assert!(block_on(read_exact(&Short, u64::MAX, 2)).is_err());
    }

    #[test]
    fn files_are_mapped_and_errors_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.bin");
        std::fs::write(&path, b"weights").unwrap();
        let source = FileSource::open(&path).unwrap();
        assert_eq!(source.len(), 7);
        assert_eq!(block_on(source.read(3, 4)).unwrap(), b"ghts");
        assert!(block_on(source.read(4, 4)).is_err());

        let empty = folder.path().join("empty.bin");
        std::fs::write(&empty, b"").unwrap();
        let source = FileSource::open(&empty).unwrap();
        assert!(source.is_empty());
        assert!(block_on(source.read(0, 1)).is_err());
        assert_eq!(block_on(source.read(0, 0)).unwrap(), b"");

        let missing = FileSource::open(folder.path().join("none.bin")).unwrap_err().to_string();
        assert!(missing.contains("none.bin") && missing.contains("check the path"), "{missing}");
        let directory = FileSource::open(folder.path()).unwrap_err().to_string();
        assert!(directory.contains("folder") || cfg!(windows), "{directory}");
    }
}
