//! The model card that every export brings along: what was removed and how that was found, how to load the model, and its
//! limits; with the metadata that the Hugging Face hub reads (<https://huggingface.co/docs/hub/model-cards>).

use serde_json::json;

use super::{HeldOut, Plan, PlanCalibration};
use crate::model::{BlockKind, BlockSet, KvCache, ModelSpec, Origin};
use crate::search::{self, Unit, mebibytes};

/// What chose the blocks where the library does not know the strategy.
const OWN: &str = "a strategy of the program that pruned it";

/// How it was found which blocks go: what a card says of it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Provenance {
    /// On which text, and by which search; None where somebody chose the blocks.
    pub search: Option<SearchProvenance>,
    /// On a text that the search has not seen.
    pub held_out: Option<HeldOut>,
    /// The commands that made the model, one after the other.
    pub commands: Vec<String>,
}

/// A search, as a card tells of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SearchProvenance {
    /// What went, first removed first.
    pub order: Vec<Unit>,
    /// The text.
    pub calibration: PlanCalibration,
    /// Name of the strategy.
    pub strategy: String,
    /// Whether it may differ from the published loop.
    pub approximate: bool,
    /// Perplexity of the whole model on that text, and
    pub dense: f64,
    /// of the pruned one.
    pub pruned: f64,
}

impl Provenance {
    /// Of the first `steps` steps of a plan, and the command that made it.
    pub fn of_plan(plan: &Plan, steps: usize) -> Self {
        let pruned = plan.steps[..steps.min(plan.steps.len())].last().map(|step| step.perplexity);
        let search = pruned.map(|pruned| SearchProvenance {
            order: plan.order().into_iter().take(steps).collect(),
            calibration: plan.calibration.clone(),
            strategy: plan.settings.strategy.clone(),
            approximate: plan.settings.approximate,
            dense: plan.dense.perplexity,
            pruned,
        });
        let commands = plan.command.iter().filter(|_| search.is_some()).cloned().collect();
        // It is of all steps.
        let held_out = plan.held_out.clone().filter(|_| search.is_some() && steps >= plan.steps.len());
        Self { search, held_out, commands }
    }

    /// With a command that was run after those before.
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.commands.push(command.into());
        self
    }
}

/// What a card is about.
pub(super) struct Subject<'a> {
    /// What the model is called that blocks were taken from.
    pub name: &'a str,
    pub spec: &'a ModelSpec,
    pub origin: &'a Origin,
    /// All blocks that are gone.
    pub gone: &'a BlockSet,
    /// Of what is written.
    pub kv_cache: KvCache,
    pub provenance: &'a Provenance,
    /// The programs that load it, for the metadata.
    pub library: &'static str,
    /// How to load it.
    pub loading: &'a str,
}

