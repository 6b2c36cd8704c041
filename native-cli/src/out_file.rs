//! A file that a command writes: that it may be written, and is none of those that are read, shows before the work.

use std::fs;
use std::path::{Path, PathBuf};

use blockpruner::export::{ExportError, write_atomically};

use crate::exit::bad_input;

/// Where a command writes a file, in place of what is there.
pub struct OutFile(PathBuf);

impl OutFile {
    /// The file at `path`, which `option` has, of a command that reads `inputs`.
    ///
    /// # Errors
    /// A folder, or one of `inputs`; a place in a folder that is not there, or cannot be written.
    pub fn new<P: AsRef<Path>>(option: &str, path: &Path, inputs: impl IntoIterator<Item = P>) -> anyhow::Result<Self> {
        let refused = |problem: &str| bad_input(format!("{option} {}: {problem}", path.display()));
        // A link is followed.
        let place = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if place.is_dir() {
            return Err(refused("it is a folder; name a file in it"));
        }
        if !folder.is_dir() {
            return Err(refused(&format!("there is no folder {}", folder.display())));
        }
        if place.is_symlink() {
            return Err(refused("it is a link to what is not there; name another file"));
        }
        if inputs.into_iter().any(|input| input.as_ref().canonicalize().is_ok_and(|input| input == place)) {
            return Err(refused("it is read by the same command, and would be replaced; name another file"));
        }
        if place.exists() && !place.is_file() {
            // A device or a pipe, which is written to.
            return Ok(Self(place));
        }
        let probe = folder.join(format!(".blockpruner-{}.tmp", std::process::id()));
        write_atomically(&probe, b"").map_err(|error| match error {
            ExportError::Write { reason, advice, .. } => refused(&format!("{reason}; {advice}")),
            error => error.into(),
        })?;
        fs::remove_file(&probe).map_err(|error| refused(&error.to_string()))?;
        Ok(Self(place))
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, bytes: &[u8]) -> Result<(), ExportError> {
        write_atomically(&self.0, bytes)
    }
}
