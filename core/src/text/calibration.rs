//! Calibration text: rows from a text file, JSON Lines, JSON, or the built-in sample.
//!
//! | the file holds | rows |
//! |---|---|
//! | JSON objects, one a line (JSON Lines) or over several lines | one an object |
//! | a JSON array of objects | one an object |
//! | anything else | the whole file is one row |
//!
//! The name does not matter, but where it ends in `.json`, `.jsonl` or `.ndjson`, anything else is an error. Without such a name
//! the first 16 MiB tell: a first row that is longer is refused, and after so much white space the file is a text. NaN and
//! Infinity, which Python writes into JSON, count as null. In a text file, Windows and old Macintosh line ends (CR LF, CR) are
//! read as LF, as Python's text mode does: the tokens of a text do not depend on where it was saved. Strings in JSON are taken
//! as they are.
//!
//! A row's text is one of its fields. Rows may be empty, as WikiText's are: they are joined like any other.

use std::io::{BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::rc::Rc;

use super::TextError;
use super::rows::{Format, Opened, Row};

#[cfg(feature = "builtin")]
const BUILTIN_NAME: &str = "builtin:sample";
/// What to do where a name looks like that of the embedded text and is none.
#[cfg(not(target_arch = "wasm32"))]
const BUILTIN_ADVICE: &str = match cfg!(feature = "builtin") {
    true => "the embedded text is `builtin:sample`",
    false => {
        "this program was built without the feature `builtin` of the crate blockpruner, which brings `builtin:sample`"
    }
};

/// Which part of a file is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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

impl TextOptions {
    /// The field that holds a row's text.
    pub fn field(mut self, name: impl Into<Option<String>>) -> Self {
        self.field = name.into();
        self
    }

    /// So many rows.
    pub fn samples(mut self, rows: impl Into<Option<usize>>) -> Self {
        self.samples = rows.into();
        self
    }

    /// Drawn, instead of the first ones.
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }
}

/// A calibration text: a file and which part of it is taken. It is read when it is tokenised, as far as is needed.
#[derive(Clone, Debug)]
pub struct CalibrationText {
    /// Where it comes from: a file name or `builtin:sample`.
    pub source: String,
    content: Content,
    options: TextOptions,
}

#[derive(Clone, Debug)]
enum Content {
    Bytes(Rc<[u8]>),
    #[cfg(not(target_arch = "wasm32"))]
    File(std::path::PathBuf),
}

impl CalibrationText {
    /// The rows of a file that is in memory; `source` is its name. A byte order mark at the start is dropped.
    ///
    /// # Errors
    /// [`TextError::Calibration`] for `samples` of 0, a `field` for a text file, and a file whose beginning is no text: bytes
    /// that are not UTF-8, JSON that does not parse; [`TextError::MissingField`] for a first row without the field. What is
    /// further behind is looked at when the text is tokenised.
    pub fn from_bytes(source: &str, bytes: &[u8], options: &TextOptions) -> Result<Self, TextError> {
        let text = Self::new(source, Content::Bytes(bytes.into()), options)?;
        text.check_beginning()?;
        Ok(text)
    }

    fn new(source: &str, content: Content, options: &TextOptions) -> Result<Self, TextError> {
        let text = Self { source: source.to_owned(), content, options: options.clone() };
        match options.samples {
            Some(0) => Err(text.refuse("0 samples were asked for, but it takes at least 1".into())),
            _ => Ok(text),
        }
    }

    /// The sample text that comes with the library: 20 passages of the King James Bible, one row.
    #[cfg(feature = "builtin")]
    pub fn builtin_sample() -> Self {
        let content = Content::Bytes(blockpruner_tiny::SAMPLE.as_bytes().into());
        Self { source: BUILTIN_NAME.to_owned(), content, options: TextOptions::default() }
    }

