//! Reading a task's file: JSON Lines, or one JSON array, of rows as the Hugging Face hub has them, or as the short
//! `{"ctx", "choices", "gold"}`.

use std::io::{self, BufRead, Read};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{EvalError, Item, Task};
use crate::digest::hex;
use crate::text::{Format, Opened, field_names, kind, unreadable};

/// The items of a task, from one file.
#[derive(Clone, Debug)]
pub struct TaskItems {
    /// Which task.
    pub task: Task,
    /// The file, as it was given.
    pub file: String,
    /// SHA-256 of the whole file, in hexadecimal.
    pub sha256: String,
    /// In the order of the file.
    pub items: Vec<Item>,
}

impl TaskItems {
    /// The first `limit` items (or all) of a file that is in memory; `file` is its name. A row's fields decide its form: with
    /// `gold` it is the short one.
    ///
    /// # Errors
    /// What is no JSON, and rows that are no items of this task, by their numbers.
    pub fn from_bytes(task: Task, file: &str, bytes: &[u8], limit: Option<usize>) -> Result<Self, EvalError> {
        Self::read(task, file, bytes, limit)
    }

    /// The same of a file on disk.
    ///
    /// # Errors
    /// A file that cannot be read, and those of [`TaskItems::from_bytes`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(task: Task, path: &str, limit: Option<usize>) -> Result<Self, EvalError> {
        Self::read(task, path, crate::text::open_file(path, path.as_ref(), "check the path")?, limit)
    }

    fn read(task: Task, file: &str, read: impl Read, limit: Option<usize>) -> Result<Self, EvalError> {
        let rows = |reason: String| EvalError::Rows { file: file.into(), reason };
        if limit == Some(0) {
            return Err(rows("0 items were asked for, but it takes at least 1".into()));
        }
        let mut read = Hashed { read, hash: Sha256::new() };
        let no_row = || rows("there is no row in it; give a file with at least one".into());
        let mut opened = Opened::new(file, &mut read)?;
        if opened.format == Format::Text {
            let beginning = opened.bytes.fill_buf().map_err(|error| unreadable(file, &error))?;
            let visible = beginning.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(3);
            return Err(match &visible.collect::<Vec<_>>()[..] {
                b"" | b"[]" => no_row(),
                _ => rows(format!("it is a text; {task} takes JSON objects, one a line or in an array")),
            });
        }
        let mut items = Vec::new();
        for row in opened.values().take(limit.unwrap_or(usize::MAX)) {
            let row = row?;
            let (number, value) = (row.number, row.parse(file)?);
            let item = Fields::of(&value).and_then(|fields| task.item(number, &fields));
            items.push(item.map_err(|reason| EvalError::Row { file: file.into(), row: number, task, reason })?);
        }
        if items.is_empty() {
            return Err(no_row());
        }
        // The hash is that of the whole file.
        io::copy(&mut read, &mut io::sink()).map_err(|error| unreadable(file, &error))?;
        Ok(Self { task, file: file.into(), sha256: hex(read.hash.finalize()), items })
    }
}

/// A file that is hashed while it is read.
struct Hashed<R> {
    read: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.read.read(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }
}

