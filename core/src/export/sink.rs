//! Where exported files go: a folder that appears whole or not at all.

use std::future::Future;
use std::pin::Pin;

use super::ExportError;

#[cfg(not(target_arch = "wasm32"))]
pub use disk::{Canceller, DiskFolder, write_atomically};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use disk::{MadeFolders, read_file, remove_abandoned};

/// What the methods of a [`FolderSink`] return.
pub type SinkFuture<'a> = Pin<Box<dyn Future<Output = Result<(), ExportError>> + 'a>>;

/// A folder that files are streamed into, one after the other.
///
/// Per file: [`begin_file`](FolderSink::begin_file), any number of [`write`](FolderSink::write),
/// [`end_file`](FolderSink::end_file). After an error the export stops and the sink is dropped; it is up to the sink
/// that nothing half-written stays behind.
pub trait FolderSink {
    /// Starts the file `name`, a plain file name that was not written before.
    fn begin_file<'a>(&'a mut self, name: &'a str) -> SinkFuture<'a>;
    /// Appends to the file begun last.
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> SinkFuture<'a>;
    /// Completes the file begun last.
    fn end_file(&mut self) -> SinkFuture<'_>;
}

impl dyn FolderSink + '_ {
    /// Writes a small file in one go.
    pub(super) async fn write_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        self.begin_file(name).await?;
        self.write(bytes).await?;
        self.end_file().await
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod disk {
    use std::borrow::Cow;
    use std::fs::{self, File, OpenOptions};
    use std::io::{self, ErrorKind, Write};
    use std::path::{Component, Path, PathBuf};
    use std::sync::{Arc, Mutex, PoisonError};

    use super::{ExportError, FolderSink, SinkFuture};
    use crate::export::FolderLock;

    /// A folder on disk. Everything goes into a temporary folder beside it, which [`DiskFolder::finish`] renames into
    /// place; dropped before that, it leaves nothing behind.
    #[derive(Debug)]
    pub struct DiskFolder {
        target: PathBuf,
        /// Whether a folder at the place is replaced.
        replaces: bool,
        open: Option<(PathBuf, File)>,
        stage: Arc<Mutex<Stage>>,
        /// Tells the temporary folder from one that a killed process left behind.
        lock: Option<FolderLock>,
        /// The temporary folder; gone with the value.
        partial: tempfile::TempDir,
        /// Folders above it that were not there; gone with the value if nothing is in them.
        _made: MadeFolders,
    }

    /// How far a folder has come.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Stage {
        Writing,
        Cancelled,
        InPlace,
    }

    impl DiskFolder {
        /// Prepares to write `target`, which must not exist yet or be an empty folder. Missing parents are created.
        /// That the place can be written shows here, before any work.
        ///
        /// # Errors
        /// [`ExportError::NotEmpty`], and [`ExportError::Write`] for a place that cannot be written.
        pub fn create(target: &Path) -> Result<Self, ExportError> {
            let target = followed(target)?;
            check_empty(&target)?;
            let folder = Self::beside(&target, false)?;
            if let Ok(found) = fs::metadata(&target) {
                // An empty folder gives way at the end. Where it cannot, being a mount point, that should show now.
                let again = || fs::create_dir(&target).and_then(|()| fs::set_permissions(&target, found.permissions()));
                fs::remove_dir(&target).and_then(|()| again()).map_err(|error| match error.kind() {
                    ErrorKind::ResourceBusy => ExportError::Write {
                        path: target.display().to_string(),
                        reason: "it is a mount point, which no finished folder can take the place of".to_string(),
                        advice: "name a new folder in it",
                    },
                    _ => write_error(&target, &error),
                })?;
            }
            Ok(folder)
        }

        /// As [`DiskFolder::create`], but what is at the place stays there until [`DiskFolder::finish`], and goes only when the new
        /// folder has taken its place.
        ///
        /// # Errors
        /// [`ExportError::Write`] for a place that cannot be written, or where there is something else than a folder.
        pub fn replace(target: &Path) -> Result<Self, ExportError> {
            if target.exists() && !target.is_dir() {
                return Err(write_error(target, &ErrorKind::NotADirectory.into()));
            }
            Self::beside(target, true)
        }

        fn beside(target: &Path, replaces: bool) -> Result<Self, ExportError> {
            let not_a_name = |reason: &str, advice| ExportError::Write {
                path: target.display().to_string(),
                reason: reason.to_string(),
                advice,
            };
            if target.file_name().is_none() {
                return Err(not_a_name("it is not the name of a new folder", "give the folder a name"));
            }
            if target.to_str().is_none() {
                // Plans, cards and messages are text.
                return Err(not_a_name("its name is not UTF-8", "choose another name"));
            }
            let parent = parent_of(target);
            let made = MadeFolders::create(parent).map_err(|e| write_error(parent, &e))?;
            let prefix = prefix_of(target);
            remove_abandoned(parent, &prefix);
            let mut builder = tempfile::Builder::new();
            builder.prefix(&prefix);
            // Temporary folders are private by default; this one becomes the result, so the usual umask decides.
            #[cfg(unix)]
            let everyone = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777);
            #[cfg(unix)]
            builder.permissions(everyone);
            let partial = builder.tempdir_in(parent).map_err(|e| write_error(parent, &e))?;
            let lock = FolderLock::try_new(partial.path()).map_err(|e| write_error(partial.path(), &e))?;
            let (target, stage) = (target.to_path_buf(), Arc::new(Mutex::new(Stage::Writing)));
            Ok(Self { target, replaces, partial, _made: made, lock, open: None, stage })
        }

        /// What ends the writing from another thread.
        pub fn canceller(&self) -> Canceller {
            Canceller { partial: self.partial.path().to_path_buf(), stage: self.stage.clone() }
        }

        /// Puts the finished folder in place, and says where that is.
        ///
        /// # Errors
        /// [`ExportError::SinkOrder`] where a file was not completed, [`ExportError::NotEmpty`] where somebody else has written to
        /// the place meanwhile, [`ExportError::Cancelled`], [`ExportError::Write`].
        pub fn finish(mut self) -> Result<PathBuf, ExportError> {
            if let Some((path, _)) = &self.open {
                return Err(ExportError::SinkOrder {
                    path: path.display().to_string(),
                    reason: "the file was not completed",
                });
            }
            let stage = self.stage.clone();
            // Held until it is in place.
            let mut stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
            self.check_stage(*stage)?;
            let error = |e: io::Error| write_error(&self.target, &e);
            let mut before = None;
            if self.replaces && self.target.exists() {
                let aside =
                    tempfile::Builder::new().prefix(&prefix_of(&self.target)).tempdir_in(parent_of(&self.target));
                let aside = aside.map_err(error)?;
                fs::rename(&self.target, aside.path().join("before")).map_err(error)?;
                before = Some(aside);
            } else {
                check_empty(&self.target)?;
                if self.target.exists() {
                    // Not every system renames over an empty folder.
                    fs::remove_dir(&self.target).map_err(error)?;
                }
            }
            // Where the lock is a file, it must not come along.
            self.lock.take();
            if let Err(error) = fs::rename(self.partial.path(), &self.target) {
                if let Some(aside) = before {
                    let _ = fs::rename(aside.path().join("before"), &self.target);
                }
                return Err(write_error(&self.target, &error));
            }
            *stage = Stage::InPlace;
            // Renamed away: there is nothing left for the guard to remove.
            let _ = self.partial.keep();
            sync_folder(parent_of(&self.target))?;
            Ok(self.target)
        }

        fn check_stage(&self, stage: Stage) -> Result<(), ExportError> {
            match stage {
                Stage::Cancelled => Err(ExportError::Cancelled { path: self.target.display().to_string() }),
                Stage::Writing | Stage::InPlace => Ok(()),
            }
        }

        fn begin(&mut self, name: &str) -> Result<(), ExportError> {
            let mut parts = Path::new(name).components();
            let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
            if !plain {
                return Err(ExportError::FileName { name: name.to_string() });
            }
            if let Some((path, _)) = &self.open {
                let path = path.display().to_string();
                return Err(ExportError::SinkOrder { path, reason: "the file before was not completed" });
            }
            // Held until the file is there: a folder is not removed while something is put into it.
            let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
            self.check_stage(*stage)?;
            let file = OpenOptions::new().write(true).create_new(true).open(self.partial.path().join(name));
            // Messages name the place the user asked for, not the temporary one.
            let shown = self.target.join(name);
            self.open = Some((shown.clone(), file.map_err(|e| write_error(&shown, &e))?));
            Ok(())
        }

        fn append(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
            let (path, file) = self.open.as_mut().ok_or_else(|| no_open_file(&self.target))?;
            file.write_all(bytes).map_err(|e| write_error(path, &e))
        }

        fn end(&mut self) -> Result<(), ExportError> {
            let (path, file) = self.open.take().ok_or_else(|| no_open_file(&self.target))?;
            // Some file systems report a full disk only now.
            file.sync_all().map_err(|e| write_error(&path, &e))
        }
    }

    /// Ends the writing of a [`DiskFolder`] from another thread.
    #[derive(Clone, Debug)]
    pub struct Canceller {
        partial: PathBuf,
        stage: Arc<Mutex<Stage>>,
    }

    impl Canceller {
        /// Removes what is written so far, and says so; or that the finished folder is in its place, where it stays. The next call
        /// of the folder, if there is one, is [`ExportError::Cancelled`].
        pub fn cancel(&self) -> bool {
            let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
            if *stage == Stage::InPlace {
                return false;
            }
            *stage = Stage::Cancelled;
            let _ = fs::remove_dir_all(&self.partial);
            true
        }
    }

    /// Folders that were made for what is to come into them; gone again with the value, as far as nothing did.
    #[derive(Debug)]
    pub(crate) struct MadeFolders(Vec<PathBuf>);

    impl MadeFolders {
        /// Makes a folder and those above it that are missing.
        pub(crate) fn create(folder: &Path) -> io::Result<Self> {
            let missing = folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
            let made = Self(missing.map(Path::to_path_buf).collect());
            fs::create_dir_all(folder)?;
            Ok(made)
        }
    }

    impl Drop for MadeFolders {
        fn drop(&mut self) {
            for folder in &self.0 {
                // Fails, as it should, unless the folder is empty.
                let _ = fs::remove_dir(folder);
            }
        }
    }

    impl FolderSink for DiskFolder {
        fn begin_file<'a>(&'a mut self, name: &'a str) -> SinkFuture<'a> {
            Box::pin(async move { self.begin(name) })
        }

        fn write<'a>(&'a mut self, bytes: &'a [u8]) -> SinkFuture<'a> {
            Box::pin(async move { self.append(bytes) })
        }

        fn end_file(&mut self) -> SinkFuture<'_> {
            Box::pin(async move { self.end() })
        }
    }

    /// Replaces the file at `path` by `bytes` in one move: whoever reads it sees the old content or the new, never a
    /// part, even after a power cut. Of a link, what it leads to is replaced; a device or a pipe is written to.
    ///
    /// # Errors
    /// [`ExportError::Write`]; the old content is there still.
    pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
        let error = |e: io::Error| write_error(path, &e);
        let path = &followed(path)?;
        if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            return OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(bytes)).map_err(error);
        }
        let folder = parent_of(path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(".blockpruner-").suffix(".tmp");
        // As above: a temporary file is private by default, the result should not be.
        #[cfg(unix)]
        let everyone = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666);
        #[cfg(unix)]
        builder.permissions(everyone);
        let mut file = builder.tempfile_in(folder).map_err(error)?;
        file.write_all(bytes).map_err(error)?;
        file.as_file().sync_all().map_err(error)?;
        file.persist(path).map_err(|e| error(e.error))?;
        sync_folder(folder)
    }

    /// Reads a whole file; the error names the path and what to do.
    pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, ExportError> {
        let read = || {
            // To open a pipe is to wait for whoever writes to it.
            if fs::metadata(path)?.is_file() { fs::read(path) } else { Err(ErrorKind::IsADirectory.into()) }
        };
        read().map_err(|e: io::Error| ExportError::Read {
            path: path.display().to_string(),
            reason: match e.kind() {
                ErrorKind::IsADirectory => "it is not a file".to_string(),
                _ => e.to_string(),
            },
            advice: match e.kind() {
                ErrorKind::NotFound => "check the path",
                ErrorKind::IsADirectory => "give a file",
                ErrorKind::PermissionDenied => "ask for permission to read it",
                _ => "check the path and the disk",
            },
        })
    }

    /// What a link leads to; anything else as it is.
    fn followed(path: &Path) -> Result<Cow<'_, Path>, ExportError> {
        if !path.is_symlink() {
            return Ok(Cow::Borrowed(path));
        }
        path.canonicalize().map(Cow::Owned).map_err(|error| ExportError::Write {
            path: path.display().to_string(),
            reason: match error.kind() {
                ErrorKind::NotFound => "it is a link to something that is not there".to_string(),
                _ => error.to_string(),
            },
            advice: "choose another path",
        })
    }

    /// How the names of temporary folders for a place begin.
    fn prefix_of(target: &Path) -> String {
        format!(".{}.partial-", target.file_name().unwrap_or_default().to_string_lossy())
    }

    fn parent_of(path: &Path) -> &Path {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// Removes temporary folders of this prefix that no process works in any more. That it fails is no reason not to go on.
    pub(crate) fn remove_abandoned(parent: &Path, prefix: &str) {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let is_partial = entry.file_name().to_string_lossy().starts_with(prefix);
            if is_partial && is_abandoned(&entry) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Whether it is a folder that certainly nobody works in.
    fn is_abandoned(entry: &fs::DirEntry) -> bool {
        // To open a pipe is to wait for whoever writes to it.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        is_folder && matches!(FolderLock::try_new(&entry.path()), Ok(Some(lock)) if lock.is_held())
    }

    fn check_empty(target: &Path) -> Result<(), ExportError> {
        match fs::read_dir(target) {
            Ok(mut entries) => match entries.next() {
                None => Ok(()),
                Some(_) => Err(ExportError::NotEmpty { path: target.display().to_string() }),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(write_error(target, &e)),
        }
    }

    /// A rename is on disk only when its folder is.
    fn sync_folder(folder: &Path) -> Result<(), ExportError> {
        #[cfg(unix)]
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| write_error(folder, &e))?;
        #[cfg(not(unix))]
        let _ = folder;
        Ok(())
    }

    fn no_open_file(target: &Path) -> ExportError {
        ExportError::SinkOrder { path: target.display().to_string(), reason: "no file is open" }
    }

    fn write_error(path: &Path, error: &io::Error) -> ExportError {
        let advice = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space or choose another disk",
            ErrorKind::FileTooLarge => "choose a file system that holds large files",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "choose a folder that you may write to",
            ErrorKind::NotFound => "create its folder first or choose another one",
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists | ErrorKind::IsADirectory => {
                "something of another kind is in the way: choose another path"
            }
            _ => "check the path and the disk, or choose another folder",
        };
        let mut reason = error.to_string();
        if error.raw_os_error().is_none() {
            // What comes from tempfile names the temporary file, too.
            reason.truncate(reason.find(" at path ").unwrap_or(reason.len()));
        }
        ExportError::Write { path: path.display().to_string(), reason, advice }
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
        use super::*;

        fn names(folder: &Path) -> Vec<String> {
            let mut names: Vec<_> =
                fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        fn put(sink: &mut dyn FolderSink, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
            pollster::block_on(sink.write_file(name, bytes))
        }

        #[test]
        fn a_folder_appears_only_when_finished() {
            let root = tempfile::tempdir().unwrap();
            let target = root.path().join("a/b/model");
            let mut sink = DiskFolder::create(&target).unwrap();
            put(&mut sink, "one", b"1").unwrap();
            put(&mut sink, "two", b"22").unwrap();
            assert!(!target.exists());
            sink.finish().unwrap();
            assert_eq!(names(&target), ["one", "two"]);
            assert_eq!(fs::read(target.join("two")).unwrap(), b"22");
            assert_eq!(names(target.parent().unwrap()), ["model"]);
        }

        #[cfg(unix)]
        #[test]
        fn results_are_as_readable_as_any_new_file() {
            use std::os::unix::fs::PermissionsExt;
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("plain")).unwrap();
            fs::write(root.path().join("plain/file"), b"").unwrap();
            let mut sink = DiskFolder::create(&root.path().join("model")).unwrap();
            put(&mut sink, "file", b"").unwrap();
            sink.finish().unwrap();
            write_atomically(&root.path().join("atomic"), b"").unwrap();
            let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode("model"), mode("plain"));
            assert_eq!(mode("model/file"), mode("plain/file"));
            assert_eq!(mode("atomic"), mode("plain/file"));
        }

        #[test]
        fn an_unfinished_folder_leaves_nothing() {
            let root = tempfile::tempdir().unwrap();
            let mut sink = DiskFolder::create(&root.path().join("model")).unwrap();
            put(&mut sink, "one", b"1").unwrap();
            drop(sink);
            assert!(names(root.path()).is_empty());
            drop(DiskFolder::create(&root.path().join("a/b/model")).unwrap());
            assert!(names(root.path()).is_empty(), "nor folders that were made for it");
        }

        #[test]
        fn what_a_killed_process_left_is_removed_and_nothing_else() {
            let root = tempfile::tempdir().unwrap();
            let target = root.path().join("model");
            let abandoned = root.path().join(".model.partial-abc");
            fs::create_dir(&abandoned).unwrap();
            fs::write(abandoned.join("model.safetensors"), b"1").unwrap();
            fs::create_dir(root.path().join(".model2.partial-abc")).unwrap();
            let sink = DiskFolder::create(&target).unwrap();
            assert!(!abandoned.exists());
            // One that is being written stays.
            let second = DiskFolder::create(&target).unwrap();
            assert!(sink.partial.path().exists() && second.partial.path().exists());
            drop((sink, second));
            assert_eq!(names(root.path()), [".model2.partial-abc"]);
        }

        #[test]
        fn an_empty_target_is_used_and_a_full_one_refused() {
            let root = tempfile::tempdir().unwrap();
            let target = root.path().join("model");
            fs::create_dir(&target).unwrap();
            let mut sink = DiskFolder::create(&target).unwrap();
            put(&mut sink, "one", b"1").unwrap();
            sink.finish().unwrap();
            let error = DiskFolder::create(&target).unwrap_err();
            assert!(matches!(&error, ExportError::NotEmpty { path } if path.ends_with("model")), "{error}");
            assert_eq!(names(&target), ["one"]);
        }

        #[test]
        fn what_is_replaced_stays_until_the_end() {
            let root = tempfile::tempdir().unwrap();
            let target = root.path().join("model");
            fs::create_dir(&target).unwrap();
            fs::write(target.join("old"), b"1").unwrap();
            let mut sink = DiskFolder::replace(&target).unwrap();
            put(&mut sink, "new", b"2").unwrap();
            drop(sink);
            assert_eq!((names(root.path()), names(&target)), (vec!["model".into()], vec!["old".into()]));
            let mut sink = DiskFolder::replace(&target).unwrap();
            put(&mut sink, "new", b"2").unwrap();
            assert_eq!(names(&target), ["old"]);
            sink.finish().unwrap();
            assert_eq!((names(root.path()), names(&target)), (vec!["model".into()], vec!["new".into()]));
            let file = target.join("new");
            assert!(DiskFolder::replace(&file).unwrap_err().to_string().contains("new: "));
        }

        /// Whatever has come first, a place is never half filled.
        #[test]
        fn what_is_cancelled_is_gone_and_what_is_finished_stays() {
            let root = tempfile::tempdir().unwrap();
            let target = root.path().join("a/model");
            let mut sink = DiskFolder::create(&target).unwrap();
            put(&mut sink, "one", b"1").unwrap();
            assert!(sink.canceller().cancel());
            assert!(matches!(put(&mut sink, "two", b"2"), Err(ExportError::Cancelled { .. })));
            assert!(matches!(sink.finish(), Err(ExportError::Cancelled { .. })));
            assert!(names(root.path()).is_empty());
            let mut sink = DiskFolder::create(&target).unwrap();
            put(&mut sink, "one", b"1").unwrap();
            let canceller = sink.canceller();
            sink.finish().unwrap();
            assert!(!canceller.cancel());
            assert_eq!(names(&target), ["one"]);
            // At any moment, from another thread.
            for round in 0..40 {
                let target = root.path().join(format!("model-{round}"));
                let mut sink = DiskFolder::create(&target).unwrap();
                let canceller = sink.canceller();
                let other = std::thread::spawn(move || {
                    std::thread::sleep(std::time::Duration::from_micros(20 * round));
                    canceller.cancel()
                });
                let written = (0..4).try_for_each(|n| put(&mut sink, &format!("{n}"), b"1"));
                let finished = written.is_ok() && sink.finish().is_ok();
                assert_eq!(other.join().unwrap(), !finished);
                assert_eq!(fs::read_dir(&target).map_or(0, Iterator::count), if finished { 4 } else { 0 });
            }
        }

        #[cfg(unix)]
        #[test]
        fn links_are_followed_and_pipes_written_to() {
            use std::os::unix::fs::{FileTypeExt, symlink};
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| root.path().join(name);
            fs::create_dir(at("folder")).unwrap();
            fs::write(at("file"), b"old").unwrap();
            for (to, link) in [("folder", "to-folder"), ("file", "to-file"), ("nothing", "to-nothing")] {
                symlink(at(to), at(link)).unwrap();
            }
            let mut sink = DiskFolder::create(&at("to-folder")).unwrap();
            put(&mut sink, "one", b"1").unwrap();
            sink.finish().unwrap();
            assert_eq!(names(&at("folder")), ["one"]);
            write_atomically(&at("to-file"), b"new").unwrap();
            assert_eq!(fs::read(at("file")).unwrap(), b"new");
            assert!(at("to-file").is_symlink() && at("to-folder").is_symlink());
            let dangling = [
                DiskFolder::create(&at("to-nothing")).unwrap_err(),
                write_atomically(&at("to-nothing"), b"new").unwrap_err(),
            ];
            for error in dangling.map(|error| error.to_string()) {
                assert!(error.contains("to-nothing: it is a link to something that is not there"), "{error}");
            }
            let pipe = at("pipe");
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            assert!(read_file(&pipe).unwrap_err().to_string().contains("it is not a file"));
            let reader = std::thread::spawn({
                let pipe = pipe.clone();
                move || fs::read(pipe).unwrap()
            });
            write_atomically(&pipe, b"report").unwrap();
            assert_eq!(reader.join().unwrap(), b"report");
            assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
            // Nor is one waited for that is called as a temporary folder.
            assert!(std::process::Command::new("mkfifo").arg(at(".model.partial-x")).status().unwrap().success());
            drop(DiskFolder::create(&at("model")).unwrap());
            assert!(at(".model.partial-x").exists());
        }

        #[cfg(target_os = "linux")]
        #[test]
        fn a_name_that_is_not_text_is_refused_before_any_work() {
            use std::os::unix::ffi::OsStrExt;
            let root = tempfile::tempdir().unwrap();
            let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
            let error = DiskFolder::create(&root.path().join(name)).unwrap_err().to_string();
            assert!(error.contains("not UTF-8"), "{error}");
            assert!(names(root.path()).is_empty());
        }

        #[test]
        fn a_target_filled_meanwhile_is_not_overwritten() {
            let root = tempfile::tempdir().unwrap();
            let target = root.path().join("model");
            let sink = DiskFolder::create(&target).unwrap();
            fs::create_dir(&target).unwrap();
            fs::write(target.join("theirs"), b"keep").unwrap();
            assert!(matches!(sink.finish(), Err(ExportError::NotEmpty { .. })));
            assert_eq!(names(root.path()), ["model"]);
            assert_eq!(names(&target), ["theirs"]);
        }

        #[test]
        fn a_file_in_the_way_is_named() {
            let root = tempfile::tempdir().unwrap();
            let file = root.path().join("file");
            fs::write(&file, b"").unwrap();
            for target in [file.clone(), file.join("model"), file.join("a/model")] {
                let error = DiskFolder::create(&target).unwrap_err().to_string();
                assert!(error.contains(file.to_str().unwrap()) && error.contains("choose another path"), "{error}");
            }
            let error = write_atomically(&file.join("plan.json"), b"x").unwrap_err().to_string();
            assert!(error.contains("plan.json") && error.contains("choose another path"), "{error}");
            assert_eq!(names(root.path()), ["file"]);
        }

        #[test]
        fn a_place_without_a_name_is_refused() {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("a")).unwrap();
            let error = DiskFolder::create(&root.path().join("a/..")).unwrap_err();
            assert!(matches!(error, ExportError::NotEmpty { .. }), "{error}");
            let error = DiskFolder::create(&root.path().join("nowhere/..")).unwrap_err().to_string();
            assert!(error.contains("give the folder a name"), "{error}");
            assert_eq!(names(root.path()), ["a"]);
        }

        #[test]
        fn names_stay_inside_the_folder() {
            let root = tempfile::tempdir().unwrap();
            let mut sink = DiskFolder::create(&root.path().join("model")).unwrap();
            for name in ["", ".", "..", "../x", "/x", "a/b", "./x", "x/"] {
                assert!(matches!(put(&mut sink, name, b""), Err(ExportError::FileName { .. })), "{name:?}");
            }
        }

        #[test]
        fn calls_out_of_order_are_errors() {
            let root = tempfile::tempdir().unwrap();
            let mut sink = DiskFolder::create(&root.path().join("model")).unwrap();
            assert!(matches!(pollster::block_on(sink.write(b"x")), Err(ExportError::SinkOrder { .. })));
            assert!(matches!(pollster::block_on(sink.end_file()), Err(ExportError::SinkOrder { .. })));
            pollster::block_on(sink.begin_file("one")).unwrap();
            assert!(matches!(pollster::block_on(sink.begin_file("two")), Err(ExportError::SinkOrder { .. })));
            assert!(matches!(sink.finish(), Err(ExportError::SinkOrder { .. })));
            assert!(names(root.path()).is_empty());
        }

        /// Linux has a device that is always full.
        #[cfg(target_os = "linux")]
        #[test]
        fn a_full_disk_is_said_so() {
            let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
            let error = full.write_all(b"x").unwrap_err();
            let root = tempfile::tempdir().unwrap();
            let target = root.path().join("model");
            let mut sink = DiskFolder::create(&target).unwrap();
            sink.open = Some((target.join("model.safetensors"), full));
            let message = pollster::block_on(FolderSink::write(&mut sink, b"x")).unwrap_err().to_string();
            assert!(message.contains("model.safetensors") && message.contains(&error.to_string()), "{message}");
            assert!(message.contains("free some space"), "{message}");
            drop(sink);
            assert!(names(root.path()).is_empty());
        }

        #[test]
        fn a_file_is_replaced_whole() {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join("plan.json");
            write_atomically(&path, b"old").unwrap();
            write_atomically(&path, b"new").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!(names(root.path()), ["plan.json"]);
            let missing = root.path().join("nowhere/plan.json");
            let error = write_atomically(&missing, b"x").unwrap_err().to_string();
            assert!(error.contains("nowhere") && error.contains("create its folder"), "{error}");
        }
    }
}
