//! Calibration text: rows from a text file, JSON Lines, JSON, or the built-in sample.
//!
//! | name ends in | rows |
//! |---|---|
//! | `.jsonl`, `.ndjson` | one JSON object a line; blank lines are skipped |
//! | `.json` | an array of JSON objects, or JSON Lines |
//! | anything else | the whole file is one row |
//!
//! In a text file, Windows and old Macintosh line ends (CR LF, CR) are read as LF, as Python's text mode does: the
//! tokens of a text do not depend on where it was saved. Strings in JSON are taken as they are.
//!
//! A row's text is one of its fields. Rows may be empty, as WikiText's are: they are joined like any other.

use serde_json::{Map, Value};

use super::TextError;

const BUILTIN_NAME: &str = "builtin:sample";
const BUILTIN_SAMPLE: &str = include_str!("../../../assets/tiny/calibration.txt");

/// Which part of a file is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// The field that holds a row's text; `text` if not given. JSON only.
    ///
    /// For `text`, a row without that field but with `instruction` and `output` becomes the prompt that Stanford
    /// Alpaca (Taori et al., 2023) published for it, followed by the answer: what the data set's own `text` field
    /// holds.
    pub field: Option<String>,
    /// Take this many rows (all of them if there are fewer). A text file is one row.
    pub samples: Option<usize>,
    /// Draw the rows instead of taking the first ones. The order in which they are drawn is kept. Without `samples`,
    /// all rows are shuffled.
    ///
    /// The draw is a Fisher-Yates shuffle from the front: place `i` of `n` rows is exchanged with place
    /// `i + r_i mod (n - i)`, where `r_0, r_1, ...` is SplitMix64 (Steele, Lea and Flood, 2014) started at the seed.
    pub seed: Option<u64>,
}

/// The rows of a calibration text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalibrationText {
    /// Where it came from: a file name or `builtin:sample`.
    pub source: String,
    /// The rows that were taken, in the order in which they are joined.
    pub rows: Vec<String>,
}

impl CalibrationText {
    /// Reads the rows of a file; the end of its name, `source`, says what kind of file it is (see the module). A byte
    /// order mark at the start is dropped.
    ///
    /// # Errors
    /// [`TextError::Calibration`] for bytes that are not UTF-8, JSON that does not parse, `samples` of 0, a `field`
    /// for a text file, and a file without any text; [`TextError::MissingField`] for a row without the field.
    pub fn from_bytes(source: &str, bytes: &[u8], options: &TextOptions) -> Result<Self, TextError> {
        let refuse = |reason: String| TextError::Calibration { source_name: source.to_owned(), reason };
        let text = std::str::from_utf8(bytes).map_err(|error| {
            refuse(format!("not UTF-8 text: {error}; give a .txt, .json or .jsonl file, without compression"))
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let rows = match Format::of(source, text) {
            Format::Text if options.field.is_some() => {
                let field = options.field.as_deref().unwrap_or_default();
                return Err(refuse(format!(
                    "a field (`{field}`) was asked for, but this is a text file; name it .json or .jsonl if it is JSON"
                )));
            }
            Format::Text => vec![text.replace("\r\n", "\n").replace('\r', "\n")],
            Format::JsonArray => rows_of_array(source, text, options)?,
            Format::JsonLines => rows_of_lines(source, text, options)?,
        };
        let rows = choose(rows, options).map_err(refuse)?;
        if rows.is_empty() {
            return Err(refuse("there is no row in it; give a file that holds text".into()));
        }
        if rows.iter().all(|row| row.trim().is_empty()) {
            return Err(refuse("the text is empty or blank; give a file that holds text".into()));
        }
        Ok(Self { source: source.to_owned(), rows })
    }

    /// The sample text that comes with the library: 20 passages of the King James Bible, one row.
    pub fn builtin_sample() -> Self {
        Self { source: BUILTIN_NAME.to_owned(), rows: vec![BUILTIN_SAMPLE.to_owned()] }
    }

    /// Reads a file, or the built-in sample if `path` is `builtin:sample`.
    ///
    /// # Errors
    /// [`TextError::Read`] if the file cannot be read, otherwise as [`CalibrationText::from_bytes`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: &str, options: &TextOptions) -> Result<Self, TextError> {
        if path == BUILTIN_NAME {
            return Self::from_bytes(BUILTIN_NAME, BUILTIN_SAMPLE.as_bytes(), options);
        }
        let bytes = std::fs::read(path).map_err(|error| {
            let advice = match error.kind() {
                _ if path.starts_with("builtin:") => "the embedded text is `builtin:sample`",
                std::io::ErrorKind::NotFound => "check the path",
                std::io::ErrorKind::IsADirectory => "give a file in it",
                _ => "check the file and its permissions",
            };
            TextError::Read { source_name: path.to_owned(), reason: format!("{error}; {advice}") }
        })?;
        Self::from_bytes(path, &bytes, options)
    }

    /// The one text that is tokenised: the rows with a blank line between them.
    pub fn joined(&self) -> String {
        self.rows.join("\n\n")
    }
}

enum Format {
    Text,
    JsonArray,
    JsonLines,
}

impl Format {
    fn of(source: &str, text: &str) -> Self {
        let extension = source.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
        match extension.as_deref() {
            Some("jsonl" | "ndjson") => Self::JsonLines,
            Some("json") if text.trim_start().starts_with('[') => Self::JsonArray,
            Some("json") => Self::JsonLines,
            _ => Self::Text,
        }
    }
}

fn rows_of_array(source: &str, text: &str, options: &TextOptions) -> Result<Vec<String>, TextError> {
    let rows: Vec<Value> = serde_json::from_str(text).map_err(|error| TextError::Calibration {
        source_name: source.to_owned(),
        reason: format!("not a JSON array of rows: {error}"),
    })?;
    rows.iter().enumerate().map(|(index, row)| row_text(source, index + 1, row, options)).collect()
}

fn rows_of_lines(source: &str, text: &str, options: &TextOptions) -> Result<Vec<String>, TextError> {
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row = serde_json::from_str(line).map_err(|error| TextError::Calibration {
            source_name: source.to_owned(),
            reason: format!("line {} is not a JSON object: {error}; expected one object a line", index + 1),
        })?;
        rows.push(row_text(source, rows.len() + 1, &row, options)?);
    }
    Ok(rows)
}

