//! The search as a stream of events, which runs while the next event is waited for.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use web_time::Instant;

use super::{Preparation, Session};
use crate::Error;
use crate::export::{Fingerprint, HeldOut, Plan, PlanStatus, Pruning, SavedSearch};
use crate::model::BlockSet;
use crate::score::Scorer;
use crate::search::{self, Cost, End, SearchError, SearchOptions, SearchState, Step};
use crate::text::Windows;

/// What a [`Search`] tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The model is being prepared.
    Prepare(Preparation),
    /// Something was found out. Every one but [`search::Event::Progress`] comes with a state that is worth saving.
    Found(search::Event),
}

/// What the search tells the stream, each with the state that is worth saving then.
type Told = Rc<RefCell<VecDeque<(Event, Option<SearchState>)>>>;

type Run = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// A search that goes on while its next event is waited for: not to ask is to pause, to drop it is to stop. What it has found
/// stays with it, to be saved and written.
pub struct Search {
    session: Rc<Session>,
    windows: Rc<Windows>,
    options: SearchOptions,
    fingerprint: Fingerprint,
    /// Everything that was found, as of the last event that was given: with what lies beyond the target.
    found: SearchState,
    /// What of it is the result so far.
    state: SearchState,
    /// Where it ends, if it has come to its target.
    end: Option<End>,
    cost: Option<Cost>,
    /// For the plan.
    command: Option<String>,
    /// What `state` does to another text, if that was measured.
    held_out: Option<HeldOut>,
    clock: Clock,
    told: Told,
    /// None when it has ended, failed or was stopped.
    run: Option<Run>,
    /// Whoever waits for the next event.
    waiting: Option<Waker>,
}

/// Time in which the search runs: while somebody waits for its next event.
#[derive(Default)]
struct Clock {
    before: f64,
    since: Option<Instant>,
}

impl Clock {
    fn run(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    fn pause(&mut self) {
        self.before = self.seconds();
        self.since = None;
    }

    fn seconds(&self) -> f64 {
        self.before + self.since.map_or(0.0, |since| since.elapsed().as_secs_f64())
    }
}

impl Session {
    /// A search over a text, or one that goes on from what [`Search::save`] returned earlier, or from a plan: with the same
    /// target or any other, because the first steps of a longer search are those of a shorter one. Nothing runs before its
    /// first event is asked for.
    ///
    /// # Errors
    /// More blocks to remove than there are; a saved search that is damaged, or belongs to another model, text, device or
    /// other settings; files that cannot be read.
    pub async fn search(
        self: &Rc<Self>,
        windows: impl Into<Rc<Windows>>,
        options: SearchOptions,
        saved: Option<&[u8]>,
    ) -> Result<Search, Error> {
        let windows = windows.into();
        let spec = &self.checkpoint.spec;
        options.check(spec)?;
        let fingerprint = self.described(&windows, &options).fingerprint().await?;
        let found = match saved {
            Some(saved) => SavedSearch::resume(saved, &fingerprint, spec, &options)?,
            None => SearchState::default(),
        };
        let end = options.end(spec, &found);
        let told = Told::default();
        let run = end.is_none().then(|| -> Run {
            Box::pin(run(self.clone(), windows.clone(), options.clone(), found.clone(), told.clone()))
        });
        let state = end.map_or(found.clone(), |end| end.result(&found));
        Ok(Search {
            session: self.clone(),
            windows,
            options,
            fingerprint,
            found,
            state,
            end,
            cost: None,
            command: None,
            held_out: None,
            clock: Clock::default(),
            told,
            run,
            waiting: None,
        })
    }

    fn described<'a>(&'a self, windows: &'a Windows, options: &'a SearchOptions) -> Pruning<'a> {
        Pruning { checkpoint: &self.checkpoint, windows, options, gpu: &self.gpu }
    }
}

async fn run(
    session: Rc<Session>,
    windows: Rc<Windows>,
    options: SearchOptions,
    state: SearchState,
    told: Told,
) -> Result<(), Error> {
    let memory = session.memory(&windows, Some(&options))?;
    let mut tell = |preparation| told.borrow_mut().push_back((Event::Prepare(preparation), None));
    let model = session.load(&memory, &mut tell).await?;
    let scorer = Scorer::batched(&model, &windows, memory.batching)?;
    let mut observe = |event: search::Event, state: &SearchState| {
        let state = (!matches!(event, search::Event::Progress { .. })).then(|| state.clone());
        told.borrow_mut().push_back((Event::Found(event), state));
        ControlFlow::Continue(())
    };
    search::search(&scorer, &options, &memory, state, &mut observe).await?;
    Ok(())
}

