//! A server that plays the Hugging Face hub, and a second one, another origin, that plays the store of its large files.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The commit of every repository here.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What a server was asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// What it answers.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// After so many bytes of the body the connection is closed.
    pub cut: Option<usize>,
    /// Or nothing more comes.
    pub stalls: bool,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), cut: None, stalls: false }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// A file, or the range of it that was asked for.
    fn file(request: &Request, bytes: &[u8], ranges: bool) -> Self {
        let range = request.range.as_deref().filter(|_| ranges).and_then(|range| {
            let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some((start.parse::<usize>().ok()?, end.parse::<usize>().ok()))
        });
        match range {
            None => Self::status(200).body(bytes),
            Some((start, _)) if start >= bytes.len() => Self::status(416),
            Some((start, end)) => {
                let end = end.map_or(bytes.len(), |end| bytes.len().min(end + 1));
                Self::status(206)
                    .header("Content-Range", format!("bytes {start}-{}/{}", end - 1, bytes.len()))
                    .body(&bytes[start..end])
            }
        }
    }
}

type Log = Arc<Mutex<Vec<Request>>>;

/// A server that answers until the process ends.
fn serve(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (log, answer) = (Log::default(), Arc::new(answer));
    let seen = log.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (seen, answer) = (seen.clone(), answer.clone());
            thread::spawn(move || connection(stream, &seen, answer.as_ref()));
        }
    });
    (url, log)
}

fn connection(stream: TcpStream, log: &Log, answer: &(impl Fn(&Request) -> Reply + ?Sized)) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut words = line.split_whitespace();
        let (method, path) = (words.next()?.to_string(), words.next()?.to_string());
        let mut request = Request { method, path, range: None, authorization: None };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => request.range = Some(value.trim().to_string()),
                "authorization" => request.authorization = Some(value.trim().to_string()),
                _ => {}
            }
        }
        log.lock().unwrap().push(request.clone());
        let Reply { status, headers, body, cut, stalls } = answer(&request);
        let mut head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        writer.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        if request.method != "HEAD" {
            writer.write_all(&body[..cut.unwrap_or(body.len()).min(body.len())]).ok()?;
            if cut.is_some_and(|cut| cut < body.len()) {
                if stalls {
                    // Until the other side goes away.
                    let _ = reader.read_line(&mut String::new());
                }
                let _ = writer.shutdown(std::net::Shutdown::Both);
                return None;
            }
        }
    }
}

/// What a repository does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Every connection to the store is closed after so many bytes.
    BreaksOff(usize),
    /// The store sends nothing more after so many bytes.
    Stalls(usize),
    /// The store sends other bytes, as many.
    OtherBytes,
    /// The store sends more than was announced.
    Longer,
    /// The store sends less than was announced, and says that this is all.
    Shorter,
    /// The store sends whole files only.
    NoRanges,
    /// So many requests are answered with this status and `Retry-After`, if that is not 0.
    Busy {
        requests: usize,
        status: u16,
        seconds: u64,
    },
    /// Files are given to those who have a token.
    Gated,
    /// And to those not before they have accepted the conditions.
    NotAccepted,
    /// A file is listed that is not there.
    Gone,
}

pub struct Repository {
    pub name: &'static str,
    /// By their paths. Safetensors, GGUF and PyTorch's files are large ones, which the store has.
    pub files: BTreeMap<String, Vec<u8>>,
    pub fault: Fault,
}

/// The two servers.
pub struct Hub {
    pub url: String,
    log: Log,
    store_log: Log,
}

impl Hub {
    pub fn new(repositories: Vec<Repository>) -> Self {
        let repositories = Arc::new(repositories);
        let stored = repositories.clone();
        let (store, store_log) = serve(move |request| from_store(&stored, request));
        let busy = Mutex::new(0);
        let (url, log) = serve(move |request| from_hub(&repositories, &store, &busy, request));
        Self { url, log, store_log }
    }

    pub fn with(name: &'static str, files: &[(&str, &[u8])], fault: Fault) -> Self {
        let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect();
        Self::new(vec![Repository { name, files, fault }])
    }

