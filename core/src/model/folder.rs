//! The files of a Hugging Face folder: which of them count, and what a folder is that is none.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::Checkpoint;
use super::error::ModelError;
use crate::file_kind::FileKind;
use crate::weights::{ByteSource, NamedSources, Weights, WeightsError, base_name, pytorch, safetensors};

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

/// What makes a folder one of sentence-transformers.
const EMBEDDING: &str = "config_sentence_transformers.json";
/// What makes a folder one of Diffusers.
const PIPELINE: &str = "model_index.json";
/// How names end of files in formats that are not read, and what these are.
const OTHER_FORMATS: [(&str, &str); 8] = [
    (".onnx", "ONNX"),
    (".h5", "TensorFlow"),
    (".msgpack", "Flax"),
    (".tflite", "TensorFlow Lite"),
    (".ckpt", "TensorFlow or PyTorch Lightning"),
    (".npz", "NumPy"),
    (".ot", "Rust's bindings of PyTorch"),
    (".mlmodel", "Core ML"),
];
/// What to do with them.
const OTHER_FORMATS_ADVICE: &str = "take the model as safetensors, pytorch_model.bin or GGUF, which are read";

/// Bytes of a vocabulary or an index that are read at most, several times those of the largest that are published,
const LONG_LIMIT: u64 = 256 << 20;
/// and of any other small file.
const SMALL_LIMIT: u64 = 32 << 20;

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

    /// Whether a file lies in the folder itself, so that what is in it may go into exports.
    pub fn is_own(&self, file: &str) -> bool {
        !self.elsewhere.iter().any(|other| other == file)
    }

    pub fn without_config(&self) -> ModelError {
        let missing = format!("the folder has no {CONFIG}");
        self.no_model().or_else(|| self.in_place_of(&missing)).unwrap_or_else(|| {
            file_error(self.name, missing, format!("give the folder that holds {CONFIG} and {SINGLE}"))
        })
    }

    /// What the folder is, if it is known for one of something else.
    fn no_model(&self) -> Option<ModelError> {
        if self.get(ADAPTER).is_some() {
            let problem = format!("the folder holds an adapter (LoRA, by its {ADAPTER}), not a model");
            return Some(file_error(self.name, problem, ADAPTER_ADVICE));
        }
        self.get(PIPELINE)?;
        let problem = format!("the folder holds a pipeline of Diffusers (by its {PIPELINE}), not a language model");
        Some(file_error(self.name, problem, "give the folder of a language model, as transformers saves it"))
    }

    /// What the folder has in place of what is missing, if that is known.
    fn in_place_of(&self, missing: &str) -> Option<ModelError> {
        let error = |problem: String, advice: &str| Some(file_error(self.name, problem, advice));
        let files: Vec<String> = self.files.iter().map(|(file, _)| file.clone()).collect();
        let models = gguf_models(&files);
        let named = named_models(&models, "");
        match models.len() {
            0 => {}
            1 => {
                return error(
                    format!("{missing}, but a GGUF file"),
                    &format!("give the path of that file itself, {named}"),
                );
            }
            _ => return error(format!("{missing}, but GGUF files"), &format!("give the path of one of them: {named}")),
        }
        let (file, format) = files.iter().find_map(|file| Some((file, other_format(file)?)))?;
        error(format!("{missing}, but {file} ({format})"), OTHER_FORMATS_ADVICE)
    }

    /// What is wrong with settings that gave this error.
    pub fn explained(&self, error: ModelError) -> ModelError {
        if self.get(EMBEDDING).is_none() {
            return error;
        }
        let problem = format!("the folder holds an embedding model of sentence-transformers (by its {EMBEDDING})");
        file_error(self.name, problem, "give a language model, which predicts tokens")
    }

    /// One `model.safetensors`, or the shards of an index, or the only `.safetensors` file there is, unless PyTorch's own files lie
    /// beside it; if there is none of them, the same of PyTorch's format.
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
        let Some(found) = self.get(index) else {
            // Beside a model in PyTorch's own format, a file of another name holds something else.
            let other = [PYTORCH_SINGLE, PYTORCH_INDEX].iter().any(|file| self.get(file).is_some());
            return Ok((!sources.is_empty() && !other).then_some((sources, None)));
        };
        if sources.is_empty() {
            let advice = "put the files that it names beside it";
            return Err(file_error(self.name, format!("the folder has {index} but none of its shards"), advice));
        }
        Ok(Some((sources, Some(read_all(found.as_ref()).await?))))
    }

    fn without_weights(&self) -> ModelError {
        let missing = format!("the folder has no {SINGLE}");
        if let Some(error) = self.no_model() {
            return error;
        }
        if let Some(file) = self.find(is_unfinished) {
            let problem = format!("{missing}, and {file} is an unfinished download");
            return file_error(self.name, problem, "let it finish, or download the model again");
        }
        if let Some(file) = self.find(is_other_pickle) {
            let problem = format!("{missing}, but {file}");
            let advice = format!(
                "if it holds the model's tensors by the names of transformers, call it {PYTORCH_SINGLE}; else load it in \
                transformers and call save_pretrained(folder), or take the published .safetensors files"
            );
            return file_error(self.name, problem, advice);
        }
        self.in_place_of(&missing)
            .unwrap_or_else(|| file_error(self.name, missing, format!("put it there, or its shards with {INDEX}")))
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
    file.ends_with(".pth") || file.ends_with(".pt") || file == "model.bin"
}

