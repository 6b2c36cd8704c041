//! HTTP natively, through `ureq`. Requests block: nothing else runs meanwhile.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use ureq::http::{self, Uri, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::fetch::{Answer, Fetch, FetchError};

/// As many redirects are followed.
const REDIRECTS: usize = 10;
/// A server that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// Requests to one server, with a token for it, and to those that it redirects to, without.
#[derive(Debug)]
pub(super) struct Http {
    agent: Agent,
    /// Scheme, host and port of the server that the token is for.
    origin: Option<Origin>,
    token: Option<String>,
    /// Whether the system has any certificates.
    trusting: bool,
}

type Origin = (String, String);

/// What a server says of a file without sending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileInfo {
    /// Bytes.
    pub size: u64,
    /// What tells its content from others: of large files their SHA-256, of others git's SHA-1.
    pub etag: String,
}

impl Http {
    /// `token` is sent to `endpoint` only. `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` count.
    pub fn new(endpoint: &str, token: Option<String>) -> Self {
        // Fails where the program has chosen already.
        let _ = CryptoProvider::install_default(ring::default_provider());
        let found = rustls_native_certs::load_native_certs().certs;
        let certificates: Vec<_> = found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let agent = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(certificates))).build())
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("blockpruner/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let origin = endpoint.parse().ok().and_then(|uri| origin(&uri));
        Self { agent, origin, token, trusting: !found.is_empty() }
    }

    /// What the server says of the file at `url`: the first one that knows it, before those that only store it.
    pub fn info(&self, url: &str) -> Result<FileInfo, FetchError> {
        let (response, linked) = self.follow(url, true, None).map_err(FetchError::NoAnswer)?;
        let response = match response.status().is_redirection() {
            true => response,
            false => answer(response).checked()?.body,
        };
        let own = |name: &str| value(&response, name);
        let Some(etag) = linked.etag.or_else(|| own("etag")).and_then(|etag| usable_etag(&etag)) else {
            return Err(FetchError::Unexpected("the server does not say which content it has (no usable ETag)".into()));
        };
        let size = linked.size.or_else(|| own("content-length")).and_then(|size| size.trim().parse().ok());
        let size = size.ok_or_else(|| FetchError::Unexpected("the server does not say how long it is".into()))?;
        Ok(FileInfo { size, etag })
    }

    /// The file at `url` from byte `start` on, to its end, asked for once.
    pub fn open(&self, url: &str, start: u64) -> Result<Answer<impl Read + use<>>, FetchError> {
        let range = (start > 0).then(|| format!("bytes={start}-"));
        let (response, _) = self.follow(url, false, range).map_err(FetchError::NoAnswer)?;
        let Answer { status, part, retry_after, code, body, .. } = answer(response).checked()?;
        Ok(Answer { status, part, retry_after, code, body: body.into_body().into_reader() })
    }

    /// The answer after all redirects, and what those on the way have said of the file. Asked only for what is known of it,
    /// the server that stores it is not troubled if that is said before.
    fn follow(
        &self,
        url: &str,
        only_ask: bool,
        range: Option<String>,
    ) -> Result<(http::Response<Body>, Linked), String> {
        let mut uri: Uri = url.parse().map_err(|error| format!("no address ({error})"))?;
        let mut linked = Linked::default();
        for _ in 0..=REDIRECTS {
            let mut request = if only_ask { self.agent.head(&uri) } else { self.agent.get(&uri) };
            // A compressed file has another length.
            request = request.header(header::ACCEPT_ENCODING, "identity");
            if let Some(range) = &range {
                request = request.header(header::RANGE, range);
            }
            if let Some(token) = self.token.as_ref().filter(|_| self.origin.is_some() && origin(&uri) == self.origin) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| match uri.scheme_str() {
                Some("https") if !self.trusting => {
                    let advice = "install them (on Debian: ca-certificates), or set SSL_CERT_FILE";
                    format!("no answer ({error}): this system has no certificates to know servers by; {advice}")
                }
                _ => format!("no answer ({error})"),
            })?;
            linked.etag = linked.etag.or_else(|| value(&response, "x-linked-etag"));
            linked.size = linked.size.or_else(|| value(&response, "x-linked-size"));
            let Some(location) = value(&response, "location").filter(|_| response.status().is_redirection()) else {
                return Ok((response, linked));
            };
            let next =
                joined(&uri, &location).ok_or_else(|| format!("it redirects to `{location}`, which is no address"))?;
            if only_ask && linked.etag.is_some() && linked.size.is_some() && origin(&next) != origin(&uri) {
                return Ok((response, linked));
            }
            uri = next;
        }
        Err(format!("more than {REDIRECTS} redirects"))
    }
}

