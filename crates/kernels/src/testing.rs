//! What the tests of all kernels share: inputs, the gradient check, and the comparison of fast paths with references.

use crate::exec::{Exec, Isa};

/// Test values in [-0.5, 0.5), bit for bit those of `testdata/make_golden.py`.
pub(crate) fn test_input(n: usize, salt: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + salt * 104_729) % 2003) as f32 / 2003.0 - 0.5).collect()
}

/// [`test_input`] in f64.
pub(crate) fn test_input_f64(n: usize, salt: usize) -> Vec<f64> {
    wide(&test_input(n, salt))
}

/// The same values in f64.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().copied().map(f64::from).collect()
}

/// Largest relative gap between `grad` and central differences of `loss` at `x`. NaN if either side is NaN.
pub(crate) fn grad_gap(loss: impl Fn(&[f64]) -> f64, x: &[f64], grad: &[f64]) -> f64 {
    assert_eq!(x.len(), grad.len());
    let step = 1e-5;
    let mut worst = 0.0;
    for i in 0..x.len() {
        let at = |h: f64| {
            let mut moved = x.to_vec();
            moved[i] += h;
            loss(&moved)
        };
        let numeric = (at(step) - at(-step)) / (2.0 * step);
        let gap = (numeric - grad[i]).abs() / (1e-3 + numeric.abs() + grad[i].abs());
        // `f64::max` would drop a NaN.
        if gap.is_nan() || gap > worst {
            worst = gap;
        }
    }
    worst
}

/// Sum of `weight * y`: a loss whose gradient by `y` is `weight`.
pub(crate) fn weighted_sum(weight: &[f64], y: &[f64]) -> f64 {
    assert_eq!(weight.len(), y.len());
    weight.iter().zip(y).map(|(weight, y)| weight * y).sum()
}

/// Fails unless every `|got - want| <= bound * (1 + |want|)`; a NaN on either side fails.
pub(crate) fn assert_near(what: &str, got: &[f32], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let gap = (f64::from(got) - want).abs() / (1.0 + want.abs());
        assert!(gap <= bound, "{what}[{i}]: got {got:e}, expected {want:e}, gap {gap:e}");
    }
}

/// Runs a fast path on every instruction set of this machine: near `want` on one thread, and the same bits on two and
/// three.
pub(crate) fn check_fast(what: &str, run: impl Fn(Exec) -> Vec<Vec<f32>>, want: &[Vec<f64>], bound: f64) {
    for isa in Isa::available() {
        let exec = Exec::new(1).with_isa(isa);
        let alone = run(exec);
        assert_eq!(alone.len(), want.len(), "{what}: number of outputs");
        for (index, (got, want)) in alone.iter().zip(want).enumerate() {
            assert_near(&format!("{what}, {}, output {index}", isa.name()), got, want, bound);
        }
        for threads in [2, 3] {
            let together = run(exec.with_threads(threads));
            assert!(bits(&alone) == bits(&together), "{what}, {}: other bits on {threads} threads", isa.name());
        }
    }
}

/// Distance in units in the last place of the true value (of the smallest normal number below that).
pub(crate) fn ulps(got: f32, want: f64) -> f64 {
    let unit = ((want.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor()) - 23.0).exp2();
    (f64::from(got) - want).abs() / unit
}

fn bits(outputs: &[Vec<f32>]) -> Vec<Vec<u32>> {
    outputs.iter().map(|output| output.iter().map(|x| x.to_bits()).collect()).collect()
}

mod tests {
    use super::*;

    #[test]
    fn the_gradient_check_sees_an_error_of_a_thousandth_and_a_nan() {
        let x = [0.3, -0.7, 1.1];
        let loss = |x: &[f64]| x.iter().map(|x| x.powi(3)).sum::<f64>();
        let right: Vec<f64> = x.iter().map(|x| 3.0 * x * x).collect();
        assert!(grad_gap(loss, &x, &right) < 1e-6);
        let wrong = [right[0], right[1] * 1.001, right[2]];
        assert!(grad_gap(loss, &x, &wrong) > 1e-4);
        assert!(grad_gap(loss, &x, &[right[0], f64::NAN, right[2]]).is_nan());
    }
}
