//! The published result format (`order.json` of BlockPruner, Zhong et al., 2025), read and written.
//!
//! `{"1": [["mha", 25]], "2": [["mha", 25], ["mha", 27]], ..}`: for every step the blocks removed so far, sorted by
//! layer. The order of removal is the difference from step to step.

use serde_json::Value;

use super::{ExportError, JsonPlace};
use crate::model::{BlockId, BlockKind, BlockSet, ModelSpec};
use crate::search::Unit;

/// What was removed, first removed first, in the published format: one line a step.
pub fn order_json(order: &[Unit]) -> String {
    let mut removed: Vec<BlockId> = Vec::new();
    let mut lines = Vec::with_capacity(order.len());
    for (index, unit) in order.iter().enumerate() {
        removed.extend(unit.blocks());
        // Depth sorts by layer, attention first.
        removed.sort_by_key(BlockId::by_layer);
        let blocks: Vec<String> = removed.iter().map(|b| format!("[\"{}\", {}]", b.kind.as_str(), b.layer)).collect();
        lines.push(format!("\"{}\": [{}]", index + 1, blocks.join(", ")));
    }
    format!("{{{}}}\n", lines.join(",\n "))
}

/// Reads the published format: what was removed, first removed first. A step may have removed two blocks of two kinds. `file` is the name used in errors.
///
/// # Errors
/// [`ExportError::Order`] if it is not such an object, if a step number is missing, if a step lacks a block of the step
/// before, or if it adds none or several that are no pair.
pub fn parse_order(file: &str, bytes: &[u8]) -> Result<Vec<Unit>, ExportError> {
    let error = |place: &str, problem: String| ExportError::Order {
        file: file.to_string(),
        place: JsonPlace(place.to_string()),
        problem,
    };
    let value: Value = serde_json::from_slice(bytes).map_err(|e| error("", e.to_string()))?;
    let Value::Object(steps) = value else {
        return Err(error("", "the document is not an object".to_string()));
    };
    if let Some(key) = steps.keys().find(|key| key.parse::<usize>().map(|n| n.to_string()) != Ok((*key).clone())) {
        return Err(error("", format!("the key `{key}` is not a step number")));
    }
    let (mut order, mut removed) = (Vec::new(), Vec::new());
    for step in 1..=steps.len() {
        let place = format!("\"{step}\"");
        let blocks = steps
            .get(&step.to_string())
            .ok_or_else(|| error("", format!("step {step} is missing (there are {} steps)", steps.len())))?;
        let set = parse_set(blocks).map_err(|(inner, problem)| error(&format!("{place}{inner}"), problem))?;
        order.push(added_unit(&removed, &set).map_err(|problem| error(&place, problem))?);
        removed = set;
    }
    Ok(order)
}

/// The blocks of one step, or where inside it something is wrong and what.
fn parse_set(value: &Value) -> Result<Vec<BlockId>, (String, String)> {
    let list = value.as_array().ok_or_else(|| (String::new(), "not a list of blocks".to_string()))?;
    let mut set: Vec<BlockId> = Vec::with_capacity(list.len());
    for (index, entry) in list.iter().enumerate() {
        let block = parse_block(entry).map_err(|problem| (format!("[{index}]"), problem))?;
        if set.contains(&block) {
            return Err((format!("[{index}]"), format!("{block} is listed twice")));
        }
        set.push(block);
    }
    Ok(set)
}

fn parse_block(entry: &Value) -> Result<BlockId, String> {
    let Some([kind, layer]) = entry.as_array().map(Vec::as_slice) else {
        return Err(format!("{} is not a pair [kind, layer]", shortened(entry)));
    };
    let kind = match kind.as_str() {
        Some("mha") => BlockKind::Mha,
        Some("mlp") => BlockKind::Mlp,
        _ => return Err(format!("{} is not a kind of block: expected \"mha\" or \"mlp\"", shortened(kind))),
    };
    // Depths are twice the layer, so half the range is the limit.
    let layer = layer.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n < usize::MAX / 2);
    let layer = layer.ok_or_else(|| format!("{} is not a layer from 0", shortened(entry)))?;
    Ok(BlockId { kind, layer })
}

