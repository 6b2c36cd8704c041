//! `blockpruner evaluate` as its users run it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use blockpruner::eval::{Evaluation, Task};

/// As the hub has them.
const PIQA: &str = r#"{"goal": "And it came to pass", "sol1": "in those days, that the king", "sol2": "blue seven of run", "label": 0}
{"goal": "In the beginning", "sol1": "table", "sol2": "God created the heaven and the earth.", "label": "1"}
{"goal": "The LORD", "sol1": "said unto Moses", "sol2": "purple", "label": 1}
"#;
const WINOGRANDE: &str = r#"[{"sentence": "The king saw the servant, and _ was angry with him.", "option1": "the king", "option2": "the servant", "answer": "1"},
{"sentence": "The king fed the ox because _ was hungry.", "option1": "the king", "option2": "the ox", "answer": "2"}]"#;
const LAMBADA: &str =
    "{\"text\": \"In the beginning God created the heaven and the earth\"}\n{\"text\": \"And God said unto Moses\"}\n";

/// The same in short.
const SIMPLE_PIQA: &str = r#"{"ctx": "And it came to pass", "choices": ["in those days, that the king", "blue seven of run"], "gold": 0}
{"ctx": "In the beginning", "choices": ["table", "God created the heaven and the earth."], "gold": 1}
{"ctx": "The LORD", "choices": ["said unto Moses", "purple"], "gold": 1}
"#;
const SIMPLE_WINOGRANDE: &str = r#"{"ctx": "The king saw the servant, and _ was angry with him.", "choices": ["the king", "the servant"], "gold": 0}
{"ctx": "The king fed the ox because _ was hungry.", "choices": ["the king", "the ox"], "gold": 1}
"#;

fn evaluate(root: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockpruner"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).current_dir(root);
    command.args(["evaluate", "--model", "builtin:tiny"]).args(args).output().unwrap()
}

