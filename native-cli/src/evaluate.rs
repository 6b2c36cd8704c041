//! `blockpruner evaluate`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use blockpruner::eval::{
    Bos, EvaluatedPlan, Evaluation, GENERATION_PROMPTS, Generation, ItemScores, PromptGeneration, Task, TaskItems,
    generation_prompts,
};
use blockpruner::model::BlockSet;
use blockpruner::session::{EvaluateOptions, Evaluating};
use clap::Args;

use crate::args::{DeviceArgs, Removed, RemovedArgs, whole_number};
use crate::event::Event;
use crate::exit::bad_input;
use crate::generate::at_least_one;
use crate::out_file::OutFile;
use crate::progress::EvaluatingBars;
use crate::screen::tell;
use crate::{open, screen};

/// Arguments of `evaluate`.
#[derive(Args)]
pub struct EvaluateArgs {
    /// Hugging Face folder, .gguf file, builtin:tiny or a name on the Hugging Face hub, ORG/NAME[@REVISION]
    #[arg(long)]
    model: String,
    /// A task and the file of its rows, JSON Lines or JSON; can be given for several tasks: piqa, winogrande, hellaswag, arc_easy,
    /// arc_challenge, openbookqa, lambada
    #[arg(long = "tasks", value_name = "NAME=FILE", required_unless_present = "generation")]
    tasks: Vec<TaskFile>,
    /// Take the first N items of each task
    #[arg(long, value_name = "N", requires = "tasks", value_parser = whole_number::<usize>)]
    limit: Option<usize>,
    /// What stands at the front of each text: auto (what the tokenizer puts there, as lm-evaluation-harness does from 0.4.9.2 on)
    /// or never (nothing, as it did before)
    #[arg(long, value_name = "WHEN", requires = "tasks", default_value_t)]
    bos: Bos,
    /// Keep what was found of each item in this file, as JSON Lines
    #[arg(long, value_name = "FILE", requires = "tasks")]
    items: Option<PathBuf>,
    /// Compare item by item with another run's --items file
    #[arg(long, value_name = "FILE", requires = "tasks")]
    against: Option<PathBuf>,
    /// Continue prompts, beside the tasks or alone, by the whole model and without the blocks: those of a file, one a line, or a
    /// dozen that are built in
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    generation: Option<Option<PathBuf>>,
    /// New tokens of each of them at most
    #[arg(long, value_name = "N", default_value_t = 64, requires = "generation", value_parser = at_least_one)]
    max_tokens: usize,
    #[command(flatten)]
    removed: RemovedArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

impl EvaluateArgs {
    /// All files that are read.
    fn inputs(&self) -> impl Iterator<Item = PathBuf> {
        let tasks = self.tasks.iter().map(|task| PathBuf::from(&task.file));
        let prompts = self.generation.iter().flatten().cloned();
        let plan = self.removed.plan().map(Path::to_path_buf);
        tasks.chain(prompts).chain(plan).chain(self.against.clone()).chain(open::model_files(&self.model))
    }
}

/// `piqa=rows.jsonl`.
#[derive(Clone, Debug)]
struct TaskFile {
    task: Task,
    file: String,
}

impl FromStr for TaskFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, file) = text.split_once('=').ok_or("expected NAME=FILE, for example piqa=piqa_validation.jsonl")?;
        let task = name.parse().map_err(|error: blockpruner::eval::EvalError| error.to_string())?;
        match file {
            "" => Err(format!("the file of {task} is missing")),
            _ => Ok(Self { task, file: file.into() }),
        }
    }
}

/// Evaluates and prints.
pub async fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let items_file = args.items.as_deref().map(|path| OutFile::new("--items", path, args.inputs())).transpose()?;
    let tasks = args.tasks.iter().map(|TaskFile { task, file }| TaskItems::open(*task, file, args.limit));
    let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
    for TaskItems { task, file, items, .. } in &tasks {
        tell(&Event::Task { task: *task, file, items: items.len() });
    }
    let against = args.against.as_deref().map(|path| read_items(path, &tasks)).transpose()?;
    let prompts = args.generation.as_ref().map(|file| read_prompts(file.as_deref())).transpose()?;
    let checkpoint = open::checkpoint(&args.model).await?;
    let Removed { blocks: removed, plan, .. } = args.removed.found(&checkpoint.spec)?;
    let session = open::session(&args.device, &checkpoint).await?;
    ctrlc::set_handler(|| {
        screen::end_line();
        tell(&Event::Stopped { text: "stopped; nothing was written".into() });
        std::process::exit(1);
    })
    .context("cannot watch for Ctrl-C")?;

    let mut bars = EvaluatingBars::new(&session);
    let options = EvaluateOptions::default().bos(args.bos).generation(prompts.into_iter().flatten(), args.max_tokens);
    let found = session.evaluate(&tasks, &removed, options, &mut |evaluating: Evaluating| bars.tell(evaluating)).await;
    let (mut evaluation, items) = found?;
    drop(bars);
    evaluation.plan = plan;
    if let Some((file, other)) = &against {
        evaluation.differences = items.differences(file, other)?;
    }
    // Whatever comes of one of the two, the other is not lost.
    let kept = items_file.map_or(Ok(()), |file| file.write(items.to_json_lines().as_bytes()));
    match args.json {
        true => screen::print_json(&evaluation)?,
        false => screen::print_text(&table(&evaluation, against.as_ref().map(|(file, _)| file.as_str())))?,
    }
    Ok(kept?)
}

