//! The output folder of `prune` and the saved search in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use blockpruner::export::{Fingerprint, ResumeError, SavedSearch, write_atomically};
use blockpruner::model::ModelSpec;
use blockpruner::search::{SearchOptions, SearchState};

use crate::exit::bad_input;
use crate::export::as_input;

/// The folder that `prune` writes. An empty one that it made itself goes away again if nothing came into it.
pub struct OutFolder {
    path: PathBuf,
    created: bool,
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
        let folder = Self { path: path.to_path_buf(), created };
        let unreadable = |error| bad_input(format!("cannot read the folder {shown}: {error}; choose another --out"));
        let empty = fs::read_dir(path).map_err(unreadable)?.next().is_none();
        match (empty, resume, folder.state().exists()) {
            (true, _, _) | (_, true, true) => {}
            (_, true, false) if path.join("plan.json").exists() => {
                return Err(bad_input(format!("{shown} is finished, there is nothing to resume")));
            }
            (_, true, false) => return Err(bad_input(format!("{shown} holds no saved search to resume"))),
            (_, false, true) => {
                let advice = "add --resume to go on with it, or choose another --out";
                return Err(bad_input(format!("{shown} holds an unfinished search; {advice}")));
            }
            (_, false, false) => {
                return Err(bad_input(format!("{shown} is not empty; choose another --out, or empty it first")));
            }
        }
        let probe = path.join(".blockpruner");
        write_atomically(&probe, b"").map_err(as_input)?;
        fs::remove_file(&probe).with_context(|| format!("cannot remove {}", probe.display()))?;
        Ok(folder)
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
            if name == "model" || name.to_string_lossy().starts_with(".model.partial-") {
                fs::remove_dir_all(entry.path()).with_context(context)?;
            } else if name.to_string_lossy().starts_with(".blockpruner-") {
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

impl Drop for OutFolder {
    fn drop(&mut self) {
        if self.created {
            // Fails, as it should, unless the folder is empty.
            let _ = fs::remove_dir(&self.path);
        }
    }
}
