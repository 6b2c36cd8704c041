//! `blockpruner report`: plans as an HTML file.

use std::path::PathBuf;

use blockpruner::export::write_atomically;
use blockpruner::report::Report;
use clap::Args;

use crate::runs::RunsArgs;
use crate::screen;

/// Arguments of `report`.
#[derive(Args)]
pub struct ReportArgs {
    #[command(flatten)]
    runs: RunsArgs,
    /// File to write; one that is there is replaced
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Writes the report.
pub async fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let runs = args.runs.read()?;
    let plans = runs.len();
    let html = Report::new(runs).to_html();
    write_atomically(&args.out, html.as_bytes())?;
    match args.json {
        true => screen::print_json(&serde_json::json!({ "out": args.out, "plans": plans, "bytes": html.len() })),
        false => screen::print_text(&format!("wrote {}\n", args.out.display())),
    }
}
