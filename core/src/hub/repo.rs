//! How a model is named, and where a hub has its files.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::fetch::{Fetch, FetchError, Kept, once, retried};

/// Bytes of a list of files that are read at most.
const LISTING_LIMIT: u64 = 64 << 20;
/// What stays as it is in a part of an address.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// How addresses of the Hugging Face hub begin.
const HUB: [&str; 5] = ["https://huggingface.co/", "https://hf.co/", "huggingface.co/", "hf.co/", "hf://"];

/// A model of a hub by its name: `org/name`, `org/name@revision`, or one of its GGUF files, `org/name/FILE.gguf`; or by the address
/// of one of these on the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelName {
    /// `org/name`.
    pub repository: String,
    /// A branch, a tag or a commit; `main` if the name does not say.
    pub revision: String,
    /// A GGUF file of it, by its path there.
    pub file: Option<String>,
}

impl ModelName {
    /// The name that a text is, if it is one. It may as well be a path: whoever asks looks there first.
    pub fn parse(text: &str) -> Option<Self> {
        let Some(address) = HUB.iter().find_map(|hub| text.strip_prefix(hub)) else { return Self::named(text) };
        let parts: Vec<&str> = address.trim_end_matches('/').splitn(5, '/').collect();
        match parts.as_slice() {
            [organisation, name, "tree", revision] => Self::named(&format!("{organisation}/{name}@{revision}")),
            [organisation, name, "blob" | "resolve", revision, file] => {
                Self::named(&format!("{organisation}/{name}/{file}@{revision}"))
            }
            parts => Self::named(&parts.join("/")),
        }
    }

    fn named(text: &str) -> Option<Self> {
        let (path, revision) = text.split_once('@').unwrap_or((text, "main"));
        let mut parts = path.splitn(3, '/');
        let (organisation, name, file) = (parts.next()?, parts.next()?, parts.next());
        let is_gguf = |file: &str| file.to_ascii_lowercase().ends_with(".gguf");
        let is_file = is_gguf(name) || name.ends_with(".safetensors");
        let named = [organisation, name].into_iter().all(is_name) && !(file.is_none() && is_file);
        let filed = file.is_none_or(|file| is_plain(file) && is_gguf(file));
        let revised = is_plain(revision) && revision.split('/').all(is_name);
        (named && filed && revised).then(|| Self {
            repository: format!("{organisation}/{name}"),
            revision: revision.to_string(),
            file: file.map(str::to_string),
        })
    }
}

/// Whether a text is one that the hub gives to repositories, organisations and parts of revisions.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    !text.is_empty() && !text.starts_with(['.', '-']) && text.bytes().all(plain)
}

/// Whether a path leads from a folder to what is in it, on any system.
pub(crate) fn is_plain(path: &str) -> bool {
    let part = |part: &str| !matches!(part, "" | "." | "..");
    !path.contains(['\\', ':']) && !path.contains(char::is_control) && path.split('/').all(part)
}

/// Where a hub has one revision of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The hub's address, without a slash at its end.
    hub: String,
    /// `org/name`.
    repository: String,
    /// As addresses have it.
    revision: String,
}

impl Place {
    /// That of a repository of the hub at the address `hub`.
    pub fn new(hub: &str, repository: &str, revision: &str) -> Self {
        let revision = encoded(revision);
        Self { hub: hub.trim_end_matches('/').to_string(), repository: repository.to_string(), revision }
    }

    /// That of the folder at an address, `HUB/ORG/NAME/resolve/REVISION/`; None for other addresses.
    pub fn of_folder(url: &str) -> Option<Self> {
        let (repository, revision) = url.split_once("/resolve/")?;
        let revision = revision.strip_suffix('/').filter(|revision| !revision.contains('/'))?;
        let mut parts = repository.rsplitn(3, '/');
        let (name, organisation, hub) = (parts.next()?, parts.next()?, parts.next()?);
        let repository = format!("{organisation}/{name}");
        Some(Self { hub: hub.to_string(), repository, revision: revision.to_string() })
    }

    /// The address of what people see of the repository.
    pub fn page(&self) -> String {
        format!("{}/{}", self.hub, self.repository)
    }

    /// The address of one of its files.
    pub fn file(&self, path: &str) -> String {
        let path: Vec<String> = path.split('/').map(encoded).collect();
        format!("{}/{}/resolve/{}/{}", self.hub, self.repository, self.revision, path.join("/"))
    }

    /// The address of the list of its files.
    pub fn list(&self) -> String {
        format!("{}/api/models/{}/revision/{}", self.hub, self.repository, self.revision)
    }

    /// What files are there.
    ///
    /// # Errors
    /// No answer, one whose status is an error, or one that is no such list.
    pub async fn listing<F: Fetch>(&self, fetch: &F) -> Result<Listing, FetchError> {
        let text = retried(fetch, async || {
            let kept = fetch.keep(once(fetch, &self.list(), None).await?.body, LISTING_LIMIT).await;
            let kept = kept.map_err(FetchError::BrokeOff)?;
            kept.read(0, kept.size() as usize).await.map_err(FetchError::BrokeOff)
        });
        Listing::parse(&text.await?)
    }
}

