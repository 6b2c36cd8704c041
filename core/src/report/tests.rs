#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use crate::export::{Fingerprint, HeldOut, PLAN_FORMAT, Plan, PlanCalibration, PlanModel, PlanSettings, PlanStatus};
use crate::gpu::DeviceInfo;
use crate::model::{BlockId, BlockSet, KvCache};
use crate::search::{BlockTypes, Candidate, CandidateState, Dense, Objective, Reason, Step, Target, Unit, Units, Work};

/// A plan of `layers` layers that removes attention blocks from the first on, `steps` of them; what it measures of candidates is
/// all different.
fn plan(layers: usize, steps: usize) -> Plan {
    let blocks: Vec<BlockId> = (0..layers).map(BlockId::mha).chain((0..layers).map(BlockId::mlp)).collect();
    let step = |index: usize| {
        let score = |at: usize| 10.0 + index as f64 + (at as f64) * 0.0371;
        let candidates =
            blocks[index..].iter().enumerate().map(|(at, block)| candidate(*block, at, score(at))).collect();
        Step {
            step: index + 1,
            removed: blocks[index].into(),
            value: score(0),
            perplexity: score(0),
            candidates,
            work: Work { block_tokens: 1000, head_tokens: 200 },
            params_left: 1_000_000 - 10_000 * (index as u64 + 1),
            ratio_removed: (0.02 * (index + 1) as f64).min(1.0),
            seconds: 1.5,
            bytes: None,
            kv_cache: None,
        }
    };
    Plan {
        format: PLAN_FORMAT.into(),
        status: PlanStatus::Finished,
        command: None,
        model: PlanModel {
            name: "m".into(),
            family: "llama".into(),
            layers,
            parameters: 1_000_000,
            absent: BlockSet::new(),
            kv_cache: None,
            bytes: None,
        },
        calibration: PlanCalibration {
            source: "text.txt".into(),
            field: None,
            rows: 3,
            tokens: 99,
            windows: 3,
            window: 32,
            samples: None,
            seed: None,
        },
        settings: PlanSettings {
            units: Units::Blocks,
            block_types: BlockTypes::Mix,
            target: Some(Target::Units(steps)),
            remove: steps,
            written_as: None,
            strategy_seed: None,
            objective: Objective::Perplexity,
            strategy: "exact".into(),
            approximate: false,
        },
        device: DeviceInfo {
            name: "llvmpipe".into(),
            backend: "Vulkan".into(),
            driver: "Mesa".into(),
            tier: "baseline".into(),
            kernel: "columns".into(),
        },
        fingerprint: Fingerprint { weights: "w".into(), token_ids: "t".into(), ..Fingerprint::default() },
        dense: Dense { perplexity: 9.5, mean_nll: 9.5f64.ln() },
        steps: (0..steps).map(step).collect(),
        beyond: None,
        held_out: None,
    }
}

/// Every third one is bounded, one is rejected.
fn candidate(block: BlockId, at: usize, score: f64) -> Candidate {
    let (state, exact, at_least, reason) = match at {
        3 => (CandidateState::Rejected, None, None, Some(Reason::Other("a loss of <script>\"x\"".into()))),
        _ if at % 3 == 2 => (CandidateState::Bounded, None, Some(score), Some(Reason::Windows)),
        _ => (CandidateState::Complete, Some(score), None, None),
    };
    Candidate { unit: block.into(), value: exact, perplexity: exact, at_least, state, head_tokens: 5, reason }
}

fn page(plans: impl IntoIterator<Item = Plan>) -> String {
    Report::new(plans.into_iter().enumerate().map(|(at, plan)| Run::new(format!("run {at}"), plan))).to_html()
}

/// All drawings of a page; each has to be XML.
fn drawings(page: &str) -> Vec<roxmltree::Document<'_>> {
    let pieces = page.split("<svg").skip(1);
    let found = pieces.map(|piece| &piece[..piece.find("</svg>").unwrap()]);
    found
        .map(|inner| {
            let start = inner.as_ptr() as usize - page.as_ptr() as usize - "<svg".len();
            roxmltree::Document::parse(&page[start..start + inner.len() + "<svg</svg>".len()]).unwrap()
        })
        .collect()
}

