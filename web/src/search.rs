//! The search as an async iterator: it runs while the next event is being waited for.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use blockpruner::export::{Fingerprint, Plan, Pruning, SavedSearch, order_json};
use blockpruner::model::{Checkpoint, DeviceModel};
use blockpruner::score::Scorer;
use blockpruner::search::{
    BlockTypes, Candidate, Event, MemoryPlan, SearchError, SearchOptions, SearchState, Step, Strategy, search,
};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use crate::error::Error;
use crate::text::Windows;
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
    strategy: Strategy,
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
    fn of(event: Event<'_>) -> Vec<Self> {
        match event {
            Event::Dense(dense) => vec![Self::Dense { perplexity: dense.perplexity, mean_nll: dense.mean_nll }],
            Event::Wave { step, candidates, done, total } => {
                let numbered = candidates.iter().zip(done + 1 - candidates.len()..);
                numbered
                    .map(|(candidate, done)| Self::Candidate { step, candidate: candidate.clone(), done, total })
                    .collect()
            }
            Event::Progress { step, done } => vec![Self::Progress { step, done }],
            Event::Step(step) => vec![Self::Step(step.clone())],
        }
    }
}

/// `IteratorResult`.
#[derive(Serialize)]
struct Next {
    value: Option<JsEvent>,
    done: bool,
}

type Run = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// What the observer inside of the run tells the iterator outside of it.
#[derive(Default)]
struct Told {
    events: VecDeque<JsEvent>,
    state: SearchState,
}

struct Inner {
    checkpoint: Rc<Checkpoint>,
    model: Rc<DeviceModel>,
    windows: Windows,
    options: SearchOptions,
    fingerprint: Fingerprint,
    told: Rc<RefCell<Told>>,
    /// The search; None when it has ended or was stopped.
    run: RefCell<Option<Run>>,
    /// Whoever waits for the next event.
    waiting: RefCell<Option<Waker>>,
}

/// A running search. It goes on only while `next` is waited for, so not to call it is to pause.
#[wasm_bindgen]
pub struct Search {
    inner: Rc<Inner>,
}

/// Starts a search, or goes on with a saved one.
pub async fn start(
    checkpoint: Rc<Checkpoint>,
    model: Rc<DeviceModel>,
    windows: Windows,
    settings: PruneOptions,
    saved: Option<String>,
) -> Result<JsValue, Error> {
    let PruneOptions { remove, block_types, strategy } = settings;
    let options = SearchOptions { remove, block_types, strategy };
    options.check(&checkpoint.spec)?;
    let fingerprint = described(&checkpoint, &model, &windows, &options).fingerprint().await?;
    let state = match saved {
        Some(saved) => SavedSearch::resume(saved.as_bytes(), &fingerprint, &checkpoint.spec, &options)?,
        None => SearchState::default(),
    };
    let told = Rc::new(RefCell::new(Told { events: VecDeque::new(), state: state.clone() }));
    let memory = MemoryPlan::new(model.gpu(), &checkpoint, &windows.windows, Some(&options), None)?;
    let run = run(model.clone(), windows.clone(), options, memory, state, told.clone());
    let inner = Inner {
        checkpoint,
        model,
        windows,
        options,
        fingerprint,
        told,
        run: RefCell::new(Some(Box::pin(run))),
        waiting: RefCell::new(None),
    };
    Ok(async_iterable(Search { inner: Rc::new(inner) }))
}

async fn run(
    model: Rc<DeviceModel>,
    windows: Windows,
    options: SearchOptions,
    memory: MemoryPlan,
    state: SearchState,
    told: Rc<RefCell<Told>>,
) -> Result<(), Error> {
    let scorer = Scorer::batched(&model, &windows.windows, memory.batching)?;
    let mut observe = |event: Event<'_>, state: &SearchState| {
        let mut told = told.borrow_mut();
        if !matches!(event, Event::Progress { .. }) {
            told.state = state.clone();
        }
        told.events.extend(JsEvent::of(event));
        ControlFlow::Continue(())
    };
    match search(&scorer, &options, &memory, state, &mut observe).await {
        // The observer never stops it: dropping the future does.
        Ok(_) | Err(SearchError::Stopped) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn described<'a>(
    checkpoint: &'a Checkpoint,
    model: &'a DeviceModel,
    windows: &'a Windows,
    options: &'a SearchOptions,
) -> Pruning<'a> {
    Pruning {
        model_name: &checkpoint.name,
        checkpoint,
        text: &windows.text,
        windows: &windows.windows,
        options,
        gpu: model.gpu(),
    }
}

impl Inner {
    /// Runs the search up to its next event; None at its end, or when it was stopped.
    async fn next(&self) -> Result<Option<JsEvent>, Error> {
        poll_fn(|context| {
            if let Some(event) = self.told.borrow_mut().events.pop_front() {
                return Poll::Ready(Ok(Some(event)));
            }
            *self.waiting.borrow_mut() = Some(context.waker().clone());
            let mut slot = self.run.borrow_mut();
            let Some(run) = slot.as_mut() else { return Poll::Ready(Ok(None)) };
            let ended = run.as_mut().poll(context);
            if ended.is_ready() {
                *slot = None;
            }
            match (self.told.borrow_mut().events.pop_front(), ended) {
                (event, Poll::Ready(Ok(()))) => Poll::Ready(Ok(event)),
                (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
                (Some(event), Poll::Pending) => Poll::Ready(Ok(Some(event))),
                (None, Poll::Pending) => Poll::Pending,
            }
        })
        .await
    }

    fn plan(&self) -> Plan {
        let state = self.told.borrow().state.clone();
        described(&self.checkpoint, &self.model, &self.windows, &self.options).plan(self.fingerprint.clone(), state)
    }
}

#[wasm_bindgen]
impl Search {
    /// Runs up to the next event.
    #[wasm_bindgen(unchecked_return_type = "IteratorResult<SearchEvent, void>")]
    pub async fn next(&self) -> Result<JsValue, Error> {
        let inner = self.inner.clone();
        let value = inner.next().await?;
        to_js(&Next { done: value.is_none(), value })
    }

    /// Stops the search: what is waiting for an event learns that there is none. `save` and `plan` still work.
    #[wasm_bindgen(js_name = return, unchecked_return_type = "IteratorResult<SearchEvent, void>")]
    pub async fn stop(&self) -> Result<JsValue, Error> {
        let inner = self.inner.clone();
        inner.run.borrow_mut().take();
        inner.told.borrow_mut().events.clear();
        if let Some(waker) = inner.waiting.borrow_mut().take() {
            waker.wake();
        }
        to_js(&Next { done: true, value: None })
    }

    /// What has been found so far.
    #[wasm_bindgen(unchecked_return_type = "SearchState")]
    pub fn state(&self) -> Result<JsValue, Error> {
        to_js(&self.inner.told.borrow().state)
    }

    /// The search as it stands, to go on with later: the content of the command line's `state/search.json`.
    pub fn save(&self) -> String {
        let state = self.inner.told.borrow().state.clone();
        SavedSearch::new(self.inner.fingerprint.clone(), state).to_json()
    }

    /// `plan.json` of the finished steps.
    pub fn plan(&self) -> String {
        self.inner.plan().to_json()
    }

    /// `order.json` of the finished steps, in the published format.
    pub fn order(&self) -> String {
        order_json(&self.inner.plan().order())
    }
}
