//! Calls that an `AbortSignal` ends early.

use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::error::Error;

/// Runs a task until it ends or its caller calls it off, with the signal's reason as the error then. What was under way is
/// dropped, and with it what it had on the device.
pub async fn abortable<T>(
    signal: Option<&AbortSignal>,
    task: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(signal) = signal else { return task.await };
    let aborted = || Error::Aborted(signal.reason());
    if signal.aborted() {
        return Err(aborted());
    }
    let (task, handle) = futures_util::future::abortable(task);
    let abort = Closure::<dyn FnMut()>::new(move || handle.abort());
    let listener = abort.as_ref().unchecked_ref();
    // Neither fails: they only take a listener in and out.
    let _ = signal.add_event_listener_with_callback("abort", listener);
    let result = task.await;
    let _ = signal.remove_event_listener_with_callback("abort", listener);
    result.unwrap_or_else(|_| Err(aborted()))
}
