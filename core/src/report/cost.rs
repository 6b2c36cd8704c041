//! What a run cost, and what has to be the same to get it again.

use maud::{Markup, html};

use super::Run;
use super::numbers::{bytes, count, duration, grouped, percent, perplexity};
use crate::search::Target;

/// Arithmetic, time and device.
pub(super) fn cost(run: &Run) -> Markup {
    let (plan, work) = (&run.plan, run.work());
    let device = &plan.device;
    let rows = [
        ("time of all steps", duration(run.seconds())),
        ("device", format!("{} ({}, {})", device.name, device.backend, device.driver)),
        ("tier, kernel", format!("{}, {}", device.tier, device.kernel)),
        ("tokens through blocks", format!("{} (each block of each pass counts)", grouped(work.block_tokens))),
        ("tokens through the head", grouped(work.head_tokens)),
        ("arithmetic", flops(run)),
    ];
    facts(rows.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}

/// What of the model is left beside parameters, where the plan says that.
pub(super) fn size(run: &Run) -> Markup {
    let (model, last) = (&run.plan.model, run.plan.steps.last());
    let mut rows = Vec::new();
    if let (Some(whole), Some(left)) = (model.bytes, last.and_then(|step| step.bytes)) {
        let form = run.plan.settings.written_as.as_ref().map_or(String::new(), |form| format!(" ({form})"));
        rows.push((format!("weight files, at most{form}"), format!("{} \u{2192} {}", bytes(whole), bytes(left))));
    }
    if let (Some(whole), Some(left)) = (&model.kv_cache, last.and_then(|step| step.kv_cache.as_ref())) {
        let (a_token, less) = (bytes(whole.bytes_per_token), bytes(left.bytes_per_token));
        let context = count(whole.context, "token");
        let of_all = format!("{} \u{2192} {} for {context}", bytes(whole.bytes), bytes(left.bytes));
        rows.push(("KV cache (f16)".to_string(), format!("{a_token} \u{2192} {less} a token, {of_all}")));
    }
    facts(rows)
}

/// Two for each parameter and token that it is used on, where every block has an equal share of the parameters.
fn flops(run: &Run) -> String {
    let model = &run.plan.model;
    let share = model.parameters as f64 / run.blocks().max(1) as f64;
    let flops = 2.0 * share * run.work().block_tokens as f64;
    format!(
        "about {}FLOPs: 2 a parameter and token, every block taken for an equal share of the parameters",
        with_prefix(flops)
    )
}

/// Settings and hashes.
pub(super) fn origin(run: &Run) -> Markup {
    let (plan, settings) = (&run.plan, &run.plan.settings);
    let text = &plan.calibration;
    let mut rows = vec![
        (
            "model",
            format!(
                "{} ({}, {}, {} parameters)",
                plan.model.name,
                plan.model.family,
                count(plan.model.layers, "layer"),
                grouped(plan.model.parameters)
            ),
        ),
        (
            "calibration text",
            format!("{}, {} of {} tokens", text.source, count(text.windows, "window"), grouped(text.window as u64)),
        ),
    ];
    if !plan.model.absent.is_empty() {
        rows.push(("absent before", plan.model.absent.to_string()));
    }
    let drawn = text.seed.map_or(String::new(), |seed| format!(", drawn with seed {seed}"));
    rows.push(("rows of the text", format!("{}{drawn}", grouped(text.rows as u64))));
    if let Some(field) = &text.field {
        rows.push(("field of a row", field.clone()));
    }
    let approximate = if settings.approximate { ", approximate" } else { "" };
    rows.push(("removed at a step", settings.units.to_string()));
    rows.push(("block types", settings.block_types.to_string()));
    rows.push(("strategy", format!("{}{approximate}", settings.strategy)));
    rows.push(("objective", settings.objective.to_string()));
    rows.push(("target", target(settings.target.unwrap_or(Target::Units(settings.remove)))));
    if let Some(seed) = settings.strategy_seed {
        rows.push(("seed of the strategy", seed.to_string()));
    }
    let hashes = &plan.fingerprint;
    for (name, hash) in [
        ("hash of the weights", &hashes.weights),
        ("hash of the tokenizer", &hashes.tokenizer),
        ("hash of the token ids", &hashes.token_ids),
        ("kernels", &hashes.kernels),
    ] {
        rows.push((name, hash.clone()));
    }
    facts(rows.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}

fn target(target: Target) -> String {
    match target {
        Target::Units(units) => count(units, "step"),
        Target::Ratio(ratio) => format!("{} of the parameters removed", percent(ratio)),
        Target::Bytes(most) => format!("weight files of at most {}", bytes(most)),
        Target::MaxIncrease(share) => format!("perplexity at most {} higher", percent(share)),
        Target::MaxPerplexity(most) => format!("perplexity of at most {}", perplexity(most)),
    }
}

/// Names and values under each other.
fn facts(rows: Vec<(String, String)>) -> Markup {
    html! {
        dl {
            @for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) { dt { (name) } dd { (value) } }
        }
    }
}

/// Three digits and what they count: `20.1 G`.
fn with_prefix(value: f64) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"];
    let thousands = (value.max(1.0).log10() / 3.0).floor().min(prefixes.len() as f64 - 1.0);
    format!("{:.1} {}", value / 1000f64.powf(thousands), prefixes[thousands as usize])
}
