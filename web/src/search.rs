//! The search as an async iterator: it runs while the next event is being waited for.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;

use blockpruner::export::order_json;
use blockpruner::search::{self, BlockTypes, Candidate, Event as Found, SearchOptions, Step};
use blockpruner::session::{Event, Search as CoreSearch, Session};
use blockpruner::text::Windows;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use crate::error::Error;
use crate::to_js;

#[wasm_bindgen(inline_js = "
export function asyncIterable(search) {
  search[Symbol.asyncIterator] = function () { return this; };
  return search;
}")]
extern "C" {
    #[wasm_bindgen(js_name = asyncIterable)]
    fn async_iterable(search: Search) -> JsValue;
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PruneOptions {
    remove: usize,
    block_types: BlockTypes,
    strategy: Option<String>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum JsEvent {
    Dense { perplexity: f64, mean_nll: f64 },
    Candidate { step: usize, candidate: Candidate, done: usize, total: usize },
    Progress { step: usize, done: f64 },
    Step(Step),
}

impl JsEvent {
    /// What the iterator tells of an event: of a wave, every candidate.
    fn of(event: Event) -> Vec<Self> {
        let Event::Found(found) = event else { return Vec::new() };
        match found {
            Found::Dense(dense) => vec![Self::Dense { perplexity: dense.perplexity, mean_nll: dense.mean_nll }],
            Found::Wave { step, candidates, done, total } => {
                let first = done + 1 - candidates.len();
                let numbered = candidates.into_iter().zip(first..);
                numbered.map(|(candidate, done)| Self::Candidate { step, candidate, done, total }).collect()
            }
            Found::Progress { step, done, .. } => vec![Self::Progress { step, done }],
            Found::Step(step) => vec![Self::Step(step)],
        }
    }
}

/// `IteratorResult`.
#[derive(Serialize)]
struct Next {
    value: Option<JsEvent>,
    done: bool,
}

/// A running search. It goes on only while `next` is waited for, so not to call it is to pause.
#[wasm_bindgen]
pub struct Search {
    inner: Rc<RefCell<CoreSearch>>,
    /// Candidates of a wave that is being told.
    events: Rc<RefCell<VecDeque<JsEvent>>>,
}

/// Prepares a search, or one that goes on from a saved one.
pub async fn start(
    session: Rc<Session>,
    windows: Rc<Windows>,
    settings: PruneOptions,
    saved: Option<String>,
) -> Result<JsValue, Error> {
    let PruneOptions { remove, block_types, strategy } = settings;
    let mut options = SearchOptions::remove(remove).block_types(block_types);
    if let Some(name) = strategy {
        options = options.strategy(search::strategy(&name).map_err(Error::Argument)?);
    }
    let inner = session.search(windows, options, saved.as_deref().map(str::as_bytes)).await?;
    Ok(async_iterable(Search { inner: Rc::new(RefCell::new(inner)), events: Rc::default() }))
}

#[wasm_bindgen]
impl Search {
    /// Runs up to the next event.
    #[wasm_bindgen(unchecked_return_type = "IteratorResult<SearchEvent, void>")]
    pub async fn next(&self) -> Result<JsValue, Error> {
        let (inner, events) = (self.inner.clone(), self.events.clone());
        loop {
            let told = events.borrow_mut().pop_front();
            if told.is_some() {
                return to_js(&Next { value: told, done: false });
            }
            // Borrowed for each poll alone, so that it can be stopped while this waits.
            match poll_fn(|context| inner.borrow_mut().poll_next_unpin(context)).await.transpose()? {
                Some(event) => events.borrow_mut().extend(JsEvent::of(event)),
                None => return to_js(&Next { value: None, done: true }),
            }
        }
    }

    /// Stops the search: what is waiting for an event learns that there is none. `save` and `plan` still work.
    #[wasm_bindgen(js_name = return, unchecked_return_type = "IteratorResult<SearchEvent, void>")]
    pub async fn stop(&self) -> Result<JsValue, Error> {
        self.inner.borrow_mut().stop();
        self.events.borrow_mut().clear();
        to_js(&Next { done: true, value: None })
    }

    /// What has been found so far.
    #[wasm_bindgen(unchecked_return_type = "SearchState")]
    pub fn state(&self) -> Result<JsValue, Error> {
        to_js(self.inner.borrow().state())
    }

    /// The search as it stands, to go on with later: the content of the command line's `state/search.json`.
    pub fn save(&self) -> String {
        self.inner.borrow().save().to_json()
    }

    /// `plan.json` of the finished steps.
    pub fn plan(&self) -> String {
        self.inner.borrow().plan().to_json()
    }

    /// `order.json` of the finished steps, in the published format.
    pub fn order(&self) -> String {
        order_json(&self.inner.borrow().plan().order())
    }
}
