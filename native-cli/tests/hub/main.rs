//! Models by their names: what is downloaded, what is not, and what is said when it cannot be.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use blockpruner::block_on;
use blockpruner::hub::{Hub, HubError, HubOptions, ModelName, Progress};
use blockpruner::model::Checkpoint;
use serde_json::Value;
use tempfile::TempDir;

use server::{COMMIT, Fault, Hub as Server, Repository, git_sha1, sha256};

const FIXTURES: &str = "../tests/fixtures";

/// A fixture's files, and some that no model needs.
fn repository(name: &'static str, fixture: &str, fault: Fault) -> Repository {
    let entries = fs::read_dir(Path::new(FIXTURES).join(fixture)).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let files = files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), fs::read(path).unwrap()));
    let mut files: std::collections::BTreeMap<_, _> = files.collect();
    for other in ["README.md", "LICENSE", "pytorch_model.bin", "original/model.safetensors", "onnx/model.onnx"] {
        files.insert(other.to_string(), other.as_bytes().to_vec());
    }
    Repository { name, files, fault }
}

fn tiny(fault: Fault) -> Server {
    Server::new(vec![repository("org/tiny", "llama-f32", fault)])
}

/// The fixture's weights, which the store has.
fn weights() -> Vec<u8> {
    fs::read(Path::new(FIXTURES).join("llama-f32/model.safetensors")).unwrap()
}

fn options(server: &Server, cache: &TempDir) -> HubOptions {
    HubOptions::new(cache.path()).endpoint(&server.url)
}

fn fetch_with(options: HubOptions, name: &str) -> Result<PathBuf, HubError> {
    block_on(Hub::new(options).fetch(&ModelName::parse(name).unwrap(), &mut |_| {}))
}

fn fetch(server: &Server, cache: &TempDir, name: &str) -> Result<PathBuf, HubError> {
    fetch_with(options(server, cache), name)
}

fn message(result: Result<PathBuf, HubError>) -> String {
    result.unwrap_err().to_string()
}

fn blobs(cache: &TempDir) -> PathBuf {
    cache.path().join("models--org--tiny/blobs")
}

/// Which files a repository was asked for.
fn asked(requests: &[server::Request]) -> Vec<&str> {
    let mut files: Vec<_> = requests.iter().map(|request| request.path.rsplit('/').next().unwrap()).collect();
    files.sort_unstable();
    files.dedup();
    files
}