/// The format of a file that is not read, by its name.
fn other_format(file: &str) -> Option<&'static str> {
    let format = OTHER_FORMATS.iter().find(|(end, _)| file.ends_with(end)).map(|(_, format)| *format);
    format.or(is_other_pickle(file).then_some("PyTorch"))
}

fn is_gguf(file: &str) -> bool {
    file.to_ascii_lowercase().ends_with(".gguf")
}

/// The GGUF models among files, each with all of its parts that are there. Not what only reads a model's images.
pub(crate) fn gguf_models(listed: &[String]) -> Vec<Vec<String>> {
    let is_model = |name: &str| is_gguf(name) && !name.contains("mmproj");
    let model_of = |path: &String| {
        let name = base_name(path);
        let folder = &path[..path.len() - name.len()];
        let parts = Checkpoint::gguf_parts(name).map(|part| format!("{folder}{part}"));
        let parts: Vec<String> = parts.filter(|part| listed.contains(part)).collect();
        if parts.is_empty() { vec![path.clone()] } else { parts }
    };
    // A split one is that of each of its parts.
    let models: BTreeSet<_> = listed.iter().filter(|path| is_model(base_name(path))).map(model_of).collect();
    models.into_iter().collect()
}

/// GGUF models for a message, the first of them, by their first parts behind a prefix.
pub(crate) fn named_models(models: &[Vec<String>], prefix: &str) -> String {
    const MOST: usize = 20;
    let firsts = models.iter().take(MOST).filter_map(|model| model.first());
    let names: Vec<String> = firsts.map(|file| format!("{prefix}{file}")).collect();
    let more = models.len().saturating_sub(MOST);
    names.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
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
pub(super) fn is_licence(file: &str) -> bool {
    let name = file.to_ascii_lowercase();
    let (stem, extension) = name.split_once('.').unwrap_or((&name, ""));
    ["license", "licence"].contains(&stem) && ["", "txt", "md"].contains(&extension)
}

/// What is wrong with a small file that is longer than any such file is; None if it is not.
pub(super) fn too_long(source: &dyn ByteSource) -> Option<String> {
    const LONG: [&str; 7] = [
        TOKENIZER,
        TOKENIZER_CONFIG,
        "added_tokens.json",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
        "tokenizer.model",
    ];
    let file = base_name(source.name());
    let is_long = LONG.contains(&file) || file.ends_with(".index.json");
    let most = if is_long { LONG_LIMIT } else { SMALL_LIMIT };
    (source.len() > most).then(|| format!("it has {} bytes, more than the {most} that are read of it", source.len()))
}

/// All bytes of a small file.
pub(crate) async fn read_all(source: &dyn ByteSource) -> Result<Vec<u8>, WeightsError> {
    if let Some(problem) = too_long(source) {
        let advice = "no such file is so long: download it again".to_string();
        return Err(WeightsError::Refused { file: source.name().to_string(), problem, advice });
    }
    // Fits: it is not long.
    source.read(0, source.len() as usize).await
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
    use crate::model::CARD;
    use crate::weights::{BytesSource, FileSource};

    /// The folder itself, or, if it is a model's folder in the Hugging Face hub's cache (`models--..`), the snapshot in it.
    pub fn snapshot(folder: &Path) -> Result<PathBuf, ModelError> {
        let snapshots = folder.join("snapshots");
        if folder.join(CONFIG).exists() || !snapshots.is_dir() {
            return Ok(folder.to_path_buf());
        }
        let main = folder.join("refs").join("main");
        let main = if main.is_file() { fs::read_to_string(main).unwrap_or_default() } else { String::new() };
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
            let telling = [CONFIG, INDEX, PYTORCH_INDEX, CARD].contains(&name) || is_carried(name);
            // What the model can do without is not there if it is no file; anything else is named.
            let optional = name == CARD || is_licence(name) || is_pytorch(name);
            if (telling || is_weights(name)) && (path.is_file() || !optional) {
                files.push((name.to_string(), Rc::new(FileSource::open(&path)?)));
                if !path.canonicalize().map_err(unreadable)?.starts_with(&home) {
                    elsewhere.push(name.to_string());
                }
            } else if [ADAPTER, EMBEDDING, PIPELINE].contains(&name)
                || is_unfinished(name)
                || is_gguf(name)
                || other_format(name).is_some()
            {
                // Named if there is nothing better, or something is to be said of them; never read.
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
