//! The tasks, and how a row becomes what a model is asked: the rules of the task files of lm-evaluation-harness, which are the
//! same in all versions from 0.4.0 on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::EvalError;
use super::rows::Fields;

/// A zero-shot task. Its name decides how its rows become prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Task {
    /// PIQA (Bisk et al., 2020).
    Piqa,
    /// WinoGrande (Sakaguchi et al., 2020).
    Winogrande,
    /// HellaSwag (Zellers et al., 2019).
    Hellaswag,
    /// ARC-easy (Clark et al., 2018).
    ArcEasy,
    /// ARC-challenge (Clark et al., 2018).
    ArcChallenge,
    /// OpenBookQA (Mihaylov et al., 2018).
    Openbookqa,
    /// LAMBADA (Paperno et al., 2016) as OpenAI has it.
    Lambada,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Piqa,
        Self::Winogrande,
        Self::Hellaswag,
        Self::ArcEasy,
        Self::ArcChallenge,
        Self::Openbookqa,
        Self::Lambada,
    ];

    /// As files and the command line have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Piqa => "piqa",
            Self::Winogrande => "winogrande",
            Self::Hellaswag => "hellaswag",
            Self::ArcEasy => "arc_easy",
            Self::ArcChallenge => "arc_challenge",
            Self::Openbookqa => "openbookqa",
            Self::Lambada => "lambada",
        }
    }
}

/// A question: texts and what may follow them, one of which is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Row of its file, from 1.
    pub row: usize,
    /// Of one text with all choices behind it, or, for WinoGrande, of one text with one continuation for each choice.
    pub(super) prompts: Vec<TextPrompt>,
    /// Unicode characters of each choice.
    pub(super) lengths: Vec<usize>,
    /// Which choice is right, from 0.
    pub(super) gold: usize,
}

/// A text and what may follow it, the space in front included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextPrompt {
    pub context: String,
    pub continuations: Vec<String>,
}

impl Task {
    /// The item of a row, or what is wrong with the row.
    pub(super) fn item(self, row: usize, fields: &Fields<'_>) -> Result<Item, String> {
        let (prompts, choices, gold) = match self {
            Self::Lambada => {
                let text = fields.text("text")?;
                let (context, word) = text.rsplit_once(' ').unwrap_or(("", text));
                let prompt = TextPrompt { context: context.into(), continuations: vec![format!(" {word}")] };
                (vec![prompt], vec![word.to_string()], 0)
            }
            Self::Winogrande => {
                let (sentence, choices, gold) = winogrande(fields)?;
                let place = sentence.split_once('_');
                let (before, behind) = place.ok_or("there is no `_` in its sentence for the options to stand at")?;
                let prompt = |option: &String| TextPrompt {
                    context: format!("{before}{option}"),
                    continuations: vec![format!(" {}", behind.trim())],
                };
                (choices.iter().map(prompt).collect(), choices, gold)
            }
            _ => {
                let (context, choices, gold) = self.question(fields)?;
                let continuations = choices.iter().map(|choice| format!(" {choice}")).collect();
                (vec![TextPrompt { context, continuations }], choices, gold)
            }
        };
        if gold >= choices.len() {
            return Err(format!("choice {gold}, counted from 0, is to be right, but there are {}", choices.len()));
        }
        if choices.len() < 2 && self != Self::Lambada {
            return Err(format!("there are {} choices, expected at least 2", choices.len()));
        }
        let lengths = choices.iter().map(|choice| choice.chars().count()).collect();
        Ok(Item { row, prompts, lengths, gold })
    }

    /// The text of a question, its choices, and which of them is right.
    fn question(self, fields: &Fields<'_>) -> Result<(String, Vec<String>, usize), String> {
        let asked = |question: &str| format!("Question: {question}\nAnswer:");
        if fields.are_simple() {
            let context = fields.text("ctx")?;
            let context = match self {
                Self::Hellaswag | Self::Openbookqa => context.into(),
                _ => asked(context),
            };
            return Ok((context, fields.texts("choices")?, fields.index("gold", 0)?));
        }
        match self {
            Self::Piqa => {
                let choices = vec![fields.text("sol1")?.into(), fields.text("sol2")?.into()];
                Ok((asked(fields.text("goal")?), choices, fields.index("label", 0)?))
            }
            Self::Hellaswag => {
                let (a, b) = (fields.text("ctx_a")?, capitalised(fields.text("ctx_b")?));
                let context = cleaned(&format!("{}: {a} {b}", fields.text("activity_label")?));
                let endings = fields.texts("endings")?.iter().map(|ending| cleaned(ending)).collect();
                Ok((context, endings, fields.index("label", 0)?))
            }
            _ => {
                let context = match self {
                    Self::Openbookqa => fields.text("question_stem")?.into(),
                    _ => asked(fields.text("question")?),
                };
                let choices = fields.object("choices")?;
                let (texts, labels) = (choices.texts("text")?, choices.texts("label")?);
                let key = fields.text("answerKey")?;
                let key = if self == Self::Openbookqa { key.trim_start() } else { key };
                let gold = labels.iter().position(|label| label == key);
                let gold = gold.ok_or_else(|| format!("its `answerKey` {key:?} is none of the labels {labels:?}"))?;
                Ok((context, texts, gold))
            }
        }
    }
}

