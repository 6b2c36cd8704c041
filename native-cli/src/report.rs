//! `blockpruner report`: plans as an HTML file.

use std::path::{Path, PathBuf};

use blockpruner::eval::Evaluation;
use blockpruner::report::{Report, Run};
use clap::Args;

use crate::out_file::OutFile;
use crate::runs::RunsArgs;
use crate::{open, screen};

/// Arguments of `report`.
#[derive(Args)]
pub struct ReportArgs {
    #[command(flatten)]
    runs: RunsArgs,
    /// What `evaluate --json` printed, of the whole model or a pruned one; may be given again
    #[arg(long = "evaluation", value_name = "FILE")]
    evaluations: Vec<PathBuf>,
    /// File to write; one that is there is replaced
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Writes the report.
pub async fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let out = OutFile::new("--out", &args.out, args.runs.files().chain(args.evaluations.iter().cloned()))?;
    let runs = args.runs.read()?;
    let plans = runs.len();
    let evaluations = args.evaluations.iter().map(|path| evaluated(path));
    let evaluations = evaluations.collect::<anyhow::Result<Vec<_>>>()?;
    for evaluation in &evaluations {
        let knows = |run: &Run| run.plan.model.parameters == evaluation.model.parameters;
        if !runs.iter().any(knows) {
            screen::warn(format!("an evaluation is of {}, which no plan is of", evaluation.model.name));
        }
    }
    let html = Report::new(runs).evaluations(evaluations).to_html();
    out.write(html.as_bytes())?;
    match args.json {
        true => screen::print_json(&serde_json::json!({ "out": args.out, "plans": plans, "bytes": html.len() })),
        false => screen::print_text(&format!("wrote {}\n", args.out.display())),
    }
}

fn evaluated(path: &Path) -> anyhow::Result<Evaluation> {
    let shown = path.display().to_string();
    let bytes = open::file(path, "see --evaluation")?;
    Ok(Evaluation::parse(&shown, &bytes)?)
}