    /// A file, or the built-in sample if `path` is `builtin:sample`. What is no regular file, a pipe for example, is read
    /// once, when the text is tokenised.
    ///
    /// # Errors
    /// [`TextError::Read`] if the file cannot be read, otherwise as [`CalibrationText::from_bytes`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: &str, options: &TextOptions) -> Result<Self, TextError> {
        #[cfg(feature = "builtin")]
        if path == BUILTIN_NAME {
            return Self::from_bytes(BUILTIN_NAME, blockpruner_tiny::SAMPLE.as_bytes(), options);
        }
        let is_file = std::fs::metadata(path).map(|metadata| metadata.is_file()).map_err(|error| {
            let advice = match error.kind() {
                _ if path.starts_with("builtin:") => BUILTIN_ADVICE,
                std::io::ErrorKind::NotFound => "check the path",
                _ => "check the file and its permissions",
            };
            TextError::Read { source_name: path.to_owned(), reason: format!("{error}; {advice}") }
        })?;
        let text = Self::new(path, Content::File(path.into()), options)?;
        if is_file {
            text.check_beginning()?;
        }
        Ok(text)
    }

    /// Which part of the file is taken.
    pub fn options(&self) -> &TextOptions {
        &self.options
    }

    fn refuse(&self, reason: String) -> TextError {
        TextError::Calibration { source_name: self.source.clone(), reason }
    }

    fn read(&self) -> Result<Box<dyn Read + '_>, TextError> {
        match &self.content {
            Content::Bytes(bytes) => Ok(Box::new(&bytes[..])),
            #[cfg(not(target_arch = "wasm32"))]
            Content::File(path) => {
                Ok(Box::new(super::open_file(&self.source, path, "check the file and its permissions")?))
            }
        }
    }

    /// Refuses a file of which not even the first piece can be had.
    fn check_beginning(&self) -> Result<(), TextError> {
        let first = match self.options.seed {
            // Which row is the first one, only reading all of them tells.
            Some(_) => Opened::new(&self.source, self.read()?).map(|_| None)?,
            None => self.pieces()?.next(),
        };
        first.transpose().map(|_| ())
    }

    /// The one text that is tokenised, the rows with a blank line between them, piece by piece.
    pub(super) fn pieces(&self) -> Result<Pieces<'_>, TextError> {
        let opened = Opened::new(&self.source, self.read()?)?;
        let is_rows = opened.format != Format::Text;
        if let Some(field) = self.options.field.as_ref().filter(|_| !is_rows) {
            return Err(self.refuse(format!(
                "a field (`{field}`) was asked for, but this is a text file: JSON has objects, one a line or in an array"
            )));
        }
        let pieces: Texts<'_> = match (opened.format, self.options.seed) {
            (Format::Text, _) => Box::new(opened.blocks()),
            (_, Some(seed)) => self.drawn(seed, opened)?,
            (_, None) => {
                let most = self.options.samples.unwrap_or(usize::MAX);
                Box::new(opened.values().take(most).map(|row| row?.text(&self.source, &self.options)))
            }
        };
        Ok(Pieces { pieces, text: self, is_rows, rows: 0, is_blank: true, ended: false })
    }

    /// The rows in the order of a draw. A file that can be read only once is kept for that.
    fn drawn<'a>(&'a self, seed: u64, opened: Opened<Box<dyn Read + 'a>>) -> Result<Texts<'a>, TextError> {
        match (&self.content, opened) {
            (Content::Bytes(bytes), _) => self.drawn_of(seed, Cursor::new(&bytes[..])),
            #[cfg(not(target_arch = "wasm32"))]
            (Content::File(path), _) if path.is_file() => {
                self.drawn_of(seed, std::fs::File::open(path).map_err(|error| self.unreadable(&error))?)
            }
            #[cfg(not(target_arch = "wasm32"))]
            (Content::File(_), mut opened) => {
                let mut bytes = Vec::new();
                opened.bytes.read_to_end(&mut bytes).map_err(|error| self.unreadable(&error))?;
                self.drawn_of(seed, Cursor::new(bytes))
            }
        }
    }

    /// Of all rows only where they begin is kept; they are read when it is their turn.
    fn drawn_of<'a>(&'a self, seed: u64, mut file: impl Read + Seek + 'a) -> Result<Texts<'a>, TextError> {
        file.rewind().map_err(|error| self.unreadable(&error))?;
        let opened = Opened::new(&self.source, &mut file)?;
        let format = opened.format;
        let places = opened.values().map(|row| Ok(row?.offset)).collect::<Result<Vec<u64>, TextError>>()?;
        let mut file = BufReader::new(file);
        let drawn = draw(places, self.options.samples, seed).into_iter();
        Ok(Box::new(drawn.map(move |place| self.text_at(&mut file, format, place))))
    }

    /// The text of the row that begins at a place of the file.
    fn text_at(&self, mut file: &mut (impl BufRead + Seek), format: Format, place: u64) -> Result<String, TextError> {
        let text = |row: Row| row.text(&self.source, &self.options);
        file.seek(SeekFrom::Start(place)).map_err(|error| self.unreadable(&error))?;
        Row::first_of(&self.source, format, &mut file).and_then(text).or_else(|_| {
            // The message has its number and its line, for which the rows before it are counted again.
            file.rewind().map_err(|error| self.unreadable(&error))?;
            let mut rows = Opened::new(&self.source, file)?.values();
            match rows.find(|row| row.as_ref().map_or(true, |row| row.offset == place)) {
                Some(row) => text(row?),
                None => Err(self.refuse("it was changed while it was read; start again".into())),
            }
        })
    }

    fn unreadable(&self, error: &std::io::Error) -> TextError {
        super::unreadable(&self.source, error)
    }
}

