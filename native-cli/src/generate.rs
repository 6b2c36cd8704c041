//! `blockpruner generate`.

use std::io::{ErrorKind, Write};
use std::time::Instant;

use anyhow::Context;
use blockpruner::generate::{GenerateOptions, prompt_ids};
use blockpruner::text::DecodeStream;
use clap::Args;

use crate::args::{DeviceArgs, RemovedArgs};
use crate::event::Event;
use crate::progress::Preparing;
use crate::screen::tell;
use crate::{open, screen};

/// Arguments of `generate`.
#[derive(Args)]
pub struct GenerateArgs {
    /// Hugging Face folder, .gguf file, builtin:tiny or a name on the Hugging Face hub, ORG/NAME[@REVISION]
    #[arg(long)]
    model: String,
    /// Text to continue; empty to begin with the token that begins a text
    #[arg(long)]
    prompt: String,
    /// New tokens at most
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_least_one)]
    max_tokens: usize,
    #[command(flatten)]
    removed: RemovedArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print one JSON object on stdout, at the end
    #[arg(long)]
    json: bool,
}

/// A whole number that is not 0.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number of at least 1".into()),
        Ok(number) => Ok(number),
    }
}

/// Continues the prompt and prints the text as it comes.
pub async fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    let checkpoint = open::checkpoint(&args.model).await?;
    let removed = args.removed.blocks(&checkpoint.spec)?;
    let tokenizer = checkpoint.tokenizer()?;
    let prompt = prompt_ids(&checkpoint, &args.prompt)?;
    let eos_token_ids = checkpoint.eos_token_ids()?;
    let options = GenerateOptions::max_tokens(args.max_tokens).eos_token_ids(eos_token_ids);
    let session = open::session(&args.device, &checkpoint).await?;
    let mut preparing = Preparing::new(&session);
    let mut prepare = |preparation| preparing.tell(preparation);
    let mut generator = session.generate(prompt.clone(), &removed, options, &mut prepare).await?;
    let mut stream = DecodeStream::after(tokenizer, &prompt)?;
    let (mut text, mut tokens, mut first) = (String::new(), Vec::new(), None);
    let start = Instant::now();
    let mut show = |part: String| {
        text.push_str(&part);
        if args.json { Ok(()) } else { screen::write(&part) }
    };
    while let Some(token) = generator.next().await? {
        first.get_or_insert_with(Instant::now);
        tokens.push(token);
        show(stream.push(tokenizer, token)?)?;
        match std::io::stdout().flush() {
            // Nobody reads on.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            flushed => flushed.context("cannot write to stdout")?,
        }
    }
    show(stream.finish(tokenizer)?)?;

    // The first token is the prompt's work, not a step's.
    let steps = tokens.len().saturating_sub(1);
    let seconds = first.map_or(0.0, |first| first.elapsed().as_secs_f64());
    let rate = (steps > 0 && seconds > 0.0).then(|| steps as f64 / seconds);
    let finish_reason = generator.finish_reason().map_or("", |reason| reason.as_str());
    if args.json {
        return screen::print_json(&serde_json::json!({
            "prompt": args.prompt,
            "text": text,
            "tokens": tokens,
            "prompt_tokens": prompt.len(),
            "new_tokens": tokens.len(),
            "finish_reason": finish_reason,
            "tokens_per_second": rate,
            "device": session.gpu().name(),
            "removed": removed,
        }));
    }
    screen::print_text("\n")?;
    tell(&Event::Generated {
        prompt_tokens: prompt.len(),
        prompt_seconds: first.map_or(0.0, |first| (first - start).as_secs_f64()),
        new_tokens: tokens.len(),
        tokens_per_second: rate,
        finish_reason,
    });
    Ok(())
}