/// The sentence, its options, and which of them is right.
fn winogrande<'a>(fields: &Fields<'a>) -> Result<(&'a str, Vec<String>, usize), String> {
    if fields.are_simple() {
        return Ok((fields.text("ctx")?, fields.texts("choices")?, fields.index("gold", 0)?));
    }
    let options = vec![fields.text("option1")?.into(), fields.text("option2")?.into()];
    Ok((fields.text("sentence")?, options, fields.index("answer", 1)?))
}

/// The first letter upper, the others lower, as Python's `capitalize`.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(letters.as_str().to_lowercase().chars()).collect()
}

/// HellaSwag's texts without the marks of WikiHow.
fn cleaned(text: &str) -> String {
    let text = text.trim().replace(" [title]", ". ");
    let (mut kept, mut rest) = (String::with_capacity(text.len()), text.as_str());
    while let Some((before, behind)) = rest.split_once('[') {
        kept += before;
        // What is in brackets goes, but no bracket reaches over a line.
        rest = match behind.split_once(']') {
            Some((inside, behind)) if !inside.contains('\n') => behind,
            _ => {
                kept.push('[');
                behind
            }
        };
    }
    (kept + rest).replace("  ", " ")
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Task {
    type Err = EvalError;

    fn from_str(name: &str) -> Result<Self, EvalError> {
        let task = Self::ALL.into_iter().find(|task| task.name() == name);
        task.ok_or_else(|| EvalError::NoSuchTask { name: name.into() })
    }
}

impl Serialize for Task {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Task {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn item(task: Task, row: Value) -> Result<Item, String> {
        task.item(7, &Fields::of(&row).unwrap())
    }

    /// What is asked, what may follow, and which of it is right, as the harness's task files render the rows.
    #[test]
    fn prompts_are_those_of_the_harness() {
        let arc = json!({ "question": "Why?", "choices": { "text": ["Sun", "Rain"], "label": ["1", "2"] }, "answerKey": "2" });
        let hub = [
            (
                Task::Piqa,
                json!({ "goal": "Cut it", "sol1": "knife ", "sol2": "spoon", "label": 0 }),
                ("Question: Cut it\nAnswer:", vec![" knife ", " spoon"], 0),
            ),
            (
                Task::Hellaswag,
                json!({
                    "activity_label": "Baking [step] cake", "ctx_a": "Mix.", "ctx_b": "the MAN", "ctx": "Mix. the MAN",
                    "endings": ["stirs  it [substeps] well.", " runs [title] away."], "label": "1",
                }),
                ("Baking cake: Mix. The man", vec![" stirs it well.", " runs. away."], 1),
            ),
            (Task::ArcEasy, arc.clone(), ("Question: Why?\nAnswer:", vec![" Sun", " Rain"], 1)),
            (Task::ArcChallenge, arc, ("Question: Why?\nAnswer:", vec![" Sun", " Rain"], 1)),
            (
                Task::Openbookqa,
                json!({ "question_stem": "Frogs eat", "choices": { "text": ["x", "y"], "label": ["A", "B"] }, "answerKey": " A" }),
                ("Frogs eat", vec![" x", " y"], 0),
            ),
            (Task::Lambada, json!({ "text": "He saw  her face" }), ("He saw  her", vec![" face"], 0)),
            (Task::Lambada, json!({ "text": "Yes" }), ("", vec![" Yes"], 0)),
        ];
        for (task, row, (context, continuations, gold)) in hub {
            let item = item(task, row).unwrap();
            let continuations = continuations.into_iter().map(String::from).collect();
            assert_eq!(item.prompts, [TextPrompt { context: context.into(), continuations }], "{task}");
            assert_eq!((item.gold, item.row), (gold, 7), "{task}");
        }
    }

    #[test]
    fn winogrande_asks_what_comes_behind_each_option() {
        let row = json!({ "sentence": "Ann met Eve so _ was glad. ", "option1": "Ann", "option2": "Eve\u{e9}", "answer": "2" });
        let simple = json!({ "ctx": "Ann met Eve so _ was glad. ", "choices": ["Ann", "Eve\u{e9}"], "gold": 1 });
        for row in [row, simple] {
            let item = item(Task::Winogrande, row).unwrap();
            let prompt =
                |context: &str| TextPrompt { context: context.into(), continuations: vec![" was glad.".into()] };
            assert_eq!(item.prompts, [prompt("Ann met Eve so Ann"), prompt("Ann met Eve so Eve\u{e9}")]);
            assert_eq!((item.gold, item.lengths), (1, vec![3, 4]));
        }
    }

    #[test]
    fn simple_rows_ask_the_same() {
        let pairs = [
            (
                Task::Piqa,
                json!({ "goal": "Cut it", "sol1": "a", "sol2": "b", "label": 1 }),
                json!({ "ctx": "Cut it", "choices": ["a", "b"], "gold": 1 }),
            ),
            (
                Task::ArcEasy,
                json!({ "question": "Why?", "choices": { "text": ["a", "b"], "label": ["A", "B"] }, "answerKey": "B" }),
                json!({ "ctx": "Why?", "choices": ["a", "b"], "gold": 1 }),
            ),
            (
                Task::Openbookqa,
                json!({ "question_stem": "It is", "choices": { "text": ["a", "b"], "label": ["A", "B"] }, "answerKey": "B" }),
                json!({ "ctx": "It is", "choices": ["a", "b"], "gold": 1 }),
            ),
            (
                Task::Hellaswag,
                json!({ "activity_label": "Run", "ctx_a": "A", "ctx_b": "b", "endings": ["a", "b"], "label": 1 }),
                json!({ "ctx": "Run: A B", "choices": ["a", "b"], "gold": 1 }),
            ),
        ];
        for (task, hub, simple) in pairs {
            assert_eq!(item(task, hub).unwrap(), item(task, simple).unwrap(), "{task}");
        }
    }

    #[test]
    fn hellaswag_is_cleaned_as_the_harness_does() {
        assert_eq!(cleaned(" a [title] b [x] c "), "a. b c");
        assert_eq!(cleaned("a [b\nc] d [e]"), "a [b\nc] d ");
        assert_eq!(cleaned("a [b [c] d] e    f"), "a d] e  f");
        assert_eq!((capitalised("the MAN"), capitalised("")), ("The man".into(), String::new()));
    }

    #[test]
    fn bad_rows_say_what_is_wrong() {
        let piqa = |label: Value| json!({ "goal": "g", "sol1": "a", "sol2": "b", "label": label });
        let cases = [
            (Task::Piqa, json!({ "goal": "g", "sol1": "a", "label": 0 }), "no field `sol2`"),
            (Task::Piqa, piqa(json!(-1)), "`label` is -1"),
            (Task::Piqa, piqa(json!(2)), "choice 2"),
            (Task::Piqa, piqa(json!("")), "`label` is \"\""),
            (Task::Piqa, piqa(json!([])), "`label` is an array"),
            (Task::Piqa, json!({ "goal": 3, "sol1": "a", "sol2": "b", "label": 0 }), "`goal` is a number"),
            (Task::Winogrande, json!({ "sentence": "none", "option1": "a", "option2": "b", "answer": "1" }), "no `_`"),
            (
                Task::Winogrande,
                json!({ "sentence": "_", "option1": "a", "option2": "b", "answer": "0" }),
                "`answer` is \"0\"",
            ),
            (
                Task::ArcEasy,
                json!({ "question": "q", "choices": { "text": ["a", "b"], "label": ["A", "B"] }, "answerKey": "E" }),
                "\"E\"",
            ),
            (
                Task::ArcEasy,
                json!({ "question": "q", "choices": ["a", "b"], "answerKey": "A" }),
                "`choices` is an array",
            ),
            (Task::Hellaswag, json!({ "ctx": "c", "choices": ["a", 1], "gold": 0 }), "`choices` has a number"),
            (Task::Hellaswag, json!({ "ctx": "c", "choices": ["a"], "gold": 0 }), "1 choices"),
            (Task::Lambada, json!({ "passage": "p" }), "no field `text`"),
        ];
        for (task, row, expected) in cases {
            let problem = item(task, row.clone()).unwrap_err();
            assert!(problem.contains(expected), "{row}: {problem}");
        }
    }
}