type Texts<'a> = Box<dyn Iterator<Item = Result<String, TextError>> + 'a>;

/// The joined text in pieces: rows with blank lines between them, or the blocks of the only one.
pub(super) struct Pieces<'a> {
    pieces: Texts<'a>,
    text: &'a CalibrationText,
    is_rows: bool,
    /// Rows of which something has been given.
    pub rows: usize,
    /// Whether that was white space only.
    is_blank: bool,
    ended: bool,
}

impl Pieces<'_> {
    /// What is wrong with a text of which there is no more.
    fn check_whole(&self) -> Result<(), TextError> {
        match (self.rows, self.is_blank) {
            (0, _) if self.is_rows => {
                Err(self.text.refuse("there is no row in it; give a text with at least one".into()))
            }
            (_, true) => Err(self.text.refuse("the text is empty or blank; give one that holds words".into())),
            _ => Ok(()),
        }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<String, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.pieces.next() {
            Some(Ok(mut piece)) => {
                self.is_blank &= piece.trim().is_empty();
                if self.is_rows && self.rows > 0 {
                    piece.insert_str(0, "\n\n");
                }
                self.rows = if self.is_rows { self.rows + 1 } else { 1 };
                Some(Ok(piece))
            }
            Some(Err(error)) => {
                self.ended = true;
                Some(Err(error))
            }
            None => {
                self.ended = true;
                self.check_whole().err().map(Err)
            }
        }
    }
}

