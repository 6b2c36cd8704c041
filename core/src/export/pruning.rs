//! What a pruning is about, as its files describe it: the fingerprint and everything in a plan but the steps.

use super::{ExportError, Fingerprint, PLAN_FORMAT, Plan, PlanCalibration, PlanModel, PlanSettings, PlanStatus};
use crate::gpu::Gpu;
use crate::model::Checkpoint;
use crate::search::{Dense, SearchOptions, SearchState};
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
            settings: self.settings().fingerprint(),
            device: format!("{}, {}, {}", gpu.name(), gpu.backend(), gpu.driver()),
            kernels: format!("{}, tier {}, version {}", gpu.gemm().name(), gpu.tier(), env!("CARGO_PKG_VERSION")),
        })
    }

    fn settings(&self) -> PlanSettings {
        let SearchOptions { target, block_types, objective, strategy, .. } = self.options;
        PlanSettings {
            units: self.options.units_of(&self.checkpoint.spec),
            block_types: *block_types,
            remove: target.most_steps(),
            objective: *objective,
            strategy: strategy.name().into(),
            approximate: strategy.is_approximate(),
        }
    }

    /// The plan of the steps that are finished.
    pub fn plan(&self, fingerprint: Fingerprint, status: PlanStatus, state: SearchState) -> Plan {
        let (windows, gpu) = (self.windows, self.gpu);
        let dense = state.dense.map_or((f64::INFINITY, f64::INFINITY), |dense| (dense.perplexity, dense.mean_nll));
        Plan {
            format: PLAN_FORMAT.into(),
            status,
            model: PlanModel::of(self.checkpoint),
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
            settings: self.settings(),
            device: gpu.info(),
            fingerprint,
            dense: Dense { perplexity: dense.0, mean_nll: dense.1 },
            steps: state.steps,
        }
    }
}
