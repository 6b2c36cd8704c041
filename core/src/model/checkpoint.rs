//! A model as its user names it, opened: a Hugging Face folder, a GGUF file, or the embedded model.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::block_configs;
use super::composite::Composite;
use super::error::ModelError;
#[cfg(not(target_arch = "wasm32"))]
use super::folder::on_disk;
use super::folder::{
    ADAPTER, ADAPTER_ADVICE, CARRIED, CONFIG, Folder, GENERATION_CONFIG, INDEX, PYTORCH_INDEX, PYTORCH_SINGLE, SINGLE,
    TOKENIZER, TOKENIZER_CONFIG, file_error, is_carried, is_licence, is_weights, kind_of, read_all, too_long,
};
use super::keys::Keys;
use super::origin::{CARD, Origin};
use super::spec::ModelSpec;
use crate::file_kind::FileKind;
#[cfg(not(target_arch = "wasm32"))]
use crate::hub::ModelName;
use crate::json;
use crate::text::Tokenizer;
use crate::weights::gguf::GgufFile;
use crate::weights::{ByteSource, FloatType, Weights, gguf};

/// The name of the embedded model.
#[cfg(feature = "builtin")]
const BUILTIN_TINY: &str = "builtin:tiny";
/// Bytes of a card that are read at most: what is said of the licence stands in its first lines.
const CARD_START: u64 = 1 << 20;
/// What to do where a name looks like that of an embedded model and is none.
#[cfg(not(target_arch = "wasm32"))]
const BUILTIN_ADVICE: &str = match cfg!(feature = "builtin") {
    true => "the embedded model is `builtin:tiny`",
    false => {
        "this program was built without the feature `builtin` of the crate blockpruner, which brings `builtin:tiny`"
    }
};

/// An open model: architecture, weights, tokenizer and the small files around them.
#[non_exhaustive]
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
    /// Such files that are only links out of the model's folder: they count here, and go into no export.
    pub(crate) linked_files: Vec<(String, Vec<u8>)>,
    /// Whether it was a GGUF file.
    pub from_gguf: bool,
    /// Where it was published, if its files say.
    pub origin: Origin,
    /// Of a text model that is a part of a model of images and text: what the files call its tensors, by the names that they have
    /// here. Empty if it is the whole model.
    pub stored_names: BTreeMap<String, String>,
    /// What in the files does not count, or counts against what another one says; for people.
    pub notes: Vec<String>,
    /// The GGUF file as it is, if it was one.
    pub(crate) gguf: Option<GgufFile>,
}

impl Checkpoint {
    /// Opens what `model` names: a Hugging Face folder, or one in the hub's cache; a GGUF file, whatever its name, or the first
    /// part of a split one, whose other parts lie beside it; or `builtin:tiny`.
    ///
    /// # Errors
    /// A name that nothing is found under; files that are missing, unreadable, damaged or not what their names say; what would
    /// change the result and is not built; tensors that do not fit the configuration. A tokenizer that cannot be read is none: see
    /// [`Checkpoint::tokenizer`].
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn open(model: &str) -> Result<Self, ModelError> {
        #[cfg(feature = "builtin")]
        if model == BUILTIN_TINY {
            return Self::builtin_tiny().await;
        }
        if model.starts_with("builtin:") {
            return Err(file_error(model, "there is no such embedded model", BUILTIN_ADVICE));
        }
        let path = std::path::Path::new(model);
        let name = path.file_name().map_or_else(|| model.to_string(), |name| name.to_string_lossy().into_owned());
        if path.is_dir() {
            let folder = on_disk::snapshot(path)?;
            let repository = on_disk::repository(&folder);
            let name = match &repository {
                Some(repository) => repository.clone(),
                None if name.is_empty() || name == "." => "model".to_string(),
                None => name,
            };
            let (files, elsewhere) = on_disk::files(&folder)?;
            let mut opened = Self::from_folder(Folder { name: &name, files, elsewhere }).await?;
            opened.origin.repository = repository.or(opened.origin.repository);
            return Ok(opened);
        }
        if !path.exists() {
            return Err(no_such_path(model));
        }
        let source: Rc<dyn ByteSource> = Rc::new(crate::weights::FileSource::open(path)?);
        Self::from_single_file(&name, source, &on_disk::other_parts(path)?).await
    }

    /// A file that should be a GGUF file, and the parts that are beside it if it is split.
    async fn from_single_file(
        file: &str,
        source: Rc<dyn ByteSource>,
        others: &[Rc<dyn ByteSource>],
    ) -> Result<Self, ModelError> {
        let stem = file.strip_suffix(".gguf").or(file.strip_suffix(".GGUF"));
        let name = gguf::PartName::parse(file).map_or(stem.unwrap_or(file), |part| part.model);
        let advice = "give the folder that holds config.json and model.safetensors, or a .gguf file";
        match kind_of(source.as_ref()).await? {
            Some(FileKind::Gguf) => Self::from_gguf_parts(name, source, others).await,
            Some(kind) => Err(file_error(source.name(), format!("not a GGUF file: {}", kind.problem()), advice)),
            // What is wrong with it, its own reader says best.
            None if stem.is_some() => Self::from_gguf_parts(name, source, others).await,
            None => Err(file_error(source.name(), "not a GGUF file", advice)),
        }
    }

