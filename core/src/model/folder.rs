//! The files of a Hugging Face folder: which of them count, and what a folder is that is none.

use std::rc::Rc;

use super::error::ModelError;
use crate::file_kind::FileKind;
use crate::weights::{ByteSource, NamedSources, Weights, pytorch, safetensors};

pub(crate) const CONFIG: &str = "config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";
pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// What PyTorch's own format is called, where there are no safetensors.
pub(super) const PYTORCH_SINGLE: &str = "pytorch_model.bin";
pub(super) const PYTORCH_INDEX: &str = "pytorch_model.bin.index.json";
/// What makes a folder one of an adapter, which changes another model.
pub(crate) const ADAPTER: &str = "adapter_config.json";
/// What to do with such a folder.
pub(crate) const ADAPTER_ADVICE: &str = "merge it into its model first (PEFT: merge_and_unload(), then \
    save_pretrained(folder)), and give that folder";

/// What models' folders in the hub's cache begin with, before `org--name`.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) const CACHED: &str = "models--";

/// Files that an exported folder takes over as they are. Not README.md: it describes another model.
pub(super) const CARRIED: [&str; 13] = [
    TOKENIZER,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    GENERATION_CONFIG,
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    // How images are read.
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
];

/// Files with weights, and the text of their index if they are shards.
type WeightFiles = (Vec<Rc<dyn ByteSource>>, Option<Vec<u8>>);

/// A model folder's files.
pub(super) struct Folder<'a> {
    pub name: &'a str,
    pub files: NamedSources,
    /// Files that lie elsewhere, to which the folder has only links: they are read, and not carried over.
    pub elsewhere: Vec<String>,
}

pub(super) fn file_error(file: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> ModelError {
    ModelError::File { file: file.into(), problem: problem.into(), advice: advice.into() }
}

impl Folder<'_> {
    pub fn get(&self, name: &str) -> Option<&Rc<dyn ByteSource>> {
        self.files.iter().find(|(file, _)| file == name).map(|(_, source)| source)
    }

    /// The first file of which `wanted` is true.
    fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<&str> {
        self.files.iter().map(|(file, _)| file.as_str()).find(|file| wanted(file))
    }

    /// Whether a file goes along when the model is exported.
    pub fn carries(&self, file: &str) -> bool {
        is_carried(file) && !self.elsewhere.iter().any(|other| other == file)
    }

    pub fn without_config(&self) -> ModelError {
        let (problem, advice) = match () {
            () if self.get(ADAPTER).is_some() => {
                return self.adapter();
            }
            () => match self.find(|file| file.ends_with(".gguf")) {
                Some(file) => {
                    ("the folder has no config.json", format!("give the path of the GGUF file itself, {file}"))
                }
                None => (
                    "the folder has no config.json",
                    "give the folder that holds config.json and model.safetensors".into(),
                ),
            },
        };
        file_error(self.name, problem, advice)
    }

    fn adapter(&self) -> ModelError {
        let problem = format!("the folder holds an adapter (LoRA, by its {ADAPTER}), not a model");
        file_error(self.name, problem, ADAPTER_ADVICE)
    }

    /// One `model.safetensors`, or the shards of an index, or the only `.safetensors` file there is; if there is none of them, the
    /// same of PyTorch's own format.
    pub async fn weights(&self) -> Result<Weights, ModelError> {
        if let Some((sources, index)) = self.files_of(SINGLE, INDEX, is_safetensors).await? {
            return Ok(safetensors::open(sources, index.as_deref()).await?);
        }
        if let Some((sources, index)) = self.files_of(PYTORCH_SINGLE, PYTORCH_INDEX, is_pytorch).await? {
            return Ok(pytorch::open(sources, index.as_deref()).await?);
        }
        Err(self.without_weights())
    }

    /// The files of one format; None if there are neither such files nor their index.
    async fn files_of(
        &self,
        single: &str,
        index: &str,
        wanted: fn(&str) -> bool,
    ) -> Result<Option<WeightFiles>, ModelError> {
        if let Some(single) = self.get(single) {
            return Ok(Some((vec![single.clone()], None)));
        }
        let files = self.files.iter().filter(|(file, _)| wanted(file));
        let sources: Vec<_> = files.map(|(_, source)| source.clone()).collect();
        let Some(found) = self.get(index) else { return Ok((!sources.is_empty()).then_some((sources, None))) };
        if sources.is_empty() {
            let advice = "put the files that it names beside it";
            return Err(file_error(self.name, format!("the folder has {index} but none of its shards"), advice));
        }
        Ok(Some((sources, Some(read_all(found.as_ref()).await?))))
    }

    fn without_weights(&self) -> ModelError {
        if self.get(ADAPTER).is_some() {
            return self.adapter();
        }
        if let Some(file) = self.find(is_unfinished) {
            let problem = format!("the folder has no {SINGLE}, and {file} is an unfinished download");
            return file_error(self.name, problem, "let it finish, or download the model again");
        }
        if let Some(file) = self.find(is_other_pickle) {
            let problem = format!("the folder has no {SINGLE}, but {file}");
            let advice = format!(
                "if it holds the model's tensors by the names of transformers, call it {PYTORCH_SINGLE}; else load it in \
                transformers and call save_pretrained(folder), or take the published .safetensors files"
            );
            return file_error(self.name, problem, advice);
        }
        if let Some(file) = self.find(|file| file.ends_with(".gguf")) {
            let problem = format!("the folder has no {SINGLE}, but a GGUF file");
            return file_error(self.name, problem, format!("give the path of that file itself, {file}"));
        }
        let advice = format!("put it there, or its shards with {INDEX}");
        file_error(self.name, format!("the folder has no {SINGLE}"), advice)
    }
}