/// Numbers of a drawing: attributes of places, and the pairs of lines.
fn numbers(drawing: &roxmltree::Document<'_>) -> Vec<f64> {
    let of = |node: roxmltree::Node<'_, '_>| {
        let places =
            ["x", "y", "x1", "x2", "y1", "y2"].into_iter().filter_map(|name| node.attribute(name).map(String::from));
        let points =
            node.attribute("points").unwrap_or_default().split([' ', ',']).map(String::from).collect::<Vec<_>>();
        places.chain(points).filter(|text| !text.is_empty()).map(|text| text.parse().unwrap()).collect::<Vec<f64>>()
    };
    drawing.descendants().flat_map(of).collect()
}

#[test]
fn every_score_is_there() {
    let plan = plan(8, 4);
    let page = page([plan.clone()]);
    for step in &plan.steps {
        for candidate in &step.candidates {
            let score = match (candidate.perplexity, candidate.at_least) {
                (Some(value), _) => format!("<td>{}</td>", perplexity(value)),
                (None, Some(bound)) => format!("<td>\u{2265} {}</td>", perplexity(bound)),
                (None, None) => "rejected: ".to_string(),
            };
            let row = format!("<td class=\"text\">{}</td>", candidate.unit);
            let has = |piece: &str| piece.starts_with(&row) && piece[..piece.find("</tr>").unwrap()].contains(&score);
            assert!(page.match_indices(&row).any(|(at, _)| has(&page[at..])), "{row} {score}");
        }
    }
    // The order of removal, and the scores of the first step.
    assert_eq!(page.matches("class=\"cell gone\"").count(), 4);
    assert!(page.contains("title=\"mlp:7: 10.5565 without it\""), "{page}");
    assert!(page.contains("title=\"mha:1: 10.0371 without it, removed in step 2\""));
    assert!(page.contains(
        "title=\"mha:2: at least 10.0742 without it (cannot win by the windows scored so far), removed in step 3\""
    ));
}

#[test]
fn a_line_goes_through_every_step() {
    let page = page([plan(8, 4)]);
    let drawings = drawings(&page);
    let lines: Vec<_> = drawings[0].descendants().filter(|node| node.has_tag_name("polyline")).collect();
    assert_eq!(lines.len(), 1);
    let points: Vec<Vec<f64>> = lines[0]
        .attribute("points")
        .unwrap()
        .split(' ')
        .map(|point| point.split(',').map(|number| number.parse().unwrap()).collect())
        .collect();
    assert_eq!(points.len(), 5);
    // The whole model is at the left, on its dashed line; more is removed to the right, and the worse is higher.
    assert_eq!(points[0][0], 50.0);
    let dense = drawings[0].descendants().find(|node| node.attribute("class") == Some("dense")).unwrap();
    assert_eq!(dense.attribute("y1").unwrap().parse::<f64>().unwrap(), points[0][1]);
    assert!(points.windows(2).all(|two| two[1][0] > two[0][0] && two[1][1] < two[0][1]), "{points:?}");
    let titles: Vec<_> =
        drawings[0].descendants().filter(|node| node.has_tag_name("title")).filter_map(|node| node.text()).collect();
    assert!(titles.contains(&"run 0, step 2 (mha:1): perplexity 11.0000, 4.0 % removed"), "{titles:?}");
}

