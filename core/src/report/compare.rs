//! Plans beside each other: what each came to, what they have at the same size, and which blocks they have in common.

use serde::Serialize;

use super::Run;
use super::numbers::{count, duration, grouped, increase, percent, perplexity};
use super::table::{Table, escaped, on_one_line};
use crate::export::HeldOut;
use crate::search::Units;

/// At which shares of the parameters plans are compared, where nothing else is asked for.
pub const RATIOS: [f64; 3] = [0.1, 0.2, 0.3];

/// Plans beside each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// In the order in which they were given.
    pub plans: Vec<ComparedPlan>,
    /// Every two of them.
    pub common: Vec<CommonBlocks>,
    /// Why figures of different plans are not to be compared, in sentences.
    pub warnings: Vec<String>,
}

/// One of the plans.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ComparedPlan {
    /// What it is called here.
    pub name: String,
    /// Model, as its user named it.
    pub model: String,
    /// Parameters of the whole model.
    pub parameters: u64,
    /// Calibration text.
    pub calibration: String,
    /// Windows of it, and
    pub windows: usize,
    /// tokens of each.
    pub window: usize,
    /// What a step removed.
    pub units: Units,
    /// Which kinds of blocks.
    pub block_types: String,
    /// How candidates were scored.
    pub strategy: String,
    /// Whether that may differ from the published loop.
    pub approximate: bool,
    /// Steps that are there.
    pub steps: usize,
    /// Blocks that they removed.
    pub blocks_removed: usize,
    /// Share of the parameters that they removed, 0 to 1.
    pub ratio_removed: f64,
    /// Perplexity of the whole model, and
    pub dense_perplexity: f64,
    /// after the last step.
    pub perplexity: f64,
    /// Wall time of all steps.
    pub seconds: f64,
    /// Perplexities on a text that the search has not seen, if the plan has them.
    #[serde(rename = "evaluation", skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// The command that made the plan, if it says that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// At each of the ratios.
    pub at: Vec<AtRatio>,
}

/// The last step of a plan that removes no more than a share.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AtRatio {
    /// The share that was asked for, 0 to 1.
    pub ratio: f64,
    /// None where the plan ends further from it than its largest step.
    pub found: Option<FoundStep>,
}

/// A step of a plan; 0 is the whole model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FoundStep {
    /// Which.
    pub step: usize,
    /// The share that it really removes.
    pub ratio_removed: f64,
    /// What that has.
    pub perplexity: f64,
}

/// Blocks that two plans removed both.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CommonBlocks {
    /// The two, by their place in the comparison.
    pub plans: [usize; 2],
    /// At which share of the parameters; None: in all their steps.
    pub ratio: Option<f64>,
    /// Blocks that both removed, and
    pub both: usize,
    /// that any of them did.
    pub any: usize,
    /// The first of these over the second (Jaccard index); 1 where nothing was removed.
    pub jaccard: f64,
}

impl Comparison {
    /// Compares plans, at these shares of the parameters (0 to 1), too.
    pub fn new(runs: &[Run], ratios: &[f64]) -> Self {
        Self {
            plans: runs.iter().map(|run| ComparedPlan::of(run, ratios)).collect(),
            common: common(runs, ratios),
            warnings: warnings(runs),
        }
    }

    /// One column a plan.
    pub fn table(&self) -> Table {
        let mut table =
            Table::new(std::iter::once(String::new()).chain(self.plans.iter().map(|plan| plan.name.clone())));
        let mut row = |name: &str, cell: &dyn Fn(&ComparedPlan) -> String| {
            table.push(std::iter::once(name.to_string()).chain(self.plans.iter().map(cell)));
        };
        row("model", &|plan| plan.model.clone());
        row("parameters", &|plan| grouped(plan.parameters));
        row("calibration", &|plan| plan.calibration.clone());
        row("windows", &|plan| format!("{} of {}", plan.windows, plan.window));
        row("units", &|plan| plan.units.to_string());
        row("block types", &|plan| plan.block_types.clone());
        row("strategy", &|plan| format!("{}{}", plan.strategy, if plan.approximate { " (approximate)" } else { "" }));
        row("steps", &|plan| plan.steps.to_string());
        row("blocks removed", &|plan| plan.blocks_removed.to_string());
        row("parameters removed", &|plan| percent(plan.ratio_removed));
        row("perplexity, whole", &|plan| perplexity(plan.dense_perplexity));
        row("perplexity, pruned", &|plan| perplexity(plan.perplexity));
        row("increase", &|plan| increase(plan.dense_perplexity, plan.perplexity).unwrap_or_default());
        for (index, at) in self.plans.first().map_or(&[][..], |plan| &plan.at).iter().enumerate() {
            row(&format!("perplexity at {}", ratio(at.ratio)), &|plan| {
                plan.at.get(index).map_or_else(String::new, AtRatio::words)
            });
        }
        if self.plans.iter().any(|plan| plan.held_out.is_some()) {
            let mut row = |name: &str, cell: &dyn Fn(&HeldOut) -> String| {
                row(name, &|plan| plan.held_out.as_ref().map_or_else(String::new, cell));
            };
            row("held-out text", &|held_out| held_out.text.clone());
            row("held-out windows", &|held_out| format!("{} of {}", held_out.windows, held_out.window));
            row("held out, whole", &|held_out| perplexity(held_out.dense_perplexity));
            row("held out, pruned", &|held_out| perplexity(held_out.perplexity));
        }
        row("time", &|plan| duration(plan.seconds));
        table
    }