fn success(root: &Path, args: &[&str]) -> String {
    let output = evaluate(root, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn failure(root: &Path, args: &[&str], expected: &str) {
    let output = evaluate(root, args);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    assert!(output.stdout.is_empty() && message.contains(expected), "{args:?}: {message}");
}

fn files() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let files = [
        ("piqa.jsonl", PIQA),
        ("winogrande.json", WINOGRANDE),
        ("lambada.jsonl", LAMBADA),
        ("simple_piqa.jsonl", SIMPLE_PIQA),
        ("simple_winogrande.jsonl", SIMPLE_WINOGRANDE),
    ];
    files.iter().for_each(|(file, text)| fs::write(root.path().join(file), text).unwrap());
    root
}

#[test]
fn tasks_are_evaluated_and_runs_compared() {
    let root = files();
    let root = root.path();
    let hub =
        ["--tasks", "piqa=piqa.jsonl", "--tasks", "winogrande=winogrande.json", "--tasks", "lambada=lambada.jsonl"];
    let json = success(root, &[&hub[..], &["--items", "hub.jsonl", "--json"]].concat());
    let dense = Evaluation::parse("stdout", json.as_bytes()).unwrap();
    assert_eq!((dense.model.name.as_str(), dense.removed.len(), dense.tasks.len()), ("builtin:tiny", 0, 3));
    let (piqa, winogrande) = (&dense.tasks[&Task::Piqa], &dense.tasks[&Task::Winogrande]);
    assert_eq!((piqa.items, winogrande.items, dense.tasks[&Task::Lambada].items), (3, 2, 2));
    // Scripture against no sentence at all; the third row's label is the wrong one.
    assert_eq!((piqa.acc, piqa.acc_norm), (2.0 / 3.0, Some(2.0 / 3.0)));
    assert!((piqa.acc_stderr.unwrap() - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(dense.mean, Some((2.0 / 3.0 + winogrande.acc) / 2.0));
    assert!(dense.tasks[&Task::Lambada].perplexity.unwrap() > 1.0);

    // What is asked is the same in either form.
    let simple = ["--tasks", "winogrande=simple_winogrande.jsonl", "--tasks", "lambada=lambada.jsonl"];
    let more = ["--tasks", "piqa=simple_piqa.jsonl", "--items", "simple.jsonl", "--bos", "never"];
    let table = success(root, &[&simple[..], &more].concat());
    assert!(table.lines().any(|line| line.starts_with("piqa               3  0.6667 \u{b1} 0.3333")), "{table}");
    assert!(table.contains("mean ") && table.contains("piqa acc_norm, winogrande acc"), "{table}");
    let items = |file: &str| {
        let text = fs::read_to_string(root.join(file)).unwrap();
        let mut lines: Vec<_> = text.lines().skip(1).map(String::from).collect();
        lines.sort();
        lines
    };
    assert_eq!(items("hub.jsonl").len(), 7);
    assert_eq!(items("hub.jsonl"), items("simple.jsonl"));

    let without = ["--without", "mha:0,mlp:0", "--against", "hub.jsonl", "--json"];
    let pruned = Evaluation::parse("stdout", success(root, &[&hub[..], &without].concat()).as_bytes()).unwrap();
    assert_eq!(pruned.removed.to_string(), "mha:0,mlp:0");
    for (task, difference) in &pruned.differences {
        let expected = pruned.tasks[task].acc - dense.tasks[task].acc;
        assert!((difference.acc.difference - expected).abs() < 1e-12, "{task}: {difference:?}");
    }
    assert_eq!(pruned.differences.len(), 3);
}

/// Items never take the place of what is read.
#[test]
fn items_do_not_replace_what_is_read() {
    let root = files();
    let root = root.path();
    fs::write(root.join("prompts.txt"), "And it came to pass\n").unwrap();
    fs::write(root.join("order.json"), r#"{"1": [["mha", 2]]}"#).unwrap();
    fs::copy("../tests/fixtures/gguf-floats/model.gguf", root.join("m.gguf")).unwrap();
    let piqa = ["--tasks", "piqa=piqa.jsonl"];
    success(root, &[&piqa[..], &["--items", "items.jsonl"]].concat());
    let read = |file: &str| fs::read(root.join(file)).unwrap();
    for (file, args) in [
        ("piqa.jsonl", &[][..]),
        ("items.jsonl", &["--against", "items.jsonl"]),
        ("prompts.txt", &["--generation", "prompts.txt"]),
        ("order.json", &["--plan", "order.json"]),
    ] {
        let before = read(file);
        failure(root, &[&piqa[..], &["--items", file], args].concat(), "is read by the same command");
        assert_eq!(read(file), before, "{file}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockpruner"));
    command.current_dir(root).args(["evaluate", "--model", "m.gguf", "--items", "m.gguf"]).args(piqa);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Where they cannot be written shows before the work; if it fails at the end all the same, what was found is not lost.
#[cfg(target_os = "linux")]
#[test]
fn a_result_is_printed_whatever_becomes_of_its_items() {
    let root = files();
    let piqa = ["--tasks", "piqa=piqa.jsonl", "--json", "--items"];
    failure(root.path(), &[&piqa[..], &["/proc/x.jsonl"]].concat(), "--items /proc/x.jsonl: No such file");
    let output = evaluate(root.path(), &[&piqa[..], &["/dev/full"]].concat());
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("cannot write /dev/full: No space left"), "{message}");
    assert_eq!(Evaluation::parse("stdout", &output.stdout).unwrap().tasks[&Task::Piqa].items, 3);
}

#[test]
fn bad_input_is_named_before_the_work() {
    let root = files();
    let root = root.path();
    fs::write(
        root.join("bad.jsonl"),
        [PIQA, "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\", \"label\": 2}\n"].concat(),
    )
    .unwrap();
    fs::write(root.join("items.jsonl"), "{\"format\": \"blockpruner-items/9\"}\n").unwrap();
    for (args, expected) in [
        (&["--tasks", "boolq=piqa.jsonl"][..], "there is no task `boolq`"),
        (&["--tasks", "piqa"], "expected NAME=FILE"),
        (&["--tasks", "piqa=none.jsonl"], "none.jsonl"),
        (&["--tasks", "piqa=bad.jsonl"], "bad.jsonl: row 4 is no item of piqa: choice 2"),
        (&["--tasks", "piqa=lambada.jsonl"], "row 1 is no item of piqa: it has no field `sol1` (its fields: `text`)"),
        (&["--tasks", "piqa=piqa.jsonl", "--limit", "0"], "at least 1"),
        (&["--tasks", "piqa=piqa.jsonl", "--bos", "always"], "expected auto or never"),
        (&["--tasks", "piqa=piqa.jsonl", "--items", "no/such.jsonl"], "there is no folder no"),
        (&["--tasks", "piqa=piqa.jsonl", "--against", "items.jsonl"], "blockpruner-items/9"),
        (&["--tasks", "piqa=piqa.jsonl", "--without", "mha:12"], "mha:12"),
        (&["--tasks", "piqa=piqa.jsonl", "--step", "2"], "--step 2 of which pruning"),
        (&[], "--tasks"),
    ] {
        failure(root, args, expected);
    }
    let twice = ["--tasks", "piqa=piqa.jsonl", "--tasks", "piqa=simple_piqa.jsonl"];
    failure(root, &twice, "the task piqa is there twice");
}
