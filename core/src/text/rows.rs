//! A file of text or rows while it is read: piece by piece, because it may be larger than memory.
//!
//! What is in it decides how it is read, not its name: the same rows come by a pipe, or under the name that a download
//! got.

use std::io::{BufRead, BufReader, Chain, Cursor, Read};

use serde_json::{Map, Value};

use super::TextError;
use super::calibration::TextOptions;
use crate::file_kind::FileKind;
use crate::json::{self, NonFinite};

/// Bytes of a text that are decoded at once.
const BLOCK: usize = 1 << 16;
/// So far a file is looked into to tell what it is: through white space, and to the end of a first row.
const LONGEST_BEGINNING: usize = 16 << 20;

/// How rows lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The whole file is one row.
    Text,
    /// JSON objects one after the other, as in JSON Lines.
    Objects,
    /// One JSON array of objects.
    Array,
}

/// A file from its beginning, its format known.
pub(crate) struct Opened<R> {
    pub format: Format,
    pub bytes: BufReader<Chain<Cursor<Vec<u8>>, R>>,
    /// Length of the byte order mark, which is not in `bytes`.
    mark: u64,
    name: String,
}

impl<R: Read> Opened<R> {
    /// Looks at how the file begins. The end of its name counts only where that does not tell.
    pub fn new(name: &str, mut read: R) -> Result<Self, TextError> {
        let mut head = Vec::new();
        read_more(name, &mut read, &mut head, FileKind::START)?;
        if let Some(kind) = FileKind::of(&head) {
            return Err(refuse(name, kind.problem()));
        }
        let mark = if head.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        head.drain(..mark);
        let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
        let named_json = matches!(extension.as_deref(), Some("json" | "jsonl" | "ndjson"));
        let first = first_visible(name, &mut head, &mut read)?;
        let format = match first {
            Some(b'[') if named_json => Format::Array,
            _ if named_json => Format::Objects,
            Some(b'[') if begins_with_object(name, Format::Array, &mut head, &mut read)? => Format::Array,
            Some(b'{') if begins_with_object(name, Format::Objects, &mut head, &mut read)? => Format::Objects,
            _ => Format::Text,
        };
        Ok(Self {
            format,
            bytes: BufReader::with_capacity(BLOCK, Cursor::new(head).chain(read)),
            mark: mark as u64,
            name: name.to_owned(),
        })
    }

    /// The rows of JSON.
    pub fn values(self) -> impl Iterator<Item = Result<Row, TextError>> {
        let mut values = Values::new(self.name, self.format, self.mark, self.bytes);
        until_error(move || values.next_row())
    }

    /// The text of a text file, block by block.
    pub fn blocks(self) -> impl Iterator<Item = Result<String, TextError>> {
        let mut blocks =
            Blocks { name: self.name, read: self.bytes, carry: Vec::new(), offset: 0, after_return: false };
        until_error(move || blocks.next_block())
    }
}

/// What `next` gives, up to its end or its first error.
fn until_error<T>(
    mut next: impl FnMut() -> Result<Option<T>, TextError>,
) -> impl Iterator<Item = Result<T, TextError>> {
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let next = next().transpose();
        ended = !matches!(next, Some(Ok(_)));
        next
    })
}

/// Reads some more bytes; false at the end.
fn read_more(name: &str, read: &mut impl Read, head: &mut Vec<u8>, most: usize) -> Result<bool, TextError> {
    let added = read.by_ref().take(most as u64).read_to_end(head).map_err(|error| unreadable(name, &error))?;
    Ok(added > 0)
}

/// The first byte that is not white space; None if there is none as far as the file is looked into.
fn first_visible(name: &str, head: &mut Vec<u8>, read: &mut impl Read) -> Result<Option<u8>, TextError> {
    let mut blank = 0;
    loop {
        if let Some(first) = head[blank..].iter().copied().find(|byte| !byte.is_ascii_whitespace()) {
            return Ok(Some(first));
        }
        blank = head.len();
        if blank > LONGEST_BEGINNING || !read_more(name, read, head, BLOCK)? {
            return Ok(None);
        }
    }
}

/// Whether the first row is a JSON object; what had to be read for that is in `head` then.
fn begins_with_object(name: &str, format: Format, head: &mut Vec<u8>, read: &mut impl Read) -> Result<bool, TextError> {
    while may_begin_with_object(head, format) {
        let mut values = Values::new(name.to_owned(), format, 0, head.as_slice());
        match values.next_row() {
            Ok(Some(row)) => return Ok(row.parse(name).is_ok_and(|value| value.is_object())),
            Ok(None) => return Ok(false),
            // More of the file would not change that.
            Err(_) if !values.read.is_empty() => return Ok(false),
            Err(_) if head.len() > LONGEST_BEGINNING => {
                let most = LONGEST_BEGINNING >> 20;
                return Err(refuse(
                    name,
                    format!(
                        "it begins as JSON does, but its first row is longer than {most} MiB; name the file .json or .jsonl, or \
                         make that row shorter"
                    ),
                ));
            }
            Err(_) => {
                // Twice as much each time, so that looking again and again stays cheap.
                let more = head.len().max(BLOCK);
                if !read_more(name, read, head, more)? {
                    return Ok(false);
                }
            }
        }
    }
    Ok(false)
}

