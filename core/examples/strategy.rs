//! A strategy of one's own: `cargo run --release --example strategy -- MODEL TEXT K`.
//!
//! This one scores half of the candidates of every step, the layers with even numbers and those with odd ones in turn.

use std::rc::Rc;

use blockpruner::model::Checkpoint;
use blockpruner::search::{self, SearchOptions, StepContext, StepFuture, Strategy};
use blockpruner::session::{Event, Session, WindowOptions};
use blockpruner::text::{CalibrationText, TextOptions};

#[derive(Debug)]
struct Half;

impl Strategy for Half {
    fn name(&self) -> &str {
        "half"
    }

    fn usual_share(&self, _step: usize) -> f64 {
        0.5
    }

    fn step<'a>(&'a self, step: &'a mut StepContext<'_>) -> StepFuture<'a> {
        Box::pin(async move {
            let mut half = step.open();
            half.retain(|unit| unit.first().layer % 2 == step.number() % 2);
            // What is not scored here is listed in the plan as left out.
            step.score(&half).await
        })
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, text, remove] = arguments.as_slice() else {
        return eprintln!("usage: strategy MODEL TEXT K");
    };
    let Ok(remove) = remove.parse() else { return eprintln!("`{remove}` is not a number of blocks") };
    if let Err(error) = blockpruner::block_on(prune(model, text, SearchOptions::remove(remove).strategy(Half))) {
        eprintln!("{error}");
    }
}

async fn prune(model: &str, text: &str, options: SearchOptions) -> Result<(), blockpruner::Error> {
    let checkpoint = Checkpoint::open(model).await?;
    let text = CalibrationText::open(text, &TextOptions::default())?;
    let windows = checkpoint.windows(&text, WindowOptions::default().window(128).max_windows(2))?;
    let session = Rc::new(Session::builder(checkpoint).open().await?);
    let mut search = session.search(windows, options, None).await?;
    while let Some(event) = search.next().await? {
        if let Event::Found(search::Event::Step(step)) = event {
            let scored = step.candidates.iter().filter(|candidate| candidate.value.is_some()).count();
            println!("without {}: perplexity {:.4}, the lowest of {scored}", step.removed, step.perplexity);
        }
    }
    println!("{}", search.plan().settings.strategy);
    Ok(())
}
