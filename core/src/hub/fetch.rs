//! One HTTP request, whoever makes it; what its answer means; when it is made again.

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

/// A request that fails is made this often in all.
pub(crate) const ATTEMPTS: u32 = 3;
/// The longest that a server is waited for which says when to come again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Makes HTTP requests: natively through a client of its own, in a browser by the browser's `fetch`. Futures need not be `Send`.
///
/// Redirects are followed. Credentials, if there are any, are this side's business, and go to no server but the one that
/// they are for.
pub trait Fetch {
    /// The body of an answer, which has not been read yet.
    type Body;
    /// Bytes that have been read, where they are kept.
    type Kept: Kept;

    /// The answer to one GET request, whatever its status; with `range`, for these bytes of the file only.
    ///
    /// # Errors
    /// In words, why there is no answer.
    fn get(&self, url: &str, range: Option<Range<u64>>) -> impl Future<Output = Result<Answer<Self::Body>, String>>;

    /// Reads a body to its end.
    ///
    /// # Errors
    /// In words, why the end did not come, or that more than `most` bytes came.
    fn keep(&self, body: Self::Body, most: u64) -> impl Future<Output = Result<Self::Kept, String>>;

    /// Lets time pass.
    fn wait(&self, time: Duration) -> impl Future<Output = ()>;
}

/// Bytes that a [`Fetch`] keeps: in memory, or where a browser keeps its `Blob`s.
pub trait Kept {
    /// How many there are.
    fn size(&self) -> u64;

    /// `len` bytes from `offset`.
    ///
    /// # Errors
    /// In words, why they cannot be had.
    fn read(&self, offset: u64, len: usize) -> impl Future<Output = Result<Vec<u8>, String>>;
}

impl Kept for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, String> {
        let bytes = usize::try_from(offset).ok().and_then(|start| self.get(start..start.checked_add(len)?));
        bytes.map(<[u8]>::to_vec).ok_or_else(|| format!("there are only {} bytes", self.len()))
    }
}

/// What a server answers.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer<B> {
    /// The HTTP status.
    pub status: u16,
    /// Which part of the file it is, by `Content-Range`, if the server says so.
    pub part: Option<Part>,
    /// When to ask again, by `Retry-After` or, if it is asked too often, by `RateLimit`.
    pub retry_after: Option<Duration>,
    /// Which of its errors it is, by `X-Error-Code`, which the hub sends.
    pub code: Option<String>,
    /// The body.
    pub body: B,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// Its first byte.
    pub start: u64,
    /// Bytes of the whole file.
    pub total: u64,
}

impl<B> Answer<B> {
    /// An answer whose headers `header` has by their names in lower case.
    pub fn new(status: u16, header: impl Fn(&str) -> Option<String>, body: B) -> Self {
        let part = header("content-range").and_then(|range| {
            // `bytes 0-1/1234`.
            let (range, total) = range.strip_prefix("bytes")?.trim().split_once('/')?;
            let (start, _) = range.split_once('-')?;
            Some(Part { start: start.trim().parse().ok()?, total: total.trim().parse().ok()? })
        });
        let seconds = |text: &str| text.trim().parse().ok().map(Duration::from_secs);
        let retry_after = header("retry-after").and_then(|time| seconds(&time)).or_else(|| {
            // `"api";r=0;t=55`: the hub's only word on it (draft-ietf-httpapi-ratelimit-headers).
            let limit = header("ratelimit").filter(|_| status == 429)?;
            limit.split(';').find_map(|field| seconds(field.trim().strip_prefix("t=")?))
        });
        Self { status, part, retry_after, code: header("x-error-code"), body }
    }

    /// The answer, if it is one to read.
    ///
    /// # Errors
    /// What its status means.
    pub fn checked(self) -> Result<Self, FetchError> {
        match self.status {
            200..=299 => Ok(self),
            404 | 410 => Err(FetchError::Missing { status: self.status, code: self.code }),
            401 | 403 => Err(FetchError::Refused { status: self.status, code: self.code }),
            status => Err(FetchError::Status { status, retry_after: self.retry_after }),
        }
    }
}

/// Why a file, or a part of it, was not had. Whoever asked names the address.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
#[non_exhaustive]
pub enum FetchError {
    /// There was no answer.
    #[error("{0}")]
    NoAnswer(String),
    /// The answer ended before its time.
    #[error("the download broke off ({0}); try again")]
    BrokeOff(String),
    /// Nothing is there.
    #[error("there is no such file (status {status})")]
    Missing { status: u16, code: Option<String> },
    /// It is not for everyone.
    #[error("the server refuses it (status {status}): is the model private or gated?")]
    Refused { status: u16, code: Option<String> },
    /// Any other status that is an error.
    #[error("the server answers with status {status}{}", advice(*status, *retry_after))]
    Status { status: u16, retry_after: Option<Duration> },
    /// The answer is not one to the request.
    #[error("{0}")]
    Unexpected(String),
}

