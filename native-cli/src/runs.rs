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
    /// Reads them; each is called as it was given, without `/plan.json`.
    pub fn read(&self) -> anyhow::Result<Vec<Run>> {
        let plans = self.plans.iter().map(|path| Ok((name(path), Plan::read(&file(path))?)));
        Ok(Run::all(plans.collect::<anyhow::Result<Vec<_>>>()?))
    }
}

fn file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("plan.json") } else { path.to_path_buf() }
}

fn name(path: &Path) -> String {
    let given = path.display().to_string();
    let shown = given.strip_suffix("/plan.json").unwrap_or(&given).trim_end_matches('/');
    if shown.is_empty() { given } else { shown.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_called_by_their_folders() {
        for (path, expected) in
            [("a/plan.json", "a"), ("a/", "a"), ("plan.json", "plan.json"), ("x.json", "x.json"), ("/", "/")]
        {
            assert_eq!(name(Path::new(path)), expected);
        }
    }
}