    /// A model from its files by their names: one GGUF file or the parts of a split one, which name the model then, or the
    /// files of a Hugging Face folder called `name`; see [`Checkpoint::from_folder_files`].
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub async fn from_files(name: &str, files: Vec<(String, Rc<dyn ByteSource>)>) -> Result<Self, ModelError> {
        if let Some((first, _)) = files.first()
            && files.iter().all(|(file, _)| gguf::PartName::parse(file).is_some())
        {
            let parts: Vec<String> = Self::gguf_parts(first).collect();
            if let Some((other, _)) = files.iter().find(|(file, _)| !parts.contains(file)) {
                let problem = format!("it is not a part of the same model as {first}");
                return Err(file_error(other, problem, "give the parts of one model"));
            }
            let place = files.iter().position(|(file, _)| parts.first() == Some(file)).unwrap_or(0);
            let (file, source) = &files[place];
            let others: Vec<_> = files.iter().map(|(_, source)| source.clone()).collect();
            return Self::from_single_file(file, source.clone(), &others).await;
        }
        match files.as_slice() {
            [(file, source)] if file != CONFIG && !is_weights(file) => {
                Self::from_single_file(file, source.clone(), &[]).await
            }
            _ => Self::from_folder_files(name, files).await,
        }
    }

    /// The names of all files of the split GGUF model of which `file`, a name without its folder, is one; none if it is called
    /// otherwise. They lie beside it.
    pub fn gguf_parts(file: &str) -> impl Iterator<Item = String> {
        gguf::PartName::parse(file).into_iter().flat_map(|part| part.files())
    }

