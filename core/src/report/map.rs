//! The map of layers: attention above feed-forward, with the scores of the first step and the order of removal.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::Run;
use super::numbers::{brief, perplexity};
use super::run::Score;
use crate::model::{BlockId, BlockKind};
use crate::search::{Candidate, Unit};

/// What a cell says of its block.
#[derive(Default)]
struct Cell {
    absent: bool,
    /// In which step it went, from 1.
    removed: Option<usize>,
    /// By the first step: of the better one where it is in two pairs.
    scored: Option<(Score, Unit, Option<String>)>,
}

/// Of so many scores the scale of colours takes in all, unless the rest lies more than as far beyond them again: a few blocks
/// without which nothing works must not make all others look alike.
const WITHIN: f64 = 0.9;

/// From where to where colours go, in logarithms.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of(cells: &BTreeMap<BlockId, Cell>) -> Self {
        let mut all: Vec<f64> = cells.values().filter_map(|cell| logarithm(cell.scored.as_ref()?.0)).collect();
        all.sort_by(f64::total_cmp);
        let (low, most) = (all.first().copied().unwrap_or(0.0), all.last().copied().unwrap_or(0.0));
        let usual = (all.len() as f64 * WITHIN).ceil() as usize;
        let usual = all.get(usual.saturating_sub(1)).copied().unwrap_or(low);
        let high = if most - low > 2.0 * (usual - low) { usual } else { most };
        Self { low, high: high.max(low + 1e-3) }
    }

    /// In percent of the scale.
    fn place(&self, score: Score) -> Option<f64> {
        Some((100.0 * (logarithm(score)? - self.low) / (self.high - self.low)).clamp(0.0, 100.0))
    }
}

/// Scores span orders of magnitude, so colours follow their logarithms.
fn logarithm(score: Score) -> Option<f64> {
    score.number().filter(|value| *value > 0.0).map(f64::ln)
}

/// The map of a run.
pub(super) fn map(run: &Run) -> Markup {
    let cells = cells(run);
    if cells.is_empty() {
        return html! { p { "No step was finished: no block has a score." } };
    }
    let scale = Scale::of(&cells);
    let layers: BTreeSet<usize> = cells.keys().map(|block| block.layer).collect();
    html! {
        p {
            "Each block with its " (run.plan.settings.objective) " in the first step, of the model without it: the stronger the colour, the more it is missed. "
            b class="order" { "1" } " was removed first, " b class="order" { "2" } " second. "
            "\u{2265} is a lower bound; attention (MHA) is above, feed-forward (MLP) below."
        }
        ol class="map" aria-label="Scores of the first step, and the order of removal" {
            @for layer in layers {
                li {
                    @for kind in BlockKind::ALL { (cell(&cells, &scale, BlockId { kind, layer })) }
                    small { (layer) }
                }
            }
        }
    }
}

/// What is known of each block that is mentioned: damaged files may have any number of layers.
fn cells(run: &Run) -> BTreeMap<BlockId, Cell> {
    let mut cells: BTreeMap<BlockId, Cell> = BTreeMap::new();
    for block in run.plan.model.absent.iter() {
        cells.entry(block).or_default().absent = true;
    }
    let candidates = run.plan.steps.first().map_or(&[][..], |step| &step.candidates);
    for candidate in candidates {
        for block in candidate.unit.blocks() {
            let cell = cells.entry(block).or_default();
            let known = cell.scored.as_ref().and_then(|(score, ..)| score.number());
            if is_better(Score::of(candidate).number(), known) || cell.scored.is_none() {
                cell.scored = Some((Score::of(candidate), candidate.unit, reason(candidate)));
            }
        }
    }
    for step in &run.plan.steps {
        for block in step.removed.blocks() {
            cells.entry(block).or_default().removed = Some(step.step);
        }
    }
    cells
}

fn is_better(score: Option<f64>, than: Option<f64>) -> bool {
    matches!((score, than), (Some(score), Some(than)) if score < than) || (score.is_some() && than.is_none())
}

fn reason(candidate: &Candidate) -> Option<String> {
    candidate.reason.as_ref().map(ToString::to_string)
}

fn cell(cells: &BTreeMap<BlockId, Cell>, scale: &Scale, block: BlockId) -> Markup {
    let none = Cell::default();
    let Cell { absent, removed, scored } = cells.get(&block).unwrap_or(&none);
    let (mut text, mut said, mut place) = ("\u{2013}".to_string(), format!("{block}: not a candidate"), None);
    if *absent {
        said = format!("{block}: absent before");
    }
    if let Some((score, unit, reason)) = scored {
        let without = if Unit::Block(block) == *unit { "it".to_string() } else { unit.to_string() };
        place = scale.place(*score);
        (text, said) = match score {
            Score::Exact(value) => (brief(*value), format!("{block}: {} without {without}", perplexity(*value))),
            Score::AtLeast(value) => (
                format!("\u{2265}\u{202f}{}", brief(*value)),
                format!("{block}: at least {} without {without}", perplexity(*value)),
            ),
            Score::Unknown => ("\u{d7}".into(), format!("{block}: no score")),
        };
        if let Some(reason) = reason {
            said += &format!(" ({reason})");
        }
    }
    if let Some(step) = removed {
        said += &format!(", removed in step {step}");
    }
    let class = match (absent, removed) {
        (true, _) => "cell absent",
        (_, Some(_)) => "cell gone",
        _ => "cell",
    };
    html! {
        span class=(class) title=(said) style=[place.map(|place| format!("--t:{place:.0}%"))] {
            @if let Some(step) = removed { b class="order" { (step) } }
            span { (text) }
        }
    }
}
