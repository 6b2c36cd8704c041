//! Plans that are shown beside each other: `PLAN...` of `report` and `compare`.

use std::path::{Path, PathBuf};

use blockpruner::export::Plan;
use blockpruner::report::Run;
use clap::Args;

/// Plans, by their files.
#[derive(Args)]
pub struct RunsArgs {
    /// plan.json, or the folder that prune wrote it to
    #[arg(required = true, value_name = "PLAN")]
    plans: Vec<PathBuf>,
}

impl RunsArgs {
    /// Reads them; each is called by its folder, or by as much of its path as tells it from the others.
    pub fn read(&self) -> anyhow::Result<Vec<Run>> {
        let plans = self.files().map(|file| Ok(Plan::read(&file)?)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Run::all(names(&self.plans).into_iter().zip(plans)))
    }

    /// Where they are.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.plans.iter().map(|path| file(path))
    }
}

fn file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("plan.json") } else { path.to_path_buf() }
}

/// Paths without what all of them begin with: who reads a report has other folders.
fn names(plans: &[PathBuf]) -> Vec<String> {
    let shown = |path: &PathBuf| -> Vec<String> {
        let folder = path.parent().filter(|folder| path.ends_with("plan.json") && !folder.as_os_str().is_empty());
        let parts = folder.unwrap_or(path).components();
        parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
    };
    let paths: Vec<_> = plans.iter().map(shown).collect();
    let is_shared = |depth: &usize| paths.iter().all(|path| depth + 1 < path.len() && path[*depth] == paths[0][*depth]);
    let shared = (0..).take_while(is_shared).count();
    paths.iter().map(|path| path[shared..].iter().collect::<PathBuf>().display().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_called_by_what_tells_them_apart() {
        for (paths, expected) in [
            (&["a/plan.json"][..], &["a"][..]),
            (&["/home/me/a/"], &["a"]),
            (&["plan.json"], &["plan.json"]),
            (&["a/x.json"], &["x.json"]),
            (&["/"], &["/"]),
            (&["/home/me/a/plan.json", "/home/me/b"], &["a", "b"]),
            (&["a/one/plan.json", "b/one/plan.json"], &["a/one", "b/one"]),
            (&["a", "a/b"], &["a", "a/b"]),
            (&["a", "a"], &["a", "a"]),
        ] {
            let paths: Vec<_> = paths.iter().map(PathBuf::from).collect();
            assert_eq!(names(&paths), expected);
        }
    }
}
