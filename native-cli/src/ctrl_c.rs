//! Ctrl-C during `prune`: it stops the search with its state saved.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::event::Event;
use crate::exit::Stopped;
use crate::screen::{self, message, tell};

/// Set by Ctrl-C, read at every event of the search.
static STOP: AtomicBool = AtomicBool::new(false);
/// Whether something looks at [`STOP`]; if not, the search is over and Ctrl-C ends the program.
static SEARCHING: AtomicBool = AtomicBool::new(false);

/// Whether the search was asked to stop.
pub fn wants_stop() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// Says that the search has begun, which looks at [`wants_stop`] from here on, or that it is over.
pub fn while_searching(searching: bool) {
    SEARCHING.store(searching, Ordering::SeqCst);
}

/// From here on Ctrl-C stops the search at the next block; a second one, or one after the search, ends the program at once.
pub fn watch() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        screen::end_line();
        if !SEARCHING.load(Ordering::SeqCst) {
            tell(&Event::Stopped { text: Stopped::Asked.to_string() });
            std::process::exit(4);
        }
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(4);
        }
        message("stopping; once more to stop at once");
    })
    .context("cannot watch for Ctrl-C")
}
