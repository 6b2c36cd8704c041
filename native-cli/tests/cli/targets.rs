//! Every way to say how much goes.

use super::*;

/// So many steps are found beforehand.
const LONG: &str = "5";

fn search(out: &Path, target: &[&str], more: &[&str]) -> Value {
    let out = out.to_str().unwrap();
    json(&[&["prune", "--json", "--out", out], &SMALL[..], target, more].concat())
}

fn steps(plan: &Value) -> &Vec<Value> {
    plan["steps"].as_array().unwrap()
}

/// Without what may differ from run to run.
fn same_steps(plan: &Value) -> Value {
    comparable(plan.clone())["steps"].clone()
}

/// Bytes of the weight files in a folder.
fn weights_on_disk(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let weights = files
        .filter(|file| [".safetensors", ".gguf"].iter().any(|end| file.file_name().to_str().unwrap().ends_with(end)));
    weights.map(|file| file.metadata().unwrap().len()).sum()
}

/// Every target ends where the plan of a longer search says, from scratch and from any other target; what a target has found
/// beyond is not paid for again.
#[test]
fn targets_are_the_beginnings_of_a_longer_search() {
    let root = tempfile::tempdir().unwrap();
    let long = search(&root.path().join("long"), &["--remove", LONG], &[]);
    let all = steps(&long);
    let number = |value: &Value| value.as_f64().unwrap();
    let dense = number(&long["dense"]["perplexity"]);
    let perplexity = |step: usize| if step == 0 { dense } else { number(&all[step - 1]["perplexity"]) };
    // The first step that goes up from the one before, so that there is one to stop before.
    let beyond =
        (1..all.len()).find(|step| (1..=*step).all(|before| perplexity(before) < perplexity(step + 1))).unwrap();
    let most = (1..=beyond).map(perplexity).fold(f64::MIN, f64::max);
    let most = format!("{}", (most + perplexity(beyond + 1)) / 2.0);
    let increase = format!("{}%", 100.0 * ((most.parse::<f64>().unwrap() / dense) - 1.0).max(0.0));
    let share = increase.trim_end_matches('%').parse::<f64>().unwrap() / 100.0;
    let rises = (1..=all.len()).find(|step| perplexity(*step) > dense * (1.0 + share));
    let within_increase = rises.unwrap() - 1;
    let ratio = format!("{}", number(&all[2]["ratio_removed"]));
    let less = format!("{}%", 100.0 * number(&all[1]["ratio_removed"]) - 0.01);
    let fit = all[3]["bytes"].to_string();
    let targets = [
        (["--max-perplexity", most.as_str()], beyond),
        (["--ratio", ratio.as_str()], 3),
        (["--remove", "1"], 1),
        (["--fit", fit.as_str()], 4),
        (["--ratio", less.as_str()], 2),
        (["--max-increase", increase.as_str()], within_increase),
    ];
    let parts = root.path().join("parts");
    for (index, (target, expected)) in targets.iter().enumerate() {
        let scratch = root.path().join(format!("scratch{index}"));
        let plan = search(&scratch, target, &[]);
        assert_eq!(steps(&plan).len(), *expected, "{target:?}");
        assert_eq!(
            same_steps(&plan).as_array().unwrap()[..],
            same_steps(&long).as_array().unwrap()[..*expected],
            "{target:?}"
        );
        assert_eq!((&plan["status"], &plan["settings"]["remove"]), (&"finished".into(), &Value::from(*expected)));
        let name =
            target[0].trim_start_matches("--").replace('-', "_").replace("fit", "bytes").replace("remove", "units");
        assert!(plan["settings"]["target"][&name].is_number(), "{}", plan["settings"]);
        assert!(!scratch.join("state").exists(), "{target:?}");
        let is_bound = target[0].starts_with("--max");
        assert_eq!(plan["beyond"]["step"].as_u64(), is_bound.then_some(*expected as u64 + 1), "{target:?}");
        // The same by way of what the target before has left.
        let more: &[&str] = if index == 0 { &[] } else { &["--resume"] };
        let resumed = search(&parts, target, more);
        assert_eq!(resumed, read(&parts.join("plan.json")));
        assert_eq!(same_steps(&resumed), same_steps(&plan), "{target:?}");
        assert_eq!(
            (&resumed["settings"], &resumed["beyond"]["removed"]),
            (&plan["settings"], &plan["beyond"]["removed"])
        );
        let order = read(&parts.join("order.json"));
        assert_eq!(order.as_object().unwrap().len(), *expected);
    }
    // What was scored beyond a target is the next step of another one, to the second; a plan is enough for that.
    let bounded = root.path().join("scratch0");
    let before = read(&bounded.join("plan.json"));
    let steps_there = (beyond + 1).to_string();
    let resumed = search(&bounded, &["--remove", &steps_there], &["--resume"]);
    assert_eq!(steps(&resumed)[beyond], before["beyond"]);
    failure(
        &[&["prune", "--resume", "--out", bounded.to_str().unwrap(), "--remove", &steps_there], &SMALL[..]].concat(),
        2,
        "is finished",
    );
}

