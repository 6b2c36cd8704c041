//! A file on a server, of which only the pieces that are wanted are fetched.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::fetch::{Fetch, FetchError, Kept, once, retried};
use crate::weights::{ByteSource, NO_MEMORY, ReadFuture, WeightsError, check_range};

/// A file of known length on a server that honours ranges. What was fetched is kept: every byte is asked for once.
pub struct RemoteSource<F: Fetch> {
    fetch: Rc<F>,
    url: String,
    name: String,
    len: u64,
    piece: u64,
    /// By number: bytes from `number * piece` on.
    pieces: RefCell<BTreeMap<u64, Rc<F::Kept>>>,
}

impl<F: Fetch> RemoteSource<F> {
    /// The file at `url`, of `len` bytes, asked for in pieces of `piece` bytes. Messages call it `name`, which ends in the file's
    /// own name.
    pub fn new(fetch: Rc<F>, url: impl Into<String>, name: impl Into<String>, len: u64, piece: u64) -> Self {
        let piece = piece.max(1);
        Self { fetch, url: url.into(), name: name.into(), len, piece, pieces: RefCell::default() }
    }

    async fn piece(&self, number: u64) -> Result<Rc<F::Kept>, FetchError> {
        if let Some(piece) = self.pieces.borrow().get(&number) {
            return Ok(piece.clone());
        }
        let start = number * self.piece;
        let end = self.len.min(start.saturating_add(self.piece));
        let piece = Rc::new(retried(self.fetch.as_ref(), async || self.download(start, end).await).await?);
        self.pieces.borrow_mut().insert(number, piece.clone());
        Ok(piece)
    }

    async fn download(&self, start: u64, end: u64) -> Result<F::Kept, FetchError> {
        let answer = once(self.fetch.as_ref(), &self.url, Some(start..end)).await?;
        if answer.status != 206 {
            return Err(FetchError::Unexpected(format!(
                "the server answers with status {} where a part of the file was asked for; download the \
                 whole file and open that",
                answer.status
            )));
        }
        if answer.part.is_some_and(|part| part.total != self.len || part.start != start) {
            return Err(FetchError::Unexpected("the file changed meanwhile; load it again".to_string()));
        }
        let piece = self.fetch.keep(answer.body, end - start).await.map_err(FetchError::BrokeOff)?;
        match piece.size() == end - start {
            true => Ok(piece),
            false => Err(FetchError::BrokeOff(format!("{} bytes arrived instead of {}", piece.size(), end - start))),
        }
    }

    async fn bytes(&self, offset: u64, len: usize) -> Result<Vec<u8>, String> {
        let end = offset + len as u64;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| NO_MEMORY)?;
        for number in offset / self.piece..end.div_ceil(self.piece) {
            let piece = self.piece(number).await.map_err(|error| error.to_string())?;
            let start = number * self.piece;
            let within = offset.max(start) - start..end.min(start + self.piece) - start;
            bytes.extend(piece.read(within.start, (within.end - within.start) as usize).await?);
        }
        Ok(bytes)
    }
}

impl<F: Fetch> ByteSource for RemoteSource<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read<'a>(&'a self, offset: u64, len: usize) -> ReadFuture<'a> {
        Box::pin(async move {
            // Before memory is made for bytes that are not there.
            check_range(&self.name, self.len, offset, len as u64)?;
            self.bytes(offset, len).await.map_err(|reason| WeightsError::Read {
                file: self.name.clone(),
                offset,
                len: len as u64,
                reason,
            })
        })
    }
}
