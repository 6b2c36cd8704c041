//! `--eval-text`: what a search did to a text that it has not seen.

use std::rc::Rc;

use blockpruner::Error;
use blockpruner::export::HeldOut;
use blockpruner::model::Checkpoint;
use blockpruner::session::Search;
use blockpruner::text::Windows;
use clap::Args;

use crate::args::{TextArgs, whole_number};
use crate::event::Event;
use crate::open;
use crate::progress::Preparing;
use crate::screen::{self, short, tell};

/// A text to show what the search did to texts that it has not seen.
#[derive(Args, Default)]
#[command(next_help_heading = "Text")]
pub struct EvalArgs {
    /// Also measure the perplexity of this text, before and after; read as --calibration, with the same --field and --window
    #[arg(long, value_name = "TEXT")]
    pub eval_text: Option<String>,
    /// Score its first N windows only
    #[arg(long, value_name = "N", requires = "eval_text", value_parser = whole_number::<usize>)]
    pub eval_max_windows: Option<usize>,
}

impl EvalArgs {
    /// The text, if there is one, cut as the calibration text was: by `args`.
    pub fn open(
        &self,
        args: &TextArgs,
        checkpoint: &Checkpoint,
        searched: &Windows,
    ) -> anyhow::Result<Option<Rc<Windows>>> {
        let Some(text) = &self.eval_text else { return Ok(None) };
        let TextArgs { field, window, .. } = args.clone();
        let how = TextArgs { field, window, max_windows: self.eval_max_windows, ..TextArgs::default() };
        let windows = open::windows(checkpoint, "evaluation", text, &how)?;
        if windows.source == searched.source {
            screen::warn(
                "the evaluation text is the calibration text, which the search has seen: give another --eval-text",
            );
        }
        Ok(Some(windows))
    }
}

/// Scores the dense and the pruned model on a text that the search has not seen; its plan has both from then on.
pub async fn evaluate(search: &mut Search, text: &Windows) -> Result<(), Error> {
    let mut preparing = Preparing::new(search.session());
    let held_out = search.hold_out(text, &mut |preparation| preparing.tell(preparation)).await?;
    drop(preparing);
    tell(&Event::Evaluation(held_out));
    Ok(())
}

/// As the table's last line.
pub fn line(held_out: &HeldOut) -> String {
    let HeldOut { text, windows, window, dense_perplexity, perplexity, .. } = held_out;
    let (dense, pruned) = (short(*dense_perplexity), short(*perplexity));
    format!("held out: perplexity {dense} -> {pruned} on {text} ({windows} windows of {window} tokens)\n")
}