    /// The file names that a Hugging Face folder may have of which something is read, its shards left out: what to look
    /// for where a folder cannot be listed.
    pub fn usual_files() -> impl Iterator<Item = &'static str> {
        [CONFIG, SINGLE, INDEX].into_iter().chain(CARRIED)
    }

    /// The same of a folder without `.safetensors` files and their index: PyTorch's weights and their index.
    pub fn usual_pytorch_files() -> impl Iterator<Item = &'static str> {
        [PYTORCH_SINGLE, PYTORCH_INDEX].into_iter()
    }

    /// A Hugging Face folder from its files by their names (without the folder): config.json, the `.safetensors` files, or
    /// `pytorch_model*.bin` where there are none, with their index if they are shards, and the side files. Others are left alone.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub async fn from_folder_files(name: &str, files: Vec<(String, Rc<dyn ByteSource>)>) -> Result<Self, ModelError> {
        Self::from_folder(Folder { name, files, elsewhere: Vec::new() }).await
    }

    async fn from_folder(folder: Folder<'_>) -> Result<Self, ModelError> {
        let Some(source) = folder.get(CONFIG) else { return Err(folder.without_config()) };
        let mut config = parse_config(source.name(), &read_all(source.as_ref()).await?)?;
        if let Some(llama) = block_configs::as_llama(source.name(), &config)? {
            config = llama;
        }
        let spec = ModelSpec::from_config_file(source.name(), &config);
        let mut spec = spec.map_err(|error| folder.explained(error))?;
        let mut notes = Vec::new();
        // What mattered would have been refused.
        let non_finite = json::drop_non_finite(&mut config);
        if !non_finite.is_empty() {
            notes.push(format!("{CONFIG}: no number in {}, which does not matter here", non_finite.join(", ")));
        }
        let composite = Composite::of(&config).is_some();
        let (weights, stored_names) = match composite {
            true => spec.of_composite(folder.weights().await?)?,
            false => (spec.with_usual_names(folder.weights().await?)?, BTreeMap::new()),
        };
        spec.check(&weights)?;
        if let Some(note) = spec.use_own_head(&weights).await? {
            config.insert("tie_word_embeddings".to_string(), false.into());
            notes.push(note);
        }
        match composite {
            true => {
                notes.push("only the text model is scored and pruned: what else there is goes along as it is".into())
            }
            false => notes.extend(spec.unused(&weights)),
        }
        if folder.get(ADAPTER).is_some() {
            notes
                .push(format!("the adapter beside the model, {ADAPTER}, is not applied: to have it, {ADAPTER_ADVICE}"));
        }
        let (mut side_files, mut linked_files) = (Vec::new(), Vec::new());
        for (file, source) in folder.files.iter().filter(|(file, _)| is_carried(file)) {
            if let (true, Some(problem)) = (is_licence(file), too_long(source.as_ref())) {
                notes.push(format!("{file} is not copied into exports: {problem}"));
                continue;
            }
            let content = (file.clone(), read_all(source.as_ref()).await?);
            match folder.is_own(file) {
                true => side_files.push(content),
                false => {
                    notes.push(format!("{file} is a link out of the model's folder: it is not copied into exports"));
                    linked_files.push(content);
                }
            }
        }
        side_files.sort();
        let find = |file: &str| {
            let files = side_files.iter().chain(&linked_files);
            files.into_iter().find(|(name, _)| name == file).map(|(_, bytes)| bytes.as_slice())
        };
        let had_tokenizer = find(TOKENIZER).is_some();
        let (tokenizer, tokenizer_problem) = split(Tokenizer::from_folder(find).map_err(|error| error.to_string()));
        // Made from older files: what is exported is to be read by anything. Not what was made from links out of the folder.
        if let Some(tokenizer) = tokenizer.as_ref().filter(|_| !had_tokenizer && linked_files.is_empty()) {
            side_files.push((TOKENIZER.to_string(), tokenizer.to_json().into_bytes()));
            side_files.sort();
        }
        // Of the card only what it says of the licence, at its beginning, which goes into exports.
        let origin = match folder.get(CARD).filter(|_| folder.is_own(CARD)) {
            Some(card) => {
                let start = card.read(0, card.len().min(CARD_START) as usize).await?;
                Origin::from_card(&String::from_utf8_lossy(&start))
            }
            None => Origin::default(),
        };
        let name = folder.name.to_string();
        Ok(Self {
            name,
            spec,
            weights,
            tokenizer,
            tokenizer_problem,
            config,
            side_files,
            linked_files,
            from_gguf: false,
            origin,
            stored_names,
            notes,
            gguf: None,
        })
    }

    /// A GGUF file. Its config.json and tokenizer files are rebuilt from its metadata.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub async fn from_gguf(name: &str, source: Rc<dyn ByteSource>) -> Result<Self, ModelError> {
        Self::from_gguf_parts(name, source, &[]).await
    }

    async fn from_gguf_parts(
        name: &str,
        first: Rc<dyn ByteSource>,
        others: &[Rc<dyn ByteSource>],
    ) -> Result<Self, ModelError> {
        let file = gguf::open(first, others).await?;
        let spec = ModelSpec::from_gguf(&file)?;
        let weights = spec.renamed(file.weights.clone())?;
        spec.check(&weights)?;
        spec.check_gguf_names(file.metadata.file(), &file.weights)?;
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
        let (stored_names, notes) = (BTreeMap::new(), Vec::new());
        Ok(Self {
            name,
            spec,
            weights,
            tokenizer,
            tokenizer_problem,
            config,
            side_files,
            linked_files: Vec::new(),
            from_gguf: true,
            origin: Origin::from_gguf(&file.metadata)?,
            stored_names,
            notes,
            gguf: Some(file),
        })
    }

    /// The embedded model of 2.7 million parameters, `builtin:tiny`.
    ///
    /// # Errors
    /// Those of every way to open a model; this one meets none of them.
    #[cfg(feature = "builtin")]
    pub async fn builtin_tiny() -> Result<Self, ModelError> {
        let file = |name: &str, bytes: &'static [u8]| {
            let source: Rc<dyn ByteSource> =
                Rc::new(crate::weights::BytesSource::new(format!("{BUILTIN_TINY}/{name}"), bytes));
            (name.to_string(), source)
        };
        let files = vec![
            file(CONFIG, blockpruner_tiny::CONFIG),
            file(SINGLE, blockpruner_tiny::WEIGHTS),
            file(TOKENIZER, blockpruner_tiny::TOKENIZER),
            file(TOKENIZER_CONFIG, blockpruner_tiny::TOKENIZER_CONFIG),
        ];
        Self::from_folder_files(BUILTIN_TINY, files).await
    }

    /// The tokens that end a text: those of generation_config.json if it names any, as in transformers, else those of
    /// config.json or of the GGUF file. There may be none.
    ///
    /// # Errors
    /// A generation_config.json that is no JSON object or whose `eos_token_id` is no token id.
    pub fn eos_token_ids(&self) -> Result<Vec<u32>, ModelError> {
        let file = self.side_files.iter().chain(&self.linked_files).find(|(file, _)| file == GENERATION_CONFIG);
        let ids = match file {
            Some((file, bytes)) => Keys::new(file, &parse_config(file, bytes)?).token_ids("eos_token_id")?,
            None => Vec::new(),
        };
        Ok(if ids.is_empty() { self.spec.eos_token_ids.clone() } else { ids })
    }

    /// The tokenizer, or why there is none. Everything but turning text into tokens works without one.
    ///
    /// # Errors
    /// [`ModelError::NoTokenizer`].
    pub fn tokenizer(&self) -> Result<&Tokenizer, ModelError> {
        self.tokenizer.as_ref().ok_or_else(|| ModelError::NoTokenizer {
            model: self.name.clone(),
            problem: self.tokenizer_problem.clone().unwrap_or_else(|| "none was given".to_string()),
        })
    }
}

fn split<T>(result: Result<T, String>) -> (Option<T>, Option<String>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(problem) => (None, Some(problem)),
    }
}

fn parse_config(file: &str, bytes: &[u8]) -> Result<Map<String, Value>, ModelError> {
    json::object(bytes).map_err(|reason| ModelError::Json { file: file.to_string(), reason })
}

/// The type in which the first matrix of the first block is read; quantised ones are read as F32.
fn matrix_type(spec: &ModelSpec, weights: &Weights) -> FloatType {
    let tensors = spec.block_tensors(super::BlockId::mha(0));
    let info = tensors.iter().find(|tensor| tensor.columns.is_some()).and_then(|tensor| weights.get(&tensor.name));
    info.map_or(FloatType::F32, |info| info.dtype.read_as())
}

