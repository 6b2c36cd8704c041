//! A search from its first event to its last, shown and saved on the way.

use anyhow::anyhow;
use blockpruner::search;
use blockpruner::session::{Event, OutFolder, Preparation, Search};

use crate::ctrl_c;
use crate::exit::Stopped;
use crate::progress::{Preparing, Searching};

/// Searches to the end, saving after every wave of candidates.
pub async fn run(search: &mut Search, out: &OutFolder) -> anyhow::Result<()> {
    if search.is_finished() {
        return ctrl_c::watch();
    }
    let mut preparing = Preparing::new(search.session());
    let mut searching = None;
    loop {
        let event = match search.next().await {
            Ok(Some(event)) => event,
            Ok(None) => break,
            Err(error) => {
                if out.has_saved() {
                    // Its plan says that it has stopped. Should that fail, too, what was saved before stays.
                    let _ = out.save(search);
                }
                return Err(interrupted(error.into(), out));
            }
        };
        let found = match event {
            Event::Found(found) => found,
            Event::Prepare(preparation) => {
                preparing.tell(preparation);
                if preparation == Preparation::Ready {
                    ctrl_c::while_searching(true);
                    ctrl_c::watch()?;
                    searching = Some(Searching::new(search));
                }
                continue;
            }
            _ => continue,
        };
        if !matches!(found, search::Event::Progress { .. }) {
            out.save(search).map_err(|error| {
                interrupted(anyhow!("the search stopped because its state could not be saved: {error}"), out)
            })?;
        }
        if let Some(searching) = &mut searching {
            searching.tell(search, &found);
        }
        if ctrl_c::wants_stop() {
            search.stop();
            out.save(search).map_err(|error| Stopped::Failed(error.to_string()))?;
            return Err(Stopped::Asked.into());
        }
    }
    ctrl_c::while_searching(false);
    Ok(())
}

/// Whatever ends a search, one that has been saved can go on when it is mended: the device, or a file that is read or written.
fn interrupted(error: anyhow::Error, out: &OutFolder) -> anyhow::Error {
    match out.has_saved() {
        true => Stopped::Failed(error.to_string()).into(),
        false => error,
    }
}
