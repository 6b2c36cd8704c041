//! The program as its users run it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

#[path = "cli/folders.rs"]
mod folders;
#[path = "cli/targets.rs"]
mod targets;

/// The program; what it keeps from run to run stays out of the user's cache folder.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockpruner"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

fn blockpruner(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs, expects success, returns stdout.
fn success(args: &[&str]) -> String {
    let output = blockpruner(args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&success(args)).unwrap()
}

/// Runs, expects this exit code, nothing on stdout and this in the message.
fn failure(args: &[&str], code: i32, message: &str) {
    let output = blockpruner(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
    assert!(output.stdout.is_empty(), "{args:?}");
    assert!(stderr(&output).contains(message), "{args:?}: {}", stderr(&output));
}

const SMALL: [&str; 8] =
    ["--model", "builtin:tiny", "--calibration", "builtin:sample", "--window", "32", "--max-windows", "2"];

fn prune<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["prune"], &SMALL[..], &["--format", "hf-zeroed", "--out", out], more].concat()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn help_lists_what_is_built() {
    let help = success(&["--help"]);
    let commands = [
        "prune",
        "perplexity",
        "evaluate",
        "export",
        "generate",
        "compare",
        "report",
        "inspect",
        "devices",
        "bench",
        "demo",
        "completions",
        "man",
    ];
    for command in commands {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}: {help}");
    }
}

#[test]
fn bad_input_exits_2_and_writes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let path = out.to_str().unwrap();
    let text = "builtin:sample";
    failure(&["prune", "--model", "builtin:tiny", "--calibration", text, "--remove", "2"], 2, "--out");
    failure(&["prune", "--model", "nowhere", "--calibration", text, "--remove", "2", "--out", path], 2, "nowhere");
    failure(&prune(path, &["--remove", "25"]), 2, "cannot remove 25 blocks");
    failure(&prune(path, &["--remove", "0"]), 2, "--remove");
    failure(&prune(path, &["--remove", "30%"]), 2, "for a share of the parameters there is --ratio");
    failure(&["bench", "--window", "many"], 2, "expected a whole number");
    // A negative number is a value, not an option.
    failure(&["bench", "--window", "-1"], 2, "expected a whole number");
    failure(&prune(path, &["--remove", "-1"]), 2, "expected how many blocks to remove");
    failure(&prune(path, &["--remove", "nan"]), 2, "'--remove <K>': expected how many blocks to remove");
    failure(&prune(path, &["--ratio", "-5%"]), 2, "expected a share of the parameters");
    failure(&prune(path, &["--max-increase", "-5%"]), 2, "expected a share of the whole model's perplexity");
    failure(&prune(path, &["--max-perplexity", "-1"]), 2, "expected a perplexity");
    failure(&prune(path, &["--fit", "-1GiB"]), 2, "`-1GiB` is not a number of bytes");
    failure(&prune(path, &["--fit", "1PB"]), 2, "expected KB, MB, GB, TB,");
    failure(&["bench", "--memory-budget", "-1"], 2, "`-1` is not a number of bytes");
    failure(&prune(path, &["--remove", "2", "--eval-max-windows", "2"]), 2, "--eval-text");
    failure(&prune(path, &["--remove", "2", "--eval-text", "nowhere.txt"]), 2, "nowhere.txt");
    failure(&["prune", "--model", "../assets/tiny", "--remove", "2", "--out", path], 2, "--calibration is missing");
    failure(&[&prune(path, &["--remove", "2"])[..], &["--memory-budget", "1000"]].concat(), 2, "need at least 5 MiB");
    failure(&["inspect", "--model", "no/such/folder"], 2, "no such folder or file");
    // Named once.
    failure(&["inspect", "--model", "gpt2"], 2, "error: cannot open the model: gpt2: there is no such folder or file");
    failure(&prune(path, &["--remove", "13", "--block-types", "mlp"]), 2, "12 of type mlp");
    let short = root.path().join("short.txt");
    fs::write(&short, "In the beginning.").unwrap();
    let short = short.to_str().unwrap();
    failure(&["perplexity", "--model", "builtin:tiny", "--text", short], 2, "tokens");
    failure(&["perplexity", "--model", "builtin:tiny", "--text", text, "--without", "mha:12"], 2, "mha:12");
    failure(&["inspect", "--model", short], 2, "short.txt");
    assert!(!out.exists(), "a failed run left its folder behind");
}

#[test]
fn output_folders_are_checked_first() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, b"mine").unwrap();
    let full = root.path().to_str().unwrap();
    failure(&prune(full, &["--remove", "1"]), 2, "is not an empty folder");
    failure(&prune(full, &["--remove", "1", "--resume"]), 2, "no saved search");
    failure(&prune(file.to_str().unwrap(), &["--remove", "1"]), 2, "is a file");
    failure(&prune(file.join("out").to_str().unwrap(), &["--remove", "1"]), 2, "choose another folder");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

/// A result does not replace what it is made of, by whatever name, and where it cannot be written shows first.
#[test]
fn output_files_are_checked_first() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    success(&prune(out.to_str().unwrap(), &["--remove", "1", "--block-types", "mha"]));
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_string();
    let (folder, plan, other) = (path("out"), path("out/plan.json"), path("out/../out/plan.json"));
    let before = fs::read(&plan).unwrap();
    for (plan, out, message) in [
        (&plan, &plan, "is read by the same command"),
        (&plan, &other, "is read by the same command"),
        (&folder, &plan, "is read by the same command"),
        (&plan, &folder, "is a folder"),
        (&plan, &path("no/such.html"), "there is no folder"),
    ] {
        failure(&["report", plan, "--out", out], 2, message);
    }
    failure(
        &["report", &plan, "--evaluation", &path("out/order.json"), "--out", &path("out/order.json")],
        2,
        "is read",
    );
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&plan, path("link")).unwrap();
        failure(&["report", &plan, "--out", &path("link")], 2, "is read by the same command");
    }
    assert_eq!(fs::read(&plan).unwrap(), before);
    failure(&["man", "--out", &plan], 2, "cannot write manual pages to");
    if cfg!(target_os = "linux") {
        failure(&["report", &plan, "--out", "/proc/report.html"], 2, "--out /proc/report.html: ");
        failure(&["man", "--out", "/proc"], 2, "/proc/blockpruner.1");
    }
    // One that is no input is replaced.
    let page = path("page.html");
    fs::write(&page, "old").unwrap();
    success(&["report", &plan, "--out", &page]);
    assert!(fs::read_to_string(&page).unwrap().contains("<html"));
}

#[test]
fn one_process_works_in_an_output_folder() {
    let root = tempfile::tempdir().unwrap();
    let lock = blockpruner::export::FolderLock::try_new(root.path()).unwrap();
    let out = root.path().to_str().unwrap();
    failure(&prune(out, &["--remove", "1"]), 2, "another process is at work");
    failure(&prune(out, &["--remove", "1", "--resume"]), 2, "another process is at work");
    drop(lock);
    failure(&prune(out, &["--remove", "1", "--device", "none such"]), 3, "none such");
}

