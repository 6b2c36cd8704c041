//! What people see: what is told and bars on stderr, tables and JSON on stdout.

use std::io::{IsTerminal, Write};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use blockpruner::bench::SearchCount;
use blockpruner::export::ModelSummary;
use blockpruner::model::{BlockKind, KvCache};
pub use blockpruner::report::{bytes, grouped, perplexity as short};
use blockpruner::search::{MemoryPlan, Step};
use clap::{Args, ValueEnum};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::event::Event;

/// How much is told, and to whom.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Show only errors and the result
    #[arg(long, global = true, conflicts_with_all = ["verbose", "progress"])]
    quiet: bool,
    /// Show also memory, kernels, and what the search did without
    #[arg(long, global = true)]
    verbose: bool,
    /// Tell progress to a program: one JSON object a line on stderr for every event
    #[arg(long, global = true, value_name = "FORMAT")]
    progress: Option<ProgressFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProgressFormat {
    Jsonl,
}

static OUTPUT: OnceLock<OutputArgs> = OnceLock::new();

/// All bars, so that a line never comes between them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(|| match output() {
    OutputArgs { quiet: false, progress: None, .. } => MultiProgress::new(),
    _ => MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
});

/// Decides how much is told from here on.
pub fn set_output(output: OutputArgs) {
    OUTPUT.get_or_init(|| output);
}

fn output() -> OutputArgs {
    OUTPUT.get().copied().unwrap_or_default()
}

/// Whether details are wanted.
pub fn is_verbose() -> bool {
    output().verbose
}

/// Tells an event on stderr as the options want it.
pub fn tell(event: &Event<'_>) {
    let OutputArgs { quiet, verbose, progress } = output();
    if progress == Some(ProgressFormat::Jsonl) {
        // What cannot be written has no reader.
        if let Ok(line) = serde_json::to_string(event) {
            let _ = writeln!(std::io::stderr().lock(), "{}", printable_json(&line));
        }
        return;
    }
    if quiet && !matches!(event, Event::Error { .. }) {
        return;
    }
    if let Some(words) = event.words(verbose) {
        let terminal = console::Term::stderr();
        let columns = if terminal.is_term() { terminal.size().1.into() } else { usize::MAX };
        let words = wrapped(&printable(&words), columns);
        BARS.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{words}");
        });
    }
}

/// Ends the line in which a terminal has shown `^C`.
pub fn end_line() {
    if output().progress.is_none() && console::Term::stderr().is_term() {
        eprintln!();
    }
}

/// Tells a note about the input.
pub fn note(text: impl Into<String>) {
    tell(&Event::Note { text: text.into() });
}

/// Tells what should be done otherwise.
pub fn warn(text: impl Into<String>) {
    tell(&Event::Warning { text: text.into() });
}

/// Tells anything else.
pub fn message(text: impl Into<String>) {
    tell(&Event::Message { text: text.into() });
}

/// The text in lines of at most so many columns, broken at spaces; a longer word keeps its line. All lines but the first are
/// indented: a name with a line feed in it begins no message.
fn wrapped(text: &str, columns: usize) -> String {
    const INDENT: &str = "  ";
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let mut shown = String::from(if lines.is_empty() { "" } else { INDENT });
        let mut width = shown.len();
        for word in line.split_inclusive(' ') {
            let length = console::measure_text_width(word.trim_end());
            if width > INDENT.len() && width + length > columns {
                lines.push(std::mem::replace(&mut shown, INDENT.into()));
                width = INDENT.len();
            }
            shown.push_str(word);
            width += console::measure_text_width(word);
        }
        lines.push(shown);
    }
    let trimmed: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
    trimmed.join("\n")
}

/// The text with control characters escaped, line feeds and tabs aside: names and messages come from files, which could
/// command the terminal otherwise, or turn the direction of what follows.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            _ if commands(c) => shown.extend(c.escape_default()),
            _ => shown.push(c),
        }
    }
    shown
}