/// A part of a path as an address has it: whatever characters it has, none of them is syntax there.
pub fn encoded(part: &str) -> String {
    utf8_percent_encode(part, ENCODED).to_string()
}

/// The files of a repository at one of its commits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listing {
    /// The commit, in hexadecimal, if the hub says so.
    pub commit: Option<String>,
    /// Paths in the repository. What is no plain path is left out.
    pub files: Vec<String>,
}

impl Listing {
    fn parse(text: &[u8]) -> Result<Self, FetchError> {
        #[derive(Deserialize)]
        struct Repository {
            sha: Option<String>,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let Repository { sha, siblings } = serde_json::from_slice(text).map_err(|error| {
            FetchError::Unexpected(format!("the answer is no hub's list of a repository's files ({error})"))
        })?;
        let files = siblings.into_iter().map(|file| file.rfilename).filter(|file| is_plain(file)).collect();
        Ok(Self { commit: sha.filter(|sha| is_commit(sha)), files })
    }
}

/// Whether a text is a commit, which names a folder of the cache.
pub(crate) fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let name = |text: &str| {
            let ModelName { repository, revision, file } = ModelName::parse(text).unwrap();
            (repository, revision, file.unwrap_or_default())
        };
        let expected = |repository: &str, revision: &str, file: &str| {
            (repository.to_string(), revision.to_string(), file.to_string())
        };
        assert_eq!(name("org/name"), expected("org/name", "main", ""));
        assert_eq!(name("HuggingFaceTB/SmolLM2-135M@v1.0"), expected("HuggingFaceTB/SmolLM2-135M", "v1.0", ""));
        assert_eq!(name("a/b@refs/pr/1"), expected("a/b", "refs/pr/1", ""));
        assert_eq!(name("a/b/Q4/x y.GGUF@dev"), expected("a/b", "dev", "Q4/x y.GGUF"));
        for address in
            ["https://huggingface.co/a/b", "https://hf.co/a/b/", "huggingface.co/a/b", "hf.co/a/b", "hf://a/b"]
        {
            assert_eq!(name(address), expected("a/b", "main", ""), "{address}");
        }
        assert_eq!(name("hf://a/b@v1"), expected("a/b", "v1", ""));
        assert_eq!(name("https://huggingface.co/a/b/tree/v1"), expected("a/b", "v1", ""));
        for page in ["blob", "resolve"] {
            let address = format!("https://huggingface.co/a/b/{page}/main/Q4/x.gguf");
            assert_eq!(name(&address), expected("a/b", "main", "Q4/x.gguf"));
        }
        for path in [
            "name",
            "./org/name",
            "../name",
            "/org/name",
            "org/",
            "org//name",
            "org/name/more",
            "org/name@",
            "org/name@../x",
            "org/name@a//b",
            "no/such/folder",
            "./models/none.gguf",
            "models/none.gguf",
            "a/b.safetensors",
            "C:\\a/b",
            "org/name/../x.gguf",
            "org/name/a\\b.gguf",
            "-a/b",
            "org/na me",
            "builtin:tiny",
            "hf.co/name",
            "https://huggingface.co/a/b/blob/main/model.safetensors",
            "https://huggingface.co/datasets/a/b",
            "https://example.com/a/b",
            "org/name:Q4_K_M",
        ] {
            assert_eq!(ModelName::parse(path), None, "{path}");
        }
    }

    #[test]
    fn addresses_hold_no_syntax_of_names() {
        let place = Place::new("https://hub.example/", "org/name", "refs/pr/1");
        assert_eq!(place.page(), "https://hub.example/org/name");
        assert_eq!(place.list(), "https://hub.example/api/models/org/name/revision/refs%2Fpr%2F1");
        assert_eq!(
            place.file("a b/c?d#e%.json"),
            "https://hub.example/org/name/resolve/refs%2Fpr%2F1/a%20b/c%3Fd%23e%25.json"
        );
        assert_eq!(Place::of_folder("https://hub.example/org/name/resolve/refs%2Fpr%2F1/"), Some(place));
        for other in ["https://example.org/models/", "https://hub.example/org/name/resolve/main/sub/", "/resolve/x/"] {
            assert_eq!(Place::of_folder(other), None, "{other}");
        }
    }

    #[test]
    fn a_list_of_files_is_read_without_what_climbs() {
        let text = r#"{"id": "x", "sha": "0123456789abcdef0123456789abcdef01234567", "siblings": [{"rfilename": "config.json"},
            {"rfilename": "../up"}, {"rfilename": "/etc/passwd"}, {"rfilename": "a/../../b"}, {"rfilename": "a\\b"},
            {"rfilename": "C:x"}, {"rfilename": "a/b.gguf"}, {"rfilename": ""}]}"#;
        let listing = Listing::parse(text.as_bytes()).unwrap();
        assert_eq!(listing.files, ["config.json", "a/b.gguf"]);
        assert_eq!(listing.commit.as_deref(), Some("0123456789abcdef0123456789abcdef01234567"));
        let climbing = Listing::parse(br#"{"sha": "../../x", "siblings": []}"#).unwrap();
        assert_eq!(climbing.commit, None);
        assert!(Listing::parse(b"<html>").is_err() && Listing::parse(b"{}").is_err());
    }
}