/// What a process leaves that is killed before it has saved anything is nothing, with `--resume` or without.
#[test]
fn folders_that_a_kill_left_are_used() {
    for resume in [&[][..], &["--resume"]] {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::write(path(".blockpruner"), "").unwrap();
        fs::write(path(".blockpruner-abc.tmp"), "{").unwrap();
        fs::create_dir(path("state")).unwrap();
        fs::write(path("state/.blockpruner-abc.tmp"), "{").unwrap();
        fs::create_dir(path(".model.partial-abc")).unwrap();
        let more = [&["--remove", "1", "--device", "none such"], resume].concat();
        failure(&prune(root.path().to_str().unwrap(), &more), 3, "none such");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        // Anything else is someone's.
        fs::write(path("notes.txt"), "mine").unwrap();
        let expected = if resume.is_empty() { "not an empty folder" } else { "holds no saved search" };
        failure(&prune(root.path().to_str().unwrap(), &more), 2, expected);
        assert_eq!(fs::read(path("notes.txt")).unwrap(), b"mine");
    }
}

#[test]
fn no_such_device_exits_3() {
    let args = ["perplexity", "--model", "builtin:tiny", "--text", "builtin:sample", "--window", "64"];
    failure(&[&args[..], &["--device", "no such device"]].concat(), 3, "no such device");
}

#[test]
fn generate_streams_what_its_json_says() {
    let args = ["generate", "--model", "builtin:tiny", "--prompt", "And it came to pass", "--max-tokens", "12"];
    let said = json(&[&args[..], &["--json"]].concat());
    assert_eq!(success(&args), format!("{}\n", said["text"].as_str().unwrap()));
    assert_eq!((&said["new_tokens"], said["tokens"].as_array().unwrap().len()), (&Value::from(12), 12));
    assert_eq!((&said["finish_reason"], &said["removed"]), (&Value::from("max_tokens"), &serde_json::json!([])));
    assert!(said["tokens_per_second"].as_f64().unwrap() > 0.0 && said["prompt_tokens"].as_u64().unwrap() > 2);
    let without = json(&[&args[..], &["--json", "--without", "mha:0,mha:2,mlp:0"]].concat());
    assert_eq!(without["removed"], serde_json::json!(["mha:0", "mha:2", "mlp:0"]));
    assert_ne!(without["tokens"], said["tokens"]);
    // An empty prompt begins with the token that begins a text.
    let begun = json(&["generate", "--model", "builtin:tiny", "--prompt", "", "--max-tokens", "3", "--json"]);
    assert_eq!(begun["prompt_tokens"], 1);
}

/// When nobody reads on there is nothing to write for.
#[cfg(unix)]
#[test]
fn generate_stops_when_its_reader_does() {
    use std::io::Read;
    let args = ["generate", "--model", "builtin:tiny", "--prompt", "And it came to pass", "--max-tokens", "480"];
    let mut command = program();
    command.args(args).args(["--progress", "jsonl"]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 5]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("\"generated\""), "{}", stderr(&output));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_stdout_is_named() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let args = ["generate", "--model", "builtin:tiny", "--prompt", "And it came to pass", "--max-tokens", "3"];
    let output = program().args(args).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("error: cannot write to stdout: No space left"), "{}", stderr(&output));
}

