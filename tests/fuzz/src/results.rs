//! What a search leaves behind, and names of blocks.

use blockpruner::export::{Plan, SavedSearch, order_json, parse_order};
use blockpruner::model::{BlockId, BlockSet};

use crate::bases::{self, Bases};
use crate::edits;

fn document(bytes: &[u8], bases: &Bases) -> Vec<u8> {
    edits::json(bytes, &bases.documents, &bases.words)
}

/// plan.json. One that is accepted reads back as it was written.
///
/// # Panics
/// If something is wrong.
pub fn plan(bytes: &[u8]) {
    let Ok(plan) = Plan::parse("plan.json", &document(bytes, bases::plans())) else { return };
    let again = Plan::parse("plan.json", plan.to_json().as_bytes());
    assert_eq!(again.ok().as_ref(), Some(&plan), "a written plan reads back");
    assert_eq!(
        plan.removed_after(plan.steps.len()).ok().map(|set| set.len()),
        Some(plan.order().iter().flat_map(|unit| unit.blocks()).count())
    );
    let _ = plan.check_model(&bases::spec());
}

/// The published order file. One that is accepted reads back as it was written.
///
/// # Panics
/// If something is wrong.
pub fn order(bytes: &[u8]) {
    let Ok(order) = parse_order("order.json", &document(bytes, bases::orders())) else { return };
    let again = parse_order("order.json", order_json(&order).as_bytes());
    assert_eq!(again.ok(), Some(order), "a written order reads back");
}

/// state/search.json. One that is gone on with is saved as it was.
///
/// # Panics
/// If something is wrong.
pub fn state(bytes: &[u8]) {
    let json = document(bytes, bases::states());
    check_state(&json);
    if let Some(json) = sealed(&json) {
        check_state(json.as_bytes());
    }
}

/// A saved search with the digest of what is in it, if it can be read at all. A changed one is refused for its digest
/// otherwise, before anything else about it is looked at.
pub fn sealed(json: &[u8]) -> Option<String> {
    let SavedSearch { fingerprint, search, .. } = serde_json::from_slice(json).ok()?;
    Some(SavedSearch::new(fingerprint, search).to_json())
}

fn check_state(json: &[u8]) {
    let resume = |json: &[u8]| SavedSearch::resume(json, &bases::fingerprint(), &bases::spec(), &bases::options());
    let Ok(search) = resume(json) else { return };
    let saved = SavedSearch::new(bases::fingerprint(), search.clone()).to_json();
    assert_eq!(resume(saved.as_bytes()).ok(), Some(search), "a saved search reads back");
}

/// Names of blocks, as on the command line. Those that parse print as what parses to the same.
///
/// # Panics
/// If something is wrong.
pub fn blocks(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(block) = text.parse::<BlockId>() {
        assert_eq!(block.to_string().parse(), Ok(block));
        let _ = block.by_layer();
    }
    let Ok(blocks) = text.parse::<BlockSet>() else { return };
    assert_eq!(blocks.to_string().parse().as_ref(), Ok(&blocks));
    let _ = bases::spec().check_blocks(&blocks);
}
