//! Where an axis has its marks, and what they are called.

/// Marks of an axis that lie in a range, from the lowest.
pub(super) struct Marks {
    pub at: Vec<f64>,
    decimals: usize,
}

impl Marks {
    /// At round distances, about as many as wanted.
    pub fn linear(low: f64, high: f64, wanted: usize) -> Self {
        let rough = (high - low) / wanted.max(1) as f64;
        if !(rough.is_finite() && rough > 0.0) {
            return Self { at: Vec::new(), decimals: 0 };
        }
        let power = rough.log10().floor();
        let unit = 10f64.powf(power);
        let step = [1.0, 2.0, 5.0].map(|times| times * unit).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * unit);
        let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        // By numbers of steps, so that errors do not add up.
        let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
        let count = (last - first).clamp(0.0, 100.0) as usize;
        Self { at: (0..=count).map(|index| (first + index as f64) * step).collect(), decimals }
    }

    /// For an axis of logarithms, of a positive range: by 1, 2 and 5, by powers of ten where these were too many, and at round
    /// distances where it spans little.
    pub fn logarithmic(low: f64, high: f64, wanted: usize) -> Self {
        if high / low < 6.0 {
            return Self::linear(low, high, wanted);
        }
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let within = |mark: &f64| mark.is_finite() && (low * (1.0 - 1e-9)..=high * (1.0 + 1e-9)).contains(mark);
        let all: Vec<f64> = (first..=last)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|times| times * 10f64.powi(power)))
            .filter(within)
            .collect();
        let at = match all.len() > 2 * wanted {
            false => all,
            true => {
                let every = ((last - first) as usize).div_ceil(wanted).max(1);
                (first..=last).step_by(every).map(|power| 10f64.powi(power)).filter(within).collect()
            }
        };
        Self { at, decimals: 0 }
    }

    /// What a mark is called.
    pub fn label(&self, mark: f64) -> String {
        match mark.abs() {
            0.0 => "0".into(),
            1e6.. => format!("{mark:.0e}"),
            size if size < 1.0 && self.decimals == 0 => format!("{mark}"),
            _ => format!("{mark:.*}", self.decimals),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(marks: &Marks) -> Vec<String> {
        marks.at.iter().map(|mark| marks.label(*mark)).collect()
    }

    #[test]
    fn marks_are_round() {
        assert_eq!(labels(&Marks::linear(0.0, 33.0, 5)), ["0", "10", "20", "30"]);
        assert_eq!(labels(&Marks::linear(0.0, 0.3, 4)), ["0", "0.1", "0.2", "0.3"]);
        assert_eq!(labels(&Marks::linear(11.9, 12.45, 4)), ["12.0", "12.2", "12.4"]);
        assert_eq!(labels(&Marks::logarithmic(9.0, 250.0, 5)), ["10", "20", "50", "100", "200"]);
        assert_eq!(labels(&Marks::logarithmic(12.0, 16.0, 4)), ["12", "13", "14", "15", "16"]);
        assert!(Marks::logarithmic(f64::MIN_POSITIVE, f64::MAX, 5).at.iter().all(|mark| mark.is_finite()));
        let many = Marks::logarithmic(1.0, 1e300, 5);
        assert!(many.at.len() <= 6 && many.at.len() > 3, "{:?}", many.at);
    }

    #[test]
    fn odd_ranges_have_no_marks() {
        for (low, high) in [(1.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
            assert!(Marks::linear(low, high, 5).at.is_empty(), "{low} {high}");
        }
    }
}