    /// The blocks in common, one row for every two plans; without rows where there is one plan.
    pub fn common_table(&self) -> Table {
        let mut table = Table::new(["plans", "at", "in common", "Jaccard"].map(String::from));
        let name = |index: usize| self.plans.get(index).map_or("", |plan| &plan.name);
        for CommonBlocks { plans: [one, other], ratio: at, both, any, jaccard } in &self.common {
            let at = at.map_or("all steps".into(), ratio);
            let plans = format!("{} and {}", name(*one), name(*other));
            table.push([plans, at, format!("{both} of {any} blocks"), format!("{jaccard:.2}")]);
        }
        table
    }

    /// Both tables and the warnings, for people.
    pub fn to_text(&self) -> String {
        self.written(Table::to_text, |warning| format!("warning: {warning}\n"))
    }

    /// The same in Markdown.
    pub fn to_markdown(&self) -> String {
        self.written(Table::to_markdown, |warning| format!("> Warning: {}\n", escaped(&warning)))
    }

    fn written(&self, table: impl Fn(&Table) -> String, warning: impl Fn(String) -> String) -> String {
        let warnings = self.warnings.iter().map(|text| warning(on_one_line(text)));
        let tables = [self.table(), self.common_table()];
        let tables = tables.iter().filter(|table| !table.is_empty()).map(table);
        warnings.chain(tables).collect::<Vec<_>>().join("\n")
    }