/// So many of the rows in the order of a draw.
fn draw<T>(mut rows: Vec<T>, samples: Option<usize>, seed: u64) -> Vec<T> {
    let count = samples.map_or(rows.len(), |samples| samples.min(rows.len()));
    let mut state = seed;
    for place in 0..count {
        let left = (rows.len() - place) as u64;
        rows.swap(place, place + (split_mix(&mut state) % left) as usize);
    }
    rows.truncate(count);
    rows.shrink_to_fit();
    rows
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
    use serde_json::Value;

    /// The joined text of a file and its rows.
    fn open(name: &str, content: &[u8], options: &TextOptions) -> Result<(String, usize), TextError> {
        let text = CalibrationText::from_bytes(name, content, options)?;
        joined(&text)
    }

    fn joined(text: &CalibrationText) -> Result<(String, usize), TextError> {
        let mut pieces = text.pieces()?;
        let joined = pieces.by_ref().collect::<Result<String, _>>()?;
        Ok((joined, pieces.rows))
    }

    fn read(name: &str, content: &str) -> Result<(String, usize), TextError> {
        open(name, content.as_bytes(), &TextOptions::default())
    }

    fn refusal(name: &str, content: &str, options: &TextOptions) -> String {
        open(name, content.as_bytes(), options).unwrap_err().to_string()
    }

    fn field(name: &str) -> TextOptions {
        TextOptions { field: Some(name.into()), ..TextOptions::default() }
    }

    #[test]
    fn a_text_file_is_one_row() {
        let text = read("book.txt", "\u{feff}one\r\n\r\ntwo\rthree\n").unwrap();
        assert_eq!(text, ("one\n\ntwo\nthree\n".to_string(), 1));
    }

    #[test]
    fn json_lines_and_arrays_are_rows_joined_by_a_blank_line() {
        let lines = read("a.jsonl", "{\"text\": \"one\\r\"}\r\n\n{\"text\": \"\"}\n{\"text\": \"two\"}").unwrap();
        assert_eq!(lines, ("one\r\n\n\n\ntwo".to_string(), 3));
        let two = ("one\n\ntwo".to_string(), 2);
        assert_eq!(read("a.JSON", " [{\"text\": \"one\"}, {\"text\": \"two\"}]").unwrap(), two);
        assert_eq!(read("a.json", "{\"text\": \"one\"}\n{\"text\": \"two\"}").unwrap(), two);
        let other = open("a.jsonl", br#"{"text": "no", "body": "yes"}"#, &field("body")).unwrap();
        assert_eq!(other.0, "yes");
    }

    #[test]
    fn alpaca_rows_become_the_published_prompt() {
        let rows = r#"[{"instruction": "Add.", "input": "1, 2", "output": "3"}, {"instruction": "Sing.", "input": "", "output": "La"}]"#;
        let (text, _) = read("alpaca.json", rows).unwrap();
        let (first, second) = text.split_at(text.find("3\n\nBelow").unwrap() + 1);
        assert_eq!(
            first,
            "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n3"
        );
        assert_eq!(
            second,
            "\n\nBelow is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\nSing.\n\n### Response:\nLa"
        );
        assert_eq!(open("alpaca.json", rows.as_bytes(), &field("output")).unwrap().0, "3\n\nLa");
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
        let bytes = open("a.txt", &[0x50, 0xff], &none).unwrap_err().to_string();
        assert!(bytes.contains("not UTF-8") && bytes.contains("index 1"), "{bytes}");
    }

    #[test]
    fn what_is_in_a_file_decides_and_not_its_name() {
        let two = ("one\n\ntwo".to_string(), 2);
        let lines = "\n {\"text\": \"one\"}\r\n{\"id\": NaN, \"text\": \"two\"}\n";
        let array = "[{\"text\": \"one\", \"more\": [\"]\", {}]},\n {\"text\": \"two\"} ]\n";
        let pretty = "{\n  \"text\": \"one\"\n}\n{\n  \"text\": \"two\"\n}\n";
        for content in [lines, array, pretty] {
            for name in ["train.jsonl.1", "a.txt", "/dev/fd/63", "a.json", "a.jsonl", "a.ndjson"] {
                assert_eq!(read(name, content).unwrap(), two, "{name}: {content}");
            }
        }
        for text in ["[Intro] one", "{one} two", "[1, 2]", "{", "\"one\"", "[]", "[{\"a\": 1"] {
            assert_eq!(read("a.txt", text).unwrap(), (text.to_string(), 1));
            assert!(read("a.json", text).is_err(), "{text}");
        }
        let later = refusal("a", "{\"text\": \"one\"}\nand so on", &TextOptions::default());
        assert!(later.contains("line 2 is not a JSON object"), "{later}");
    }

    #[test]
    fn what_is_no_text_at_all_is_named() {
        let cases: [(&[u8], &str); 7] = [
            (b"\xff\xfeo\0n\0e\0", "UTF-16"),
            (b"\xff\xfe\0\0o\0\0\0", "iconv -f UTF-32"),
            (b"Entry not found", "what a hub answers"),
            (b"o\0n\0e\0 \0t\0w\0o\0", "UTF-16"),
            (b"\x1f\x8b\x08\0\0\0\0\0", "compressed (gzip); unpack"),
            (b"PAR1\x15\x04", "Parquet"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ];
        for (bytes, expected) in cases {
            let error = open("a.txt", bytes, &TextOptions::default()).unwrap_err().to_string();
            assert!(error.starts_with("a.txt: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn only_so_much_is_looked_at_before_a_file_is_a_text() {
        assert_eq!(Opened::new("a", std::io::repeat(b'\n')).unwrap().format, Format::Text);
        let text = " ".repeat(17 << 20) + "one";
        assert!(read("a.txt", &text).unwrap() == (text, 1));
        // What is no object by its first bytes is not looked at further.
        let text = "a".repeat(17 << 20);
        for beginning in ["{\\bf ", "[", "[ {one} "] {
            let text = format!("{beginning}{text}");
            assert!(read("a.txt", &text).unwrap() == (text, 1), "{beginning}");
        }
        for (row, name) in
            [(format!("{{\"text\": \"{text}\"}}"), "a.jsonl"), (format!("[{{\"text\": \"{text}\"}}]"), "a.json")]
        {
            let message = refusal("a.txt", &row, &TextOptions::default());
            assert!(message.contains("longer than 16 MiB; name the file .json"), "{message}");
            assert!(read(name, &row).unwrap() == (text.clone(), 1));
        }
    }

    #[test]
    fn what_is_wrong_with_a_row_is_said_by_its_place_in_the_file() {
        let lines = "{\"text\": \"one\"}\n\n  {\"text\": ?}\n";
        let expected = "a.jsonl: line 3 is not a JSON object: expected value in column 12; expected one object a line";
        assert_eq!(refusal("a.jsonl", lines, &TextOptions::default()), expected);
        let array = "[{\"text\": \"one\"}, {\n\"text\":\n  ?}]";
        let expected = "a.json: not a JSON array of rows: row 2, on line 3: expected value in column 3";
        assert_eq!(refusal("a.json", array, &TextOptions::default()), expected);
    }

    /// Of drawn rows only the places are kept.
    #[test]
    fn a_drawn_row_that_is_wrong_is_said_as_any_other() {
        let cases = [
            ("a.jsonl", "\u{feff}{\"text\": \"one\"}\n\n{\"text\": ?}\n{\"text\": \"three\"}"),
            ("a.jsonl", "{\"text\": \"one\"}\n{\"text\": 2}\n{\"text\": \"three\"}"),
            ("a.json", "[{\"text\": \"one\"},\n{\"body\": \"two\"}, {\"text\": \"three\"}]"),
        ];
        for (name, content) in cases {
            let in_order = refusal(name, content, &TextOptions::default());
            for seed in 0..4 {
                assert_eq!(refusal(name, content, &TextOptions::default().seed(seed)), in_order);
            }
        }
    }

    /// Whatever is cut in two by the end of a block.
    #[test]
    fn blocks_are_cut_nowhere() {
        for shift in 0..8 {
            let text = "x".repeat((1 << 16) - shift) + "\u{1f600}\r\n\u{e9}\r\r\n" + &"y".repeat(1 << 16) + "\r";
            let expected = text.replace("\r\n", "\n").replace('\r', "\n");
            assert!(read("a.txt", &text).unwrap() == (expected, 1), "{shift}");
        }
        let cut = [&b"y".repeat(1 << 16)[..], "\u{1f600}".as_bytes()].concat();
        let error = open("a.txt", &cut[..cut.len() - 1], &TextOptions::default()).unwrap_err().to_string();
        assert!(error.contains("not UTF-8") && error.contains("index 65536"), "{error}");
    }

    #[test]
    fn samples_are_the_first_rows_or_drawn_by_the_seed() {
        let rows: String = (0..10).map(|row| format!("{{\"text\": \"{row}\"}}\n")).collect();
        let take = |samples, seed| {
            let options = TextOptions { field: None, samples, seed };
            open("a.jsonl", rows.as_bytes(), &options).unwrap().0.replace("\n\n", "")
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
        assert_eq!(joined(&CalibrationText::open(path, &none).unwrap()).unwrap(), ("hello".to_string(), 1));
        let message = CalibrationText::open(&format!("{path}x"), &none).unwrap_err().to_string();
        assert!(message.contains("text.txtx: cannot read"), "{message}");
        let sample = CalibrationText::open("builtin:sample", &none).unwrap();
        assert_eq!(joined(&sample).unwrap(), joined(&CalibrationText::builtin_sample()).unwrap());
        // Drawn rows are read again where they lie, behind the mark.
        let drawn = folder.path().join("rows");
        std::fs::write(&drawn, "\u{feff}{\"text\": \"one\"}\n{\"text\": \"tw\u{f6}\"}\n{\"text\": \"three\"}\n")
            .unwrap();
        let options = TextOptions { seed: Some(1), ..none.clone() };
        let by_path = joined(&CalibrationText::open(drawn.to_str().unwrap(), &options).unwrap()).unwrap();
        assert_eq!(by_path, open("rows", &std::fs::read(&drawn).unwrap(), &options).unwrap());
        assert_eq!((by_path.1, by_path.0.len()), (3, "one\n\ntw\u{f6}\n\nthree".len()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_rows_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..60), name in "a\\.(txt|json|jsonl)") {
            if let Ok((text, rows)) = open(&name, &bytes, &TextOptions::default()) {
                prop_assert!(rows > 0 && !text.trim().is_empty());
            }
        }

        #[test]
        fn rows_survive_json_and_json_lines(rows in prop::collection::vec(any::<String>(), 1..8)) {
            prop_assume!(rows.iter().any(|row| !row.trim().is_empty()));
            let objects: Vec<Value> = rows.iter().map(|row| serde_json::json!({ "id": 1, "text": row })).collect();
            let lines: Vec<String> = objects.iter().map(Value::to_string).collect();
            for (name, content) in [("a.json", Value::Array(objects).to_string()), ("a.jsonl", lines.join("\n"))] {
                prop_assert_eq!(read(name, &content).unwrap(), (rows.join("\n\n"), rows.len()), "{}", name);
            }
        }

        #[test]
        fn a_draw_is_a_choice_of_distinct_rows(count in 1usize..30, samples in 1usize..40, seed: u64) {
            let rows: Vec<String> = (0..count).map(|row| row.to_string()).collect();
            let mut drawn = draw(rows.clone(), Some(samples), seed);
            prop_assert_eq!(drawn.len(), samples.min(count));
            drawn.sort();
            drawn.dedup();
            prop_assert_eq!(drawn.len(), samples.min(count));
            prop_assert!(drawn.iter().all(|row| rows.contains(row)));
        }
    }
}