/// The same JSON, printable: what may stand in its strings as it is, but commands a terminal, is escaped.
fn printable_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // Between values; within strings it is escaped already.
            '\n' => shown.push(c),
            _ if commands(c) => shown += &format!("\\u{:04x}", u32::from(c)),
            _ => shown.push(c),
        }
    }
    shown
}

/// Whether a terminal does not show this, but does something, or turns the direction of what follows.
fn commands(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Something under way, on stderr: a bar or a spinner where that is a terminal; gone with the value.
pub struct Stage {
    what: &'static str,
    bar: ProgressBar,
    start: Instant,
    percent: u64,
}

impl Stage {
    /// Nothing is under way.
    pub fn none() -> Self {
        Self { what: "", bar: ProgressBar::hidden(), start: Instant::now(), percent: 0 }
    }

    /// Something whose length nobody knows.
    pub fn spinner(what: &'static str) -> Self {
        tell(&Event::Stage { what, done: 0, total: None });
        let bar = BARS.add(ProgressBar::new_spinner().with_message(what));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { what, bar, ..Self::none() }
    }

    /// So much of something that is counted is done.
    pub fn transfer(&mut self, what: &'static str, done: u64, total: u64) {
        let begins = self.what != what;
        if begins {
            // What it replaces is cleared before.
            *self = Self::none();
            *self = Self { what, bar: bar("{prefix} {bar:32} {percent}%{msg}", total), ..Self::none() };
            self.bar.set_prefix(what);
        }
        let percent = done * 100 / total.max(1);
        if begins || percent != self.percent {
            self.percent = percent;
            tell(&Event::Stage { what, done, total: Some(total) });
            let left = seconds_left(self.start.elapsed(), done as f64 / total.max(1) as f64);
            self.bar.set_message(left.map_or(String::new(), |left| format!(", {} left", duration(left))));
        }
        self.bar.set_position(done);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        BARS.remove(&self.bar);
    }
}

/// The time that the rest takes if it takes as long as what is done, a share of the whole; None while that says nothing.
pub fn seconds_left(elapsed: Duration, done: f64) -> Option<f64> {
    (done > 0.0).then(|| elapsed.as_secs_f64() * (1.0 - done).max(0.0) / done)
}

/// A bar of so many units; nothing where stderr is no terminal.
pub fn bar(template: &str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    BARS.add(ProgressBar::new(length).with_style(style.progress_chars("=> ")))
}

/// One JSON object on stdout.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    put(&format!("{}\n", printable_json(&json)))
}

/// Text on stdout, [`printable`].
pub fn print_text(text: &str) -> anyhow::Result<()> {
    put(&printable(text))
}

/// Text on stdout for whoever keeps it, as it is; [`printable`] on a terminal.
pub fn write(text: &str) -> anyhow::Result<()> {
    if std::io::stdout().is_terminal() { print_text(text) } else { put(text) }
}

/// That the reader went away is no error of ours.
fn put(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to stdout"),
    }
}

/// Tells what of the input is not in a written model.
pub fn notes(written: &ModelSummary) {
    written.notes.iter().for_each(note);
}

/// The steps of a search as a table.
pub fn steps_table(dense: f64, parameters: u64, steps: &[Step]) -> String {
    // Pairs have longer names.
    let width = steps.iter().map(|step| step.removed.to_string().len() + 1).max().unwrap_or(0).max(8);
    let mut table =
        format!("{:>4}  {:<width$}{:>12}{:>18}{:>10}\n", "step", "removed", "perplexity", "parameters left", "removed");
    table += &format!("{:>4}  {:<width$}{:>12}{:>18}{:>10}\n", 0, "-", short(dense), grouped(parameters), "0.0 %");
    for step in steps {
        let share = format!("{:.1} %", step.ratio_removed * 100.0);
        let (perplexity, left) = (short(step.perplexity), grouped(step.params_left));
        let unit = step.removed.to_string();
        table += &format!("{:>4}  {unit:<width$}{perplexity:>12}{left:>18}{share:>10}\n", step.step);
    }
    table
}