#[test]
fn what_a_model_needs_comes_once_and_lies_where_others_look_for_it() {
    let (server, cache) = (tiny(Fault::None), tempfile::tempdir().unwrap());
    let mut told = Vec::new();
    let hub = Hub::new(options(&server, &cache).token(Some("secret".into())));
    let name = ModelName::parse("org/tiny").unwrap();
    let path = block_on(hub.fetch(&name, &mut |progress| {
        if let Progress::File { file, done, total } = progress {
            told.push((file.to_string(), done, total));
        }
    }));
    let path = path.unwrap();
    let folder = cache.path().join("models--org--tiny");
    assert_eq!(path, folder.join("snapshots").join(COMMIT));
    let mut files: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(
        files,
        ["LICENSE", "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    );
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    let weights = weights();
    assert_eq!(fs::read(folder.join("blobs").join(sha256(&weights))).unwrap(), weights);
    let config = fs::read(path.join("config.json")).unwrap();
    assert_eq!(fs::read(folder.join("blobs").join(git_sha1(&config))).unwrap(), config);
    #[cfg(unix)]
    assert!(fs::read_link(path.join("config.json")).unwrap().starts_with("../../blobs"));
    assert!(!fs::read_dir(folder.join("blobs")).unwrap().any(|blob| blob.unwrap().path().extension().is_some()));
    let length = weights.len() as u64;
    assert!(told.contains(&("model.safetensors".to_string(), length, length)), "{told:?}");
    // The token is for the hub, and for nobody else.
    let (requests, store) = (server.requests(), server.store_requests());
    assert!(requests.iter().all(|request| request.authorization.as_deref() == Some("Bearer secret")), "{requests:?}");
    assert!(!store.is_empty() && store.iter().all(|request| request.authorization.is_none()), "{store:?}");
    let checkpoint = block_on(Checkpoint::open(path.to_str().unwrap())).unwrap();
    assert_eq!(checkpoint.name, "org/tiny");
    assert!(checkpoint.side_files.iter().any(|(name, _)| name == "LICENSE"));

    // Again: only what is there is asked for. Offline: not even that.
    assert_eq!(fetch(&server, &cache, "org/tiny").unwrap(), path);
    assert_eq!(asked(&server.requests()), ["main"]);
    assert_eq!(fetch_with(options(&server, &cache).offline(true), "org/tiny").unwrap(), path);
    assert_eq!(fetch_with(options(&server, &cache).offline(true), &format!("org/tiny@{COMMIT}")).unwrap(), path);
    assert!(server.requests().is_empty() && server.store_requests().is_empty());
    let said = message(fetch_with(options(&server, &cache).offline(true), "org/tiny@other"));
    assert!(said.starts_with("org/tiny@other: HF_HUB_OFFLINE is set"), "{said}");
    fs::remove_file(path.join("model.safetensors")).unwrap();
    let said = message(fetch_with(options(&server, &cache).offline(true), "org/tiny"));
    assert!(said.contains("HF_HUB_OFFLINE") && said.contains("only in part"), "{said}");
    // A link that is lost costs no download.
    assert_eq!(fetch(&server, &cache, "org/tiny@refs/pr/1").unwrap(), path);
    assert!(path.join("model.safetensors").exists() && server.store_requests().is_empty());
    assert_eq!(fs::read_to_string(folder.join("refs/refs/pr/1")).unwrap(), COMMIT);
}

#[test]
fn a_broken_download_is_gone_on_with() {
    let (server, cache) = (tiny(Fault::BreaksOff(100_000)), tempfile::tempdir().unwrap());
    let path = fetch(&server, &cache, "org/tiny").unwrap();
    let weights = weights();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights);
    // Each time from where the one before broke off: more breaks than a request has attempts.
    let ranges: Vec<_> = server.store_requests().into_iter().map(|request| request.range).collect();
    assert_eq!(ranges.len(), weights.len().div_ceil(100_000));
    assert_eq!(ranges[0], None);
    assert!(ranges[1..].iter().all(Option::is_some), "{ranges:?}");
}

#[test]
fn a_server_without_ranges_sends_files_whole() {
    let (server, cache) = (tiny(Fault::NoRanges), tempfile::tempdir().unwrap());
    let weights = weights();
    fs::create_dir_all(blobs(&cache)).unwrap();
    fs::write(blobs(&cache).join(format!("{}.incomplete", sha256(&weights))), &weights[..400_000]).unwrap();
    let path = fetch(&server, &cache, "org/tiny").unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights);
}

#[test]
fn what_arrives_damaged_is_not_kept() {
    let weights = weights();
    let hash = sha256(&weights);
    let kept = |cache: &TempDir| {
        let blobs = fs::read_dir(blobs(cache)).unwrap().map(|blob| blob.unwrap());
        let of_weights = blobs.filter(|blob| blob.file_name().to_str().unwrap().starts_with(&hash));
        of_weights.map(|blob| blob.metadata().unwrap().len()).collect::<Vec<_>>()
    };
    let cases = [
        (Fault::OtherBytes, ["SHA-256", hash.as_str()], vec![]),
        (Fault::Longer, ["more than the 607016 bytes", "announced"], vec![0]),
        (Fault::Shorter, ["broke off", "607006 of 607016"], vec![607_006]),
    ];
    for (fault, parts, left) in cases {
        let (server, cache) = (tiny(fault), tempfile::tempdir().unwrap());
        let said = message(fetch(&server, &cache, "org/tiny"));
        assert!(
            said.contains("model.safetensors") && parts.iter().all(|part| said.contains(part)),
            "{fault:?}: {said}"
        );
        assert_eq!(kept(&cache), left, "{fault:?}");
        assert!(!cache.path().join("models--org--tiny/refs").exists(), "{fault:?}");
    }
    // Nor is what an earlier one has left, if it is something else.
    let (server, cache) = (tiny(Fault::None), tempfile::tempdir().unwrap());
    fs::create_dir_all(blobs(&cache)).unwrap();
    fs::write(blobs(&cache).join(format!("{hash}.incomplete")), vec![7; 400_000]).unwrap();
    assert!(matches!(fetch(&server, &cache, "org/tiny"), Err(HubError::Damaged { .. })));
    assert!(kept(&cache).is_empty());
    fetch(&server, &cache, "org/tiny").unwrap();
    assert_eq!(kept(&cache), [607_016]);
}

