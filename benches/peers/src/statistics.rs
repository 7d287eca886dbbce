//! Medians and spread of a few rounds.

use serde::Serialize;

/// A few values of one quantity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The median; of an even number, the mean of the middle two.
    pub(crate) median: f64,
    /// The least.
    pub(crate) least: f64,
    /// The greatest.
    pub(crate) greatest: f64,
    /// How many.
    pub(crate) count: usize,
}

impl Spread {
    /// Of these; `None` if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        let count = sorted.len();
        let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
        Some(Spread {
            median,
            least,
            greatest,
            count,
        })
    }
}

/// A straight line through points, by least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Trend {
    /// Of all values.
    pub(crate) mean: f64,
    /// Rise for each step of 1.
    pub(crate) slope: f64,
    /// The slope's standard error, if each value errs on its own.
    pub(crate) error: f64,
}

impl Trend {
    /// None with fewer than three points, or if all are at one place: nothing is known then of the error.
    pub(crate) fn of(points: &[(f64, f64)]) -> Option<Trend> {
        let count = points.len() as f64;
        if points.len() < 3 {
            return None;
        }
        let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
        let mean = points.iter().map(|(_, y)| y).sum::<f64>() / count;
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if spread == 0.0 {
            return None;
        }
        let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean)).sum::<f64>() / spread;
        let residue = |(x, y): &(f64, f64)| (y - mean - slope * (x - mean_x)).powi(2);
        let variance = points.iter().map(residue).sum::<f64>() / (count - 2.0);
        Some(Trend {
            mean,
            slope,
            error: (variance / spread).sqrt(),
        })
    }

    /// What can be said about it. With a confidence of 95 %, or nearly, the slope lies within two errors.
    pub(crate) fn verdict(&self) -> &'static str {
        let doubt = 2.0 * self.error;
        if self.slope.abs() + doubt <= FLAT * self.mean.abs() {
            "flat"
        } else if self.slope.abs() <= doubt {
            "no trend seen"
        } else if self.slope > 0.0 {
            "RISES"
        } else {
            "falls"
        }
    }
}

/// What counts as flat: a change by at most this part of the mean.
const FLAT: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(Spread::of([]), None);
        let three = Spread::of([9.0, 1.0, 2.0]);
        assert_eq!(
            three.map(|s| (s.median, s.least, s.greatest)),
            Some((2.0, 1.0, 9.0))
        );
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 8.0]).map(|s| s.median), Some(3.0));
        assert_eq!(Spread::of([5.0]).map(|s| (s.median, s.count)), Some((5.0, 1)));
    }

    #[test]
    fn a_trend_is_told_from_noise() {
        let points = |value: fn(i32) -> f64| -> Vec<(f64, f64)> {
            (0..60).map(|at| (f64::from(at) / 60.0, value(at))).collect()
        };
        let trend = |value| Trend::of(&points(value)).unwrap();
        let rising = trend(|at| 100.0 + f64::from(at));
        assert!(
            (rising.slope - 60.0).abs() < 1e-9 && rising.error < 1e-9,
            "{rising:?}"
        );
        assert_eq!(rising.verdict(), "RISES");
        assert_eq!(trend(|at| 100.0 - f64::from(at)).verdict(), "falls");
        assert_eq!(trend(|at| 100.0 + f64::from(at % 3)).verdict(), "flat");
        assert_eq!(
            trend(|at| 100.0 + f64::from(at * 37 % 80)).verdict(),
            "no trend seen"
        );
        assert_eq!(Trend::of(&[(0.0, 1.0), (1.0, 2.0)]), None);
    }
}