/// Whether a file is one of a folder's weights, by its name.
pub(crate) fn is_weights(file: &str) -> bool {
    is_safetensors(file) || is_pytorch(file)
}

fn is_safetensors(file: &str) -> bool {
    file.ends_with(".safetensors")
}

fn is_pytorch(file: &str) -> bool {
    file.starts_with("pytorch_model") && file.ends_with(".bin")
}

/// Files of PyTorch whose names do not say that they are a model's weights.
fn is_other_pickle(file: &str) -> bool {
    file.ends_with(".pth") || file.ends_with(".pt")
}

/// As programs name files that they are still downloading.
fn is_unfinished(file: &str) -> bool {
    [".part", ".partial", ".incomplete", ".aria2", ".crdownload", ".download"].iter().any(|end| file.ends_with(end))
}

/// Whether a file is one that an exported folder takes over.
pub(crate) fn is_carried(file: &str) -> bool {
    CARRIED.contains(&file) || is_licence(file)
}

/// Licences have whole names: what only begins like one may be a program.
fn is_licence(file: &str) -> bool {
    let name = file.to_ascii_lowercase();
    let (stem, extension) = name.split_once('.').unwrap_or((&name, ""));
    ["license", "licence"].contains(&stem) && ["", "txt", "md"].contains(&extension)
}

/// All bytes of a small file.
pub(super) async fn read_all(source: &dyn ByteSource) -> Result<Vec<u8>, ModelError> {
    let len = usize::try_from(source.len())
        .map_err(|_| file_error(source.name(), format!("{} bytes do not fit the memory", source.len()), "check it"))?;
    Ok(source.read(0, len).await?)
}

/// What a file is by its first bytes.
pub(super) async fn kind_of(source: &dyn ByteSource) -> Result<Option<FileKind>, ModelError> {
    let start = source.read(0, source.len().min(FileKind::START as u64) as usize).await?;
    Ok(FileKind::of(&start))
}

#[cfg(not(target_arch = "wasm32"))]
pub(super) mod on_disk {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::model::Checkpoint;
    use crate::weights::{BytesSource, FileSource};