/// Compiled shaders are kept in a file; a pipe in its place is not waited for.
#[cfg(unix)]
#[test]
fn kept_shaders_are_files() {
    let cache = tempfile::tempdir().unwrap();
    let args = ["perplexity", "--model", "builtin:tiny", "--text", "builtin:sample", "--window", "32"];
    let run = || {
        let mut command = program();
        command.env("XDG_CACHE_HOME", cache.path()).args(args).args(["--max-windows", "1"]).output().unwrap()
    };
    assert!(run().status.success());
    let kept = |folder: &Path| fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    for file in kept(&cache.path().join("blockpruner")) {
        fs::remove_file(&file).unwrap();
        assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    }
    let output = run();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn prompts_that_cannot_be_continued_exit_2() {
    let root = tempfile::tempdir().unwrap();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/tiny");
    for file in ["model.safetensors", "tokenizer.json"] {
        fs::copy(tiny.join(file), root.path().join(file)).unwrap();
    }
    let mut config = read(&tiny.join("config.json"));
    config["bos_token_id"] = Value::Null;
    fs::write(root.path().join("config.json"), config.to_string()).unwrap();
    let model = ["generate", "--model", root.path().to_str().unwrap(), "--prompt"];
    failure(&[&model[..], &[""]].concat(), 2, "give a prompt");
    failure(&[&model[..], &["king ".repeat(600).as_str()]].concat(), 2, "512");
    failure(&[&model[..], &["king", "--max-tokens", "0"]].concat(), 2, "at least 1");
    failure(&[&model[..], &["king", "--without", "mha:12"]].concat(), 2, "mha:12");
    fs::write(root.path().join("generation_config.json"), r#"{"eos_token_id": "</s>"}"#).unwrap();
    failure(&[&model[..], &["king"]].concat(), 2, "generation_config.json");
}

#[test]
fn inspect_counts_the_parameters() {
    let report = json(&["inspect", "--model", "builtin:tiny", "--json"]);
    assert_eq!(report["parameters"], 2_739_328);
    assert_eq!(report["blocks"].as_array().unwrap().len(), 24);
    assert_eq!(report["blocks"][0]["block"], "mha:0");
}

/// What `bench` measures is there and is possible; how fast it is, is no matter of a test.
#[test]
fn bench_measures_kernels_and_a_search() {
    let args = ["bench", "--window", "32", "--max-windows", "2", "--remove", "2", "--json"];
    let report = json(&args);
    let positive = |value: &Value| assert!(value.as_f64().is_some_and(|x| x.is_finite() && x > 0.0), "{value}");
    for (key, names) in [
        ("rates", &["copy_gb_per_second", "gemm_gflop_per_second"][..]),
        ("pass", &["tokens_per_second", "perplexity"]),
        ("memory", &["planned_bytes", "weights_bytes"]),
    ] {
        names.iter().for_each(|name| positive(&report[key][name]));
    }
    if cfg!(target_os = "linux") {
        positive(&report["memory"]["peak_resident_bytes"]);
    }
    assert_eq!(report["text"]["ids"].as_array().unwrap().len(), 2 * 32);
    let kernels = report["kernels"].as_array().unwrap();
    let names: Vec<_> = kernels.iter().map(|kernel| kernel["kernel"].as_str().unwrap()).collect();
    for name in
        ["embedding", "q, k, v product", "attention", "gate, up product", "activation", "head product", "log-sum-exp"]
    {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    for kernel in kernels {
        let rate = kernel["rate"].get("gflop_per_second").or(kernel["rate"].get("gb_per_second")).unwrap();
        for number in [rate, &kernel["of_best"], &kernel["dispatches"], &kernel["times"]] {
            positive(number);
        }
        let seconds = &kernel["seconds"];
        positive(&seconds["minimum"]);
        assert!(seconds["median"].as_f64() >= seconds["minimum"].as_f64(), "{kernel}");
    }
    // The search is the one that `prune` does.
    let root = tempfile::tempdir().unwrap();
    let plan = json(&prune(root.path().join("out").to_str().unwrap(), &["--remove", "2", "--json"]));
    let search = &report["search"];
    assert_eq!(report["pass"]["perplexity"], plan["dense"]["perplexity"]);
    for (step, planned) in search["steps"].as_array().unwrap().iter().zip(plan["steps"].as_array().unwrap()) {
        for key in ["removed", "perplexity", "candidates", "work"] {
            assert_eq!(step[key], planned[key], "{key}");
        }
    }
    let count = &search["count"];
    assert_eq!(count["exhaustive"]["block_tokens"], (24 * 23 + 23 * 22) * 2 * 32);
    assert_eq!(count["exhaustive"]["head_tokens"], (24 + 23) * 2 * 31);
    for share in ["block_share", "head_share", "arithmetic_share"] {
        positive(&count[share]);
        assert!(count[share].as_f64() < Some(1.0), "{share}: {}", count[share]);
    }
    // The published loop does what is counted for it.
    let args = ["bench", "--window", "32", "--max-windows", "1", "--remove", "1", "--exhaustive", "--json"];
    let count = &json(&args)["search"]["count"];
    assert_eq!(count["work"], count["exhaustive"]);
    // A search is not asked for.
    assert_eq!(json(&["bench", "--window", "32", "--max-windows", "1", "--json"])["search"], Value::Null);
    failure(&["bench", "--racing"], 2, "--remove");
}

#[test]
fn the_demo_works_from_end_to_end() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("demo");
    let plan = json(&["demo", "--json", "--out", out.to_str().unwrap()]);
    assert_eq!(plan, read(&out.join("plan.json")));
    assert_eq!(plan["steps"].as_array().unwrap().len(), 4);
    assert_eq!(read(&out.join("order.json")).as_object().unwrap().len(), 4);
    assert!(out.join("model/config.json").is_file() && !out.join("state").exists());
    // The written model, and the original with the plan, both have the plan's perplexity.
    let model = out.join("model");
    let order = out.join("order.json");
    let text = ["--text", "builtin:sample", "--window", "128", "--max-windows", "2", "--json"];
    for model in
        [&["--model", model.to_str().unwrap()][..], &["--model", "builtin:tiny", "--plan", order.to_str().unwrap()]]
    {
        let score = json(&[&["perplexity"], model, &text].concat());
        assert_eq!(score["perplexity"], plan["steps"][3]["perplexity"]);
        assert_eq!(score["tokens"], 256);
    }
}

/// What must not depend on interruptions: everything but the times, and the work, a part of which is done again.
/// What is the same of every run of a search: all but times and the command.
fn comparable(mut plan: Value) -> Value {
    plan.as_object_mut().unwrap().shift_remove("command");
    for step in plan["steps"].as_array_mut().unwrap() {
        step["seconds"] = Value::Null;
        step["work"] = Value::Null;
    }
    plan
}

#[test]
fn steps_of_a_plan_are_exported() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let plan = json(&prune(out.to_str().unwrap(), &["--remove", "2", "--json"]));
    let plan_file = out.join("plan.json");
    let first = root.path().join("first");
    let args = ["--model", "builtin:tiny", "--plan", plan_file.to_str().unwrap(), "--format", "hf-zeroed", "--out"];
    json(&[&["export"], &args[..], &[first.to_str().unwrap(), "--step", "1", "--json"]].concat());
    let text = ["--text", "builtin:sample", "--window", "32", "--max-windows", "2", "--json"];
    let score = json(&[&["perplexity", "--model", first.to_str().unwrap()], &text[..]].concat());
    assert_eq!(score["perplexity"], plan["steps"][0]["perplexity"]);
    failure(&[&["export"], &args[..], &[first.to_str().unwrap(), "--step", "1"]].concat(), 2, "not an empty folder");
    let other = root.path().join("other");
    failure(&[&["export"], &args[..], &[other.to_str().unwrap(), "--step", "3"]].concat(), 2, "step 3 does not exist");
    assert!(!other.exists());
    // What a step removes can be named instead.
    let named = root.path().join("named");
    let blocks = plan["steps"][0]["removed"].as_str().unwrap();
    let without =
        ["export", "--model", "builtin:tiny", "--format", "hf-zeroed", "--without", blocks, "--json", "--out"];
    let written = json(&[&without[..], &[named.to_str().unwrap()]].concat());
    assert_eq!((&written["removed"], &written["step"]), (&serde_json::json!([blocks]), &Value::Null));
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&named) == weights(&first));
    failure(&[&without[..], &[other.to_str().unwrap(), "--step", "1"]].concat(), 2, "--without");
    failure(&["export", "--model", "builtin:tiny", "--out", other.to_str().unwrap()], 2, "which blocks?");
    assert!(!other.exists());
    // The unpruned model needs no plan.
    let dense = root.path().join("dense");
    let args = ["export", "--model", "builtin:tiny", "--out", dense.to_str().unwrap(), "--step"];
    failure(&[&args[..], &["1"]].concat(), 2, "--plan");
    assert!(!dense.exists());
    json(&[&args[..], &["0", "--json"]].concat());
    let score = json(&[&["perplexity", "--model", dense.to_str().unwrap()], &text[..]].concat());
    assert_eq!(score["perplexity"], plan["dense"]["perplexity"]);
}

