//! A folder that one process works in at a time.

use std::fs::File;
use std::io;
use std::path::Path;

/// The right to work in a folder, for as long as the value lives. It ends with the process, however that ends.
///
/// On Unix it is a lock on the folder itself; elsewhere, on a file in it that is gone with the value. Where a file system
/// knows no locks, everyone is let in.
#[derive(Debug)]
pub struct FolderLock {
    held: Option<File>,
}

impl FolderLock {
    /// The lock of `folder`, or None if another process has it.
    ///
    /// # Errors
    /// The folder is not there or cannot be opened.
    pub fn try_new(folder: &Path) -> io::Result<Option<Self>> {
        let file = open(folder)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { held: Some(file) })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(_)) => Ok(Some(Self { held: None })),
        }
    }

    /// Whether nobody else can be at work in the folder; not so where the file system knows no locks.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }
}

#[cfg(unix)]
fn open(folder: &Path) -> io::Result<File> {
    File::open(folder)
}

#[cfg(not(unix))]
fn open(folder: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(windows)]
    {
        const DELETE_ON_CLOSE: u32 = 0x0400_0000;
        std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, DELETE_ON_CLOSE);
    }
    options.open(folder.join(".blockpruner.lock"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::try_new(folder.path()).unwrap().unwrap();
        assert!(FolderLock::try_new(folder.path()).unwrap().is_none());
        drop(lock);
        assert!(FolderLock::try_new(folder.path()).unwrap().is_some());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(FolderLock::try_new(&folder.path().join("none")).is_err());
    }
}