/// The fields of a row, or what is wrong with them.
pub(super) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub fn of(row: &'a Value) -> Result<Self, String> {
        row.as_object().map(Self).ok_or_else(|| format!("it is {}, expected an object", kind(row)))
    }

    /// Whether the row is a short one.
    pub fn are_simple(&self) -> bool {
        self.0.contains_key("gold")
    }

    pub fn text(&self, field: &str) -> Result<&'a str, String> {
        let value = self.get(field)?;
        value.as_str().ok_or_else(|| format!("its field `{field}` is {}, expected a string", kind(value)))
    }

    pub fn texts(&self, field: &str) -> Result<Vec<String>, String> {
        let value = self.get(field)?;
        let list = value.as_array();
        let list =
            list.ok_or_else(|| format!("its field `{field}` is {}, expected an array of strings", kind(value)))?;
        let text = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            other => Err(format!("its field `{field}` has {} in it, expected strings", kind(other))),
        };
        list.iter().map(text).collect()
    }

    pub fn object(&self, field: &str) -> Result<Self, String> {
        let value = self.get(field)?;
        let object = value.as_object().map(Fields);
        object.ok_or_else(|| format!("its field `{field}` is {}, expected an object", kind(value)))
    }

    /// A number of a choice, which is counted from `first`, as one counted from 0.
    pub fn index(&self, field: &str, first: usize) -> Result<usize, String> {
        let value = self.get(field)?;
        let found = match value {
            Value::Number(number) => number.as_u64().and_then(|number| usize::try_from(number).ok()),
            Value::String(text) => text.parse().ok(),
            other => return Err(format!("its field `{field}` is {}, expected the number of a choice", kind(other))),
        };
        found.and_then(|number| number.checked_sub(first)).ok_or_else(|| {
            format!("its field `{field}` is {value}, expected the number of a choice, from {first} on; of a test set without \
                     labels take the validation set")
        })
    }

    fn get(&self, field: &str) -> Result<&'a Value, String> {
        let value = self.0.get(field);
        value.ok_or_else(|| format!("it has no field `{field}` (its fields: {})", field_names(self.0)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const ROWS: &str = "{\"text\": \"one two\"}\n{\"text\": \"three four\"}\n";

    #[test]
    fn rows_are_lines_or_an_array_and_the_whole_file_is_hashed() {
        let array = r#"[{"text": "one two"}, {"text": "three four"}]"#;
        let lines = TaskItems::from_bytes(Task::Lambada, "rows.txt", ROWS.as_bytes(), None).unwrap();
        let array = TaskItems::from_bytes(Task::Lambada, "rows.txt", array.as_bytes(), None).unwrap();
        assert_eq!((lines.items.len(), &lines.items), (2, &array.items));
        // printf '{"text": "one two"}\n{"text": "three four"}\n' | sha256sum
        let expected = "c886cf2c37ebc213dff3f7f1cc948d3f433b207ed8e977bc979cff7cc0736c92";
        assert_eq!(lines.sha256, expected);
        let first = TaskItems::from_bytes(Task::Lambada, "rows.txt", ROWS.as_bytes(), Some(1)).unwrap();
        assert_eq!((first.items, first.sha256.as_str()), (lines.items[..1].to_vec(), expected));
        // Longer than what is read at once.
        let long = ROWS.repeat(10_000);
        let first = TaskItems::from_bytes(Task::Lambada, "rows.txt", long.as_bytes(), Some(1)).unwrap();
        assert_eq!(first.sha256, hex(Sha256::digest(&long)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |text: &str, limit| {
            TaskItems::from_bytes(Task::Lambada, "rows.jsonl", text.as_bytes(), limit).unwrap_err().to_string()
        };
        let cases = [
            (
                "{\"text\": \"a b\"}\n{\"txt\": 1}\n",
                None,
                "row 2 is no item of lambada: it has no field `text` (its fields: `txt`)",
            ),
            ("{\"text\": \"a b\"}\n7\n", None, "row 2 is no item of lambada: it is a number"),
            ("{\"text\": \"a b\"}\n{\"text\": \n", None, "line 2 is not a JSON object"),
            ("<!DOCTYPE html><html>", None, "web page"),
            ("", None, "no row"),
            (ROWS, Some(0), "at least 1"),
        ];
        for (text, limit, expected) in cases {
            let message = message(text, limit);
            assert!(message.starts_with("rows.jsonl: ") && message.contains(expected), "{message}");
        }
        let text = TaskItems::from_bytes(Task::Piqa, "rows", b"It was a dark night.", None).unwrap_err().to_string();
        assert!(text.contains("piqa takes JSON objects"), "{text}");
        for empty in ["", " \n", "[]", "[\n]\n"] {
            let message = TaskItems::from_bytes(Task::Piqa, "rows", empty.as_bytes(), None).unwrap_err().to_string();
            assert!(message.contains("there is no row in it"), "{empty:?}: {message}");
        }
    }
}
