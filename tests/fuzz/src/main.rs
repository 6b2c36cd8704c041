//! The targets under libFuzzer: `BLOCKPRUNER_FUZZ_TARGET` says which one, so that one program serves all.
#![no_main]

use std::sync::OnceLock;

use blockpruner_fuzz::{TARGETS, Target, target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn choose() {
    let name = std::env::var("BLOCKPRUNER_FUZZ_TARGET").unwrap_or_default();
    match target(&name) {
        Some(target) => drop(CHOSEN.set(target)),
        // What `cargo xtask fuzz` reads to learn their names.
        None => {
            TARGETS.iter().for_each(|target| println!("{}", target.name));
            std::process::exit(0);
        }
    }
}

libfuzzer_sys::fuzz_target!(init: choose(), |bytes: &[u8]| {
    if let Some(target) = CHOSEN.get() {
        (target.run)(bytes);
    }
});