/// Whether the first row may be a JSON object by its first two bytes, as far as they are there.
fn may_begin_with_object(head: &[u8], format: Format) -> bool {
    let array = head.trim_ascii_start().strip_prefix(b"[").filter(|_| format == Format::Array);
    match array.unwrap_or(head).trim_ascii_start().split_first() {
        Some((b'{', rest)) => matches!(rest.trim_ascii_start().first(), None | Some(b'"' | b'}')),
        Some(_) => false,
        None => true,
    }
}

fn refuse(name: &str, reason: String) -> TextError {
    TextError::Calibration { source_name: name.to_owned(), reason }
}

/// Opens a file with a text; `advice` is for one that cannot be opened.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn open_file(source_name: &str, path: &std::path::Path, advice: &str) -> Result<std::fs::File, TextError> {
    let refuse = |reason: String| TextError::Read { source_name: source_name.into(), reason };
    let file = std::fs::File::open(path).map_err(|error| refuse(format!("{error}; {advice}")))?;
    match path.is_dir() {
        true => Err(refuse("it is a folder; give a file in it".into())),
        false => Ok(file),
    }
}

pub(crate) fn unreadable(name: &str, error: &std::io::Error) -> TextError {
    TextError::Read { source_name: name.to_owned(), reason: error.to_string() }
}

/// A JSON value of a file, unparsed.
pub(crate) struct Row {
    /// From 1.
    pub number: usize,
    /// The line on which it begins, from 1.
    line: usize,
    /// Bytes in front of it on that line.
    indent: usize,
    /// Whether it is an element of an array.
    in_array: bool,
    /// Where it lies in the file.
    pub offset: u64,
    bytes: Vec<u8>,
}

impl Row {
    /// The row that begins where `read` does, in the middle of a file. It is taken for the first one.
    pub fn first_of(name: &str, format: Format, read: impl BufRead) -> Result<Self, TextError> {
        Values::new(name.to_owned(), format, 0, read).row()
    }

    /// The value.
    pub fn parse(&self, name: &str) -> Result<Value, TextError> {
        let (further, reason) = match std::str::from_utf8(&self.bytes) {
            Err(error) => (0, format!("not UTF-8 text: {error}")),
            Ok(text) => match json::parse(text, NonFinite::Null) {
                Ok(value) => return Ok(value),
                Err(error) => json::problem(&error, self.indent),
            },
        };
        Err(refuse(name, self.problem(further, &reason)))
    }

    /// What is wrong so many lines further than it begins.
    fn problem(&self, further: usize, reason: &str) -> String {
        let (number, line) = (self.number, self.line + further);
        match self.in_array {
            true => format!("not a JSON array of rows: row {number}, on line {line}: {reason}"),
            false => format!("line {line} is not a JSON object: {reason}; expected one object a line"),
        }
    }

    /// Its text: one of its fields.
    pub fn text(&self, name: &str, options: &TextOptions) -> Result<String, TextError> {
        let number = self.number;
        let mut fields = match self.parse(name)? {
            Value::Object(fields) => fields,
            other => {
                let kind = kind(&other);
                return Err(refuse(name, format!("row {number} is {kind}, expected an object with a text field")));
            }
        };
        let field = options.field.as_deref().unwrap_or("text");
        match fields.get_mut(field) {
            Some(Value::String(text)) => Ok(std::mem::take(text)),
            Some(other) => Err(refuse(
                name,
                format!(
                    "row {number}: field `{field}` is {}, expected a string; name the field that holds the text",
                    kind(other)
                ),
            )),
            None => alpaca_text(&fields).filter(|_| field == "text").ok_or_else(|| TextError::MissingField {
                source_name: name.to_owned(),
                row: number,
                field: field.to_owned(),
                available: field_names(&fields),
            }),
        }
    }
}

/// Prompt and answer of an Alpaca row as published by Stanford Alpaca (Taori et al., 2023), or `None` for another
/// row.
fn alpaca_text(fields: &Map<String, Value>) -> Option<String> {
    let instruction = fields.get("instruction")?.as_str()?;
    let output = fields.get("output")?.as_str()?;
    let input = fields.get("input").and_then(Value::as_str).unwrap_or("");
    Some(if input.is_empty() {
        format!(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\
             \n\n### Instruction:\n{instruction}\n\n### Response:\n{output}"
        )
    } else {
        format!(
            "Below is an instruction that describes a task, paired with an input that provides further context. Write a \
             response that appropriately completes the request.\
             \n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n{output}"
        )
    })
}

