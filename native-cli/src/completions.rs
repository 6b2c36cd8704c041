//! `blockpruner completions` and `blockpruner man`: what shells and `man` want to know of the command line.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

use crate::exit::bad_input;
use crate::out_file::OutFile;
use crate::screen;

/// Arguments of `completions`.
#[derive(Args)]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Args)]
pub struct ManArgs {
    /// Folder to write blockpruner.1 and a page for each command to
    #[arg(long)]
    out: PathBuf,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<()> {
    let (name, mut script) = (command.get_name().to_string(), Vec::new());
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    screen::write(&String::from_utf8_lossy(&script))
}

/// Writes the pages.
pub fn man(args: &ManArgs, command: Command) -> anyhow::Result<()> {
    let context = || format!("cannot write manual pages to {}; choose another --out", args.out.display());
    std::fs::create_dir_all(&args.out).map_err(|error| bad_input(format!("{}: {error}", context())))?;
    OutFile::new("--out", &args.out.join("blockpruner.1"), [] as [&Path; 0])?;
    clap_mangen::generate_to(command, &args.out).with_context(context)
}
