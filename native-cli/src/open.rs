//! Opening what a command works on: model, text and device, with an event for each.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context;
use blockpruner::model::Checkpoint;
use blockpruner::session::Session;
use blockpruner::text::{CalibrationText, Windows};

use crate::args::{DeviceArgs, TextArgs};
use crate::event::Event;
use crate::exit::bad_input;
#[cfg(feature = "hub")]
use crate::hub;
use crate::screen::{self, Stage, tell};

/// Bytes of a file that is read whole at most: more than any plan or evaluation has.
const LIMIT: u64 = 1 << 30;

/// The content of a file that a command is given.
pub fn file(path: &Path, advice: &str) -> anyhow::Result<Vec<u8>> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(LIMIT + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LIMIT {
            return Err(io::Error::other(format!("it has more than the {LIMIT} bytes that are read")));
        }
        Ok(bytes)
    };
    read().map_err(|error| bad_input(format!("cannot read {}: {error}; {advice}", path.display())))
}

/// The files that a model on disk may be read from, its shards left out.
pub fn model_files(model: &str) -> impl Iterator<Item = PathBuf> {
    let path = PathBuf::from(model);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parts: Vec<_> = Checkpoint::gguf_parts(&name).map(|part| path.with_file_name(part)).collect();
    let of_folder = Checkpoint::usual_files().chain(Checkpoint::usual_pytorch_files());
    let of_folder: Vec<_> = of_folder.map(|file| path.join(file)).collect();
    std::iter::once(path).chain(parts).chain(of_folder)
}

/// What could not be done with a model. Some errors name it themselves, as the file that they are about.
fn failed<E: std::error::Error + Send + Sync + 'static>(what: &str, model: &str, error: E) -> anyhow::Error {
    let is_named = error.to_string().strip_prefix(model).is_some_and(|rest| rest.starts_with(": "));
    let what = if is_named { what.to_string() } else { format!("{what} {model}") };
    anyhow::Error::from(error).context(what)
}

/// Opens a model: what is at a path, or else a model of the Hugging Face hub, which is downloaded.
pub async fn checkpoint(model: &str) -> anyhow::Result<Rc<Checkpoint>> {
    #[cfg(feature = "hub")]
    if let Some(name) = hub::name(model) {
        let path = hub::download(&name).await.map_err(|error| failed("cannot download the model", model, error))?;
        return opened(model, Checkpoint::open(&path.to_string_lossy()).await);
    }
    opened(model, Checkpoint::open(model).await)
}

/// Opens a model of whose weights little more is wanted than which they are: those of the hub are not downloaded.
pub async fn outline(model: &str) -> anyhow::Result<Rc<Checkpoint>> {
    #[cfg(feature = "hub")]
    if let Some(name) = hub::name(model) {
        return opened(model, hub::outline(&name).await);
    }
    checkpoint(model).await
}

fn opened<E: std::error::Error + Send + Sync + 'static>(
    model: &str,
    checkpoint: Result<Checkpoint, E>,
) -> anyhow::Result<Rc<Checkpoint>> {
    let checkpoint = checkpoint.map_err(|error| failed("cannot open the model", model, error))?;
    let spec = &checkpoint.spec;
    tell(&Event::Model {
        model,
        family: spec.family.name,
        layers: spec.layers.len(),
        blocks: spec.blocks().count(),
        parameters: spec.parameters(),
        bytes: checkpoint.weights.stored_bytes(),
    });
    for note in &checkpoint.notes {
        screen::note(note);
    }
    Ok(Rc::new(checkpoint))
}

/// The text to search by. There is none that does for every model: the blocks that go are those which this text needs least.
pub fn calibration<'a>(model: &str, given: Option<&'a str>) -> anyhow::Result<&'a str> {
    match given {
        Some(text) => Ok(text),
        None if model == "builtin:tiny" => Ok("builtin:sample"),
        None => Err(bad_input(
            "--calibration is missing: give a text like those that the model is for (a text, JSON or JSONL file), for what it \
             does not need is removed. A few hundred rows of a data set do, for example those of \
             `hf download tatsu-lab/alpaca --repo-type dataset --local-dir DIR` saved as JSON Lines",
        )),
    }
}

/// Reads a text and cuts it into windows for a model. `role` is what the text is for, as [`Event::Text`] has it.
pub fn windows(
    checkpoint: &Checkpoint,
    role: &'static str,
    text: &str,
    args: &TextArgs,
) -> anyhow::Result<Rc<Windows>> {
    let text = CalibrationText::open(text, &args.options()).context("cannot use the text")?;
    let windows =
        checkpoint.windows(&text, args.windows()).with_context(|| format!("cannot use the text {}", text.source))?;
    if let Some(note) = checkpoint.too_long(&windows) {
        screen::note(note);
    }
    tell(&Event::Text {
        role,
        source: &text.source,
        rows: windows.rows,
        tokens: windows.tokens,
        windows: windows.count,
        window: windows.window,
        whole_text: windows.whole_text,
    });
    Ok(Rc::new(windows))
}

/// Opens a session with a model on the device that the arguments ask for.
pub async fn session(args: &DeviceArgs, checkpoint: &Rc<Checkpoint>) -> anyhow::Result<Rc<Session>> {
    let stage = Stage::spinner("testing the device");
    let builder = Session::builder(checkpoint.clone()).gpu_options(args.options()).memory_budget(args.memory_budget);
    let session = builder.open().await;
    drop(stage);
    let session = session?;
    let gpu = session.gpu();
    for warning in gpu.warnings() {
        screen::warn(warning);
    }
    tell(&Event::Device(gpu.info()));
    Ok(Rc::new(session))
}
