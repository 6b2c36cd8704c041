//! Models that are written, in the runtimes that they are written for: llama.cpp, as the npm package node-llama-cpp brings it, MLX
//! (`mlx.rs`), and how fast llama.cpp and transformers run them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::python::{self, GGUF_EXPORTS, UNPRUNED};
use crate::{SMOLLM2, blockpruner, mlx, root, run, web};

/// GGUF fixtures of Llama and Qwen2, beside those of other families.
const FIRST_FAMILIES: [&str; 3] = ["gguf-legacy", "gguf-rope-freqs", "gguf-qwen2"];
/// Here llama.cpp knows by a number of layers that the fixture does not have that some of them slide.
const LEFT_OUT: &str = "gguf-exaone4-sliding";
/// What llama.cpp does in their layers follows from the layers' numbers, so that no layer can go.
const BY_NUMBER: [&str; 2] = ["gguf-gemma2", "gguf-smollm3"];
/// Fixtures that do no more than Llama does, and so can be a `deci`.
const DECI: [&str; 7] =
    ["gguf-legacy", "gguf-rope-freqs", "gguf-qwen2", "gguf-mistral", "gguf-ernie4-5", "gguf-seed-oss", "gguf-baichuan"];

/// By how much perplexities may differ, relatively.
const EXACT: f64 = 1e-3;
/// Of quantised files on a CPU, where llama.cpp multiplies such weights with activations that it rounds to 8 bits: of the file as
/// published its perplexity is 0.6 % off, of the same without two layers 1.4 %.
const ROUNDED: f64 = 2e-2;
/// With these its Vulkan backend computes in f32, on the first device, also if that is a software driver.
const IN_F32: [(&str, &str); 3] =
    [("GGML_VK_VISIBLE_DEVICES", "0"), ("GGML_VK_DISABLE_F16", "1"), ("GGML_VK_DISABLE_INTEGER_DOT_PRODUCT", "1")];

/// SmolLM2's text that is scored, in tokens and windows.
const WINDOW: u32 = 128;
const WINDOWS: u32 = 4;

/// Runs written GGUF files in llama.cpp, and written folders in MLX.
pub fn check() -> anyhow::Result<()> {
    let libraries = llama_cpp()?;
    let python = python::python()?;
    let work = empty("target/runtimes-check")?;
    let written = work.join("written");
    let plan = work.join("order.json");
    fs::write(&plan, UNPRUNED).context("cannot write the order")?;
    for name in FIRST_FAMILIES.into_iter().chain(GGUF_EXPORTS).filter(|name| *name != LEFT_OUT) {
        // Files of quantised weights are copied as they are; a folder of F32 in between lets llama.cpp compute exactly.
        // It is called otherwise than the fixture: of a model with `phi3` in its name llama.cpp expects certain tokens.
        let folder = work.join("whole").join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let whole = folder.join("model");
        let mut export = blockpruner(&["export", "--step", "0", "--format", "plain", "--dtype", "f32"]);
        export.arg("--model").arg(root().join("tests/fixtures").join(name).join("model.gguf"));
        run(export.arg("--plan").arg(&plan).arg("--out").arg(&whole))?;
        let pair = if BY_NUMBER.contains(&name) { "zeroed" } else { "plain" };
        let mut files = vec![("mha:0,mlp:0", "gguf", pair), ("mha:0,mlp:1", "gguf-zeroed", "zeroed")];
        if DECI.contains(&name) {
            files.push(("mha:0", "gguf", "deci"));
        }
        for (blocks, format, form) in files {
            let mut export = blockpruner(&["export", "--without", blocks, "--format", format, "--dtype", "f32"]);
            let out = written.join(format!("{name} {blocks} {form}"));
            run(export.arg("--model").arg(&whole).arg("--out").arg(out))?;
        }
    }
    let script = |name: &str, libraries: &Path| {
        let mut command = Command::new(&python);
        command.arg(format!("tests/reference/{name}")).arg(libraries).current_dir(root());
        command
    };
    run(script("check_written_gguf.py", &libraries).arg(&written))?;
    mlx::check(&python, &work)?;

    let smollm2 = root().join(SMOLLM2);
    if !smollm2.is_file() {
        eprintln!("xtask: without SmolLM2, which `cargo xtask test` downloads");
        return Ok(());
    }
    let models = Models::write(&smollm2, &plan, &work)?;
    let write = |name: &str, cases: Value| {
        let file = work.join(name);
        fs::write(&file, cases.to_string()).context("cannot write the cases")?;
        anyhow::Ok(file)
    };
    let (layers, free) = (models.perplexity(TWO_LAYERS)?, models.perplexity(TWO_BLOCKS)?);
    let floats = models.cases(&[("plain-f32", layers), ("deci-f32", free)], EXACT)?;
    let quantised = [("plain-q4", layers), ("zeroed-q4", layers), ("deci-q4", free)];
    let cases = [floats, models.cases(&quantised, ROUNDED)?].concat();
    run(script("check_real_gguf.py", &libraries).arg(write("cases.json", job(cases))?))?;
    match vulkan(&libraries) {
        Some(libraries) => {
            let cases = write("vulkan-cases.json", job(models.cases(&quantised, EXACT)?))?;
            run(script("check_real_gguf.py", &libraries).arg(cases).envs(IN_F32))?;
        }
        None => eprintln!("xtask: left out quantised files in f32: llama.cpp's Vulkan backend comes for x86-64 only"),
    }
    mlx::check_real(&python, &write("mlx-cases.json", models.mlx_cases(layers, free)?)?)?;
    let mut speed = script("runtime_speed.py", &libraries);
    speed.arg("assets/tiny/calibration.txt").args(models.named()?);
    run(&mut speed)
}

