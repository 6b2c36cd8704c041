//! Which files of a folder on a server a model is made of.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::model::{CARD, Checkpoint, is_carried, read_all};
use crate::weights::{ByteSource, NamedSources, WeightsError, pytorch, safetensors};

/// The files of a model's folder: settings, tokenizer and licence, and its weights, which are safetensors, or PyTorch's where there
/// are none. `look` finds files by their names: those that are there, some at a time if it can. `listed` are all that there
/// are, if somebody knows; otherwise every name that such a file may have is looked for.
///
/// # Errors
/// Those of `look`, and an index that cannot be read or leads elsewhere.
pub async fn folder_files<E: From<WeightsError>>(
    listed: Option<&[String]>,
    look: impl AsyncFn(Vec<String>) -> Result<NamedSources, E>,
) -> Result<NamedSources, E> {
    let there = |name: &&str| listed.is_none_or(|listed| listed.iter().any(|there| there == name));
    let mut wanted: Vec<String> = Checkpoint::usual_files().filter(there).map(str::to_string).collect();
    if let Some(listed) = listed {
        let single = wanted.iter().any(|name| name.ends_with(".safetensors"));
        let index = |name: &str| name.ends_with(".safetensors.index.json");
        if single {
            wanted.retain(|name| !index(name));
        }
        let has_index = wanted.iter().any(|name| index(name));
        // Under whatever name, as in a folder.
        let mut others = listed.iter().filter(|name| name.ends_with(".safetensors") && !name.contains('/'));
        if let (false, false, Some(only), None) = (single, has_index, others.next(), others.next()) {
            wanted.push(only.clone());
        }
        let carried = listed.iter().filter(|name| is_carried(name));
        let carried: BTreeSet<&String> = carried.filter(|name| !wanted.contains(name)).collect();
        wanted.extend(carried.into_iter().cloned().collect::<Vec<_>>());
        // It names the licence; alone it is no model.
        if !wanted.is_empty() && listed.iter().any(|name| name == CARD) {
            wanted.push(CARD.to_string());
        }
    }
    let mut found = look(wanted).await?;
    let has = |found: &[(String, Rc<dyn ByteSource>)], end: &str| found.iter().any(|(name, _)| name.ends_with(end));
    if found.is_empty() {
        return Ok(found);
    }
    if !has(&found, ".safetensors") && !has(&found, ".safetensors.index.json") {
        let pickled = Checkpoint::usual_pytorch_files().filter(there).map(str::to_string).collect();
        found.extend(look(pickled).await?);
    }
    if !has(&found, ".safetensors")
        && !has(&found, ".bin")
        && let Some((name, index)) = found.iter().find(|(name, _)| name.ends_with(".index.json"))
    {
        let text = read_all(index.as_ref()).await?;
        let shards = match name.ends_with(".bin.index.json") {
            true => pytorch::shard_files(&text)?,
            false => safetensors::shard_files(&text)?,
        };
        // One that is not there is named by the library, which knows what it is for.
        found.extend(look(shards).await?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::cell::RefCell;

    use super::*;
    use crate::weights::BytesSource;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    /// The names that were looked for where these files are, each time, and those found.
    fn looked(there: &[&str], listed: bool) -> (Vec<Vec<String>>, Vec<String>) {
        let listing = strings(there);
        let asked = RefCell::new(Vec::new());
        let look = async |names: Vec<String>| {
            asked.borrow_mut().push(names.clone());
            let index = br#"{"weight_map": {"a": "s-1.safetensors", "b": "s-2.safetensors"}}"#;
            let source = |name: &String| Rc::new(BytesSource::new(name.clone(), index.to_vec())) as Rc<dyn ByteSource>;
            let found = names.iter().filter(|name| listing.contains(name)).map(|name| (name.clone(), source(name)));
            Ok::<_, WeightsError>(found.collect::<NamedSources>())
        };
        let found = pollster::block_on(folder_files(listed.then_some(listing.as_slice()), look)).unwrap();
        (asked.into_inner(), found.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn only_what_a_model_needs_is_looked_for() {
        let there = [
            "README.md",
            "config.json",
            "model.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "original/model.safetensors",
            "tokenizer.json",
            "LICENSE",
            "flax_model.msgpack",
        ];
        let (asked, found) = looked(&there, true);
        assert_eq!(asked, [strings(&["config.json", "model.safetensors", "tokenizer.json", "LICENSE", "README.md"])]);
        assert_eq!(found, asked[0]);
        let (asked, _) = looked(&there, false);
        assert!(asked.len() == 1 && asked[0].len() > 10, "{asked:?}");
    }

    #[test]
    fn weights_are_found_whatever_form_they_have() {
        let (asked, _) = looked(&["config.json", "model.safetensors.index.json", "s-1.safetensors"], true);
        assert_eq!(asked[1], ["s-1.safetensors", "s-2.safetensors"]);
        let (asked, _) = looked(&["config.json", "weights.safetensors"], true);
        assert_eq!(asked, [["config.json", "weights.safetensors"]]);
        for listed in [true, false] {
            let (asked, found) = looked(&["config.json", "pytorch_model.bin"], listed);
            assert_eq!(asked.len(), 2);
            assert_eq!(found, ["config.json", "pytorch_model.bin"]);
        }
        let (asked, found) = looked(&["README.md"], false);
        assert!(asked.len() == 1 && found.is_empty());
    }
}
