//! What would make a plan that is nearly plain an ordinary model, and what that costs.

use super::{Preparation, Search};
use crate::Error;
use crate::model::{BlockSet, PlainChange};
use crate::score::ScoreError;

/// An ordinary model near to the one that was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NearlyPlain {
    /// What else goes, or stays.
    pub change: PlainChange,
    /// The blocks that are gone then.
    pub removed: BlockSet,
    /// Layers of the ordinary model.
    pub layers: usize,
    /// Its perplexity on the text of the search.
    pub perplexity: f64,
}

/// So many changes are measured at most.
const MOST: usize = 6;

impl Search {
    /// Ordinary models that are one or two blocks away from what was found, measured on the text of the search; the lowest
    /// perplexity first. Of many, those that promise the least loss. None if what was found is one.
    ///
    /// # Errors
    /// Those of [`super::Session::perplexity`], but for a loss that is not finite.
    pub async fn nearly_plain(&self, tell: &mut dyn FnMut(Preparation)) -> Result<Vec<NearlyPlain>, Error> {
        let (session, removed) = (self.session(), self.state().removed());
        let spec = &session.checkpoint().spec;
        let mut changes = spec.plain_changes(&removed);
        changes.sort_by(|one, other| self.loss(one).total_cmp(&self.loss(other)));
        let mut found = Vec::new();
        for change in changes.into_iter().take(MOST) {
            let removed = change.of(&removed);
            let perplexity = match session.perplexity(self.windows(), &removed, tell).await {
                Ok(score) => score.perplexity,
                Err(Error::Score(ScoreError::NotFinite { .. })) => continue,
                Err(error) => return Err(error),
            };
            let layers = spec.kept_layers(&removed).len();
            found.push(NearlyPlain { change, removed, layers, perplexity });
        }
        found.sort_by(|one, other| one.perplexity.total_cmp(&other.perplexity));
        Ok(found)
    }

    /// What a change may cost, by what the last step found out about the blocks that it removes.
    fn loss(&self, change: &PlainChange) -> f64 {
        let last = self.state().steps.last();
        let scored = |block| {
            let candidates = last.into_iter().flat_map(|step| &step.candidates);
            let of_block = candidates.filter(|candidate| candidate.unit.contains(block));
            of_block.filter_map(|candidate| candidate.perplexity.or(candidate.at_least)).fold(f64::INFINITY, f64::min)
        };
        change.remove.iter().map(|block| scored(block).ln()).sum()
    }
}
