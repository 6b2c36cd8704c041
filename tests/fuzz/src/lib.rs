//! Fuzz targets: one function for each parser, and one for the export of a folder. It is given any bytes; a panic is a
//! finding, as are the few things that a target asserts.
//!
//! `cargo xtask fuzz` drives them by libFuzzer (`main.rs`), the tests of this crate give them the seeds of `corpus/`.
//! Bytes alone would hardly get past a parser's first line, so most targets read them as changes (`edits.rs`) to documents
//! that are accepted (`bases.rs`), or, if they begin as such a document does, as the document itself.

pub mod bases;
pub mod containers;
pub mod edits;
mod gguf_file;
pub mod models;
pub mod results;
pub mod texts;

/// A function that is given any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As `cargo xtask fuzz` and the folders of `corpus/` call it.
    pub name: &'static str,
    /// Panics if something is wrong.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "safetensors", run: containers::safetensors },
    Target { name: "pickle", run: containers::pickle },
    Target { name: "gguf", run: containers::gguf },
    Target { name: "dequantize", run: containers::dequantize },
    Target { name: "config", run: models::config },
    Target { name: "folder", run: models::folder },
    Target { name: "tokenizer", run: texts::tokenizer },
    Target { name: "calibration", run: texts::calibration },
    Target { name: "plan", run: results::plan },
    Target { name: "order", run: results::order },
    Target { name: "state", run: results::state },
    Target { name: "blocks", run: results::blocks },
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
