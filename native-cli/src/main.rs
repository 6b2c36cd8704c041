//! `blockpruner`: the command line. One file a command; what they share is in `args`, `open`, `out_file`, `hub`, `runs`, `size`,
//! `progress`, `event`, `screen`, `exit` and `ctrl_c`. Results go to stdout, everything else is told on stderr, as an [`event::Event`].

mod args;
mod bench;
mod command_line;
mod compare;
mod completions;
mod ctrl_c;
mod demo;
mod devices;
mod evaluate;
mod event;
mod exit;
mod export;
mod generate;
mod held_out;
#[cfg(feature = "hub")]
mod hub;
mod inspect;
mod kept_pipelines;
mod open;
mod out_file;
mod perplexity;
mod progress;
mod prune;
mod report;
mod runs;
mod screen;
mod search;
mod size;
mod strategy;
mod target;

use std::process::ExitCode;

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

use event::Event;
use screen::OutputArgs;

/// Make a large language model smaller: remove the attention and feed-forward blocks that it misses least, on any GPU.
#[derive(Parser)]
#[command(name = "blockpruner", version, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Find the blocks that a model misses least, remove them and write the smaller model
    Prune(prune::PruneArgs),
    /// Measure the perplexity of a text, with or without some blocks
    Perplexity(perplexity::PerplexityArgs),
    /// Measure the accuracy on zero-shot tasks, with or without some blocks
    Evaluate(evaluate::EvaluateArgs),
    /// Write the model after a step of a plan, or without blocks that are named
    Export(export::ExportArgs),
    /// Continue a prompt, with or without some blocks
    Generate(generate::GenerateArgs),
    /// Compare plans: what they removed, and what that cost
    Compare(compare::CompareArgs),
    /// Show plans as an HTML file: plots, the map of blocks, every score
    Report(report::ReportArgs),
    /// Show a model's architecture, blocks, parameters and memory plan
    Inspect(inspect::InspectArgs),
    /// List the devices of this machine
    Devices(devices::DevicesArgs),
    /// Measure this device, every kernel of a forward pass on it, and a search if asked for
    Bench(bench::BenchArgs),
    /// Prune the embedded model: everything works without a download
    Demo(demo::DemoArgs),
    /// Print a script that completes commands and options in a shell
    Completions(completions::CompletionsArgs),
    /// Write the manual pages
    Man(completions::ManArgs),
}

/// Mesa's layer that chooses the default device asks the desktop which one it uses. Where there is no desktop, libwayland
/// complains of that, in lines that look like ours; so the layer is left out there, unless it is told what to choose.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the environment is the layer's only switch")]
fn silence_desktop_layer() {
    let names = ["XDG_RUNTIME_DIR", "MESA_VK_DEVICE_SELECT", "DRI_PRIME", "NODEVICE_SELECT"];
    if names.iter().all(|name| std::env::var_os(name).is_none()) {
        // SAFETY: no other thread runs yet that could read the environment.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

/// The command line. What an option says of a negative number is its own: it is no unknown option.
fn parsed() -> Cli {
    let with_negative = |arg: Arg| {
        let takes_values = arg.get_action().takes_values();
        if takes_values { arg.allow_negative_numbers(true) } else { arg }
    };
    let command = Cli::command().mut_subcommands(|command| command.mut_args(with_negative));
    Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    silence_desktop_layer();
    let filter = tracing_subscriber::EnvFilter::try_from_env("BLOCKPRUNER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let cli = parsed();
    screen::set_output(cli.output);
    let done = pollster::block_on(async {
        match cli.command {
            Command::Prune(args) => prune::run(&args).await,
            Command::Perplexity(args) => perplexity::run(&args).await,
            Command::Evaluate(args) => evaluate::run(&args).await,
            Command::Export(args) => export::run(&args).await,
            Command::Generate(args) => generate::run(&args).await,
            Command::Compare(args) => compare::run(&args).await,
            Command::Report(args) => report::run(&args).await,
            Command::Inspect(args) => inspect::run(&args).await,
            Command::Devices(args) => devices::run(&args).await,
            Command::Bench(args) => bench::run(&args).await,
            Command::Demo(args) => demo::run(&args).await,
            Command::Completions(args) => completions::run(&args, Cli::command()),
            Command::Man(args) => completions::man(&args, Cli::command()),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (exit_code, text) = (exit::code(&error), format!("{error:#}"));
            match error.downcast_ref() {
                Some(exit::Stopped::Asked) => screen::tell(&Event::Stopped { text }),
                _ => screen::tell(&Event::Error { text, hint: exit::hint(&error), exit_code }),
            }
            ExitCode::from(exit_code)
        }
    }
}