/// SmolLM2, whole and without about 26 % of its parameters, in the formats that the runtimes load.
struct Models {
    dense: PathBuf,
    work: PathBuf,
    layers: String,
    free: String,
}

/// What of SmolLM2 goes where perplexities are compared: little, as what is hardly a model any more multiplies roundings.
const TWO_LAYERS: &str = "mha:20,mlp:20,mha:24,mlp:24";
const TWO_BLOCKS: &str = "mlp:6,mha:18";

impl Models {
    fn write(dense: &Path, plan: &Path, work: &Path) -> anyhow::Result<Self> {
        let blocks =
            |kind: &str, layers: std::ops::Range<u32>| layers.map(move |layer| format!("{kind}:{layer}")).collect();
        let joined = |parts: [Vec<String>; 2]| parts.concat().join(",");
        let models = Self {
            dense: dense.to_path_buf(),
            work: work.join("smollm2"),
            layers: joined([blocks("mha", 8..18), blocks("mlp", 8..18)]),
            free: joined([blocks("mlp", 6..18), blocks("mha", 18..22)]),
        };
        let whole = |out, format, dtype| {
            let mut export = blockpruner(&["export", "--step", "0", "--format", format]);
            export.args(dtype).arg("--model").arg(dense).arg("--plan").arg(plan).arg("--out").arg(models.folder(out));
            run(&mut export)
        };
        let without = |out, format, blocks: &str, dtype: &[&str]| {
            let mut export = blockpruner(&["export", "--without", blocks, "--format", format]);
            run(export.args(dtype).arg("--model").arg(dense).arg("--out").arg(models.folder(out)))
        };
        without("plain", "gguf", &models.layers, &[])?;
        without("deci", "gguf", &models.free, &[])?;
        without("zeroed", "gguf-zeroed", &models.layers, &[])?;
        whole("hf-dense", "plain", &[] as &[&str])?;
        whole("hf-f32", "plain", &["--dtype", "f32"])?;
        without("hf-plain", "plain", &models.layers, &[])?;
        without("plain-q4", "gguf", TWO_LAYERS, &[])?;
        without("zeroed-q4", "gguf-zeroed", TWO_LAYERS, &[])?;
        without("deci-q4", "gguf", TWO_BLOCKS, &[])?;
        for (out, blocks) in [("plain-f32", TWO_LAYERS), ("deci-f32", TWO_BLOCKS)] {
            let mut export = blockpruner(&["export", "--format", "gguf", "--without", blocks]);
            run(export.arg("--model").arg(models.folder("hf-f32")).arg("--out").arg(models.folder(out)))?;
        }
        Ok(models)
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// The GGUF file that an export wrote into its folder.
    fn gguf(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder(name);
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut files = entries.filter_map(Result::ok).map(|entry| entry.path());
        let found = files.find(|path| path.extension().is_some_and(|extension| extension == "gguf"));
        found.with_context(|| format!("{}: no GGUF file was written", folder.display()))
    }

    /// What check_real_gguf.py compares: files by their names here, with our perplexities.
    fn cases(&self, files: &[(&str, f64)], tolerance: f64) -> anyhow::Result<Vec<Value>> {
        let case = |(name, perplexity): &(&str, f64)| {
            Ok(json!({ "file": self.gguf(name)?, "perplexity": perplexity, "tolerance": tolerance }))
        };
        files.iter().map(case).collect()
    }

    /// What check_mlx.py compares.
    fn mlx_cases(&self, layers: f64, free: f64) -> anyhow::Result<Value> {
        let whole = self.folder("hf-f32");
        let mut cases = Vec::new();
        for (format, blocks, perplexity) in [("plain", TWO_LAYERS, layers), ("deci", TWO_BLOCKS, free)] {
            let folder = self.folder(&format!("mlx-{format}"));
            mlx::export(&whole, blocks, format, &folder)?;
            cases.push(json!({ "folder": folder, "perplexity": perplexity, "tolerance": EXACT }));
        }
        Ok(job(cases))
    }

    /// Ours, of the published file without blocks.
    fn perplexity(&self, without: &str) -> anyhow::Result<f64> {
        let mut command = blockpruner(&["perplexity", "--text", "builtin:sample", "--json", "--without", without]);
        command.args(["--window", &WINDOW.to_string(), "--max-windows", &WINDOWS.to_string()]);
        let output = command.arg("--model").arg(&self.dense).output().context("cannot start the program")?;
        let answer: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr)))?;
        answer["perplexity"].as_f64().context("no perplexity was printed")
    }

    /// What runtime_speed.py measures.
    fn named(&self) -> anyhow::Result<Vec<String>> {
        let mut named = vec![format!("dense, Q4_1={}", self.dense.display())];
        for name in ["plain", "deci", "zeroed"] {
            named.push(format!("{name}, Q4_1={}", self.gguf(name)?.display()));
        }
        for name in ["hf-dense", "hf-plain"] {
            let what = name.trim_start_matches("hf-");
            named.push(format!("{what}, bf16={}", self.folder(name).display()));
        }
        Ok(named)
    }
}

