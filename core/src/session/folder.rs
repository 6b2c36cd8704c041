//! The output folder of a pruning, and the order in which it is filled: whatever is killed when, what is there is whole, or can
//! be gone on with.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Preparation, Search, Session};
use crate::Error;
use crate::export::{
    DiskFolder, ExportError, FolderLock, GgufQuantisation, JsonPlace, MadeFolders, ModelFormat, ModelOptions,
    ModelSummary, Plan, PlanStatus, Provenance, check_model, export_model, model_bytes, read_file, remove_abandoned,
    write_atomically, write_order,
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
    /// Steps and status of the plan that was written last.
    planned: Cell<Option<(usize, PlanStatus)>>,
    _lock: FolderLock,
    /// What was not there before; gone with the value if nothing is in it.
    _made: MadeFolders,
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
            Found::Result if folder.is_result(&Plan::read(&folder.plan())?, target) => {
                Err(ExportError::NothingToResume { path: folder.shown(), why: "is finished" })
            }
            Found::Result => folder.probed(),
            Found::Other => Err(ExportError::NothingToResume { path: folder.shown(), why: "holds no saved search" }),
        }
    }

    fn lock(path: PathBuf) -> Result<Self, ExportError> {
        let shown = path.display().to_string();
        let write = |reason: String| ExportError::Write { path: shown.clone(), reason, advice: CHOOSE };
        if path.to_str().is_none() {
            // The plan and what is said are text.
            return Err(write("its name is not UTF-8".into()));
        }
        if path.exists() && !path.is_dir() {
            return Err(write("it is a file".into()));
        }
        let made = MadeFolders::create(&path).map_err(|error| write(error.to_string()))?;
        match FolderLock::try_new(&path).map_err(|error| unreadable(&path, &error))? {
            Some(lock) => Ok(Self { path, _made: made, planned: Cell::new(None), _lock: lock }),
            None => Err(ExportError::Busy { path: shown }),
        }
    }

    fn probed(self) -> Result<Self, ExportError> {
        let probe = self.path.join(PROBE);
        write_atomically(&probe, b"")?;
        fs::remove_file(&probe).map_err(|error| self.unclear(&error))?;
        let model = self.path.join(MODEL);
        if model.exists() && !model.is_dir() {
            let (path, reason) = (model.display().to_string(), "something else than a folder is there".to_string());
            return Err(ExportError::Write { path, reason, advice: "move it" });
        }
        Ok(self)
    }

    /// That an input is not where the result is written: it would be gone then.
    ///
    /// # Errors
    /// [`ExportError::InOutput`].
    pub fn check_apart(&self, input: &Path) -> Result<(), ExportError> {
        let Ok(input) = input.canonicalize() else { return Ok(()) };
        let written = [MODEL, REPORT].map(|name| self.path.join(name).canonicalize());
        match written.into_iter().flatten().find(|written| input.starts_with(written)) {
            Some(written) => Err(ExportError::InOutput { path: written.display().to_string() }),
            None => Ok(()),
        }
    }

    /// What is there. What a process leaves that is killed before its first save is nothing, and removed, but not where there is
    /// anything else.
    fn look(&self) -> Result<Found, ExportError> {
        if self.state().exists() {
            return Ok(Found::SavedSearch);
        }
        if self.plan().exists() {
            return Ok(Found::Result);
        }
        let only_left_over = || -> io::Result<bool> {
            for entry in fs::read_dir(&self.path)? {
                if !is_left_over(&entry?)? {
                    return Ok(false);
                }
            }
            self.remove_left_over()?;
            // What another process writes is there still.
            Ok(fs::read_dir(&self.path)?.next().is_none())
        };
        match only_left_over() {
            Ok(true) => Ok(Found::Nothing),
            Ok(false) => Ok(Found::Other),
            Err(error) => Err(unreadable(&self.path, &error)),
        }
    }

    /// Removes what an interrupted run left over.
    fn remove_left_over(&self) -> io::Result<()> {
        remove_abandoned(&self.path, UNFINISHED_MODEL);
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if is_left_over(&entry)? {
                match entry.file_name() == STATE {
                    true => fs::remove_dir_all(entry.path())?,
                    false if entry.file_type()?.is_file() => fs::remove_file(entry.path())?,
                    false => {}
                }
            }
        }
        Ok(())
    }

    /// Whether a plan is of a finished search that a search for the target would repeat, and its model is there.
    fn is_result(&self, plan: &Plan, target: Target) -> bool {
        let same = match target {
            Target::Units(units) => plan.steps.len() == units,
            // So many bytes may be other steps in another format, which is not known here.
            Target::Bytes(_) => false,
            target => plan.settings.target == Some(target),
        };
        same && plan.status == PlanStatus::Finished && self.path.join(MODEL).exists()
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
        self.path.join(STATE).join("search.json")
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
        let folder = self.path.join(STATE);
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
        let file = [self.state(), self.plan()].into_iter().find(|path| path.exists());
        file.map(|path| read_file(&path)).transpose()
    }

    /// Forgets the saved search: the work is done.
    fn remove_state(&self) -> Result<(), ExportError> {
        match fs::remove_dir_all(self.path.join(STATE)) {
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
        out.remove_left_over().map_err(|error| out.unclear(&error))?;
        write_order(&out.path.join("order.json"), &plan.order())?;
        let (summary, written) = write_model(session.checkpoint(), &model, DiskFolder::replace(&path)?, tell).await?;
        // Of the model before.
        let report = out.path.join(REPORT);
        if report.exists() {
            fs::remove_file(&report).map_err(|error| out.unclear(&error))?;
        }
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
        let html = Report::new([Run::new(&plan.model.name, plan.clone())]).to_html();
        write_atomically(&report, html.as_bytes())?;
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

/// The folder of the saved search.
const STATE: &str = "state";
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

/// Whether it is what an interrupted run leaves over: a probe, an unfinished file or model, a `state/` with no search in it.
fn is_left_over(entry: &fs::DirEntry) -> io::Result<bool> {
    let (name, kind) = (entry.file_name(), entry.file_type()?);
    Ok(match name.to_string_lossy() {
        name if name == PROBE => kind.is_file() && entry.metadata()?.len() == 0,
        name if is_unfinished_file(&name) => kind.is_file(),
        name if name.starts_with(UNFINISHED_MODEL) => kind.is_dir(),
        name if name == STATE => kind.is_dir() && holds_nothing(&entry.path())?,
        _ => false,
    })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// What a run leaves that was killed before its first save.
    fn leave_over(folder: &Path) {
        fs::create_dir_all(folder.join("state")).unwrap();
        fs::create_dir_all(folder.join(".model.partial-x/part")).unwrap();
        for file in [PROBE, ".blockpruner-x.tmp", "state/.blockpruner-y.tmp"] {
            fs::write(folder.join(file), b"").unwrap();
        }
    }

    #[test]
    fn what_a_killed_run_left_is_nothing() {
        let root = tempfile::tempdir().unwrap();
        leave_over(root.path());
        drop(OutFolder::new(root.path()).unwrap());
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn nothing_is_removed_beside_what_is_not_ours() {
        let root = tempfile::tempdir().unwrap();
        leave_over(root.path());
        fs::write(root.path().join("notes.txt"), b"mine").unwrap();
        let before = names(root.path());
        assert!(matches!(OutFolder::new(root.path()), Err(ExportError::NotEmpty { .. })));
        assert_eq!(names(root.path()), before);
        // Nor a file of another content.
        fs::remove_file(root.path().join("notes.txt")).unwrap();
        fs::write(root.path().join(PROBE), b"mine").unwrap();
        assert!(matches!(OutFolder::new(root.path()), Err(ExportError::NotEmpty { .. })));
        // Nor what another process writes.
        fs::remove_file(root.path().join(PROBE)).unwrap();
        let theirs = DiskFolder::create(&root.path().join(MODEL)).unwrap();
        assert!(matches!(OutFolder::new(root.path()), Err(ExportError::NotEmpty { .. })));
        theirs.finish().unwrap();
        assert_eq!(names(root.path()), [MODEL]);
    }

    #[test]
    fn folders_that_were_made_for_nothing_go_again() {
        let root = tempfile::tempdir().unwrap();
        drop(OutFolder::new(root.path().join("a/b/c")).unwrap());
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn an_input_is_not_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let out = OutFolder::new(root.path()).unwrap();
        fs::create_dir(root.path().join(MODEL)).unwrap();
        fs::write(root.path().join("model/model.gguf"), b"").unwrap();
        fs::write(root.path().join("text.txt"), b"").unwrap();
        for input in ["model", "model/.", "model/model.gguf"] {
            assert!(matches!(out.check_apart(&root.path().join(input)), Err(ExportError::InOutput { .. })), "{input}");
        }
        for input in ["text.txt", "none"] {
            out.check_apart(&root.path().join(input)).unwrap();
        }
        out.check_apart(Path::new("builtin:tiny")).unwrap();
    }

    #[test]
    fn something_else_in_the_models_place_shows_before_any_work() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("state")).unwrap();
        fs::write(root.path().join("state/search.json"), b"{}").unwrap();
        fs::write(root.path().join(MODEL), b"").unwrap();
        let error = OutFolder::resume(root.path(), Target::Units(1)).err().unwrap().to_string();
        assert!(error.contains("something else than a folder is there; move it"), "{error}");
    }
}