/// The text of one row; `number` counts rows from 1.
fn row_text(source: &str, number: usize, row: &Value, options: &TextOptions) -> Result<String, TextError> {
    let refuse = |reason: String| TextError::Calibration { source_name: source.to_owned(), reason };
    let Value::Object(fields) = row else {
        return Err(refuse(format!("row {number} is {}, expected an object with a text field", kind(row))));
    };
    let field = options.field.as_deref().unwrap_or("text");
    match fields.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(refuse(format!(
            "row {number}: field `{field}` is {}, expected a string; name the field that holds the text",
            kind(other)
        ))),
        None => alpaca_text(fields).filter(|_| field == "text").ok_or_else(|| TextError::MissingField {
            source_name: source.to_owned(),
            row: number,
            field: field.to_owned(),
            available: available(fields),
        }),
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

fn available(fields: &Map<String, Value>) -> String {
    if fields.is_empty() {
        return "none".to_owned();
    }
    fields.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn choose(mut rows: Vec<String>, options: &TextOptions) -> Result<Vec<String>, String> {
    if options.samples == Some(0) {
        return Err("0 samples were asked for, but it takes at least 1".into());
    }
    let count = options.samples.map_or(rows.len(), |samples| samples.min(rows.len()));
    if let Some(seed) = options.seed {
        let mut state = seed;
        for place in 0..count {
            let left = (rows.len() - place) as u64;
            rows.swap(place, place + (split_mix(&mut state) % left) as usize);
        }
    }
    rows.truncate(count);
    Ok(rows)
}

/// The next number of SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    fn read(name: &str, content: &str) -> Result<CalibrationText, TextError> {
        CalibrationText::from_bytes(name, content.as_bytes(), &TextOptions::default())
    }

    fn refusal(name: &str, content: &str, options: &TextOptions) -> String {
        CalibrationText::from_bytes(name, content.as_bytes(), options).unwrap_err().to_string()
    }

    fn field(name: &str) -> TextOptions {
        TextOptions { field: Some(name.into()), ..TextOptions::default() }
    }

    #[test]
    fn a_text_file_is_one_row() {
        let text = read("book.txt", "\u{feff}one\r\n\r\ntwo\rthree\n").unwrap();
        assert_eq!(text.rows, ["one\n\ntwo\nthree\n"]);
        assert_eq!(text.source, "book.txt");
    }

    #[test]
    fn json_lines_and_arrays_are_rows_joined_by_a_blank_line() {
        let lines = read("a.jsonl", "{\"text\": \"one\\r\"}\r\n\n{\"text\": \"\"}\n{\"text\": \"two\"}").unwrap();
        assert_eq!(lines.joined(), "one\r\n\n\n\ntwo");
        assert_eq!(read("a.JSON", " [{\"text\": \"one\"}, {\"text\": \"two\"}]").unwrap().joined(), "one\n\ntwo");
        assert_eq!(read("a.json", "{\"text\": \"one\"}\n{\"text\": \"two\"}").unwrap().rows, ["one", "two"]);
        let other =
            CalibrationText::from_bytes("a.jsonl", br#"{"text": "no", "body": "yes"}"#, &field("body")).unwrap();
        assert_eq!(other.rows, ["yes"]);
    }

    #[test]
    fn alpaca_rows_become_the_published_prompt() {
        let rows = r#"[{"instruction": "Add.", "input": "1, 2", "output": "3"}, {"instruction": "Sing.", "input": "", "output": "La"}]"#;
        let text = read("alpaca.json", rows).unwrap();
        assert_eq!(
            text.rows[0],
            "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n3"
        );
        assert_eq!(
            text.rows[1],
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\nSing.\n\n### Response:\nLa"
        );
        let only = CalibrationText::from_bytes("alpaca.json", rows.as_bytes(), &field("output")).unwrap();
        assert_eq!(only.rows, ["3", "La"]);
        assert!(refusal("alpaca.json", rows, &field("answer")).contains("row 1 has no field `answer`"));
    }

    #[test]
    fn a_missing_field_names_the_row_its_fields_and_the_option() {
        let message = refusal("a.jsonl", "{\"text\": \"one\"}\n{\"body\": \"b\", \"id\": 3}", &TextOptions::default());
        assert!(message.contains("a.jsonl: row 2 has no field `text`"), "{message}");
        assert!(message.contains("`body`, `id`") && message.contains("name the field"), "{message}");
    }

    #[test]
    fn what_is_not_text_is_refused_with_the_reason() {
        let none = TextOptions::default();
        let cases = [
            ("a.txt", "", "empty"),
            ("a.txt", " \n\t", "blank"),
            ("a.jsonl", "\n", "no row"),
            ("a.json", "[]", "no row"),
            ("a.jsonl", "{\"text\": \"\"}", "blank"),
            ("a.jsonl", "{\"text\": \"one\"}\n\n{\"text\": ", "line 3"),
            ("a.json", "[{\"text\": \"one\"}, 5]", "row 2 is a number"),
            ("a.json", "[{\"text\": 5}]", "field `text` is a number"),
            ("a.json", "[1", "not a JSON array"),
        ];
        for (name, content, expected) in cases {
            let message = refusal(name, content, &none);
            assert!(message.starts_with(name) && message.contains(expected), "{content:?}: {message}");
        }
        assert!(refusal("a.txt", "text", &field("text")).contains("text file"));
        assert!(refusal("a.txt", "text", &TextOptions { samples: Some(0), ..none.clone() }).contains("at least 1"));
        let bytes = CalibrationText::from_bytes("a.txt", &[0x50, 0xff], &none).unwrap_err().to_string();
        assert!(bytes.contains("not UTF-8") && bytes.contains("index 1"), "{bytes}");
    }

    #[test]
    fn samples_are_the_first_rows_or_drawn_by_the_seed() {
        let rows: String = (0..10).map(|row| format!("{{\"text\": \"{row}\"}}\n")).collect();
        let take = |samples, seed| {
            let options = TextOptions { field: None, samples, seed };
            CalibrationText::from_bytes("a.jsonl", rows.as_bytes(), &options).unwrap().rows.join("")
        };
        assert_eq!(take(Some(3), None), "012");
        assert_eq!(take(Some(30), None), "0123456789");
        // By an independent implementation of SplitMix64 and the shuffle as documented.
        assert_eq!(take(Some(4), Some(0)), "5197");
        assert_eq!(take(Some(4), Some(7)), "7046");
        assert_eq!(take(None, Some(7)), "7046852193");
    }

    #[test]
    fn the_first_number_of_split_mix_is_the_published_one() {
        // First output for seed 1234567 of the reference implementation.
        assert_eq!(split_mix(&mut 1_234_567), 6_457_827_717_110_365_317);
    }

    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn files_and_the_built_in_sample_open_by_name() {
        let none = TextOptions::default();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.txt");
        std::fs::write(&path, "hello").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(CalibrationText::open(path, &none).unwrap().rows, ["hello"]);
        let message = CalibrationText::open(&format!("{path}x"), &none).unwrap_err().to_string();
        assert!(message.contains("text.txtx: cannot read"), "{message}");
        assert_eq!(CalibrationText::open("builtin:sample", &none).unwrap(), CalibrationText::builtin_sample());
    }

    proptest! {
        #[test]
        fn any_bytes_are_rows_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..60), name in "a\\.(txt|json|jsonl)") {
            if let Ok(text) = CalibrationText::from_bytes(&name, &bytes, &TextOptions::default()) {
                prop_assert!(!text.joined().trim().is_empty());
            }
        }

        #[test]
        fn rows_survive_json_and_json_lines(rows in prop::collection::vec(any::<String>(), 1..8)) {
            prop_assume!(rows.iter().any(|row| !row.trim().is_empty()));
            let objects: Vec<Value> = rows.iter().map(|row| serde_json::json!({ "id": 1, "text": row })).collect();
            let lines: Vec<String> = objects.iter().map(Value::to_string).collect();
            for (name, content) in [("a.json", Value::Array(objects).to_string()), ("a.jsonl", lines.join("\n"))] {
                prop_assert_eq!(&read(name, &content).unwrap().rows, &rows, "{}", name);
            }
        }

        #[test]
        fn a_draw_is_a_choice_of_distinct_rows(count in 1usize..30, samples in 1usize..40, seed: u64) {
            let rows: Vec<String> = (0..count).map(|row| row.to_string()).collect();
            let options = TextOptions { field: None, samples: Some(samples), seed: Some(seed) };
            let mut drawn = choose(rows.clone(), &options).unwrap();
            prop_assert_eq!(drawn.len(), samples.min(count));
            drawn.sort();
            drawn.dedup();
            prop_assert_eq!(drawn.len(), samples.min(count));
            prop_assert!(drawn.iter().all(|row| rows.contains(row)));
        }
    }
}
