//! Everything that can fail while pruning fails, once each: the device is lost, its memory or the disk is full. The error
//! has a type, what was saved stays, and the search that goes on from it ends as one that was never interrupted.

use std::ops::ControlFlow;
use std::rc::Rc;

use blockpruner::export::{DiskFolder, ExportError, FolderSink, HfFormat, HfOptions, SinkFuture, export_hf};
use blockpruner::gpu::{Gpu, GpuError, GpuOptions};
use blockpruner::model::{Checkpoint, DeviceModel, ForwardError};
use blockpruner::score::{ScoreError, Scorer};
use blockpruner::search::{BlockTypes, Event, MemoryPlan, SearchError, SearchOptions, SearchState, search};
use blockpruner::testing::FaultPoint;
use blockpruner::text::{CalibrationText, Windows};
use blockpruner_tests::open;
use pollster::block_on;

fn options() -> SearchOptions {
    SearchOptions::remove(2).block_types(BlockTypes::Mha)
}

/// A small pruning, and what it comes to without any fault.
struct Small {
    checkpoint: Checkpoint,
    windows: Windows,
    sound: DeviceModel,
    whole: SearchState,
}

impl Small {
    fn new() -> Self {
        let checkpoint = block_on(Checkpoint::builtin_tiny()).unwrap();
        let text = CalibrationText::builtin_sample();
        let windows = Windows::cut(&text, checkpoint.tokenizer().unwrap(), 32, Some(2)).unwrap();
        let sound = block_on(DeviceModel::load(open(&GpuOptions::default()), &checkpoint, &mut |_, _| {})).unwrap();
        let mut small = Self { checkpoint, windows, sound, whole: SearchState::default() };
        small.whole = small.search(&small.sound, SearchState::default(), &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(small.whole.steps.len(), 2);
        small
    }

    /// Searches; `save` is told of every state that is worth saving.
    fn search(
        &self,
        model: &DeviceModel,
        state: SearchState,
        save: &mut dyn FnMut(&SearchState) -> ControlFlow<()>,
    ) -> Result<SearchState, SearchError> {
        let planned = MemoryPlan::new(model.gpu(), &self.checkpoint, &self.windows, Some(&options()), None).unwrap();
        let memory = MemoryPlan { wave: 5, ..planned };
        let scorer = Scorer::batched(model, &self.windows, memory.batching)?;
        let mut observe = |event: Event, state: &SearchState| match event {
            Event::Progress { .. } => ControlFlow::Continue(()),
            _ => save(state),
        };
        let mut state = block_on(search(&scorer, &options(), &memory, state, &mut observe))?;
        state.seconds = 0.0;
        state.steps.iter_mut().for_each(|step| step.seconds = 0.0);
        Ok(state)
    }

    /// Loads and searches on a device that fails at the `n`-th passage of `point`, if it comes to that; what was saved last, as
    /// JSON.
    fn failing(&self, point: FaultPoint, n: u64) -> (Result<SearchState, SearchError>, Option<String>, Rc<Gpu>, bool) {
        let gpu = open(&GpuOptions::default());
        let before = gpu.passed(point);
        gpu.fail_at(point, n);
        let mut saved = None;
        let result = block_on(DeviceModel::load(gpu.clone(), &self.checkpoint, &mut |_, _| {}))
            .map_err(SearchError::from)
            .and_then(|model| {
                self.search(&model, SearchState::default(), &mut |state| {
                    saved = Some(serde_json::to_string(state).unwrap());
                    ControlFlow::Continue(())
                })
            });
        let reached = gpu.passed(point) - before >= n;
        (result, saved, gpu, reached)
    }

    /// How often a pruning passes a point.
    fn passages(&self, point: FaultPoint) -> u64 {
        let gpu = open(&GpuOptions::default());
        let before = gpu.passed(point);
        let model = block_on(DeviceModel::load(gpu.clone(), &self.checkpoint, &mut |_, _| {})).unwrap();
        self.search(&model, SearchState::default(), &mut |_| ControlFlow::Continue(())).unwrap();
        gpu.passed(point) - before
    }

    /// Fails there, and goes on from what was saved; whether anything was. None if it did not come to that: how often memory is
    /// asked for depends on how fast the device is just then.
    fn fail_and_resume(&self, point: FaultPoint, n: u64) -> Option<bool> {
        let (result, saved, _gpu, reached) = self.failing(point, n);
        if !reached {
            assert_eq!(result.unwrap(), self.whole, "{point:?} {n}");
            return None;
        }
        let error = result.err().unwrap_or_else(|| panic!("{point:?} {n}: no error"));
        let SearchError::Score(ScoreError::Forward(ForwardError::Gpu(gpu_error))) = &error else {
            panic!("{point:?} {n}: {error:?}")
        };
        let expected = match point {
            FaultPoint::Allocation => matches!(gpu_error, GpuError::OutOfMemory { .. }),
            FaultPoint::Submit | FaultPoint::ReadBack => matches!(gpu_error, GpuError::Lost { .. }),
        };
        assert!(expected, "{point:?} {n}: {error:?}");
        self.resumes(saved.as_deref(), &format!("{point:?} {n}"));
        Some(saved.is_some())
    }

    fn resumes(&self, saved: Option<&str>, when: &str) {
        let state = saved.map_or_else(SearchState::default, |saved| serde_json::from_str(saved).unwrap());
        let resumed = self.search(&self.sound, state, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(resumed, self.whole, "{when}");
    }

    /// All of these faults, and a line about them.
    fn fail_at_all(&self, point: FaultPoint, all: u64, chosen: impl Iterator<Item = u64>) {
        let tried: Vec<Option<bool>> = chosen.map(|n| self.fail_and_resume(point, n)).collect();
        let (count, kept) = (tried.iter().flatten().count(), tried.iter().flatten().filter(|kept| **kept).count());
        println!("{point:?}: {count} of {all}, {kept} after something was saved, all resumed to the same steps");
        assert!(count * 10 >= tried.len() * 8, "{point:?}: only {count} of {} faults were reached", tried.len());
    }

    /// Saving fails at the `n`-th time.
    fn unsaved(&self, n: usize) -> bool {
        let (mut times, mut saved) = (0, None);
        let result = self.search(&self.sound, SearchState::default(), &mut |state| {
            times += 1;
            if times == n {
                return ControlFlow::Break(());
            }
            saved = Some(serde_json::to_string(state).unwrap());
            ControlFlow::Continue(())
        });
        if times < n {
            return false;
        }
        assert!(matches!(result, Err(SearchError::Stopped)), "save {n}: {result:?}");
        self.resumes(saved.as_deref(), &format!("save {n}"));
        true
    }

    /// The disk is full at the `n`-th call of the sink; whether there were so many.
    fn full_at(&self, n: usize) -> bool {
        let root = tempfile::tempdir().unwrap();
        let removed = self.whole.steps.iter().flat_map(|step| step.removed.blocks()).collect();
        let options = HfOptions::new(removed, HfFormat::Removed);
        let target = root.path().join("model");
        let mut disk = FullDisk { folder: DiskFolder::create(&target).unwrap(), calls: 0, full_at: n };
        let written = block_on(export_hf(&self.checkpoint, &options, &mut disk, &mut |_, _| {}));
        if disk.calls < n {
            written.unwrap();
            return false;
        }
        assert!(matches!(written, Err(ExportError::Write { .. })), "call {n}: {written:?}");
        drop(disk);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "call {n}");
        let mut folder = DiskFolder::create(&target).unwrap();
        block_on(export_hf(&self.checkpoint, &options, &mut folder, &mut |_, _| {})).unwrap();
        folder.finish().unwrap();
        true
    }
}

/// Hands everything on to a folder, until the disk is full.
struct FullDisk {
    folder: DiskFolder,
    calls: usize,
    full_at: usize,
}

impl FullDisk {
    fn call(&mut self) -> Result<(), ExportError> {
        self.calls += 1;
        if self.calls < self.full_at {
            return Ok(());
        }
        let reason = std::io::Error::from(std::io::ErrorKind::StorageFull).to_string();
        Err(ExportError::Write { path: "model".into(), reason, advice: "free some space" })
    }
}

impl FolderSink for FullDisk {
    fn begin_file<'a>(&'a mut self, name: &'a str) -> SinkFuture<'a> {
        match self.call() {
            Ok(()) => self.folder.begin_file(name),
            full => Box::pin(std::future::ready(full)),
        }
    }

    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> SinkFuture<'a> {
        match self.call() {
            Ok(()) => self.folder.write(bytes),
            full => Box::pin(std::future::ready(full)),
        }
    }