/// Cases with the text that is scored.
fn job(cases: Vec<Value>) -> Value {
    let text = root().join("assets/tiny/calibration.txt");
    json!({ "text": text, "window": WINDOW, "windows": WINDOWS, "cases": cases })
}

/// The folder of llama.cpp's libraries, which are installed if they are not there.
fn llama_cpp() -> anyhow::Result<PathBuf> {
    let system = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-x64",
        ("linux", "aarch64") => "linux-arm64",
        (os, arch) => bail!("--with-runtimes runs on Linux on x86-64 and arm64, not on {os} on {arch}"),
    };
    let folder = root().join("target/runtimes");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for name in ["package.json", "package-lock.json"] {
        let from = root().join("tests/runtimes").join(name);
        fs::copy(&from, folder.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    if !web::ensure_node()? {
        bail!("there is no npm, which installs llama.cpp");
    }
    run(web::npm(&["ci", "--no-audit", "--no-fund"]).current_dir(&folder))?;
    Ok(folder.join("node_modules/@node-llama-cpp").join(system).join("bins").join(system))
}

/// The same libraries with the Vulkan backend, beside those.
fn vulkan(libraries: &Path) -> Option<PathBuf> {
    let name = format!("{}-vulkan", libraries.file_name()?.to_str()?);
    let folder = libraries.ancestors().nth(3)?.join(&name).join("bins").join(&name);
    folder.is_dir().then_some(folder)
}

/// A new folder in the root, in place of what an earlier run left.
fn empty(name: &str) -> anyhow::Result<PathBuf> {
    let folder = root().join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
