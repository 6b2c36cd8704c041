//! Where a model comes from, as far as its files say: what the card of a model that is made from it has to name.

use crate::hub::ModelName;
use crate::weights::WeightsError;
use crate::weights::gguf::GgufMetadata;

/// The card of a folder, whose first lines may name the licence.
pub(crate) const CARD: &str = "README.md";

/// What a model's files say of its publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// Its repository on the Hugging Face hub, `organisation/name`.
    pub repository: Option<String>,
    /// The licence by the hub's short name: `apache-2.0`, or `other`.
    pub license: Option<String>,
    /// What another licence is called.
    pub license_name: Option<String>,
    /// Where it can be read.
    pub license_link: Option<String>,
}

impl Origin {
    /// By the metadata that a model card begins with: lines of YAML between two of dashes.
    pub(super) fn from_card(text: &str) -> Self {
        let mut lines = text.lines();
        if lines.next().map(str::trim_end) != Some("---") {
            return Self::default();
        }
        let mut origin = Self::default();
        for line in lines.take_while(|line| line.trim_end() != "---") {
            // Of a key at the beginning of a line; lists and what is below a key are not looked at.
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim().trim_matches(['"', '\'']);
            let place = match key {
                "license" => &mut origin.license,
                "license_name" => &mut origin.license_name,
                "license_link" => &mut origin.license_link,
                _ => continue,
            };
            *place = said(value);
        }
        origin
    }

    /// By the keys that llama.cpp's converter writes.
    pub(super) fn from_gguf(metadata: &GgufMetadata) -> Result<Self, WeightsError> {
        let text = |key: &str| Ok::<_, WeightsError>(metadata.string(key)?.and_then(said));
        let mut repository = None;
        for key in ["general.repo_url", "general.source.repo_url", "general.base_model.0.repo_url"] {
            repository = repository.or(text(key)?.and_then(|url| on_hub(&url)));
        }
        Ok(Self {
            repository,
            license: text("general.license")?,
            license_name: text("general.license.name")?,
            license_link: text("general.license.link")?,
        })
    }
}

/// A value that says something.
fn said(value: &str) -> Option<String> {
    let value = value.trim();
    (!value.is_empty() && value.len() <= 500 && !value.contains(char::is_control)).then(|| value.to_string())
}

/// The repository of an address of the hub.
fn on_hub(url: &str) -> Option<String> {
    ModelName::parse(url).filter(|_| url.starts_with("https://")).map(|name| name.repository)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_names_its_licence() {
        let card = "---\nlanguage:\n- en\nlicense: \"apache-2.0\"\nlicense_name: \ntags: [a]\n  license_link: x\n---\nlicense: mit\n";
        let expected = Origin { license: Some("apache-2.0".into()), ..Origin::default() };
        assert_eq!(Origin::from_card(card), expected);
        for text in ["", "# A model\nlicense: mit", "---", "license: mit"] {
            assert_eq!(Origin::from_card(text), Origin::default(), "{text}");
        }
        assert_eq!(Origin::from_card("---\r\nlicense: mit\r\n---\r\n").license.as_deref(), Some("mit"));
    }

    #[test]
    fn addresses_of_the_hub_name_repositories() {
        assert_eq!(on_hub("https://huggingface.co/org/name/").as_deref(), Some("org/name"));
        for other in ["https://example.com/org/name", "https://huggingface.co/name", "https://huggingface.co/a/b c"] {
            assert_eq!(on_hub(other), None, "{other}");
        }
    }
}
