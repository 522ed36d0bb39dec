//! What the kernels' tests share: inputs any language can rebuild, and the gradient check.

/// Test values in [-0.5, 0.5). numpy twin: float32((i*7919 + salt*104729) % 2003) / float32(2003) - float32(0.5).
pub(crate) fn test_input(n: usize, salt: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + salt * 104_729) % 2003) as f32 / 2003.0 - 0.5).collect()
}

/// [`test_input`] in f64.
pub(crate) fn test_input_f64(n: usize, salt: usize) -> Vec<f64> {
    test_input(n, salt).into_iter().map(f64::from).collect()
}

/// Largest relative gap between `grad` and central differences of `loss` at `x`. NaN if either side is NaN.
pub(crate) fn grad_gap(loss: impl Fn(&[f64]) -> f64, x: &[f64], grad: &[f64]) -> f64 {
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
