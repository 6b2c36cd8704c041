//! `xtask-bindgen PROGRAM.wasm FOLDER`: what the program `wasm-bindgen --target web` does, without the test runner and the
//! HTTP servers that come with it. A program of its own, so that only those who build the page compile it.

use anyhow::bail;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, folder] = arguments.as_slice() else { bail!("usage: xtask-bindgen PROGRAM.wasm FOLDER") };
    let mut bindgen = Bindgen::new();
    bindgen
        .web(true)?
        .typescript(true)
        .remove_name_section(true)
        .remove_producers_section(true)
        .omit_default_module_path(false);
    bindgen.input_path(program).generate(folder)
}
