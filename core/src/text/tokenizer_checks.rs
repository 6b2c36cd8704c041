//! What a `tokenizer.json` must not say: parts that make the `tokenizers` crate panic, and such as would give other tokens
//! each time.

use serde_json::Value;
use tokenizers::normalizers::Precompiled;

/// Refuses a `tokenizer.json` that cannot be used; the reason names the part.
pub(super) fn check(json: &Value) -> Result<(), String> {
    check_model(&json["model"])?;
    for part in parts(&json["normalizer"], "normalizers") {
        // As the crate reads it, where it cannot report what is wrong.
        if part["type"] == "Precompiled" {
            let map: Result<Precompiled, _> = serde_json::from_str(&part.to_string());
            map.map_err(|error| format!("the normalizer's `precompiled_charsmap` is damaged: {error}"))?;
        }
    }
    for part in parts(&json["pre_tokenizer"], "pretokenizers") {
        if part["type"] == "FixedLength" && part["length"] == 0 {
            return Err("the pre-tokenizer cuts pieces of `length` 0".to_string());
        }
    }
    for part in parts(&json["post_processor"], "processors") {
        if part["type"] == "TemplateProcessing" {
            check_template(part)?;
        }
    }
    Ok(())
}

/// Why tokens cannot be turned into text: a part of the decoder that is beyond the end of a token.
pub(super) fn decoder_problem(json: &Value) -> Option<String> {
    let strips = |part: &&Value| part["type"] == "Strip" && part["stop"].as_u64().is_none_or(|stop| stop > 0);
    let strip = parts(&json["decoder"], "decoders").into_iter().find(strips)?;
    Some(format!(
        "the decoder of tokenizer.json strips the end of tokens (`stop` {}), which is not supported",
        strip["stop"]
    ))
}

/// A component, or those of a sequence, at any depth.
fn parts<'a>(component: &'a Value, list: &str) -> Vec<&'a Value> {
    match component[list].as_array().filter(|_| component["type"] == "Sequence") {
        Some(components) => components.iter().flat_map(|component| parts(component, list)).collect(),
        None => vec![component],
    }
}

fn check_model(model: &Value) -> Result<(), String> {
    match &model["dropout"] {
        Value::Null => {}
        dropout if dropout.as_f64() == Some(0.0) => {}
        dropout => {
            return Err(format!(
                "`model.dropout` is {dropout}, which is for training and gives other tokens each time; set it to null"
            ));
        }
    }
    check_merges(model)
}

/// Refuses BPE merges whose pieces or whose result are not in the vocabulary. The `tokenizers` crate finds a missing
/// piece itself, but panics on a result that is longer than every token.
fn check_merges(model: &Value) -> Result<(), String> {
    let (Some(vocab), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array()) else {
        return Ok(());
    };
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or("");
    for (index, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(pair) => pair.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
                _ => None,
            },
            _ => None,
        };
        let Some((left, right)) = pair else {
            return Err(format!("merge {index} is {merge}, expected two tokens"));
        };
        let merged = right.strip_prefix(prefix).map(|right| format!("{left}{right}"));
        if !merged.is_some_and(|merged| vocab.contains_key(&merged)) {
            return Err(format!("merge {index} joins {left:?} and {right:?} to a token that is not in `vocab`"));
        }
    }
    Ok(())
}

/// A template for one text must have that text once, and tokens that are listed, with as many ids as names.
fn check_template(template: &Value) -> Result<(), String> {
    let pieces: Vec<&Value> = match &template["single"] {
        Value::Array(pieces) => pieces.iter().collect(),
        // A string such as "<s> $A", which the crate reads by itself.
        _ => return Err("the post-processor's `single` is no list of pieces".to_string()),
    };
    let sequences: Vec<&Value> =
        pieces.iter().map(|piece| &piece["Sequence"]["id"]).filter(|id| !id.is_null()).collect();
    if sequences.len() != 1 || sequences[0] != "A" {
        return Err("the post-processor's `single` must hold the sequence A once, and no other".to_string());
    }
    for piece in pieces {
        let Some(name) = piece["SpecialToken"]["id"].as_str() else { continue };
        let token = &template["special_tokens"][name];
        let count = |key: &str| token[key].as_array().map(Vec::len);
        if count("ids").is_none() || count("ids") != count("tokens") {
            return Err(format!(
                "the post-processor adds {name:?}, which is not in its `special_tokens`, or not whole"
            ));
        }
    }
    Ok(())
}
