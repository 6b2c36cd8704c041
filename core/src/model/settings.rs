//! What a family asks of a checkpoint's settings, wherever they stand: config.json or GGUF metadata.

use serde_json::Value;

use super::error::ModelError;
use super::family::{Family, Role};
use super::rope::{RopeRequest, RopeSpec};

/// A setting, as both containers spell it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// In config.json.
    pub hf: &'static str,
    /// In GGUF metadata, after the architecture's name; empty where such files do not have it.
    pub gguf: &'static str,
}

/// A [`Key`].
pub(crate) const fn key(hf: &'static str, gguf: &'static str) -> Key {
    Key { hf, gguf }
}

/// A checkpoint's settings. A `null` counts as left out.
pub(crate) trait Settings {
    /// A whole number from 1 to `most`, if the key is there.
    fn size(&self, key: Key, most: usize) -> Result<Option<usize>, ModelError>;

    /// A whole number from 1 to `most`.
    fn required_size(&self, key: Key, most: usize) -> Result<usize, ModelError> {
        self.size(key, most)?.ok_or_else(|| self.missing(key, &format!("a whole number from 1 to {most}")))
    }

    /// A whole number from 0 up, if the key is there.
    fn count(&self, key: Key) -> Result<Option<usize>, ModelError>;

    /// A finite number greater than 0, if the key is there.
    fn positive(&self, key: Key) -> Result<Option<f64>, ModelError>;

    /// True or false, if the key is there.
    fn flag(&self, key: Key) -> Result<Option<bool>, ModelError>;

    /// A string, if the key is there.
    fn text(&self, key: Key) -> Result<Option<&str>, ModelError>;

    /// A list, if the key is there.
    fn list(&self, key: Key) -> Result<Option<&[Value]>, ModelError>;

    /// Which layers slide, if that is said layer by layer, for a model of so many.
    fn layer_types(&self, layers: usize) -> Result<Option<Vec<bool>>, ModelError>;

    /// Whether the first layer has a tensor that GGUF calls so; None where settings say what there is.
    fn first_layer_holds(&self, tensor: &str) -> Option<bool>;

    /// Whether the key is there and says that there is none, by a `null` or GGUF's 0, which some families tell from a key that
    /// is left out.
    fn is_null(&self, key: Key) -> bool;

    /// Whether a key that is left out means the family's default. GGUF files state every number that they need.
    fn has_defaults(&self) -> bool;

    /// A key's value contradicts another one's.
    fn wrong(&self, key: Key, found: String, expected: String) -> ModelError;

    /// A key is not there that must be.
    fn missing(&self, key: Key, expected: &str) -> ModelError;

    /// A key asks for what is not built here.
    fn unsupported(&self, key: Key, found: String, supported: &str) -> ModelError;

    /// Whether the projections of these roles have a bias: by a key and its default, or by the tensors that are there.
    fn has_bias(&self, key: Option<Key>, default: bool, roles: &[Role]) -> Result<bool, ModelError>;

    /// Entries of the vocabulary.
    fn vocab_size(&self) -> Result<usize, ModelError>;

    /// Whether the head is the embedding.
    fn is_tied(&self, default: bool) -> Result<bool, ModelError>;

    /// The rotary embedding that all layers share.
    fn rope(&self, request: &RopeRequest) -> Result<RopeSpec, ModelError>;

    /// The rotary embeddings of layers with full and with sliding attention, where these differ.
    fn ropes_by_layer_type(
        &self,
        full: &RopeRequest,
        sliding: &RopeRequest,
        sliding_theta: Option<Key>,
    ) -> Result<[RopeSpec; 2], ModelError>;

    /// Tokens that begin and end a text: the first, if any, and all.
    fn special_tokens(&self) -> Result<(Option<u32>, Vec<u32>), ModelError>;

    /// Blocks that an earlier pruning took out of a model of so many layers.
    fn absent(&self, family: &Family, layers: usize) -> Result<super::BlockSet, ModelError>;
}