/// A written model without blocks is pruned on: its blocks keep their numbers, and the steps are those of one search.
/// Pairs leave an ordinary model, which is written as one; of a plan that is nearly one, the way there is told.
#[test]
fn pairs_leave_an_ordinary_model() {
    let root = tempfile::tempdir().unwrap();
    let out = |name: &str| root.path().join(name).to_str().unwrap().to_string();
    let search = |out: &str, more: &[&str]| json(&[&["prune", "--json", "--out", out], &SMALL[..], more].concat());
    let (pairs, blocks) = (out("pairs"), out("blocks"));
    let plan = search(&pairs, &["--remove", "2", "--units", "pairs"]);
    assert_eq!(plan["settings"]["units"], "pairs");
    let removed = plan["steps"][0]["removed"].as_str().unwrap();
    assert!(removed.starts_with("mha:") && removed.contains(",mlp:"), "{removed}");
    let config = read_config(&format!("{pairs}/model"));
    assert_eq!((&config["num_hidden_layers"], &config["model_type"]), (&10.into(), &"llama".into()));
    assert!(!Path::new(&format!("{pairs}/model/modeling_blockpruner.py")).exists());
    let step = out("step");
    let plan_file = format!("{pairs}/plan.json");
    let export = ["export", "--model", "builtin:tiny", "--step", "1", "--json", "--out", &step, "--plan"];
    assert_eq!(json(&[&export[..], &[&plan_file]].concat())["format"], "plain");
    assert_eq!(read_config(&step)["num_hidden_layers"], 11);

    let told = [&["prune", "--remove", "1", "--progress", "jsonl", "--out", &blocks], &SMALL[..]].concat();
    let told = stderr(&blockpruner(&told));
    assert_eq!(read_config(&format!("{blocks}/model"))["model_type"], "blockpruner_llama");
    let events = told.lines().map(|line| serde_json::from_str(line).unwrap());
    let near: Vec<Value> = events.filter(|event: &Value| event["type"] == "nearly_plain").collect();
    assert_eq!(near.len(), 2, "a neighbour goes; that the only block stays is no advice: {near:?}");
    for near in near {
        let removed: Vec<&str> =
            near["removed"].as_array().unwrap().iter().map(|block| block.as_str().unwrap()).collect();
        let removed = removed.join(",");
        let text = ["--text", "builtin:sample", "--window", "32", "--max-windows", "2"];
        let model = ["perplexity", "--json", "--model", "builtin:tiny", "--without", &removed];
        assert_eq!(json(&[&model[..], &text].concat())["perplexity"], near["perplexity"]);
    }
    // As a GGUF file it is one of an ordinary model, too; without a single block, one whose layers lack a block.
    let scored = |model: &str, more: &[&str]| {
        let text = ["--text", "builtin:sample", "--window", "32", "--max-windows", "2", "--json"];
        json(&[&["perplexity", "--model", model], more, &text].concat())["perplexity"].clone()
    };
    for (blocks, layers) in [("mlp:3,mha:4", 11), ("mha:3", 12)] {
        let gguf = out(blocks);
        let export =
            ["export", "--model", "builtin:tiny", "--without", blocks, "--format", "gguf", "--json", "--out", &gguf];
        let written = json(&export);
        assert_eq!((&written["format"], &written["files"][1]), (&"gguf".into(), &"README.md".into()));
        let file = format!("{gguf}/{}", written["files"][0].as_str().unwrap());
        assert_eq!(json(&["inspect", "--model", &file, "--json"])["layers"], layers);
        assert_eq!(scored(&file, &[]), scored("builtin:tiny", &["--without", blocks]), "{blocks}");
    }
    let gguf = out("gguf");
    let args = ["--remove", "1", "--units", "layers", "--format", "gguf", "--quantize", "q8_0"];
    search(&gguf, &args);
    let card = fs::read_to_string(format!("{gguf}/model/README.md")).unwrap();
    assert!(
        card.contains("library_name: gguf") && card.contains("blockpruner prune --json --out gguf --model"),
        "{card}"
    );

    let refused = out("refused");
    failure(
        &["export", "--model", "builtin:tiny", "--without", "mha:3", "--quantize", "q8_0", "--out", &refused],
        2,
        "only GGUF files hold quantised weights",
    );
    let types = ["prune", "--remove", "1", "--units", "layers", "--block-types", "mha", "--out", &refused];
    failure(&[&types[..], &SMALL].concat(), 2, "layers have an attention and a feed-forward block each");
    let plain = ["prune", "--remove", "1", "--format", "plain", "--out", &refused];
    failure(&[&plain[..], &SMALL].concat(), 2, "--format plain needs --units pairs or layers");
    failure(
        &["export", "--model", "builtin:tiny", "--without", "mha:3", "--format", "plain", "--out", &refused],
        2,
        "beside mlp:3 the other half of a layer is missing",
    );
}

