//! `--eval-text`: what a search did to a text that it has not seen.

use std::rc::Rc;

use blockpruner::Error;
use blockpruner::model::{BlockSet, Checkpoint};
use blockpruner::session::Search;
use blockpruner::text::Windows;
use clap::Args;

use crate::args::{TextArgs, whole_number};
use crate::event::{Evaluation, Event};
use crate::open;
use crate::progress::Preparing;
use crate::screen::{self, tell};

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

/// Scores the dense and the pruned model on a text that the search has not seen.
pub async fn evaluate(search: &Search, text: &Windows) -> Result<Evaluation, Error> {
    let session = search.session();
    let mut preparing = Preparing::new(session);
    let mut prepare = |preparation| preparing.tell(preparation);
    let dense = session.perplexity(text, &BlockSet::new(), &mut prepare).await?;
    let pruned = session.perplexity(text, &search.state().removed(), &mut prepare).await?;
    let evaluation = Evaluation {
        text: text.source.clone(),
        window: text.window,
        windows: text.count,
        tokens: text.ids.len(),
        dense_perplexity: dense.perplexity,
        perplexity: pruned.perplexity,
    };
    tell(&Event::Evaluation(&evaluation));
    Ok(evaluation)
}
