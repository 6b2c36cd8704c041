//! Perplexity against what is removed, as SVG. Colours, and what dark mode makes of them, are in `style.css`.

use maud::{Markup, html};

use super::Run;
use super::axis::Marks;
use super::numbers::{count, percent, perplexity};

// In units of the drawing, which is scaled to the width of the page.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 408.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 258.0;

/// The colours of Okabe and Ito that stand out from white and from black; `style.css` has them as `--series-N`.
const COLOURS: usize = 7;
const DASHES: [&str; 5] = ["none", "6 3", "2 2", "8 3 2 3", "10 4"];

/// How a run is drawn: by colour, dash and marker, any of which tells it from the next.
struct Series {
    index: usize,
}

impl Series {
    fn colour(&self) -> String {
        format!("--c:var(--series-{})", self.index % COLOURS)
    }

    fn dash(&self) -> &'static str {
        DASHES[self.index % DASHES.len()]
    }

    /// The outline of its marker around a place.
    fn marker(&self, x: f64, y: f64) -> String {
        match self.index % 4 {
            0 => format!("M{:.1} {y:.1}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z", x - 3.5),
            1 => format!("M{:.1} {:.1}h6.4v6.4h-6.4z", x - 3.2, y - 3.2),
            2 => format!("M{x:.1} {:.1}l4.2 7.4h-8.4z", y - 4.6),
            _ => format!("M{x:.1} {:.1}l4.4 4.4l-4.4 4.4l-4.4 -4.4z", y - 4.4),
        }
    }
}

/// Where numbers lie in the drawing: shares of parameters, and perplexities by their logarithms.
struct Plane {
    most: f64,
    low: f64,
    high: f64,
}

impl Plane {
    /// That holds all points. None where no perplexity is finite.
    fn of(runs: &[Run]) -> Option<Self> {
        let points: Vec<_> = runs.iter().flat_map(Run::points).filter(drawable).collect();
        let (mut most, mut low, mut high) = (0.01f64, f64::INFINITY, 0.0f64);
        for (share, value) in points {
            (most, low, high) = (most.max(share), low.min(value), high.max(value));
        }
        if high == 0.0 {
            return None;
        }
        // Room above and below. Within what a number holds, whatever a file says.
        let room = ((high.ln() - low.ln()) * 0.07).max(0.01).exp();
        Some(Self { most, low: (low / room).max(f64::MIN_POSITIVE), high: (high * room).min(f64::MAX) })
    }

    fn x(&self, share: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * share / self.most
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
    }
}

fn drawable((share, value): &(f64, f64)) -> bool {
    (0.0..=1.0).contains(share) && value.is_finite() && *value > 0.0
}

/// The runs in one drawing, with a legend where there are several.
pub(super) fn curve(runs: &[Run]) -> Markup {
    let Some(plane) = Plane::of(runs) else {
        return html! { p { "No perplexity is finite: there is nothing to draw." } };
    };
    let across = Marks::linear(0.0, 100.0 * plane.most, 6);
    let up = Marks::logarithmic(plane.low, plane.high, 7);
    let left_out = runs.iter().flat_map(Run::points).filter(|point| !drawable(point)).count();
    let said: Vec<_> = runs.iter().map(|run| said(run, runs.len())).collect();
    html! {
        figure {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(said.join("; ")) class="curve" {
                @for mark in up.at.iter().copied() {
                    @let y = plane.y(mark);
                    line class="grid" x1=(LEFT) x2=(RIGHT) y1=(short(y)) y2=(short(y)) {}
                    text class="mark end" x=(LEFT - 6.0) y=(short(y + 4.0)) { (up.label(mark)) }
                }
                @for mark in across.at.iter().copied() {
                    @let x = plane.x(mark / 100.0);
                    line class="axis" x1=(short(x)) x2=(short(x)) y1=(BOTTOM) y2=(BOTTOM + 4.0) {}
                    text class="mark middle" x=(short(x)) y=(BOTTOM + 18.0) { (across.label(mark)) }
                }
                line class="axis" x1=(LEFT) x2=(RIGHT) y1=(BOTTOM) y2=(BOTTOM) {}
                text class="mark middle" x=((LEFT + RIGHT) / 2.0) y=(HEIGHT - 6.0) { "parameters removed, %" }
                text class="mark middle" transform=(format!("translate(11 {}) rotate(-90)", (TOP + BOTTOM) / 2.0)) { "perplexity" }
                (dense(&plane, runs))
                @for (index, run) in runs.iter().enumerate() { (series(&plane, &Series { index }, run)) }
            }
            @if runs.len() > 1 { (legend(runs)) }
            @if left_out > 0 { p class="note" { (count(left_out, "point")) " not drawn, because of numbers that are not finite." } }
        }
    }
}

