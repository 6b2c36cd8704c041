//! Where a checkpoint's bytes come from: a file, bytes in memory, or whatever a host page implements.

use std::borrow::Cow;
use std::future::{Future, ready};
use std::pin::Pin;
use std::rc::Rc;

use super::WeightsError;

/// Bytes on their way from a [`ByteSource`].
pub type ReadFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, WeightsError>> + 'a>>;

/// Bytes of a [`ByteSource`] on their way into the caller's memory.
pub type ReadIntoFuture<'a> = Pin<Box<dyn Future<Output = Result<(), WeightsError>> + 'a>>;

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

    /// Fills `to` with the bytes from `offset`; [`WeightsError::Read`] as [`ByteSource::read`]. What `to` then holds after an
    /// error is not said.
    ///
    /// Sources that need not make memory for the bytes first should implement it: weights are read this way.
    fn read_into<'a>(&'a self, offset: u64, to: &'a mut [u8]) -> ReadIntoFuture<'a> {
        Box::pin(async move {
            let bytes = self.read(offset, to.len()).await?;
            if bytes.len() != to.len() {
                return Err(too_few(self.name(), offset, to.len() as u64, bytes.len()));
            }
            to.copy_from_slice(&bytes);
            Ok(())
        })
    }

    /// The same source for several threads at a time, if that is possible; otherwise one piece is read after the other.
    /// Every thread waits by itself for what it reads, so the futures must not need the caller's thread to come true.
    fn shared(&self) -> Option<&SharedSource> {
        None
    }
}

/// Files by their names without their folder.
pub type NamedSources = Vec<(String, Rc<dyn ByteSource>)>;

/// A [`ByteSource`] that several threads read from at a time.
pub type SharedSource = dyn ByteSource + Send + Sync;

/// A source's name without its folder.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// [`WeightsError::Read`] unless a file of `available` bytes has these.
pub(crate) fn check_range(name: &str, available: u64, offset: u64, len: u64) -> Result<(), WeightsError> {
    match offset.checked_add(len) {
        Some(end) if end <= available => Ok(()),
        _ => Err(WeightsError::Read {
            file: name.to_string(),
            offset,
            len,
            reason: format!("the file ends at byte {available}"),
        }),
    }
}

fn too_few(name: &str, offset: u64, len: u64, arrived: usize) -> WeightsError {
    let reason = format!("only {arrived} bytes arrived; read the file again");
    WeightsError::Read { file: name.to_string(), offset, len, reason }
}

/// Fills `to` from `offset` and holds every [`ByteSource`] to its contract.
pub(super) async fn read_exact_into<S>(source: &S, offset: u64, to: &mut [u8]) -> Result<(), WeightsError>
where
    S: ByteSource + ?Sized,
{
    check_range(source.name(), source.len(), offset, to.len() as u64)?;
    source.read_into(offset, to).await
}

/// Makes `bytes` so long, with zeros; an error where there is no memory for that, because lengths come from files.
pub(super) fn make_room(file: &str, offset: u64, len: usize, bytes: &mut Vec<u8>) -> Result<(), WeightsError> {
    bytes.try_reserve_exact(len.saturating_sub(bytes.len())).map_err(|_| WeightsError::Read {
        file: file.to_string(),
        offset,
        len: len as u64,
        reason: NO_MEMORY.to_string(),
    })?;
    bytes.resize(len, 0);
    Ok(())
}

/// Why bytes are not read for which there is no memory.
pub(crate) const NO_MEMORY: &str = "there is not enough memory for them";