/// The items of another run, which have to be those of this one.
fn read_items(path: &Path, tasks: &[TaskItems]) -> anyhow::Result<(String, ItemScores)> {
    let file = path.display().to_string();
    let bytes = open::file(path, "give what --items wrote")?;
    let items = ItemScores::parse(&file, &bytes)?;
    items.check_items(&file, tasks)?;
    Ok((file, items))
}

/// The prompts of a file, or those that are built in.
fn read_prompts(path: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let Some(path) = path else { return Ok(GENERATION_PROMPTS.map(str::to_string).to_vec()) };
    let file = path.display().to_string();
    let advice = "give a text with one prompt on each line";
    let text = String::from_utf8(open::file(path, advice)?);
    let text = text.map_err(|_| bad_input(format!("{file}: it is not UTF-8 text; {advice}")))?;
    Ok(generation_prompts(&file, &text)?)
}

/// What was written, for people.
fn written(generation: &Generation) -> String {
    let Generation { prompts, agreement, repetition_dense, repetition_pruned, .. } = generation;
    let mut text = String::new();
    for found in prompts {
        text += &format!("{:?}\n  whole    {:?}\n  without  {:?}\n", found.prompt, found.dense, found.pruned);
    }
    let loops = |which: fn(&PromptGeneration) -> bool| prompts.iter().filter(|found| which(found)).count();
    text + &format!(
        "{agreement:.2} of the tokens agree; {repetition_dense:.2} are repetition, {repetition_pruned:.2} without the blocks; {} of \
         {} end in a loop, {} without the blocks\n",
        loops(|found| found.loops_dense),
        prompts.len(),
        loops(|found| found.loops_pruned)
    )
}

/// The results for people.
fn table(evaluation: &Evaluation, against: Option<&str>) -> String {
    let Evaluation { tasks, removed, plan, mean, differences, .. } = evaluation;
    let mut text = String::new();
    if !tasks.is_empty() {
        text += &format!("{:<14}{:>6}  {:<17}  {:<17}\n", "task", "items", "acc", "acc_norm");
    }
    let with = |value: f64, stderr: Option<f64>| match stderr {
        Some(stderr) => format!("{value:.4} \u{b1} {stderr:.4}"),
        None => format!("{value:.4}"),
    };
    for (task, result) in tasks {
        let acc = with(result.acc, result.acc_stderr);
        let last = match (result.acc_norm, result.perplexity) {
            (Some(norm), _) => with(norm, result.acc_norm_stderr),
            (None, Some(perplexity)) => format!("(perplexity {})", with(perplexity, result.perplexity_stderr)),
            (None, None) => String::new(),
        };
        text += format!("{:<14}{:>6}  {acc:<17}  {last}", task.name(), result.items).trim_end();
        text.push('\n');
    }
    if let Some(mean) = mean {
        let counted = tasks.iter().filter(|(task, result)| result.in_mean(**task).is_some());
        let counted = counted.map(|(task, result)| {
            let what = if result.acc_norm.is_some() { "acc_norm" } else { "acc" };
            format!("{task} {what}")
        });
        text += &format!("mean {mean:.4} ({})\n", counted.collect::<Vec<_>>().join(", "));
    }
    if let Some(file) = against {
        text += &format!("less what {file} has, item by item:\n");
        for (task, difference) in differences {
            let [acc, norm] = [Some(difference.acc), difference.acc_norm].map(|difference| {
                difference.map_or(String::new(), |found| {
                    let sign = if found.difference < 0.0 { "-" } else { "+" };
                    sign.to_string() + &with(found.difference.abs(), found.stderr)
                })
            });
            text += format!("{:<14}{:>6}  {acc:<17}  {norm}", task.name(), "").trim_end();
            text.push('\n');
        }
    }
    text += &evaluation.generation.as_ref().map(written).unwrap_or_default();
    text + &of_what(removed, plan.as_ref())
}

/// Which blocks were gone, if any were.
fn of_what(removed: &BlockSet, plan: Option<&EvaluatedPlan>) -> String {
    match (removed.is_empty(), plan) {
        (true, _) => String::new(),
        (false, Some(EvaluatedPlan { file, step })) => format!("after step {step} of {file}: without {removed}\n"),
        (false, None) => format!("without {removed}\n"),
    }
}
