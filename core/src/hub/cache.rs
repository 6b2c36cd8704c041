//! The cache that every program of Hugging Face's shares on a machine, laid out as the Python package `huggingface_hub` does:
//! `models--ORG--NAME/` with `blobs/ETAG`, `snapshots/COMMIT/FILE` that link to them, and `refs/REVISION` that hold commits.
//! (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>).
//!
//! What is there under its name is whole and was verified: a download grows as `ETAG.incomplete` and is renamed at its end.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::HubError;
use super::fetch::FetchError;
use super::http::{FileInfo, Http};
use super::repo::is_commit;
use crate::digest::hex;
use crate::model::CACHED;

/// Bytes that are read from a connection, hashed and written at a time.
const CHUNK: usize = 1 << 20;

/// A repository's part of the cache.
pub(super) struct RepositoryCache {
    /// `models--ORG--NAME`.
    folder: PathBuf,
    /// Where its locks are.
    locks: PathBuf,
}

/// What becomes of a download.
pub(super) enum Step {
    /// So many bytes are there.
    Done(u64),
    /// Another process downloads the same.
    Waiting,
}

impl RepositoryCache {
    /// That of `org/name` in the cache at `root`; nothing needs to be there.
    pub fn new(root: &Path, repository: &str) -> Self {
        let name = format!("{CACHED}{}", repository.replace('/', "--"));
        Self { folder: root.join(&name), locks: root.join(".locks").join(name) }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The commit that a revision was when it was last asked for, or is, if there is a snapshot of it.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let named = fs::read_to_string(self.folder.join("refs").join(revision)).ok();
        let named = named.map(|commit| commit.trim().to_string());
        let commit = named.or_else(|| is_commit(revision).then(|| revision.to_string()));
        commit.filter(|commit| is_commit(commit) && self.snapshot(commit).is_dir())
    }

    /// Notes which commit a revision is.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        if fs::read_to_string(&path).is_ok_and(|there| there == commit) {
            return Ok(());
        }
        let write = |folder: &Path| fs::create_dir_all(folder).and_then(|()| fs::write(&path, commit));
        write(path.parent().unwrap_or(&self.folder)).map_err(|error| cache_error(&path, &error))
    }

    /// A snapshot's files, by their paths in it; those that are only links to what is gone are left out.
    pub fn files(&self, commit: &str) -> Vec<String> {
        fn add(folder: &Path, prefix: &str, files: &mut Vec<String>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(name) = entry.file_name().into_string() else { continue };
                let (path, name) = (entry.path(), format!("{prefix}{name}"));
                match path.is_dir() {
                    true => add(&path, &format!("{name}/"), files),
                    false if path.is_file() => files.push(name),
                    false => {}
                }
            }
        }
        let mut files = Vec::new();
        add(&self.snapshot(commit), "", &mut files);
        files.sort();
        files
    }

    /// Where a file of a snapshot is, if it is there.
    pub fn file(&self, commit: &str, file: &str) -> Option<PathBuf> {
        Some(self.snapshot(commit).join(file)).filter(|path| path.is_file())
    }

    /// Downloads the file at `url` as a snapshot's `file`, or goes on with its download, unless the same content is there.
    pub fn download(
        &self,
        http: &Http,
        url: &str,
        info: &FileInfo,
        commit: &str,
        file: &str,
        tell: &mut dyn FnMut(Step),
    ) -> Result<PathBuf, HubError> {
        let blob = self.folder.join("blobs").join(&info.etag);
        let make = |path: &Path| fs::create_dir_all(path).map_err(|error| cache_error(path, &error));
        make(&self.folder.join("blobs"))?;
        let lock = self.lock(&info.etag, tell)?;
        if let Some(path) = self.file(commit, file) {
            // Another process made it meanwhile, and may be reading it.
            return Ok(path);
        }
        if !fs::metadata(&blob).is_ok_and(|there| there.is_file() && there.len() == info.size) {
            let path = blob.with_file_name(match lock {
                Some(_) => format!("{}.incomplete", info.etag),
                None => format!("{}.{}.incomplete", info.etag, unique()),
            });
            let filled = Self::fill(http, url, info, &path, &mut |done| tell(Step::Done(done)));
            if lock.is_none() && filled.is_err() {
                // Nobody would go on with it.
                let _ = fs::remove_file(&path);
            }
            filled?;
            fs::rename(&path, &blob).map_err(|error| cache_error(&blob, &error))?;
        }
        let path = self.snapshot(commit).join(file);
        make(path.parent().unwrap_or(&self.folder))?;
        link(&blob, &path, file.matches('/').count()).map_err(|error| cache_error(&path, &error))?;
        Ok(path)
    }

    /// The right to download a content, for as long as the value lives: the lock that `huggingface_hub` takes. None where the file
    /// system knows no locks.
    fn lock(&self, etag: &str, tell: &mut dyn FnMut(Step)) -> Result<Option<File>, HubError> {
        let path = self.locks.join(format!("{etag}.lock"));
        let open = || {
            fs::create_dir_all(&self.locks)?;
            File::options().write(true).create(true).truncate(false).open(&path)
        };
        let file = open().map_err(|error| cache_error(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {
                tell(Step::Waiting);
                file.lock().map_err(|error| cache_error(&path, &error))?;
                Ok(Some(file))
            }
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }

    /// Downloads a content to a file, going on with what is there, and verifies it.
    fn fill(http: &Http, url: &str, info: &FileInfo, path: &Path, tell: &mut dyn FnMut(u64)) -> Result<(), HubError> {
        let failed = |error: io::Error| cache_error(path, &error);
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let mut download = Download { file, check: Check::new(info), done: 0, size: info.size };
        download.take_up().map_err(failed)?;
        tell(download.done);
        let (mut attempts, mut furthest) = (0, download.done);
        while download.done < info.size {
            let Err(error) = download.go_on(http, url, tell) else { break };
            let error = match error {
                Failure::Write(error) => return Err(failed(error)),
                Failure::Fetch(error) => error,
            };
            // As long as each attempt gets further, it is a bad line and no reason to give up.
            if download.done > furthest {
                (attempts, furthest) = (0, download.done);
            }
            attempts += 1;
            match error.pause(attempts) {
                Some(time) => std::thread::sleep(time),
                None => return Err(HubError::from_fetch(url, error)),
            }
        }
        download.file.sync_all().map_err(failed)?;
        drop(download.file);
        if let Err(problem) = download.check.finish() {
            // What is wrong somewhere in it does not become right by going on.
            fs::remove_file(path).map_err(failed)?;
            return Err(HubError::Damaged { url: url.to_string(), problem });
        }
        Ok(())
    }
}

/// What no other process has in a name: where there are no locks, two must not write to one file.
fn unique() -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", std::process::id(), time.as_nanos())
}

