//! The embedded model of `blockpruner`, `builtin:tiny`, and its text, `builtin:sample`: the files of a Hugging Face folder,
//! as bytes. A program holds only those that it names.
//!
//! `tiny/README.md` says what was trained, and on what.

/// config.json.
pub static CONFIG: &[u8] = include_bytes!("../tiny/config.json");
/// model.safetensors, bf16, 5.5 MB.
pub static WEIGHTS: &[u8] = include_bytes!("../tiny/model.safetensors");
/// tokenizer.json.
pub static TOKENIZER: &[u8] = include_bytes!("../tiny/tokenizer.json");
/// tokenizer_config.json.
pub static TOKENIZER_CONFIG: &[u8] = include_bytes!("../tiny/tokenizer_config.json");
/// 20 passages of the King James Bible that the model was not trained on: 31,883 characters, 8,491 of its tokens.
pub static SAMPLE: &str = include_str!("../tiny/calibration.txt");