/// Nothing is searched for what cannot be reached, and the message says what can.
#[test]
fn what_cannot_be_reached_is_refused_first() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let path = out.to_str().unwrap();
    let refused = |more: &[&str], message: &str| {
        failure(&[&["prune", "--out", path], &SMALL[..], more].concat(), 2, message);
        assert!(!out.exists(), "{more:?}");
    };
    refused(
        &["--ratio", "90%"],
        "cannot remove 90.0 % of the parameters: without everything that may go, 80.8 % are gone",
    );
    refused(&["--ratio", "0.9", "--block-types", "mha"], "without everything that may go, 21.5 % are gone");
    refused(&["--fit", "1MiB"], "cannot come down to 1048576 bytes: without everything that may go, it takes 1049");
    refused(&["--fit", "2MB", "--format", "gguf-zeroed"], "as it is written (gguf-zeroed); that is the least");
    refused(&["--fit", "1GiB"], "nothing has to be removed: the whole model takes 549");
    refused(&["--fit", "1MB", "--format", "gguf", "--quantize", "q8_0", "--block-types", "mlp"], "(gguf, q8_0)");
    refused(&["--ratio", "30"], "0.25 or 25%");
    refused(&["--remove", "30%"], "for a share of the parameters there is --ratio");
    refused(&["--max-increase", "20"], "0.2 or 20%");
    refused(&["--max-perplexity", "0.5"], "at least 1");
    refused(&["--remove", "2", "--ratio", "0.2"], "cannot be used with");
    refused(&[], "--ratio <SHARE>");
}

/// A target that allows not even one step leaves the scores, says what would do, and can be gone on with.
#[test]
fn no_step_within_is_said_so() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let path = out.to_str().unwrap();
    let args = |most: &'static str, more: &[&'static str]| {
        [&["prune", "--block-types", "mha", "--out", path, "--json", "--max-perplexity", most], &SMALL[..], more]
            .concat()
    };
    for more in [&[][..], &["--resume"]] {
        failure(&args("2", more), 2, "nothing can be removed within a perplexity of 2.0000: the least costs mha:");
        let plan = read(&out.join("plan.json"));
        assert_eq!((steps(&plan).len(), &plan["status"], &plan["beyond"]["step"]), (0, &"finished".into(), &1.into()));
        assert!(!out.join("model").exists() && !out.join("order.json").exists());
    }
    let before = read(&out.join("plan.json"));
    let first =
        [&["prune", "--block-types", "mha", "--out", path, "--json", "--remove", "1", "--resume"], &SMALL[..]].concat();
    assert_eq!(steps(&json(&first))[0], before["beyond"]);
    assert!(!out.join("state").exists());
}

/// The written files take no more than was asked for, and would with one step less.
#[test]
fn fitting_models_fit() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: String| root.path().join(name);
    let zeroed = ["--format", "hf", "--units", "blocks"];
    let plain = ["--format", "plain", "--units", "pairs"];
    let gguf = ["--format", "gguf", "--quantize", "q8_0"];
    for (index, how) in [&zeroed[..], &plain, &gguf].into_iter().enumerate() {
        let written: Vec<&str> =
            how.iter().copied().filter(|part| !["--units", "blocks", "pairs"].contains(part)).collect();
        let export = |out: &Path, more: &[&str]| {
            let args = ["export", "--model", "builtin:tiny", "--json", "--out", out.to_str().unwrap()];
            json(&[&args[..], more, &written].concat());
            weights_on_disk(out)
        };
        let whole = export(&path(format!("whole{index}")), &["--step", "0"]);
        let most = whole - whole / 12;
        let out = path(format!("out{index}"));
        let plan = search(&out, &["--fit", &most.to_string()], how);
        let found = weights_on_disk(&out.join("model"));
        assert!(found <= most, "{how:?}: {found} of {most}");
        // The table is of files, headers included, and little above them.
        let told = steps(&plan).last().unwrap()["bytes"].as_u64().unwrap();
        assert!(found <= told && told <= most && told < found + found / 40, "{how:?}: {found}, {told}");
        let whole_told = plan["model"]["bytes"].as_u64().unwrap();
        assert!(whole <= whole_told && whole_told < whole + whole / 40, "{how:?}: {whole}, {whole_told}");
        let before = (steps(&plan).len() - 1).to_string();
        let file = out.join("plan.json");
        let less = export(&path(format!("less{index}")), &["--plan", file.to_str().unwrap(), "--step", &before]);
        assert!(less > most, "{how:?}: {less} of {most} with a step less");
    }
}