/// What of `set` is not in `before`.
fn added_unit(before: &[BlockId], set: &[BlockId]) -> Result<Unit, String> {
    if let Some(lost) = before.iter().find(|block| !set.contains(block)) {
        return Err(format!("{lost} was removed before and is not listed any more"));
    }
    let added: Vec<BlockId> = set.iter().copied().filter(|block| !before.contains(block)).collect();
    match added.as_slice() {
        [] => Err("no block was added to those before".to_string()),
        [block] => Ok(Unit::Block(*block)),
        [first, second, rest @ ..] => Unit::pair(*first, *second)
            .filter(|_| rest.is_empty())
            .ok_or_else(|| format!("{first} and {second} were both added in one step, so their order is unknown")),
    }
}

/// A value as it may stand in an error message.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { text.chars().take(60).chain("..".chars()).collect() }
}

/// How many of the first units have to go until a share of the parameters is removed, above 0 and up to 1.
///
/// # Errors
/// [`ExportError::NoSuchRatio`] if all of them are less.
pub fn steps_to_ratio(spec: &ModelSpec, order: &[Unit], ratio: f64) -> Result<usize, ExportError> {
    let (mut gone, mut most) = (BlockSet::new(), 0.0);
    for (index, unit) in order.iter().enumerate() {
        gone.extend(unit.blocks());
        most = spec.ratio_removed(&gone);
        if most >= ratio {
            return Ok(index + 1);
        }
    }
    Err(ExportError::NoSuchRatio { ratio, most, steps: order.len() })
}

/// Reads an order file from disk.
///
/// # Errors
/// A file that cannot be read, and those of [`parse_order`].
#[cfg(not(target_arch = "wasm32"))]
pub fn read_order(path: &std::path::Path) -> Result<Vec<Unit>, ExportError> {
    parse_order(&path.display().to_string(), &super::sink::read_file(path)?)
}

