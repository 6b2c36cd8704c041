//! Models by their names, from the Hugging Face hub or a server like it.
//!
//! What a model is made of, what a server's answers mean and when to ask again is decided here for every face; requests
//! themselves are made by whatever implements [`Fetch`]. With the feature `hub`, natively, `Hub` downloads models into the cache
//! that Hugging Face's own programs use. Nothing here opens a model but `Hub::open`.

#[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
mod cache;
#[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
mod choice;
#[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
mod download;
mod fetch;
mod files;
#[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
mod http;
mod repo;
mod source;

#[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
pub use download::{Hub, HubError, HubOptions, Progress};
pub use fetch::{Answer, Fetch, FetchError, Kept, Part, ask};
pub use files::folder_files;
pub use repo::{Listing, ModelName, Place, encoded};
pub use source::RemoteSource;