/// Reads `len` bytes at `offset` and holds every [`ByteSource`] to its contract.
pub(super) async fn read_exact(source: &dyn ByteSource, offset: u64, len: u64) -> Result<Vec<u8>, WeightsError> {
    check_range(source.name(), source.len(), offset, len)?;
    let wanted = usize::try_from(len).map_err(|_| WeightsError::Read {
        file: source.name().to_string(),
        offset,
        len,
        reason: "more than this machine can address".to_string(),
    })?;
    let bytes = source.read(offset, wanted).await?;
    if bytes.len() != wanted {
        return Err(too_few(source.name(), offset, len, bytes.len()));
    }
    Ok(bytes)
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

impl BytesSource {
    fn slice(&self, offset: u64, len: usize) -> Result<&[u8], WeightsError> {
        check_range(&self.name, self.bytes.len() as u64, offset, len as u64)?;
        // In range, so the offset fits.
        Ok(&self.bytes[offset as usize..][..len])
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
        Box::pin(ready(self.slice(offset, len).map(<[u8]>::to_vec)))
    }

    fn read_into<'a>(&'a self, offset: u64, to: &'a mut [u8]) -> ReadIntoFuture<'a> {
        Box::pin(ready(self.slice(offset, to.len()).map(|bytes| to.copy_from_slice(bytes))))
    }

    fn shared(&self) -> Option<&SharedSource> {
        Some(self)
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub use file::FileSource;

#[cfg(not(target_arch = "wasm32"))]
mod file {
    use std::fs::{self, File};
    use std::future::ready;
    use std::io;
    use std::path::Path;

    use super::{ByteSource, ReadFuture, ReadIntoFuture, SharedSource, check_range, make_room};
    use crate::weights::WeightsError;

    /// An open file, read where bytes are wanted. It is not mapped into memory: every page would be a fault, and a file that
    /// becomes shorter would end the process.
    #[derive(Debug)]
    pub struct FileSource {
        name: String,
        file: File,
        len: u64,
    }

    impl FileSource {
        /// Opens the file at `path`. It must not be changed while it is in use.
        ///
        /// # Errors
        /// [`WeightsError::Open`] if it is not there, not readable or not a regular file.
        pub fn open(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
            let path = path.as_ref();
            let name = path.display().to_string();
            let error = |reason: String| WeightsError::Open { file: name.clone(), reason };
            let unusable = |e: io::Error| match e.kind() {
                io::ErrorKind::NotFound if path.is_symlink() => {
                    error("it is a link to what is not there; put the file itself there".to_string())
                }
                _ => error(format!("{e}; check the path and its permissions")),
            };
            // Before it is opened: opening a pipe waits for whoever writes to it.
            let metadata = fs::metadata(path).map_err(unusable)?;
            if metadata.is_dir() {
                return Err(error("it is a folder; name a file in it".to_string()));
            }
            if !metadata.is_file() {
                return Err(error("it is not a regular file; copy its contents to one".to_string()));
            }
            let file = File::open(path).map_err(unusable)?;
            let len = file.metadata().map_err(unusable)?.len();
            Ok(Self { name, file, len })
        }

        fn fill(&self, offset: u64, to: &mut [u8]) -> Result<(), WeightsError> {
            let len = to.len() as u64;
            check_range(&self.name, self.len, offset, len)?;
            read_exact_at(&self.file, to, offset).map_err(|error| {
                let reason = match error.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        format!("the file has become shorter than the {} bytes that it had when opened", self.len)
                    }
                    _ => error.to_string(),
                };
                WeightsError::Read { file: self.name.clone(), offset, len, reason }
            })
        }

        fn bytes(&self, offset: u64, len: usize) -> Result<Vec<u8>, WeightsError> {
            // Before memory is made for bytes that are not there.
            check_range(&self.name, self.len, offset, len as u64)?;
            let mut bytes = Vec::new();
            make_room(&self.name, offset, len, &mut bytes)?;
            self.fill(offset, &mut bytes)?;
            Ok(bytes)
        }
    }

    impl ByteSource for FileSource {
        fn name(&self) -> &str {
            &self.name
        }

        fn len(&self) -> u64 {
            self.len
        }

        fn read<'a>(&'a self, offset: u64, len: usize) -> ReadFuture<'a> {
            Box::pin(ready(self.bytes(offset, len)))
        }

        fn read_into<'a>(&'a self, offset: u64, to: &'a mut [u8]) -> ReadIntoFuture<'a> {
            Box::pin(ready(self.fill(offset, to)))
        }

        fn shared(&self) -> Option<&SharedSource> {
            Some(self)
        }
    }

    #[cfg(unix)]
    fn read_exact_at(file: &File, to: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(file, to, offset)
    }

    #[cfg(windows)]
    fn read_exact_at(file: &File, mut to: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !to.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(file, to, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    to = &mut to[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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

        let message = block_on(read_exact_into(&Short, 0, &mut [0; 10])).unwrap_err().to_string();
        assert!(message.starts_with("short.bin: ") && message.contains("only 5 bytes"), "{message}");
        assert!(block_on(read_exact_into(&Short, 99, &mut [0; 2])).is_err());
        assert!(block_on(read_exact_into(&Short, u64::MAX, &mut [0; 2])).is_err());
    }

    #[test]
    fn bytes_come_into_the_callers_memory() {
        /// Knows nothing but `read`.
        struct Plain(BytesSource);
        impl ByteSource for Plain {
            fn name(&self) -> &str {
                self.0.name()
            }
            fn len(&self) -> u64 {
                self.0.len()
            }
            fn read<'a>(&'a self, offset: u64, len: usize) -> ReadFuture<'a> {
                self.0.read(offset, len)
            }
        }
        let bytes = BytesSource::new("a.bin", b"0123456789");
        let plain = Plain(bytes.clone());
        assert!(plain.shared().is_none());
        let shared = bytes.shared().unwrap();
        assert_eq!(block_on(shared.read(2, 3)).unwrap(), b"234");
        for source in [&plain as &dyn ByteSource, &bytes] {
            let mut to = [0; 3];
            block_on(source.read_into(7, &mut to)).unwrap();
            assert_eq!(&to, b"789");
            block_on(source.read_into(10, &mut [])).unwrap();
            for offset in [8, u64::MAX] {
                let message = block_on(source.read_into(offset, &mut to)).unwrap_err().to_string();
                assert!(message.starts_with("a.bin: ") && message.contains("ends at byte 10"), "{message}");
            }
        }
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.bin");
        std::fs::write(&path, [7; 100]).unwrap();
        let source = FileSource::open(&path).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(50).unwrap();
        assert_eq!(block_on(source.read(10, 40)).unwrap(), [7; 40]);
        let mut to = [0; 20];
        for error in [
            block_on(source.read(40, 20)).unwrap_err(),
            block_on(source.read_into(40, &mut to)).unwrap_err(),
            block_on(source.shared().unwrap().read_into(60, &mut to)).unwrap_err(),
        ] {
            let message = error.to_string();
            assert!(matches!(error, WeightsError::Read { len: 20, .. }), "{message}");
            assert!(message.contains("w.bin") && message.contains("shorter than the 100 bytes"), "{message}");
        }
    }

    #[test]
    fn more_than_fits_the_memory_is_an_error() {
        let mut bytes = vec![7];
        let message = make_room("w.bin", 3, isize::MAX as usize, &mut bytes).unwrap_err().to_string();
        assert!(message.starts_with("w.bin: ") && message.contains("not enough memory"), "{message}");
        assert_eq!(bytes, [7]);
        make_room("w.bin", 3, 4, &mut bytes).unwrap();
        assert_eq!(bytes, [7, 0, 0, 0]);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        std::os::unix::fs::symlink("nothing", path("link")).unwrap();
        for (name, expected) in [("pipe", "not a regular file"), ("link", "a link to what is not there")] {
            let message = FileSource::open(path(name)).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn files_are_read_and_errors_name_them() {
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
