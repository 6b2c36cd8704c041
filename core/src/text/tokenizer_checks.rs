//! What a `tokenizer.json` must not say: parts that make the `tokenizers` crate panic, and such as would give other tokens
//! each time. And what it says otherwise than it is meant: regular expressions.

use serde_json::{Map, Value};
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

/// Has a byte-level pre-tokenizer put a space before a text, or not. Whether that changes anything.
///
/// # Errors
/// One that says otherwise within a sequence, where it would put the space before every part.
pub(super) fn set_prefix_space(json: &mut Value, prefix: bool) -> Result<bool, String> {
    const KEY: &str = "add_prefix_space";
    let other = |part: &&Value| part["type"] == "ByteLevel" && part[KEY].as_bool() == Some(!prefix);
    if !parts(&json["pre_tokenizer"], "pretokenizers").iter().any(other) {
        return Ok(false);
    }
    if json["pre_tokenizer"]["type"] != "ByteLevel" {
        return Err(format!(
            "`{KEY}` is {} in its pre-tokenizer, but {prefix} by the class that tokenizer_config.json names; set `{KEY}` there, or \
             `tokenizer_class` to PreTrainedTokenizerFast",
            !prefix
        ));
    }
    json["pre_tokenizer"][KEY] = Value::Bool(prefix);
    Ok(true)
}

/// Writes the regular expressions, which are Oniguruma's, in the syntax of the `regex` crate. Whether that changes anything.
///
/// # Errors
/// An expression that has no counterpart.
pub(super) fn meant_for_oniguruma(json: &mut Value) -> Result<bool, String> {
    let mut outcome = Ok(false);
    for key in ["normalizer", "pre_tokenizer", "decoder"] {
        each_object(&mut json[key], &mut |part| {
            let Some(Value::String(expression)) = part.get_mut("Regex") else { return };
            match (rewritten(expression), &mut outcome) {
                (Ok(new), Ok(changed)) => {
                    *changed |= new != *expression;
                    *expression = new;
                }
                (Err(reason), Ok(_)) => outcome = Err(format!("the expression {expression:?} has {reason}")),
                (_, Err(_)) => {}
            }
        });
    }
    outcome
}

fn each_object(value: &mut Value, with: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(part) => {
            with(part);
            part.values_mut().for_each(|value| each_object(value, with));
        }
        Value::Array(parts) => parts.iter_mut().for_each(|value| each_object(value, with)),
        _ => {}
    }
}

/// What `\w` is to Oniguruma: no joiners, and some numbers, but not within brackets.
const WORD: &str = r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}]";
const WORD_IN_BRACKETS: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}";

/// Classes of characters by their names in Oniguruma, within brackets.
const CLASSES: [(&str, &str); 10] = [
    ("upper", r"\p{Uppercase}"),
    ("lower", r"\p{Lowercase}"),
    ("alpha", r"\p{Alphabetic}"),
    ("digit", r"\p{Nd}"),
    ("alnum", r"\p{Alphabetic}\p{Nd}"),
    ("punct", r"\p{P}\p{S}"),
    ("space", r"\s"),
    ("blank", r"\t\p{Zs}"),
    ("cntrl", r"\p{Cc}"),
    ("xdigit", "0-9a-fA-F"),
];