#[test]
fn what_a_hub_refuses_is_explained() {
    let refused = |fault, name: &str, token: Option<&str>, parts: &[&str]| {
        let (server, cache) = (tiny(fault), tempfile::tempdir().unwrap());
        let error = fetch_with(options(&server, &cache).token(token.map(str::to_string)), name).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, HubError::Refused { .. }), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)) && !said.contains("secret"), "{said}");
        assert!(server.store_requests().is_empty(), "{name}");
    };
    refused(Fault::None, "org/none", None, &["/org/none", "no such public repository (status 401)", "HF_TOKEN"]);
    refused(Fault::None, "org/none", Some("secret"), &["/org/none", "no such repository", "status 404"]);
    refused(Fault::None, "org/tiny", Some("expired"), &["does not accept the token (status 401)", "/settings/tokens"]);
    refused(Fault::None, "org/tiny@v9", None, &["no revision v9", "org/tiny@REVISION"]);
    refused(Fault::Gated, "org/tiny", None, &["gated (status 401)", "accept its conditions at http", "set HF_TOKEN"]);
    refused(Fault::NotAccepted, "org/tiny", Some("secret"), &["gated (status 403)", "with the account"]);
    refused(Fault::Gone, "org/tiny", None, &["config.json", "not there (status 404)"]);
    refused(Fault::None, "org/tiny/x.gguf", None, &["no file x.gguf", "GGUF"]);
    // With what it wants, it is given.
    let (server, cache) = (tiny(Fault::Gated), tempfile::tempdir().unwrap());
    fetch_with(options(&server, &cache).token(Some("secret".into())), "org/tiny").unwrap();
}

#[test]
fn a_busy_hub_is_asked_again_when_it_says() {
    let (server, cache) = (tiny(Fault::Busy { requests: 1, status: 429, seconds: 1 }), tempfile::tempdir().unwrap());
    let start = Instant::now();
    fetch(&server, &cache, "org/tiny").unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    let (server, cache) = (tiny(Fault::Busy { requests: 2, status: 503, seconds: 0 }), tempfile::tempdir().unwrap());
    fetch(&server, &cache, "org/tiny").unwrap();
    for (fault, part, requests) in [
        (Fault::Busy { requests: 9, status: 429, seconds: 3600 }, "try again in 3600 seconds", 1),
        (Fault::Busy { requests: 9, status: 500, seconds: 0 }, "status 500", 3),
    ] {
        let (server, cache) = (tiny(fault), tempfile::tempdir().unwrap());
        let error = fetch(&server, &cache, "org/tiny").unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, HubError::Network { .. }) && said.contains(part), "{said}");
        assert_eq!(server.requests().len(), requests, "{said}");
    }
}

#[test]
fn shards_are_those_of_the_index() {
    let (server, cache) =
        (Server::new(vec![repository("org/tiny", "llama-f16-sharded", Fault::None)]), tempfile::tempdir().unwrap());
    let path = fetch(&server, &cache, "org/tiny").unwrap();
    assert_eq!(server.store_requests().len(), 3);
    block_on(Checkpoint::open(path.to_str().unwrap())).unwrap();

    let mut climbing = repository("org/tiny", "llama-f16-sharded", Fault::None);
    let index = br#"{"weight_map": {"a": "../../../outside.safetensors"}}"#;
    climbing.files.insert("model.safetensors.index.json".into(), index.to_vec());
    let (server, cache) = (Server::new(vec![climbing]), tempfile::tempdir().unwrap());
    let said = message(fetch(&server, &cache, "org/tiny"));
    assert!(said.contains("no plain name"), "{said}");
    assert!(server.store_requests().is_empty());
}

