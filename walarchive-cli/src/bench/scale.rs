//! The axes of a drawing. Pure.

/// An axis: what it reaches from and to, and where its ticks are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    pub(super) ticks: Vec<f64>,
}

impl Scale {
    /// From a 1, 2 or 5 with noughts to another one, around all values that are greater than zero.
    pub(super) fn logarithmic(values: impl Iterator<Item = f64>) -> Scale {
        let (low, high) = ends(values.filter(|value| *value > 0.0)).unwrap_or((1.0, 10.0));
        let steps = (-4..=7).flat_map(|tens| [1.0, 2.0, 5.0].map(|step| tidy(step * 10_f64.powi(tens))));
        let steps: Vec<f64> = steps.collect();
        let first = steps.iter().rposition(|step| *step < low).unwrap_or_default();
        let last = steps.iter().position(|step| *step > high).unwrap_or(steps.len() - 1);
        let ticks = steps[first..=last.max(first)].to_vec();
        Scale { low: steps[first].min(low), high: steps[last].max(high), logarithmic: true, ticks }
    }

    /// Around all values, in steps that people count in.
    pub(super) fn linear(values: impl Iterator<Item = f64>) -> Scale {
        let (low, high) = ends(values).unwrap_or((0.0, 1.0));
        let rough = ((high - low) / 6.0).max(0.01);
        let tens = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * tens).find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let first = (low / step).floor() as i64;
        let last = ((high / step).ceil() as i64).max(first + 1);
        let ticks: Vec<f64> = (first..=last).map(|nth| tidy(nth as f64 * step)).collect();
        Scale { low: first as f64 * step, high: last as f64 * step, logarithmic: false, ticks }
    }

    /// Where a value is drawn between the two ends of the axis.
    pub(super) fn place(&self, value: f64, start: f64, end: f64) -> f64 {
        let along = |value: f64| if self.logarithmic { value.max(1e-9).ln() } else { value };
        let share = (along(value) - along(self.low)) / (along(self.high) - along(self.low));
        start + share * (end - start)
    }
}

fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |ends, value| match ends {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

/// Without the dust of binary fractions.
fn tidy(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithmic_axis() {
        let scale = Scale::logarithmic([3.0, 700.0].into_iter());
        assert_eq!(scale.ticks, [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        assert_eq!((scale.place(2.0, 0.0, 100.0), scale.place(1000.0, 0.0, 100.0)), (0.0, 100.0));
        let (ten, hundred) = (scale.place(10.0, 0.0, 100.0), scale.place(100.0, 0.0, 100.0));
        let fivefold = scale.place(500.0, 0.0, 100.0) - hundred;
        assert!((scale.place(50.0, 0.0, 100.0) - ten - fivefold).abs() < 1e-9);
        // A single value, a value on a tick, nothing at all, and what is off every scale.
        for values in [vec![7.0], vec![10.0], vec![], vec![0.0], vec![1e-9], vec![1e12], vec![1e-9, 1e12]] {
            let scale = Scale::logarithmic(values.iter().copied());
            assert!(scale.low < scale.high && !scale.ticks.is_empty(), "{values:?}: {scale:?}");
            let inside = |value: &f64| (-0.1..=100.1).contains(&scale.place(*value, 0.0, 100.0));
            assert!(values.iter().filter(|value| **value > 0.0).all(inside), "{values:?}: {scale:?}");
        }
    }

    #[test]
    fn the_linear_axis() {
        let scale = Scale::linear([1.0, 3.4].into_iter());
        assert_eq!(scale.ticks, [1.0, 1.5, 2.0, 2.5, 3.0, 3.5]);
        assert_eq!((scale.place(1.0, 500.0, 0.0), scale.place(3.5, 500.0, 0.0)), (500.0, 0.0));
        for values in [vec![1.0], vec![0.99, 1.0], vec![], vec![1.0, 40_000.0]] {
            let scale = Scale::linear(values.iter().copied());
            assert!(scale.low < scale.high && (2..20).contains(&scale.ticks.len()), "{values:?}: {scale:?}");
            assert!(values.iter().all(|value| (scale.low..=scale.high).contains(value)));
        }
    }
}
