//! A model as its user names it, opened: a Hugging Face folder, a GGUF file, or the embedded model.

use std::rc::Rc;

use serde_json::{Map, Value};

use super::error::ModelError;
use super::keys::Keys;
use super::spec::ModelSpec;
use crate::text::Tokenizer;
use crate::weights::{ByteSource, BytesSource, FloatType, Weights, gguf, safetensors};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The name of the embedded model.
const BUILTIN_TINY: &str = "builtin:tiny";

/// Files that an exported folder takes over as they are. Not README.md: it describes another model.
const CARRIED: [&str; 10] = [
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
];

/// An open model: architecture, weights, tokenizer and the small files around them.
pub struct Checkpoint {
    /// The folder's or file's name, for people.
    pub name: String,
    /// The architecture.
    pub spec: ModelSpec,
    /// The tensors, all that the architecture needs and of the right shapes.
    pub weights: Weights,
    /// The tokenizer, if there is one that can be read; see [`Checkpoint::tokenizer`].
    pub tokenizer: Option<Tokenizer>,
    /// Why `tokenizer` is None.
    pub tokenizer_problem: Option<String>,
    /// config.json, rebuilt for a GGUF file.
    pub config: Map<String, Value>,
    /// Names and contents of the files to carry over on export: tokenizer.json, generation_config.json, the licence and
    /// the like. The tokenizer's are rebuilt for a GGUF file.
    pub side_files: Vec<(String, Vec<u8>)>,
    /// Whether it was a GGUF file.
    pub from_gguf: bool,
}