#[test]
fn a_gguf_file_is_chosen_by_name_where_there_are_several() {
    let gguf = fs::read(Path::new(FIXTURES).join("gguf-legacy/model.gguf")).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let server = Server::with("org/tiny", &[("only.gguf", &gguf), ("README.md", b"x")], Fault::None);
    let path = fetch(&server, &cache, "org/tiny").unwrap();
    assert!(path.ends_with("only.gguf"));
    assert!(block_on(Checkpoint::open(path.to_str().unwrap())).unwrap().from_gguf);

    let cache = tempfile::tempdir().unwrap();
    let files: [(&str, &[u8]); 2] = [("a.gguf", b"not wanted"), ("Q8_0/b.gguf", &gguf)];
    let server = Server::with("org/tiny", &files, Fault::None);
    let said = message(fetch(&server, &cache, "org/tiny"));
    assert!(said.contains("2 GGUF models; give one of org/tiny/Q8_0/b.gguf, org/tiny/a.gguf"), "{said}");
    let path = fetch(&server, &cache, "org/tiny/Q8_0/b.gguf").unwrap();
    assert_eq!(fs::read(&path).unwrap(), gguf);
    assert_eq!(asked(&server.store_requests()), ["b.gguf?signature=x"]);
    // Its outline, without the file.
    let elsewhere = tempfile::tempdir().unwrap();
    let hub = Hub::new(options(&server, &elsewhere));
    let name = ModelName::parse("org/tiny/Q8_0/b.gguf").unwrap();
    assert!(block_on(hub.open(&name, &mut |_| {})).unwrap().from_gguf);
    assert!(!elsewhere.path().join("models--org--tiny/blobs").exists());
}

#[test]
fn an_outline_leaves_weights_where_they_are() {
    let (server, cache) = (tiny(Fault::None), tempfile::tempdir().unwrap());
    let (hub, name) = (Hub::new(options(&server, &cache)), ModelName::parse("org/tiny").unwrap());
    let mut files = Vec::new();
    let checkpoint = block_on(hub.open(&name, &mut |progress| {
        if let Progress::File { file, .. } = progress {
            files.push(file.to_string());
        }
    }));
    let checkpoint = checkpoint.unwrap();
    assert_eq!((checkpoint.name.as_str(), checkpoint.spec.family.name), ("org/tiny", "llama"));
    assert!(files.contains(&"tokenizer.json".to_string()) && !files.contains(&"model.safetensors".to_string()));
    assert!(!blobs(&cache).join(sha256(&weights())).exists());
    let read: Vec<_> = server.store_requests().into_iter().map(|request| request.range.unwrap()).collect();
    assert_eq!(read, ["bytes=0-262143"], "only the header is read");
    // What is read through ranges is what is there.
    let local = block_on(Checkpoint::open(&format!("{FIXTURES}/llama-f32"))).unwrap();
    let fingerprint = |checkpoint: &Checkpoint| block_on(checkpoint.weights.fingerprint()).unwrap();
    assert_eq!(fingerprint(&checkpoint), fingerprint(&local));
    let read = server.store_requests();
    assert_eq!(read.len(), 2, "the rest, each piece once: {read:?}");

    // Weights that are in the cache are read there.
    fetch(&server, &cache, "org/tiny").unwrap();
    server.store_requests();
    block_on(hub.open(&name, &mut |_| {})).unwrap();
    assert!(server.store_requests().is_empty());
    // A server that has no ranges is named.
    let (server, cache) = (tiny(Fault::NoRanges), tempfile::tempdir().unwrap());
    let error = block_on(Hub::new(options(&server, &cache)).open(&name, &mut |_| {})).err().unwrap().to_string();
    assert!(error.contains("model.safetensors") && error.contains("where a part of the file was asked for"), "{error}");
}

#[test]
fn two_processes_download_once() {
    let (server, cache) = (tiny(Fault::None), tempfile::tempdir().unwrap());
    let paths: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| fetch(&server, &cache, "org/tiny").unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(server.store_requests().len(), 1);
    for path in paths {
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    }
}

