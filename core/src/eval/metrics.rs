//! Means and their standard errors, as lm-evaluation-harness computes them.

use rand_mt::Mt;

/// Draws of a bootstrap that share a seed.
const CHUNK: usize = 1000;

/// The place of the largest value, the first of equals.
pub(super) fn largest(values: impl IntoIterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (index, value) in values.into_iter().enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard deviation of what the values are a sample of; None of a single one.
fn sample_deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// The standard error of the mean; None of a single value.
pub(super) fn mean_stderr(values: &[f64]) -> Option<f64> {
    Some(sample_deviation(values)? / (values.len() as f64).sqrt())
}

/// exp of the negative mean.
pub(super) fn perplexity(log_likelihoods: &[f64]) -> f64 {
    (-mean(log_likelihoods)).exp()
}

/// The standard error of the perplexity, bootstrapped: the deviation over so many draws of as many values with replacement.
/// The draws are the harness' own, which come from Python's `random.choices`: each thousand from a generator seeded with its
/// number. None for fewer than 2 draws.
pub(super) fn perplexity_stderr(log_likelihoods: &[f64], draws: usize) -> Option<f64> {
    let chunk = CHUNK.min(draws);
    let count = log_likelihoods.len();
    let mut replicates = Vec::with_capacity(draws);
    for seed in 0..draws.checked_div(chunk)? {
        let mut random = Mt::new_with_key([seed as u32]);
        replicates.extend((0..chunk).map(|_| {
            let sum: f64 = (0..count).map(|_| log_likelihoods[(unit(&mut random) * count as f64) as usize]).sum();
            (-sum / count as f64).exp()
        }));
    }
    sample_deviation(&replicates)
}

/// A number from 0 to below 1, of 53 bits, as the authors of the generator make it (`genrand_res53`).
fn unit(random: &mut Mt) -> f64 {
    let (high, low) = (random.next_u32() >> 5, random.next_u32() >> 6);
    (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [f64; 5] = [-0.5, -2.25, -1.0, -4.0, -0.125];

    #[test]
    fn the_first_of_the_largest_counts() {
        assert_eq!(largest([-2.0, -1.0, -1.0]), 1);
        assert_eq!(largest([f64::NEG_INFINITY, f64::NEG_INFINITY]), 0);
    }

    /// Python: `random.Random(1).random()`.
    #[test]
    fn random_numbers_are_those_of_python() {
        let mut random = Mt::new_with_key([1]);
        assert_eq!([unit(&mut random), unit(&mut random)], [0.13436424411240122, 0.8474337369372327]);
    }

    /// lm_eval 0.4.12: `mean_stderr`, `perplexity` and `bootstrap_stderr(perplexity, values, iters)`.
    #[test]
    fn standard_errors_are_those_of_the_harness() {
        let close =
            |found: Option<f64>, expected: f64| found.is_some_and(|found| (found / expected - 1.0).abs() < 1e-12);
        assert!(close(mean_stderr(&VALUES), 0.7044501401802685), "{:?}", mean_stderr(&VALUES));
        assert!(close(mean_stderr(&[1.0, 0.0, 1.0, 1.0]), 0.25));
        assert!(close(Some(perplexity(&VALUES)), 4.830741618110278));
        for (draws, expected) in [
            (100, 4.2927504608362295),
            (1000, 4.5716981398150045),
            (2500, 4.495002998045943),
            (100000, 4.484630699253655),
        ] {
            let found = perplexity_stderr(&VALUES, draws);
            assert!(close(found, expected), "{draws}: {found:?}, expected {expected}");
        }
        assert_eq!((mean_stderr(&[1.0]), perplexity_stderr(&VALUES, 0)), (None, None));
    }
}
