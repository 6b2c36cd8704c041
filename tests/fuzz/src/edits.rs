//! Bytes read as changes to a JSON document, so that what comes out is still much like one that is accepted.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Number, Value};

/// Most changes to one document's values, and to its text afterwards.
const MOST_CHANGES: usize = 6;
const MOST_TEXT_CHANGES: usize = 2;
/// Longest string or list that a change makes.
const MOST_REPEATS: usize = 300;
/// Most text that copies of a list's element come to: changes add up.
const MOST_COPIED_BYTES: usize = 1 << 15;
/// Largest part of a base that is put elsewhere, as text.
const MOST_PART_BYTES: usize = 400;

const INTEGERS: [i64; 16] =
    [0, 1, -1, 2, 3, 4, 7, 8, 64, 255, 1 << 16, 1 << 31, 1 << 32, (1 << 53) + 1, i64::MAX, i64::MIN];
const FLOATS: [f64; 10] = [0.5, -0.0, 1.5, -1.0, 1e-320, 1e-45, 3.5e38, 1e300, f64::MAX, 0.1];
const STRINGS: [&str; 6] = ["", " ", "\u{0}", "e\u{301}", "\u{1f600}", "../x"];
/// What JSON does not have, and what nests deeper than a parser may follow.
const TEXTS: [&str; 10] =
    ["NaN", "Infinity", "-Infinity", "1e999", "\u{feff}", "\\ud800", "[[[[[[[[[[[[[[[[", "{\"a\":", "}", ","];

/// What changes take their keys and values from.
#[derive(Debug, Default)]
pub struct Words {
    keys: Vec<String>,
    values: Vec<Value>,
}

impl Words {
    /// Every key and every small value that occurs in `documents`.
    pub fn of<'a>(documents: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut words = Self::default();
        documents.into_iter().for_each(|document| words.collect(document));
        words.keys.sort();
        words.keys.dedup();
        words
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::Object(object) => {
                // A vocabulary's tokens are no keys.
                if object.len() < 50 {
                    self.keys.extend(object.keys().cloned());
                }
                object.values().for_each(|value| self.collect(value));
            }
            Value::Array(array) => array.iter().for_each(|value| self.collect(value)),
            _ => {}
        }
        let worth_it = !matches!(value, Value::Null | Value::Bool(_) | Value::Number(_));
        if worth_it && !self.values.contains(value) && value.to_string().len() <= MOST_PART_BYTES {
            self.values.push(value.clone());
        }
    }

    fn key(&self, data: &mut Unstructured<'_>) -> Result<String> {
        data.choose(&self.keys).cloned()
    }

    fn value(&self, data: &mut Unstructured<'_>) -> Result<Value> {
        Ok(match data.int_in_range(0..=9)? {
            0 => Value::Null,
            1 => Value::Bool(data.arbitrary()?),
            2 => (*data.choose(&INTEGERS)?).into(),
            3 => (*data.choose(&FLOATS)?).into(),
            4 => data.arbitrary::<u16>()?.into(),
            5 => data.arbitrary::<u64>()?.into(),
            6 => Number::from_f64(data.arbitrary()?).map_or(Value::Null, Value::Number),
            7 => text(data)?.into(),
            8 => Value::Object(Map::new()),
            _ => data.choose(&self.values)?.clone(),
        })
    }
}

/// A short string, now and then a long one.
pub fn text(data: &mut Unstructured<'_>) -> Result<String> {
    let unit = match data.arbitrary()? {
        true => (*data.choose(&STRINGS)?).to_string(),
        false => data.arbitrary::<char>()?.to_string(),
    };
    let times = if data.ratio(1, 4)? { data.int_in_range(0..=MOST_REPEATS)? } else { 1 };
    Ok(unit.repeat(times))
}

/// The document that a target reads: `bytes` itself if it begins as JSON does, else one of the bases after changes.
pub fn json(bytes: &[u8], bases: &[Value], words: &Words) -> Vec<u8> {
    match bytes.first() {
        Some(b'{' | b'[') => bytes.to_vec(),
        _ => {
            let mut data = Unstructured::new(bytes);
            // Where bytes run out, the first base and no change are chosen.
            data.choose(bases).map(|base| changed(&mut data, base, words)).unwrap_or_default()
        }
    }
}