/// A folder for MLX, vLLM and SGLang scores what was searched, says what limits there are, and is read like any other.
#[test]
fn a_deci_folder_is_written_and_read() {
    let root = tempfile::tempdir().unwrap();
    let out = |name: &str| root.path().join(name).to_str().unwrap().to_string();
    let (deci, again) = (out("deci"), out("again"));
    let args = ["export", "--model", "builtin:tiny", "--format", "deci", "--without", "mha:0,mlp:3", "--out", &deci];
    let output = blockpruner(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    for note in ["vLLM and older SGLang do not run it", "512 wide instead of 352"] {
        assert!(stderr(&output).contains(note), "{note}: {}", stderr(&output));
    }
    let config = read_config(&deci);
    assert_eq!(config["model_type"], "nemotron-nas");
    let gone = |layer: usize, part: &str| config["block_configs"][layer][part]["no_op"].as_bool().unwrap();
    for layer in 0..12 {
        assert_eq!((gone(layer, "attention"), gone(layer, "ffn")), (layer == 0, layer == 3), "{layer}");
    }
    let card = fs::read_to_string(format!("{deci}/README.md")).unwrap();
    assert!(card.contains("mlx_lm.generate --model FOLDER"), "{card}");
    let text = ["--text", "builtin:sample", "--window", "32", "--max-windows", "2", "--json"];
    let score = |args: &[&str]| json(&[&["perplexity"], args, &text[..]].concat())["perplexity"].as_f64().unwrap();
    let expected = score(&["--model", "builtin:tiny", "--without", "mha:0,mlp:3"]);
    assert!((score(&["--model", &deci]) - expected).abs() <= 1e-6 * expected);
    json(&["export", "--model", &deci, "--without", "mha:4", "--format", "hf", "--json", "--out", &again]);
    assert_eq!(read_config(&again)["drop_attn_list"], serde_json::json!([0, 4]));
}

#[test]
fn pruning_goes_on_from_a_pruned_folder() {
    let root = tempfile::tempdir().unwrap();
    let out = |name: &str| root.path().join(name).to_str().unwrap().to_string();
    let (whole, first, second) = (out("whole"), out("first"), out("second"));
    let at_once = json(&prune(&whole, &["--remove", "2", "--json"]));
    let begin = ["prune", "--remove", "1", "--out", &first, "--json"];
    let begun = json(&[&begin[..], &SMALL].concat());
    let model = format!("{first}/model");
    let go_on = ["prune", "--model", &model, "--remove", "1", "--out", &second, "--json"];
    let gone_on = json(&[&go_on[..], &SMALL[2..]].concat());
    assert_eq!(gone_on["model"]["absent"], serde_json::json!([begun["steps"][0]["removed"]]));
    assert_eq!(gone_on["dense"]["perplexity"], begun["steps"][0]["perplexity"]);
    for key in ["removed", "perplexity", "params_left"] {
        assert_eq!(gone_on["steps"][0][key], at_once["steps"][1][key], "{key}");
    }
    let config = read(&Path::new(&second).join("model/config.json"));
    let dropped = |key: &str| config[key].as_array().unwrap().len();
    assert_eq!(dropped("drop_attn_list") + dropped("drop_mlp_list"), 2);
}

/// Starts a search and waits until its state satisfies `enough`.
#[cfg(unix)]
fn started(args: &[&str], out: &Path, enough: impl Fn(&Value) -> bool) -> std::process::Child {
    let mut command = program();
    command.args(args).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    for _ in 0..60_000 {
        // The file is replaced whole: whenever it is there, it can be read.
        let state = fs::read(out.join("state/search.json"));
        if state.is_ok_and(|bytes| enough(&serde_json::from_slice(&bytes).unwrap())) {
            return child;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was interrupted");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    panic!("no such state was saved within two minutes");
}

/// Interrupts a search as soon as it has saved something, and goes on.
#[cfg(unix)]
#[test]
fn an_interrupted_search_ends_as_if_it_had_not_been() {
    let root = tempfile::tempdir().unwrap();
    let (whole, parts) = (root.path().join("whole"), root.path().join("parts"));
    let expected = json(&prune(whole.to_str().unwrap(), &["--remove", "3", "--json"]));
    let args = prune(parts.to_str().unwrap(), &["--remove", "3", "--json"]);
    let child = started(&args, &parts, |_| true);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let stopped = child.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(4));
    // It was asked for, so it is no error.
    let said = stderr(&stopped);
    assert!(said.contains("\nstopped; the state is saved, go on with the same command and --resume"), "{said}");
    assert!(!said.contains("error"), "{said}");
    let (stopped, order) = (read(&parts.join("plan.json")), parts.join("order.json"));
    assert_eq!(stopped["status"], "stopped");
    assert!(parts.join("state/search.json").exists() && !order.exists());
    // What there is of it can be used.
    let score =
        ["perplexity", "--model", "builtin:tiny", "--text", "builtin:sample", "--window", "32", "--max-windows", "2"];
    let (plan, state) = (parts.join("plan.json"), parts.join("state/search.json"));
    let last = stopped["steps"].as_array().unwrap().last().unwrap_or(&stopped["dense"]);
    let scored = json(&[&score[..], &["--json", "--plan", plan.to_str().unwrap()]].concat());
    assert_eq!(scored["perplexity"], last["perplexity"]);
    failure(&[&score[..], &["--plan", state.to_str().unwrap()]].concat(), 2, "give the plan.json of its folder");
    failure(&args, 2, "--resume");
    let other = ["--remove", "3", "--resume", "--block-types", "mha"];
    failure(&prune(parts.to_str().unwrap(), &other), 2, "search settings");
    let resumed = json(&[&args[..], &["--resume"]].concat());
    assert_eq!(comparable(resumed), comparable(expected));
    assert!(!parts.join("state").exists());
    failure(&prune(parts.to_str().unwrap(), &["--remove", "3", "--resume"]), 2, "finished");
}

/// A search that is finished goes on to a larger number of blocks without paying again, and back to a smaller one without losing
/// what it has found beyond that.
#[test]
fn a_finished_search_is_extended_and_cut() {
    let root = tempfile::tempdir().unwrap();
    let (whole, parts) = (root.path().join("whole"), root.path().join("parts"));
    let expected = json(&prune(whole.to_str().unwrap(), &["--remove", "2", "--json"]));
    assert_eq!((&expected["status"], &expected["format"]), (&"finished".into(), &"blockpruner-plan/2".into()));
    let to = |remove: &'static str, more: &[&'static str]| {
        let out = parts.to_str().unwrap();
        let plan = json(&prune(out, &[&["--remove", remove, "--json"], more].concat()));
        assert_eq!(plan, read(&parts.join("plan.json")));
        plan
    };
    // Times among it, as nothing is paid for again.
    let found = |plan: &Value| [&plan["settings"], &plan["steps"], &plan["status"], &plan["dense"]].map(Value::clone);
    let first = to("1", &[]);
    let again = ["--remove", "1", "--resume"];
    failure(&prune(parts.to_str().unwrap(), &again), 2, "is finished, there is nothing to resume");
    let second = to("2", &["--resume"]);
    assert_eq!(second["steps"][0], first["steps"][0], "the first step is not paid for again");
    assert_eq!(comparable(second.clone()), comparable(expected));
    assert!(!parts.join("state").exists());

    let cut = to("1", &["--resume"]);
    assert_eq!(found(&cut), found(&first));
    assert_eq!(read(&parts.join("order.json")).as_object().unwrap().len(), 1);
    assert!(parts.join("state/search.json").exists(), "the second step is kept");
    let extended = to("2", &["--resume"]);
    assert_eq!(found(&extended), found(&second));
    assert!(!parts.join("state").exists());
}

/// A run's report is that of its plan, and the same of every run but for times and the command.
#[test]
fn plans_have_a_report_and_are_compared() {
    let root = tempfile::tempdir().unwrap();
    let (one, other) = (root.path().join("one"), root.path().join("other"));
    for out in [&one, &other] {
        success(&prune(
            out.to_str().unwrap(),
            &["--remove", "1", "--eval-text", "builtin:sample", "--eval-max-windows", "1"],
        ));
    }
    let report = |out: &Path| fs::read_to_string(out.join("report.html")).unwrap();
    let (page, plan) = (report(&one), read(&one.join("plan.json")));
    assert!(
        page.contains("which the search has seen, too") && page.contains("<pre>blockpruner prune --model builtin:tiny")
    );
    let known = |page: &str, plan: &Value| {
        let seconds = plan["steps"][0]["seconds"].as_f64().unwrap();
        let out = if *plan == read(&one.join("plan.json")) { "one" } else { "other" };
        page.replace(&format!("{seconds:.1} s"), "TIME").replace(&format!("--out {out}"), "--out OUT")
    };
    assert_eq!(known(&page, &plan), known(&report(&other), &read(&other.join("plan.json"))));
    for candidate in plan["steps"][0]["candidates"].as_array().unwrap() {
        let score = format!("<td>{:.4}</td>", candidate["perplexity"].as_f64().unwrap());
        assert!(page.contains(&score), "{candidate}");
    }

    let (plans, out) = ([one.to_str().unwrap(), other.to_str().unwrap()], root.path().join("both.html"));
    let told = json(&[&["report", "--json", "--out", out.to_str().unwrap()], &plans[..]].concat());
    assert_eq!((&told["plans"], fs::metadata(&out).unwrap().len()), (&2.into(), told["bytes"].as_u64().unwrap()));
    let compare = |more: &[&str]| success(&[&["compare"], &plans[..], more].concat());
    assert!(compare(&[]).contains("all steps  1 of 1 blocks  1.00"));
    assert!(compare(&["--markdown"]).contains("| model | builtin:tiny | builtin:tiny |"));
    let csv = compare(&["--csv", "--ratio", "50%"]);
    assert!(csv.lines().next().unwrap().ends_with("perplexity_at_0.5") && csv.lines().count() == 3, "{csv}");
    let compared: Value = serde_json::from_str(&compare(&["--json"])).unwrap();
    assert_eq!(compared["plans"][0]["perplexity"], plan["steps"][0]["perplexity"]);
    failure(&["compare", plans[0], "--ratio", "2"], 2, "expected a share, such as 0.25 or 25%");
    failure(&["compare", root.path().to_str().unwrap()], 2, "plan.json");
    failure(&["report"], 2, "PLAN");
}

/// The same without any warning, twice: in the first step, and after it.
#[cfg(unix)]
#[test]
fn a_killed_search_ends_as_if_it_had_not_been() {
    let root = tempfile::tempdir().unwrap();
    let (whole, parts) = (root.path().join("whole"), root.path().join("parts"));
    let expected = json(&prune(whole.to_str().unwrap(), &["--remove", "3", "--json"]));
    let args = prune(parts.to_str().unwrap(), &["--remove", "3", "--json"]);
    let resume = [&args[..], &["--resume"]].concat();
    let count = |state: &Value, key: &str| state["search"][key].as_array().unwrap().len();
    let mut child = started(&args, &parts, |state| count(state, "candidates") >= 1);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut child = started(&resume, &parts, |state| count(state, "steps") >= 1);
    child.kill().unwrap();
    child.wait().unwrap();
    // What it would have left behind while it wrote a file or the model.
    fs::write(parts.join(".blockpruner-x.tmp"), b"{").unwrap();
    fs::create_dir_all(parts.join(".model.partial-x")).unwrap();
    assert_eq!(comparable(json(&resume)), comparable(expected));
    assert!(!parts.join("state").exists());
    let written = fs::read_dir(&parts).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(
        written.collect::<std::collections::BTreeSet<_>>(),
        ["model", "order.json", "plan.json", "report.html"].map(String::from).into()
    );
}

/// Runs a shell script, whose "$@" is the program with `args`, in `root`, where `disk` is a file system with these mount
/// options that nobody else sees. False, with the reason printed, if this system does not let us.
#[cfg(target_os = "linux")]
fn with_a_disk(options: &str, root: &Path, script: &str, args: &[&str]) -> bool {
    fs::create_dir(root.join("disk")).unwrap();
    let script = format!("mount -t tmpfs -o {options} tmpfs disk && touch mounted && {{ {script}; }}");
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_blockpruner")]).args(args).current_dir(root);
    let output = command.output();
    if root.join("mounted").exists() {
        return true;
    }
    println!("skipped: a small disk could not be mounted: {:?}", output.map(|output| stderr(&output)));
    false
}

/// The disk fills up while the state is saved, or while the model is written. More room and --resume are all it takes.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_so_and_costs_nothing() {
    let more = ["--remove", "2", "--block-types", "mha", "--json"];
    let reference = tempfile::tempdir().unwrap();
    let expected = json(&prune(reference.path().join("out").to_str().unwrap(), &more));
    for (size, named) in [("4k", "plan.json"), ("8k", "search.json"), ("1m", "model.safetensors")] {
        let root = tempfile::tempdir().unwrap();
        let script = r#"
            "$@" >full.stdout 2>full.stderr; echo $? >full.code
            find disk -type f >full.files
            mount -o remount,size=64m disk
            "$@" --resume >resumed.stdout 2>resumed.stderr; echo $? >resumed.code
            find disk/out -maxdepth 1 -mindepth 1 | sort >resumed.files"#;
        if !with_a_disk(&format!("size={size}"), root.path(), script, &prune("disk/out", &more)) {
            return;
        }
        let said = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(said("full.code").trim(), "4", "{}", said("full.stderr"));
        assert_eq!(said("full.stdout"), "");
        for part in [named, "No space left on device", "free some space", "the state is saved, go on", "--resume"] {
            assert!(said("full.stderr").contains(part), "{size}: {}", said("full.stderr"));
        }
        assert!(!said("full.stderr").contains(" at path "), "{}", said("full.stderr"));
        let left: Vec<String> = said("full.files").lines().map(String::from).collect();
        let whole = ["disk/out/state/search.json", "disk/out/plan.json", "disk/out/order.json"];
        assert!(left.iter().all(|file| whole.contains(&file.as_str())) && left.contains(&whole[0].into()), "{left:?}");
        assert_eq!(said("resumed.code").trim(), "0", "{}", said("resumed.stderr"));
        let plan = serde_json::from_str(&said("resumed.stdout")).unwrap();
        assert_eq!(comparable(plan), comparable(expected.clone()), "{size}");
        let files = ["model", "order.json", "plan.json", "report.html"].map(|file| format!("disk/out/{file}\n"));
        assert_eq!(said("resumed.files"), files.concat());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_exits_2() {
    let root = tempfile::tempdir().unwrap();
    let script = r#"mkdir disk/empty; mount -o remount,ro disk
        for out in disk/empty disk/new; do "$@" --out $out 2>>stderr; echo $? >>codes; done"#;
    let args = [&["prune"], &SMALL[..], &["--remove", "1"]].concat();
    if !with_a_disk("size=1m", root.path(), script, &args) {
        return;
    }
    let said = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
    assert_eq!(said("codes"), "2\n2\n", "{}", said("stderr"));
    assert_eq!(said("stderr").matches("Read-only file system").count(), 2, "{}", said("stderr"));
    assert!(said("stderr").contains("choose a folder that you may write to"), "{}", said("stderr"));
}

/// Where stderr is a terminal nothing but the program speaks, and its bars are drawn and cleared.
#[cfg(target_os = "linux")]
#[test]
fn on_a_terminal_only_the_program_speaks() {
    let root = tempfile::tempdir().unwrap();
    let args = prune("out", &["--remove", "1", "--block-types", "mha"]).join(" ");
    let command = format!("stty rows 24 cols 80; {} {args}", env!("CARGO_BIN_EXE_blockpruner"));
    let mut terminal = Command::new("script");
    let output = match terminal.args(["-qec", &command, "/dev/null"]).current_dir(root.path()).output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: there is no `script`, which makes a terminal: {error}"),
    };
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("dense perplexity") && shown.contains("wrote "), "{shown}");
    assert!(!shown.contains("tracing") && !shown.contains("panicked"), "{shown}");
    // What stays, and every state of a bar, in lines of at most 80 columns that end between words.
    let mut escapes = shown.split('\u{1b}');
    let mut plain = escapes.next().unwrap_or_default().to_string();
    escapes.for_each(|part| {
        plain.push_str(part.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).get(1..).unwrap_or(""))
    });
    let lines: Vec<&str> = plain.split(['\n', '\r']).collect();
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("step 1/1: ") && line.contains(" tokens/s, ")), "{lines:#?}");
    // That no time is left is said near the end only.
    let done = |line: &str| line.split(['%', ' ']).filter_map(|word| word.parse::<u32>().ok()).next().unwrap_or(0);
    let ends = |line: &&&str| line.contains("scoring the whole model") && line.contains(" 0 s left");
    assert!(lines.iter().filter(ends).all(|line| done(line) >= 50), "{lines:#?}");
    let percents = lines
        .iter()
        .filter(|line| line.starts_with("step 1/1: "))
        .filter_map(|line| line.split('%').next()?.rsplit(' ').next()?.parse::<u64>().ok());
    assert!(percents.is_sorted(), "{lines:#?}");
}

