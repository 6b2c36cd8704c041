//! Written folders in MLX, on the CPU: those of the format `deci`, and ordinary ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::{blockpruner, root, run};

/// What goes from the models that check_mlx.py makes, of three layers: a block of each kind, all of one kind but one, and the
/// first layer.
const FREE: [&str; 3] = ["mha:1,mlp:0", "mlp:0,mlp:2", "mha:0,mlp:0,mlp:1"];

/// Fixtures that MLX loads as ordinary models, and computes as transformers does.
const PLAIN: [&str; 18] = [
    "ernie4-5",
    "glm4",
    "granite",
    "llama-biases",
    "llama-f32",
    "nemotron",
    "olmo2",
    "olmo3",
    "phi3-longrope",
    "qwen2-f32",
    "qwen3",
    "rope-linear",
    "rope-yarn",
    "seed-oss",
    "smollm3",
    "stablelm",
    "stablelm-parallel",
    "stablelm-qk-norm",
];

/// Installs MLX, and runs exports of small models in it.
pub fn check(python: &Path, work: &Path) -> anyhow::Result<()> {
    let requirements = root().join("tests/runtimes/requirements.txt");
    run(Command::new(python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements))?;
    let (models, written) = (work.join("mlx-models"), work.join("mlx-written"));
    run(script(python).arg("make").arg(&models))?;
    for name in names(&models)? {
        for blocks in FREE {
            export(&models.join(&name), blocks, "deci", &written.join(format!("{name} {blocks} deci")))?;
        }
    }
    for name in PLAIN {
        let blocks = "mha:0,mlp:0";
        let fixture = root().join("tests/fixtures").join(name);
        export(&fixture, blocks, "plain", &written.join(format!("{name} {blocks} plain")))?;
    }
    run(script(python).arg("check").args([models, written]))
}

/// Runs exports of a real model in it, whose perplexities are known.
pub fn check_real(python: &Path, cases: &Path) -> anyhow::Result<()> {
    run(script(python).arg("real").arg(cases))
}

/// A folder of F32, in which MLX computes exactly.
pub fn export(model: &Path, without: &str, format: &str, out: &Path) -> anyhow::Result<()> {
    let mut export = blockpruner(&["export", "--dtype", "f32", "--without", without, "--format", format]);
    run(export.arg("--model").arg(model).arg("--out").arg(out))
}

fn script(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg("tests/reference/check_mlx.py").current_dir(root());
    command
}

/// The folders in a folder.
fn names(folder: &PathBuf) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names: Vec<String> =
        entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}