/// An expression of Oniguruma in the syntax of the `regex` crate: there, `^` and `$` stand for the ends of the text, not of a line,
/// `(?m)` makes them so and not a dot match line ends, and words and named classes are others beyond ASCII.
fn rewritten(expression: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = expression;
    // How many brackets are open.
    let mut depth = 0usize;
    while let Some(letter) = rest.chars().next() {
        let mut taken = letter.len_utf8();
        match letter {
            '\\' => {
                let escaped = rest[1..].chars().next();
                taken += escaped.map_or(0, char::len_utf8);
                match (escaped, depth) {
                    (Some('w'), 0) => out.push_str(WORD),
                    (Some('W'), 0) => out.push_str(&format!("[^{WORD}]")),
                    (Some('w'), _) => out.push_str(WORD_IN_BRACKETS),
                    (Some('W'), _) => out.push_str(&format!("[^{WORD_IN_BRACKETS}]")),
                    (Some('b'), 0) => out.push_str(&format!("(?:(?<={WORD})(?!{WORD})|(?<!{WORD})(?={WORD}))")),
                    (Some('B'), 0) => out.push_str(&format!("(?:(?<={WORD})(?={WORD})|(?<!{WORD})(?!{WORD}))")),
                    _ => out.push_str(&rest[..taken]),
                }
            }
            '[' if depth > 0 && rest.starts_with("[:") && rest.contains(":]") => {
                let name = rest[2..].split(":]").next().unwrap_or_default();
                let (_, class) = CLASSES.iter().find(|(class, _)| *class == name).ok_or_else(|| {
                    let known = CLASSES.map(|(class, _)| class).join(", ");
                    format!("the class [:{name}:], which is not supported (supported: {known})")
                })?;
                out.push_str(class);
                taken = name.len() + 4;
            }
            '[' => {
                depth += 1;
                // A bracket that closes is a character where it comes first.
                let first = if rest[1..].starts_with('^') { 2 } else { 1 };
                taken = first;
                out.push_str(&rest[..first]);
                if rest[first..].starts_with(']') {
                    taken += 1;
                    out.push_str(r"\]");
                }
            }
            ']' if depth > 0 => {
                depth -= 1;
                out.push(letter);
            }
            '^' | '$' if depth == 0 => out.push_str(&format!("(?m:{letter})")),
            '(' if depth == 0 && rest.starts_with("(?") => {
                let flags = rest[2..].find(|letter: char| !letter.is_ascii_lowercase() && letter != '-').unwrap_or(0);
                taken = flags + 2;
                let is_flags = rest[taken..].starts_with([':', ')']);
                let flags = &rest[2..taken];
                out.push_str("(?");
                out.push_str(&if is_flags { flags.replace('m', "s") } else { flags.to_string() });
            }
            _ => out.push(letter),
        }
        rest = &rest[taken..];
    }
    Ok(out)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use serde_json::json;

    use crate::text::Tokenizer;

    /// The pieces are those of tokenizers 0.23 for Python, which uses Oniguruma.
    #[test]
    fn expressions_mean_what_they_do_to_oniguruma() {
        let split = |expression: &str, text: &str| {
            let letters: std::collections::BTreeSet<char> = text.chars().collect();
            let mut vocab: serde_json::Map<_, _> =
                letters.iter().enumerate().map(|(id, letter)| (letter.to_string(), json!(id))).collect();
            // Every part of the text is a token, which is taken whole.
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            for (i, from) in places.iter().enumerate() {
                for to in &places[i + 1..] {
                    let next = vocab.len();
                    vocab.entry(&text[*from..*to]).or_insert(json!(next));
                }
            }
            let file = json!({
                "version": "1.0", "added_tokens": [],
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false},
                ]},
                "model": {"type": "BPE", "vocab": vocab, "merges": [], "ignore_merges": true},
            });
            let tokenizer = Tokenizer::from_json(file.to_string().as_bytes())?;
            let places = tokenizer.encode_placed(text)?.into_iter().map(|(_, place)| place);
            let ends: Vec<usize> = places.skip(1).chain([text.len()]).collect();
            let mut pieces = Vec::new();
            let mut from = 0;
            for to in ends {
                pieces.push(&text[from..to]);
                from = to;
            }
            Ok::<_, crate::text::TextError>(pieces.join("|"))
        };
        for (expression, text, expected) in [
            (r"^.", "ab\ncd", "a|b\n|c|d"),
            (r"b$", "ab\ncb", "a|b|\nc|b"),
            (r"\s+$", "a \n b ", "a| |\n b| "),
            (r"[^\n]+$", "ab\ncd", "ab|\n|cd"),
            (r"(?m:b.)", "ab\ncd", "a|b\n|cd"),
            (r"[[:upper:]]+|[[:punct:]]+", "aB\u{2160}c\u{2462}$+\u{20ac}!x", "a|B\u{2160}|c\u{2462}|$+\u{20ac}!|x"),
            (r"[^[:alpha:]]", "a1\u{345}b\u{b2}", "a|1|\u{345}b|\u{b2}"),
            (r"\w+", "a\u{b2}b\u{200d}c\u{bd}d", "a\u{b2}b|\u{200d}|c\u{bd}d"),
            (r"\b", "a\u{b2} b\u{200d}c", "a\u{b2}| |b|\u{200d}|c"),
            (r"[\w&&[^a-m]]+", "anob\u{b2}\u{b3}c", "a|no|b\u{b2}\u{b3}c"),
            (r"[]^$]+", "a]^$b", "a|]^$|b"),
            (r"\^\$|\[\^", "a^$[^b", "a|^$|[^|b"),
            (r"\W", "a\u{b2}\u{200d} b", "a\u{b2}|\u{200d}| |b"),
        ] {
            assert_eq!(split(expression, text).unwrap(), expected, "{expression}");
        }
        let error = split("[[:graph:]]", "a").unwrap_err().to_string();
        assert!(error.contains("[:graph:]") && error.contains("upper"), "{error}");
    }
}
