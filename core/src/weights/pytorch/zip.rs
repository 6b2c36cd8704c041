//! The directory of a ZIP archive, as far as `torch.save` uses it: stored entries, ZIP64 where files are large
//! (<https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>, 4.3).

use super::malformed;
use crate::weights::source::{ByteSource, read_exact};
use crate::weights::{WeightsError, pytorch::refused};

const END: &[u8] = b"PK\x05\x06";
const END_BYTES: u64 = 22;
const END64_LOCATOR: &[u8] = b"PK\x06\x07";
const END64_LOCATOR_BYTES: u64 = 20;
const END64: &[u8] = b"PK\x06\x06";
const END64_BYTES: u64 = 56;
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;
const LOCAL: &[u8] = b"PK\x03\x04";
const LOCAL_BYTES: u64 = 30;
/// Longest comment at the end of an archive.
const COMMENT: u64 = 0xffff;
/// Longest directory that is read: that of some 200,000 tensors.
const DIRECTORY_LIMIT: u64 = 16 << 20;
/// The tag of ZIP64's sizes among an entry's extra fields.
const ZIP64: u64 = 1;
/// What stands in a field of four bytes whose value is among the extra fields.
const ELSEWHERE: u64 = 0xffff_ffff;

/// A file in the archive.
pub(super) struct Entry {
    pub name: String,
    pub bytes: u64,
    /// Of the header in front of its bytes.
    header: u64,
}

/// The little-endian number of `width` bytes at `at`.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// The files of the archive in the order of its directory.
pub(super) async fn entries(source: &dyn ByteSource) -> Result<Vec<Entry>, WeightsError> {
    let (count, offset, bytes) = directory(source).await?;
    if bytes > DIRECTORY_LIMIT {
        let reason = format!("its directory would take {bytes} bytes, more than the {DIRECTORY_LIMIT} that are read");
        return Err(malformed(source.name(), reason));
    }
    let directory = read_exact(source, offset, bytes).await?;
    let mut rest = directory.as_slice();
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (entry, bytes) = entry(source.name(), rest)?;
        entries.push(entry);
        rest = &rest[bytes..];
    }
    if entries.len() as u64 != count {
        let reason = format!("its directory has {} entries instead of {count}", entries.len());
        return Err(malformed(source.name(), reason));
    }
    Ok(entries)
}

/// Number of entries, offset and length of the directory.
async fn directory(source: &dyn ByteSource) -> Result<(u64, u64, u64), WeightsError> {
    let error = |reason: &str| malformed(source.name(), format!("{reason}; if it was cut short, download it again"));
    let tail = source.len().min(END_BYTES + COMMENT);
    let tail_start = source.len() - tail;
    let bytes = read_exact(source, tail_start, tail).await?;
    let is_end = |at: &usize| {
        let comment = number(&bytes, at + 20, 2).map(|comment| (at + END_BYTES as usize) as u64 + comment);
        bytes[*at..].starts_with(END) && comment == Some(tail)
    };
    let end = (0..bytes.len()).rev().find(is_end).ok_or_else(|| error("its ZIP directory is missing"))?;
    let field = |at, width| number(&bytes, end + at, width).unwrap_or_default();
    let short = (field(10, 2), field(16, 4), field(12, 4));
    if short.0 != 0xffff && short.1 != ELSEWHERE && short.2 != ELSEWHERE {
        return Ok(short);
    }
    let missing = || error("the ZIP64 end of its directory is missing");
    let locator = (tail_start + end as u64).checked_sub(END64_LOCATOR_BYTES).ok_or_else(missing)?;
    let locator = read_exact(source, locator, END64_LOCATOR_BYTES).await?;
    let place = number(&locator, 8, 8).filter(|_| locator.starts_with(END64_LOCATOR)).ok_or_else(missing)?;
    let end = read_exact(source, place, END64_BYTES).await?;
    let field = |at| number(&end, at, 8).unwrap_or_default();
    if end.starts_with(END64) { Ok((field(32), field(48), field(40))) } else { Err(missing()) }
}

/// The entry that `bytes` of the directory begin with, and the bytes it takes there.
fn entry(file: &str, bytes: &[u8]) -> Result<(Entry, usize), WeightsError> {
    let damaged = || malformed(file, "its ZIP directory is damaged; download it again".to_string());
    let field = |at, width| number(bytes, at, width).ok_or_else(damaged);
    if !bytes.starts_with(ENTRY) {
        return Err(damaged());
    }
    let (name, extra, comment) = (field(28, 2)? as usize, field(30, 2)? as usize, field(32, 2)? as usize);
    let end = ENTRY_BYTES + name + extra + comment;
    if end > bytes.len() {
        return Err(damaged());
    }
    let (name, more) = bytes[ENTRY_BYTES..ENTRY_BYTES + name + extra].split_at(name);
    let name = std::str::from_utf8(name).map_err(|_| damaged())?.to_string();
    let [mut size, mut stored, mut header] = [field(24, 4)?, field(20, 4)?, field(42, 4)?];
    let mut large = zip64(more).unwrap_or_default();
    for value in [&mut size, &mut stored, &mut header] {
        if *value == ELSEWHERE {
            *value = number(large, 0, 8).ok_or_else(damaged)?;
            large = &large[8..];
        }
    }
    if field(8, 2)? & 1 != 0 || field(10, 2)? != 0 || size != stored {
        let problem = format!("`{name}` in it is compressed or encrypted, which torch.save does not do");
        return Err(refused(file, problem));
    }
    Ok((Entry { name, bytes: size, header }, end))
}

/// The content of the ZIP64 field among the extra fields.
fn zip64(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let (tag, bytes) = (number(extra, 0, 2)?, number(extra, 2, 2)? as usize);
        let content = extra.get(4..4 + bytes)?;
        if tag == ZIP64 {
            return Some(content);
        }
        extra = &extra[4 + bytes..];
    }
}

impl Entry {
    /// The first of the entry's bytes in the file, which has them all.
    pub async fn data(&self, source: &dyn ByteSource) -> Result<u64, WeightsError> {
        let header = read_exact(source, self.header, LOCAL_BYTES).await?;
        let field = |at| number(&header, at, 2).unwrap_or_default();
        // Fits: the header lies within the file.
        let start = self.header + LOCAL_BYTES + field(26) + field(28);
        match header.starts_with(LOCAL) && start.checked_add(self.bytes).is_some_and(|end| end <= source.len()) {
            true => Ok(start),
            false => {
                let reason = format!("`{}` in it is damaged or cut short; download it again", self.name);
                Err(malformed(source.name(), reason))
            }
        }
    }
}