/// A model with quantised weights, and a text in its few words.
fn quantised(root: &Path) -> [String; 4] {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/gguf-legacy/model.gguf");
    let text = root.join("words.txt");
    fs::write(&text, "t1 t2 t30 t4 t5 ".repeat(40)).unwrap();
    ["--model".into(), model.to_str().unwrap().into(), "--calibration".into(), text.to_str().unwrap().into()]
}

/// Sizes are told, a model that grows is warned of with the way out, and quantised weights do not become f32.
#[test]
fn written_models_do_not_grow_unnoticed() {
    let root = tempfile::tempdir().unwrap();
    let out = |name: &str| root.path().join(name).to_str().unwrap().to_string();
    let arguments = quantised(root.path());
    let [_, model, ..] = &arguments;
    let mut bytes = Vec::new();
    for (name, more, warned) in [
        ("bf16", &[][..], Some("--format gguf keeps them quantised, which makes it 140.2 KiB")),
        ("f32", &["--dtype", "f32"][..], Some("--format gguf keeps them quantised")),
    ] {
        let folder = out(name);
        let args = [&["export", "--model", model, "--step", "0", "--json", "--out", &folder][..], more].concat();
        let output = blockpruner(&args);
        let said = stderr(&output);
        assert!(said.contains("warning: the written model takes ") && said.contains(warned.unwrap()), "{said}");
        let written: Value = serde_json::from_slice(&output.stdout).unwrap();
        bytes.push(["bytes_read", "bytes"].map(|key| written[key].as_u64().unwrap()));
        assert_eq!(written["bytes_read"], json(&["inspect", "--model", model, "--json"])["bytes"]);
    }
    let [[read, bf16], [same, f32]] = bytes[..] else { panic!("{bytes:?}") };
    assert!(read == same && read < bf16 && bf16 < f32, "{bytes:?}");
    assert_eq!(read_config(&out("bf16"))["torch_dtype"], "bfloat16");
    // A model that is not larger afterwards is not warned of, and the sizes stand at the end.
    let pruned = out("pruned");
    let output = blockpruner(&prune(&pruned, &["--remove", "1", "--block-types", "mha"]));
    let (said, result) = (stderr(&output), String::from_utf8(output.stdout).unwrap());
    assert!(said.contains("size: 5.2 MiB read, at most ") && !said.contains("the written model takes"), "{said}");
    assert!(result.contains("\nsize: 5.2 MiB -> "), "{result}");
    // What was rounded is checked as that.
    let rounded = out("rounded");
    let more = ["--window", "16", "--max-windows", "2", "--remove", "1", "--out", &rounded];
    let args: Vec<&str> = ["prune"].into_iter().chain(arguments.iter().map(String::as_str)).chain(more).collect();
    let output = blockpruner(&args);
    assert!(output.status.success() && stderr(&output).contains("(its weights were rounded)"), "{}", stderr(&output));
}

