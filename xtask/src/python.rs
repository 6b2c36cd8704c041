//! Python environments, and what needs Hugging Face transformers: making fixtures, and loading exported models.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::driver::apt_install;
use crate::{blockpruner, root, run};

/// The Python of a virtual environment with `tests/reference/requirements.txt`.
pub fn python() -> anyhow::Result<PathBuf> {
    let python = programs(&root().join("target/transformers-venv"))?.join("python");
    let requirements = root().join("tests/reference/requirements.txt");
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements))?;
    Ok(python)
}

/// The folder of the programs of a virtual environment, which is made if it is not there.
pub fn programs(venv: &Path) -> anyhow::Result<PathBuf> {
    let programs = venv.join(if cfg!(windows) { "Scripts" } else { "bin" });
    // What a failed attempt leaves has no pip.
    if !programs.join(if cfg!(windows) { "pip.exe" } else { "pip" }).exists() {
        let system = if cfg!(windows) { "python" } else { "python3" };
        let make = || run(Command::new(system).args(["-m", "venv"]).arg(venv));
        if let Err(error) = make() {
            eprintln!("xtask: {error:#}; installing python3-venv, which Debian and Ubuntu leave out");
            apt_install(&["python3-venv"])?;
            make()?;
        }
    }
    Ok(programs)
}

/// Makes `tests/fixtures` again, and the PyTorch checkpoints of the unit tests.
pub fn fixtures() -> anyhow::Result<()> {
    let python = python()?;
    for script in ["make_fixtures.py", "generate.py", "state_changes.py", "pytorch_fixtures.py", "split_gguf.py"] {
        run(Command::new(&python).arg(format!("tests/reference/{script}")).current_dir(root()))?;
    }
    Ok(())
}

