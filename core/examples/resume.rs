//! A search one step at a time: `cargo run --release --example resume -- MODEL TEXT K FILE`.
//!
//! Each run goes on from what FILE holds, stops after a step and saves to FILE, until K blocks are removed. MODEL and TEXT are
//! as in the example `prune`; they and the device must stay the same, or the saved search is refused.

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use blockpruner::export::write_atomically;
use blockpruner::model::Checkpoint;
use blockpruner::search::{self, SearchOptions};
use blockpruner::session::{Event, Session, WindowOptions};
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
    let [model, text, remove, file] = arguments.as_slice() else {
        return Err("usage: resume MODEL TEXT K FILE".into());
    };
    let options = SearchOptions::remove(remove.parse()?);
    let file = Path::new(file);
    let saved = if file.exists() { Some(std::fs::read(file)?) } else { None };
    blockpruner::block_on(async {
        let checkpoint = Checkpoint::open(model).await?;
        let text = CalibrationText::open(text, &TextOptions::default())?;
        let windows = checkpoint.windows(&text, WindowOptions::default().window(128).max_windows(4))?;
        let session = Rc::new(Session::builder(checkpoint).open().await?);
        let mut search = session.search(windows, options, saved.as_deref()).await?;
        println!("{} steps are done", search.state().steps.len());
        while let Some(event) = search.next().await? {
            let Event::Found(event) = event else { continue };
            // What is scored within a step can be gone on from, too.
            if !matches!(event, search::Event::Progress { .. }) {
                write_atomically(file, search.save().to_json().as_bytes())?;
            }
            if let search::Event::Step(step) = event {
                println!("without {}: perplexity {:.4}", step.removed, step.perplexity);
                // Not to ask for the next event is to stop.
                break;
            }
        }
        println!("{}", if search.is_finished() { "finished" } else { "run it again to go on" });
        Ok(())
    })
}