fn read_config(folder: &str) -> Value {
    read(&Path::new(folder).join("config.json"))
}

/// Nothing, the usual lines, details, or events for programs: only stderr changes, and with details the lines behind the table.
#[test]
fn as_much_is_told_as_was_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let out = |name: &str| root.path().join(name).to_str().unwrap().to_string();
    let run = |name: &str, more: &[&str]| {
        let folder = out(name);
        let output = blockpruner(&prune(&folder, &[&["--remove", "2", "--block-types", "mha"], more].concat()));
        assert!(output.status.success(), "{}", stderr(&output));
        (stderr(&output), String::from_utf8(output.stdout).unwrap().replace(&folder, "OUT"))
    };
    let (usual, table) = run("usual", &[]);
    let (quiet, same) = run("quiet", &["--quiet"]);
    assert_eq!((quiet.as_str(), &same), ("", &table));
    let (verbose, details) = run("verbose", &["--verbose"]);
    for detail in ["memory: ", "kernel ", "compiling shaders", " scored to the end"] {
        assert!(verbose.contains(detail) && !usual.contains(detail), "{detail}: {verbose}");
    }
    for line in
        ["model: builtin:tiny (", "text: builtin:sample (2 windows of 32 tokens)", "device: ", "plan: remove 2 of 12"]
    {
        assert!(usual.contains(line), "{line}: {usual}");
    }
    assert!(usual.contains("warning: the choice of blocks rests on 62 predicted tokens"), "{usual}");
    assert!(details.contains("of the published loop's") && !table.contains("of the published loop's"), "{details}");
    let (events, same) = run("events", &["--progress", "jsonl"]);
    assert_eq!(same, table);
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    for kind in ["model", "text", "plan", "size", "device", "memory", "dense", "cost", "check", "written"] {
        assert_eq!(of(kind).len(), 1, "{kind}");
    }
    assert_eq!(of("candidate").len(), 12 + 11);
    let plan = read(&root.path().join("events/plan.json"));
    for (event, step) in of("step").iter().zip(plan["steps"].as_array().unwrap()) {
        for key in ["step", "removed", "perplexity", "params_left", "ratio_removed"] {
            assert_eq!(event[key], step[key], "{key}");
        }
    }
    let done: Vec<f64> = of("progress").iter().map(|event| event["done"].as_f64().unwrap()).collect();
    assert!(done.is_sorted() && done.last() == Some(&1.0), "{done:?}");
    assert_eq!(of("written")[0]["bytes_read"], of("model")[0]["bytes"]);
    // What fails is an event, too, and an error with the fewest words.
    let args = ["perplexity", "--model", "builtin:tiny", "--text", "nowhere.txt"];
    let failed = stderr(&blockpruner(&[&args[..], &["--progress", "jsonl"]].concat()));
    let last: Value = serde_json::from_str(failed.lines().last().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["exit_code"]), (&"error".into(), &2.into()));
    let failed = stderr(&blockpruner(&[&["--quiet"], &args[..]].concat()));
    assert!(failed.starts_with("error: ") && failed.contains("nowhere.txt"), "{failed}");
}