impl Checkpoint {
    /// Opens what `model` names: a Hugging Face folder, a `.gguf` file or `builtin:tiny`.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn open(model: &str) -> Result<Self, ModelError> {
        if model == BUILTIN_TINY {
            return Self::builtin_tiny().await;
        }
        if model.starts_with("builtin:") {
            let advice = format!("the embedded model is `{BUILTIN_TINY}`");
            return Err(file_error(model, "there is no such embedded model", advice));
        }
        let path = std::path::Path::new(model);
        let name = path.file_name().map_or_else(|| model.to_string(), |name| name.to_string_lossy().into_owned());
        if path.is_dir() {
            let name = if name.is_empty() || name == "." { "model".to_string() } else { name };
            return Self::from_folder_files(&name, folder_files(path)?).await;
        }
        if !path.exists() {
            return Err(no_such_path(model));
        }
        if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            let advice = "give the folder that holds config.json and model.safetensors, or a .gguf file";
            return Err(file_error(model, "a file that is not a .gguf", advice));
        }
        let source: Rc<dyn ByteSource> = Rc::new(crate::weights::FileSource::open(path)?);
        Self::from_files("", vec![(name, source)]).await
    }

    /// A model from its files by their names: one GGUF file, which names the model then, or the files of a Hugging Face
    /// folder called `name`; see [`Checkpoint::from_folder_files`].
    pub async fn from_files(name: &str, files: Vec<(String, Rc<dyn ByteSource>)>) -> Result<Self, ModelError> {
        if let [(file, source)] = files.as_slice()
            && let Some((stem, extension)) = file.rsplit_once('.')
            && extension.eq_ignore_ascii_case("gguf")
        {
            return Self::from_gguf(stem, source.clone()).await;
        }
        Self::from_folder_files(name, files).await
    }

    /// The file names that a Hugging Face folder may have of which something is read, its shards left out: what to look
    /// for where a folder cannot be listed.
    pub fn usual_files() -> impl Iterator<Item = &'static str> {
        [CONFIG, SINGLE, INDEX].into_iter().chain(CARRIED)
    }

    /// A Hugging Face folder from its files by their names (without the folder): config.json, the `.safetensors` files
    /// with their index if they are shards, and the side files. Others are left alone.
    pub async fn from_folder_files(name: &str, files: Vec<(String, Rc<dyn ByteSource>)>) -> Result<Self, ModelError> {
        let folder = Folder { name, files };
        let Some(source) = folder.get(CONFIG) else { return Err(folder.without_config()) };
        let config = read_config(source.as_ref()).await?;
        let spec = ModelSpec::from_config_file(source.name(), &config)?;
        let weights = folder.weights().await?;
        spec.check(&weights)?;
        let mut side_files = Vec::new();
        for (file, source) in folder.files.iter().filter(|(file, _)| is_carried(file)) {
            side_files.push((file.clone(), read_all(source.as_ref()).await?));
        }
        side_files.sort();
        let json = side_files.iter().find(|(file, _)| file == TOKENIZER);
        let tokenizer = match json {
            Some((_, bytes)) => Tokenizer::from_json(bytes).map_err(|error| error.to_string()),
            None => Err(format!("the folder has no {TOKENIZER}; take it from where the model is published")),
        };
        let (tokenizer, tokenizer_problem) = split(tokenizer);
        let name = name.to_string();
        Ok(Self { name, spec, weights, tokenizer, tokenizer_problem, config, side_files, from_gguf: false })
    }

    /// A GGUF file. Its config.json and tokenizer files are rebuilt from its metadata.
    pub async fn from_gguf(name: &str, source: Rc<dyn ByteSource>) -> Result<Self, ModelError> {
        let file = gguf::open(source).await?;
        let spec = ModelSpec::from_gguf(&file)?;
        let weights = spec.renamed(file.weights)?;
        spec.check(&weights)?;
        let (tokenizer, tokenizer_problem) =
            split(Tokenizer::from_gguf(&file.metadata).map_err(|error| error.to_string()));
        let mut side_files = Vec::new();
        if let Some(tokenizer) = &tokenizer {
            side_files.push((TOKENIZER.to_string(), tokenizer.to_json().into_bytes()));
            side_files
                .push((TOKENIZER_CONFIG.to_string(), format!("{:#}\n", tokenizer.tokenizer_config()).into_bytes()));
        }
        let config = spec.to_config(matrix_type(&spec, &weights));
        let name = name.to_string();
        Ok(Self { name, spec, weights, tokenizer, tokenizer_problem, config, side_files, from_gguf: true })
    }

    /// The embedded model of 2.7 million parameters (`assets/tiny`).
    pub async fn builtin_tiny() -> Result<Self, ModelError> {
        let file = |name: &str, bytes: &'static [u8]| {
            let source: Rc<dyn ByteSource> = Rc::new(BytesSource::new(format!("{BUILTIN_TINY}/{name}"), bytes));
            (name.to_string(), source)
        };
        let files = vec![
            file(CONFIG, include_bytes!("../../../assets/tiny/config.json")),
            file(SINGLE, include_bytes!("../../../assets/tiny/model.safetensors")),
            file(TOKENIZER, include_bytes!("../../../assets/tiny/tokenizer.json")),
            file(TOKENIZER_CONFIG, include_bytes!("../../../assets/tiny/tokenizer_config.json")),
        ];
        Self::from_folder_files(BUILTIN_TINY, files).await
    }

    /// The tokens that end a text: those of generation_config.json if it names any, as in transformers, else those of
    /// config.json or of the GGUF file. There may be none.
    ///
    /// # Errors
    /// A generation_config.json that is no JSON object or whose `eos_token_id` is no token id.
    pub fn eos_token_ids(&self) -> Result<Vec<u32>, ModelError> {
        let file = self.side_files.iter().find(|(file, _)| file == GENERATION_CONFIG);
        let ids = match file {
            Some((file, bytes)) => Keys::new(file, &parse_config(file, bytes)?).token_ids("eos_token_id")?,
            None => Vec::new(),
        };
        Ok(if ids.is_empty() { self.spec.eos_token_ids.clone() } else { ids })
    }

    /// The tokenizer, or why there is none. Everything but turning text into tokens works without one.
    pub fn tokenizer(&self) -> Result<&Tokenizer, ModelError> {
        self.tokenizer.as_ref().ok_or_else(|| ModelError::NoTokenizer {
            model: self.name.clone(),
            problem: self.tokenizer_problem.clone().unwrap_or_else(|| "none was given".to_string()),
        })
    }
}

/// Files by their names without the folder.
type NamedSources = Vec<(String, Rc<dyn ByteSource>)>;

/// A model folder's files.
struct Folder<'a> {
    name: &'a str,
    files: NamedSources,
}

