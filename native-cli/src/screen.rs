//! What people see: progress on stderr, tables and JSON on stdout.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use blockpruner::bench::SearchCount;
use blockpruner::export::HfSummary;
use blockpruner::model::BlockKind;
use blockpruner::search::{MemoryPlan, Step};
use blockpruner::session::Search;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Prints a line on stderr as [`printable`], formatted as by `format!`.
macro_rules! say {
    ($($text:tt)*) => {
        eprintln!("{}", $crate::screen::printable(&format!($($text)*)))
    };
}
pub(crate) use say;

/// The text with control characters escaped, line feeds and tabs aside: names and messages come from files, which could
/// command the terminal otherwise, or turn the direction of what follows.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c {
            '\n' | '\t' => shown.push(c),
            _ if c.is_control() || turns => shown.extend(c.escape_default()),
            _ => shown.push(c),
        }
    }
    shown
}

/// A bar for something counted in bytes or parameters; nothing where stderr is no terminal.
pub fn transfer_bar(what: &'static str) -> ProgressBar {
    bar(0, what, "{msg} {bar:32} {percent}% ({eta} left)")
}

/// Says that something is under way whose length nobody knows; nothing where stderr is no terminal.
pub fn spinner(what: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// Parts of a search that [`search_bar`] counts in.
const SEARCH_PARTS: u64 = 10_000;

/// The bar of a search; [`show_cost`] moves it.
pub fn search_bar() -> ProgressBar {
    bar(SEARCH_PARTS, "searching", "{msg} {bar:32} {percent}%{prefix}")
}

/// Shows how much of a search is done, and how long the rest takes, where that is known.
pub fn show_cost(bar: &ProgressBar, search: &Search) {
    let Some(cost) = search.cost() else { return };
    bar.set_position((cost.done() * SEARCH_PARTS as f64) as u64);
    if let Some(seconds) = cost.seconds_left() {
        bar.set_prefix(format!(", {} left", duration(seconds)));
    }
}

fn bar(length: u64, what: &'static str, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.progress_chars("=> ")).with_message(what)
}

/// One JSON object on stdout.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    write(&format!("{}\n", serde_json::to_string_pretty(value).context("cannot write JSON")?))
}

/// Text on stdout, [`printable`].
pub fn print_text(text: &str) -> anyhow::Result<()> {
    write(&printable(text))
}

/// Text on stdout as it is, for whoever asked for it. That the reader went away is no error of ours.
pub fn write(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to stdout"),
    }
}

/// Says what of the input is not in a written model.
pub fn notes(written: &HfSummary) {
    for tensor in &written.left_out {
        say!("note: {tensor} is not part of the architecture and was left out");
    }
    for key in &written.foreign_code {
        say!("note: {key} names a program that comes with the input, and was left out");
    }
}

/// The steps of a search as a table.
pub fn steps_table(dense: f64, parameters: u64, steps: &[Step]) -> String {
    let mut table =
        format!("{:>4}  {:<8}{:>12}{:>18}{:>10}\n", "step", "removed", "perplexity", "parameters left", "removed");
    table += &format!("{:>4}  {:<8}{:>12}{:>18}{:>10}\n", 0, "-", short(dense), grouped(parameters), "0.0 %");
    for step in steps {
        let share = format!("{:.1} %", step.ratio_removed * 100.0);
        let (perplexity, left) = (short(step.perplexity), grouped(step.params_left));
        let block = step.removed.to_string();
        table += &format!("{:>4}  {block:<8}{perplexity:>12}{left:>18}{share:>10}\n", step.step);
    }
    table
}

/// What a search did of the published loop's work, and why it did not do the rest.
pub fn work_lines(approximate: bool, count: &SearchCount) -> String {
    let mut text = String::new();
    for (reason, dropped) in &count.dropped {
        let (candidates, saved) = (dropped.candidates, 100.0 * dropped.head_share_saved);
        text += &format!("dropped {candidates}, which saved {saved:.1} % of the head work: {reason}\n");
    }
    text += &format!(
        "of the published loop's {} passes: {:.2} of the block work, {:.2} of the head work, {:.2} of the arithmetic\n",
        count.candidates, count.block_share, count.head_share, count.arithmetic_share
    );
    if approximate {
        let (scored, all) = (grouped(count.work.head_tokens), grouped(count.exhaustive.head_tokens));
        text += &format!(
            "approximate: {scored} of {all} tokens were scored, so the blocks may differ from those of the exact search\n"
        );
    }
    text
}

/// A perplexity for people.
pub fn short(value: f64) -> String {
    if value < 1e6 { format!("{value:.4}") } else { format!("{value:.4e}") }
}

/// `1234567` as `1,234,567`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes for people.
pub fn bytes(value: u64) -> String {
    match value {
        0..1024 => format!("{value} B"),
        1024..1_048_576 => format!("{:.1} KiB", value as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", value as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", value as f64 / 1_073_741_824.0),
    }
}

/// A plan of device memory, for people.
pub fn memory(plan: &MemoryPlan) -> String {
    let how = if plan.streamed { ", streamed from the file" } else { "" };
    let mut text = format!("{} (weights {}{how}", bytes(plan.total()), bytes(plan.weights));
    if plan.states > 0 {
        text += &format!(", hidden states {}, up to {} candidates together", bytes(plan.states), plan.wave);
    }
    if plan.needs.likely_head && !plan.likely_head {
        text += ", no room to drop candidates by their likely tokens";
    }
    text + &format!(", scratch {})", bytes(plan.scratch))
}

/// A duration for people.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{} s", s.ceil()),
        s if s < 5400.0 => format!("{} min", (s / 60.0).ceil()),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// What a kind of block is, in words.
pub fn kind_in_words(kind: BlockKind) -> &'static str {
    match kind {
        BlockKind::Mha => "attention",
        BlockKind::Mlp => "feed-forward",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([1023, 1536, 5 << 20, 3 << 30].map(bytes), ["1023 B", "1.5 KiB", "5.0 MiB", "3.00 GiB"]);
        assert_eq!([0.2, 61.0, 7200.0].map(duration), ["1 s", "2 min", "2.0 h"]);
        assert_eq!([12.34567, 1e9].map(short), ["12.3457", "1.0000e9"]);
    }
}
