//! The steps of a run: what each removed, and how its candidates ranked.

use maud::{Markup, html};

use super::Run;
use super::numbers::{brief, count, duration, grouped, increase, percent, perplexity, signed};
use super::run::{Score, ranked};
use crate::search::{Candidate, CandidateState, Step};

/// A table with one row a step.
pub(super) fn overview(run: &Run) -> Markup {
    let plan = &run.plan;
    html! {
        div class="wide" {
            table {
                thead { tr {
                    th { "step" } th class="text" { "removed" } th { "perplexity" } th { "increase" } th { "parameters left" } th { "removed" }
                    th class="text" { "next best" } th { "by" } th { "time" }
                } }
                tbody {
                    tr {
                        td { "0" } td class="text" { "\u{2013}" } td { (perplexity(plan.dense.perplexity)) } td {}
                        td { (grouped(plan.model.parameters)) } td { (percent(0.0)) } td {} td {} td {}
                    }
                    @for step in &plan.steps {
                        @let next = next_best(step);
                        tr {
                            td { (step.step) } td class="text" { (step.removed) } td { (perplexity(step.perplexity)) }
                            td { (increase(plan.dense.perplexity, step.perplexity).unwrap_or_default()) }
                            td { (grouped(step.params_left)) } td { (percent(step.ratio_removed)) }
                            td class="text" { @if let Some((candidate, _)) = next { (candidate.unit) } }
                            td { @if let Some((_, distance)) = next { (distance_in_words(distance)) } }
                            td { (duration(step.seconds)) }
                        }
                    }
                }
            }
        }
    }
}

/// The step that the target did not allow any more, in a sentence.
pub(super) fn beyond(run: &Run) -> Markup {
    html! {
        @if let Some(step) = &run.plan.beyond {
            p class="note" {
                "The next step would remove " (step.removed) ", and go beyond the target: perplexity " (perplexity(step.perplexity)) "."
            }
        }
    }
}

/// The second of the ranking, and how far it lies behind.
fn next_best(step: &Step) -> Option<(&Candidate, Score)> {
    let best = best(step)?;
    let next = ranked(step).into_iter().find(|candidate| candidate.unit != step.removed)?;
    Some((next, behind(Score::of(next), best)))
}

/// What the removed one has.
fn best(step: &Step) -> Option<f64> {
    let removed = step.candidates.iter().find(|candidate| candidate.unit == step.removed)?;
    Score::of(removed).number()
}

fn behind(score: Score, best: f64) -> Score {
    match score {
        Score::Exact(value) => Score::Exact(value - best),
        Score::AtLeast(bound) => Score::AtLeast(bound - best),
        Score::Unknown => Score::Unknown,
    }
}

fn distance_in_words(score: Score) -> String {
    match score {
        Score::Exact(value) => signed(value),
        Score::AtLeast(bound) => format!("\u{2265} {}", signed(bound)),
        Score::Unknown => String::new(),
    }
}

/// The rankings, one folded away behind a line for each step.
pub(super) fn rankings(run: &Run) -> Markup {
    html! { @for step in &run.plan.steps { (ranking(run, step)) } }
}

fn ranking(run: &Run, step: &Step) -> Markup {
    let best = best(step);
    html! {
        details {
            summary {
                "Step " (step.step) ": " b { (step.removed) } " of " (count(step.candidates.len(), "candidate"))
                ", perplexity " (brief(step.perplexity))
                @if let Some((next, distance)) = next_best(step) { "; next " (next.unit) ", " (distance_in_words(distance)) }
            }
            div class="wide" {
                table {
                    thead { tr { th { "rank" } th class="text" { "candidate" } th { (run.plan.settings.objective) } th { "behind" } th class="text" { "why no more" } } }
                    tbody {
                        @for (index, candidate) in ranked(step).into_iter().enumerate() {
                            tr class=[(candidate.unit == step.removed).then_some("gone")] {
                                td { (index + 1) }
                                td class="text" { (candidate.unit) }
                                td { (score_in_words(Score::of(candidate))) }
                                td { @if let Some(best) = best { (distance_in_words(behind(Score::of(candidate), best))) } }
                                td class="text why" { (why(candidate)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn score_in_words(score: Score) -> String {
    match score {
        Score::Exact(value) => perplexity(value),
        Score::AtLeast(bound) => format!("\u{2265} {}", perplexity(bound)),
        Score::Unknown => "\u{2013}".into(),
    }
}

/// Why a candidate has no complete score.
fn why(candidate: &Candidate) -> String {
    let state = match candidate.state {
        CandidateState::Complete => return String::new(),
        CandidateState::Bounded => "bounded",
        CandidateState::Raced => "raced",
        CandidateState::Rejected => "rejected",
    };
    candidate.reason.as_ref().map_or(state.into(), |reason| format!("{state}: {reason}"))
}
