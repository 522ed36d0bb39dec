//! Minimum of a function of one variable.

/// Points of the grid that brackets the minimum.
const GRID: usize = 400;

/// Where `of` is least between `low` and `high`: the best of a grid, then golden sections around it, to about 1e-9 of the
/// interval. Where `of` is infinite it is not considered.
pub(crate) fn minimum(of: impl Fn(f64) -> f64, low: f64, high: f64) -> f64 {
    let at = |index: usize| low + (high - low) * index as f64 / GRID as f64;
    let best = (0..=GRID).min_by(|x, y| of(at(*x)).total_cmp(&of(at(*y)))).unwrap_or(0);
    let (mut left, mut right) = (at(best.saturating_sub(1)), at((best + 1).min(GRID)));
    let golden = (5_f64.sqrt() - 1.0) / 2.0;
    while right - left > 1e-9 * (high - low).abs() {
        let (x, y) = (right - golden * (right - left), left + golden * (right - left));
        if of(x) < of(y) { right = y } else { left = x }
    }
    f64::midpoint(left, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_of_two_valleys_is_found() {
        let of = |x: f64| ((x - 1.0) * (x + 2.0)).powi(2) + 0.1 * x;
        // The derivative 2 (x - 1) (x + 2) (2 x + 1) + 0.1 is 0 near x = -2.0055.
        let found = minimum(of, -3.0, 3.0);
        assert!((found + 2.0055).abs() < 1e-4, "{found}");
    }
}
