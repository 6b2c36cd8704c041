//! Tests of the library from outside, in one program: one for each file would be linked with the library seventeen times.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod continuations;
mod deci;
mod device;
mod export;
mod families;
mod faults;
mod fixtures;
mod folder_tokenizers;
mod generate;
mod gguf_export;
mod hostile;
mod kernels;
mod llama_cpp;
mod real_models;
mod search;
mod strategies;
mod tokenizers;

/// The compiler does not see a file that no line above names.
#[test]
fn every_file_is_compiled() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").unwrap_or(&name);
        assert!(module == "main" || include_str!("main.rs").contains(&format!("mod {module};\n")), "{name}");
    }
}