    /// The folder itself, or, if it is a model's folder in the Hugging Face hub's cache (`models--..`), the snapshot in it.
    pub fn snapshot(folder: &Path) -> Result<PathBuf, ModelError> {
        let snapshots = folder.join("snapshots");
        if folder.join(CONFIG).exists() || !snapshots.is_dir() {
            return Ok(folder.to_path_buf());
        }
        let main = fs::read_to_string(folder.join("refs").join("main")).unwrap_or_default();
        let named = snapshots.join(main.trim());
        if !main.trim().is_empty() && !main.contains(['/', '\\']) && named.is_dir() {
            return Ok(named);
        }
        let mut found: Vec<PathBuf> =
            fs::read_dir(&snapshots).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        found.sort();
        match (found.pop(), found.is_empty()) {
            (Some(only), true) => Ok(only),
            _ => {
                let advice = format!("give one of the folders in {}", snapshots.display());
                Err(file_error(folder.display().to_string(), "it is a folder of the hub's cache, not a model", advice))
            }
        }
    }

    /// The files of a folder that matter to a model, each opened, and the names of those that are links to elsewhere.
    pub fn files(folder: &Path) -> Result<(NamedSources, Vec<String>), ModelError> {
        let unreadable = |error: std::io::Error| {
            file_error(folder.display().to_string(), format!("cannot be read ({error})"), "check its permissions")
        };
        let home = home(&folder.canonicalize().map_err(unreadable)?);
        let (mut files, mut elsewhere) = (NamedSources::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let telling = [CONFIG, INDEX, PYTORCH_INDEX].contains(&name) || is_carried(name);
            if path.is_file() && (telling || is_weights(name)) {
                files.push((name.to_string(), Rc::new(FileSource::open(&path)?)));
                if !path.canonicalize().map_err(unreadable)?.starts_with(&home) {
                    elsewhere.push(name.to_string());
                }
            } else if name == ADAPTER || is_other_pickle(name) || is_unfinished(name) || name.ends_with(".gguf") {
                // Named in the error if there is nothing better; never read.
                files.push((name.to_string(), Rc::new(BytesSource::new(name, Vec::new()))));
            }
        }
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        elsewhere.sort();
        Ok((files, elsewhere))
    }

    /// The files beside the GGUF file at `path` that its name says belong to the same model.
    pub fn other_parts(path: &Path) -> Result<Vec<Rc<dyn ByteSource>>, ModelError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let others = Checkpoint::gguf_parts(name).filter(|part| part != name).map(|part| path.with_file_name(part));
        let open = |path: PathBuf| Ok(Rc::new(FileSource::open(path)?) as Rc<dyn ByteSource>);
        others.filter(|path| path.exists()).map(open).collect()
    }

    /// The folder to which what is in it may link: itself, or in the hub's cache (`models--../snapshots/..`) the model's.
    fn home(folder: &Path) -> PathBuf {
        cached_model(folder).unwrap_or(folder).to_path_buf()
    }

    /// `org/name`, where the folder is a snapshot of that repository in the hub's cache.
    pub fn repository(folder: &Path) -> Option<String> {
        let name = cached_model(folder)?.file_name()?.to_str()?;
        Some(name.strip_prefix(CACHED)?.replacen("--", "/", 1))
    }

    /// Of a snapshot in the hub's cache, the folder of its model.
    fn cached_model(folder: &Path) -> Option<&Path> {
        let model = folder.parent().filter(|parent| parent.ends_with("snapshots")).and_then(Path::parent);
        model.filter(|model| model.file_name().is_some_and(|name| name.to_string_lossy().starts_with(CACHED)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_licences_and_known_files_are_carried() {
        for name in ["LICENSE", "License.txt", "LICENCE.md", "tokenizer_config.json", "merges.txt"] {
            assert!(is_carried(name), "{name}");
        }
        for name in ["license_code.py", "LICENSE.py", "LICENSE.txt.sh", "licenses", "README.md", "modeling_llama.py"] {
            assert!(!is_carried(name), "{name}");
        }
    }
}