/// A file that is being downloaded.
struct Download {
    file: File,
    /// Of the first `done` bytes.
    check: Check,
    done: u64,
    size: u64,
}

enum Failure {
    Fetch(FetchError),
    Write(io::Error),
}

impl Download {
    /// Counts what an earlier download has left.
    fn take_up(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() > self.size {
            return self.restart();
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            match self.file.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(read) => self.count(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.check.update(bytes);
        self.done += bytes.len() as u64;
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.check.restart();
        self.done = 0;
        Ok(())
    }

    /// One request for what is missing, and all that comes.
    fn go_on(&mut self, http: &Http, url: &str, tell: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let answer = match http.open(url, self.done) {
            // No server has a part of it that begins there.
            Err(FetchError::Status { status: 416, .. }) if self.done > 0 => {
                self.restart().map_err(Failure::Write)?;
                let error = "the server refuses to go on with an unfinished download".to_string();
                return Err(Failure::Fetch(FetchError::BrokeOff(error)));
            }
            answer => answer.map_err(Failure::Fetch)?,
        };
        match answer.part {
            // Whole, whatever was asked for.
            None if self.done > 0 => self.restart().map_err(Failure::Write)?,
            None => {}
            Some(part) if part.start == self.done && part.total == self.size => {}
            Some(part) => {
                return Err(Failure::Fetch(FetchError::Unexpected(format!(
                    "the server sends bytes from {} of {}, where those from {} of {} were asked for",
                    part.start, part.total, self.done, self.size
                ))));
            }
        }
        let mut body = answer.body;
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match body.read(&mut chunk) {
                Ok(0) if self.done < self.size => {
                    let reason = format!("after {} of {} bytes", self.done, self.size);
                    return Err(Failure::Fetch(FetchError::BrokeOff(reason)));
                }
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Fetch(FetchError::BrokeOff(error.to_string()))),
            };
            if read as u64 > self.size - self.done {
                self.restart().map_err(Failure::Write)?;
                let problem = format!("the server sends more than the {} bytes that it has announced", self.size);
                return Err(Failure::Fetch(FetchError::Unexpected(problem)));
            }
            self.file.write_all(&chunk[..read]).map_err(Failure::Write)?;
            self.count(&chunk[..read]);
            tell(self.done);
        }
    }
}

/// What a content must be, as its ETag says.
struct Check {
    expected: String,
    size: u64,
    hash: Hash,
}

enum Hash {
    /// Of files that lie in a large file storage (LFS, Xet).
    Sha256(Sha256),
    /// Of what lies in the repository itself: git's hash of a blob.
    Git(Sha1),
    /// Another server's own.
    None,
}

