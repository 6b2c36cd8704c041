//! The search as an async iterator: it runs while the next event is being waited for.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;

use blockpruner::export::{order_json, with_sizes};
use blockpruner::model::{BlockSet, Checkpoint};
use blockpruner::search::{self, BlockTypes, Random, SearchOptions, Target, Units};
use blockpruner::session::{Search as CoreSearch, Session};
use blockpruner::text::Windows;
use futures_util::StreamExt;
use serde::Deserialize;
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::abort::abortable;
use crate::error::Error;
use crate::event::{JsCost, JsEvent, Next};
use crate::export::model_options;
use crate::options::Options;
use crate::{parsed, to_js};

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
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Settings {
    remove: Option<usize>,
    ratio: Option<f64>,
    fit: Option<u64>,
    max_increase: Option<f64>,
    max_perplexity: Option<f64>,
    /// Those that the strategy knows.
    units: Option<Units>,
    block_types: BlockTypes,
    strategy: Option<String>,
    strategy_seed: Option<u64>,
    format: Option<String>,
    dtype: Option<String>,
    quantize: Option<String>,
}

impl Settings {
    /// The one target that is given.
    fn target(&self) -> Result<Target, Error> {
        let given = [
            self.remove.map(Target::Units),
            self.ratio.map(Target::Ratio),
            self.fit.map(Target::Bytes),
            self.max_increase.map(Target::MaxIncrease),
            self.max_perplexity.map(Target::MaxPerplexity),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(target), None) => Ok(target),
            _ => Err(Error::Argument(
                "options: expected exactly one of `remove`, `ratio`, `fit`, `maxIncrease` and `maxPerplexity`".into(),
            )),
        }
    }
}

/// A running search. It goes on only while `next` is waited for, so not to call it is to pause.
#[wasm_bindgen]
pub struct Search {
    inner: RefCell<CoreSearch>,
    /// Candidates of a wave that is being told.
    events: RefCell<VecDeque<JsEvent>>,
    signal: Option<AbortSignal>,
}

/// What is searched for.
async fn wanted(checkpoint: &Checkpoint, options: Options) -> Result<SearchOptions, Error> {
    let settings: Settings = options.settings()?;
    let mut options = SearchOptions::until(settings.target()?).block_types(settings.block_types);
    let Settings { units, strategy, strategy_seed, format, dtype, quantize, .. } = settings;
    if let Some(name) = strategy {
        options = options.strategy(search::strategy(&name).map_err(Error::Argument)?);
    }
    match (strategy_seed, options.strategy.seed()) {
        (None, _) => {}
        (Some(seed), Some(_)) => options = options.strategy(Random::new(seed)),
        (Some(_), None) => {
            return Err(Error::Argument(
                "options: `strategySeed` is for the strategy random, nothing else is drawn".into(),
            ));
        }
    }
    if let Some(units) = units {
        options = options.units(units);
    }
    let written = model_options(BlockSet::new(), format.as_deref(), dtype.as_deref(), quantize.as_deref())?;
    Ok(with_sizes(options, checkpoint, &written).await?)
}

/// What a search would take, foreseen.
pub async fn cost(session: &Session, windows: &Windows, options: Options) -> Result<JsValue, Error> {
    let options = wanted(session.checkpoint(), options).await?;
    to_js(&JsCost::of(&session.cost(windows, &options)?))
}

/// Prepares a search, or one that goes on from a saved one.
pub async fn start(
    session: Rc<Session>,
    windows: Rc<Windows>,
    options: Options,
    saved: Option<String>,
) -> Result<JsValue, Error> {
    let signal = options.signal()?;
    let options = wanted(session.checkpoint(), options).await?;
    let preparing = async { Ok(session.search(windows, options, saved.as_deref().map(str::as_bytes)).await?) };
    let inner = RefCell::new(abortable(signal.as_ref(), preparing).await?);
    Ok(async_iterable(Search { inner, events: RefCell::default(), signal }))
}

#[wasm_bindgen]
impl Search {
    /// Runs up to the next event.
    #[wasm_bindgen(unchecked_return_type = "IteratorResult<SearchEvent, void>")]
    pub async fn next(&self) -> Result<JsValue, Error> {
        let next = abortable(self.signal.as_ref(), self.next_event()).await;
        if let Err(Error::Aborted(_)) = next {
            self.end();
        }
        let value = next?;
        to_js(&Next { done: value.is_none(), value })
    }

    async fn next_event(&self) -> Result<Option<JsEvent>, Error> {
        loop {
            let told = self.events.borrow_mut().pop_front();
            if told.is_some() {
                return Ok(told);
            }
            // Borrowed for each poll alone, so that it can be stopped while this waits.
            match poll_fn(|context| self.inner.borrow_mut().poll_next_unpin(context)).await.transpose()? {
                Some(event) => self.events.borrow_mut().extend(JsEvent::of(event)),
                None => return Ok(None),
            }
        }
    }

    fn end(&self) {
        self.inner.borrow_mut().stop();
        self.events.borrow_mut().clear();
    }

    /// Stops the search: what is waiting for an event learns that there is none. `save` and `plan` still work.
    #[wasm_bindgen(js_name = return, unchecked_return_type = "IteratorResult<SearchEvent, void>")]
    pub async fn stop(&self) -> Result<JsValue, Error> {
        self.end();
        to_js(&Next { done: true, value: None })
    }

    /// What has been found so far.
    #[wasm_bindgen(unchecked_return_type = "SearchState")]
    pub fn state(&self) -> Result<JsValue, Error> {
        to_js(self.inner.borrow().state())
    }

    /// How much is done and how long the rest takes; undefined before that can be foreseen.
    #[wasm_bindgen(unchecked_return_type = "Cost | undefined")]
    pub fn cost(&self) -> Result<JsValue, Error> {
        self.inner.borrow().cost().map_or(Ok(JsValue::UNDEFINED), |cost| to_js(&JsCost::of(cost)))
    }

    /// The search as it stands, to go on with later: the content of the command line's `state/search.json`.
    pub fn save(&self) -> String {
        self.inner.borrow().save().to_json()
    }

    /// The plan of the finished steps.
    #[wasm_bindgen(unchecked_return_type = "Plan")]
    pub fn plan(&self) -> Result<JsValue, Error> {
        parsed(&self.plan_json())
    }

    /// The content of `plan.json`, as the command line writes it.
    #[wasm_bindgen(js_name = planJson)]
    pub fn plan_json(&self) -> String {
        self.inner.borrow().plan().to_json()
    }

    /// The removed blocks, first removed first.
    #[wasm_bindgen(unchecked_return_type = "Unit[]")]
    pub fn order(&self) -> Result<JsValue, Error> {
        to_js(&self.inner.borrow().plan().order())
    }

    /// The content of `order.json`: the same in the published format.
    #[wasm_bindgen(js_name = orderJson)]
    pub fn order_json(&self) -> String {
        order_json(&self.inner.borrow().plan().order())
    }
}
