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
}
