//! Plans for people.

use blockpruner::eval::Evaluation;
use blockpruner::export::Plan;
use blockpruner::report::{Report, Run};
use wasm_bindgen::prelude::*;

use crate::error::Error;

/// One or several plans, each the content of a `plan.json`, as one HTML file that needs nothing beside it; with evaluations, each what
/// `blockpruner evaluate --json` printed.
#[wasm_bindgen]
pub fn report(plans: Vec<String>, evaluations: Option<Vec<String>>) -> Result<String, Error> {
    let plans = plans.iter().enumerate().map(|(index, text)| {
        let plan = Plan::parse(&format!("plan {}", index + 1), text.as_bytes())?;
        Ok((format!("{}, {}", plan.model.name, plan.settings.strategy), plan))
    });
    let plans = plans.collect::<Result<Vec<_>, Error>>()?;
    let evaluations = evaluations.unwrap_or_default();
    let evaluations = evaluations
        .iter()
        .enumerate()
        .map(|(index, text)| Ok(Evaluation::parse(&format!("evaluation {}", index + 1), text.as_bytes())?));
    let evaluations = evaluations.collect::<Result<Vec<_>, Error>>()?;
    Ok(Report::new(Run::all(plans)).evaluations(evaluations).to_html())
}
