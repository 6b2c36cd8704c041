//! GGUF metadata: typed values by key, and questions that name the key when the answer is wrong.

use std::collections::BTreeMap;

use crate::weights::WeightsError;

/// One metadata value. Integers and floats of all widths are widened, which loses nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataValue {
    /// `uint8` to `uint64`.
    Unsigned(u64),
    /// `int8` to `int64`.
    Signed(i64),
    /// `float32` and `float64`; `as f32` gives a `float32` back exactly.
    Float(f64),
    /// `bool`.
    Bool(bool),
    /// `string`.
    String(String),
    /// `array`.
    Array(MetadataArray),
}

/// An array, whose elements are all of one type.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataArray {
    /// Of `uint8` to `uint64`.
    Unsigned(Vec<u64>),
    /// Of `int8` to `int64`.
    Signed(Vec<i64>),
    /// Of `float32` or `float64`.
    Float(Vec<f64>),
    /// Of `bool`.
    Bool(Vec<bool>),
    /// Of `string`.
    String(Vec<String>),
    /// Of arrays.
    Array(Vec<MetadataArray>),
}

impl MetadataValue {
    /// What it is, for messages: `the string "llama"`, `an array of 3 strings`.
    pub(crate) fn describe(&self) -> String {
        match self {
            MetadataValue::Unsigned(value) => format!("the integer {value}"),
            MetadataValue::Signed(value) => format!("the integer {value}"),
            MetadataValue::Float(value) => format!("the number {value}"),
            MetadataValue::Bool(value) => format!("{value}"),
            MetadataValue::String(value) => format!("the string {:?}", value.chars().take(40).collect::<String>()),
            MetadataValue::Array(array) => array.describe(),
        }
    }
}

impl MetadataValue {
    /// Whether it is 0, or holds nothing else.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            MetadataValue::Unsigned(value) => *value == 0,
            MetadataValue::Signed(value) => *value == 0,
            MetadataValue::Float(value) => *value == 0.0,
            MetadataValue::Array(MetadataArray::Unsigned(values)) => values.iter().all(|value| *value == 0),
            MetadataValue::Array(MetadataArray::Signed(values)) => values.iter().all(|value| *value == 0),
            MetadataValue::Bool(_) | MetadataValue::String(_) | MetadataValue::Array(_) => false,
        }
    }
}

impl MetadataArray {
    fn describe(&self) -> String {
        let (len, kind) = match self {
            MetadataArray::Unsigned(values) => (values.len(), "unsigned integers"),
            MetadataArray::Signed(values) => (values.len(), "signed integers"),
            MetadataArray::Float(values) => (values.len(), "numbers"),
            MetadataArray::Bool(values) => (values.len(), "booleans"),
            MetadataArray::String(values) => (values.len(), "strings"),
            MetadataArray::Array(values) => (values.len(), "arrays"),
        };
        format!("an array of {len} {kind}")
    }
}

/// The metadata of one GGUF file.
///
/// `x(key)` is `None` if the key is not there and [`WeightsError::Metadata`] if it holds something else;
/// `require_x(key)` is an error in both cases.
#[derive(Clone, Debug)]
pub struct GgufMetadata {
    file: String,
    values: BTreeMap<String, MetadataValue>,
}

impl GgufMetadata {
    /// `values` as if they came from `file`, the name that errors will use.
    pub fn new(file: impl Into<String>, values: impl IntoIterator<Item = (String, MetadataValue)>) -> Self {
        Self { file: file.into(), values: values.into_iter().collect() }
    }

    /// The name of the file, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// `general.architecture`, or an empty string if the file does not say.
    pub(crate) fn architecture(&self) -> &str {
        match self.get("general.architecture") {
            Some(MetadataValue::String(name)) => name,
            _ => "",
        }
    }

