//! Downloading models natively, and what can be wrong with that.

use std::cell::RefCell;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use super::cache::{RepositoryCache, Step};
use super::choice::{Choice, choose};
use super::fetch::{FetchError, retried};
use super::files::folder_files;
use super::http::Http;
use super::repo::{Listing, ModelName, Place};
use super::source::RemoteSource;
use crate::error::Error;
use crate::model::{Checkpoint, is_weights};
use crate::weights::{ByteSource, FileSource, NamedSources, WeightsError, base_name};

/// Where the hub is unless it is said otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// Bytes of weights that are fetched at a time where only what is before them is of interest.
const PIECE: u64 = 256 << 10;

/// What went wrong while a model was downloaded. Every message names the address, repository or file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The hub does not have what was asked for, or does not give it to everyone.
    #[error("{what}: {problem}; {advice}")]
    Refused {
        /// The name that was given, or an address.
        what: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        advice: String,
    },
    /// The network, or the server, failed.
    #[error(
        "{url}: {reason}; check the network and HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use only what was downloaded before"
    )]
    Network {
        /// What was asked for.
        url: String,
        /// What came of it.
        reason: String,
    },
    /// What arrived is not what was announced. Nothing of it is kept.
    #[error(
        "{url}: what arrived is damaged: {problem}; try again, and if it stays so, look for a proxy that changes files"
    )]
    Damaged {
        /// The file's address.
        url: String,
        /// How that shows.
        problem: String,
    },
    /// The cache cannot be written or read.
    #[error("{path}: {reason}; {advice}")]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// A file in the cache cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl HubError {
    pub(super) fn from_fetch(url: &str, error: FetchError) -> Self {
        Self::Network { url: url.to_string(), reason: error.to_string() }
    }
}

/// What a download tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// So many bytes of a file are there.
    File {
        /// Its path in the repository.
        file: &'a str,
        /// Bytes that are there.
        done: u64,
        /// All of its bytes.
        total: u64,
    },
    /// Another process downloads this file, and is waited for.
    Waiting {
        /// Its path in the repository.
        file: &'a str,
    },
}

/// Where models come from and are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubOptions {
    /// The hub's address.
    pub endpoint: String,
    /// A token for it, which no other server gets.
    pub token: Option<String>,
    /// The folder of the cache.
    pub cache: PathBuf,
    /// Whether nothing is asked for that is not in the cache.
    pub offline: bool,
}

impl HubOptions {
    /// The hub itself, and a cache in this folder.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self { endpoint: ENDPOINT.to_string(), token: None, cache: cache.into(), offline: false }
    }

    /// The hub's address.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// A token.
    pub fn token(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    /// Whether only the cache is used.
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// As the environment says, in the words of the Python package `huggingface_hub`: `HF_ENDPOINT`; `HF_TOKEN`, or the file that
    /// `HF_TOKEN_PATH` names, by default `token` in `HF_HOME`; `HF_HUB_CACHE`, by default `hub` in `HF_HOME`, which by default is
    /// `huggingface` in `XDG_CACHE_HOME` or `.cache` in the home folder; `HF_HUB_OFFLINE`
    /// (<https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>).
    ///
    /// # Errors
    /// [`HubError::Refused`] if none of them says where the cache is and there is no home folder, or a variable makes no sense.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(|name| env::var(name).ok().filter(|value| !value.trim().is_empty()), env::home_dir())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Result<Self, HubError> {
        let folder = |name: &str| variable(name).map(PathBuf::from);
        let cache_home = || folder("XDG_CACHE_HOME").or_else(|| Some(home?.join(".cache")));
        let hf_home = folder("HF_HOME").or_else(|| Some(cache_home()?.join("huggingface")));
        let cache = folder("HF_HUB_CACHE").or_else(|| Some(hf_home.as_ref()?.join("hub")));
        let refused = |what: &str, problem: &str, advice: &str| HubError::Refused {
            what: what.into(),
            problem: problem.into(),
            advice: advice.into(),
        };
        let Some(cache) = cache else {
            return Err(refused("HF_HOME", "nothing says where downloads are to be kept", "set it to a folder"));
        };
        let token_file = folder("HF_TOKEN_PATH").or_else(|| Some(hf_home?.join("token")));
        let token = variable("HF_TOKEN").or_else(|| fs::read_to_string(token_file?).ok());
        let token = token.map(|token| token.trim().to_string()).filter(|token| !token.is_empty());
        if token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(refused(
                "HF_TOKEN",
                "it holds characters that no token has",
                "set it to one that the hub gave you",
            ));
        }
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_string());
        let endpoint = endpoint.trim().trim_end_matches('/').to_string();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let problem = format!("it is `{endpoint}`, which is no http or https address");
            return Err(refused("HF_ENDPOINT", &problem, "set it to one such as https://huggingface.co"));
        }
        let is_true = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_ascii_uppercase().as_str());
        Ok(Self { endpoint, token, cache, offline: variable("HF_HUB_OFFLINE").is_some_and(is_true) })
    }
}

