//! Evaluations of a report: the tasks beside each other, and how the models go on from prompts.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::numbers::{count, percent, perplexity};
use crate::eval::{Difference, Evaluation, Generation, PromptGeneration, Task, TaskDifference, TaskResult};

/// What was evaluated, in a few words.
fn name(Evaluation { removed, plan, .. }: &Evaluation) -> String {
    let step = plan.as_ref().map_or(String::new(), |plan| format!(" (step {})", plan.step));
    if removed.is_empty() { "whole model".into() } else { format!("without {}{step}", count(removed.len(), "block")) }
}

/// All that evaluations say.
pub(super) fn sections(evaluations: &[Evaluation]) -> Markup {
    // The whole model first: the others are judged by it.
    let (whole, pruned): (Vec<_>, Vec<_>) = evaluations.iter().partition(|one| one.removed.is_empty());
    let all: Vec<&Evaluation> = whole.into_iter().chain(pruned).collect();
    html! {
        @let asked: Vec<&Evaluation> = all.iter().copied().filter(|one| !one.tasks.is_empty()).collect();
        @if !asked.is_empty() {
            h2 { "Tasks" }
            (tasks(&asked))
        }
        @for one in &all { @if let Some(generation) = &one.generation { (samples(one, generation)) } }
    }
}

/// A row for each figure of each task, a column for each evaluation, and one for its difference where it has that.
fn tasks(all: &[&Evaluation]) -> Markup {
    let names: BTreeSet<Task> = all.iter().flat_map(|one| one.tasks.keys().copied()).collect();
    let rows: Vec<(Task, Figure)> =
        names.into_iter().flat_map(|task| Figure::ALL.map(|figure| (task, figure))).collect();
    let is_there = |(task, figure): &(Task, Figure)| all.iter().any(|one| figure.of(one, *task).is_some());
    let compares = |one: &Evaluation| !one.differences.is_empty();
    html! {
        div class="wide" {
            table {
                thead { tr {
                    th class="text" { "task" } th class="text" { "figure" } th { "items" }
                    @for one in all {
                        th { (name(one)) }
                        @if compares(one) { th { "difference" } }
                    }
                } }
                tbody {
                    @for (task, figure) in rows.into_iter().filter(is_there) {
                        tr {
                            td class="text" { (task) } td class="text" { (figure.name()) } td { (items(all, task)) }
                            @for one in all {
                                td { (figure.of(one, task).unwrap_or_default()) }
                                @if compares(one) { td { (figure.difference(one, task).unwrap_or_default()) } }
                            }
                        }
                    }
                    @if all.iter().any(|one| one.mean.is_some()) {
                        tr class="gone" {
                            td class="text" { "mean" } td {} td {}
                            @for one in all {
                                td { (one.mean.map(|mean| format!("{mean:.4}")).unwrap_or_default()) }
                                @if compares(one) { td {} }
                            }
                        }
                    }
                }
            }
        }
        p class="note" {
            "Shares from 0 to 1, \u{b1} standard error."
            @if all.iter().any(|one| compares(one)) {
                " A difference is that of the same items to the evaluation it was compared with, positive where this one is better, "
                "\u{b1} its paired standard error."
            }
        }
    }
}

/// How many items a task had; all numbers where evaluations differ in that.
fn items(all: &[&Evaluation], task: Task) -> String {
    let items: BTreeSet<usize> = all.iter().filter_map(|one| Some(one.tasks.get(&task)?.items)).collect();
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What tasks are measured by.
#[derive(Clone, Copy)]
enum Figure {
    Accuracy,
    Normalised,
    Perplexity,
}

impl Figure {
    const ALL: [Self; 3] = [Self::Accuracy, Self::Normalised, Self::Perplexity];

    fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "acc",
            Self::Normalised => "acc_norm",
            Self::Perplexity => "perplexity",
        }
    }

    fn of(self, one: &Evaluation, task: Task) -> Option<String> {
        let TaskResult { acc, acc_stderr, acc_norm, acc_norm_stderr, perplexity: value, perplexity_stderr, .. } =
            one.tasks.get(&task)?;
        let (value, error) = match self {
            Self::Accuracy => (Some(*acc), acc_stderr),
            Self::Normalised => (*acc_norm, acc_norm_stderr),
            Self::Perplexity => return Some(perplexity((*value)?) + &plus_minus(*perplexity_stderr)),
        };
        Some(format!("{:.4}{}", value?, plus_minus(*error)))
    }

    fn difference(self, one: &Evaluation, task: Task) -> Option<String> {
        let TaskDifference { acc, acc_norm, .. } = one.differences.get(&task)?;
        let Difference { difference, stderr } = match self {
            Self::Accuracy => Some(*acc),
            Self::Normalised => *acc_norm,
            Self::Perplexity => None,
        }?;
        Some(format!("{difference:+.4}{}", plus_minus(stderr)))
    }
}

fn plus_minus(error: Option<f64>) -> String {
    error.map_or(String::new(), |error| format!(" \u{b1} {error:.4}"))
}

/// What both wrote, beside each other.
fn samples(one: &Evaluation, generation: &Generation) -> Markup {
    let Generation { prompts, agreement, repetition_dense, repetition_pruned, .. } = generation;
    let shares = [
        (agreement, "of the tokens agree"),
        (repetition_dense, "of the whole model's 4-grams are repeated"),
        (repetition_pruned, "of the pruned one's"),
    ];
    let shares = shares.map(|(share, what)| format!("{} {what}", percent(*share)));
    html! {
        h2 { "What it writes, " (name(one)) }
        p { (shares.join(", ")) "." }
        @for PromptGeneration { prompt, dense, pruned, .. } in prompts {
            h3 { (prompt) }
            div class="samples" {
                div { b { "Whole model: " } (dense) }
                div { b { "Pruned: " } (pruned) }
            }
        }
    }
}
