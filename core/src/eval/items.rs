//! What was found of every item, as `evaluate --items` keeps it, and how two runs over the same items differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metrics::{largest, mean, mean_stderr, perplexity, perplexity_stderr};
use super::{Bos, Difference, EvalError, Item, Task, TaskDifference, TaskItems, TaskResult};
use crate::json;
use crate::score::continuations::Likelihood;

/// The value of `format` in the first line that this version writes and reads.
pub const ITEMS_FORMAT: &str = "blockpruner-items/1";

/// What was found of every item of some tasks. As a file it is JSON Lines: what it was made of, then an item a line.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemScores {
    header: Header,
    /// Task by task, in the order of their files.
    scores: Vec<ItemScore>,
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    format: String,
    bos: Bos,
    tasks: BTreeMap<Task, TaskFile>,
}

impl Header {
    fn new(tasks: &[TaskItems], bos: Bos) -> Self {
        let described = |items: &TaskItems| {
            let (file, sha256) = (items.file.clone(), items.sha256.clone());
            (items.task, TaskFile { file, sha256, items: items.items.len() })
        };
        Self { format: ITEMS_FORMAT.into(), bos, tasks: tasks.iter().map(described).collect() }
    }

    /// Refuses what is not of the same items; `file` is the other's.
    fn check_same(&self, file: &str, other: &Self) -> Result<(), EvalError> {
        let error = |what: String| Err(EvalError::OtherItems { file: file.into(), what });
        let names = |header: &Self| header.tasks.keys().map(|task| task.name()).collect::<Vec<_>>().join(", ");
        let (ours, theirs) = (names(self), names(other));
        if ours != theirs {
            return error(format!("its tasks are {theirs}, here they are {ours}"));
        }
        for ((task, ours), theirs) in self.tasks.iter().zip(other.tasks.values()) {
            if ours.sha256 != theirs.sha256 {
                return error(format!(
                    "{task} was read from {}, which is not the same file as {}",
                    theirs.file, ours.file
                ));
            }
            if ours.items != theirs.items {
                let (ours, theirs) = (ours.items, theirs.items);
                return error(format!("{task} has {theirs} items, here it has {ours}; give the same --limit"));
            }
        }
        Ok(())
    }
}

/// Where items come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct TaskFile {
    file: String,
    sha256: String,
    items: usize,
}

/// How likely the choices of an item are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ItemScore {
    /// Its task.
    pub task: Task,
    /// Its place in the file, from 0.
    pub index: usize,
    /// Which choice is right, from 0.
    pub gold: usize,
    /// Of each choice, in nats.
    pub log_likelihoods: Vec<f64>,
    /// Unicode characters of each choice.
    pub lengths: Vec<usize>,
    /// The likeliest choice, the first of equals; LAMBADA has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<usize>,
    /// The one with the largest log-likelihood a character, where the task has `acc_norm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction_norm: Option<usize>,
    /// Whether the model would have written the word, of LAMBADA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greedy: Option<bool>,
}

impl ItemScore {
    fn new(task: Task, index: usize, item: &Item, likelihoods: &[Likelihood]) -> Self {
        let log_likelihoods: Vec<_> = likelihoods.iter().map(|likelihood| likelihood.log_likelihood).collect();
        let lengths = item.lengths.clone();
        let each = log_likelihoods.iter().zip(&lengths).map(|(value, length)| value / *length as f64);
        let is_choice = task != Task::Lambada;
        Self {
            task,
            index,
            gold: item.gold,
            prediction: is_choice.then(|| largest(log_likelihoods.iter().copied())),
            prediction_norm: (is_choice && task != Task::Winogrande).then(|| largest(each)),
            greedy: (!is_choice).then(|| likelihoods.iter().all(|likelihood| likelihood.is_greedy)),
            log_likelihoods,
            lengths,
        }
    }

    /// 1 for what is right, else 0: of `acc`, and of `acc_norm` where there is one.
    fn right(&self) -> (f64, Option<f64>) {
        let number = |is_right: bool| f64::from(u8::from(is_right));
        let is_right = self.greedy == Some(true) || self.prediction == Some(self.gold);
        (number(is_right), self.prediction_norm.map(|prediction| number(prediction == self.gold)))
    }
}

impl ItemScores {
    /// From the likelihoods of all choices of all items, in order.
    pub(crate) fn new(tasks: &[TaskItems], bos: Bos, likelihoods: &[Likelihood]) -> Self {
        let (mut scores, mut rest) = (Vec::new(), likelihoods);
        for TaskItems { task, items, .. } in tasks {
            for (index, item) in items.iter().enumerate() {
                let (own, others) = rest.split_at(item.lengths.len().min(rest.len()));
                rest = others;
                scores.push(ItemScore::new(*task, index, item, own));
            }
        }
        Self { header: Header::new(tasks, bos), scores }
    }

    /// The items of a task, in the order of its file.
    pub fn of(&self, task: Task) -> impl Iterator<Item = &ItemScore> {
        self.scores.iter().filter(move |score| score.task == task)
    }

