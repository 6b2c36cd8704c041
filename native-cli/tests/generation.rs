//! `evaluate --generation`: what a model writes beside what it writes without some blocks.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

fn evaluate(tasks: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockpruner"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.args(["evaluate", "--model", "builtin:tiny", "--without", "mha:0,mlp:0", "--tasks", tasks]).args(more);
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

    let output = evaluate(&tasks, &["--generation", prompts, "--max-tokens", "6", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
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

    let text = evaluate(&tasks, &["--generation", prompts, "--max-tokens", "6"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("\"The cat\"\n") && text.contains("of the tokens agree"), "{text}");

    for (more, message) in [
        (&["--generation", empty][..], "there is no prompt; write one on each line"),
        (&["--generation", "no-such-file"], "cannot read no-such-file"),
        (&["--max-tokens", "6"], "--generation"),
    ] {
        let output = evaluate(&tasks, more);
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(message), "{more:?}");
    }
}
