//! Files on a web server, read by HTTP range requests.
//!
//! What was fetched is kept as `Blob`s, which the browser moves to disk when there are many: every byte is downloaded
//! once, though loading, fingerprint and export all read it. A server that ignores ranges or refuses them sends the
//! file whole, into one `Blob`. Which files a model needs and what answers mean, the library's `hub` says.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use blockpruner::hub::{
    Answer, Fetch, FetchError, Kept, Listing, Part, Place, RemoteSource, ask, encoded, folder_files,
};
use blockpruner::model::Checkpoint;
use blockpruner::weights::{ByteSource, NamedSources};
use futures_util::stream::{self, StreamExt, TryStreamExt};
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

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = fetch)]
    fn fetch_request(request: &Request) -> js_sys::Promise;
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &js_sys::Function, milliseconds: u32) -> JsValue;
}

/// The files of the model at `url`: a `.gguf` file with the other parts if it is split, or a folder as Hugging Face lays it out, of
/// which `listed` are there if the caller knows.
pub async fn open(url: &str, listed: Option<Vec<String>>) -> Result<NamedSources, Error> {
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
    let found = folder_files(listed.as_deref(), async |names| files(&folder, names).await).await?;
    if found.is_empty() {
        return Err(missing(&folder));
    }
    Ok(found)
}

/// The names of a repository's files, as a hub lists them: that of `HUB/OWNER/NAME/resolve/REVISION/`. None for other
/// addresses, and where the hub does not say.
async fn hub_listing(folder: &str) -> Option<Vec<String>> {
    let Listing { files, .. } = Place::of_folder(folder)?.listing(&Browser).await.ok()?;
    Some(files)
}

fn missing(url: &str) -> Error {
    let reason = "there is no model here: expected config.json and model.safetensors, or a .gguf file".to_string();
    Error::Network { url: url.to_string(), reason }
}

/// Those files of a folder that are there, looked for some at a time. Whatever characters a name has, none of them is syntax of
/// the address.
async fn files(folder: &str, names: Vec<String>) -> Result<NamedSources, Error> {
    let look = |name: String| async move {
        let source = file(&format!("{folder}{}", encoded(&name)), &format!("{folder}{name}")).await?;
        Ok::<_, Error>(source.map(|source| (name, source)))
    };
    let found: Vec<Option<_>> = stream::iter(names).map(look).buffered(FILES_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// The file at `url`, if it is there; messages call it `name`.
async fn file(url: &str, name: &str) -> Result<Option<Rc<dyn ByteSource>>, Error> {
    let network = |error: FetchError| Error::Network { url: name.to_string(), reason: error.to_string() };
    let source: Rc<dyn ByteSource> = match ask(&Browser, url, Some(0..1)).await {
        Err(FetchError::Missing { .. }) => return Ok(None),
        Ok(answer) if answer.status == 206 => match answer.part {
            Some(Part { total, .. }) => Rc::new(RemoteSource::new(Rc::new(Browser), url, name, total, PIECE)),
            // Content-Range is not among the headers that a page may see unless the server says so.
            None => whole(name, ask(&Browser, url, None).await.map_err(network)?).await?,
        },
        Ok(answer) => whole(name, answer).await?,
        // Some servers answer a range request with an error instead of ignoring the range.
        Err(error @ FetchError::Status { .. }) => match ask(&Browser, url, None).await {
            Ok(answer) => whole(name, answer).await?,
            Err(_) => return Err(network(error)),
        },
        Err(error) => return Err(network(error)),
    };
    Ok(Some(source))
}

/// The whole file of an answer, as the browser keeps it.
async fn whole(name: &str, answer: Answer<Response>) -> Result<Rc<dyn ByteSource>, Error> {
    let Piece(blob) = Browser
        .keep(answer.body, u64::MAX)
        .await
        .map_err(|reason| Error::Network { url: name.to_string(), reason: FetchError::BrokeOff(reason).to_string() })?;
    Ok(Rc::new(BlobSource::new(name, blob)))
}

/// The browser's `fetch`.
struct Browser;

/// Bytes that the browser keeps.
struct Piece(Blob);

impl Fetch for Browser {
    type Body = Response;
    type Kept = Piece;

    async fn get(&self, url: &str, range: Option<Range<u64>>) -> Result<Answer<Response>, String> {
        let request = Request::new_with_str_and_init(url, &RequestInit::new()).map_err(|error| describe(&error))?;
        if let Some(Range { start, end }) = range {
            let header = request.headers().set("Range", &format!("bytes={start}-{}", end.saturating_sub(1)));
            header.map_err(|error| describe(&error))?;
        }
        let response = JsFuture::from(fetch_request(&request)).await.map_err(|error| {
            format!(
                "no answer ({}): check the address and the network; a server of another site must allow cross-origin \
                 requests",
                describe(&error)
            )
        })?;
        let response = response.dyn_into::<Response>().map_err(|_| "no response".to_string())?;
        let headers = response.headers();
        Ok(Answer::new(response.status(), |name| headers.get(name).ok().flatten(), response))
    }

    async fn keep(&self, body: Response, _most: u64) -> Result<Piece, String> {
        let promise = body.blob().map_err(|error| describe(&error))?;
        let blob = JsFuture::from(promise).await.map_err(|error| describe(&error))?;
        blob.dyn_into().map(Piece).map_err(|_| "no data".to_string())
    }

    async fn wait(&self, time: Duration) {
        let milliseconds = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let promise = js_sys::Promise::new(&mut |resolve, _| {
            set_timeout(&resolve, milliseconds);
        });
        // Never rejected.
        let _ = JsFuture::from(promise).await;
    }
}

impl Kept for Piece {
    fn size(&self) -> u64 {
        self.0.size() as u64
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, String> {
        read_blob(&self.0, offset, len).await
    }
}
