//! Tokenizers and calibration texts.

use std::cell::OnceCell;

use arbitrary::{Result, Unstructured};
use blockpruner::text::{CalibrationText, DecodeStream, TextOptions, Tokenizer, Windows};

use crate::bases;
use crate::edits;

/// A text with most of what tokenizers treat differently.
const TEXT: &str = "<s>t1 t2  Hello, wo\u{301}rld's 123\r\n\n\t\u{e9}\u{1f600}\u{200d}x </s><unk>\u{2581}\u{3042}<x>";
/// Windows that calibration texts are cut into.
const WINDOWS: [usize; 4] = [2, 16, 3, 0];

/// tokenizer.json and the files beside it, or the older files that stand for it: load, encode, decode, decode token by token.
pub fn tokenizer(bytes: &[u8]) {
    let bases = bases::tokenizers();
    if bytes.starts_with(b"{") {
        let Ok(tokenizer) = Tokenizer::from_json(bytes) else { return };
        return use_tokenizer(&mut Unstructured::new(&[]), &tokenizer);
    }
    // A SentencePiece model begins with a piece.
    if bytes.starts_with(b"\n") {
        return use_folder(&[("tokenizer.model", bytes)]);
    }
    // vocab.json and merges.txt, with a line of `#` before each.
    if let Some((vocab, merges)) =
        std::str::from_utf8(bytes).ok().and_then(|text| text.strip_prefix("#\n")?.split_once("\n#\n"))
    {
        return use_folder(&[
            ("vocab.json", vocab.as_bytes()),
            ("merges.txt", merges.as_bytes()),
            (
                "tokenizer_config.json",
                br#"{"tokenizer_class": "Qwen2Tokenizer", "bos_token": "a", "add_bos_token": true}"#,
            ),
        ]);
    }
    let data = &mut Unstructured::new(bytes);
    let Ok(base) = data.choose(&bases.documents) else { return };
    let sides = bases::side_files();
    let names = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];
    let json = edits::changed(data, base, &bases.words);
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    for (name, base) in names.into_iter().zip(&sides.documents) {
        if data.ratio(1, 3).unwrap_or(false) {
            files.push((name, edits::changed(data, base, &sides.words)));
        }
    }
    let find = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| bytes.as_slice());
    if let Ok(tokenizer) = Tokenizer::from_files(&json, find) {
        use_tokenizer(data, &tokenizer);
    }
}

fn use_folder(files: &[(&str, &[u8])]) {
    let find = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| *bytes);
    if let Ok(tokenizer) = Tokenizer::from_folder(find) {
        use_tokenizer(&mut Unstructured::new(&[]), &tokenizer);
    }
}

/// What is done with a tokenizer. Neither text nor ids need be its own.
pub(crate) fn use_tokenizer(data: &mut Unstructured<'_>, tokenizer: &Tokenizer) {
    let _ = (tokenizer.fingerprint(), tokenizer.vocab_size(), tokenizer.tokenizer_config(), tokenizer.to_json());
    let mut texts = vec![TEXT.to_string(), String::new()];
    for _ in 0..data.int_in_range(0..=2).unwrap_or(0) {
        texts.extend(edits::text(data));
    }
    let mut ids: Vec<u32> = Vec::new();
    for text in texts {
        let Ok(found) = tokenizer.encode(&text) else { continue };
        let _ = tokenizer.decode(&found);
        ids.extend(found.iter().take(50));
    }
    for _ in 0..data.int_in_range(0..=8).unwrap_or(0) {
        ids.extend(data.int_in_range(0..=40));
        ids.extend(data.arbitrary::<u32>());
    }
    let _ = tokenizer.decode(&ids);
    let context = data.int_in_range(0..=ids.len()).unwrap_or(0);
    let Ok(mut stream) = DecodeStream::after(tokenizer, &ids[..context]) else { return };
    for id in &ids[context..] {
        if stream.push(tokenizer, *id).is_err() {
            return;
        }
    }
    let _ = stream.finish(tokenizer);
}

thread_local! {
    /// Of the first base, which splits at spaces.
    static TOKENIZER: OnceCell<Option<Tokenizer>> = const { OnceCell::new() };
}

/// A calibration text under a name of each kind, cut into windows. The first bytes are options, the rest is the file.
pub fn calibration(bytes: &[u8]) {
    let data = &mut Unstructured::new(bytes);
    let Ok((options, window, most_windows)) = calibration_options(data) else { return };
    let file = data.peek_bytes(data.len()).unwrap_or_default();
    TOKENIZER.with(|tokenizer| {
        let tokenizer = tokenizer.get_or_init(|| {
            let json = bases::tokenizers().documents.first()?.to_string();
            Tokenizer::from_json(json.as_bytes()).ok()
        });
        let Some(tokenizer) = tokenizer else { return };
        for name in ["a", "a.json", "a.jsonl"] {
            let Ok(text) = CalibrationText::from_bytes(name, file, &options) else { continue };
            if let Ok(windows) = Windows::cut(&text, tokenizer, window, most_windows) {
                assert_eq!(windows.ids.len(), windows.count * windows.window);
                let _ = (windows.fingerprint(), windows.check_vocabulary(5));
            }
        }
    });
}

fn calibration_options(data: &mut Unstructured<'_>) -> Result<(TextOptions, usize, Option<usize>)> {
    let field = *data.choose(&[None, Some("text"), Some("a"), Some("")])?;
    let samples = *data.choose(&[None, Some(1), Some(2), Some(1000)])?;
    let seed = *data.choose(&[None, Some(0), Some(7)])?;
    let window = *data.choose(&WINDOWS)?;
    let most_windows = *data.choose(&[None, Some(1), Some(3), Some(usize::MAX)])?;
    Ok((TextOptions::default().field(field.map(str::to_string)).samples(samples).seed(seed), window, most_windows))
}