impl Subject<'_> {
    /// The card.
    pub fn card(&self) -> String {
        [self.metadata(), self.summary(), self.perplexities(), self.loading(), self.limits(), self.command()].concat()
    }

    /// Strings as in JSON, which YAML reads, too.
    fn metadata(&self) -> String {
        let Origin { repository, license, license_name, license_link, .. } = self.origin;
        let entries = [
            ("license", license),
            ("license_name", license_name),
            ("license_link", license_link),
            ("base_model", repository),
        ];
        let mut text = "---\n".to_string();
        for (key, value) in entries.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
            text += &format!("{key}: {}\n", json!(value));
        }
        text + &format!(
            "library_name: {}\npipeline_tag: text-generation\ntags: [pruned, depth-pruning, blockpruner]\n---\n\n",
            self.library
        )
    }

    fn summary(&self) -> String {
        let Self { spec, gone, .. } = self;
        let name = shown(self.name);
        let of = match &self.origin.repository {
            Some(repository) => format!("[{repository}](https://huggingface.co/{repository})"),
            None => name.clone(),
        };
        if gone.is_empty() {
            return format!("# {name}\n\n{of} as it was, written anew by BlockPruner. No block was removed.\n\n");
        }
        let whole = spec.whole();
        let (all, left) = (whole.parameters(), whole.parameters_without(gone));
        let count = |kind| gone.iter().filter(|block| block.kind == kind).count();
        let (mha, mlp) = (count(BlockKind::Mha), count(BlockKind::Mlp));
        let share = 100.0 * (all - left) as f64 / all.max(1) as f64;
        let order = match &self.provenance.search {
            Some(search) if search.order.iter().map(|unit| unit.blocks().count()).sum::<usize>() == gone.len() => {
                let units: Vec<_> = search.order.iter().map(|unit| format!("`{unit}`")).collect();
                format!("Removed, the first one first: {}.", units.join(", "))
            }
            _ => format!("Removed: `{gone}`."),
        };
        format!(
            "# {name} without {blocks} blocks\n\n{of} without {mha} attention and {mlp} feed-forward blocks of {layers} each: {left} of \
             {all} parameters are left, {share:.1} % are gone. {order} `mha:4` is the attention block of layer 4, `mlp:4` its \
             feed-forward block, counted from 0.\n\n{cache}",
            cache = self.cache(whole.kv_cache(&BlockSet::new())),
            blocks = gone.len(),
            layers = spec.layers.len(),
        )
    }

    /// The KV cache, beside that of the whole model.
    fn cache(&self, whole: KvCache) -> String {
        let KvCache { bytes_per_token, context, bytes, .. } = self.kv_cache;
        format!(
            "Its KV cache takes {bytes_per_token} bytes a token as f16, {} for the {context} tokens of its context; that of the whole model \
             takes {} and {}.\n\n",
            mebibytes(bytes),
            whole.bytes_per_token,
            mebibytes(whole.bytes),
        )
    }

    fn perplexities(&self) -> String {
        let Provenance { search, held_out, .. } = self.provenance;
        let mut rows = String::new();
        if let Some(SearchProvenance { calibration, dense, pruned, .. }) = search {
            let PlanCalibration { source, windows, window, .. } = calibration;
            let source = shown(source);
            rows += &format!(
                "| {source}, {windows} windows of {window} tokens (calibration) | {dense:.4} | {pruned:.4} |\n"
            );
        }
        if let Some(HeldOut { text, tokens, dense_perplexity, perplexity, .. }) = held_out {
            let text = shown(text);
            rows += &format!("| {text}, {tokens} tokens (held out) | {dense_perplexity:.4} | {perplexity:.4} |\n");
        }
        if rows.is_empty() {
            return String::new();
        }
        let how = match search {
            None => String::new(),
            Some(SearchProvenance { strategy, approximate, .. }) => format!(
                "The blocks were chosen by {} (search `{}`{}). The search has seen that text: of others, expect more loss.\n\n",
                search::strategy(strategy).map_or(OWN.into(), |known| known.chosen_by().to_string()),
                shown(strategy),
                if *approximate { ", approximate" } else { "" }
            ),
        };
        format!("## Perplexity\n\n| text | whole model | this model |\n|---|---|---|\n{rows}\n{how}")
    }

    fn loading(&self) -> String {
        format!("## How to load it\n\n{}\n\n", self.loading)
    }

    fn limits(&self) -> String {
        if self.gone.is_empty() {
            return String::new();
        }
        "## Limits\n\n- No weight was trained after blocks were removed. Training it further, even briefly, brings back much of what was \
         lost.\n- What it writes suffers before its scores in multiple choice do: read its text before you use it.\n- What the \
         calibration text does not show, such as other languages, code or chat, may be lost without a trace in the figures above.\n\n"
            .to_string()
    }

    fn command(&self) -> String {
        let commands = self.provenance.commands.iter();
        let lines: String =
            commands.map(|command| command.replace(|c: char| c == '`' || c.is_control(), " ") + "\n").collect();
        match lines.as_str() {
            "" => "Made by BlockPruner on WebGPU.\n".to_string(),
            lines => format!("## How it was made\n\n```\n{lines}```\n"),
        }
    }
}