impl Folder<'_> {
    fn get(&self, name: &str) -> Option<&Rc<dyn ByteSource>> {
        self.files.iter().find(|(file, _)| file == name).map(|(_, source)| source)
    }

    fn without_config(&self) -> ModelError {
        if let Some((file, _)) = self.files.iter().find(|(file, _)| file.ends_with(".gguf")) {
            let advice = format!("give the path of the GGUF file itself, {file}");
            return file_error(self.name, "the folder has no config.json", advice);
        }
        let advice = "give the folder that holds config.json and model.safetensors";
        file_error(self.name, "the folder has no config.json", advice)
    }

    /// One `model.safetensors`, or the shards of an index, or the only `.safetensors` file there is.
    async fn weights(&self) -> Result<Weights, ModelError> {
        if let Some(single) = self.get(SINGLE) {
            return Ok(safetensors::open(vec![single.clone()], None).await?);
        }
        let tensors = self.files.iter().filter(|(file, _)| file.ends_with(".safetensors"));
        let sources: Vec<_> = tensors.map(|(_, source)| source.clone()).collect();
        let index = match self.get(INDEX) {
            Some(index) => Some(read_all(index.as_ref()).await?),
            None => None,
        };
        if sources.is_empty() && index.is_none() {
            return Err(self.without_weights());
        }
        if sources.is_empty() {
            let advice = "put the model-*.safetensors files beside it";
            return Err(file_error(self.name, format!("the folder has {INDEX} but none of its shards"), advice));
        }
        Ok(safetensors::open(sources, index.as_deref()).await?)
    }

    fn without_weights(&self) -> ModelError {
        let pickled = |file: &str| file.starts_with("pytorch_model") || file.ends_with(".pth") || file.ends_with(".pt");
        match self.files.iter().find(|(file, _)| pickled(file)) {
            Some((file, _)) => {
                let problem = format!("the folder has its weights only as {file}");
                let advice = "safetensors are needed: load it in transformers and call \
                    save_pretrained(folder, safe_serialization=True), or take the published .safetensors files";
                file_error(self.name, problem, advice)
            }
            None => {
                let advice = "put it there, or its shards with model.safetensors.index.json";
                file_error(self.name, "the folder has no model.safetensors", advice)
            }
        }
    }
}

fn file_error(file: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> ModelError {
    ModelError::File { file: file.into(), problem: problem.into(), advice: advice.into() }
}

fn split<T>(result: Result<T, String>) -> (Option<T>, Option<String>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(problem) => (None, Some(problem)),
    }
}

fn is_carried(file: &str) -> bool {
    CARRIED.contains(&file) || is_licence(file)
}

/// Licences have whole names: what only begins like one may be a program.
fn is_licence(file: &str) -> bool {
    let name = file.to_ascii_lowercase();
    let (stem, extension) = name.split_once('.').unwrap_or((&name, ""));
    ["license", "licence"].contains(&stem) && ["", "txt", "md"].contains(&extension)
}

async fn read_all(source: &dyn ByteSource) -> Result<Vec<u8>, ModelError> {
    let len = usize::try_from(source.len())
        .map_err(|_| file_error(source.name(), format!("{} bytes do not fit the memory", source.len()), "check it"))?;
    Ok(source.read(0, len).await?)
}

async fn read_config(source: &dyn ByteSource) -> Result<Map<String, Value>, ModelError> {
    parse_config(source.name(), &read_all(source).await?)
}

fn parse_config(file: &str, bytes: &[u8]) -> Result<Map<String, Value>, ModelError> {
    serde_json::from_slice(bytes).map_err(|error| {
        file_error(file, format!("not a JSON object ({error})"), "get it again from where the model is published")
    })
}

/// The type in which the first matrix of the first block is read; quantised ones are read as F32.
fn matrix_type(spec: &ModelSpec, weights: &Weights) -> FloatType {
    let tensors = spec.block_tensors(super::BlockId::mha(0));
    let info = tensors.iter().find(|tensor| tensor.columns.is_some()).and_then(|tensor| weights.get(&tensor.name));
    info.map_or(FloatType::F32, |info| info.dtype.read_as())
}