/// Another point of the curve costs no search.
#[test]
fn a_share_of_a_plan_is_exported() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_string();
    let plan = search(&root.path().join("out"), &["--remove", "3"], &["--block-types", "mlp"]);
    // An MLP block of the 2,739,328 parameters: 3 matrices of 128 x 352 and a norm of 128.
    let share = 135_296.0 / 2_739_328.0;
    assert_eq!(steps(&plan)[0]["ratio_removed"].as_f64(), Some(share));
    for (file, exact) in [("out/plan.json", format!("{share}")), ("out/order.json", "4%".into())] {
        let file = path(file);
        let from = ["--model", "builtin:tiny", "--plan", &file, "--ratio"];
        for (ratio, step) in [(exact.as_str(), 1), ("5%", 2), ("0.1", 3)] {
            let out = tempfile::tempdir().unwrap();
            let out = out.path().join("out");
            let written = json(&[&["export", "--json", "--out", out.to_str().unwrap()], &from[..], &[ratio]].concat());
            assert_eq!(
                (&written["step"], written["removed"].as_array().unwrap().len()),
                (&step.into(), step),
                "{ratio}"
            );
        }
        let out = path("refused");
        failure(
            &[&["export", "--out", &out], &from[..], &["20%"]].concat(),
            2,
            "the 3 steps remove 14.8 % of the parameters, not 20.0 %",
        );
        failure(&[&["export", "--out", &out], &from[..], &["5%", "--step", "1"]].concat(), 2, "cannot be used with");
        let text = ["--text", "builtin:sample", "--window", "32", "--max-windows", "2", "--json"];
        let score = json(&[&["perplexity"], &from[..], &["5%"], &text].concat());
        assert_eq!(score["perplexity"], steps(&plan)[1]["perplexity"]);
    }
    failure(&["export", "--model", "builtin:tiny", "--ratio", "5%", "--out", &path("refused")], 2, "--plan");
}

/// What the keys and values of a text take, wherever a model is spoken of: 2 heads of 32 elements of 2 bytes, twice, for each of
/// 12 attention blocks, and for 512 tokens.
#[test]
fn the_cache_is_told_everywhere() {
    let cache =
        |blocks: u64| serde_json::json!({"bytes_per_token": 256 * blocks, "context": 512, "bytes": 256 * 512 * blocks});
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_string();
    assert_eq!(json(&["inspect", "--model", "builtin:tiny", "--json"])["kv_cache"], cache(12));
    let told = success(&["inspect", "--model", "builtin:tiny"]);
    assert!(told.contains("KV cache       3.0 KiB a token as f16, 1.5 MiB for that many"), "{told}");
    let out = path("out");
    let args = [&["prune", "--out", &out, "--remove", "2", "--block-types", "mha"], &SMALL[..]].concat();
    let line = "KV cache (f16): 3.0 KiB -> 2.5 KiB a token, 1.5 MiB -> 1.2 MiB at 512 tokens";
    let told = success(&args);
    assert!(told.contains(line), "{told}");
    let plan = read(&root.path().join("out/plan.json"));
    assert_eq!(plan["model"]["kv_cache"], cache(12));
    assert_eq!([0, 1].map(|step: usize| plan["steps"][step]["kv_cache"].clone()), [cache(11), cache(10)]);
    let card = fs::read_to_string(root.path().join("out/model/README.md")).unwrap();
    assert!(card.contains("Its KV cache takes 2560 bytes a token as f16, 1.2 MiB for the 512 tokens"), "{card}");
    // A model that holds zeros has the cache of the whole one; feed-forward blocks have none.
    for (format, without, blocks) in [
        ("hf", "mha:1,mlp:2", 11),
        ("hf-zeroed", "mha:1", 12),
        ("gguf", "mha:1,mha:2", 10),
        ("gguf-zeroed", "mha:1", 12),
    ] {
        let out = path(&format!("{format}-{blocks}"));
        let args =
            ["export", "--model", "builtin:tiny", "--format", format, "--without", without, "--json", "--out", &out];
        let written = json(&args);
        assert_eq!((&written["kv_cache"], &written["kv_cache_read"]), (&cache(blocks), &cache(12)), "{format}");
    }
}