/// The Hugging Face hub, or a server like it, and the cache of what was downloaded from it.
#[derive(Debug)]
pub struct Hub {
    options: HubOptions,
    http: Rc<Http>,
}

/// A model of the hub at one of its commits.
struct Found {
    place: Place,
    cache: RepositoryCache,
    commit: String,
    listed: Vec<String>,
    choice: Choice,
}

type Tell<'a> = dyn FnMut(Progress<'_>) + 'a;

impl Hub {
    /// Nothing is asked for yet.
    pub fn new(options: HubOptions) -> Self {
        let http = Rc::new(Http::new(&options.endpoint, options.token.clone()));
        Self { options, http }
    }

    /// Where models come from and are kept.
    pub fn options(&self) -> &HubOptions {
        &self.options
    }

    /// Downloads what a model is made of, unless it is in the cache, and says where it is: a folder, or a GGUF file with all its
    /// parts beside it, for [`Checkpoint::open`]. Requests block. A download that ends before its time is gone on with by the next
    /// one.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn fetch(&self, name: &ModelName, progress: &mut Tell<'_>) -> Result<PathBuf, HubError> {
        let found = self.find(name).await?;
        self.files(name, &found, false, progress).await?;
        let snapshot = found.cache.snapshot(&found.commit);
        Ok(match &found.choice {
            Choice::Folder => snapshot,
            Choice::Gguf(files) => files.first().map_or(snapshot.clone(), |first| snapshot.join(first)),
        })
    }

    /// Opens a model of whose weights little is wanted: they are read where they lie, piece by piece, unless they are in the
    /// cache. Its other files are downloaded.
    ///
    /// # Errors
    /// [`HubError`], and those of [`Checkpoint::open`].
    pub async fn open(&self, name: &ModelName, progress: &mut Tell<'_>) -> Result<Checkpoint, Error> {
        let found = self.find(name).await?;
        let files = self.files(name, &found, true, progress).await?;
        Ok(Checkpoint::from_files(&name.repository, files).await?)
    }

    /// Finds out which commit is meant, and which of its files are the model.
    async fn find(&self, name: &ModelName) -> Result<Found, HubError> {
        let cache = RepositoryCache::new(&self.options.cache, &name.repository);
        let (commit, listed) = match self.options.offline {
            true => {
                let commit =
                    cache.commit(&name.revision).ok_or_else(|| self.not_cached(name, &cache, "is not there"))?;
                let listed = cache.files(&commit);
                (commit, listed)
            }
            false => {
                let place = Place::new(&self.options.endpoint, &name.repository, &name.revision);
                let Listing { commit, files, .. } = place
                    .listing(self.http.as_ref())
                    .await
                    .map_err(|error| self.explained(name, &place.list(), error, None))?;
                let commit = commit.ok_or_else(|| HubError::Network {
                    url: place.list(),
                    reason: "the answer does not say which commit it is of".into(),
                })?;
                (commit, files)
            }
        };
        let place = Place::new(&self.options.endpoint, &name.repository, &commit);
        let choice = choose(&name.repository, &listed, name.file.as_deref()).map_err(|(problem, advice)| match self
            .options
            .offline
        {
            true => self.not_cached(name, &cache, &format!("is there only in part ({problem})")),
            false => HubError::Refused { what: place.page(), problem, advice },
        })?;
        Ok(Found { place, cache, commit, listed, choice })
    }

    /// The files of a model; weights that are not in the cache stay where they are if they are `remote`.
    async fn files(
        &self,
        name: &ModelName,
        found: &Found,
        remote: bool,
        progress: &mut Tell<'_>,
    ) -> Result<NamedSources, HubError> {
        let progress = RefCell::new(progress);
        let look = async |names: Vec<String>| {
            let mut sources = NamedSources::new();
            for file in names {
                let source = self.file(name, found, &file, remote, &progress).await?;
                sources.push((base_name(&file).to_string(), source));
            }
            Ok::<_, HubError>(sources)
        };
        let sources = match &found.choice {
            Choice::Folder => folder_files(Some(&found.listed), look).await?,
            Choice::Gguf(files) => look(files.clone()).await?,
        };
        if !self.options.offline {
            found.cache.set_commit(&name.revision, &found.commit)?;
        }
        Ok(sources)
    }

    async fn file(
        &self,
        name: &ModelName,
        found: &Found,
        file: &str,
        remote: bool,
        progress: &RefCell<&mut Tell<'_>>,
    ) -> Result<Rc<dyn ByteSource>, HubError> {
        let Found { place, cache, commit, .. } = found;
        if let Some(path) = cache.file(commit, file) {
            return Ok(Rc::new(FileSource::open(path)?));
        }
        if self.options.offline {
            return Err(self.not_cached(name, cache, &format!("is there without {file}")));
        }
        let url = place.file(file);
        let explained = |error| self.explained(name, &url, error, Some(file));
        let info = retried(self.http.as_ref(), async || self.http.info(&url)).await.map_err(explained)?;
        if remote && (is_weights(file) || matches!(found.choice, Choice::Gguf(_))) {
            return Ok(Rc::new(RemoteSource::new(self.http.clone(), &url, &url, info.size, PIECE)));
        }
        let total = info.size;
        let mut tell = |step| {
            progress.borrow_mut()(match step {
                Step::Done(done) => Progress::File { file, done, total },
                Step::Waiting => Progress::Waiting { file },
            });
        };
        let path = cache.download(&self.http, &url, &info, commit, file, &mut tell)?;
        Ok(Rc::new(FileSource::open(path)?))
    }

    fn not_cached(&self, name: &ModelName, cache: &RepositoryCache, problem: &str) -> HubError {
        let ModelName { repository, revision, .. } = name;
        HubError::Refused {
            what: format!("{repository}@{revision}"),
            problem: format!("HF_HUB_OFFLINE is set, and in the cache {} it {problem}", cache.folder().display()),
            advice: "unset HF_HUB_OFFLINE to download it".to_string(),
        }
    }

    /// What an answer means to whoever named a model.
    fn explained(&self, name: &ModelName, url: &str, error: FetchError, file: Option<&str>) -> HubError {
        let Self { options: HubOptions { endpoint, token, .. }, .. } = self;
        let ModelName { repository, revision, .. } = name;
        let page = format!("{endpoint}/{repository}");
        let refused = |problem: String, advice: String| HubError::Refused { what: page.clone(), problem, advice };
        let spelling = "check how it is written (there is no such folder or file here either)";
        match error {
            FetchError::Refused { status, code } if status == 403 || code.as_deref() == Some("GatedRepo") => refused(
                format!("the model is gated (status {status})"),
                match token {
                    Some(_) => format!("accept its conditions at {page} with the account that the token is of"),
                    None => format!("accept its conditions at {page}, then set HF_TOKEN to a token of that account"),
                },
            ),
            FetchError::Refused { status, .. } if token.is_some() => refused(
                format!("the hub does not accept the token (status {status})"),
                format!("make another at {endpoint}/settings/tokens and set HF_TOKEN to it, or go without"),
            ),
            // It says the same of what is private and of what is not there.
            FetchError::Refused { status, .. } => refused(
                format!("there is no such public repository (status {status})"),
                format!("{spelling}; if it is private, set HF_TOKEN to a token that may read it"),
            ),
            FetchError::Missing { status, code } => match file {
                Some(file) => refused(
                    format!("{file} is in the list of its files, and yet not there (status {status})"),
                    "try again later: it may be changing".to_string(),
                ),
                None if code.as_deref() == Some("RevisionNotFound") => refused(
                    format!("the repository has no revision {revision}"),
                    format!("give a branch, tag or commit of it, `{repository}@REVISION`"),
                ),
                None => refused(
                    format!("there is no such repository, or it has no revision {revision} (status {status})"),
                    spelling.to_string(),
                ),
            },
            error => HubError::from_fetch(url, error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::path::Path;

    use super::*;

    fn options(variables: &[(&str, &str)]) -> Result<HubOptions, HubError> {
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        HubOptions::from_variables(variable, Some(PathBuf::from("/home/me")))
    }

    #[test]
    fn the_environment_says_what_it_says_to_huggingface_hub() {
        let cache = |variables: &[(&str, &str)]| options(variables).unwrap().cache;
        let is =
            |variables: &[(&str, &str)], path: &str| assert_eq!(cache(variables), Path::new(path), "{variables:?}");
        is(&[], "/home/me/.cache/huggingface/hub");
        is(&[("XDG_CACHE_HOME", "/c")], "/c/huggingface/hub");
        is(&[("XDG_CACHE_HOME", "/c"), ("HF_HOME", "/h")], "/h/hub");
        is(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/k")], "/k");
        let HubOptions { endpoint, token, offline, .. } = options(&[]).unwrap();
        assert_eq!((endpoint.as_str(), token, offline), (ENDPOINT, None, false));
        let set = options(&[("HF_ENDPOINT", "http://h:1/"), ("HF_TOKEN", " t\n"), ("HF_HUB_OFFLINE", "true")]).unwrap();
        assert_eq!((set.endpoint.as_str(), set.token.as_deref(), set.offline), ("http://h:1", Some("t"), true));
        assert!(!options(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        assert!(options(&[("HF_ENDPOINT", "ftp://h")]).unwrap_err().to_string().starts_with("HF_ENDPOINT: "));
        let hidden = options(&[("HF_TOKEN", "two words")]).unwrap_err().to_string();
        assert!(hidden.starts_with("HF_TOKEN: ") && !hidden.contains("two"), "{hidden}");

        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "from-file\n").unwrap();
        let home = home.path().to_str().unwrap();
        assert_eq!(options(&[("HF_HOME", home)]).unwrap().token.as_deref(), Some("from-file"));
        assert_eq!(options(&[("HF_HOME", home), ("HF_TOKEN", "mine")]).unwrap().token.as_deref(), Some("mine"));
        let elsewhere = format!("{home}/token");
        assert_eq!(options(&[("HF_TOKEN_PATH", &elsewhere)]).unwrap().token.as_deref(), Some("from-file"));
    }
}