/// What a search did of the published loop's work, and why it did not do the rest.
pub fn work_lines(count: &SearchCount) -> String {
    let mut text = String::new();
    for (reason, dropped) in &count.dropped {
        let (candidates, saved) = (dropped.candidates, 100.0 * dropped.head_share_saved);
        text += &format!("dropped {candidates}, which saved {saved:.1} % of the head work: {reason}\n");
    }
    text += &format!(
        "of the published loop's {} passes: {:.2} of the block work, {:.2} of the head work, {:.2} of the arithmetic\n",
        count.candidates, count.block_share, count.head_share, count.arithmetic_share
    );
    text
}

/// That a result is approximate, if it was found by a strategy that is.
pub fn approximate_line(strategy: Option<&String>, count: &SearchCount) -> String {
    let Some(strategy) = strategy else { return String::new() };
    let (scored, all) = (grouped(count.work.head_tokens), grouped(count.exhaustive.head_tokens));
    format!(
        "approximate ({strategy}): {scored} of {all} tokens were scored, so the blocks may differ from those of the exact search\n"
    )
}

/// The size of a model before and after.
pub fn size_line(read: u64, written: u64) -> String {
    format!("size: {} -> {}\n", bytes(read), bytes(written))
}

/// The KV cache of a model before and after.
pub fn cache_line(read: &KvCache, written: &KvCache) -> String {
    let (a_token, whole) = (bytes(read.bytes_per_token), bytes(read.bytes));
    let (left, less) = (bytes(written.bytes_per_token), bytes(written.bytes));
    let context = grouped(read.context as u64);
    format!("KV cache (f16): {a_token} -> {left} a token, {whole} -> {less} at {context} tokens\n")
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
        assert_eq!([0.2, 61.0, 7200.0].map(duration), ["1 s", "2 min", "2.0 h"]);
    }

    #[test]
    fn what_would_command_a_terminal_is_escaped() {
        let name = "a\u{1b}[2J\r\u{7f}\u{9b}1m\u{202e}\u{2066}\n\tb \u{e9}\u{1f600}";
        assert_eq!(printable(name), "a\\u{1b}[2J\\r\\u{7f}\\u{9b}1m\\u{202e}\\u{2066}\n\tb \u{e9}\u{1f600}");
        let json = serde_json::json!({ "name": name });
        let shown = printable_json(&format!("{json:#}"));
        let expected = "{\n  \"name\": \"a\\u001b[2J\\r\\u007f\\u009b1m\\u202e\\u2066\\n\\tb \u{e9}\u{1f600}\"\n}";
        assert_eq!(shown, expected);
        assert_eq!(serde_json::from_str(&shown).ok(), Some(json));
    }

    #[test]
    fn lines_break_between_words() {
        let text = "model: tiny (llama, 12 layers)\nnext";
        assert_eq!(wrapped(text, usize::MAX), "model: tiny (llama, 12 layers)\n  next");
        assert_eq!(wrapped(text, 14), "model: tiny\n  (llama, 12\n  layers)\n  next");
        // A word that is too long keeps its line.
        assert_eq!(wrapped("a-long-name of it", 6), "a-long-name\n  of\n  it");
        assert!(wrapped("one two three four five", 11).lines().all(|line| line.len() <= 11));
    }

    #[test]
    fn time_is_left_only_where_something_is_done() {
        assert_eq!(seconds_left(Duration::from_secs(3), 0.0), None);
        assert_eq!(seconds_left(Duration::from_secs(3), 0.25), Some(9.0));
        assert_eq!(seconds_left(Duration::from_secs(3), 1.0), Some(0.0));
    }
}
