//! The perplexity of a text, whole and without some blocks: `cargo run --release --example perplexity -- MODEL TEXT mha:2,mlp:7`.

use std::process::ExitCode;

use blockpruner::model::{BlockSet, Checkpoint};
use blockpruner::session::{Session, WindowOptions};
use blockpruner::text::{CalibrationText, TextOptions};

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
    let [model, text, without] = arguments.as_slice() else { return Err("usage: perplexity MODEL TEXT BLOCKS".into()) };
    let without: BlockSet = without.parse()?;
    blockpruner::block_on(async {
        let checkpoint = Checkpoint::open(model).await?;
        let text = CalibrationText::open(text, &TextOptions::default())?;
        let windows = checkpoint.windows(&text, WindowOptions::default().window(128).max_windows(4))?;
        // Weights that do not fit are streamed from the file.
        let session = Session::builder(checkpoint).memory_budget(6 << 30).open().await?;
        let whole = session.perplexity(&windows, &BlockSet::new(), &mut |_| {}).await?;
        let pruned = session.perplexity(&windows, &without, &mut |_| {}).await?;
        println!("{:.4}, without {without} {:.4}", whole.perplexity, pruned.perplexity);
        Ok(())
    })
}
