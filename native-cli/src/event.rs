//! What a command tells on stderr while it works: as one JSON object a line with `--progress jsonl`, else in words. A new field
//! or type may come at any time; one that is here keeps its meaning. `docs/progress.md` describes them for users.

use std::path::Path;

use blockpruner::eval::Task;
use blockpruner::export::HeldOut;
use blockpruner::gpu::DeviceInfo;
use blockpruner::model::{BlockSet, KvCache};
use blockpruner::search::{CandidateState, Objective, Target, Unit, Units};
use serde::Serialize;

use crate::screen::{bytes, duration, grouped, short};

/// Something that a program or a person wants to know while a command works. Sizes are in bytes, times in seconds.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    /// A model was opened.
    Model {
        model: &'a str,
        family: &'a str,
        layers: usize,
        blocks: usize,
        parameters: u64,
        /// Of all tensors as they are stored.
        bytes: u64,
    },
    /// A text was cut.
    Text {
        /// What it is for: `calibration`, `evaluation` or `text`.
        role: &'static str,
        source: &'a str,
        rows: usize,
        /// Of the text, as far as it was read.
        tokens: usize,
        windows: usize,
        window: usize,
        whole_text: bool,
    },
    /// A task's items were read.
    Task { task: Task, file: &'a str, items: usize },
    /// A device was opened and passed its tests.
    Device(DeviceInfo),
    /// What a search is going to do.
    Plan {
        /// When it is done.
        target: Target,
        /// Units to remove; None where that is not known beforehand.
        remove: Option<usize>,
        /// What a step removes.
        units: Units,
        /// Of the first step.
        candidates: usize,
        strategy: &'a str,
        /// What is measured of candidates.
        objective: Objective,
        /// Whether the result may differ from the published loop's.
        approximate: bool,
        /// Tokens that every candidate is scored on.
        tokens: usize,
    },
    /// How large a model is before and after.
    Size {
        bytes_read: u64,
        /// Before the blocks are chosen, the most that it can be.
        bytes_written: u64,
        at_most: bool,
    },
    /// Device memory was planned.
    Memory {
        weights: u64,
        states: u64,
        scratch: u64,
        total: u64,
        streamed: bool,
        wave: usize,
        #[serde(skip)]
        words: &'a str,
    },
    /// So much of something is done; without `total` nobody knows how long it takes.
    Stage { what: &'a str, done: u64, total: Option<u64> },
    /// So many bytes of a model's file were downloaded.
    #[cfg(feature = "hub")]
    Download { file: &'a str, done: u64, total: u64 },
    /// The unpruned model was scored.
    Dense { perplexity: f64 },
    /// What a search takes, as soon as candidates were measured.
    Cost {
        /// Of a search by perplexity, those that the published loop would run.
        passes: usize,
        /// Of each.
        tokens: usize,
        seconds_left: f64,
        /// Steps that this is for, a guess for some targets; None where nobody knows: it is for the first step then.
        steps: Option<usize>,
    },
    /// A candidate was scored, or dropped.
    Candidate {
        step: usize,
        block: Unit,
        state: CandidateState,
        value: Option<f64>,
        perplexity: Option<f64>,
        at_least: Option<f64>,
    },
    /// How far a search is.
    Progress {
        step: usize,
        /// Of the whole search, or of the step where nobody knows how many there are; 0 to 1.
        done: f64,
        tokens_per_second: Option<f64>,
        seconds_left: Option<f64>,
    },
    /// What goes was chosen.
    Step {
        step: usize,
        /// None where that is not known beforehand.
        steps: Option<usize>,
        removed: Unit,
        perplexity: f64,
        params_left: u64,
        ratio_removed: f64,
        candidates: usize,
        /// Of the candidates, scored to the end.
        complete: usize,
        approximate: bool,
        seconds: f64,
    },
    /// What would go next is beyond the target, and stays.
    Beyond { step: usize, block: Unit, perplexity: f64, most: f64 },
    /// The model was scored on a text that the search has not seen.
    Evaluation(&'a HeldOut),
    /// What was found is no ordinary model, but this one is, which is near to it.
    NearlyPlain {
        /// Goes, too.
        remove: &'a BlockSet,
        /// Stays.
        restore: &'a BlockSet,
        /// All that is gone then.
        removed: &'a BlockSet,
        /// Of the ordinary model.
        layers: usize,
        /// On the text of the search.
        perplexity: f64,
    },
    /// The written model was read back and scored.
    Check {
        perplexity: f64,
        /// What the search found for it.
        planned: f64,
        /// Whether its values were rounded to the type that they are written in.
        rounded: bool,
    },
    /// Everything is written.
    Written { out: &'a Path, bytes_read: u64, bytes_written: u64, kv_cache_read: KvCache, kv_cache_written: KvCache },
    /// A prompt was continued.
    Generated {
        prompt_tokens: usize,
        prompt_seconds: f64,
        new_tokens: usize,
        tokens_per_second: Option<f64>,
        finish_reason: &'a str,
    },
    /// Anything else worth a line.
    Message { text: String },
    /// Something of the input that one may want to know.
    Note { text: String },
    /// Something that one should do otherwise.
    Warning { text: String },
    /// It ended as was asked for.
    Stopped { text: String },
    /// It failed; nothing follows.
    Error { text: String, hint: Option<&'a str>, exit_code: u8 },
}

impl Event<'_> {
    /// The event as a line for people, or None where it is none of theirs, or only with `--verbose`.
    pub fn words(&self, verbose: bool) -> Option<String> {
        let in_detail = |text: String| verbose.then_some(text);
        match self {
            Self::Model { model, family, layers, blocks, parameters, bytes: size } => Some(format!(
                "model: {model} ({family}, {layers} layers, {blocks} blocks, {} parameters, {})",
                grouped(*parameters),
                bytes(*size)
            )),
            Self::Text { role, source, rows, tokens, windows, window, whole_text } => {
                let read = if *whole_text { "" } else { " were read" };
                let detail = format!("{rows} rows, {} tokens{read}; ", grouped(*tokens as u64));
                let detail = if verbose { detail.as_str() } else { "" };
                let role = if *role == "calibration" { "text" } else { role };
                Some(format!("{role}: {source} ({detail}{windows} windows of {window} tokens)"))
            }
            Self::Device(DeviceInfo { name, backend, driver, tier, kernel }) => Some(match verbose {
                true => format!("device: {name} ({backend}, {driver}; tier {tier}, kernel {kernel})"),
                false => format!("device: {name}"),
            }),
            Self::Plan { target, units, candidates, strategy, objective, approximate, tokens, .. } => {
                let how = match approximate {
                    true => format!(", approximately ({strategy})"),
                    false => String::new(),
                };
                let by = if *objective == Objective::Perplexity { "the loss".into() } else { objective.to_string() };
                let (tokens, what) = (grouped(*tokens as u64), until(target, *units, *candidates));
                Some(format!("plan: {what} by {by} on {tokens} tokens{how}"))
            }
            Self::Task { task, file, items } => {
                Some(format!("task: {task} ({} items of {file})", grouped(*items as u64)))
            }
            Self::Size { bytes_read, bytes_written, at_most } => {
                let most = if *at_most { "at most " } else { "" };
                Some(format!("size: {} read, {most}{} to write", bytes(*bytes_read), bytes(*bytes_written)))
            }
            // Streaming is slower, which one wants to know.
            Self::Memory { streamed, words, .. } => (verbose || *streamed).then(|| format!("memory: {words}")),
            Self::Stage { what, total: None, .. } => in_detail((*what).to_string()),
            Self::Dense { perplexity } => Some(format!("dense perplexity: {}", short(*perplexity))),
            Self::Cost { passes, tokens, seconds_left, steps } => Some(format!(
                "cost: {} candidate passes over {} tokens, about {} left{}",
                grouped(*passes as u64),
                grouped(*tokens as u64),
                duration(*seconds_left),
                if steps.is_none() { " in this step; nobody knows how many there will be" } else { "" }
            )),
            Self::Beyond { step, block, perplexity, most } => Some(format!(
                "step {step}: {block} stays, without it the perplexity is {}, beyond {}",
                short(*perplexity),
                short(*most)
            )),
            Self::Step { step, steps, removed, perplexity, seconds, candidates, complete, approximate, .. } => {
                let scored = match verbose && complete < candidates {
                    true => format!(", {complete} of {candidates} scored to the end"),
                    false => String::new(),
                };
                let approximate = if *approximate { ", approximate" } else { "" };
                let (perplexity, took) = (short(*perplexity), duration(*seconds));
                let of = steps.map_or(String::new(), |steps| format!(" of {steps}"));
                Some(format!("step {step}{of}: {removed} goes, perplexity {perplexity} ({took}{scored}{approximate})"))
            }
            Self::Check { perplexity, planned, rounded } => {
                let rounded = if *rounded { " (its weights were rounded)" } else { "" };
                let (found, planned) = (short(*perplexity), short(*planned));
                Some(format!("check: the written model has perplexity {found}, the search found {planned}{rounded}"))
            }
            Self::NearlyPlain { remove, restore, removed, layers, perplexity } => {
                let how = match (remove.is_empty(), restore.is_empty()) {
                    (false, true) => format!("without {remove} as well"),
                    (true, _) => format!("with {restore} kept"),
                    (false, false) => format!("without {remove} as well, but with {restore}"),
                };
                let perplexity = short(*perplexity);
                Some(format!(
                    "nearly plain: {how}, an ordinary model of {layers} layers has perplexity {perplexity} (export --without \
                     {removed})"
                ))
            }
            Self::Generated { prompt_tokens, prompt_seconds, new_tokens, tokens_per_second, finish_reason } => {
                let rate = tokens_per_second.map_or(String::new(), |rate| format!(", then {rate:.1} tokens/s"));
                Some(format!(
                    "{prompt_tokens} tokens of prompt in {prompt_seconds:.1} s{rate}; {new_tokens} new tokens, ended by \
                     {finish_reason}"
                ))
            }
            Self::Message { text } | Self::Stopped { text } => Some(text.clone()),
            Self::Note { text } => Some(format!("note: {text}")),
            Self::Warning { text } => Some(format!("warning: {text}")),
            Self::Error { text, hint, .. } => {
                let hint = hint.map_or(String::new(), |hint| format!("\n{hint}"));
                Some(format!("error: {text}{hint}"))
            }
            #[cfg(feature = "hub")]
            Self::Download { .. } => None,
            // Bars and the result show these.
            Self::Stage { total: Some(_), .. }
            | Self::Candidate { .. }
            | Self::Progress { .. }
            | Self::Evaluation(_)
            | Self::Written { .. } => None,
        }
    }
}

/// What a search removes, of so many units of the first step.
fn until(target: &Target, units: Units, candidates: usize) -> String {
    let end = match target {
        Target::Units(count) => return format!("remove {count} of {candidates} {units}"),
        Target::Ratio(share) => format!("until {} of the parameters are gone", percent(*share)),
        Target::Bytes(most) => format!("until the rest takes at most {}", bytes(*most)),
        Target::MaxIncrease(share) => format!("while the perplexity rises by at most {}", percent(*share)),
        Target::MaxPerplexity(most) => format!("while the perplexity is at most {most}"),
        _ => "until the target is reached".into(),
    };
    format!("remove some of {candidates} {units}, {end},")
}

/// A share, without zeros at its end.
fn percent(share: f64) -> String {
    let text = format!("{:.3}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}