/// `base` after the changes that `data` describes.
pub fn changed(data: &mut Unstructured<'_>, base: &Value, words: &Words) -> Vec<u8> {
    let mut document = base.clone();
    for _ in 0..data.int_in_range(0..=MOST_CHANGES).unwrap_or(0) {
        if change(data, &mut document, words).is_err() {
            break;
        }
    }
    let mut text = document.to_string().into_bytes();
    for _ in 0..data.int_in_range(0..=3 * MOST_TEXT_CHANGES).unwrap_or(0).saturating_sub(2 * MOST_TEXT_CHANGES) {
        if change_bytes(data, &mut text).is_err() {
            break;
        }
    }
    text
}

/// One change somewhere in the document.
fn change(data: &mut Unstructured<'_>, document: &mut Value, words: &Words) -> Result<()> {
    let elsewhere = place(data, document)?.clone();
    let value = place(data, document)?;
    match data.int_in_range(0..=7)? {
        0 | 1 => *value = words.value(data)?,
        2 => *value = elsewhere,
        3 => match value {
            Value::Object(object) if !object.is_empty() => {
                let key = object.keys().nth(data.choose_index(object.len())?).cloned().unwrap_or_default();
                object.shift_remove(&key);
            }
            Value::Array(array) if !array.is_empty() => drop(array.remove(data.choose_index(array.len())?)),
            _ => *value = Value::Null,
        },
        4 | 5 => match value {
            Value::Object(object) => drop(object.insert(words.key(data)?, words.value(data)?)),
            Value::Array(array) => array.push(words.value(data)?),
            Value::String(string) => string.push_str(&text(data)?),
            Value::Number(number) => {
                let by = data.int_in_range(-3..=3)?;
                *value = number.as_i64().map_or(Value::Null, |number| number.saturating_add(by).into());
            }
            _ => *value = words.value(data)?,
        },
        6 => match value {
            Value::Array(array) => {
                let one = array.first().cloned().unwrap_or(elsewhere);
                let most = MOST_COPIED_BYTES / one.to_string().len().max(1);
                let copies = data.int_in_range(0..=MOST_REPEATS)?.min(most);
                array.extend(std::iter::repeat_n(one, copies));
            }
            Value::Object(object) => {
                let times = data.int_in_range(1..=3)?;
                for _ in 0..times {
                    object.insert(text(data)?, elsewhere.clone());
                }
            }
            other => *other = Value::Array(vec![other.clone()]),
        },
        _ => match value {
            Value::Object(object) => *value = object.values().cloned().collect(),
            Value::Number(number) => *value = number.to_string().into(),
            other => *other = Value::Object(Map::from_iter([(words.key(data)?, other.clone())])),
        },
    }
    Ok(())
}

/// A place in the document, the root included.
fn place<'a>(data: &mut Unstructured<'_>, mut value: &'a mut Value) -> Result<&'a mut Value> {
    loop {
        let children = match value {
            Value::Object(object) => object.len(),
            Value::Array(array) => array.len(),
            _ => 0,
        };
        if children == 0 || data.ratio(1, 5)? {
            return Ok(value);
        }
        let chosen = data.choose_index(children)?;
        value = match value {
            Value::Object(object) => object.values_mut().nth(chosen),
            Value::Array(array) => array.get_mut(chosen),
            _ => None,
        }
        .ok_or(arbitrary::Error::IncorrectFormat)?;
    }
}

/// One change of bytes, whatever they are.
pub fn change_bytes(data: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> Result<()> {
    let at = data.int_in_range(0..=bytes.len())?;
    match data.int_in_range(0..=4)? {
        0 => bytes.truncate(at),
        1 => {
            let new = data.arbitrary()?;
            bytes.get_mut(at).into_iter().for_each(|byte| *byte = new);
        }
        2 => {
            let end = bytes.len().min(at + data.int_in_range(0..=16)?);
            bytes.drain(at..end);
        }
        3 => {
            let text = *data.choose(&TEXTS)?;
            bytes.splice(at..at, text.bytes());
        }
        _ => {
            let end = bytes.len().min(at + data.int_in_range(0..=32)?);
            let times = data.int_in_range(1..=MOST_REPEATS)?;
            let again = bytes[at..end].repeat(times);
            bytes.splice(at..at, again);
        }
    }
    Ok(())
}
