//! How long recorded work takes.

use serde::Serialize;
use web_time::Instant;

use crate::gpu::{Gpu, GpuError, Recording};

/// Measurements of the same thing: at least and at most,
const SAMPLES: [usize; 2] = [3, 20];
/// and no more after so long.
const ALL_SECONDS: f64 = 0.5;
/// Work is repeated until one measurement takes about so long: far more than it takes to submit it and to wait.
const SAMPLE_SECONDS: f64 = 0.015;
/// It is repeated no more often than this.
const MOST_REPEATS: f64 = 500.0;

/// Seconds of several measurements of the same work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Timing {
    /// The fastest.
    pub minimum: f64,
    /// The middle one.
    pub median: f64,
}

impl Timing {
    /// From at least one measurement, in seconds.
    pub(super) fn new(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |index: usize| seconds.get(index).copied().unwrap_or(f64::NAN);
        Self { minimum: at(0), median: at(seconds.len() / 2) }
    }

    /// Of one run of a recording, compiled before.
    pub(super) async fn of(gpu: &Gpu, recording: &Recording) -> Result<Self, GpuError> {
        run(gpu, recording).await?;
        let once = run(gpu, recording).await?;
        let repeats = (SAMPLE_SECONDS / once).ceil().clamp(1.0, MOST_REPEATS);
        let mut repeated = Recording::new();
        for _ in 0..repeats as usize {
            repeated.append(recording);
        }
        let (mut seconds, mut all) = (Vec::new(), 0.0);
        while seconds.len() < SAMPLES[0] || (seconds.len() < SAMPLES[1] && all < ALL_SECONDS) {
            let sample = run(gpu, &repeated).await?;
            all += sample;
            seconds.push(sample / repeats);
        }
        Ok(Self::new(seconds))
    }
}

/// Seconds until a recording is done.
async fn run(gpu: &Gpu, recording: &Recording) -> Result<f64, GpuError> {
    gpu.finish().await?;
    let start = Instant::now();
    gpu.submit(recording).await?;
    gpu.finish().await?;
    Ok(start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_and_the_middle_one() {
        assert_eq!(Timing::new(vec![3.0, 1.0, 2.0]), Timing { minimum: 1.0, median: 2.0 });
        assert_eq!(Timing::new(vec![0.5]), Timing { minimum: 0.5, median: 0.5 });
    }
}
