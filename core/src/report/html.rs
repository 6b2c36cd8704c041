//! The report as one HTML file that needs nothing beside it. What is text is escaped by the template.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::numbers::{count, increase, percent, perplexity};
use super::table::Table;
use super::{Comparison, RATIOS, Report, Run, cost, curve, evaluated, map, steps};
use crate::export::HeldOut;

/// Whatever a name in a plan is made to look like: nothing is loaded, and nothing runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
const STYLE: &str = include_str!("style.css");

/// The whole document.
pub(super) fn document(report: &Report) -> Markup {
    let Report { runs, .. } = report;
    let title = match runs.as_slice() {
        [run] => format!("{} without {}", run.plan.model.name, count(run.removed().len(), "block")),
        runs => format!("{} compared", count(runs.len(), "pruning")),
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                @for run in runs { (headline(run, runs.len())) }
                h2 { "Perplexity and size" }
                (curve::curve(runs))
                @if runs.len() > 1 { (comparison(runs)) }
                (evaluated::sections(&report.evaluations))
                @for run in runs { (sections(run, runs.len())) }
                p class="by" {
                    "By BlockPruner on WebGPU " (env!("CARGO_PKG_VERSION")) ". The method is BlockPruner (Zhong et al., Findings of ACL 2025)."
                }
            }
        }
    }
}

/// What came of a run, in a sentence.
fn headline(run: &Run, of: usize) -> Markup {
    let plan = &run.plan;
    let ((ratio, pruned), dense) = (run.end(), plan.dense.perplexity);
    html! {
        p class="lead" {
            @if of > 1 { b { (run.name) } ": " }
            "Without " (run.removed().len()) " of " (count(run.blocks(), "block")) ", " (plan.model.name) " is " b { (percent(ratio)) " smaller" }
            ", and its perplexity on " (plan.calibration.source) " goes from " b { (perplexity(dense)) } " to " b { (perplexity(pruned)) }
            @if let Some(increase) = increase(dense, pruned) { " (" (increase) ")" } "."
            @if plan.settings.approximate { " The strategy " (plan.settings.strategy) " may choose other blocks than the published search." }
        }
        @if let Some(held_out) = &plan.held_out { (held_out_words(held_out, run, of)) }
        @if let Some(unfinished) = run.unfinished() { p class="warning" { (unfinished) } }
    }
}

fn held_out_words(held_out: &HeldOut, run: &Run, of: usize) -> Markup {
    let HeldOut { text, tokens, dense_perplexity: dense, perplexity: pruned, .. } = held_out;
    let is_seen = run.plan.calibration.source == *text;
    html! {
        p class="lead" {
            @if of > 1 { b { (run.name) } ": on " } @else { "On " }
            (text) " (" (count(*tokens, "token")) "), which the search has " @if is_seen { "seen, too" } @else { "not seen" } ", from "
            b { (perplexity(*dense)) } " to " b { (perplexity(*pruned)) } @if let Some(increase) = increase(*dense, *pruned) { " (" (increase) ")" } "."
        }
    }
}

fn comparison(runs: &[Run]) -> Markup {
    let comparison = Comparison::new(runs, &RATIOS);
    html! {
        h2 { "Side by side" }
        @for warning in &comparison.warnings { p class="warning" { "Warning: " (warning) "." } }
        (table(&comparison.table()))
        h3 { "Blocks in common" }
        (table(&comparison.common_table()))
    }
}

fn table(Table { head, rows }: &Table) -> Markup {
    html! {
        div class="wide" {
            table class="compared" {
                thead { tr { @for cell in head { th class="text" { (cell) } } } }
                tbody { @for row in rows { tr { @for cell in row { td class="text" { (cell) } } } } }
            }
        }
    }
}

/// What there is to say of one run.
fn sections(run: &Run, of: usize) -> Markup {
    let of = if of > 1 { format!(" of {}", run.name) } else { String::new() };
    html! {
        h2 { "Blocks" (of) }
        (map::map(run))
        h2 { "Steps" (of) }
        (steps::overview(run))
        (steps::beyond(run))
        (cost::size(run))
        h3 { "Rankings" }
        (steps::rankings(run))
        h2 { "Cost" (of) }
        (cost::cost(run))
        h2 { "Settings" (of) }
        (cost::origin(run))
        @if let Some(command) = &run.plan.command {
            h2 { "Command" (of) }
            pre { (command) }
        }
    }
}