/// Both models are scored as `perplexity` scores them. The plan has that and the command, so that what is made of it later has
/// them, too.
#[test]
fn a_held_out_text_is_scored() {
    let root = tempfile::tempdir().unwrap();
    // A name may be anything.
    let name = if cfg!(unix) { "it's <b>\"other\"\n.txt" } else { "other.txt" };
    let text = root.path().join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/tiny/calibration.txt");
    let whole = fs::read_to_string(source).unwrap();
    // The search sees the beginning only.
    let middle = whole.char_indices().nth(whole.chars().count() / 2).unwrap().0;
    fs::write(&text, &whole[middle..]).unwrap();
    let (text, out) = (text.to_str().unwrap(), root.path().join("held-out-run"));
    let eval = ["--eval-text", text, "--eval-max-windows", "3"];
    let more = [&["--remove", "1", "--block-types", "mha", "--json"][..], &eval].concat();
    let args = prune(out.to_str().unwrap(), &more);
    let output = program().env("HF_TOKEN", "hf_SECRET").args(&args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan, read(&out.join("plan.json")));
    let evaluation = &plan["evaluation"];
    let block = plan["steps"][0]["removed"].as_str().unwrap();
    let score =
        ["perplexity", "--model", "builtin:tiny", "--text", text, "--window", "32", "--max-windows", "3", "--json"];
    assert_eq!(evaluation["dense_perplexity"], json(&score)["perplexity"]);
    assert_eq!(evaluation["perplexity"], json(&[&score[..], &["--without", block]].concat())["perplexity"]);
    assert_eq!((&evaluation["tokens"], &evaluation["windows"]), (&96.into(), &3.into()));
    assert_eq!(evaluation["text"], text);

    let command = plan["command"].as_str().unwrap();
    let quoted = if cfg!(unix) { "--eval-text $'it\\'s <b>\"other\"\\012.txt' --eval-max-windows 3" } else { name };
    assert!(command.starts_with("blockpruner prune --model builtin:tiny") && command.contains(quoted), "{command}");
    let file = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    for name in ["plan.json", "report.html", "model/README.md"] {
        assert!(!file(name).contains("SECRET"), "{name}");
    }
    let (plan_file, later) = (out.join("plan.json"), root.path().join("later.html"));
    let (plan_file, later) = (plan_file.to_str().unwrap(), later.to_str().unwrap());
    success(&["report", plan_file, "--out", later]);
    let page = fs::read_to_string(later).unwrap();
    // But for what it calls the run.
    let unnamed = |page: &str| page.replace("held-out-run", "builtin:tiny");
    assert_eq!(unnamed(&page), unnamed(&file("report.html")));
    let shown = |value: &Value| format!("<b>{:.4}</b>", value.as_f64().unwrap());
    let words =
        format!("not seen, from {} to {}", shown(&evaluation["dense_perplexity"]), shown(&evaluation["perplexity"]));
    assert!(page.contains(&words) && page.contains("<h2>Command</h2><pre>blockpruner prune --model"), "{page}");
    assert!(!page.contains("<b>\"other") && !command.contains(char::is_control), "{page}");
    let compared = json(&["compare", "--json", plan_file]);
    for key in ["evaluation", "command"] {
        assert_eq!(compared["plans"][0][key], plan[key], "{key}");
    }
    assert!(success(&["compare", plan_file]).contains("\nheld out, pruned "));
    // A model that is exported later was made by two commands; of another step nobody knows what it does to the text.
    let card = |step: &str| {
        let exported = root.path().join(step);
        let args = ["export", "--model", "builtin:tiny", "--format", "hf-zeroed", "--plan", plan_file, "--step", step];
        success(&[&args[..], &["--out", exported.to_str().unwrap()]].concat());
        fs::read_to_string(exported.join("README.md")).unwrap()
    };
    let pruned = card("1");
    assert!(
        pruned.contains(&format!("```\n{command}\nblockpruner export ")) && pruned.contains("96 tokens (held out)"),
        "{pruned}"
    );
    let whole = card("0");
    assert!(whole.contains("```\nblockpruner export ") && !whole.contains("held out"), "{whole}");
    // What is gone on with is another model, of which that text says nothing yet.
    let more = json(&prune(out.to_str().unwrap(), &["--remove", "2", "--block-types", "mha", "--json", "--resume"]));
    assert!(more.get("evaluation").is_none() && more["command"].as_str().unwrap().ends_with("--resume"), "{more}");
    assert_eq!(more, read(&out.join("plan.json")));
    // The text of the search is none that it has not seen.
    let same = root.path().join("same");
    let args =
        prune(same.to_str().unwrap(), &["--remove", "1", "--block-types", "mha", "--eval-text", "builtin:sample"]);
    let output = blockpruner(&[&args[..], &["--eval-max-windows", "2"]].concat());
    let found = read(&same.join("plan.json"))["evaluation"].clone();
    let [whole, pruned] = ["dense_perplexity", "perplexity"].map(|key| found[key].as_f64().unwrap());
    assert!(stderr(&output).contains("which the search has seen"), "{}", stderr(&output));
    let line = format!("\nheld out: perplexity {whole:.4} -> {pruned:.4} on builtin:sample (2 windows of 32 tokens)\n");
    assert!(String::from_utf8_lossy(&output.stdout).contains(&line), "{line}");
}

#[test]
fn shells_and_man_know_the_commands() {
    for (shell, mark) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef blockpruner"),
        ("fish", "complete -c blockpruner"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let script = success(&["completions", shell]);
        assert!(script.contains(mark) && script.contains("calibration"), "{shell}");
    }
    failure(&["completions", "cmd"], 2, "possible values");
    let root = tempfile::tempdir().unwrap();
    success(&["man", "--out", root.path().to_str().unwrap()]);
    let page = fs::read_to_string(root.path().join("blockpruner-prune.1")).unwrap();
    assert!(page.starts_with(".") && page.contains("calibration"), "{page}");
    assert!(root.path().join("blockpruner.1").is_file());
}

#[test]
fn strategies_keep_to_their_options() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let refused = |more: &[&str], message| {
        failure(&prune(out.to_str().unwrap(), &[&["--remove", "1"], more].concat()), 2, message);
        assert!(!out.exists(), "{more:?}");
    };
    refused(&["--strategy", "annealing"], "short-gpt");
    refused(&["--strategy", "short-gpt", "--units", "blocks"], "the strategy short-gpt removes layers, not blocks");
    refused(&["--strategy", "short-gpt", "--units", "pairs"], "removes layers, not pairs");
    refused(&["--strategy", "short-gpt", "--block-types", "mlp"], "choose blocks to remove blocks of type mlp");
    for strategy in ["one-shot", "short-gpt", "cosine", "relative-magnitude", "random"] {
        refused(&["--strategy", strategy, "--exhaustive"], "--exhaustive is a way to run --strategy blockpruner");
        refused(&["--strategy", strategy, "--racing"], "--racing is a way to run --strategy blockpruner");
        if strategy != "random" {
            refused(&["--strategy", strategy, "--strategy-seed", "3"], "--strategy-seed is for --strategy random");
        }
    }
    refused(&["--strategy-seed", "3"], "--strategy-seed is for --strategy random");
    refused(&["--strategy", "random", "--strategy-seed", "x"], "expected a whole number");
}

/// From the command to the written model: what was measured is named in the plan and in what is told, and another strategy does not
/// go on with it.
#[test]
fn strategies_are_named_for_what_they_are() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_string();
    let (layers, drawn) = (path("layers"), path("drawn"));
    let output = blockpruner(&prune(&layers, &["--remove", "2", "--strategy", "short-gpt"]));
    let told = stderr(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("by cosine-distance on 64 tokens, approximately (short-gpt)"), "{told}");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("approximate (short-gpt): "), "{shown}");
    let plan = read(&Path::new(&layers).join("plan.json"));
    let settings = &plan["settings"];
    assert_eq!((&settings["units"], &settings["objective"]), (&"layers".into(), &"cosine-distance".into()));
    assert_eq!((&settings["strategy"], &settings["approximate"]), (&"short-gpt".into(), &true.into()));
    let candidates = plan["steps"][1]["candidates"].as_array().unwrap();
    let measured = candidates.iter().filter(|candidate| !candidate["perplexity"].is_null()).count();
    assert!(measured == 1 && candidates.iter().all(|candidate| candidate["value"].is_f64()), "{candidates:?}");
    let card = fs::read_to_string(Path::new(&layers).join("model/README.md")).unwrap();
    assert!(
        card.contains("chosen by their Block Influence") && card.contains("search `short-gpt`, approximate"),
        "{card}"
    );
    failure(
        &prune(&layers, &["--remove", "3", "--units", "layers", "--strategy", "cosine", "--resume"]),
        2,
        "strategy short-gpt",
    );
    let plan = json(&prune(&drawn, &["--remove", "1", "--strategy", "random", "--strategy-seed", "3", "--json"]));
    assert_eq!((&plan["settings"]["strategy_seed"], &plan["settings"]["objective"]), (&3.into(), &"random".into()));
    let other = ["--remove", "2", "--strategy", "random", "--strategy-seed", "4", "--resume"];
    failure(&prune(&drawn, &other), 2, "strategy seed 3");
    let more = ["--remove", "2", "--strategy", "random", "--strategy-seed", "3", "--resume", "--json"];
    assert_eq!(json(&prune(&drawn, &more))["steps"][0], plan["steps"][0]);
}