impl Hash {
    fn new(etag: &str, size: u64) -> Self {
        let is_hex = etag.bytes().all(|b| b.is_ascii_hexdigit());
        match etag.len() {
            64 if is_hex => Self::Sha256(Sha256::new()),
            40 if is_hex => Self::Git(Sha1::new_with_prefix(format!("blob {size}\0"))),
            _ => Self::None,
        }
    }
}

impl Check {
    fn new(info: &FileInfo) -> Self {
        let (expected, size) = (info.etag.to_ascii_lowercase(), info.size);
        Self { hash: Hash::new(&expected, size), expected, size }
    }

    fn restart(&mut self) {
        self.hash = Hash::new(&self.expected, self.size);
    }

    fn update(&mut self, bytes: &[u8]) {
        match &mut self.hash {
            Hash::Sha256(hash) => hash.update(bytes),
            Hash::Git(hash) => hash.update(bytes),
            Hash::None => {}
        }
    }

    /// In words, what is wrong.
    fn finish(self) -> Result<(), String> {
        let (name, found) = match self.hash {
            Hash::Sha256(hash) => ("SHA-256", hex(hash.finalize())),
            Hash::Git(hash) => ("git's SHA-1", hex(hash.finalize())),
            Hash::None => return Ok(()),
        };
        match found == self.expected {
            true => Ok(()),
            false => Err(format!("its {name} is {found}, but the hub says {}", self.expected)),
        }
    }
}

/// Makes `path`, which lies so many folders deep in a snapshot, the same file as a blob.
fn link(blob: &Path, path: &Path, depth: usize) -> io::Result<()> {
    // It leads to nothing, or this would not be asked for.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let name = blob.file_name().unwrap_or_default();
    let up: PathBuf = std::iter::repeat_n("..", depth + 2).collect();
    let made = symlink(&up.join("blobs").join(name), path);
    match made.or_else(|_| fs::hard_link(blob, path)) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(_) => fs::copy(blob, path).map(drop),
        Ok(()) => Ok(()),
    }
}

#[cfg(unix)]
fn symlink(to: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, path)
}

#[cfg(windows)]
fn symlink(to: &Path, path: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(to, path)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

fn cache_error(path: &Path, error: &io::Error) -> HubError {
    let advice = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room and run the same again, which goes on from there, or set HF_HOME to a folder on another disk"
        }
        _ => "check its permissions, or set HF_HOME to a folder that can be written to",
    };
    HubError::Cache { path: path.to_path_buf(), reason: error.to_string(), advice }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    /// `printf 'hello\n' | sha256sum`, `printf 'hello\n' | git hash-object --stdin`.
    #[test]
    fn contents_are_what_their_etags_say() {
        let check = |etag: &str, content: &[u8]| {
            let mut check = Check::new(&FileInfo { size: content.len() as u64, etag: etag.to_string() });
            check.update(b"something else");
            check.restart();
            check.update(content);
            check.finish()
        };
        for etag in [
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ] {
            assert_eq!(check(etag, b"hello\n"), Ok(()));
            assert!(check(etag, b"hello").unwrap_err().contains(etag));
        }
        assert_eq!(check("an-etag-of-its-own", b"hello"), Ok(()));
    }

    #[test]
    fn what_lies_where_is_as_huggingface_hub_has_it() {
        let root = tempfile::tempdir().unwrap();
        let cache = RepositoryCache::new(root.path(), "org/name");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(cache.commit("main"), None);
        cache.set_commit("refs/pr/1", commit).unwrap();
        assert_eq!(cache.commit("refs/pr/1"), None, "a snapshot is missing");
        let folder = root.path().join("models--org--name");
        fs::create_dir_all(folder.join("snapshots").join(commit)).unwrap();
        assert_eq!(cache.commit("refs/pr/1").as_deref(), Some(commit));
        assert_eq!(cache.commit(commit).as_deref(), Some(commit));
        assert_eq!(cache.commit("main"), None);
        fs::write(folder.join("refs/main"), "../../elsewhere").unwrap();
        assert_eq!(cache.commit("main"), None);
        assert_eq!(fs::read_to_string(folder.join("refs/refs/pr/1")).unwrap(), commit);

        fs::create_dir_all(folder.join("blobs")).unwrap();
        fs::write(folder.join("blobs/abc"), "content").unwrap();
        for (file, depth) in [("config.json", 0), ("q/model.gguf", 1)] {
            let path = cache.snapshot(commit).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            for _ in 0..2 {
                link(&folder.join("blobs/abc"), &path, depth).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), "content");
            }
            #[cfg(unix)]
            assert!(fs::read_link(&path).unwrap().ends_with("../blobs/abc"));
        }
        assert_eq!(cache.files(commit), ["config.json", "q/model.gguf"]);
        fs::remove_file(folder.join("blobs/abc")).unwrap();
        assert!(!cfg!(unix) || cache.files(commit).is_empty());
    }
}
