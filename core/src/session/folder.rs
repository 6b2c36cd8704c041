//! The output folder of a pruning, and the order in which it is filled: whatever is killed when, what is there is whole, or can
//! be gone on with.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Preparation, Search, Session};
use crate::Error;
use crate::export::{
    DiskFolder, ExportError, FolderLock, GgufQuantisation, JsonPlace, ModelFormat, ModelOptions, ModelSummary, Plan,
    PlanStatus, Provenance, check_model, export_model, model_bytes, write_atomically, write_order,
};
use crate::model::{BlockSet, Checkpoint};
use crate::report::{Report, Run};
use crate::search::{MemoryError, MemoryPlan, SearchOptions, Target};
use crate::text::Windows;
use crate::weights::FloatType;

/// The folder of one pruning, and no other process's meanwhile: `plan.json` of the steps that are done, `state/` of one that
/// can be gone on with, `order.json`, `model/` and `report.html` of a finished one. One that was made here goes away again if nothing came
/// into it.
pub struct OutFolder {
    path: PathBuf,
    created: bool,
    /// Steps and status of the plan that was written last.
    planned: Cell<Option<(usize, PlanStatus)>>,
    _lock: FolderLock,
}

/// What is in an output folder before anything is done in it.
enum Found {
    Nothing,
    SavedSearch,
    Result,
    Other,
}

/// How a model is written.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct WriteOptions {
    /// How; None: as the best Hugging Face folder that can be.
    pub format: Option<ModelFormat>,
    /// Convert the weights; None keeps their types, and quantised ones become bf16.
    pub dtype: Option<FloatType>,
    /// Quantise the weights, which only a GGUF file can hold.
    pub quantize: Option<GgufQuantisation>,
}

impl WriteOptions {
    /// Weights keep their types.
    pub fn new(format: impl Into<Option<ModelFormat>>) -> Self {
        Self { format: format.into(), dtype: None, quantize: None }
    }

    /// Weights are quantised; None: they are not.
    pub fn quantize(mut self, quantize: impl Into<Option<GgufQuantisation>>) -> Self {
        self.quantize = quantize.into();
        self
    }

    /// Weights are converted to this type; None: they keep theirs.
    pub fn dtype(mut self, dtype: impl Into<Option<FloatType>>) -> Self {
        self.dtype = dtype.into();
        self
    }
}

/// What is being done while a model is written.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Writing {
    /// Bytes of tensors are written.
    Write {
        /// That are there.
        done: u64,
        /// In all.
        total: u64,
    },
    /// They are read back and compared.
    Compare {
        /// That are compared.
        done: u64,
        /// In all.
        total: u64,
    },
    /// The written model is brought to the device, to score the text again.
    Prepare(Preparation),
}

/// A pruning that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// What `plan.json` says.
    pub plan: Plan,
    /// Of the model's folder.
    pub summary: ModelSummary,
    /// What the search found for the model, and
    pub planned: f64,
    /// what the written model has.
    pub perplexity: f64,
}