/// A name within a line of Markdown: as it is, but for what would be markup.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || "`|<>[]".contains(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn spec() -> ModelSpec {
        let config = json!({
            "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3,
            "num_attention_heads": 2, "vocab_size": 11,
        });
        ModelSpec::from_config(config.as_object().unwrap()).unwrap()
    }

    fn card(origin: &Origin, gone: &str, provenance: &Provenance) -> String {
        let (spec, gone) = (spec(), gone.parse().unwrap());
        let subject = Subject {
            name: "a `name`|\nof <b>",
            spec: &spec,
            origin,
            gone: &gone,
            kv_cache: spec.kv_cache(&gone),
            provenance,
            library: "transformers",
            loading: "Load it.",
        };
        subject.card()
    }

    #[test]
    fn the_hub_reads_licence_and_base_model() {
        let mut origin = Origin::default();
        let none = card(&origin, "mha:1", &Provenance::default());
        assert!(none.starts_with("---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: "), "{none}");
        origin.license = Some("other".into());
        origin.license_name = Some("it's: \"odd\"".into());
        origin.repository = Some("org/name".into());
        let all = card(&origin, "mha:1", &Provenance::default());
        let start =
            "---\nlicense: \"other\"\nlicense_name: \"it's: \\\"odd\\\"\"\nbase_model: \"org/name\"\nlibrary_name";
        assert!(all.starts_with(start), "{all}");
        assert!(
            all.contains("[org/name](https://huggingface.co/org/name) without 1 attention and 0 feed-forward"),
            "{all}"
        );
    }

    #[test]
    fn a_card_says_what_is_known_and_no_more() {
        let bare = card(&Origin::default(), "mha:1,mlp:2", &Provenance::default());
        assert!(bare.contains("# a  name   of  b  without 2 blocks\n"), "{bare}");
        // 2 heads of 4 elements, keys and values, 2 bytes each: 32 bytes a token and layer.
        let cache = "Its KV cache takes 64 bytes a token as f16, 0.1 MiB for the 2048 tokens of its context; that of the whole model \
                     takes 96 and 0.2 MiB.";
        assert!(bare.contains(cache), "{bare}");
        assert!(bare.contains("Removed: `mha:1,mlp:2`.") && bare.contains("## Limits"), "{bare}");
        assert!(!bare.contains("Perplexity") && !bare.contains("How it was made"), "{bare}");
        let calibration = PlanCalibration {
            source: "alpaca.jsonl".into(),
            field: None,
            rows: 1,
            tokens: 100,
            windows: 2,
            window: 32,
            samples: None,
            seed: None,
        };
        let search = SearchProvenance {
            order: vec!["mlp:2".parse().unwrap(), "mha:1".parse().unwrap()],
            calibration,
            strategy: "racing".into(),
            approximate: true,
            dense: 10.25,
            pruned: 11.5,
        };
        let (text, dense_perplexity, perplexity) = ("wiki.txt".into(), 12.0, 14.0);
        let held_out = HeldOut { text, window: 32, windows: 2, tokens: 64, dense_perplexity, perplexity };
        let provenance = Provenance { search: Some(search), held_out: Some(held_out), ..Provenance::default() };
        let provenance = provenance.command("blockpruner prune\n```x").command("blockpruner export");
        let whole = card(&Origin::default(), "mha:1,mlp:2", &provenance);
        assert!(whole.contains("the first one first: `mlp:2`, `mha:1`."), "{whole}");
        assert!(
            whole.contains("| alpaca.jsonl, 2 windows of 32 tokens (calibration) | 10.2500 | 11.5000 |"),
            "{whole}"
        );
        assert!(whole.contains("| wiki.txt, 64 tokens (held out) | 12.0000 | 14.0000 |"), "{whole}");
        assert!(whole.contains("Findings of ACL 2025) (search `racing`, approximate)"), "{whole}");
        for (strategy, words) in
            [("cosine", "LLM-Drop, He et al., 2024) (search `cosine`"), ("x", "a strategy of the program")]
        {
            let mut provenance = provenance.clone();
            provenance.search.as_mut().unwrap().strategy = strategy.into();
            let card = card(&Origin::default(), "mha:1,mlp:2", &provenance);
            assert!(card.contains(words), "{card}");
        }
        assert!(
            whole.ends_with("## How it was made\n\n```\nblockpruner prune    x\nblockpruner export\n```\n"),
            "{whole}"
        );
        // Earlier prunings removed blocks, too: then the order is not all of it.
        let more = card(&Origin::default(), "mha:0,mha:1,mlp:2", &provenance);
        assert!(more.contains("Removed: `mha:0,mha:1,mlp:2`."), "{more}");
    }

    #[test]
    fn the_whole_model_has_no_limits() {
        let whole = card(&Origin::default(), "", &Provenance::default());
        assert!(whole.contains("No block was removed.") && !whole.contains("## Limits"), "{whole}");
    }
}
