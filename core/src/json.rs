//! JSON as the programs write it that publish models.
//!
//! Python writes `NaN`, `Infinity` and `-Infinity`, which JSON does not have, and reads them back.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::file_kind::FileKind;

/// What stands in for a number that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NonFinite {
    /// A string of that name, which no one takes for a number.
    Named,
    /// `null`.
    Null,
}

/// Parses a text that may hold numbers that are not finite. Errors are those of the text itself.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, non_finite: NonFinite) -> Result<T, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| match replaced(text, non_finite) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(text) => serde_json::from_str(&text),
    })
}

/// What is wrong with JSON that is a part of a file: how many lines behind the part's first, and in words, with the column of
/// the file. `before` is how many bytes of the first line are in front of the part.
pub(crate) fn problem(error: &serde_json::Error, before: usize) -> (usize, String) {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    // That is the place in the part, not in the file.
    match text.strip_suffix(&format!(" at line {line} column {column}")) {
        Some(words) => {
            let column = if line == 1 { before + column } else { column };
            (line.saturating_sub(1), format!("{words} in column {column}"))
        }
        None => (0, text),
    }
}

/// An object from a file's bytes, numbers that are not finite as strings of their names; or what is wrong and what to do.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    const ADVICE: &str = "get it again from where the model is published";
    if bytes.is_empty() {
        return Err(format!("it is empty; {ADVICE}"));
    }
    if let Some(kind) = FileKind::of(bytes) {
        return Err(kind.problem());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8 text: {error}; {ADVICE}"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    parse(text, NonFinite::Named).map_err(|error| format!("not a JSON object ({error}); {ADVICE}"))
}

/// The object of a file whose strings hold escaped halves of characters, which Python reads; U+FFFD stands for each. None if it can be
/// read no more for that.
pub(crate) fn object_with_halves(bytes: &[u8]) -> Option<Map<String, Value>> {
    const HIGH: std::ops::Range<u32> = 0xd800..0xdc00;
    const LOW: std::ops::Range<u32> = 0xdc00..0xe000;
    let escaped = |text: &str| {
        let digits = text.strip_prefix("\\u").and_then(|text| text.get(..4));
        digits.and_then(|digits| u32::from_str_radix(digits, 16).ok())
    };
    let mut rest = std::str::from_utf8(bytes).ok()?;
    let mut text = String::with_capacity(bytes.len());
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match escaped(rest) {
            Some(half) if HIGH.contains(&half) && escaped(&rest[6..]).is_some_and(|half| LOW.contains(&half)) => 12,
            Some(half) if HIGH.contains(&half) || LOW.contains(&half) => {
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &rest[6..];
                continue;
            }
            _ => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        text.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    text.push_str(rest);
    object(text.as_bytes()).ok()
}

/// Takes out, at any depth, what stands for a number that is not finite, and says under which keys it was.
pub(crate) fn drop_non_finite(object: &mut Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    let keys: Vec<String> = object.keys().cloned().collect();
    for key in keys {
        if object.get_mut(&key).is_some_and(|value| is_or_holds_non_finite(value, &key, &mut found)) {
            object.shift_remove(&key);
            found.push(key);
        }
    }
    found
}

/// Whether the whole value has to go: itself, or a list with such a number in it. Objects lose the keys below them.
fn is_or_holds_non_finite(value: &mut Value, path: &str, found: &mut Vec<String>) -> bool {
    match value {
        Value::String(name) => NAMES.contains(&name.as_str()),
        Value::Array(values) => values.iter_mut().any(|value| is_or_holds_non_finite(value, path, found)),
        Value::Object(object) => {
            found.extend(drop_non_finite(object).into_iter().map(|key| format!("{path}.{key}")));
            false
        }
        _ => false,
    }
}

/// The longest first.
const NAMES: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// The text with something in place of numbers that are not finite; borrowed if there are none.
fn replaced(text: &str, non_finite: NonFinite) -> Cow<'_, str> {
    let (mut out, mut copied) = (String::new(), 0);
    let (mut in_string, mut escaped) = (false, false);
    let mut skip_to = 0;
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte == b'"' {
            in_string = true;
        } else if at >= skip_to
            && matches!(byte, b'N' | b'I' | b'-')
            && let Some(name) = NAMES.into_iter().find(|name| text[at..].starts_with(name))
        {
            out.push_str(&text[copied..at]);
            match non_finite {
                NonFinite::Named => out.extend(["\"", name, "\""]),
                NonFinite::Null => out.push_str("null"),
            }
            copied = at + name.len();
            skip_to = copied;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_are_not_finite_are_read() {
        let text = r#"{"a": NaN, "b": [1, -Infinity], "c": "NaN \" Infinity", "d": {"e": Infinity, "f": 2}}"#;
        let mut object = object(text.as_bytes()).unwrap();
        let expected =
            json!({"a": "NaN", "b": [1, "-Infinity"], "c": "NaN \" Infinity", "d": {"e": "Infinity", "f": 2}});
        assert_eq!(Value::Object(object.clone()), expected);
        assert_eq!(drop_non_finite(&mut object), ["a", "b", "d.e"]);
        assert_eq!(Value::Object(object), json!({"c": "NaN \" Infinity", "d": {"f": 2}}));
        let nulls: Value = parse(text, NonFinite::Null).unwrap();
        assert_eq!((&nulls["a"], &nulls["b"]), (&Value::Null, &json!([1, null])));
    }

    #[test]
    fn what_is_no_object_is_explained() {
        let cases: [(&[u8], &str); 8] = [
            (b"", "empty"),
            (b"Entry not found", "what a hub answers"),
            (b"[]", "not a JSON object"),
            (b"{\"a\": Nan}", "not a JSON object (expected"),
            (b"{\"a\": NaNa}", "not a JSON object"),
            (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
            (b"<!doctype html>", "web page"),
            (b"\xff\xfe{\0}\0", "UTF-16"),
        ];
        for (bytes, expected) in cases {
            let error = object(bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(object("\u{feff}{\"a\": 1}".as_bytes()).unwrap()["a"], 1);
    }
}
