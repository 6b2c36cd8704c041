//! A model without some blocks, as a GGUF file: `cargo run --release --example gguf -- MODEL FOLDER mha:2,mlp:7`.

use std::path::Path;
use std::process::ExitCode;

use blockpruner::export::{DiskFolder, GgufFormat, GgufOptions, check_gguf, export_gguf};
use blockpruner::model::Checkpoint;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, target, blocks, format @ ..] = arguments.as_slice() else {
        return Err("usage: gguf MODEL FOLDER BLOCKS [zeroed]".into());
    };
    let format = if format.is_empty() { GgufFormat::Auto } else { GgufFormat::Zeroed };
    let options = GgufOptions::new(blocks.parse()?, format);
    blockpruner::block_on(async {
        let checkpoint = Checkpoint::open(model).await?;
        let mut folder = DiskFolder::create(Path::new(target))?;
        let summary = export_gguf(&checkpoint, &options, &mut folder, &mut |_, _| {}).await?;
        let file = folder.finish()?.join(&summary.file);
        let written = Checkpoint::open(&file.to_string_lossy()).await?;
        check_gguf(&checkpoint, &options, &written, &mut |_, _| {}).await?;
        println!(
            "{}: {} with {} layers, {} bytes of tensors",
            file.display(),
            summary.architecture,
            summary.layers,
            summary.bytes
        );
        summary.notes.iter().for_each(|note| println!("{note}"));
        Ok(())
    })
}