    /// One row a plan, with names of columns in the first; numbers are not rounded, shares are 0 to 1, and what is not known is
    /// empty. The blocks in common are not in it.
    pub fn to_csv(&self) -> String {
        let mut names = [
            "plan",
            "model",
            "parameters",
            "calibration",
            "windows",
            "window",
            "units",
            "block_types",
            "strategy",
            "approximate",
            "steps",
            "blocks_removed",
            "ratio_removed",
            "dense_perplexity",
            "perplexity",
            "seconds",
            "evaluation_text",
            "evaluation_dense_perplexity",
            "evaluation_perplexity",
            "command",
        ]
        .map(String::from)
        .to_vec();
        for at in self.plans.first().map_or(&[][..], |plan| &plan.at) {
            names.extend(["step", "ratio_removed", "perplexity"].map(|what| format!("{what}_at_{}", at.ratio)));
        }
        let mut csv = csv::Writer::from_writer(Vec::new());
        // Rows of one length into memory: there is nothing that could fail.
        let _ = csv.write_record(&names);
        for plan in &self.plans {
            let _ = csv.write_record(plan.csv());
        }
        csv.into_inner().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl ComparedPlan {
    fn of(run: &Run, ratios: &[f64]) -> Self {
        let plan = &run.plan;
        let (ratio_removed, perplexity) = run.end();
        Self {
            name: run.name.clone(),
            model: plan.model.name.clone(),
            parameters: plan.model.parameters,
            calibration: plan.calibration.source.clone(),
            windows: plan.calibration.windows,
            window: plan.calibration.window,
            units: plan.settings.units,
            block_types: plan.settings.block_types.to_string(),
            strategy: plan.settings.strategy.clone(),
            approximate: plan.settings.approximate,
            steps: plan.steps.len(),
            blocks_removed: run.removed().len(),
            ratio_removed,
            dense_perplexity: plan.dense.perplexity,
            perplexity,
            seconds: run.seconds(),
            held_out: plan.held_out.clone(),
            command: plan.command.clone(),
            at: ratios.iter().map(|&ratio| AtRatio { ratio, found: found(run, ratio) }).collect(),
        }
    }

    fn csv(&self) -> Vec<String> {
        let mut cells = vec![
            self.name.clone(),
            self.model.clone(),
            self.parameters.to_string(),
            self.calibration.clone(),
            self.windows.to_string(),
            self.window.to_string(),
            self.units.to_string(),
            self.block_types.clone(),
            self.strategy.clone(),
            self.approximate.to_string(),
            self.steps.to_string(),
            self.blocks_removed.to_string(),
            number(self.ratio_removed),
            number(self.dense_perplexity),
            number(self.perplexity),
            number(self.seconds),
        ];
        cells.extend(match &self.held_out {
            Some(found) => [found.text.clone(), number(found.dense_perplexity), number(found.perplexity)],
            None => Default::default(),
        });
        cells.push(self.command.clone().unwrap_or_default());
        for AtRatio { found, .. } in &self.at {
            cells.extend(match found {
                Some(found) => [found.step.to_string(), number(found.ratio_removed), number(found.perplexity)],
                None => Default::default(),
            });
        }
        cells
    }
}

fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}

impl AtRatio {
    fn words(&self) -> String {
        match self.found {
            None => "\u{2013}".into(),
            Some(FoundStep { step, ratio_removed, perplexity: value }) => {
                format!("{} (step {step}, {})", perplexity(value), percent(ratio_removed))
            }
        }
    }
}

/// A share that was asked for, as it was.
fn ratio(share: f64) -> String {
    format!("{} %", (share * 1e6).round() / 1e4)
}

/// The last step that removes no more than a share, unless the plan ends further from that than its largest step.
fn found(run: &Run, ratio: f64) -> Option<FoundStep> {
    let points = run.points();
    let largest = points.windows(2).map(|two| two[1].0 - two[0].0).fold(0.0, f64::max);
    let (step, (ratio_removed, perplexity)) =
        points.iter().copied().enumerate().rfind(|(_, (removed, _))| *removed <= ratio)?;
    let goes_on = step + 1 < points.len();
    (goes_on || ratio - ratio_removed <= largest).then_some(FoundStep { step, ratio_removed, perplexity })
}

fn common(runs: &[Run], ratios: &[f64]) -> Vec<CommonBlocks> {
    let mut common = Vec::new();
    for (one, first) in runs.iter().enumerate() {
        for (other, second) in runs.iter().enumerate().skip(one + 1) {
            let at = ratios
                .iter()
                .filter_map(|&ratio| Some((Some(ratio), found(first, ratio)?.step, found(second, ratio)?.step)));
            let ends = (None, first.plan.steps.len(), second.plan.steps.len());
            for (ratio, first_steps, second_steps) in at.chain([ends]) {
                let (removed, others) = (first.removed_after(first_steps), second.removed_after(second_steps));
                let any = removed.union(&others).len();
                let both = removed.iter().filter(|block| others.contains(*block)).count();
                let jaccard = if any == 0 { 1.0 } else { both as f64 / any as f64 };
                common.push(CommonBlocks { plans: [one, other], ratio, both, any, jaccard });
            }
        }
    }
    common
}

/// What makes figures of different plans different in kind.
fn warnings(runs: &[Run]) -> Vec<String> {
    let mut warnings = Vec::new();
    // Among the runs that have it.
    let mut differs = |what: &dyn Fn(&Run) -> Option<String>, sentence: &str| {
        let mut having = runs.iter().filter_map(|run| Some((run, what(run)?)));
        let Some((first, usual)) = having.next() else { return };
        let different: Vec<_> = having.filter(|(_, other)| *other != usual).map(|(run, _)| run.name.as_str()).collect();
        if !different.is_empty() {
            warnings.push(format!("{sentence} ({} against {})", different.join(", "), first.name));
        }
    };
    let model = |run: &Run| {
        let model = &run.plan.model;
        Some(format!("{} {} {} {}", model.family, model.layers, model.parameters, run.plan.fingerprint.weights))
    };
    differs(&model, "the plans are of different models: their perplexities and blocks are not comparable");
    let text = |run: &Run| {
        let text = &run.plan.calibration;
        Some(format!("{} {} {} {}", text.source, text.windows, text.window, run.plan.fingerprint.token_ids))
    };
    differs(&text, "the plans were made on different texts: perplexities on different texts are not comparable");
    let held_out = |run: &Run| {
        run.plan.held_out.as_ref().map(|found| format!("{} {} {}", found.text, found.windows, found.window))
    };
    differs(&held_out, "the held-out texts differ: perplexities on different texts are not comparable");
    let unfinished =
        runs.iter().filter(|run| run.unfinished().is_some()).map(|run| run.name.as_str()).collect::<Vec<_>>();
    if !unfinished.is_empty() {
        let names = unfinished.join(", ");
        warnings.push(format!(
            "{} not finished: {names}",
            count(unfinished.len(), "plan") + if unfinished.len() == 1 { " is" } else { " are" }
        ));
    }
    warnings
}