    /// What each task comes to; `draws` is for [`TaskResult::perplexity_stderr`].
    pub(crate) fn results(&self, draws: usize) -> BTreeMap<Task, TaskResult> {
        let result = |(task, TaskFile { file, sha256, items }): (&Task, &TaskFile)| {
            let (acc, norm): (Vec<f64>, Vec<Option<f64>>) = self.of(*task).map(ItemScore::right).unzip();
            let norm: Option<Vec<f64>> = norm.into_iter().collect();
            let words = || self.of(*task).flat_map(|score| &score.log_likelihoods).copied().collect::<Vec<_>>();
            let words = (*task == Task::Lambada).then(words);
            let result = TaskResult {
                file: file.clone(),
                sha256: sha256.clone(),
                items: *items,
                acc: mean(&acc),
                acc_stderr: mean_stderr(&acc),
                acc_norm: norm.as_deref().map(mean),
                acc_norm_stderr: norm.as_deref().and_then(mean_stderr),
                perplexity: words.as_deref().map(perplexity),
                perplexity_stderr: words.as_deref().and_then(|words| perplexity_stderr(words, draws)),
            };
            (*task, result)
        };
        self.header.tasks.iter().map(result).collect()
    }

    /// Refuses, before there are results to compare with these, what is not of the same items. `file` is the name used in errors.
    ///
    /// # Errors
    /// As [`ItemScores::differences`].
    pub fn check_items(&self, file: &str, tasks: &[TaskItems]) -> Result<(), EvalError> {
        Header::new(tasks, self.header.bos).check_same(file, &self.header)
    }

    /// How these results differ from `other`'s, over the same items. `file` is the other's name in errors.
    ///
    /// # Errors
    /// [`EvalError::OtherItems`], which names the first thing that is not the same.
    pub fn differences(&self, file: &str, other: &Self) -> Result<BTreeMap<Task, TaskDifference>, EvalError> {
        self.header.check_same(file, &other.header)?;
        let mut differences = BTreeMap::new();
        for task in self.header.tasks.keys() {
            let pairs = || self.of(*task).zip(other.of(*task));
            let norm = |(own, other): (&ItemScore, &ItemScore)| Some(own.right().1? - other.right().1?);
            let acc: Vec<_> = pairs().map(|(own, other)| own.right().0 - other.right().0).collect();
            let norm: Option<Vec<f64>> = pairs().map(norm).collect();
            let of = |values: &[f64]| Difference { difference: mean(values), stderr: mean_stderr(values) };
            differences.insert(*task, TaskDifference { acc: of(&acc), acc_norm: norm.as_deref().map(of) });
        }
        Ok(differences)
    }

    /// The file.
    pub fn to_json_lines(&self) -> String {
        // Strings, numbers and string keys only: there is nothing that serialising could refuse.
        let mut text = serde_json::to_string(&self.header).unwrap_or_default() + "\n";
        for score in &self.scores {
            text += &serde_json::to_string(score).unwrap_or_default();
            text.push('\n');
        }
        text
    }