/// What a hub says of a file when it redirects to the server that stores it.
#[derive(Default)]
struct Linked {
    etag: Option<String>,
    size: Option<String>,
}

fn value<B>(response: &http::Response<B>, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_string)
}

fn answer(response: http::Response<Body>) -> Answer<http::Response<Body>> {
    let headers = response.headers().clone();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_string);
    Answer::new(response.status().as_u16(), header, response)
}

/// Scheme, and host with port.
fn origin(uri: &Uri) -> Option<Origin> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, format!("{}:{port}", uri.host()?.to_ascii_lowercase())))
}

/// The address that a redirect from `from` leads to.
fn joined(from: &Uri, location: &str) -> Option<Uri> {
    // What is behind it is for browsers.
    let location = location.split('#').next()?;
    if location.contains("://") && !location.starts_with(['/', '?']) {
        return location.parse().ok();
    }
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    match location {
        _ if location.starts_with("//") => format!("{scheme}:{location}").parse().ok(),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}").parse().ok(),
        _ => {
            let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{authority}{folder}/{location}").parse().ok()
        }
    }
}

/// An ETag without its quotes, if it can name a file.
fn usable_etag(etag: &str) -> Option<String> {
    let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let usable = (1..=200).contains(&etag.len()) && !etag.starts_with('.') && etag.bytes().all(plain);
    usable.then(|| etag.to_string())
}

impl Fetch for Http {
    type Body = Body;
    type Kept = Vec<u8>;

    async fn get(&self, url: &str, range: Option<Range<u64>>) -> Result<Answer<Body>, String> {
        let range = range.map(|Range { start, end }| format!("bytes={start}-{}", end.saturating_sub(1)));
        let (response, _) = self.follow(url, false, range)?;
        let Answer { status, part, retry_after, code, body, .. } = answer(response);
        Ok(Answer { status, part, retry_after, code, body: body.into_body() })
    }

    async fn keep(&self, body: Body, most: u64) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let read = body.into_reader().take(most.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| error.to_string())?;
        match bytes.len() as u64 <= most {
            true => Ok(bytes),
            false => Err(format!("more than {most} bytes arrived")),
        }
    }

    async fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn redirects_lead_where_browsers_go() {
        let from: Uri = "https://hub.example:8443/org/name/resolve/main/a.json?x=1".parse().unwrap();
        let to = |location| joined(&from, location).map(|uri| uri.to_string()).unwrap_or_default();
        assert_eq!(to("https://cdn.example/a?b=1#c"), "https://cdn.example/a?b=1");
        assert_eq!(to("//cdn.example/a"), "https://cdn.example/a");
        assert_eq!(
            to("/api/cache/a?etag=%22x%22&u=http://y"),
            "https://hub.example:8443/api/cache/a?etag=%22x%22&u=http://y"
        );
        assert_eq!(to("b.json"), "https://hub.example:8443/org/name/resolve/main/b.json");
        let same = |a: &str, b: &str| origin(&a.parse().unwrap()) == origin(&b.parse().unwrap());
        assert!(same("https://Hub.example/a", "https://hub.example:443/b"));
        assert!(!same("https://hub.example/a", "http://hub.example/a"));
        assert!(!same("http://127.0.0.1:1/a", "http://127.0.0.1:2/a"));
        assert!(!same("https://hub.example/a", "https://hub.example.evil.example/a"));
    }

    #[test]
    fn etags_name_files_or_nothing() {
        assert_eq!(usable_etag("W/\"abc-1\"").as_deref(), Some("abc-1"));
        for wrong in ["\"\"", "../x", "a/b", "a\\b", ".hidden", "a b"] {
            assert_eq!(usable_etag(wrong), None, "{wrong}");
        }
    }
}