    /// What the hub itself was asked since this was asked last.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// What the store was asked since this was asked last.
    pub fn store_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.store_log.lock().unwrap())
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn git_sha1(bytes: &[u8]) -> String {
    let mut hash = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    hash.update(bytes);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_large(file: &str) -> bool {
    [".safetensors", ".gguf", ".bin"].iter().any(|end| file.ends_with(end))
}

fn find<'a>(repositories: &'a [Repository], path: &'a str) -> Option<(&'a Repository, &'a str)> {
    let path = path.trim_start_matches('/');
    let slash = path.match_indices('/').nth(1).map(|(at, _)| at)?;
    Some((repositories.iter().find(|repository| repository.name == &path[..slash])?, &path[slash + 1..]))
}

fn from_hub(repositories: &[Repository], store: &str, busy: &Mutex<usize>, request: &Request) -> Reply {
    let token = request.authorization.is_some();
    let unknown = || match token {
        true => Reply::status(404).header("X-Error-Code", "RepoNotFound"),
        false => Reply::status(401).header("X-Error-Code", "RepoNotFound"),
    };
    if request.authorization.as_deref().is_some_and(|token| token == "Bearer expired") {
        return Reply::status(401);
    }
    // As the hub does with small files: elsewhere on the same server.
    let (path, cached) = match request.path.strip_prefix("/api/resolve-cache/models") {
        Some(path) => (path, true),
        None => (request.path.strip_prefix("/api/models").unwrap_or(&request.path), false),
    };
    let Some((repository, rest)) = find(repositories, path) else { return unknown() };
    if let Fault::Busy { requests, status, seconds } = repository.fault {
        let mut asked = busy.lock().unwrap();
        *asked += 1;
        if *asked <= requests {
            let reply = Reply::status(status);
            return if seconds > 0 { reply.header("Retry-After", seconds) } else { reply };
        }
    }
    if let Some(revision) = rest.strip_prefix("revision/") {
        if ![COMMIT, "main", "refs%2Fpr%2F1"].contains(&revision) {
            return Reply::status(404).header("X-Error-Code", "RevisionNotFound");
        }
        let mut siblings: Vec<_> =
            repository.files.keys().map(|file| serde_json::json!({ "rfilename": file })).collect();
        siblings.push(serde_json::json!({ "rfilename": "../../outside.safetensors" }));
        return Reply::status(200).body(serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string());
    }
    if repository.fault == Fault::Gated && !token {
        return Reply::status(401).header("X-Error-Code", "GatedRepo");
    }
    if repository.fault == Fault::NotAccepted {
        return Reply::status(403).header("X-Error-Code", "GatedRepo");
    }
    let file = rest.strip_prefix(&format!("resolve/{COMMIT}/")).unwrap_or(rest);
    let Some(bytes) = repository.files.get(file).filter(|_| repository.fault != Fault::Gone) else {
        return Reply::status(404).header("X-Error-Code", "EntryNotFound");
    };
    match () {
        () if is_large(file) => Reply::status(302)
            .header("X-Repo-Commit", COMMIT)
            .header("X-Linked-Etag", format!("\"{}\"", sha256(bytes)))
            .header("X-Linked-Size", bytes.len())
            .header("Location", format!("{store}/{}/{file}?signature=x", repository.name)),
        () if cached => Reply::file(request, bytes, true).header("ETag", format!("\"{}\"", git_sha1(bytes))),
        () => Reply::status(307)
            .header("X-Repo-Commit", COMMIT)
            .header("Location", format!("/api/resolve-cache/models/{}/resolve/{COMMIT}/{file}", repository.name)),
    }
}

fn from_store(repositories: &[Repository], request: &Request) -> Reply {
    let path = request.path.split('?').next().unwrap();
    let Some((repository, file)) = find(repositories, path) else { return Reply::status(404) };
    let mut bytes = repository.files[file].clone();
    match repository.fault {
        Fault::OtherBytes => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        Fault::Longer => bytes.extend([0; 10]),
        Fault::Shorter => bytes.truncate(bytes.len() - 10),
        _ => {}
    }
    let reply = Reply::file(request, &bytes, repository.fault != Fault::NoRanges);
    match repository.fault {
        Fault::BreaksOff(after) => Reply { cut: Some(after), ..reply },
        Fault::Stalls(after) => Reply { cut: Some(after), stalls: true, ..reply },
        _ => reply,
    }
}
