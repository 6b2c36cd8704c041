//! Which model of a repository is meant.

use crate::model::{ADAPTER, ADAPTER_ADVICE, CONFIG, gguf_models, is_weights, named_models};

/// What of a repository is the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The files of the folder itself, as [`super::folder_files`] has them.
    Folder,
    /// A GGUF file, or all parts of a split one, the first part first.
    Gguf(Vec<String>),
}

/// What is the model in a repository with these files; `file` is the GGUF file that was asked for.
///
/// # Errors
/// What is wrong, and what to do: there is no model, or there are several.
pub(super) fn choose(repository: &str, listed: &[String], file: Option<&str>) -> Result<Choice, (String, String)> {
    let models = gguf_models(listed);
    if let Some(file) = file {
        let advice = || match models.is_empty() {
            true => "give a repository that has GGUF files".to_string(),
            false => format!("it has {}", named_models(&models, "")),
        };
        let found = models.iter().find(|model| model.iter().any(|part| part == file));
        let missing = || (format!("the repository has no file {file}"), advice());
        return found.cloned().map(Choice::Gguf).ok_or_else(missing);
    }
    let has = |name: &str| listed.iter().any(|file| file == name);
    if has(CONFIG) && listed.iter().any(|file| is_weights(file) && !file.contains('/')) {
        return Ok(Choice::Folder);
    }
    match models.as_slice() {
        [only] => return Ok(Choice::Gguf(only.clone())),
        [] => {}
        _ => {
            let advice = format!("give one of {}", named_models(&models, &format!("{repository}/")));
            return Err((format!("the repository has {} GGUF models", models.len()), advice));
        }
    }
    let problem = match () {
        () if has(ADAPTER) => {
            let problem = format!("the repository holds an adapter (LoRA, by its {ADAPTER}), not a model");
            return Err((problem, ADAPTER_ADVICE.into()));
        }
        () if has(CONFIG) => "the repository has no .safetensors, pytorch_model.bin or .gguf files",
        () => "the repository has no config.json, and no .gguf file",
    };
    let advice = "give a repository whose files are a language model's, as transformers or llama.cpp save it";
    Err((problem.into(), advice.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn one_model_of_a_repository_is_chosen() {
        let chosen = |listed: &[&str], file| choose("o/n", &strings(listed), file);
        let gguf = |files: &[&str]| Ok(Choice::Gguf(strings(files)));
        assert_eq!(chosen(&["config.json", "model.safetensors", "x.gguf"], None), Ok(Choice::Folder));
        assert_eq!(chosen(&["config.json", "pytorch_model.bin"], None), Ok(Choice::Folder));
        assert_eq!(chosen(&["config.json", "x.gguf", "mmproj-x.gguf", "README.md"], None), gguf(&["x.gguf"]));
        let split = ["q/x-00001-of-00002.gguf", "q/x-00002-of-00002.gguf"];
        assert_eq!(chosen(&split, None), gguf(&split));
        assert_eq!(chosen(&split, Some(split[0])), gguf(&split));
        assert_eq!(chosen(&["config.json", "model.safetensors", "x.gguf"], Some("x.gguf")), gguf(&["x.gguf"]));
        let message = |listed: &[&str], file| {
            let (problem, advice) = chosen(listed, file).unwrap_err();
            format!("{problem}; {advice}")
        };
        let several = ["a-Q4_0.gguf", "a-Q8_0.gguf", split[0], split[1]];
        let said = message(&several, None);
        assert!(
            said.contains("3 GGUF models") && said.contains("o/n/a-Q4_0.gguf, o/n/a-Q8_0.gguf, o/n/q/x-00001"),
            "{said}"
        );
        let said = message(&several, Some("b.gguf"));
        assert!(said.contains("no file b.gguf; it has a-Q4_0.gguf, a-Q8_0.gguf"), "{said}");
        assert!(message(&["adapter_config.json", "adapter_model.safetensors"], None).contains("adapter"));
        assert!(message(&["config.json", "flax_model.msgpack"], None).contains("no .safetensors"));
        assert!(message(&["README.md", "model.safetensors"], None).contains("no config.json"));
        assert!(message(&["x.bin"], Some("x.gguf")).contains("no file x.gguf"));
    }
}