#[cfg(not(target_arch = "wasm32"))]
fn no_such_path(model: &str) -> ModelError {
    let quantised = model.rsplit_once(':').filter(|(name, _)| ModelName::parse(name).is_some());
    let advice = match (ModelName::parse(model), quantised) {
        (Some(ModelName { repository, .. }), _) => format!(
            "if it is a model of the Hugging Face hub, download it with `hf download {repository} --local-dir DIR` and give \
             DIR; programs built with the feature `hub` of the crate blockpruner download it themselves"
        ),
        (None, Some((name, quantisation))) => format!(
            "of a model of the Hugging Face hub give the GGUF file of {quantisation} by its name there, {name}/FILE.gguf; {name} \
             alone says which files there are"
        ),
        (None, None) => {
            "give a Hugging Face folder, a .gguf file, builtin:tiny or the name of a model of the Hugging Face hub, \
                         which is ORG/NAME (openai-community/gpt2, not gpt2)"
                .to_string()
        }
    };
    file_error(model, "there is no such folder or file", advice)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::path::Path;

    use pollster::block_on;

    use super::*;
    use crate::model::BlockId;
    use crate::weights::BytesSource;

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
            (
                message(&["config.json"], &["Amodel.mmproj.gguf", "b-Q8_0.gguf", "b-Q4_0.gguf", "mmproj-b.gguf"]),
                ["no model.safetensors, but GGUF files", "one of them: b-Q4_0.gguf, b-Q8_0.gguf"],
            ),
            (
                message(&[], &["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"]),
                ["that file itself", "x-00001-of-00002.gguf"],
            ),
            (message(&["config.json"], &["model.onnx"]), ["model.onnx (ONNX)", "GGUF, which are read"]),
            (message(&[], &["tf_model.h5"]), ["no config.json, but tf_model.h5 (TensorFlow)", "GGUF, which are read"]),
            (message(&[], &["consolidated.pth"]), ["no config.json, but consolidated.pth (PyTorch)", "which are read"]),
            (message(&["config.json"], &["flax_model.msgpack"]), ["(Flax)", "safetensors"]),
            (message(&["config.json"], &["model.ckpt"]), ["model.ckpt (TensorFlow or", "safetensors"]),
            (message(&["config.json"], &["weights.npz"]), ["weights.npz (NumPy)", "safetensors"]),
            (message(&["config.json"], &["rust_model.ot"]), ["rust_model.ot", "safetensors"]),
            (message(&["config.json"], &["model.bin"]), ["model.bin", "call it pytorch_model.bin"]),
            (
                message(&[], &["model_index.json"]),
                ["a pipeline of Diffusers (by its model_index.json)", "a language model"],
            ),
            (message(&["config.json"], &[]), ["no model.safetensors", "put it there"]),
            (message(&["config.json"], &["pytorch_model.bin"]), ["pytorch_model.bin: not a valid", "as a ZIP archive"]),
            (message(&["config.json"], &["consolidated.pth"]), ["consolidated.pth", "save_pretrained"]),
            (message(&["config.json"], &["model.safetensors.index.json"]), ["none of its shards", "beside it"]),
            (message(&["config.json"], &["pytorch_model.bin.index.json"]), ["none of its shards", "beside it"]),
            (message(&["config.json"], &["model.Q4_0.gguf"]), ["no model.safetensors", "model.Q4_0.gguf"]),
            (message(&["config.json"], &["model.safetensors.part"]), ["unfinished download", "model.safetensors.part"]),
            (message(&["model.safetensors"], &["adapter_config.json"]), ["adapter", "merge_and_unload"]),
            (message(&["config.json"], &["adapter_config.json"]), ["adapter", "merge_and_unload"]),
            (message(&["config.json"], &["adapter_config.json", "optimizer.pt"]), ["adapter", "merge_and_unload"]),
            (message(&["model.safetensors"], &["config.json"]), ["config.json", "not a JSON object"]),
            (message(&["config.json"], &["model.safetensors"]), ["model.safetensors", "not a valid safetensors file"]),
        ];
        for (error, parts) in cases {
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn what_else_a_folder_holds_is_named() {
        let bert = folder(&["model.safetensors"]);
        std::fs::write(bert.path().join(CONFIG), r#"{"model_type": "bert"}"#).unwrap();
        assert!(!message(open(&bert)).contains("sentence-transformers"));
        std::fs::write(bert.path().join("config_sentence_transformers.json"), "{}").unwrap();
        let error = message(open(&bert));
        assert!(error.contains("an embedding model of sentence-transformers"), "{error}");

        let adapted = folder(&["config.json", "model.safetensors"]);
        std::fs::write(adapted.path().join("adapter_config.json"), "{}").unwrap();
        let notes = open(&adapted).unwrap().notes;
        assert!(notes.len() == 1 && notes[0].contains("adapter_config.json, is not applied"), "{notes:?}");
    }

    /// What is there in place of a file is not passed over, unless it is no matter.
    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_named() {
        let whole = ["config.json", "model.safetensors", "tokenizer.json"];
        for name in whole {
            let path = |dir: &tempfile::TempDir| dir.path().join(name);
            let others = || folder(&whole.into_iter().filter(|other| *other != name).collect::<Vec<_>>());
            let (inner, link) = (others(), others());
            std::fs::create_dir(path(&inner)).unwrap();
            std::os::unix::fs::symlink("nowhere", path(&link)).unwrap();
            for (dir, expected) in [(inner, "it is a folder"), (link, "a link to what is not there")] {
                let error = message(open(&dir));
                assert!(error.contains(name) && error.contains(expected), "{error}");
            }
        }
        let dir = folder(&whole);
        for name in ["LICENSE", "README.md", "pytorch_model.bin"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert!(open(&dir).unwrap().notes.is_empty());
    }

    /// Files with holes, so that they take no room. A licence is no reason not to open a model.
    #[test]
    fn files_that_no_model_has_so_long_are_not_read() {
        for (name, most) in [
            ("config.json", 32u64 << 20),
            ("generation_config.json", 32 << 20),
            ("chat_template.jinja", 32 << 20),
            ("tokenizer.json", 256 << 20),
            ("tokenizer_config.json", 256 << 20),
            ("model.safetensors.index.json", 256 << 20),
        ] {
            let dir = folder(&["config.json", "tokenizer.json"]);
            let weights = if name.ends_with(".index.json") { "model-1.safetensors" } else { "model.safetensors" };
            std::fs::copy(Path::new(TINY).join(SINGLE), dir.path().join(weights)).unwrap();
            std::fs::File::create(dir.path().join(name)).unwrap().set_len(most + 1).unwrap();
            let (error, expected) =
                (message(open(&dir)), format!("{name}: it has {} bytes, more than the {most}", most + 1));
            assert!(error.contains(&expected), "{error}");
        }
        let dir = folder(&["config.json", "model.safetensors"]);
        for name in ["LICENSE", "README.md"] {
            std::fs::File::create(dir.path().join(name)).unwrap().set_len((32 << 20) + 1).unwrap();
        }
        let opened = open(&dir).unwrap();
        assert!(opened.side_files.is_empty());
        assert!(opened.notes.len() == 1 && opened.notes[0].starts_with("LICENSE is not copied"), "{:?}", opened.notes);
    }

    #[test]
    fn the_card_of_a_folder_names_its_licence() {
        let dir = folder(&["config.json", "model.safetensors"]);
        let card = format!("---\nlicense: other\nlicense_name: mine\n---\n{}", "long ".repeat(300_000));
        std::fs::write(dir.path().join(CARD), card).unwrap();
        let opened = open(&dir).unwrap();
        let (license, name) = (opened.origin.license.as_deref(), opened.origin.license_name.as_deref());
        assert_eq!((license, name), (Some("other"), Some("mine")));
        assert!(opened.side_files.is_empty() && opened.notes.is_empty());
    }

    /// The same weights as safetensors, and as `torch.save` writes them (`tests/reference/pytorch_fixtures.py`).
    #[test]
    fn pytorch_files_are_read_where_there_are_no_safetensors() {
        let (model, saved) = (Path::new("../tests/fixtures/window-2048"), Path::new("src/model/testdata/pytorch"));
        let fingerprint = |checkpoint: &Checkpoint| block_on(checkpoint.weights.fingerprint()).unwrap();
        let expected = fingerprint(&block_on(Checkpoint::open(model.to_str().unwrap())).unwrap());
        let shards =
            ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"];
        let with = |files: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::copy(model.join(CONFIG), dir.path().join(CONFIG)).unwrap();
            for file in files {
                std::fs::copy(saved.join(file), dir.path().join(file)).unwrap();
            }
            dir
        };
        for files in [&["pytorch_model.bin"][..], &shards] {
            let dir = with(files);
            assert_eq!(fingerprint(&open(&dir).unwrap()), expected, "{files:?}");
            // Beside safetensors it is not looked at.
            std::fs::copy(model.join(SINGLE), dir.path().join(SINGLE)).unwrap();
            std::fs::write(dir.path().join(files[0]), "no weights").unwrap();
            assert_eq!(fingerprint(&open(&dir).unwrap()), expected, "{files:?}");
        }
        let error = message(open(&with(&shards[..1])));
        assert!(error.contains("00001-of-00002.bin") && error.contains("are missing or wrong"), "{error}");
        let error = message(open(&with(&shards[..2])));
        assert!(error.contains("pytorch_model.bin.index.json is missing"), "{error}");
    }

    #[test]
    fn a_single_wrong_file_is_named_for_what_it_is() {
        let source = || Rc::new(BytesSource::new("picture.png", &b"\x89PNG\r\n\x1a\n"[..])) as Rc<dyn ByteSource>;
        let error = message(block_on(Checkpoint::from_files("picture.png", vec![("picture.png".into(), source())])));
        assert!(error.contains("not a GGUF file: it is a PNG file") && !error.contains("folder has no"), "{error}");
    }

    /// The tiny model's folder with its configuration and its weights changed.
    fn changed(
        config: impl FnOnce(&mut Map<String, Value>),
        tensor: impl Fn(&str) -> Option<String>,
        more: &[(&str, safetensors::Dtype, Vec<usize>, Vec<u8>)],
    ) -> tempfile::TempDir {
        let dir = folder(&["config.json", "tokenizer.json"]);
        let path = dir.path().join(CONFIG);
        let mut json: Map<String, Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config(&mut json);
        std::fs::write(&path, serde_json::to_vec(&json).unwrap()).unwrap();
        let weights = std::fs::read(Path::new(TINY).join(SINGLE)).unwrap();
        let stored = safetensors::SafeTensors::deserialize(&weights).unwrap();
        let mut views: Vec<_> =
            stored.tensors().into_iter().filter_map(|(name, view)| Some((tensor(&name)?, view))).collect();
        for (name, dtype, shape, bytes) in more {
            let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap();
            views.push((name.to_string(), view));
        }
        std::fs::write(dir.path().join(SINGLE), safetensors::serialize(views, None).unwrap()).unwrap();
        dir
    }

    fn same(name: &str) -> Option<String> {
        Some(name.to_string())
    }

    /// GPT-2 as it is on the hub: the base class by itself, with the masks that old versions saved.
    #[test]
    fn the_base_of_gpt2_is_the_model() {
        let config = serde_json::json!({
            "model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 4, "vocab_size": 10,
        });
        let spec = ModelSpec::from_config(config.as_object().unwrap()).unwrap();
        let mut tensors: Vec<(String, Vec<usize>)> = spec.needed_tensors().collect();
        for (name, _) in &mut tensors {
            *name = name.strip_prefix("transformer.").unwrap().to_string();
        }
        tensors.push(("h.0.attn.bias".to_string(), vec![1, 1, 4, 4]));
        tensors.push(("h.0.attn.masked_bias".to_string(), vec![]));
        let zeros = vec![0; 4096];
        let view = |shape: &[usize]| {
            let bytes = &zeros[..shape.iter().product::<usize>() * 4];
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap()
        };
        let views: Vec<_> = tensors.iter().map(|(name, shape)| (name.clone(), view(shape))).collect();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(SINGLE), safetensors::serialize(views, None).unwrap()).unwrap();
        std::fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
        let checkpoint = block_on(Checkpoint::open(dir.path().to_str().unwrap())).unwrap();
        assert_eq!(checkpoint.notes, [""; 0]);
        assert_eq!(checkpoint.weights.get("transformer.h.0.attn.c_attn.weight").unwrap().shape, [8, 24]);
    }

    /// The tiny model's tensors by their usual names, in whatever way a program has saved them.
    #[test]
    fn usual_prefixes_of_names_do_not_matter() {
        let whole = block_on(Checkpoint::builtin_tiny()).unwrap();
        let names: Vec<String> = whole.weights.names().map(str::to_string).collect();
        let without_base = |name: &str| Some(name.strip_prefix("model.").unwrap_or(name).to_string());
        for dir in [
            changed(|_| (), without_base, &[]),
            changed(|_| (), |name| Some(format!("_orig_mod.{name}")), &[]),
            changed(|_| (), |name| Some(format!("module._orig_mod.{name}")), &[]),
            changed(|_| (), |name| Some(format!("module.{}", without_base(name)?)), &[]),
        ] {
            let checkpoint = open(&dir).unwrap();
            assert_eq!(checkpoint.weights.names().collect::<Vec<_>>(), names);
            let fingerprint = |checkpoint: &Checkpoint| block_on(checkpoint.weights.fingerprint()).unwrap();
            assert_eq!(fingerprint(&checkpoint), fingerprint(&whole));
        }
    }

    #[test]
    fn weights_of_another_kind_are_named() {
        use safetensors::Dtype;
        let matrix = |name: &str| name.ends_with("q_proj.weight");
        let packed =
            |end: &'static str| move |name: &str| Some(name.replace("q_proj.weight", &format!("q_proj.{end}")));
        let f8 = [("model.layers.0.self_attn.q_proj.weight", Dtype::F8_E4M3, vec![128, 128], vec![0; 128 * 128])];
        let mlx = [
            ("model.layers.0.self_attn.q_proj.weight", Dtype::U32, vec![128, 16], vec![0; 128 * 16 * 4]),
            ("model.layers.0.self_attn.q_proj.scales", Dtype::BF16, vec![128, 2], vec![0; 128 * 2 * 2]),
            ("model.layers.0.self_attn.q_proj.biases", Dtype::BF16, vec![128, 2], vec![0; 128 * 2 * 2]),
        ];
        let without_first = |name: &str| (!matrix(name) || !name.contains("layers.0.")).then(|| name.to_string());
        let cases: [(tempfile::TempDir, &[&str]); 7] = [
            (changed(|_| (), without_first, &mlx), &["quantised by MLX", "q_proj.weight` is U32", "a GGUF file of it"]),
            (changed(|_| (), packed("qweight"), &[]), &["quantised", "q_proj.qweight"]),
            (changed(|_| (), packed("weight_packed"), &[]), &["quantised", "weight_packed"]),
            (changed(|_| (), packed("lora_A.weight"), &[]), &["LoRA", "merge_and_unload"]),
            (
                changed(|_| (), |name| Some(name.replace("model.embed_tokens", "tok_embeddings")), &[]),
                &["original names of Meta and Mistral", "tok_embeddings.weight"],
            ),
            (changed(|_| (), |name| Some(format!("gpt.{name}")), &[]), &["other names", "`gpt."]),
            (changed(|_| (), without_first, &f8), &["1 tensors are of a type that is not supported", "is F8_E4M3"]),
        ];
        for (dir, parts) in cases {
            let error = message(open(&dir));
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert!(!error.contains("missing or wrong"), "{error}");
        }
    }

    #[test]
    fn a_head_that_is_not_the_embedding_is_used() {
        use safetensors::Dtype;
        let embedding = |sign: f32| {
            let tiny = block_on(Checkpoint::builtin_tiny()).unwrap();
            let values = block_on(tiny.weights.read_f32("model.embed_tokens.weight")).unwrap();
            values.iter().flat_map(|value| (sign * value).to_le_bytes()).collect::<Vec<u8>>()
        };
        let head = |shape: [usize; 2], bytes: Vec<u8>| [("lm_head.weight", Dtype::F32, shape.to_vec(), bytes)];
        let same_head = open(&changed(|_| (), same, &head([4096, 128], embedding(1.0)))).unwrap();
        assert!(same_head.spec.head.tied && same_head.notes.is_empty());
        let own = open(&changed(|_| (), same, &head([4096, 128], embedding(-1.0)))).unwrap();
        assert!(!own.spec.head.tied && own.config["tie_word_embeddings"] == false);
        assert!(
            own.notes[0].contains("lm_head.weight") && own.notes[0].contains("tie_word_embeddings"),
            "{:?}",
            own.notes
        );
        let error = message(open(&changed(|_| (), same, &head([128, 4096], embedding(1.0)))));
        assert!(error.contains("lm_head.weight") && error.contains("tie_word_embeddings"), "{error}");
    }

    #[test]
    fn what_is_not_read_is_said() {
        use safetensors::Dtype;
        let fewer =
            open(&changed(|config| drop(config.insert("num_hidden_layers".into(), 10.into())), same, &[])).unwrap();
        assert!(fewer.notes[0].contains("layers up to 11") && fewer.notes[0].contains("num_hidden_layers"));
        let bias = [("model.layers.3.self_attn.q_proj.bias", Dtype::F32, vec![128], vec![0; 512])];
        let extra = open(&changed(|_| (), same, &bias)).unwrap();
        assert!(extra.notes[0].contains("q_proj.bias"), "{:?}", extra.notes);
        let old = [("model.layers.3.self_attn.rotary_emb.inv_freq", Dtype::F32, vec![16], vec![0; 64])];
        assert!(open(&changed(|_| (), same, &old)).unwrap().notes.is_empty());
        // Not JSON, but what Python writes.
        let nan = changed(|config| drop(config.insert("initializer_range".into(), "NaN".into())), same, &[]);
        let path = nan.path().join(CONFIG);
        let text = std::fs::read_to_string(&path).unwrap().replace("\"NaN\"", "NaN");
        std::fs::write(&path, &text).unwrap();
        let checkpoint = open(&nan).unwrap();
        assert!(
            checkpoint.notes[0].contains("initializer_range") && !checkpoint.config.contains_key("initializer_range")
        );
        std::fs::write(&path, text.replace("\"rms_norm_eps\"", "\"rms_norm_eps\": NaN, \"x\"")).unwrap();
        assert!(message(open(&nan)).contains("`rms_norm_eps` is \"NaN\""));
    }

    #[test]
    fn a_gguf_file_is_known_by_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let fixture = Path::new("../tests/fixtures/gguf-floats/model.gguf");
        let blob = dir.path().join("sha256-0123");
        std::fs::copy(fixture, &blob).unwrap();
        assert!(block_on(Checkpoint::open(blob.to_str().unwrap())).unwrap().from_gguf);
        std::fs::write(&blob, b"version https://git-lfs.github.com/spec/v1\n").unwrap();
        assert!(message(block_on(Checkpoint::open(blob.to_str().unwrap()))).contains("git lfs pull"));
    }

    /// The parts that the Python package `gguf` writes of a file (`tests/reference/split_gguf.py`), by their names.
    fn parts() -> Vec<(String, Vec<u8>)> {
        let part = |number: usize| {
            let name = format!("split-{number:05}-of-00003.gguf");
            let bytes = std::fs::read(format!("src/model/testdata/gguf-split/{name}")).unwrap();
            (name, bytes)
        };
        (1..=3).map(part).collect()
    }

    #[test]
    fn a_split_gguf_file_is_the_whole_one() {
        let whole = block_on(Checkpoint::open("../tests/fixtures/gguf-mistral/model.gguf")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let parts = parts();
        for (name, bytes) in &parts {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let path = |number: usize| dir.path().join(&parts[number].0).to_str().unwrap().to_string();
        let sources = || {
            let source = |(name, bytes): &(String, Vec<u8>)| {
                (name.clone(), Rc::new(BytesSource::new(name.clone(), bytes.clone())) as Rc<dyn ByteSource>)
            };
            parts.iter().rev().map(source).collect::<Vec<_>>()
        };
        let opened = block_on(Checkpoint::open(&path(0))).unwrap();
        let given = block_on(Checkpoint::from_files("x", sources())).unwrap();
        for checkpoint in [opened, given] {
            assert_eq!((checkpoint.name.as_str(), checkpoint.from_gguf), ("split", true));
            assert_eq!(checkpoint.config, whole.config);
            assert_eq!(checkpoint.side_files, whole.side_files);
            let fingerprint = |checkpoint: &Checkpoint| block_on(checkpoint.weights.fingerprint()).unwrap();
            assert_eq!(fingerprint(&checkpoint), fingerprint(&whole));
        }
        let error = message(block_on(Checkpoint::open(&path(2))));
        assert!(error.contains("part 3 of 3") && error.contains("give split-00001-of-00003.gguf"), "{error}");
        let mut mixed = sources();
        mixed[1].0 = "other-00002-of-00003.gguf".into();
        let error = message(block_on(Checkpoint::from_files("x", mixed)));
        assert!(error.starts_with("other-00002-of-00003.gguf: it is not a part of the same model"), "{error}");
        std::fs::remove_file(path(1)).unwrap();
        let error = message(block_on(Checkpoint::open(&path(0))));
        assert!(error.starts_with(&path(0)) && error.contains("split-00002-of-00003.gguf is missing"), "{error}");
    }

    /// The hub's cache: files are links out of the snapshot's folder, but not out of the model's.
    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_only_those_within_the_model_are_copied() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let model = root.path().join("models--someone--tiny");
        let snapshot = model.join("snapshots/abc");
        std::fs::create_dir_all(model.join("blobs")).unwrap();
        std::fs::create_dir_all(&snapshot).unwrap();
        for name in [CONFIG, SINGLE, TOKENIZER] {
            std::fs::copy(Path::new(TINY).join(name), model.join("blobs").join(name)).unwrap();
            symlink(format!("../../blobs/{name}"), snapshot.join(name)).unwrap();
        }
        std::fs::write(root.path().join("secret"), "x").unwrap();
        symlink("../../../secret", snapshot.join("LICENSE")).unwrap();
        let check = |checkpoint: Checkpoint| {
            let names: Vec<&str> = checkpoint.side_files.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, [TOKENIZER]);
            assert_eq!(checkpoint.name, "someone/tiny");
            assert!(
                checkpoint.notes.iter().any(|note| note.starts_with("LICENSE is a link")),
                "{:?}",
                checkpoint.notes
            );
        };
        check(block_on(Checkpoint::open(snapshot.to_str().unwrap())).unwrap());
        check(block_on(Checkpoint::open(model.to_str().unwrap())).unwrap());
        // Two snapshots: the one that `refs/main` names, or a question.
        std::fs::create_dir_all(model.join("snapshots/def")).unwrap();
        assert!(message(block_on(Checkpoint::open(model.to_str().unwrap()))).contains("snapshots"));
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::write(model.join("refs/main"), "abc\n").unwrap();
        check(block_on(Checkpoint::open(model.to_str().unwrap())).unwrap());
        // Anywhere else, a link out of the folder is read, where it has to be, and not copied.
        let plain = root.path().join("plain");
        std::fs::create_dir(&plain).unwrap();
        for name in [CONFIG, SINGLE, TOKENIZER] {
            symlink(snapshot.join(name), plain.join(name)).unwrap();
        }
        for (name, content) in [(GENERATION_CONFIG, r#"{"eos_token_id": 7}"#), (CARD, "---\nlicense: x\n---\n")] {
            std::fs::write(root.path().join(name), content).unwrap();
            symlink(root.path().join(name), plain.join(name)).unwrap();
        }
        let checkpoint = block_on(Checkpoint::open(plain.to_str().unwrap())).unwrap();
        assert!(checkpoint.side_files.is_empty() && checkpoint.tokenizer().is_ok());
        assert_eq!(checkpoint.eos_token_ids().unwrap(), [7]);
        assert_eq!(checkpoint.origin, Origin::default());
    }

    #[test]
    fn what_is_no_model_is_explained() {
        let cases = [
            ("HuggingFaceTB/SmolLM2-135M@main", ["no such folder", "hf download HuggingFaceTB/SmolLM2-135M "]),
            ("no/such/folder", ["no such folder", "builtin:tiny"]),
            ("https://huggingface.co/org/name", ["no such folder", "hf download org/name "]),
            ("org/name:Q4_K_M", ["the GGUF file of Q4_K_M", "org/name/FILE.gguf"]),
            ("gpt2", ["no such folder", "ORG/NAME (openai-community/gpt2"]),
            ("llama3.2:1b", ["no such folder", "ORG/NAME"]),
            ("./models/none.gguf", ["no such folder", "a .gguf file"]),
            ("builtin:large", ["no such embedded model", "builtin:tiny"]),
            ("../assets/tiny/config.json", ["not a GGUF file", "give the folder"]),
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
