//! Typed access to the keys of a JSON object, with errors that name the file, the key, what is there and what should be.

use serde_json::{Map, Value};

use super::error::{ModelError, shown};

/// A JSON object and where it stands: `file` for messages, `path` before each key (`rope_scaling.`, or nothing).
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub file: &'a str,
    pub path: &'a str,
    pub map: &'a Map<String, Value>,
    /// Keys that may have a second name, by which they usually go.
    pub aliases: &'static [(&'static str, &'static str)],
}

impl<'a> Keys<'a> {
    pub fn new(file: &'a str, map: &'a Map<String, Value>) -> Self {
        Self { file, path: "", map, aliases: &[] }
    }

    /// The value of `key`; `null` counts as absent, as it does for the optional keys of Hugging Face configurations.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(self.name(key)).filter(|value| !value.is_null())
    }

    /// How `key` is called here.
    pub fn name<'k>(&self, key: &'k str) -> &'k str {
        let alias = self.aliases.iter().find(|(name, _)| *name == key);
        alias.filter(|_| !self.map.contains_key(key)).map_or(key, |(_, alias)| alias)
    }

    /// The same with the path before it.
    fn full_name(&self, key: &str) -> String {
        format!("{}{}", self.path, self.name(key))
    }

    pub fn missing(&self, key: &str, expected: impl Into<String>) -> ModelError {
        ModelError::MissingKey { file: self.file.to_string(), key: self.full_name(key), expected: expected.into() }
    }

    pub fn wrong(&self, key: &str, found: &Value, expected: impl Into<String>) -> ModelError {
        self.contradiction(key, shown(found), expected)
    }

    pub fn contradiction(&self, key: &str, found: impl Into<String>, expected: impl Into<String>) -> ModelError {
        ModelError::Key {
            file: self.file.to_string(),
            key: self.full_name(key),
            found: found.into(),
            expected: expected.into(),
        }
    }

    pub fn unsupported(&self, key: &str, found: impl Into<String>, supported: impl Into<String>) -> ModelError {
        ModelError::Unsupported {
            file: self.file.to_string(),
            key: self.full_name(key),
            found: found.into(),
            supported: supported.into(),
        }
    }

    /// A whole number from 1 to `most`, if the key is there.
    pub fn size(&self, key: &str, most: usize) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=most).contains(&n) => Ok(Some(n)),
            _ => Err(self.wrong(key, value, format!("a whole number from 1 to {most}"))),
        }
    }

    /// A whole number from 0 up, if the key is there.
    pub fn count(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|n| usize::try_from(n).ok());
        count.map(Some).ok_or_else(|| self.wrong(key, value, "a whole number from 0 up"))
    }

    /// A whole number from 1 to `most`.
    pub fn required_size(&self, key: &str, most: usize) -> Result<usize, ModelError> {
        self.size(key, most)?.ok_or_else(|| self.missing(key, format!("a whole number from 1 to {most}")))
    }

    /// A finite number greater than 0, if the key is there.
    pub fn positive(&self, key: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            // Beyond f32 it would be infinite or zero in the arithmetic that it is for.
            Some(n) if n as f32 > 0.0 && (n as f32).is_finite() => Ok(Some(n)),
            _ => Err(self.wrong(key, value, "a number greater than 0")),
        }
    }

    /// A finite number greater than 0.
    pub fn required_positive(&self, key: &str) -> Result<f64, ModelError> {
        self.positive(key)?.ok_or_else(|| self.missing(key, "a number greater than 0"))
    }

    /// True or false, if the key is there.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.get(key).map(|value| value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false"))).transpose()
    }

    /// A string, if the key is there.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| self.wrong(key, value, "a string"))).transpose()
    }

    /// An object, if the key is there.
    pub fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>, ModelError> {
        self.get(key).map(|value| value.as_object().ok_or_else(|| self.wrong(key, value, "an object"))).transpose()
    }

    /// A list, if the key is there.
    pub fn list(&self, key: &str) -> Result<Option<&'a [Value]>, ModelError> {
        self.get(key)
            .map(|value| value.as_array().map(Vec::as_slice).ok_or_else(|| self.wrong(key, value, "a list")))
            .transpose()
    }

    /// Token ids: one number or a list of them. Negative ids, a habit of old configurations, mean none.
    pub fn token_ids(&self, key: &str) -> Result<Vec<u32>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let ids = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let mut found = Vec::new();
        for id in ids {
            match id.as_i64() {
                Some(id) if id < 0 => {}
                Some(id) if u32::try_from(id).is_ok() => found.push(id as u32),
                _ => return Err(self.wrong(key, value, "a token id or a list of them")),
            }
        }
        Ok(found)
    }
}
