//! `evaluate --generation`: what a model writes beside what it writes without some blocks.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::process::{Command, Output};

use blockpruner::eval::Evaluation;
use serde_json::Value;

fn evaluate(more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockpruner"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.args(["evaluate", "--model", "builtin:tiny", "--without", "mha:0,mlp:0"]).args(more);
    command.output().unwrap()
}

#[test]
fn prompts_of_a_file_are_continued_twice() {
    let folder = tempfile::tempdir().unwrap();
    let [rows, prompts, empty] = ["piqa.jsonl", "prompts.txt", "empty.txt"].map(|name| folder.path().join(name));
    fs::write(
        &rows,
        "{\"goal\": \"Cut bread\", \"sol1\": \"Take a knife.\", \"sol2\": \"Take a spoon.\", \"label\": 0}\n",
    )
    .unwrap();
    fs::write(&prompts, "Once upon a time\n\nThe cat\n").unwrap();
    fs::write(&empty, "\n").unwrap();
    let tasks = format!("piqa={}", rows.display());
    let (prompts, empty) = (prompts.to_str().unwrap(), empty.to_str().unwrap());

    let success = |more: &[&str]| {
        let output = evaluate(&[&["--generation", prompts, "--max-tokens", "6"], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let found: Value = serde_json::from_str(&success(&["--tasks", &tasks, "--json"])).unwrap();
    let generation = &found["generation"];
    let each = generation["prompts"].as_array().unwrap();
    assert_eq!(
        each.iter().map(|found| found["prompt"].as_str().unwrap()).collect::<Vec<_>>(),
        ["Once upon a time", "The cat"]
    );
    for found in each {
        assert!(!found["dense"].as_str().unwrap().is_empty() && found["dense"] != found["pruned"], "{found}");
        let agreement = found["agreement"].as_f64().unwrap();
        let first = found["first_difference"].as_u64().unwrap();
        assert!(agreement < 1.0 && agreement * 6.0 >= first as f64, "{found}");
    }
    let mean = each.iter().map(|found| found["agreement"].as_f64().unwrap()).sum::<f64>() / 2.0;
    assert_eq!(generation["agreement"].as_f64().unwrap(), mean);

    // Alone, too, with nothing about tasks.
    let alone = success(&["--json"]);
    let read = Evaluation::parse("stdout", alone.as_bytes()).unwrap();
    assert!(read.tasks.is_empty() && read.mean.is_none() && read.seconds == 0.0, "{alone}");
    assert_eq!(&serde_json::from_str::<Value>(&alone).unwrap()["generation"], generation);
    let text = success(&[]);
    assert!(text.starts_with("\"Once upon a time\"\n") && text.contains("\"The cat\"\n"), "{text}");
    assert!(text.contains("of the tokens agree"), "{text}");

    for (more, message) in [
        (&["--generation", empty][..], "there is no prompt; write one on each line"),
        (&["--generation", "no-such-file"], "cannot read no-such-file"),
        (&["--tasks", &tasks, "--max-tokens", "6"], "--generation"),
        (&[], "--tasks"),
        // What is for tasks is refused without.
        (&["--generation", prompts, "--limit", "2"], "--tasks"),
        (&["--generation", prompts, "--bos", "never"], "--tasks"),
        (&["--generation", prompts, "--items", "items.jsonl"], "--tasks"),
        (&["--generation", prompts, "--against", "items.jsonl"], "--tasks"),
    ] {
        let output = evaluate(more);
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(message), "{more:?}");
    }
}
