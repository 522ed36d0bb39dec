//! L-BFGS with a line search by the strong Wolfe conditions.
//!
//! Source: Nocedal and Wright 2006, "Numerical Optimization", algorithms 7.4, 7.5, 3.5 and 3.6.

/// Pairs of steps and gradient changes that are remembered.
const MEMORY: usize = 10;
/// Steps at most.
const MOST_STEPS: usize = 2000;
/// Sufficient decrease and curvature, the usual values for quasi-Newton methods.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
/// Evaluations of one line search at most.
const MOST_TRIALS: usize = 40;

/// Where a search ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Minimum<const K: usize> {
    /// The point.
    pub x: [f64; K],
    /// The function there.
    pub value: f64,
    /// The largest absolute partial derivative there.
    pub gradient: f64,
    /// Steps taken.
    pub steps: usize,
}

/// A point with its value and gradient.
#[derive(Clone, Copy)]
struct At<const K: usize> {
    x: [f64; K],
    value: f64,
    gradient: [f64; K],
}

fn dot<const K: usize>(x: &[f64; K], y: &[f64; K]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn along<const K: usize>(x: &[f64; K], step: f64, direction: &[f64; K]) -> [f64; K] {
    std::array::from_fn(|i| x[i] + step * direction[i])
}

/// A minimum of `function` near `start`; `function` takes a point and writes the gradient.
///
/// It ends where the function no longer falls in double precision, so that the scale of its values does not matter.
/// Law: the value never exceeds that at `start`.
pub fn minimize<const K: usize>(function: impl Fn(&[f64; K], &mut [f64; K]) -> f64, start: [f64; K]) -> Minimum<K> {
    let evaluate = |x: [f64; K]| {
        let mut gradient = [0.0; K];
        let value = function(&x, &mut gradient);
        At { x, value, gradient }
    };
    let mut at = evaluate(start);
    let mut memory: Vec<([f64; K], [f64; K], f64)> = Vec::new();
    let mut steps = 0;
    let mut idle = 0;
    while steps < MOST_STEPS && idle < 3 {
        let mut direction = descent(&at.gradient, &memory);
        if dot(&direction, &at.gradient) >= 0.0 {
            memory.clear();
            direction = at.gradient.map(|g| -g);
        }
        let norm = dot(&at.gradient, &at.gradient).sqrt();
        if norm == 0.0 || !norm.is_finite() {
            break;
        }
        let first = if memory.is_empty() { (1.0 / norm).min(1.0) } else { 1.0 };
        let Some(next) = line_search(&evaluate, &at, &direction, first) else {
            if memory.is_empty() {
                break;
            }
            // The curvature that was learnt misleads; begin again downhill.
            memory.clear();
            continue;
        };
        let moved: [f64; K] = std::array::from_fn(|i| next.x[i] - at.x[i]);
        let turned: [f64; K] = std::array::from_fn(|i| next.gradient[i] - at.gradient[i]);
        let curvature = dot(&moved, &turned);
        if curvature > 1e-16 * dot(&turned, &turned) {
            if memory.len() == MEMORY {
                memory.remove(0);
            }
            memory.push((moved, turned, 1.0 / curvature));
        }
        let gain = at.value - next.value;
        idle = if gain <= 1e-15 * at.value.abs() { idle + 1 } else { 0 };
        at = next;
        steps += 1;
    }
    let gradient = at.gradient.iter().fold(0.0, |most: f64, g| most.max(g.abs()));
    Minimum { x: at.x, value: at.value, gradient, steps }
}

/// Minus the inverse Hessian times the gradient, from what was remembered: the two-loop recursion, algorithm 7.4.
fn descent<const K: usize>(gradient: &[f64; K], memory: &[([f64; K], [f64; K], f64)]) -> [f64; K] {
    let mut q = gradient.map(|g| -g);
    let mut weights = Vec::with_capacity(memory.len());
    for (moved, turned, rho) in memory.iter().rev() {
        let weight = rho * dot(moved, &q);
        q = along(&q, -weight, turned);
        weights.push(weight);
    }
    if let Some((_, turned, rho)) = memory.last() {
        let scale = 1.0 / (rho * dot(turned, turned));
        q = q.map(|x| scale * x);
    }
    for ((moved, turned, rho), weight) in memory.iter().zip(weights.into_iter().rev()) {
        q = along(&q, weight - rho * dot(turned, &q), moved);
    }
    q
}

/// A point along `direction` with the strong Wolfe conditions, or at least a lower one; `None` where there is none.
fn line_search<const K: usize>(
    evaluate: &impl Fn([f64; K]) -> At<K>,
    from: &At<K>,
    direction: &[f64; K],
    first: f64,
) -> Option<At<K>> {
    let slope = dot(&from.gradient, direction);
    let is_low = |step: f64, at: &At<K>| at.value <= from.value + DECREASE * step * slope;
    let is_flat = |at: &At<K>| dot(&at.gradient, direction).abs() <= CURVATURE * slope.abs();
    // The lower end of a bracket, and its upper end once there is one.
    let mut low = (0.0, *from);
    let mut high: Option<(f64, At<K>)> = None;
    let mut step = first;
    for _ in 0..MOST_TRIALS {
        let at = evaluate(along(&from.x, step, direction));
        let turn = dot(&at.gradient, direction);
        if !at.value.is_finite() || !is_low(step, &at) || at.value >= low.1.value {
            high = Some((step, at));
        } else {
            if is_flat(&at) {
                return Some(at);
            }
            if let Some((end, _)) = high {
                // The function rises from here towards the other end: that one is replaced.
                if turn * (end - step) >= 0.0 {
                    high = Some(low);
                }
            } else if turn >= 0.0 {
                high = Some(low);
            }
            low = (step, at);
        }
        step = match &high {
            Some(high) if (high.0 - low.0).abs() > 1e-16 * (1.0 + low.0.abs()) => between(&low, high, direction),
            Some(_) => break,
            None => 2.5 * step,
        };
    }
    (low.1.value < from.value).then_some(low.1)
}

/// A trial step inside a bracket: the minimum of the cubic through both ends, kept off them.
fn between<const K: usize>(low: &(f64, At<K>), high: &(f64, At<K>), direction: &[f64; K]) -> f64 {
    let ((x, f), (y, g)) = ((low.0, low.1.value), (high.0, high.1.value));
    let (df, dg) = (dot(&low.1.gradient, direction), dot(&high.1.gradient, direction));
    let d1 = df + dg - 3.0 * (f - g) / (x - y);
    let d2 = (y - x).signum() * (d1 * d1 - df * dg).max(0.0).sqrt();
    let cubic = y - (y - x) * (dg + d2 - d1) / (dg - df + 2.0 * d2);
    let (left, right) = (x + 0.1 * (y - x), x + 0.9 * (y - x));
    let (left, right) = (left.min(right), left.max(right));
    if cubic.is_finite() && (left..=right).contains(&cubic) { cubic } else { f64::midpoint(x, y) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rosenbrock(x: &[f64; 2], gradient: &mut [f64; 2]) -> f64 {
        let (bend, rest) = (x[1] - x[0] * x[0], 1.0 - x[0]);
        *gradient = [-400.0 * x[0] * bend - 2.0 * rest, 200.0 * bend];
        100.0 * bend * bend + rest * rest
    }

    #[test]
    fn the_bottom_of_rosenbrocks_valley_is_found_in_few_steps() {
        let found = minimize(rosenbrock, [-1.2, 1.0]);
        assert!(found.x.iter().all(|x| (x - 1.0).abs() < 1e-7), "{found:?}");
        assert!(found.steps < 60, "{found:?}");
    }

    #[test]
    fn the_scale_of_the_function_does_not_matter() {
        for scale in [1e-9, 1e9] {
            let scaled = |x: &[f64; 2], gradient: &mut [f64; 2]| {
                let value = scale * rosenbrock(x, gradient);
                *gradient = gradient.map(|g| scale * g);
                value
            };
            let found = minimize(scaled, [-1.2, 1.0]);
            assert!(found.x.iter().all(|x| (x - 1.0).abs() < 1e-6), "{scale:e}: {found:?}");
        }
    }

    #[test]
    fn a_quadratic_of_bad_condition_is_solved_exactly() {
        let weights = [1.0, 1e3, 1e6];
        let function = |x: &[f64; 3], gradient: &mut [f64; 3]| {
            *gradient = std::array::from_fn(|i| 2.0 * weights[i] * (x[i] - i as f64));
            (0..3).map(|i| weights[i] * (x[i] - i as f64).powi(2)).sum()
        };
        let found = minimize(function, [5.0; 3]);
        assert!((0..3).all(|i| (found.x[i] - i as f64).abs() < 1e-7), "{found:?}");
    }

    #[test]
    fn what_is_not_finite_is_left_again() {
        // ln x below 0 is not a number; the first step from 0.1 would go there.
        let function = |x: &[f64; 1], gradient: &mut [f64; 1]| {
            *gradient = [1.0 - 2.0 / x[0]];
            x[0] - 2.0 * x[0].ln()
        };
        let found = minimize(function, [30.0]);
        assert!((found.x[0] - 2.0).abs() < 1e-6, "{found:?}");
        let hopeless = minimize(
            |_: &[f64; 1], g: &mut [f64; 1]| {
                *g = [f64::NAN];
                f64::NAN
            },
            [1.0],
        );
        assert_eq!(hopeless.steps, 0);
    }
}
