//! Models that are split into several GGUF files, as `llama-gguf-split` does it and llama.cpp reads them.
//!
//! Parts are called `NAME-00001-of-00003.gguf`. Each says in `split.no` which it is, from 0, in `split.count` how many there are,
//! and in `split.tensors.count` how many tensors all have together; the model's metadata are those of the first.

use std::fmt;
use std::rc::Rc;

use super::GgufMetadata;
use crate::weights::source::base_name;
use crate::weights::{ByteSource, WeightsError};

/// The name of a part, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartName<'a> {
    /// What all parts begin with: the name of the model.
    pub model: &'a str,
    /// From 0.
    pub number: u16,
    pub count: u16,
    /// `.gguf`, perhaps in capitals.
    extension: &'a str,
}

impl<'a> PartName<'a> {
    /// `file`, without its folder, as the name of a part.
    pub fn parse(file: &'a str) -> Option<Self> {
        let (rest, extension) = file.split_at_checked(file.len().checked_sub(5)?)?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (model, number) = rest.rsplit_once('-')?;
        let parsed = |digits: &str| digits.parse::<u16>().ok().filter(|number| format!("{number:05}") == digits);
        let (number, count) = (parsed(number)?, parsed(count)?);
        let part = Self { model, number: number.checked_sub(1)?, count, extension };
        (extension.eq_ignore_ascii_case(".gguf") && part.number < count).then_some(part)
    }

    /// The file name of a part of the same model.
    fn of(&self, number: u16) -> String {
        format!("{}-{:05}-of-{:05}{}", self.model, u32::from(number) + 1, self.count, self.extension)
    }

    /// The file names of all parts, in their order.
    pub fn files(self) -> impl Iterator<Item = String> {
        (0..self.count).map(move |number| self.of(number))
    }
}

/// Whether a file is called `NAME.gguf.part1of2`, as some publish what was cut into pieces that are no files of their own.
pub(super) fn is_piece(file: &str) -> bool {
    let Some((_, piece)) = file.rsplit_once(".part") else { return false };
    let is_number = |digits: &str| digits.parse::<u16>().is_ok();
    piece.split_once("of").is_some_and(|(number, count)| is_number(number) && is_number(count))
}

/// What a file says of its being a part.
struct Part {
    number: u64,
    count: u64,
}

impl Part {
    /// None for a file that is a whole model.
    fn of(metadata: &GgufMetadata) -> Result<Option<Self>, WeightsError> {
        let count = metadata.unsigned("split.count")?.unwrap_or(1);
        if count < 2 {
            return Ok(None);
        }
        Ok(Some(Self { number: metadata.require_unsigned("split.no")?, count }))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "part {} of {}", u128::from(self.number) + 1, self.count)
    }
}

/// The sources of the parts behind the first, in their order, out of `others`: none if the first is a whole model.
pub(super) fn other_parts(
    first: &GgufMetadata,
    others: &[Rc<dyn ByteSource>],
) -> Result<Vec<Rc<dyn ByteSource>>, WeightsError> {
    let Some(part) = Part::of(first)? else { return Ok(Vec::new()) };
    let refuse = |problem: String, advice: String| {
        let problem = format!("it is {part} of a model{problem}");
        Err(WeightsError::Refused { file: first.file().to_string(), problem, advice })
    };
    let name = PartName::parse(base_name(first.file()));
    if part.number != 0 {
        let first = name.map_or_else(|| "the first one".to_string(), |name| name.of(0));
        return refuse(String::new(), format!("give {first}, and the others are found beside it"));
    }
    let Some(name) = name.filter(|name| name.number == 0 && u64::from(name.count) == part.count) else {
        let advice = format!("name them as llama-gguf-split does, with -00001-of-{:05}.gguf at the end", part.count);
        return refuse(", and the others are found by their names".to_string(), advice);
    };
    let mut found = Vec::new();
    for file in name.files().skip(1) {
        match others.iter().find(|source| base_name(source.name()) == file) {
            Some(source) => found.push(source.clone()),
            None => return refuse(format!(", but {file} is missing"), "put it beside, or give it along".to_string()),
        }
    }
    Ok(found)
}

/// An error unless the file with `metadata` is part `number`, from 0, of the model that begins with `first`.
pub(super) fn check_part(first: &GgufMetadata, metadata: &GgufMetadata, number: usize) -> Result<(), WeightsError> {
    let count = Part::of(first)?.map_or(1, |part| part.count);
    let expected = Part { number: number as u64, count };
    let found = match Part::of(metadata)? {
        Some(part) if part.number == expected.number && part.count == count => return Ok(()),
        Some(part) => part.to_string(),
        None => "a model of its own".to_string(),
    };
    Err(WeightsError::Refused {
        file: metadata.file().to_string(),
        problem: format!("its metadata say that it is {found}, its name {expected}"),
        advice: "download the parts again, all of one model".to_string(),
    })
}

/// An error unless the parts have so many tensors together as the first says.
pub(super) fn check_tensors(first: &GgufMetadata, found: usize) -> Result<(), WeightsError> {
    if Part::of(first)?.is_none() {
        return Ok(());
    }
    let expected = first.require_unsigned("split.tensors.count")?;
    if expected == found as u64 {
        return Ok(());
    }
    Err(WeightsError::Refused {
        file: first.file().to_string(),
        problem: format!("`split.tensors.count` is {expected}, but the parts have {found} tensors together"),
        advice: "download the parts again, all of one model".to_string(),
    })
}
