//! Opening what a command works on: model, text and device, with a line on stderr for each.

use std::rc::Rc;

use anyhow::Context;
use blockpruner::gpu::Gpu;
use blockpruner::model::{Checkpoint, DeviceModel, device_needs};
use blockpruner::search::{MemoryPlan, SearchOptions};
use blockpruner::text::{CalibrationText, Windows};

use crate::args::{DeviceArgs, TextArgs};
use crate::screen::say;
use crate::{kept_pipelines, screen};

/// Opens a model.
pub async fn checkpoint(model: &str) -> anyhow::Result<Checkpoint> {
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
    Ok(checkpoint)
}

/// Reads a text and cuts it into windows for a model.
pub fn windows(checkpoint: &Checkpoint, text: &str, args: &TextArgs) -> anyhow::Result<(CalibrationText, Windows)> {
    let tokenizer = checkpoint.tokenizer()?;
    let text = CalibrationText::open(text, &args.options()).context("cannot use the text")?;
    let windows = Windows::cut(&text, tokenizer, args.window(&checkpoint.spec), args.max_windows)
        .with_context(|| format!("cannot use the text {}", text.source))?;
    windows.check_vocabulary(checkpoint.spec.vocab_size)?;
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
    Ok((text, windows))
}

/// Opens the device that the arguments ask for.
pub async fn device(args: &DeviceArgs, checkpoint: &Checkpoint) -> anyhow::Result<Rc<Gpu>> {
    let spinner = screen::spinner("testing the device");
    let gpu = Gpu::open(&args.options(device_needs(checkpoint))).await;
    spinner.finish_and_clear();
    let gpu = gpu?;
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
    Ok(Rc::new(gpu))
}

/// Brings a model's weights to a device, as far as the plan wants them there.
pub async fn load(gpu: &Rc<Gpu>, checkpoint: &Checkpoint, plan: &MemoryPlan) -> anyhow::Result<DeviceModel> {
    let bar = screen::transfer_bar("loading weights");
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let model = match plan.streamed {
        true => DeviceModel::stream(gpu.clone(), checkpoint, &mut progress).await,
        false => DeviceModel::load(gpu.clone(), checkpoint, &mut progress).await,
    };
    bar.finish_and_clear();
    Ok(model?)
}

/// Compiles the shaders that a model needs, so that what runs afterwards takes its usual time.
pub async fn warm_up(model: &DeviceModel) -> anyhow::Result<()> {
    let spinner = screen::spinner("compiling shaders");
    if spinner.is_hidden() {
        say!("compiling shaders");
    }
    let warm = model.warm_up().await;
    spinner.finish_and_clear();
    warm?;
    kept_pipelines::save(model.gpu());
    Ok(())
}

/// Plans the device's memory for a search on a text, or for scoring it only, and says how.
pub fn memory(
    gpu: &Gpu,
    checkpoint: &Checkpoint,
    windows: &Windows,
    search: Option<&SearchOptions>,
    args: &DeviceArgs,
) -> anyhow::Result<MemoryPlan> {
    let plan = MemoryPlan::new(gpu, checkpoint, windows, search, args.memory_budget)?;
    say!("memory: {}", screen::memory(&plan, search));
    Ok(plan)
}