/// What to do about a status that may pass.
fn advice(status: u16, retry_after: Option<Duration>) -> String {
    match (status, retry_after) {
        (429, Some(time)) => format!(" (too many requests); try again in {} seconds", time.as_secs()),
        (429, None) => " (too many requests); try again later".into(),
        (500.., _) => "; try again later".into(),
        _ => String::new(),
    }
}

impl FetchError {
    /// How long to wait before the request is made again after so many attempts; None where that would not help.
    pub(crate) fn pause(&self, attempts: u32) -> Option<Duration> {
        let usual = Duration::from_millis(500) * attempts;
        let wait = match self {
            Self::NoAnswer(_) | Self::BrokeOff(_) => usual,
            Self::Status { status: 408 | 429 | 500 | 502 | 503 | 504, retry_after } => retry_after.unwrap_or(usual),
            _ => return None,
        };
        (attempts < ATTEMPTS && wait <= LONGEST_WAIT).then_some(wait)
    }
}

/// Does what asks a server for something, again where that may help.
///
/// # Errors
/// Those of the last attempt.
pub(crate) async fn retried<F: Fetch, T>(
    fetch: &F,
    attempt: impl AsyncFn() -> Result<T, FetchError>,
) -> Result<T, FetchError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match attempt().await {
            Err(error) => match error.pause(attempts) {
                Some(time) => fetch.wait(time).await,
                None => return Err(error),
            },
            done => return done,
        }
    }
}

/// An answer that can be read, asked for again where that may help.
///
/// # Errors
/// No answer, or one whose status is an error.
pub async fn ask<F: Fetch>(fetch: &F, url: &str, range: Option<Range<u64>>) -> Result<Answer<F::Body>, FetchError> {
    retried(fetch, async || once(fetch, url, range.clone()).await).await
}

/// The same, asked for once.
pub(crate) async fn once<F: Fetch>(
    fetch: &F,
    url: &str,
    range: Option<Range<u64>>,
) -> Result<Answer<F::Body>, FetchError> {
    fetch.get(url, range).await.map_err(FetchError::NoAnswer)?.checked()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)]) -> Answer<()> {
        let find = |name: &str| headers.iter().find(|(header, _)| *header == name).map(|(_, value)| value.to_string());
        Answer::new(status, find, ())
    }

    #[test]
    fn headers_are_read_or_left_alone() {
        let part = |range| answer(206, &[("content-range", range)]).part;
        assert_eq!(part("bytes 5-9/1234"), Some(Part { start: 5, total: 1234 }));
        for wrong in ["bytes */1234", "bytes 0-1/*", "0-1/2", "bytes", "bytes -1-2/x"] {
            assert_eq!(part(wrong), None, "{wrong}");
        }
        assert_eq!(answer(429, &[("retry-after", "7")]).retry_after, Some(Duration::from_secs(7)));
        assert_eq!(answer(429, &[("ratelimit", "\"api\";r=0;t=55")]).retry_after, Some(Duration::from_secs(55)));
        assert_eq!(answer(200, &[("ratelimit", "\"api\";r=9;t=55")]).retry_after, None);
        assert_eq!(answer(429, &[("ratelimit", "\"api\"")]).retry_after, None);
        assert_eq!(answer(429, &[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")]).retry_after, None);
    }

    #[test]
    fn what_may_pass_is_asked_for_again_and_nothing_else() {
        let error = |status, headers: &[(&str, &str)]| answer(status, headers).checked().unwrap_err();
        assert!(answer(206, &[]).checked().is_ok());
        for status in [400, 401, 403, 404, 416] {
            assert_eq!(error(status, &[]).pause(1), None, "{status}");
        }
        assert_eq!(error(503, &[]).pause(1), Some(Duration::from_millis(500)));
        assert_eq!(error(503, &[]).pause(2), Some(Duration::from_secs(1)));
        assert_eq!(error(503, &[]).pause(ATTEMPTS), None);
        assert_eq!(error(429, &[("retry-after", "9")]).pause(1), Some(Duration::from_secs(9)));
        let long = error(429, &[("retry-after", "3600")]);
        assert_eq!(long.pause(1), None);
        assert!(long.to_string().ends_with("try again in 3600 seconds"), "{long}");
    }
}
