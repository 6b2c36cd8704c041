//! BlockPruner on WebGPU: prune the attention (MHA) and feed-forward (MLP) blocks of a large language model by
//! perplexity, on any GPU that wgpu can drive, natively and in the browser.
//!
//! The method is BlockPruner (Zhong et al., Findings of ACL 2025).
//!
//! ```
//! use std::rc::Rc;
//!
//! use blockpruner::model::Checkpoint;
//! use blockpruner::search::{self, SearchOptions};
//! use blockpruner::session::{Event, Session, WindowOptions};
//! use blockpruner::text::{CalibrationText, TextOptions};
//!
//! # fn main() -> Result<(), blockpruner::Error> {
//! blockpruner::block_on(async {
//!     let checkpoint = Checkpoint::open("builtin:tiny").await?;
//!     let text = CalibrationText::open("builtin:sample", &TextOptions::default())?;
//!     let windows = checkpoint.windows(&text, WindowOptions::default().window(64).max_windows(2))?;
//!     let session = Rc::new(Session::builder(checkpoint).open().await?);
//!     let mut search = session.search(windows, SearchOptions::remove(2), None).await?;
//!     while let Some(event) = search.next().await? {
//!         if let Event::Found(search::Event::Step(step)) = event {
//!             println!("without {}: perplexity {:.4}", step.removed, step.perplexity);
//!         }
//!     }
//!     assert_eq!(search.state().removed().len(), 2);
//!     Ok(())
//! })
//! # }
//! ```
//!
//! A search runs while its next event is waited for: to stop, drop it. [`session::Search::save`] keeps it for later, and
//! [`session::Search::write`] writes the smaller model with its plan; `examples/` of this crate has whole programs. Everything
//! is bound to one thread, because devices are: nothing here is `Send`.
//!
//! Data flows one way: [`weights`] and [`text`] -> [`model`] -> [`score`] -> [`search`] -> [`export`] -> [`session`]; and from
//! [`model`] to [`generate`].
//! [`hub`] brings models from the Hugging Face hub.
//! [`gpu`] knows nothing of models, [`model`] nothing of searching, [`search`] nothing of files or screens.

#![warn(clippy::missing_errors_doc)]

pub mod bench;
mod digest;
mod error;
pub mod eval;
pub mod export;
mod file_kind;
pub mod generate;
pub mod gpu;
pub mod hub;
mod json;
pub mod model;
pub mod score;
pub mod search;
pub mod session;
#[doc(hidden)]
pub mod testing;
pub mod text;
pub mod weights;

pub use error::{Error, ErrorKind};
/// Runs a future to its end on this thread: nothing here needs another executor.
#[cfg(not(target_arch = "wasm32"))]
pub use pollster::block_on;
