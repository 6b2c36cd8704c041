//! Files on a web server, read by HTTP range requests.
//!
//! What was fetched is kept as `Blob`s, which the browser moves to disk when there are many: every byte is downloaded
//! once, though loading, fingerprint and export all read it. A server that ignores ranges or refuses them sends the
//! file whole, into one `Blob`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use blockpruner::model::Checkpoint;
use blockpruner::weights::{ByteSource, ReadFuture, WeightsError, pytorch, safetensors};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, Request, RequestInit, Response};

use crate::describe;
use crate::error::Error;
use crate::source::{BlobSource, read_blob};

/// Bytes of one range request: enough that latency does not matter, little enough to show progress.
const PIECE: u64 = 4 << 20;
/// So many files are looked for at a time, as browsers themselves limit it on HTTP/1.
const FILES_AT_ONCE: usize = 6;
/// A request that fails is made this often in all.
const ATTEMPTS: u32 = 3;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = fetch)]
    fn fetch_request(request: &Request) -> js_sys::Promise;
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &js_sys::Function, milliseconds: u32) -> JsValue;
}

type NamedSource = (String, Rc<dyn ByteSource>);

/// The files of the model at `url`: a `.gguf` file with the other parts if it is split, or a folder as Hugging Face lays it out, of
/// which `listed` are there if the caller knows.
pub async fn open(url: &str, listed: Option<Vec<String>>) -> Result<Vec<NamedSource>, Error> {
    let (path, query) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    if path.to_ascii_lowercase().ends_with(".gguf") {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let first = file(url, path).await?.ok_or_else(|| missing(url))?;
        let mut found = vec![(name.to_string(), first)];
        for part in Checkpoint::gguf_parts(name).filter(|part| part != name) {
            let path = format!("{folder}/{part}");
            // One that is not there is named by the library.
            let Some(source) = file(&format!("{path}{query}"), &path).await? else { break };
            found.push((part, source));
        }
        return Ok(found);
    }
    let folder = format!("{}/", url.trim_end_matches('/'));
    let listed = match listed {
        Some(names) => Some(names),
        None => hub_listing(&folder).await,
    };
    // Where nobody lists the folder, each file that a model may have is asked for, and some are not there.
    let there = |name: &&str| listed.as_ref().is_none_or(|listed| listed.iter().any(|there| there == name));
    let mut found = files(&folder, Checkpoint::usual_files().filter(there).map(str::to_string).collect()).await?;
    if found.is_empty() {
        return Err(missing(&folder));
    }
    let has = |found: &[NamedSource], end: &str| found.iter().any(|(name, _)| name.ends_with(end));
    if !has(&found, ".safetensors") && !has(&found, ".safetensors.index.json") {
        let pytorch = Checkpoint::usual_pytorch_files().filter(there).map(str::to_string).collect();
        found.extend(files(&folder, pytorch).await?);
    }
    if !has(&found, ".safetensors")
        && !has(&found, ".bin")
        && let Some((name, index)) = found.iter().find(|(name, _)| name.ends_with(".index.json"))
    {
        let text = index.read(0, index.len() as usize).await?;
        let shards = match name.ends_with(".bin.index.json") {
            true => pytorch::shard_files(&text)?,
            false => safetensors::shard_files(&text)?,
        };
        // One that is not there is named by the library, which knows what it is for.
        found.extend(files(&folder, shards).await?);
    }
    Ok(found)
}

/// The names of a repository's files, as a hub lists them: that of `HUB/OWNER/NAME/resolve/REVISION/`. None for other
/// addresses, and where the hub does not say.
async fn hub_listing(folder: &str) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Listing {
        siblings: Vec<Sibling>,
    }
    #[derive(Deserialize)]
    struct Sibling {
        rfilename: String,
    }
    let (repository, revision) = folder.split_once("/resolve/")?;
    let revision = revision.strip_suffix('/').filter(|revision| !revision.contains('/'))?;
    let mut parts = repository.rsplitn(3, '/');
    let (name, owner, hub) = (parts.next()?, parts.next()?, parts.next()?);
    let response = fetch(&format!("{hub}/api/models/{owner}/{name}/revision/{revision}"), None).await.ok()?;
    if !response.ok() {
        return None;
    }
    let text = JsFuture::from(response.text().ok()?).await.ok()?.as_string()?;
    let Listing { siblings } = serde_json::from_str(&text).ok()?;
    Some(siblings.into_iter().map(|file| file.rfilename).collect())
}

fn missing(url: &str) -> Error {
    let reason = "there is no model here: expected config.json and model.safetensors, or a .gguf file".to_string();
    Error::Network { url: url.to_string(), reason }
}

