//! The output folder of `prune` and the saved search in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use blockpruner::export::{Fingerprint, FolderLock, ResumeError, SavedSearch, write_atomically};
use blockpruner::model::ModelSpec;
use blockpruner::search::{SearchOptions, SearchState};

use crate::exit::bad_input;
use crate::export::as_input;

/// The folder that `prune` writes, and no other process meanwhile. An empty one that it made itself goes away again if
/// nothing came into it.
pub struct OutFolder {
    path: PathBuf,
    created: bool,
    _lock: FolderLock,
}

/// What is in an output folder before anything is done in it.
enum Found {
    Nothing,
    SavedSearch,
    Result,
    Other,
}

impl OutFolder {
    /// Checks the folder before any work: empty or new, or with a saved search if `resume`; and writable.
    pub fn prepare(path: &Path, resume: bool) -> anyhow::Result<Self> {
        let shown = path.display();
        let created = !path.exists();
        if !created && !path.is_dir() {
            return Err(bad_input(format!("{shown} is a file; give a new folder with --out")));
        }
        fs::create_dir_all(path)
            .map_err(|error| bad_input(format!("cannot make the folder {shown}: {error}; choose another --out")))?;
        let unreadable = |error| bad_input(format!("cannot read the folder {shown}: {error}; choose another --out"));
        let Some(lock) = FolderLock::try_new(path).map_err(unreadable)? else {
            let advice = "wait until it is done, or choose another --out";
            return Err(bad_input(format!("another process is at work in {shown}; {advice}")));
        };
        let folder = Self { path: path.to_path_buf(), created, _lock: lock };
        match (folder.look().map_err(unreadable)?, resume) {
            (Found::Nothing, _) | (Found::SavedSearch, true) => {}
            (Found::Result, true) => {
                return Err(bad_input(format!("{shown} is finished, there is nothing to resume")));
            }
            (Found::Other, true) => return Err(bad_input(format!("{shown} holds no saved search to resume"))),
            (Found::SavedSearch, false) => {
                let advice = "add --resume to go on with it, or choose another --out";
                return Err(bad_input(format!("{shown} holds an unfinished search; {advice}")));
            }
            (Found::Result | Found::Other, false) => {
                return Err(bad_input(format!("{shown} is not empty; choose another --out, or empty it first")));
            }
        }
        let probe = path.join(".blockpruner");
        write_atomically(&probe, b"").map_err(as_input)?;
        fs::remove_file(&probe).with_context(|| format!("cannot remove {}", probe.display()))?;
        Ok(folder)
    }

    /// What is there. What a process leaves that is killed before its first save is nothing, and removed.
    fn look(&self) -> std::io::Result<Found> {
        if self.state().exists() {
            return Ok(Found::SavedSearch);
        }
        let mut is_empty = true;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_string_lossy() {
                name if name == ".blockpruner" || is_unfinished_file(&name) => fs::remove_file(entry.path())?,
                name if name.starts_with(UNFINISHED_MODEL) => fs::remove_dir_all(entry.path())?,
                name if name == "state" && holds_nothing(&entry.path())? => fs::remove_dir_all(entry.path())?,
                _ => is_empty = false,
            }
        }
        let is_result = self.path.join("plan.json").exists();
        Ok(if is_empty {
            Found::Nothing
        } else if is_result {
            Found::Result
        } else {
            Found::Other
        })
    }

    /// A file or folder in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn state(&self) -> PathBuf {
        self.path.join("state").join("search.json")
    }

    /// Saves a search, whole or not at all.
    pub fn save(&self, fingerprint: &Fingerprint, search: &SearchState) -> anyhow::Result<()> {
        let folder = self.path.join("state");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let json = SavedSearch::new(fingerprint.clone(), search.clone()).to_json();
        Ok(write_atomically(&self.state(), json.as_bytes())?)
    }

    /// The saved search, if there is one and it belongs to the present model, text, settings and device.
    pub fn load(
        &self,
        fingerprint: &Fingerprint,
        spec: &ModelSpec,
        options: &SearchOptions,
    ) -> anyhow::Result<Option<SearchState>> {
        let path = self.state();
        if !path.exists() {
            return Ok(None);
        }
        let shown = path.display();
        let damaged = |problem: String| bad_input(format!("{shown}: {problem}; to start again, choose another --out"));
        let bytes = fs::read(&path).map_err(|error| damaged(error.to_string()))?;
        match SavedSearch::resume(&bytes, fingerprint, spec, options) {
            Ok(search) => Ok(Some(search)),
            Err(error @ ResumeError::Damaged { .. }) => Err(damaged(error.to_string())),
            Err(error @ ResumeError::Different(_)) => {
                Err(bad_input(format!("cannot resume {}: {error}", self.path.display())))
            }
        }
    }

    /// Removes what an interrupted run left behind: its model, and files that were not finished.
    pub fn remove_unfinished_model(&self) -> anyhow::Result<()> {
        let context = || format!("cannot clear {}", self.path.display());
        for entry in fs::read_dir(&self.path).with_context(context)? {
            let entry = entry.with_context(context)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == "model" || name.starts_with(UNFINISHED_MODEL) {
                fs::remove_dir_all(entry.path()).with_context(context)?;
            } else if is_unfinished_file(&name) {
                fs::remove_file(entry.path()).with_context(context)?;
            }
        }
        Ok(())
    }

    /// Forgets the saved search: the work is done.
    pub fn remove_state(&self) -> anyhow::Result<()> {
        let folder = self.path.join("state");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        Ok(())
    }
}

/// How the temporary folder of the model's begins.
const UNFINISHED_MODEL: &str = ".model.partial-";

/// Whether a file is one that [`write_atomically`] has not finished.
fn is_unfinished_file(name: &str) -> bool {
    name.starts_with(".blockpruner-") && name.ends_with(".tmp")
}

/// Whether a folder holds at most files that were not finished.
fn holds_nothing(folder: &Path) -> std::io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        if !is_unfinished_file(&entry?.file_name().to_string_lossy()) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Drop for OutFolder {
    fn drop(&mut self) {
        if self.created {
            // Fails, as it should, unless the folder is empty.
            let _ = fs::remove_dir(&self.path);
        }
    }
}
