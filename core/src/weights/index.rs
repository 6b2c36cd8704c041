//! The index of a checkpoint in shards, `*.index.json` as transformers writes it: which file holds each tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde::Deserialize;
use serde_json::Value;

use super::source::base_name;
use super::{ByteSource, WeightsError};
use crate::json;

/// Which shard file holds each tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn malformed(file: &str, reason: String) -> WeightsError {
    WeightsError::Malformed { file: file.to_string(), container: "index", reason }
}

/// The shard files that the text of the index `file` names, sorted: plain names of files beside it.
pub(super) fn shard_files(file: &str, index: &[u8]) -> Result<Vec<String>, WeightsError> {
    let index = Value::Object(json::object(index).map_err(|reason| malformed(file, reason))?);
    let index: Index = serde_json::from_value(index).map_err(|error| malformed(file, error.to_string()))?;
    if index.weight_map.is_empty() {
        return Err(malformed(file, "its `weight_map` is empty".to_string()));
    }
    let shards = index.weight_map.values().map(|shard| beside(file, shard));
    let shards: BTreeSet<&str> = shards.collect::<Result<_, _>>()?;
    Ok(shards.into_iter().map(str::to_string).collect())
}

/// The plain name of the file that the index `file` means by `shard`: a leading `./` is no part of it. A name that leads
/// elsewhere is refused, because callers join it to a folder or an address.
fn beside<'a>(file: &str, shard: &'a str) -> Result<&'a str, WeightsError> {
    let name = shard.strip_prefix("./").unwrap_or(shard);
    if matches!(name, "" | "." | "..") || name.contains(['/', '\\']) {
        let reason = format!("it names the shard file `{shard}`, which is no plain name of a file beside it");
        return Err(malformed(file, reason));
    }
    Ok(name)
}

/// The sources that make up a checkpoint: those that `index`, the text of the file `index_file`, names, in the order of their
/// names; or the only one that there is.
pub(super) fn shards(
    sources: Vec<Rc<dyn ByteSource>>,
    index_file: &str,
    index: Option<&[u8]>,
    container: &'static str,
) -> Result<Vec<Rc<dyn ByteSource>>, WeightsError> {
    let error = |file: &str, reason| Err(WeightsError::Malformed { file: file.to_string(), container, reason });
    let Some(index) = index else {
        return match sources.as_slice() {
            [] => error("checkpoint", "there is no file with weights".to_string()),
            [_] => Ok(sources),
            [first, ..] => {
                let reason = format!("it is one of {} files, but {index_file} is missing; add it", sources.len());
                error(first.name(), reason)
            }
        };
    };
    let shards = shard_files(index_file, index)?;
    let find = |shard: &String| sources.iter().find(|source| base_name(source.name()) == shard).cloned();
    let missing: Vec<_> = shards.iter().filter(|shard| find(shard).is_none()).collect();
    if let Some(shard) = missing.first() {
        let reason = format!(
            "it names {} shard files, of which {} are missing, the first of them `{shard}`; put them beside it",
            shards.len(),
            missing.len(),
        );
        return Err(malformed(index_file, reason));
    }
    Ok(shards.iter().filter_map(find).collect())
}
