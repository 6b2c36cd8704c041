//! What a pruning is about, as its files describe it: the fingerprint and everything in a plan but the steps.

use super::{ExportError, Fingerprint, PLAN_FORMAT, Plan, PlanCalibration, PlanModel, PlanSettings, PlanStatus};
use crate::gpu::Gpu;
use crate::model::{BlockSet, Checkpoint};
use crate::search::{Dense, SearchOptions, SearchState, Step};
use crate::text::Windows;

/// Model, text, settings and device of one pruning.
#[derive(Clone, Copy)]
pub(crate) struct Pruning<'a> {
    /// The model.
    pub checkpoint: &'a Checkpoint,
    /// The calibration text.
    pub windows: &'a Windows,
    /// What is searched for.
    pub options: &'a SearchOptions,
    /// On which device.
    pub gpu: &'a Gpu,
}

impl Pruning<'_> {
    /// What must be the same for a resumed search. Reads much of the checkpoint.
    pub async fn fingerprint(&self) -> Result<Fingerprint, ExportError> {
        let gpu = self.gpu;
        Ok(Fingerprint {
            weights: self.checkpoint.weights.fingerprint().await?,
            tokenizer: self.checkpoint.tokenizer()?.fingerprint(),
            token_ids: self.windows.fingerprint(),
            settings: self.settings(0).fingerprint(),
            device: format!("{}, {}, {}", gpu.name(), gpu.backend(), gpu.driver()),
            kernels: format!("{}, tier {}, version {}", gpu.gemm().name(), gpu.tier(), env!("CARGO_PKG_VERSION")),
        })
    }

    /// The settings of a plan of so many steps.
    fn settings(&self, steps: usize) -> PlanSettings {
        let SearchOptions { target, block_types, strategy, sizes, .. } = self.options;
        PlanSettings {
            units: self.options.units_of(&self.checkpoint.spec),
            block_types: *block_types,
            target: Some(*target),
            remove: target.steps().unwrap_or(steps),
            written_as: sizes.as_ref().map(|sizes| sizes.written_as().to_string()),
            objective: self.options.measured(),
            strategy: strategy.name().into(),
            strategy_seed: strategy.seed(),
            approximate: strategy.is_approximate(),
        }
    }

    /// The plan of the steps that are finished, and of one that goes beyond the target.
    pub fn plan(
        &self,
        fingerprint: Fingerprint,
        status: PlanStatus,
        state: SearchState,
        mut beyond: Option<Step>,
    ) -> Plan {
        let mut steps = state.steps;
        self.measure(steps.iter_mut().chain(&mut beyond));
        let (windows, gpu) = (self.windows, self.gpu);
        let dense = state.dense.map_or((f64::INFINITY, f64::INFINITY), |dense| (dense.perplexity, dense.mean_nll));
        Plan {
            format: PLAN_FORMAT.into(),
            status,
            command: None,
            model: PlanModel {
                bytes: self.options.sizes.as_ref().map(|sizes| sizes.without(&BlockSet::new())),
                ..PlanModel::of(self.checkpoint)
            },
            calibration: PlanCalibration {
                source: windows.source.clone(),
                field: windows.options.field.clone(),
                rows: windows.rows,
                tokens: windows.tokens,
                windows: windows.count,
                window: windows.window,
                samples: windows.options.samples,
                seed: windows.options.seed,
            },
            settings: self.settings(steps.len()),
            device: gpu.info(),
            fingerprint,
            dense: Dense { perplexity: dense.0, mean_nll: dense.1 },
            steps,
            beyond,
            held_out: None,
        }
    }

    /// Says of every step what the model takes after it. A state knows nothing of how it is written, which may change.
    fn measure<'s>(&self, steps: impl Iterator<Item = &'s mut Step>) {
        let (spec, sizes) = (&self.checkpoint.spec, &self.options.sizes);
        let mut gone = BlockSet::new();
        for step in steps {
            gone.extend(step.removed.blocks());
            step.bytes = sizes.as_ref().map(|sizes| sizes.without(&gone));
            step.kv_cache = Some(spec.kv_cache(&gone));
        }
    }
}