impl Search {
    /// Runs up to the next event; None at the end, or when it was stopped. After an error there is none either.
    ///
    /// # Errors
    /// Those of [`Session::load`], and of [`search::search`].
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }

    /// Stops it at once: who waits for an event learns that there is none. What was found stays.
    pub fn stop(&mut self) {
        self.run = None;
        self.told.borrow_mut().clear();
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// The next event that was told, if there is one, and its state.
    fn take(&mut self) -> Option<Event> {
        let (event, state) = self.told.borrow_mut().pop_front()?;
        let spec = &self.session.checkpoint.spec;
        if let Some(found) = state {
            self.end = self.options.end(spec, &found);
            self.state = self.end.map_or(found.clone(), |end| end.result(&found));
            self.found = found;
            self.held_out = None;
        }
        match (&event, &mut self.cost) {
            (Event::Prepare(Preparation::Planned(memory)), cost) => {
                *cost = Some(Cost::new(spec, &self.windows, &self.options, memory, &self.found));
            }
            (Event::Found(found), Some(cost)) => cost.observe(found, &self.found, self.clock.seconds()),
            _ => {}
        }
        Some(event)
    }

    /// Its plan, and what is made of that, name this command.
    pub fn command(mut self, command: impl Into<Option<String>>) -> Self {
        self.command = command.into();
        self
    }

    /// Scores the whole model and what has been found so far on a text that the search has not seen. The plan has both, and so
    /// have the card and the report, until something else is found.
    ///
    /// # Errors
    /// Those of [`Session::perplexity`].
    pub async fn hold_out(&mut self, text: &Windows, tell: &mut dyn FnMut(Preparation)) -> Result<&HeldOut, Error> {
        let whole = self.session.perplexity(text, &BlockSet::new(), tell).await?;
        let pruned = self.session.perplexity(text, &self.state.removed(), tell).await?;
        Ok(self.held_out.insert(HeldOut::new(text, whole.perplexity, pruned.perplexity)))
    }

    /// What the search takes, as far as it can be foreseen; None before its memory is planned.
    pub fn cost(&self) -> Option<&Cost> {
        self.cost.as_ref()
    }

    /// What has been found so far, as far as it is worth saving and within the target.
    pub fn state(&self) -> &SearchState {
        &self.state
    }

    /// The step that goes beyond the perplexity that the target allows, before which the search has ended; None where it is not
    /// known, or there is no such target.
    pub fn step_beyond(&self) -> Option<&Step> {
        self.end?.step_beyond(&self.found)
    }

    /// Whether the target is reached.
    pub fn is_finished(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the search has removed anything, of a finished one.
    ///
    /// # Errors
    /// [`SearchError::NothingWithin`]: not even one step keeps to the perplexity that the target allows. There is a plan
    /// that says so, but no model to write.
    pub fn check_result(&self) -> Result<(), Error> {
        match (self.step_beyond(), self.state.dense) {
            (Some(step), Some(dense)) if self.state.steps.is_empty() => {
                let most = self.options.target.most_perplexity(dense.perplexity).unwrap_or(f64::NAN);
                Err(SearchError::NothingWithin { most, unit: step.removed, perplexity: step.perplexity }.into())
            }
            _ => Ok(()),
        }
    }

    /// Whether it goes on, was stopped (by an error, too), or is finished.
    pub fn status(&self) -> PlanStatus {
        match &self.run {
            _ if self.is_finished() => PlanStatus::Finished,
            Some(_) => PlanStatus::Searching,
            None => PlanStatus::Stopped,
        }
    }

    /// Whether it goes on from one that has found more than is asked for now, and than its plan says. That is not lost:
    /// [`Search::save`] has it.
    pub fn is_cut(&self) -> bool {
        self.end.is_some_and(|end| {
            self.found.steps.len() > end.steps + usize::from(end.beyond) || !self.found.candidates.is_empty()
        })
    }

    /// The search as it stands, to go on with later.
    pub fn save(&self) -> SavedSearch {
        SavedSearch::new(self.fingerprint.clone(), self.found.clone())
    }

    /// The plan of the finished steps.
    pub fn plan(&self) -> Plan {
        let described = self.session.described(&self.windows, &self.options);
        let (fingerprint, beyond) = (self.fingerprint.clone(), self.step_beyond().cloned());
        let plan = described.plan(fingerprint, self.status(), self.state.clone(), beyond);
        Plan { command: self.command.clone(), held_out: self.held_out.clone(), ..plan }
    }

    /// The model and the device.
    pub fn session(&self) -> &Rc<Session> {
        &self.session
    }

    /// The text.
    pub fn windows(&self) -> &Rc<Windows> {
        &self.windows
    }

    /// What it searches for.
    pub fn options(&self) -> &SearchOptions {
        &self.options
    }
}

impl Stream for Search {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.clock.run();
        let next = self.poll_event(context);
        if next.is_ready() {
            self.clock.pause();
        }
        next
    }
}

impl Search {
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, Error>>> {
        if let Some(event) = self.take() {
            return Poll::Ready(Some(Ok(event)));
        }
        let Some(run) = self.run.as_mut() else { return Poll::Ready(None) };
        let ended = run.as_mut().poll(context);
        match &ended {
            Poll::Pending => self.waiting = Some(context.waker().clone()),
            Poll::Ready(_) => self.run = None,
        }
        match (self.take(), ended) {
            (Some(event), Poll::Ready(Err(error))) => {
                // What was told before it failed comes first.
                self.run = Some(Box::pin(std::future::ready(Err(error))));
                Poll::Ready(Some(Ok(event)))
            }
            (Some(event), _) => Poll::Ready(Some(Ok(event))),
            (None, Poll::Ready(Err(error))) => Poll::Ready(Some(Err(error))),
            (None, Poll::Ready(Ok(()))) => Poll::Ready(None),
            (None, Poll::Pending) => Poll::Pending,
        }
    }
}