impl OutFolder {
    /// A new or empty folder; that it is writable shows here, before any work.
    ///
    /// # Errors
    /// A folder that cannot be made, read or written, that another process works in, or that holds anything.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, ExportError> {
        let folder = Self::lock(path.into())?;
        match folder.look()? {
            Found::Nothing => folder.probed(),
            Found::SavedSearch => Err(ExportError::Unfinished { path: folder.shown() }),
            Found::Result | Found::Other => Err(ExportError::NotEmpty { path: folder.shown() }),
        }
    }

    /// A folder with a search to go on with to a target: one that was saved, one that was finished with another target, or one
    /// in which nothing has been saved yet.
    ///
    /// # Errors
    /// As [`OutFolder::new`], but for a folder with anything else, or where nothing is left to do.
    pub fn resume(path: impl Into<PathBuf>, target: Target) -> Result<Self, ExportError> {
        let folder = Self::lock(path.into())?;
        match folder.look()? {
            Found::Nothing | Found::SavedSearch => folder.probed(),
            Found::Result if is_result(&Plan::read(&folder.plan())?, target) => {
                Err(ExportError::NothingToResume { path: folder.shown(), why: "is finished" })
            }
            Found::Result => folder.probed(),
            Found::Other => Err(ExportError::NothingToResume { path: folder.shown(), why: "holds no saved search" }),
        }
    }

    fn lock(path: PathBuf) -> Result<Self, ExportError> {
        let created = !path.exists();
        let shown = path.display().to_string();
        let write = |reason: String| ExportError::Write { path: shown.clone(), reason, advice: CHOOSE };
        if !created && !path.is_dir() {
            return Err(write("it is a file".into()));
        }
        fs::create_dir_all(&path).map_err(|error| write(error.to_string()))?;
        match FolderLock::try_new(&path).map_err(|error| unreadable(&path, &error))? {
            Some(lock) => Ok(Self { path, created, planned: Cell::new(None), _lock: lock }),
            None => Err(ExportError::Busy { path: shown }),
        }
    }

    fn probed(self) -> Result<Self, ExportError> {
        let probe = self.path.join(PROBE);
        write_atomically(&probe, b"")?;
        fs::remove_file(&probe).map_err(|error| self.unclear(&error))?;
        Ok(self)
    }

    /// What is there. What a process leaves that is killed before its first save is nothing, and removed.
    fn look(&self) -> Result<Found, ExportError> {
        if self.state().exists() {
            return Ok(Found::SavedSearch);
        }
        let empty = || -> io::Result<bool> {
            let mut is_empty = true;
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                let name = entry.file_name();
                match name.to_string_lossy() {
                    name if name == PROBE || is_unfinished_file(&name) => fs::remove_file(entry.path())?,
                    name if name.starts_with(UNFINISHED_MODEL) => fs::remove_dir_all(entry.path())?,
                    name if name == "state" && holds_nothing(&entry.path())? => fs::remove_dir_all(entry.path())?,
                    _ => is_empty = false,
                }
            }
            Ok(is_empty)
        };
        let is_empty = empty().map_err(|error| unreadable(&self.path, &error))?;
        let is_result = self.plan().exists();
        Ok(match (is_empty, is_result) {
            (true, _) => Found::Nothing,
            (false, true) => Found::Result,
            (false, false) => Found::Other,
        })
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn unclear(&self, error: &io::Error) -> ExportError {
        ExportError::Write { path: self.shown(), reason: error.to_string(), advice: "check its permissions" }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the search is saved.
    pub fn state(&self) -> PathBuf {
        self.path.join("state").join("search.json")
    }

    /// The plan of the steps that are done.
    pub fn plan(&self) -> PathBuf {
        self.path.join("plan.json")
    }

    /// Saves a search, each file of it whole or not at all: its state, and its plan where a step or the end is new.
    ///
    /// # Errors
    /// What the disk says.
    pub fn save(&self, search: &Search) -> Result<(), ExportError> {
        self.save_state(search)?;
        if search.state().dense.is_none() || search.is_cut() {
            return Ok(());
        }
        let now = (search.state().steps.len(), search.status());
        if self.planned.get() != Some(now) {
            search.plan().write(&self.plan())?;
            self.planned.set(Some(now));
        }
        Ok(())
    }

    fn save_state(&self, search: &Search) -> Result<(), ExportError> {
        let folder = self.path.join("state");
        fs::create_dir_all(&folder).map_err(|error| self.unclear(&error))?;
        write_atomically(&self.state(), search.save().to_json().as_bytes())
    }

    /// Whether there is something to go on from.
    pub fn has_saved(&self) -> bool {
        self.state().exists() || self.plan().exists()
    }

    /// What a search can go on from: what [`OutFolder::save`] wrote last, or the plan of a finished one; None if there is
    /// neither.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn saved(&self) -> Result<Option<Vec<u8>>, ExportError> {
        for path in [self.state(), self.plan()] {
            match fs::read(&path) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(&path, &error)),
            }
        }
        Ok(None)
    }

    /// Removes what is written anew at the end, and what an interrupted run left behind: its model and report, and files that
    /// were not finished.
    fn remove_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == MODEL || name.starts_with(UNFINISHED_MODEL) {
                fs::remove_dir_all(entry.path())?;
            } else if name == REPORT || is_unfinished_file(&name) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Forgets the saved search: the work is done.
    fn remove_state(&self) -> Result<(), ExportError> {
        match fs::remove_dir_all(self.path.join("state")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.unclear(&error)),
            _ => Ok(()),
        }
    }
}

impl Session {
    /// A session with the model that a search's result was written to, on this device in place of this session's model:
    /// to compare its perplexity with what the search found. It keeps to the memory of the search, or to the least that works
    /// where the written weights need more than those that were read; a search must not end at a check that does not fit.
    ///
    /// # Errors
    /// Those of [`Session::memory`].
    fn with_written(&self, written: Checkpoint, windows: &Windows, options: &SearchOptions) -> Result<Session, Error> {
        self.unload();
        let searched = self.memory(windows, Some(options))?.total();
        let budget = match MemoryPlan::new(&self.gpu, &written, windows, None, Some(searched)) {
            Err(MemoryError::TooSmall { needed, .. }) => needed,
            plan => plan.map(|_| searched)?,
        };
        Ok(Session::builder(written).memory_budget(budget).with_gpu(self.gpu.clone()))
    }
}

