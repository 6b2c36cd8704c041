//! What a model writes beside what it writes without some of its blocks.

use super::{Evaluating, Session};
use crate::Error;
use crate::eval::Generation;
use crate::generate::prompt_ids;
use crate::model::BlockSet;

impl Session {
    /// Continues prompts greedily, by the whole model and without the blocks `removed`, up to `max_tokens` tokens each.
    ///
    /// # Errors
    /// A model without a tokenizer, and those of [`Generation::new`], [`Session::memory`] and [`Session::load`].
    pub(super) async fn generations(
        &self,
        prompts: &[String],
        removed: &BlockSet,
        max_tokens: usize,
        tell: &mut dyn FnMut(Evaluating),
    ) -> Result<Generation, Error> {
        let mut longest = 2;
        for prompt in prompts {
            longest = longest.max(prompt_ids(&self.checkpoint, prompt)?.len());
        }
        let model = self.load_for(longest, &mut |preparation| tell(Evaluating::Prepare(preparation))).await?;
        let mut progress = |done, total| tell(Evaluating::Generate { done, total });
        Ok(Generation::new(&model, &self.checkpoint, prompts, removed, max_tokens, &mut progress).await?)
    }
}