    fn end_file(&mut self) -> SinkFuture<'_> {
        match self.call() {
            Ok(()) => self.folder.end_file(),
            full => Box::pin(std::future::ready(full)),
        }
    }
}

const POINTS: [FaultPoint; 3] = [FaultPoint::Submit, FaultPoint::ReadBack, FaultPoint::Allocation];

/// Some of them, from the first to the last; all are `every_fault_is_survived`.
#[test]
fn faults_are_survived() {
    let small = Small::new();
    for point in POINTS {
        let all = small.passages(point);
        assert!(all > 6, "{point:?} is passed {all} times");
        small.fail_at_all(point, all, (0..6).map(|part| 1 + part * (all - 1) / 5));
    }
    for n in [1, 2, 5] {
        assert!(small.unsaved(n));
        assert!(small.full_at(n));
    }
}

/// Takes many minutes on a software driver: `cargo test --workspace --test end_to_end faults -- --ignored --nocapture`.
#[test]
#[ignore = "takes many minutes"]
fn every_fault_is_survived() {
    let small = Small::new();
    let saves = (1..).take_while(|n| small.unsaved(*n)).count();
    let calls = (1..).take_while(|n| small.full_at(*n)).count();
    println!("disk full: {saves} saves, {calls} calls of the export, all survived");
    for point in POINTS {
        let all = small.passages(point);
        small.fail_at_all(point, all, 1..=all);
    }
}