/// The program with a server and a cache.
fn program(server: &str, cache: &TempDir, offline: bool, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockpruner"));
    for variable in ["HF_HOME", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY"]
    {
        command.env_remove(variable);
    }
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.env("HF_ENDPOINT", server).env("HF_HUB_CACHE", cache.path()).args(args);
    if offline {
        command.env("HF_HUB_OFFLINE", "1");
    }
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_program_takes_names_for_models() {
    let (server, cache) = (tiny(Fault::None), tempfile::tempdir().unwrap());
    let run = |offline, args: &[&str]| {
        let output = program(&server.url, &cache, offline, args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        (serde_json::from_slice::<Value>(&output.stdout).unwrap(), stderr(&output))
    };
    let (report, _) = run(false, &["inspect", "--model", "org/tiny", "--json"]);
    assert_eq!((report["model"].as_str(), report["family"].as_str()), (Some("org/tiny"), Some("llama")));
    assert!(!blobs(&cache).join(sha256(&weights())).exists());

    let text = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hub-text.txt");
    fs::write(&text, "In the beginning was the word, and a second one after it. ".repeat(20)).unwrap();
    let text = text.to_str().unwrap();
    let perplexity =
        ["perplexity", "--model", "org/tiny", "--text", text, "--window", "32", "--max-windows", "2", "--json"];
    let (first, said) = run(false, &[&perplexity[..], &["--progress", "jsonl"]].concat());
    let downloads: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let whole = |event: &&Value| event["type"] == "download" && event["file"] == "model.safetensors";
    let last = downloads.iter().rfind(whole).unwrap();
    assert_eq!((last["done"].as_u64(), last["total"].as_u64()), (Some(607_016), Some(607_016)));
    assert!(said.contains("downloaded ") && said.contains("models--org--tiny"), "{said}");

    server.requests();
    let (again, said) = run(true, &perplexity);
    assert_eq!(first, again);
    assert!(!said.contains("downloaded") && server.requests().is_empty(), "{said}");
}

/// Waits until so many bytes of the weights have been written, and says where.
fn arrived(cache: &TempDir, bytes: usize) -> PathBuf {
    let unfinished = blobs(cache).join(format!("{}.incomplete", sha256(&weights())));
    let start = Instant::now();
    while fs::metadata(&unfinished).map_or(0, |file| file.len()) < bytes as u64 {
        assert!(start.elapsed() < Duration::from_secs(60), "the download does not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    unfinished
}

#[test]
fn what_a_killed_program_has_left_is_taken_up() {
    const ARRIVED: usize = 400_000;
    let (server, cache) = (tiny(Fault::Stalls(ARRIVED)), tempfile::tempdir().unwrap());
    let args = ["perplexity", "--model", "org/tiny", "--text", "builtin:sample"];
    let mut running = program(&server.url, &cache, false, &args).stderr(Stdio::null()).spawn().unwrap();
    let unfinished = arrived(&cache, ARRIVED);
    running.kill().unwrap();
    running.wait().unwrap();
    let server = tiny(Fault::None);
    let path = fetch(&server, &cache, "org/tiny").unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    let ranges: Vec<_> = server.store_requests().into_iter().map(|request| request.range.unwrap()).collect();
    assert_eq!(ranges, [format!("bytes={ARRIVED}-")]);
    assert!(!unfinished.exists());
}

/// Before there is anything to write, `export` has a folder beside `--out` already.
#[cfg(unix)]
#[test]
fn an_export_that_is_stopped_early_leaves_nothing() {
    const ARRIVED: usize = 400_000;
    let (server, cache) = (tiny(Fault::Stalls(ARRIVED)), tempfile::tempdir().unwrap());
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let args = ["export", "--model", "org/tiny", "--step", "0", "--out", out.to_str().unwrap()];
    let running = program(&server.url, &cache, false, &args).stderr(Stdio::piped()).spawn().unwrap();
    arrived(&cache, ARRIVED);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
    Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    let stopped = running.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(1));
    assert!(stderr(&stopped).contains("stopped; nothing was written"), "{}", stderr(&stopped));
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

#[test]
fn exit_codes_tell_bad_names_from_bad_lines() {
    let (server, cache) = (tiny(Fault::None), tempfile::tempdir().unwrap());
    let failure = |url: &str, offline, model: &str, code, parts: &[&str]| {
        let output = program(url, &cache, offline, &["inspect", "--model", model]).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(output.stdout.is_empty() && parts.iter().all(|part| said.contains(part)), "{said}");
    };
    failure(&server.url, false, "org/none", 2, &["org/none", "no such public repository", "no such folder or file"]);
    failure(&server.url, false, "org/tiny@v9", 2, &["no revision v9"]);
    failure(&server.url, true, "org/tiny", 2, &["HF_HUB_OFFLINE", "models--org--tiny"]);
    failure("nonsense", false, "org/tiny", 2, &["HF_ENDPOINT", "`nonsense`"]);
    // Nobody listens where somebody did.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    failure(&format!("http://{closed}"), false, "org/tiny", 1, &["no answer", "HF_ENDPOINT", "HF_HUB_OFFLINE=1"]);
    let (server, cache) = (tiny(Fault::OtherBytes), tempfile::tempdir().unwrap());
    let args = ["perplexity", "--model", "org/tiny", "--text", "builtin:sample"];
    let output = program(&server.url, &cache, false, &args).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("SHA-256"), "{}", stderr(&output));
}