#[test]
fn what_is_text_stays_text() {
    let hostile = "<script>alert(1)</script>\"'&";
    let mut plan = plan(3, 2);
    plan.model.name = hostile.into();
    plan.calibration.source = hostile.into();
    plan.settings.strategy = hostile.into();
    plan.device.name = hostile.into();
    plan.fingerprint.kernels = hostile.into();
    plan.command = Some(hostile.into());
    plan.held_out = held_out(hostile, 3.0);
    let runs = [Run::new(hostile, plan.clone()), Run::new(hostile, plan)];
    let page = Report::new(runs).to_html();
    assert_eq!(page.matches("<pre>&lt;script&gt;").count(), 2, "{page}");
    assert!(!page.contains("<script") && !page.contains("\"'&"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;'&amp;"), "{page}");
    assert!(page.contains("a loss of &lt;script&gt;&quot;x&quot;"), "{page}");
    drawings(&page);
}

#[test]
fn nothing_is_loaded() {
    let page = page([plan(4, 2), plan(4, 3)]);
    for resource in ["http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(resource), "{resource}");
    }
    let policy =
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline';";
    assert!(page.contains(policy), "{page}");
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"));
}

#[test]
fn any_plan_has_a_page() {
    let odd = [f64::INFINITY, f64::NAN, 0.0, -1.0, 1e300, f64::MAX, f64::MIN_POSITIVE];
    for (layers, steps) in [(1, 0), (1, 1), (2, 1), (80, 0), (80, 70)] {
        let plain = plan(layers, steps);
        for value in odd {
            let mut plans = [plain.clone(), plain.clone(), plain.clone()];
            plans[0].dense.perplexity = value;
            plans[0].held_out = held_out("other.txt", value);
            for step in &mut plans[1].steps {
                (step.perplexity, step.value) = (value, value);
                step.candidates[0].value = Some(value);
            }
            for step in plans[2].steps.iter_mut().skip(1).step_by(2) {
                (step.perplexity, step.ratio_removed, step.seconds) = (value, value, value);
            }
            plans[2].model.layers = usize::MAX;
            for plan in plans {
                let page = page([plan]);
                for drawing in drawings(&page) {
                    let numbers = numbers(&drawing);
                    assert!(numbers.iter().all(|number| number.is_finite()), "{layers} {steps} {value}: {numbers:?}");
                }
                assert!(!page.contains("NaN") && !page.contains(">inf"), "{layers} {steps} {value}");
            }
        }
    }
    assert!(page([]).contains("0 prunings"));
}

/// Strategies may measure something else than perplexity, and nothing at all of some candidates.
#[test]
fn values_need_no_perplexity() {
    let mut plan = plan(3, 1);
    plan.settings.objective = Objective::CosineDistance;
    for candidate in &mut plan.steps[0].candidates {
        candidate.perplexity = None;
        candidate.value = candidate.value.map(|value| value / 100.0);
    }
    let page = page([plan]);
    assert!(page.contains("<th>cosine-distance</th>") && page.contains("<td>0.1000</td>"), "{page}");
}

#[test]
fn what_is_known_of_the_size_is_shown() {
    let mut plan = plan(3, 2);
    let cache = |bytes| Some(KvCache { bytes_per_token: bytes, context: 512, bytes: 512 * bytes });
    (plan.model.bytes, plan.model.kv_cache) = (Some(3 << 20), cache(3072));
    (plan.steps[1].bytes, plan.steps[1].kv_cache) = (Some(2 << 20), cache(2048));
    plan.beyond = plan.steps.pop();
    plan.settings.target = Some(Target::MaxPerplexity(10.5));
    let beyond = page([plan.clone()]);
    assert!(beyond.contains("would remove mha:1, and go beyond the target: perplexity 11.0000."), "{beyond}");
    assert!(!beyond.contains("KV cache"), "the step that is there says nothing of it");
    plan.steps.extend(plan.beyond.take());
    let page = page([plan]);
    assert!(page.contains("<dt>weight files, at most</dt><dd>3.0 MiB \u{2192} 2.0 MiB</dd>"), "{page}");
    assert!(page.contains("3.0 KiB \u{2192} 2.0 KiB a token, 1.5 MiB \u{2192} 1.0 MiB for 512 tokens"), "{page}");
    assert!(page.contains("<dd>perplexity of at most 10.5000</dd>"), "{page}");
}

#[test]
fn pairs_are_shown_at_both_blocks() {
    let mut plan = plan(2, 1);
    let pair = Unit::Pair { mha: 1, mlp: 0 };
    plan.settings.units = Units::Pairs;
    let mut candidate = plan.steps[0].candidates[0].clone();
    candidate.unit = pair;
    plan.steps[0].candidates = vec![candidate];
    plan.steps[0].removed = pair;
    let page = page([plan]);
    for block in ["mha:1", "mlp:0"] {
        assert!(page.contains(&format!("title=\"{block}: 10.0000 without mha:1,mlp:0, removed in step 1\"")), "{page}");
    }
}

#[test]
fn names_are_told_apart() {
    let plans = ["a", "a", "b", "a (2)"].map(|name| (name.to_string(), plan(2, 0)));
    let names: Vec<_> = Run::all(plans).into_iter().map(|run| run.name).collect();
    assert_eq!(names, ["a", "a (2)", "b", "a (2) (2)"]);
}

fn held_out(text: &str, dense_perplexity: f64) -> Option<HeldOut> {
    let (text, perplexity) = (text.into(), 1.25 * dense_perplexity);
    Some(HeldOut { text, window: 32, windows: 3, tokens: 96, dense_perplexity, perplexity })
}

/// Of every plan that has them, under its name; what is not known of a plan is not there.
#[test]
fn held_out_texts_and_commands_are_shown() {
    let mut known = plan(3, 2);
    known.held_out = held_out("other.txt", 8.0);
    known.command = Some("blockpruner prune".into());
    let words = "other.txt (96 tokens), which the search has not seen, from <b>8.0000</b> to <b>10.0000</b> (+25.0 %)";
    let one = page([known.clone()]);
    assert!(
        one.contains(&format!("On {words}")) && one.contains("<h2>Command</h2><pre>blockpruner prune</pre>"),
        "{one}"
    );
    let two = page([plan(3, 2), known.clone()]);
    assert!(two.contains(&format!("<b>run 1</b>: on {words}")), "{two}");
    assert_eq!((two.matches("has not seen").count(), two.matches("<pre>").count()), (1, 1));
    assert!(two.contains("<h2>Command of run 1</h2>"), "{two}");

    let mut other = known.clone();
    other.held_out = held_out("third.txt", 9.0);
    assert!(compared(&[plan(3, 2), known.clone()], &[]).warnings.is_empty());
    let comparison = compared(&[plan(3, 2), known, other], &[]);
    assert_eq!(comparison.warnings.len(), 1, "{:?}", comparison.warnings);
    assert!(
        comparison.warnings[0].contains("held-out texts differ")
            && comparison.warnings[0].ends_with("(run, \"2\" against run, \"1\")")
    );
    assert!(comparison.to_text().contains("held-out text"), "{}", comparison.to_text());
    let json = serde_json::to_value(&comparison).unwrap();
    assert_eq!(json["plans"][1]["evaluation"]["perplexity"], 10.0);
    assert_eq!((&json["plans"][1]["command"], json["plans"][0].get("command")), (&"blockpruner prune".into(), None));
    let csv = comparison.to_csv();
    let lines: Vec<_> = csv.lines().collect();
    assert!(lines[0].ends_with(",evaluation_text,evaluation_dense_perplexity,evaluation_perplexity,command"), "{csv}");
    assert!(lines[1].ends_with(",,,,") && lines[2].ends_with(",other.txt,8,10,blockpruner prune"), "{csv}");
    assert!(!compared(&[plan(3, 2)], &[]).to_text().contains("held-out"));
}

fn compared(plans: &[Plan], ratios: &[f64]) -> Comparison {
    let runs: Vec<_> =
        plans.iter().enumerate().map(|(at, plan)| Run::new(format!("run, \"{at}\""), plan.clone())).collect();
    Comparison::new(&runs, ratios)
}

#[test]
fn plans_are_compared_at_the_same_size() {
    let mut other = plan(8, 6);
    other.steps.truncate(2);
    other.steps[1].removed = BlockId::mlp(7).into();
    other.settings.remove = 2;
    let comparison = compared(&[plan(8, 6), other], &[0.05, 0.1]);
    let at: Vec<Vec<_>> = comparison
        .plans
        .iter()
        .map(|plan| plan.at.iter().map(|at| at.found.map(|found| found.step)).collect())
        .collect();
    // The second one ends at 4 %: within a step of 5 %, and far from 10 %.
    assert_eq!(at, [[Some(2), Some(5)], [Some(2), None]]);
    assert_eq!(comparison.plans[0].at[0].found.unwrap().perplexity, 11.0);
    let common: Vec<_> = comparison.common.iter().map(|common| (common.ratio, common.both, common.any)).collect();
    assert_eq!(common, [(Some(0.05), 1, 3), (None, 1, 7)]);
    assert_eq!(comparison.common[0].jaccard, 1.0 / 3.0);
    assert!(comparison.warnings.is_empty(), "{:?}", comparison.warnings);
    // No step removes so little: what is left is the whole model.
    let little = compared(&[plan(8, 6)], &[0.001]).plans[0].at[0].found.unwrap();
    assert_eq!((little.step, little.ratio_removed, little.perplexity), (0, 0.0, 9.5));
}

#[test]
fn what_cannot_be_compared_is_said() {
    let (mut model, mut text) = (plan(4, 2), plan(4, 2));
    model.fingerprint.weights = "other".into();
    text.fingerprint.token_ids = "other".into();
    text.status = PlanStatus::Stopped;
    let warnings = compared(&[plan(4, 2), model, text], &[]).warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(
        warnings[0].contains("different models") && warnings[0].contains("(run, \"1\" against run, \"0\")"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("different texts: ") || warnings[1].contains("different texts are not comparable"));
    assert!(warnings[2].contains("is not finished: run, \"2\""), "{warnings:?}");
}

#[test]
fn names_stay_on_the_line_of_their_warning() {
    let mut other = plan(4, 2);
    other.fingerprint.weights = "other".into();
    let runs = [Run::new("a", plan(4, 2)), Run::new("b\nwarning: <c>", other)];
    let comparison = Comparison::new(&runs, &[]);
    let lines = |text: String, kind: &str| text.lines().filter(|line| line.starts_with(kind)).count();
    assert_eq!(lines(comparison.to_text(), "warning: "), 1);
    assert_eq!(lines(comparison.to_markdown(), "> Warning: "), 1);
    assert!(comparison.to_markdown().contains("(b warning: \\<c\\> against a)\n"));
    // What programs read has the names as they are.
    assert!(comparison.warnings[0].contains("b\nwarning: <c>") && comparison.to_csv().contains("b\nwarning: <c>"));
}

#[test]
fn csv_reads_back() {
    let mut plans = [plan(8, 6), plan(8, 2)];
    plans[1].dense.perplexity = f64::INFINITY;
    let comparison = compared(&plans, &[0.1]);
    let text = comparison.to_csv();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names: Vec<_> = reader.headers().unwrap().iter().map(String::from).collect();
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    let cell = |row: usize, name: &str| rows[row][names.iter().position(|own| own == name).unwrap()].to_string();
    assert_eq!(rows.len(), 2);
    assert_eq!([cell(0, "plan"), cell(1, "plan")], ["run, \"0\"", "run, \"1\""]);
    for (row, plan) in comparison.plans.iter().enumerate() {
        assert_eq!(cell(row, "perplexity").parse::<f64>().unwrap(), plan.perplexity);
        assert_eq!(cell(row, "ratio_removed").parse::<f64>().unwrap(), plan.ratio_removed);
    }
    assert_eq!(
        cell(0, "perplexity_at_0.1").parse::<f64>().unwrap(),
        comparison.plans[0].at[0].found.unwrap().perplexity
    );
    assert_eq!([cell(1, "dense_perplexity"), cell(1, "perplexity_at_0.1")], ["", ""]);
}

#[test]
fn tables_have_a_column_a_plan() {
    let comparison = compared(&[plan(8, 6), plan(8, 2)], &RATIOS);
    let text = comparison.to_text();
    for row in ["model", "perplexity, whole", "perplexity at 10 %", "run, \"0\" and run, \"1\"  all steps"] {
        assert!(text.contains(row), "{row}: {text}");
    }
    let markdown = comparison.to_markdown();
    assert!(markdown.starts_with("|  | run, \"0\" | run, \"1\" |\n|---|---|---|\n| model | m | m |\n"), "{markdown}");
    // One alone has nothing in common with others.
    assert!(!compared(&[plan(8, 6)], &RATIOS).to_text().contains("Jaccard"));
    // A search that removed nothing took no time for it.
    assert_eq!(compared(&[plan(8, 0)], &RATIOS).plans[0].seconds.to_string(), "0");
}

fn evaluation(removed: &str, more: &str) -> Evaluation {
    let text = format!(
        r#"{{"format":"blockpruner-evaluation/1",
        "model":{{"name":"m","family":"llama","layers":3,"parameters":1000000,"absent":[]}},"removed":"{removed}",
        "device":{{"name":"d","backend":"b","driver":"d","tier":"baseline","kernel":"tile"}},"bos":"auto",
        "tasks":{{"piqa":{{"file":"f","sha256":"00","items":100,"acc":0.625,"acc_stderr":0.0484,"acc_norm":0.61,"acc_norm_stderr":0.049}},
        "lambada":{{"file":"f","sha256":"00","items":50,"acc":0.25,"acc_stderr":0.0612,"perplexity":34.5,"perplexity_stderr":2.25}}}},
        "mean":0.61,"seconds":2.5{more}}}"#
    );
    Evaluation::parse("e.json", text.as_bytes()).unwrap()
}

#[test]
fn tasks_stand_beside_each_other() {
    let more = r#","differences":{"piqa":{"acc":{"difference":-0.0125,"stderr":0.0111},"acc_norm":{"difference":0.02,"stderr":null}}},
        "generation":{"prompts":[{"prompt":"<script>\"","dense":"one <b>","pruned":"two","agreement":0.5,"first_difference":1,
        "repetition_dense":0.1,"repetition_pruned":0.2,"loops_dense":false,"loops_pruned":true}],"agreement":0.5,"repetition_dense":0.1,"repetition_pruned":0.25}"#;
    let evaluations = [evaluation("mha:0,mlp:1", more), evaluation("", "")];
    let page = Report::new([Run::new("r", plan(3, 2))]).evaluations(evaluations).to_html();
    // The whole model comes first, whatever was given first.
    for row in [
        "<th>items</th><th>whole model</th><th>without 2 blocks</th><th>difference</th>",
        "<td class=\"text\">piqa</td><td class=\"text\">acc</td><td>100</td><td>0.6250 ± 0.0484</td><td>0.6250 ± 0.0484</td>\
         <td>-0.0125 ± 0.0111</td>",
        "<td class=\"text\">acc_norm</td><td>100</td><td>0.6100 ± 0.0490</td><td>0.6100 ± 0.0490</td><td>+0.0200</td>",
        "<td class=\"text\">perplexity</td><td>50</td><td>34.5000 ± 2.2500</td><td>34.5000 ± 2.2500</td><td></td>",
        "<h3>&lt;script&gt;&quot;</h3>",
        "<b>Whole model: </b>one &lt;b&gt;</div><div><b>Pruned: </b>two</div>",
        "50.0 % of the tokens agree, 10.0 % of the whole model's 4-grams are repeated, 25.0 % of the pruned one's.",
    ] {
        assert!(page.contains(row), "{row}: {page}");
    }
    assert_eq!(page.matches("<td class=\"text\">piqa</td>").count(), 2, "acc and acc_norm");
    assert!(!page.contains("What it writes, whole model"));
    assert!(page.contains("its paired standard error"));
    // Without tasks there are only texts.
    let mut texts = evaluation("mha:0,mlp:1", more);
    texts.tasks.clear();
    let page =
        |evaluations: Vec<Evaluation>| Report::new([Run::new("r", plan(3, 2))]).evaluations(evaluations).to_html();
    let alone = page(vec![texts.clone()]);
    assert!(alone.contains("What it writes, without 2 blocks") && !alone.contains("<h2>Tasks</h2>"), "{alone}");
    let whole = page(vec![texts, evaluation("", "")]);
    assert!(whole.contains("<th>items</th><th>whole model</th></tr>") && !whole.contains("paired"), "{whole}");
}

#[test]
fn what_is_no_evaluation_is_refused() {
    let error = Evaluation::parse("e.json", b"{}").unwrap_err().to_string();
    assert!(error.starts_with("e.json: not a usable evaluation"), "{error}");
}