/// The names of a row's fields, as messages list them.
pub(crate) fn field_names(fields: &Map<String, Value>) -> String {
    if fields.is_empty() {
        return "none".to_owned();
    }
    fields.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What a value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The values of a JSON file one after the other, found by their brackets and quotes.
struct Values<R> {
    name: String,
    read: R,
    in_array: bool,
    number: usize,
    line: usize,
    /// Bytes of the line that were read.
    indent: usize,
    offset: u64,
}

impl<R: BufRead> Values<R> {
    /// `read` is a file from `offset` on.
    fn new(name: String, format: Format, offset: u64, read: R) -> Self {
        Self { name, read, in_array: format == Format::Array, number: 0, line: 1, indent: 0, offset }
    }

    fn peek(&mut self) -> Result<Option<u8>, TextError> {
        let bytes = self.read.fill_buf().map_err(|error| unreadable(&self.name, &error))?;
        Ok(bytes.first().copied())
    }

    fn advance(&mut self, byte: u8) {
        self.read.consume(1);
        self.offset += 1;
        self.indent += 1;
        if byte == b'\n' {
            self.line += 1;
            self.indent = 0;
        }
    }

    /// The next byte that is not white space, left where it is.
    fn next_visible(&mut self) -> Result<Option<u8>, TextError> {
        while let Some(byte) = self.peek()? {
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.advance(byte);
        }
        Ok(None)
    }

    fn next_row(&mut self) -> Result<Option<Row>, TextError> {
        let Some(first) = self.next_visible()? else {
            return match self.in_array {
                true => Err(refuse(&self.name, format!("not a JSON array of rows: it ends after row {}", self.number))),
                false => Ok(None),
            };
        };
        if self.in_array {
            // The bracket in front of the first row, a comma in front of others.
            let expected = if self.number == 0 { b'[' } else { b',' };
            if first == b']' && self.number > 0 {
                return self.end_of_array(first);
            }
            if first != expected {
                let reason = format!(
                    "not a JSON array of rows: `{}` instead of a comma after row {}, on line {}",
                    char::from(first).escape_default(),
                    self.number,
                    self.line
                );
                return Err(refuse(&self.name, reason));
            }
            self.advance(first);
            if self.number == 0 && self.next_visible()? == Some(b']') {
                return self.end_of_array(b']');
            }
            self.next_visible()?;
        }
        self.row().map(Some)
    }

    /// The row that begins here.
    fn row(&mut self) -> Result<Row, TextError> {
        self.number += 1;
        let Self { number, line, indent, offset, in_array, .. } = *self;
        let mut row = Row { number, line, indent, in_array, offset, bytes: Vec::new() };
        match self.read_value(&mut row.bytes)? {
            None => Ok(row),
            Some(problem) => Err(refuse(&self.name, row.problem(0, problem))),
        }
    }

    fn end_of_array(&mut self, bracket: u8) -> Result<Option<Row>, TextError> {
        self.advance(bracket);
        match self.next_visible()? {
            None => Ok(None),
            Some(_) => {
                let reason = format!("not a JSON array of rows: something follows it, on line {}", self.line);
                Err(refuse(&self.name, reason))
            }
        }
    }

    /// Reads a value: to the bracket that closes it, or, if it has none, to what follows it. What is wrong with it, if it
    /// does not end.
    fn read_value(&mut self, value: &mut Vec<u8>) -> Result<Option<&'static str>, TextError> {
        let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
        while let Some(byte) = self.peek()? {
            if in_string {
                if byte == b'\n' {
                    return Ok(Some("a string does not end on its line"));
                }
                in_string = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
            } else {
                let ends = if self.in_array { b",]".contains(&byte) } else { byte == b'\n' };
                if depth == 0 && ends {
                    return Ok(None);
                }
                in_string = byte == b'"';
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth == 0 && byte == b'}' {
                    self.advance(byte);
                    value.push(byte);
                    return Ok(None);
                }
            }
            self.advance(byte);
            value.push(byte);
        }
        let open = in_string || depth > 0;
        Ok((open || self.in_array).then_some("the file ends within it"))
    }
}

/// The text of a file block by block: UTF-8, with CR LF and CR read as LF.
struct Blocks<R> {
    name: String,
    read: R,
    /// The beginning of a character whose end is not read yet.
    carry: Vec<u8>,
    /// Bytes decoded so far.
    offset: u64,
    /// Whether the last character was a CR, which has been given as LF.
    after_return: bool,
}

impl<R: BufRead> Blocks<R> {
    fn next_block(&mut self) -> Result<Option<String>, TextError> {
        let mut bytes = std::mem::take(&mut self.carry);
        if !read_more(&self.name, &mut self.read, &mut bytes, BLOCK)? && bytes.is_empty() {
            return Ok(None);
        }
        let valid = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => {
                // A character may go on in the next block.
                let cut =
                    error.error_len().is_none() && bytes.len() - error.valid_up_to() < 4 && error.valid_up_to() > 0;
                if !cut {
                    let at = self.offset + error.valid_up_to() as u64;
                    let reason = format!("not UTF-8 text: an invalid sequence of bytes from index {at}");
                    return Err(refuse(&self.name, format!("{reason}; save it as UTF-8")));
                }
                self.carry = bytes[error.valid_up_to()..].to_vec();
                std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
            }
        };
        self.offset += valid.len() as u64;
        let text = if self.after_return { valid.strip_prefix('\n').unwrap_or(valid) } else { valid };
        self.after_return = valid.ends_with('\r');
        Ok(Some(text.replace("\r\n", "\n").replace('\r', "\n")))
    }
}