/// Those files of a folder that are there, looked for some at a time. Whatever characters a name has, none of them is syntax of
/// the address.
async fn files(folder: &str, names: Vec<String>) -> Result<Vec<NamedSource>, Error> {
    let look = |name: String| async move {
        let url = format!("{folder}{}", String::from(js_sys::encode_uri_component(&name)));
        let source = file(&url, &format!("{folder}{name}")).await?;
        Ok::<_, Error>(source.map(|source| (name, source)))
    };
    let found: Vec<Option<NamedSource>> = stream::iter(names).map(look).buffered(FILES_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// The file at `url`, if it is there; messages call it `name`.
async fn file(url: &str, name: &str) -> Result<Option<Rc<dyn ByteSource>>, Error> {
    let network = |reason: String| Error::Network { url: name.to_string(), reason };
    let first = retried(|| fetch(url, Some((0, 1)))).await.map_err(network)?;
    let source: Rc<dyn ByteSource> = match first.status() {
        404 | 410 => return Ok(None),
        206 => match length(&first) {
            Some(len) => {
                let (url, name) = (url.to_string(), name.to_string());
                Rc::new(RangeSource { url, name, len, pieces: RefCell::default() })
            }
            // Content-Range is not among the headers that a page may see unless the server says so.
            None => whole(name, fetch(url, None).await.map_err(network)?).await?,
        },
        200 => whole(name, first).await?,
        401 | 403 => {
            let reason = format!("the server refuses it (status {}): is the model private or gated?", first.status());
            return Err(network(reason));
        }
        // Some servers answer a range request with an error instead of ignoring the range.
        status => match fetch(url, None).await.map_err(network)? {
            response if response.ok() => whole(name, response).await?,
            _ => return Err(network(format!("the server answers with status {status}"))),
        },
    };
    Ok(Some(source))
}

/// The whole file of a response, as the browser keeps it.
async fn whole(name: &str, response: Response) -> Result<Rc<dyn ByteSource>, Error> {
    let failed = |reason: String| Error::Network { url: name.to_string(), reason };
    if !response.ok() {
        return Err(failed(format!("the server answers with status {}", response.status())));
    }
    let blob =
        blob(&response).await.map_err(|reason| failed(format!("the download broke off ({reason}); try again")))?;
    Ok(Rc::new(BlobSource::new(name, blob)))
}

/// The total after the slash of `Content-Range: bytes 0-0/1234`.
fn length(response: &Response) -> Option<u64> {
    let range = response.headers().get("content-range").ok()??;
    range.rsplit_once('/')?.1.parse().ok()
}

async fn blob(response: &Response) -> Result<Blob, String> {
    let promise = response.blob().map_err(|error| describe(&error))?;
    let blob = JsFuture::from(promise).await.map_err(|error| describe(&error))?;
    blob.dyn_into::<Blob>().map_err(|_| "no data".to_string())
}

/// One request; with `range`, for its bytes `start .. end`.
async fn fetch(url: &str, range: Option<(u64, u64)>) -> Result<Response, String> {
    let request = Request::new_with_str_and_init(url, &RequestInit::new()).map_err(|error| describe(&error))?;
    if let Some((start, end)) = range {
        let header = request.headers().set("Range", &format!("bytes={start}-{}", end - 1));
        header.map_err(|error| describe(&error))?;
    }
    let response = JsFuture::from(fetch_request(&request)).await.map_err(|error| {
        format!(
            "no answer ({}): check the address and the network; a server of another site must allow cross-origin requests",
            describe(&error)
        )
    })?;
    response.dyn_into::<Response>().map_err(|_| "no response".to_string())
}

/// Tries again after 0.5 and 1 seconds.
async fn retried<T, F: Future<Output = Result<T, String>>>(attempt: impl Fn() -> F) -> Result<T, String> {
    let mut number = 1;
    loop {
        match attempt().await {
            Err(_) if number < ATTEMPTS => sleep(500 * number).await,
            result => return result,
        }
        number += 1;
    }
}

async fn sleep(milliseconds: u32) {
    let promise = js_sys::Promise::new(&mut |resolve, _| {
        set_timeout(&resolve, milliseconds);
    });
    // Never rejected.
    let _ = JsFuture::from(promise).await;
}

/// A file of known length on a server that honours ranges.
struct RangeSource {
    url: String,
    /// What messages call it, with the file's own name at the end.
    name: String,
    len: u64,
    /// By number: bytes from `number * PIECE` on.
    pieces: RefCell<BTreeMap<u64, Blob>>,
}

impl RangeSource {
    async fn piece(&self, number: u64) -> Result<Blob, String> {
        if let Some(piece) = self.pieces.borrow().get(&number) {
            return Ok(piece.clone());
        }
        let (start, end) = (number * PIECE, self.len.min((number + 1) * PIECE));
        let piece = retried(|| self.download(start, end)).await?;
        self.pieces.borrow_mut().insert(number, piece.clone());
        Ok(piece)
    }

    async fn download(&self, start: u64, end: u64) -> Result<Blob, String> {
        let response = fetch(&self.url, Some((start, end))).await?;
        if response.status() != 206 {
            return Err(format!("the server answers with status {} where it sent ranges before", response.status()));
        }
        if length(&response).is_some_and(|len| len != self.len) {
            return Err("the file changed meanwhile; load it again".to_string());
        }
        let piece = blob(&response).await?;
        match piece.size() as u64 == end - start {
            true => Ok(piece),
            false => Err(format!("{} bytes arrived instead of {}", piece.size(), end - start)),
        }
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, String> {
        let end = offset + len as u64;
        let mut bytes = Vec::with_capacity(len);
        for number in offset / PIECE..end.div_ceil(PIECE) {
            let piece = self.piece(number).await?;
            let start = number * PIECE;
            let within = offset.max(start) - start..end.min(start + PIECE) - start;
            bytes.extend(read_blob(&piece, within.start, (within.end - within.start) as usize).await?);
        }
        Ok(bytes)
    }
}

impl ByteSource for RangeSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read<'a>(&'a self, offset: u64, len: usize) -> ReadFuture<'a> {
        Box::pin(async move {
            if len == 0 {
                return Ok(Vec::new());
            }
            self.read(offset, len).await.map_err(|reason| WeightsError::Read {
                file: self.name.clone(),
                offset,
                len: len as u64,
                reason,
            })
        })
    }
}