/// What is exported: a fixture, the published order of its pruning, and the same blocks as check_export.py takes them.
/// Every family, from folders and from GGUF files; among them a layer without both blocks and no attention at all.
const EXPORTS: [(&str, &str, &str); 44] = [
    ("llama-f32", r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 0]]}"#, "mha:1,mlp:0"),
    ("llama-biases", r#"{"1": [["mlp", 0]], "2": [["mha", 0], ["mlp", 0]]}"#, "mha:0,mlp:0"),
    ("qwen2-bf16", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mlp", 2]]}"#, "mha:0,mlp:2"),
    ("gguf-legacy", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mha", 1]]}"#, "mha:0,mha:1"),
    ("gguf-rope-freqs", r#"{"1": [["mlp", 1]], "2": [["mha", 0], ["mlp", 1]]}"#, "mha:0,mlp:1"),
    ("gguf-qwen2", r#"{"1": [["mlp", 0]], "2": [["mlp", 0], ["mha", 1]]}"#, "mlp:0,mha:1"),
    ("mistral", r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 0]]}"#, "mha:1,mlp:0"),
    ("ministral", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mlp", 0]]}"#, "mha:0,mlp:0"),
    ("qwen2-sliding", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mha", 1]]}"#, "mha:0,mha:1"),
    ("qwen3", r#"{"1": [["mlp", 1]], "2": [["mha", 0], ["mlp", 1]]}"#, "mlp:1,mha:0"),
    ("smollm3", r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 1]]}"#, "mha:1,mlp:1"),
    ("granite", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mlp", 2]]}"#, "mha:0,mlp:2"),
    ("seed-oss", r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 1]]}"#, "mha:1,mlp:1"),
    ("ernie4-5", r#"{"1": [["mlp", 0]], "2": [["mha", 0], ["mlp", 0]]}"#, "mlp:0,mha:0"),
    ("gemma", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mlp", 1]]}"#, "mha:0,mlp:1"),
    ("gemma2", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mlp", 0]]}"#, "mha:0,mlp:0"),
    ("gemma3", r#"{"1": [["mha", 2]], "2": [["mha", 2], ["mlp", 1]]}"#, "mha:2,mlp:1"),
    ("gemma3-parameters", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mha", 1]]}"#, "mha:0,mha:1"),
    ("phi3", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mlp", 0]]}"#, "mha:0,mlp:0"),
    ("phi3-longrope", r#"{"1": [["mlp", 0]], "2": [["mha", 1], ["mlp", 0]]}"#, "mlp:0,mha:1"),
    ("olmo2", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mlp", 0]]}"#, "mha:0,mlp:0"),
    ("olmo3", r#"{"1": [["mha", 3]], "2": [["mha", 3], ["mlp", 1]]}"#, "mha:3,mlp:1"),
    ("glm4", r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 1]]}"#, "mha:1,mlp:1"),
    ("exaone4", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mha", 3]]}"#, "mha:0,mha:3"),
    ("starcoder2", r#"{"1": [["mlp", 1]], "2": [["mha", 0], ["mlp", 1]]}"#, "mlp:1,mha:0"),
    ("nemotron", r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 0]]}"#, "mha:1,mlp:0"),
    ("stablelm", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mlp", 1]]}"#, "mha:0,mlp:1"),
    ("stablelm-parallel", r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 1]]}"#, "mha:1,mlp:1"),
    ("stablelm-qk-norm", r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 1]]}"#, "mha:1,mlp:1"),
    ("cohere2", r#"{"1": [["mha", 3]], "2": [["mha", 3], ["mlp", 0]]}"#, "mha:3,mlp:0"),
    ("phi", r#"{"1": [["mlp", 0]], "2": [["mha", 0], ["mlp", 0]]}"#, "mha:0,mlp:0"),
    ("gpt-neox", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mlp", 1]]}"#, "mha:0,mlp:1"),
    ("gpt-neox-sequential", r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 1]]}"#, "mha:1,mlp:1"),
    ("falcon", r#"{"1": [["mlp", 1]], "2": [["mha", 0], ["mlp", 1]]}"#, "mlp:1,mha:0"),
    ("falcon-new", r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 1]]}"#, "mha:1,mlp:1"),
    ("falcon-one-norm", r#"{"1": [["mlp", 0]], "2": [["mha", 0], ["mlp", 0]]}"#, "mha:0,mlp:0"),
    ("falcon-alibi", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mlp", 1]]}"#, "mha:0,mlp:1"),
    ("falcon-sequential", r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mlp", 1]]}"#, "mha:0,mlp:1"),
    ("gpt2", r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 1]]}"#, "mha:1,mlp:1"),
    ("gpt2-inner", r#"{"1": [["mlp", 2]], "2": [["mlp", 2], ["mlp", 1]]}"#, "mlp:2,mlp:1"),
    ("opt", r#"{"1": [["mlp", 1]], "2": [["mlp", 1], ["mlp", 0]]}"#, "mlp:1,mlp:0"),
    ("llava", r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 1]]}"#, "mha:1,mlp:1"),
    ("gemma3-images", r#"{"1": [["mha", 2]], "2": [["mha", 2], ["mlp", 2]]}"#, "mha:2,mlp:2"),
    ("mistral3", r#"{"1": [["mha", 1]], "2": [["mha", 1], ["mlp", 1]]}"#, "mha:1,mlp:1"),
];

/// Models of images and text, which are written with zeros only.
const COMPOSITES: [&str; 3] = ["llava", "gemma3-images", "mistral3"];

/// GGUF files of other families, whose config.json is rebuilt; of all, the same blocks go.
pub const GGUF_EXPORTS: [&str; 30] = [
    "gguf-mistral",
    "gguf-qwen3",
    "gguf-smollm3",
    "gguf-granite",
    "gguf-seed-oss",
    "gguf-ernie4-5",
    "gguf-gemma",
    "gguf-gemma2",
    "gguf-gemma3",
    "gguf-phi3",
    "gguf-phi3-longrope",
    "gguf-olmo2",
    "gguf-olmo3",
    "gguf-glm4",
    "gguf-exaone4",
    "gguf-exaone4-sliding",
    "gguf-starcoder2",
    "gguf-nemotron",
    "gguf-stablelm",
    "gguf-stablelm-parallel",
    "gguf-stablelm-qk-norm",
    "gguf-cohere2",
    "gguf-phi",
    "gguf-gpt-neox",
    "gguf-gpt-neox-sequential",
    "gguf-falcon",
    "gguf-falcon-new",
    "gguf-falcon-one-norm",
    "gguf-gpt2",
    "gguf-baichuan",
];
/// An order for those that are written whole, of which no step is taken.
pub const UNPRUNED: &str = r#"{"1": [["mha", 0]]}"#;
/// Fixtures that divide scores by the number of their layer, so that none can go.
const BY_NUMBER: [&str; 1] = ["gpt2-inner"];
/// Fixtures of parallel layers, of which a pair is both blocks of a layer; of others also a block and the next layer's other one.
const PARALLEL: [&str; 17] = [
    "stablelm-parallel",
    "stablelm-qk-norm",
    "cohere2",
    "phi",
    "gpt-neox",
    "falcon",
    "falcon-new",
    "falcon-one-norm",
    "falcon-alibi",
    "gguf-stablelm-parallel",
    "gguf-stablelm-qk-norm",
    "gguf-cohere2",
    "gguf-phi",
    "gguf-gpt-neox",
    "gguf-falcon",
    "gguf-falcon-new",
    "gguf-falcon-one-norm",
];
const GGUF_BLOCKS: (&str, &str) = (r#"{"1": [["mha", 0]], "2": [["mha", 0], ["mlp", 1]]}"#, "mha:0,mlp:1");

/// Exports fixtures as folders of every format and lets transformers load and score them.
pub fn check_exports() -> anyhow::Result<()> {
    let python = python()?;
    let work = root().join("target/transformers-check");
    if work.exists() {
        std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    let gguf = GGUF_EXPORTS.map(|name| (name, GGUF_BLOCKS.0, GGUF_BLOCKS.1));
    for (name, order, without) in EXPORTS.into_iter().chain(gguf) {
        let fixture = root().join("tests/fixtures").join(name);
        let gguf = fixture.join("model.gguf");
        let model = if gguf.exists() { &gguf } else { &fixture };
        let work = work.join(name);
        std::fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
        let plan = work.join("order.json");
        std::fs::write(&plan, order).context("cannot write the order")?;
        let formats = if COMPOSITES.contains(&name) { &["hf-zeroed"][..] } else { &["hf-zeroed", "hf"] };
        for format in formats {
            let mut export = blockpruner(&["export", "--step", "2", "--format", format]);
            export.arg("--model").arg(model).arg("--plan").arg(&plan).arg("--out").arg(work.join(format));
            if gguf.exists() {
                // What is compared with the quantised model must not be rounded.
                export.args(["--dtype", "f32"]);
            }
            run(&mut export)?;
        }
        let mut check = Command::new(&python);
        check.arg("tests/reference/check_export.py").arg(model).args(formats.iter().map(|format| work.join(format)));
        check.arg("--ids").arg(fixture.join("reference.json")).args(["--without", without]).current_dir(root());
        let pairs = match name {
            name if COMPOSITES.contains(&name) || BY_NUMBER.contains(&name) => &[][..],
            name if PARALLEL.contains(&name) => &["mha:0,mlp:0"],
            _ => &["mha:0,mlp:0", "mlp:0,mha:1"],
        };
        for blocks in pairs {
            let out = work.join(format!("plain {blocks}"));
            let mut export = blockpruner(&["export", "--without", blocks, "--format", "plain", "--dtype", "f32"]);
            run(export.arg("--model").arg(model).arg("--out").arg(&out))?;
            check.arg("--plain").arg(out).arg(blocks);
        }
        run(&mut check)?;
    }
    Ok(())
}