/// The files of a folder that matter to a model, each opened.
#[cfg(not(target_arch = "wasm32"))]
fn folder_files(folder: &std::path::Path) -> Result<NamedSources, ModelError> {
    let unreadable = |error: std::io::Error| {
        file_error(folder.display().to_string(), format!("cannot be read ({error})"), "check its permissions")
    };
    let mut files = NamedSources::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let telling = name == CONFIG || name == INDEX || is_carried(name);
        if path.is_file() && (telling || name.ends_with(".safetensors")) {
            files.push((name.to_string(), Rc::new(crate::weights::FileSource::open(&path)?)));
        } else if name.starts_with("pytorch_model") || [".pth", ".pt", ".gguf"].iter().any(|end| name.ends_with(end)) {
            // Named in the error if there is nothing better; never read.
            files.push((name.to_string(), Rc::new(BytesSource::new(name, Vec::new()))));
        }
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files)
}

#[cfg(not(target_arch = "wasm32"))]
fn no_such_path(model: &str) -> ModelError {
    let plain = |part: &str| {
        let name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(name)
    };
    let hub = model.split_once('/').is_some_and(|(organisation, name)| plain(organisation) && plain(name));
    if hub && !model.ends_with(".gguf") && !model.ends_with(".safetensors") {
        let advice = format!(
            "downloading from the Hugging Face hub is not built yet: fetch it with \
            `huggingface-cli download {model} --local-dir DIR` and give DIR"
        );
        return file_error(model, "there is no such folder or file", advice);
    }
    let advice = format!("give a Hugging Face folder, a .gguf file or {BUILTIN_TINY}");
    file_error(model, "there is no such folder or file", advice)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::path::Path;

    use pollster::block_on;

    use super::*;
    use crate::model::BlockId;

    const TINY: &str = "../assets/tiny";

    fn message(result: Result<Checkpoint, ModelError>) -> String {
        result.err().map(|error| error.to_string()).unwrap()
    }

    /// A folder with the tiny model's files of these names.
    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::copy(Path::new(TINY).join(name), folder.path().join(name)).unwrap();
        }
        folder
    }

    fn open(folder: &tempfile::TempDir) -> Result<Checkpoint, ModelError> {
        block_on(Checkpoint::open(folder.path().to_str().unwrap()))
    }

    #[test]
    fn only_licences_and_known_files_are_carried() {
        for name in ["LICENSE", "License.txt", "LICENCE.md", "tokenizer_config.json", "merges.txt"] {
            assert!(is_carried(name), "{name}");
        }
        for name in ["license_code.py", "LICENSE.py", "LICENSE.txt.sh", "licenses", "README.md", "modeling_llama.py"] {
            assert!(!is_carried(name), "{name}");
        }
    }

    #[test]
    fn the_generation_config_says_what_ends_a_text() {
        let folder = folder(&["config.json", "model.safetensors", "tokenizer.json"]);
        assert_eq!(open(&folder).unwrap().eos_token_ids().unwrap(), [0], "config.json");
        let file = folder.path().join("generation_config.json");
        for (content, expected) in [(r#"{"eos_token_id": [7, 9]}"#, &[7, 9][..]), ("{}", &[0])] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(open(&folder).unwrap().eos_token_ids().unwrap(), expected, "{content}");
        }
        for content in ["[]", r#"{"eos_token_id": "</s>"}"#] {
            std::fs::write(&file, content).unwrap();
            let error = open(&folder).unwrap().eos_token_ids().unwrap_err().to_string();
            assert!(error.contains("generation_config.json"), "{error}");
        }
    }

    #[test]
    fn the_embedded_model_and_its_folder_are_the_same() {
        let embedded = block_on(Checkpoint::open("builtin:tiny")).unwrap();
        let folder = block_on(Checkpoint::open(TINY)).unwrap();
        assert_eq!((embedded.name.as_str(), folder.name.as_str()), ("builtin:tiny", "tiny"));
        assert_eq!(embedded.spec, folder.spec);
        assert_eq!(embedded.side_files, folder.side_files);
        assert_eq!(embedded.config, folder.config);
        let names: Vec<&str> = folder.side_files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["tokenizer.json", "tokenizer_config.json"], "README.md stays behind");
        let fingerprint = |checkpoint: &Checkpoint| block_on(checkpoint.weights.fingerprint()).unwrap();
        assert_eq!(fingerprint(&embedded), fingerprint(&folder));
        assert_eq!(embedded.tokenizer().unwrap().vocab_size(), 4096);
        assert!(!embedded.from_gguf);
    }

    #[test]
    fn a_folder_without_tokenizer_opens_and_says_so_when_asked() {
        let without = open(&folder(&["config.json", "model.safetensors"])).unwrap();
        let error = without.tokenizer().err().unwrap().to_string();
        assert!(error.contains("tokenizer.json") && error.contains(&without.name), "{error}");
        let broken = folder(&["config.json", "model.safetensors"]);
        std::fs::write(broken.path().join("tokenizer.json"), "{").unwrap();
        let error = open(&broken).unwrap().tokenizer().err().unwrap().to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
    }

    #[test]
    fn licences_are_carried_and_other_files_are_not() {
        let dir = folder(&["config.json", "model.safetensors", "README.md"]);
        for name in ["LICENSE", "License.txt", "generation_config.json", "training_args.bin"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let side_files = open(&dir).unwrap().side_files;
        let names: Vec<&str> = side_files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["LICENSE", "License.txt", "generation_config.json"]);
    }

    #[test]
    fn missing_files_are_named_with_what_to_do() {
        let message = |names: &[&str], extra: &[&str]| {
            let dir = folder(names);
            for name in extra {
                std::fs::write(dir.path().join(name), "x").unwrap();
            }
            message(open(&dir))
        };
        let cases = [
            (message(&["model.safetensors"], &[]), ["no config.json", "give the folder that holds config.json"]),
            (message(&[], &["model.Q4_0.gguf"]), ["no config.json", "model.Q4_0.gguf"]),
            (message(&["config.json"], &[]), ["no model.safetensors", "put it there"]),
            (message(&["config.json"], &["pytorch_model.bin"]), ["pytorch_model.bin", "save_pretrained"]),
            (message(&["config.json"], &["model.safetensors.index.json"]), ["none of its shards", "beside it"]),
            (message(&["model.safetensors"], &["config.json"]), ["config.json", "not a JSON object"]),
            (message(&["config.json"], &["model.safetensors"]), ["model.safetensors", "not a valid safetensors file"]),
        ];
        for (error, parts) in cases {
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn what_is_no_model_is_explained() {
        let cases = [
            ("HuggingFaceTB/SmolLM2-135M", ["not built yet", "huggingface-cli download HuggingFaceTB/SmolLM2-135M"]),
            ("no/such/folder", ["no such folder", "builtin:tiny"]),
            ("./models/none.gguf", ["no such folder", "a .gguf file"]),
            ("builtin:large", ["no such embedded model", "builtin:tiny"]),
            ("../assets/tiny/config.json", ["not a .gguf", "give the folder"]),
        ];
        for (model, parts) in cases {
            let error = message(block_on(Checkpoint::open(model)));
            assert!(error.starts_with(model) && parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn weights_that_do_not_fit_the_configuration_are_listed() {
        let dir = folder(&["config.json", "model.safetensors"]);
        let path = dir.path().join("config.json");
        let mut config: Map<String, Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config.insert("intermediate_size".to_string(), 300.into());
        config.insert("num_hidden_layers".to_string(), 13.into());
        std::fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
        let error = message(open(&dir));
        // Three misshapen matrices in 12 layers, nine missing tensors in the last.
        for part in ["45 tensors", "[352, 128], expected [300, 128]", "and 40 more", "model.safetensors"] {
            assert!(error.contains(part), "{error}");
        }
        // What an earlier pruning took out is not missing.
        config.insert("intermediate_size".to_string(), 352.into());
        config.insert("drop_attn_list".to_string(), vec![12].into());
        config.insert("drop_mlp_list".to_string(), vec![12].into());
        std::fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
        let checkpoint = open(&dir).unwrap();
        assert_eq!(checkpoint.spec.absent, [BlockId::mha(12), BlockId::mlp(12)].into_iter().collect());
        assert_eq!(checkpoint.spec.parameters(), 2_739_328);
    }
}