    /// Reads such a file. `file` is the name used in errors.
    ///
    /// # Errors
    /// [`EvalError::Items`] with the line.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, EvalError> {
        let error = |line: usize, problem: String| EvalError::Items { file: file.into(), line, problem };
        let in_line = |error: &serde_json::Error| json::problem(error, 0).1;
        let text = std::str::from_utf8(bytes).map_err(|e| error(1, e.to_string()))?;
        let mut lines = text.lines().zip(1..);
        let (first, _) = lines.next().ok_or_else(|| error(1, "the file is empty".into()))?;
        let format = serde_json::from_str::<serde_json::Value>(first).map_err(|e| error(1, in_line(&e)))?;
        if format["format"] != ITEMS_FORMAT {
            return Err(error(1, format!("its format is {}, expected \"{ITEMS_FORMAT}\"", format["format"])));
        }
        let header: Header = serde_json::from_value(format).map_err(|e| error(1, e.to_string()))?;
        let mut scores = Vec::new();
        let mut counts: BTreeMap<Task, usize> = BTreeMap::new();
        for (line, number) in lines {
            let score: ItemScore = serde_json::from_str(line).map_err(|e| error(number, in_line(&e)))?;
            let count = counts.entry(score.task).or_default();
            if score.index != *count {
                return Err(error(number, format!("item {} of {}, expected {count}", score.index, score.task)));
            }
            *count += 1;
            scores.push(score);
        }
        for (task, TaskFile { items, .. }) in &header.tasks {
            let found = counts.remove(task).unwrap_or(0);
            if found != *items {
                return Err(error(1, format!("it promises {items} items of {task}, but {found} are there")));
            }
        }
        match counts.pop_first() {
            Some((task, _)) => Err(error(1, format!("it has items of {task}, which its first line does not name"))),
            None => Ok(Self { header, scores }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const PIQA: &str = r#"{"ctx": "q", "choices": ["long one", "ab"], "gold": 1}
{"ctx": "q", "choices": ["abc", "abc"], "gold": 0}
"#;

    fn likelihoods(values: &[(f64, bool)]) -> Vec<Likelihood> {
        values.iter().map(|(value, is_greedy)| Likelihood { log_likelihood: *value, is_greedy: *is_greedy }).collect()
    }

    fn scores(piqa: [f64; 4]) -> ItemScores {
        let piqa_items = TaskItems::from_bytes(Task::Piqa, "p.jsonl", PIQA.as_bytes(), None).unwrap();
        let words = TaskItems::from_bytes(Task::Lambada, "l.jsonl", br#"{"text": "a b"}"#, None).unwrap();
        let values = [piqa.map(|value| (value, false)).to_vec(), vec![(-2.0, true)]].concat();
        ItemScores::new(&[piqa_items, words], Bos::Auto, &likelihoods(&values))
    }

    #[test]
    fn right_is_what_is_likeliest_as_a_whole_or_a_character() {
        // 8 characters against 2: -2.5 a character loses by its length, though it is likelier as a whole.
        let scores = scores([-8.0, -5.0, -3.0, -3.0]);
        let found: Vec<_> = scores.of(Task::Piqa).map(|score| (score.prediction, score.prediction_norm)).collect();
        assert_eq!(found, [(Some(1), Some(0)), (Some(0), Some(0))]);
        let results = scores.results(10);
        let piqa = &results[&Task::Piqa];
        assert_eq!((piqa.acc, piqa.acc_stderr), (1.0, Some(0.0)));
        // 0 and 1.
        assert_eq!((piqa.acc_norm, piqa.acc_norm_stderr), (Some(0.5), Some(0.5)));
        assert_eq!((piqa.perplexity, piqa.in_mean(Task::Piqa)), (None, Some(0.5)));
        let lambada = &results[&Task::Lambada];
        assert_eq!((lambada.acc, lambada.acc_stderr, lambada.acc_norm), (1.0, None, None));
        assert_eq!(lambada.perplexity, Some(2f64.exp()));
    }

    #[test]
    fn files_are_read_as_they_were_written() {
        let scores = scores([-8.0, -5.0, -1.0 / 3.0, -3.0]);
        let text = scores.to_json_lines();
        assert_eq!(ItemScores::parse("i.jsonl", text.as_bytes()).unwrap(), scores);
        assert_eq!(text.lines().count(), 4);
        let message = |text: String| ItemScores::parse("i.jsonl", text.as_bytes()).unwrap_err().to_string();
        let lines: Vec<_> = text.lines().collect();
        let without_last = message(lines[..3].join("\n"));
        assert!(without_last.contains("promises 1 items of lambada, but 0"), "{without_last}");
        let twice = message([lines[0], lines[1], lines[1]].join("\n"));
        assert!(twice.starts_with("i.jsonl: line 3: item 0 of piqa"), "{twice}");
        assert!(message(text.replace("items/1", "items/9")).contains("blockpruner-items/9"));
        assert!(message(String::new()).contains("empty"));
        assert!(message("{}".into()).contains("its format is null"));
        let damaged = message([lines[0], "{\"task\": ?"].join("\n"));
        assert!(damaged.starts_with("i.jsonl: line 2: expected value in column 10;"), "{damaged}");
    }

    #[test]
    fn runs_are_compared_item_by_item() {
        let (one, other) = (scores([-8.0, -5.0, -3.0, -3.0]), scores([-4.0, -5.0, -4.0, -3.0]));
        let differences = one.differences("o", &other).unwrap();
        // Right, right; wrong, wrong.
        assert_eq!(differences[&Task::Piqa].acc, Difference { difference: 1.0, stderr: Some(0.0) });
        // Wrong, right; wrong, wrong.
        let expected = Difference { difference: 0.5, stderr: Some(0.5) };
        assert_eq!(differences[&Task::Piqa].acc_norm, Some(expected));
        let lambada = TaskDifference { acc: Difference { difference: 0.0, stderr: None }, acc_norm: None };
        assert_eq!(differences[&Task::Lambada], lambada);
    }

    #[test]
    fn other_items_are_not_compared() {
        let piqa = |rows: &str, limit| {
            let items = TaskItems::from_bytes(Task::Piqa, "p.jsonl", rows.as_bytes(), limit).unwrap();
            let values = vec![(-1.0, false); items.items.len() * 2];
            ItemScores::new(&[items], Bos::Auto, &likelihoods(&values))
        };
        let own = piqa(PIQA, None);
        let message = |other: &ItemScores| own.differences("o.jsonl", other).unwrap_err().to_string();
        let items = TaskItems::from_bytes(Task::Piqa, "p.jsonl", PIQA.as_bytes(), Some(1)).unwrap();
        assert!(own.check_items("o.jsonl", &[items]).unwrap_err().to_string().contains("2 items, here it has 1"));
        let changed = message(&piqa(&PIQA.replace("abc", "abd"), None));
        assert!(changed.starts_with("o.jsonl: ") && changed.contains("not the same file"), "{changed}");
        assert!(message(&piqa(PIQA, Some(1))).contains("piqa has 1 items, here it has 2"));
        assert!(message(&scores([-1.0; 4])).contains("its tasks are piqa, lambada, here they are piqa"));
    }
}