impl Search {
    /// Writes what was found: `order.json`, the model, and at the end, when the model has been read back, compared to the bit
    /// and scored on the same text, `report.html` and `plan.json`. The saved search of a finished one is forgotten then, unless it has found more
    /// than was asked for now.
    ///
    /// # Errors
    /// Those of [`Search::check_result`], what the disk says, [`ExportError::TooLarge`] where the format turns out to hold what was
    /// found in more bytes than the target allows, an [`ExportError::Differs`] or [`ExportError::OtherPerplexity`] where the written model is not what it
    /// should be, and those of [`super::Session::perplexity`].
    pub async fn write(
        &self,
        out: &OutFolder,
        options: WriteOptions,
        tell: &mut dyn FnMut(Writing),
    ) -> Result<Written, Error> {
        self.check_result()?;
        let plan = self.plan();
        plan.check().map_err(|(place, problem)| ExportError::Plan {
            file: "plan.json".into(),
            place: JsonPlace(place),
            problem,
            advice: "this is a bug in blockpruner, please report it",
        })?;
        if self.is_cut() {
            // The plan will have less.
            out.save_state(self)?;
        }
        out.remove_unfinished().map_err(|error| out.unclear(&error))?;
        write_order(&out.path.join("order.json"), &plan.order())?;
        let (path, session) = (out.path.join(MODEL), self.session());
        let removed = self.state().removed();
        let provenance = Provenance::of_plan(&plan, plan.steps.len());
        let model = ModelOptions::new(removed, options.format).dtype(options.dtype).quantize(options.quantize);
        let model = model.provenance(provenance);
        if let Target::Bytes(most) = self.options().target {
            // Of some formats nobody knows beforehand how they hold what is found.
            let bytes = model_bytes(session.checkpoint(), &model).await?;
            if bytes > most {
                return Err(
                    ExportError::TooLarge { format: model.format_for(session.checkpoint()), bytes, most }.into()
                );
            }
        }
        let (summary, written) = write_model(session.checkpoint(), &model, DiskFolder::create(&path)?, tell).await?;
        let written = session.with_written(written, self.windows(), self.options())?;
        let mut prepare = |preparation| tell(Writing::Prepare(preparation));
        let perplexity = written.perplexity(self.windows(), &BlockSet::new(), &mut prepare).await?.perplexity;
        let planned = plan.steps.last().map_or(plan.dense.perplexity, |step| step.perplexity);
        // Of rounded weights only damage shows; few bits cost a small model much.
        let allowed = match options.quantize {
            Some(GgufQuantisation::Q4_0) => 0.5,
            Some(_) => 0.05,
            None if summary.rounded => 0.02,
            None => 1e-6,
        };
        let difference = (perplexity - planned).abs() / planned;
        if difference.is_nan() || difference > allowed {
            let path = path.display().to_string();
            return Err(ExportError::OtherPerplexity { path, perplexity, planned }.into());
        }
        let report = Report::new([Run::new(&plan.model.name, plan.clone())]);
        write_atomically(&out.path.join(REPORT), report.to_html().as_bytes())?;
        plan.write(&out.plan())?;
        if self.is_finished() && !self.is_cut() {
            out.remove_state()?;
        }
        Ok(Written { plan, summary, planned, perplexity })
    }
}

/// Writes a model's folder, whole or not at all, and opens and compares what is there: it is given back.
///
/// # Errors
/// Those of [`export_model`], [`check_model`] and of opening a model.
pub async fn write_model(
    checkpoint: &Checkpoint,
    options: &ModelOptions,
    mut folder: DiskFolder,
    tell: &mut dyn FnMut(Writing),
) -> Result<(ModelSummary, Checkpoint), Error> {
    let mut progress = |done, total| tell(Writing::Write { done, total });
    let summary = export_model(checkpoint, options, &mut folder, &mut progress).await?;
    let path = folder.finish()?;
    let path = summary.gguf_file().map_or(path.clone(), |file| path.join(file));
    let written = Checkpoint::open(&path.to_string_lossy()).await?;
    let mut progress = |done, total| tell(Writing::Compare { done, total });
    check_model(checkpoint, options, &written, &mut progress).await?;
    Ok((summary, written))
}

/// The folder of the model.
const MODEL: &str = "model";
/// What was found, for people.
const REPORT: &str = "report.html";
/// How the temporary folder of the model's begins.
const UNFINISHED_MODEL: &str = ".model.partial-";
/// A file that shows whether files can be written.
const PROBE: &str = ".blockpruner";
const CHOOSE: &str = "choose another folder";

fn unreadable(path: &Path, error: &io::Error) -> ExportError {
    ExportError::Read { path: path.display().to_string(), reason: error.to_string(), advice: CHOOSE }
}

/// Whether a finished plan is what a search for the target would give.
fn is_result(plan: &Plan, target: Target) -> bool {
    match target {
        Target::Units(units) => plan.steps.len() == units,
        // So many bytes may be other steps in another format, which is not known here.
        Target::Bytes(_) => false,
        target => plan.settings.target == Some(target),
    }
}

/// Whether a file is one that [`write_atomically`] has not finished.
fn is_unfinished_file(name: &str) -> bool {
    name.starts_with(".blockpruner-") && name.ends_with(".tmp")
}

/// Whether a folder holds at most files that were not finished.
fn holds_nothing(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        if !is_unfinished_file(&entry?.file_name().to_string_lossy()) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Drop for OutFolder {
    fn drop(&mut self) {
        if self.created {
            // Fails, as it should, unless the folder is empty.
            let _ = fs::remove_dir(&self.path);
        }
    }
}
