//! Opening what a command works on: model, text and device, with a line on stderr for each.

use std::rc::Rc;

use anyhow::Context;
use blockpruner::model::Checkpoint;
use blockpruner::session::Session;
use blockpruner::text::{CalibrationText, Windows};

use crate::args::{DeviceArgs, TextArgs};
use crate::screen::{self, say};

/// Opens a model.
pub async fn checkpoint(model: &str) -> anyhow::Result<Rc<Checkpoint>> {
    let checkpoint = Checkpoint::open(model).await.with_context(|| format!("cannot open the model {model}"))?;
    let spec = &checkpoint.spec;
    say!(
        "model: {model} ({}, {} layers, {} blocks, {} parameters)",
        spec.family,
        spec.layers.len(),
        spec.blocks().count(),
        screen::grouped(spec.parameters())
    );
    for note in &checkpoint.notes {
        say!("note: {note}");
    }
    Ok(Rc::new(checkpoint))
}

/// Reads a text and cuts it into windows for a model.
pub fn windows(checkpoint: &Checkpoint, text: &str, args: &TextArgs) -> anyhow::Result<Rc<Windows>> {
    let text = CalibrationText::open(text, &args.options()).context("cannot use the text")?;
    let windows =
        checkpoint.windows(&text, args.windows()).with_context(|| format!("cannot use the text {}", text.source))?;
    if windows.window > checkpoint.spec.max_positions {
        say!(
            "note: a window of {} tokens is more than the {} that the model was made for",
            windows.window,
            checkpoint.spec.max_positions
        );
    }
    say!(
        "text: {} ({} rows, {} tokens{}; {} windows of {} tokens)",
        text.source,
        windows.rows,
        screen::grouped(windows.tokens as u64),
        if windows.whole_text { "" } else { " were read" },
        windows.count,
        windows.window
    );
    Ok(Rc::new(windows))
}

/// Opens a session with a model on the device that the arguments ask for.
pub async fn session(args: &DeviceArgs, checkpoint: &Rc<Checkpoint>) -> anyhow::Result<Rc<Session>> {
    let spinner = screen::spinner("testing the device");
    let builder = Session::builder(checkpoint.clone()).gpu_options(args.options()).memory_budget(args.memory_budget);
    let session = builder.open().await;
    spinner.finish_and_clear();
    let session = session?;
    let gpu = session.gpu();
    for warning in gpu.warnings() {
        say!("warning: {warning}");
    }
    say!(
        "device: {} ({}, {}; tier {}, kernel {})",
        gpu.name(),
        gpu.backend(),
        gpu.driver(),
        gpu.tier(),
        gpu.gemm().name()
    );
    Ok(Rc::new(session))
}
