//! `blockpruner demo`: the main job on the embedded model and text.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::args::{DeviceArgs, Format, SearchArgs, TextArgs};
use crate::held_out::EvalArgs;
use crate::prune::{self, PruneArgs};
use crate::target::TargetArgs;

/// Arguments of `demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// Folder to write; must be new or empty [default: blockpruner-demo, or blockpruner-demo-2, ...]
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print the plan as one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Prunes the embedded model.
pub async fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let prune = PruneArgs {
        model: "builtin:tiny".into(),
        calibration: None,
        target: TargetArgs::remove(4),
        search: SearchArgs::default(),
        format: Format::Auto,
        dtype: None,
        quantize: None,
        out: args.out.clone().unwrap_or_else(fresh_folder),
        resume: false,
        eval: EvalArgs::default(),
        text: TextArgs { window: Some(128), max_windows: Some(2), ..TextArgs::default() },
        device: args.device.clone(),
        json: args.json,
    };
    prune::run(&prune).await
}

/// The first of `blockpruner-demo`, `blockpruner-demo-2`, .. that is not there or empty.
fn fresh_folder() -> PathBuf {
    let free = |path: &Path| match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !path.exists(),
    };
    let mut path = PathBuf::from("blockpruner-demo");
    let mut number = 2u32;
    while !free(&path) {
        path = PathBuf::from(format!("blockpruner-demo-{number}"));
        number += 1;
    }
    path
}
