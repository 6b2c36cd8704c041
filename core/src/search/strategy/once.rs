//! What the strategies have in common that measure candidates once: a later step takes the values of the step before.

use super::StepContext;
use crate::search::{SearchError, Unit};

impl StepContext<'_> {
    /// Records the values that candidates had in the step before, for strategies that measure once. The candidates that are to be
    /// measured now: those of the first step, and of a step none of whose candidates has been measured. A pair may be such a
    /// one, where its blocks have become neighbours only now; as long as others are left, it is not measured.
    ///
    /// # Errors
    /// [`SearchError::Stopped`].
    pub fn carry_over(&mut self) -> Result<Vec<Unit>, SearchError> {
        let open = self.open();
        let Some(last) = self.steps().last() else { return Ok(open) };
        let is_candidate = |unit: Unit| open.contains(&unit) || self.scored().iter().any(|scored| scored.unit == unit);
        let measured = last.candidates.iter().filter_map(|candidate| Some((candidate.unit, candidate.value?)));
        let mut measured: Vec<(Unit, f64)> = measured.filter(|(unit, _)| is_candidate(*unit)).collect();
        if measured.is_empty() {
            return Ok(open);
        }
        measured.retain(|(unit, _)| open.contains(unit));
        self.record_values(&measured)?;
        Ok(Vec::new())
    }
}
