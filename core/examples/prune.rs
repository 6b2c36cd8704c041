//! Prunes a model and writes the smaller one: `cargo run --release --example prune -- MODEL TEXT K OUT`.
//!
//! MODEL is a Hugging Face folder, a GGUF file or `builtin:tiny`; TEXT a file or `builtin:sample`. Run again with the same
//! OUT after an interruption, it goes on.

use std::process::ExitCode;
use std::rc::Rc;

use blockpruner::model::Checkpoint;
use blockpruner::search::{self, SearchOptions};
use blockpruner::session::{Event, OutFolder, Session, WindowOptions, WriteOptions};
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
    let [model, text, remove, out] = arguments.as_slice() else { return Err("usage: prune MODEL TEXT K OUT".into()) };
    let options = SearchOptions::remove(remove.parse()?);
    Ok(blockpruner::block_on(prune(model, text, options, out))?)
}

async fn prune(model: &str, text: &str, options: SearchOptions, out: &str) -> Result<(), blockpruner::Error> {
    // Before any work: is the folder free, and can it be written?
    let out = OutFolder::resume(out, options.target)?;
    let checkpoint = Checkpoint::open(model).await?;
    let text = CalibrationText::open(text, &TextOptions::default())?;
    let windows = checkpoint.windows(&text, WindowOptions::default().window(128).max_windows(4))?;
    let session = Rc::new(Session::builder(checkpoint).open().await?);
    let saved = out.saved()?;
    let mut search = session.search(windows, options, saved.as_deref()).await?;
    while let Some(event) = search.next().await? {
        match event {
            Event::Found(search::Event::Progress { step, done, .. }) => {
                eprint!("\rstep {step}: {:3.0} %", done * 100.0)
            }
            Event::Found(found) => {
                out.save(&search)?;
                if let search::Event::Step(step) = found {
                    println!("\rwithout {}: perplexity {:.4}", step.removed, step.perplexity);
                }
            }
            _ => {}
        }
    }
    let how = WriteOptions::new(None);
    let written = search.write(&out, how, &mut |_| {}).await?;
    println!("{}: {} bytes of weights", out.path().display(), written.summary.bytes);
    Ok(())
}
