//! What a run does to what is in its folders already.

use super::*;

/// A finished pruning of one block.
fn finished(root: &Path) -> String {
    let out = root.join("out").to_str().unwrap().to_string();
    success(&prune(&out, &["--remove", "1"]));
    out
}

#[test]
fn a_model_is_not_replaced_by_its_own_result() {
    let root = tempfile::tempdir().unwrap();
    let out = finished(root.path());
    let model = format!("{out}/model");
    let weights = || fs::read(Path::new(&model).join("model.safetensors")).unwrap();
    let before = weights();
    let args = ["prune", "--model", &model, "--remove", "2", "--out", &out, "--resume"];
    failure(&[&args[..], &SMALL[2..]].concat(), 2, "where the smaller one is written; move it");
    assert!(weights() == before);
}

#[test]
fn a_model_that_was_moved_away_is_written_again() {
    let root = tempfile::tempdir().unwrap();
    let out = finished(root.path());
    let again = prune(&out, &["--remove", "1", "--resume"]);
    failure(&again, 2, "is finished, there is nothing to resume");
    fs::rename(Path::new(&out).join("model"), root.path().join("moved")).unwrap();
    success(&again);
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&Path::new(&out).join("model")) == weights(&root.path().join("moved")));
}

/// A network disk that fails does the same.
#[test]
fn a_model_file_that_fails_ends_with_the_search_saved() {
    let root = tempfile::tempdir().unwrap();
    let (model, out) = (root.path().join("copy"), root.path().join("out"));
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir("../assets/tiny").unwrap().map(|entry| entry.unwrap()) {
        fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    let args = ["prune", "--model", model.to_str().unwrap(), "--out", out.to_str().unwrap(), "--remove", "12"];
    let streamed = ["--memory-budget", "8MiB", "--exhaustive"];
    let child = started(&[&args[..], &SMALL[2..], &streamed].concat(), &out, |_| true);
    let weights = fs::File::options().write(true).open(model.join("model.safetensors")).unwrap();
    weights.set_len(100_000).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("model.safetensors"), "{}", stderr(&output));
    assert!(stderr(&output).contains("--resume"), "{}", stderr(&output));
}