fn short(number: f64) -> String {
    format!("{number:.1}")
}

/// What a drawing shows, for who does not see it.
fn said(run: &Run, of: usize) -> String {
    let values: Vec<_> = run.points().iter().map(|(_, value)| perplexity(*value)).collect();
    let name = if of > 1 { format!(" of {}", run.name) } else { String::new() };
    format!("Perplexity{name} after 0 to {}: {}", count(values.len() - 1, "step"), values.join(", "))
}

/// A line for each perplexity of a whole model.
fn dense(plane: &Plane, runs: &[Run]) -> Markup {
    let mut values: Vec<f64> = runs.iter().map(|run| run.plan.dense.perplexity).collect();
    values.retain(|value| drawable(&(0.0, *value)));
    values.sort_by(f64::total_cmp);
    values.dedup();
    html! {
        @for value in values.iter().copied() {
            @let y = plane.y(value);
            // Below the line, unless that is where the axis is.
            @let named = if y + 18.0 < BOTTOM { y + 14.0 } else { y - 5.0 };
            line class="dense" x1=(LEFT) x2=(RIGHT) y1=(short(y)) y2=(short(y)) {
                title { "the whole model: perplexity " (perplexity(value)) }
            }
            @if values.len() == 1 {
                text class="mark end" x=(RIGHT) y=(short(named)) { "whole model, " (perplexity(value)) }
            }
        }
    }
}

fn series(plane: &Plane, series: &Series, run: &Run) -> Markup {
    let points: Vec<(usize, f64, f64)> =
        run.points().into_iter().enumerate().map(|(step, (share, value))| (step, share, value)).collect();
    let lines: Vec<String> = points
        .split(|(_, share, value)| !drawable(&(*share, *value)))
        .filter(|piece| piece.len() > 1)
        .map(|piece| {
            let places: Vec<_> = piece
                .iter()
                .map(|(_, share, value)| format!("{:.1},{:.1}", plane.x(*share), plane.y(*value)))
                .collect();
            places.join(" ")
        })
        .collect();
    html! {
        g class="series" style=(series.colour()) {
            @for line in lines { polyline points=(line) stroke-dasharray=(series.dash()) {} }
            @for (step, share, value) in points.into_iter().filter(|(_, share, value)| drawable(&(*share, *value))) {
                path d=(series.marker(plane.x(share), plane.y(value))) {
                    title { (run.name) ", " (after(run, step)) ": perplexity " (perplexity(value)) ", " (percent(share)) " removed" }
                }
            }
        }
    }
}

/// A step in words.
fn after(run: &Run, step: usize) -> String {
    match step.checked_sub(1).and_then(|index| run.plan.steps.get(index)) {
        Some(found) => format!("step {step} ({})", found.removed),
        None => "the whole model".into(),
    }
}

fn legend(runs: &[Run]) -> Markup {
    html! {
        ul class="legend" {
            @for (index, run) in runs.iter().enumerate() {
                @let series = Series { index };
                li {
                    svg viewBox="0 0 34 12" width="34" height="12" aria-hidden="true" class="series" style=(series.colour()) {
                        polyline points="0,6 34,6" stroke-dasharray=(series.dash()) {}
                        path d=(series.marker(17.0, 6.0)) {}
                    }
                    " " (run.name)
                }
            }
        }
    }
}
