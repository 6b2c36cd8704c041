//! What needs Hugging Face transformers: making fixtures, and loading exported models.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::{cargo, root, run};

/// The Python of a virtual environment with `tests/reference/requirements.txt`.
fn python() -> anyhow::Result<PathBuf> {
    let venv = root().join("target/transformers-venv");
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !python.exists() {
        let system = if cfg!(windows) { "python" } else { "python3" };
        run(Command::new(system).args(["-m", "venv"]).arg(&venv))?;
    }
    let requirements = root().join("tests/reference/requirements.txt");
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements))?;
    Ok(python)
}

/// Makes `tests/fixtures` again.
pub fn fixtures() -> anyhow::Result<()> {
    let python = python()?;
    for script in ["make_fixtures.py", "generate.py"] {
        run(Command::new(&python).arg(format!("tests/reference/{script}")).current_dir(root()))?;
    }
    Ok(())
}

/// Exports a fixture in both formats and lets transformers load and score them.
pub fn check_exports() -> anyhow::Result<()> {
    let python = python()?;
    let fixture = root().join("tests/fixtures/llama-f32");
    let work = root().join("target/transformers-check");
    if work.exists() {
        std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    std::fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let order = work.join("order.json");
    std::fs::write(&order, r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 0]]}"#)
        .context("cannot write the order")?;
    for format in ["hf-zeroed", "hf"] {
        let mut export = cargo(&["run", "-p", "blockpruner-cli", "--", "export", "--step", "2", "--format", format]);
        export.arg("--model").arg(&fixture).arg("--plan").arg(&order).arg("--out").arg(work.join(format));
        run(&mut export)?;
    }
    let mut check = Command::new(python);
    check.arg("tests/reference/check_export.py").arg(&fixture).arg(work.join("hf-zeroed")).arg(work.join("hf"));
    check.arg("--ids").arg(fixture.join("reference.json")).args(["--without", "mha:1,mlp:0"]).current_dir(root());
    run(&mut check)
}