    /// The value of `key`, whatever it is.
    pub fn get(&self, key: &str) -> Option<&MetadataValue> {
        self.values.get(key)
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// An integer that is not negative, whatever its stored type.
    pub(crate) fn unsigned(&self, key: &str) -> Result<Option<u64>, WeightsError> {
        self.typed(key, "an integer from 0", |value| match value {
            MetadataValue::Unsigned(value) => Some(*value),
            MetadataValue::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        })
    }

    /// The same, or an array that holds only one integer, again and again.
    pub(crate) fn same_unsigned(&self, key: &str) -> Result<Option<u64>, WeightsError> {
        let same = |values: &[u64]| values.first().copied().filter(|first| values.iter().all(|value| value == first));
        self.typed(key, "an integer from 0, or the same one for every layer", |value| match value {
            MetadataValue::Unsigned(value) => Some(*value),
            MetadataValue::Signed(value) => u64::try_from(*value).ok(),
            MetadataValue::Array(MetadataArray::Unsigned(values)) => same(values),
            MetadataValue::Array(MetadataArray::Signed(values)) => {
                let values: Option<Vec<u64>> = values.iter().map(|value| u64::try_from(*value).ok()).collect();
                same(&values?)
            }
            _ => None,
        })
    }

    /// As [`GgufMetadata::unsigned`]; the key must be there.
    pub(crate) fn require_unsigned(&self, key: &str) -> Result<u64, WeightsError> {
        self.unsigned(key)?.ok_or_else(|| self.missing(key, "an integer from 0"))
    }

    /// A floating-point number.
    pub(crate) fn float(&self, key: &str) -> Result<Option<f64>, WeightsError> {
        self.typed(key, "a number", |value| match value {
            MetadataValue::Float(value) => Some(*value),
            _ => None,
        })
    }

    /// A boolean.
    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, WeightsError> {
        self.typed(key, "true or false", |value| match value {
            MetadataValue::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A string.
    pub(crate) fn string(&self, key: &str) -> Result<Option<&str>, WeightsError> {
        self.typed(key, "a string", |value| match value {
            MetadataValue::String(value) => Some(value.as_str()),
            _ => None,
        })
    }

    /// As [`GgufMetadata::string`]; the key must be there.
    pub(crate) fn require_string(&self, key: &str) -> Result<&str, WeightsError> {
        self.string(key)?.ok_or_else(|| self.missing(key, "a string"))
    }

    /// An array of strings.
    pub(crate) fn strings(&self, key: &str) -> Result<Option<&[String]>, WeightsError> {
        self.typed(key, "an array of strings", |value| match value {
            MetadataValue::Array(MetadataArray::String(values)) => Some(values.as_slice()),
            _ => None,
        })
    }

    /// As [`GgufMetadata::strings`]; the key must be there.
    pub(crate) fn require_strings(&self, key: &str) -> Result<&[String], WeightsError> {
        self.strings(key)?.ok_or_else(|| self.missing(key, "an array of strings"))
    }

    /// An array of integers that fit an i64, whatever their stored type.
    pub(crate) fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, WeightsError> {
        self.typed(key, "an array of integers", |value| match value {
            MetadataValue::Array(MetadataArray::Signed(values)) => Some(values.clone()),
            MetadataValue::Array(MetadataArray::Unsigned(values)) => {
                values.iter().map(|&value| i64::try_from(value).ok()).collect()
            }
            _ => None,
        })
    }

    /// An array of floating-point numbers.
    pub(crate) fn floats(&self, key: &str) -> Result<Option<&[f64]>, WeightsError> {
        self.typed(key, "an array of numbers", |value| match value {
            MetadataValue::Array(MetadataArray::Float(values)) => Some(values.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a MetadataValue) -> Option<T>,
    ) -> Result<Option<T>, WeightsError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.error(key, value.describe(), expected))
    }

    fn missing(&self, key: &str, expected: &'static str) -> WeightsError {
        self.error(key, "missing".to_string(), expected)
    }

    fn error(&self, key: &str, found: String, expected: &'static str) -> WeightsError {
        WeightsError::Metadata { file: self.file.clone(), key: key.to_string(), found, expected }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn metadata() -> GgufMetadata {
        let entries = [
            ("general.architecture", MetadataValue::String("llama".to_string())),
            ("count", MetadataValue::Unsigned(7)),
            ("minus", MetadataValue::Signed(-7)),
            ("plus", MetadataValue::Signed(8)),
            ("eps", MetadataValue::Float(f64::from(1e-5f32))),
            ("flag", MetadataValue::Bool(true)),
            ("types", MetadataValue::Array(MetadataArray::Unsigned(vec![1, 3]))),
            ("huge", MetadataValue::Array(MetadataArray::Unsigned(vec![u64::MAX]))),
            ("tokens", MetadataValue::Array(MetadataArray::String(vec!["a".to_string()]))),
            ("scores", MetadataValue::Array(MetadataArray::Float(vec![-1.5]))),
        ];
        GgufMetadata::new("m.gguf", entries.map(|(key, value)| (key.to_string(), value)))
    }

    #[test]
    fn values_come_back_as_asked_for() {
        let metadata = metadata();
        assert_eq!(metadata.architecture(), "llama");
        assert_eq!(metadata.unsigned("count").unwrap(), Some(7));
        assert_eq!(metadata.unsigned("plus").unwrap(), Some(8));
        assert_eq!(metadata.unsigned("absent").unwrap(), None);
        assert_eq!(metadata.float("eps").unwrap().map(|eps| eps as f32), Some(1e-5));
        assert_eq!(metadata.bool("flag").unwrap(), Some(true));
        assert_eq!(metadata.integers("types").unwrap(), Some(vec![1, 3]));
        assert_eq!(metadata.require_strings("tokens").unwrap(), ["a"]);
        assert_eq!(metadata.floats("scores").unwrap(), Some(&[-1.5][..]));
        assert_eq!(metadata.keys().count(), 10);
    }

    #[test]
    fn wrong_or_missing_values_are_named() {
        let metadata = metadata();
        let cases = [
            (metadata.unsigned("minus").unwrap_err(), "`minus` is the integer -7, expected an integer from 0"),
            (metadata.require_string("none").unwrap_err(), "`none` is missing, expected a string"),
            (metadata.float("count").unwrap_err(), "`count` is the integer 7, expected a number"),
            (metadata.require_string("flag").unwrap_err(), "`flag` is true, expected a string"),
            (metadata.bool("eps").unwrap_err(), "expected true or false"),
            (metadata.require_strings("types").unwrap_err(), "an array of 2 unsigned integers, expected an array of s"),
            (metadata.integers("huge").unwrap_err(), "expected an array of integers"),
            (metadata.floats("general.architecture").unwrap_err(), "is the string \"llama\", expected an array of n"),
        ];
        for (error, part) in cases {
            let message = error.to_string();
            assert!(message.starts_with("m.gguf: metadata key `") && message.contains(part), "{message}");
        }
    }
}