/// Writes what was removed, first removed first, as an order file, whole or not at all.
///
/// # Errors
/// [`ExportError::Write`].
#[cfg(not(target_arch = "wasm32"))]
pub fn write_order(path: &std::path::Path, order: &[Unit]) -> Result<(), ExportError> {
    super::write_atomically(path, order_json(order).as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use proptest::prelude::*;

    /// The two published orders for Llama-2-7B, from 64 and 32 rows of Alpaca.
    const PUBLISHED: [&str; 2] = [
        "mha25 mha27 mha24 mha23 mha28 mha29 mha8 mlp7 mha19 mha30 mlp22 mha21 mlp27 mha18 mlp21 mlp11 mha12 mha14 \
         mlp14 mlp24",
        "mha27 mha25 mha28 mha23 mha24 mha29 mha7 mlp6 mha18 mha19 mlp26 mha30 mha21 mlp23 mlp24 mha12 mlp12 mlp9 \
         mha10 mlp18",
    ];

    fn published(list: &str) -> Vec<Unit> {
        list.split_whitespace().map(|b| format!("{}:{}", &b[..3], &b[3..]).parse().unwrap()).collect()
    }

    /// What the published program writes: sets sorted by layer, in the spacing of Python's `json.dumps`.
    fn as_published(order: &[Unit]) -> String {
        let steps: Vec<String> = (1..=order.len())
            .map(|n| {
                let mut set: Vec<_> = order[..n].iter().flat_map(|unit| unit.blocks()).collect();
                set.sort_by_key(|b| (b.layer, b.kind));
                let blocks: Vec<_> = set.iter().map(|b| format!("[\"{}\", {}]", b.kind.as_str(), b.layer)).collect();
                format!("\"{n}\": [{}]", blocks.join(", "))
            })
            .collect();
        format!("{{{}}}", steps.join(", "))
    }

    #[test]
    fn the_published_orders_survive() {
        for list in PUBLISHED {
            let order = published(list);
            assert_eq!(order.len(), 20);
            assert_eq!(parse_order("published", as_published(&order).as_bytes()).unwrap(), order);
            let ours = order_json(&order);
            assert_eq!(parse_order("ours", ours.as_bytes()).unwrap(), order);
            let same: Value = serde_json::from_str(&as_published(&order)).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&ours).unwrap(), same);
            let first = order[..17].iter().flat_map(|unit| unit.blocks());
            let (mha, mlp): (Vec<_>, Vec<_>) = first.partition(|b| b.kind == BlockKind::Mha);
            assert_eq!((mha.len(), mlp.len()), (12, 5));
        }
    }

    #[test]
    fn attention_stands_before_mlp_of_the_same_layer() {
        let text = order_json(&[BlockId::mlp(3), BlockId::mha(3), BlockId::mha(1)].map(Unit::Block));
        assert!(text.contains(r#""3": [["mha", 1], ["mha", 3], ["mlp", 3]]"#), "{text}");
        assert_eq!(parse_order("none", order_json(&[]).as_bytes()).unwrap(), []);
    }

    #[test]
    fn steps_may_remove_pairs() {
        let order = ["mha:4,mlp:3", "mha:0,mlp:0"].map(|unit| unit.parse().unwrap());
        let text = order_json(&order);
        assert!(text.contains(r#""1": [["mlp", 3], ["mha", 4]]"#), "{text}");
        assert_eq!(parse_order("pairs", text.as_bytes()).unwrap(), order);
    }

    #[test]
    fn step_ten_follows_step_nine_whatever_the_key_order() {
        let order: Vec<_> = (0..12).map(BlockId::mha).map(Unit::Block).collect();
        let sorted: std::collections::BTreeMap<String, Value> =
            serde_json::from_str(&order_json(&order)).expect("valid JSON");
        let text = serde_json::to_string(&sorted).unwrap();
        assert!(text.find("\"10\"").unwrap() < text.find("\"2\"").unwrap());
        assert_eq!(parse_order("sorted", text.as_bytes()).unwrap(), order);
    }

    #[test]
    fn contradictions_are_named() {
        for (text, place, problem) in [
            ("", "", "EOF"),
            ("[]", "", "not an object"),
            (r#"{"1": [["mha", 1]], "3": [["mha", 1], ["mha", 2]]}"#, "", "step 2 is missing"),
            (r#"{"0": [], "1": [["mha", 1]]}"#, "", "step 2 is missing"),
            (r#"{"01": [["mha", 1]]}"#, "", "`01` is not a step number"),
            (r#"{"one": [["mha", 1]]}"#, "", "`one` is not a step number"),
            (r#"{"1": [["mha", 1]], "2": [["mha", 2], ["mha", 3]]}"#, "\"2\"", "mha:1 was removed before"),
            (r#"{"1": [["mha", 1], ["mha", 2]]}"#, "\"1\"", "mha:1 and mha:2 were both added"),
            (r#"{"1": [["mha", 1], ["mlp", 2], ["mlp", 3]]}"#, "\"1\"", "mha:1 and mlp:2 were both added"),
            (r#"{"1": [["mha", 1]], "2": [["mha", 1]]}"#, "\"2\"", "no block was added"),
            (r#"{"1": [["mha", 1], ["mha", 1]]}"#, "\"1\"[1]", "mha:1 is listed twice"),
            (r#"{"1": [["ffn", 1]]}"#, "\"1\"[0]", "\"ffn\" is not a kind of block"),
            (r#"{"1": [["mha", -1]]}"#, "\"1\"[0]", "not a layer"),
            (r#"{"1": [["mha", 1.5]]}"#, "\"1\"[0]", "not a layer"),
            (r#"{"1": [["mha", 18446744073709551615]]}"#, "\"1\"[0]", "not a layer"),
            (r#"{"1": [["mha"]]}"#, "\"1\"[0]", "not a pair"),
            (r#"{"1": ["mha:1"]}"#, "\"1\"[0]", "not a pair"),
            (r#"{"1": 5}"#, "\"1\"", "not a list"),
        ] {
            let error = parse_order("x_order.json", text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("x_order.json: ") && error.contains(problem), "{text}: {error}");
            assert!(error.contains(place), "{text}: {error}");
        }
    }

    #[test]
    fn files_are_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("order.json");
        let order = published(PUBLISHED[0]);
        write_order(&path, &order).unwrap();
        assert_eq!(read_order(&path).unwrap(), order);
        let error = read_order(&folder.path().join("other.json")).unwrap_err().to_string();
        assert!(error.contains("other.json") && error.contains("check the path"), "{error}");
    }

    proptest! {
        #[test]
        fn any_order_survives(depths in proptest::sample::subsequence((0..64usize).collect::<Vec<_>>(), 0..40).prop_shuffle()) {
            let block = |n: usize| if n.is_multiple_of(2) { BlockId::mha(n / 2) } else { BlockId::mlp(n / 2) };
            let order: Vec<_> = depths.into_iter().map(block).map(Unit::Block).collect();
            prop_assert_eq!(parse_order("x", order_json(&order).as_bytes()).unwrap(), order);
        }

        #[test]
        fn no_text_panics(text in r#"(\{|\}|\[|\]|"|,|:|mha|mlp|[0-9]|-| ){0,60}"#) {
            let _ = parse_order("x", text.as_bytes());
        }
    }
}
