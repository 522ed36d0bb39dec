//! RMS norm: `y = x rstd gamma` over each row, `rstd = 1 / sqrt(mean(x^2) + eps)`.
//!
//! Backward, with `xhat = x rstd` and `d_xhat = d_y gamma`: `d_x = rstd (d_xhat - xhat mean(d_xhat xhat))` and
//! `d_gamma = sum over rows of d_y xhat`.
//!
//! Shapes: `x`, `y` and their gradients `(N, D)`, `gamma` `(D)`, `rstd` `(N)`.
//! Source: Zhang and Sennrich 2019, <https://arxiv.org/abs/1910.07467>, equation 4.

use crate::add::add_to;
use crate::exec::Exec;
use crate::lanes::{add_in_order, for_each_part, rows_per_block, rows_per_task, sum, sum_of};
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// Scales each row to a root mean square of 1, then by `gamma`; keeps `rstd` for [`backward`].
///
/// Numbers: f32. A row's result does not depend on other rows or on the number of threads.
/// Panics: if `gamma` is empty or the lengths disagree.
/// Source: see the file's head.
pub fn forward(exec: Exec, x: &[f32], gamma: &[f32], eps: f32, y: &mut [f32], rstd: &mut [f32]) {
    let dim = gamma.len();
    assert!(dim > 0, "RMS norm of rows without elements");
    assert!(x.len() == rstd.len() * dim && y.len() == x.len(), "{} rows of {dim}", rstd.len());
    let rows = rows_per_task(dim);
    for_each_part(exec, [y, rstd], [rows * dim, rows], |index, [y, rstd]| {
        let x = &x[index * rows * dim..][..y.len()];
        dispatch(exec, Forward { x, gamma, eps, y, rstd });
    });
}

/// The gradients of [`forward`]; that by `gamma` where asked for. `around` is added to `d_x`: what reaches `x` past the
/// norm, `(N, D)`.
///
/// Numbers: f32; `d_gamma` is summed in blocks of rows that depend on the shape alone, then over the blocks in order,
/// so the bits do not depend on the number of threads.
/// Panics: if `gamma` is empty or the lengths disagree.
/// Source: see the file's head.
pub fn backward(
    exec: Exec,
    d_y: &[f32],
    x: &[f32],
    gamma: &[f32],
    rstd: &[f32],
    around: Option<&[f32]>,
    d_x: &mut [f32],
    d_gamma: Option<&mut [f32]>,
) {
    let dim = gamma.len();
    assert!(dim > 0, "RMS norm of rows without elements");
    assert!(d_y.len() == x.len() && d_x.len() == x.len(), "{}, {}, {} elements", d_y.len(), x.len(), d_x.len());
    assert!(rstd.len() * dim == x.len(), "{} rows of {dim}", rstd.len());
    assert!(d_gamma.as_ref().is_none_or(|d| d.len() == dim), "d_gamma must have {dim} elements");
    assert!(around.is_none_or(|around| around.len() == x.len()), "a gradient around the norm of {} elements", x.len());
    let (rows, serial) = (rows_per_block(rstd.len()), exec.with_threads(1));
    let mut sums = vec![0.0; rstd.len().div_ceil(rows) * dim];
    for_each_part(exec, [d_x, &mut sums], [rows * dim, dim], |index, [d_x, d_gamma]| {
        let elements = index * rows * dim..index * rows * dim + d_x.len();
        let rstd = &rstd[index * rows..][..d_x.len() / dim];
        let (d_y, x) = (&d_y[elements.clone()], &x[elements.clone()]);
        dispatch(exec, Backward { d_y, x, gamma, rstd, d_x: &mut *d_x, d_gamma });
        if let Some(around) = around {
            add_to(serial, &around[elements], d_x);
        }
    });
    if let Some(d_gamma) = d_gamma {
        add_in_order(&sums, dim, 0, d_gamma);
    }
}

struct Forward<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
    rstd: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let dim = self.gamma.len();
        for ((x, y), rstd_out) in self.x.chunks_exact(dim).zip(self.y.chunks_exact_mut(dim)).zip(self.rstd) {
            let mean_square = sum_of(x, |total, x| simd.mul_add(x, x, total)) / dim as f32;
            let rstd = 1.0 / (mean_square + self.eps).sqrt();
            for ((y, &x), &gamma) in y.iter_mut().zip(x).zip(self.gamma) {
                *y = x * rstd * gamma;
            }
            *rstd_out = rstd;
        }
    }
}

struct Backward<'a> {
    d_y: &'a [f32],
    x: &'a [f32],
    gamma: &'a [f32],
    rstd: &'a [f32],
    d_x: &'a mut [f32],
    d_gamma: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { d_y, x, gamma, rstd, d_x, d_gamma } = self;
        let dim = gamma.len();
        let body = dim - dim % LANES;
        let inputs = d_y.chunks_exact(dim).zip(x.chunks_exact(dim)).zip(rstd);
        for (((d_y, x), &rstd), d_x) in inputs.zip(d_x.chunks_exact_mut(dim)) {
            let mut dot = [0.0; LANES];
            for start in (0..body).step_by(LANES) {
                let part = start..start + LANES;
                let d_gamma = &mut d_gamma[part.clone()];
                add_columns(simd, &d_y[part.clone()], &x[part.clone()], &gamma[part], rstd, d_gamma, &mut dot);
            }
            add_columns(simd, &d_y[body..], &x[body..], &gamma[body..], rstd, &mut d_gamma[body..], &mut dot);
            let mean_dot = sum(dot) / dim as f32;
            for (((d_x, &d_y), &x), &gamma) in d_x.iter_mut().zip(d_y).zip(x).zip(gamma) {
                *d_x = rstd * simd.mul_add(-x * rstd, mean_dot, d_y * gamma);
            }
        }
    }
}

/// Adds `d_xhat xhat` of at most [`LANES`] columns of a row to `dot`, and `d_y xhat` to `d_gamma`.
#[inline(always)]
fn add_columns<S: Simd>(
    simd: S,
    d_y: &[f32],
    x: &[f32],
    gamma: &[f32],
    rstd: f32,
    d_gamma: &mut [f32],
    dot: &mut [f32; LANES],
) {
    for i in 0..d_y.len() {
        let product = d_y[i] * (x[i] * rstd);
        d_gamma[i] += product;
        dot[i] = simd.mul_add(product, gamma[i], dot[i]);
    }
}

/// The formulas in f64, row by row.
pub mod reference {
    /// `(y, rstd)`.
    pub fn forward(x: &[f64], gamma: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>) {
        let dim = gamma.len();
        let (mut y, mut rstds) = (Vec::new(), Vec::new());
        for row in x.chunks(dim) {
            let rstd = 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / dim as f64 + eps).sqrt();
            y.extend(row.iter().zip(gamma).map(|(x, gamma)| x * rstd * gamma));
            rstds.push(rstd);
        }
        (y, rstds)
    }

    /// `(d_x, d_gamma)`.
    pub fn backward(d_y: &[f64], x: &[f64], gamma: &[f64], rstd: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let dim = gamma.len();
        let (mut d_x, mut d_gamma) = (Vec::new(), vec![0.0; dim]);
        for ((d_y, x), rstd) in d_y.chunks(dim).zip(x.chunks(dim)).zip(rstd) {
            let mean_dot = (0..dim).map(|j| d_y[j] * gamma[j] * x[j] * rstd).sum::<f64>() / dim as f64;
            d_x.extend((0..dim).map(|j| rstd * (d_y[j] * gamma[j] - x[j] * rstd * mean_dot)));
            for j in 0..dim {
                d_gamma[j] += d_y[j] * x[j] * rstd;
            }
        }
        (d_x, d_gamma)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;
    use crate::lanes::TASK_ELEMENTS;
    use crate::testing::{check_fast, grad_gap, test_input, test_input_f64, weighted_sum, wide};

    const EPS: f32 = 1e-6;

    #[test]
    fn the_reference_has_the_worked_out_values() {
        // Mean square (1 + 49) / 2 = 25, so rstd is 1/5.
        let (y, rstd) = reference::forward(&[1.0, 7.0], &[10.0, 1.0], 0.0);
        for (got, want) in y.iter().chain(&rstd).zip([2.0, 1.4, 0.2]) {
            assert!((got - want).abs() < 1e-12);
        }
    }

    #[test]
    fn backward_is_the_derivative_of_forward() {
        let (x, gamma, d_y) = (test_input_f64(21, 1), test_input_f64(7, 2), test_input_f64(21, 4));
        let eps = f64::from(EPS);
        let (_, rstd) = reference::forward(&x, &gamma, eps);
        let (d_x, d_gamma) = reference::backward(&d_y, &x, &gamma, &rstd);
        assert!(grad_gap(|x| weighted_sum(&d_y, &reference::forward(x, &gamma, eps).0), &x, &d_x) < 1e-6);
        assert!(grad_gap(|g| weighted_sum(&d_y, &reference::forward(&x, g, eps).0), &gamma, &d_gamma) < 1e-6);
    }

    #[test]
    fn the_fast_path_equals_the_reference_at_any_size() {
        for (n, dim) in
            [(0, 5), (1, 1), (3, 7), (5, 16), (4, 33), (17, 48), (65, 769), (301, 64), (3, TASK_ELEMENTS + 1)]
        {
            let x: Vec<f32> = test_input(n * dim, 5).iter().map(|x| 3.0 * x + 0.2).collect();
            let (gamma, d_y) = (test_input(dim, 6), test_input(n * dim, 8));
            let run = |exec| {
                let (mut y, mut rstd) = (vec![f32::NAN; n * dim], vec![f32::NAN; n]);
                forward(exec, &x, &gamma, EPS, &mut y, &mut rstd);
                let [mut d_x, mut alone] = [(); 2].map(|()| vec![f32::NAN; n * dim]);
                let mut d_gamma = vec![f32::NAN; dim];
                backward(exec, &d_y, &x, &gamma, &rstd, None, &mut d_x, Some(&mut d_gamma));
                backward(exec, &d_y, &x, &gamma, &rstd, None, &mut alone, None);
                assert_eq!(d_x, alone);
                backward(exec, &d_y, &x, &gamma, &rstd, Some(&x), &mut alone, None);
                assert!(alone.iter().zip(d_x.iter().zip(&x)).all(|(sum, (d, x))| *sum == d + x), "{n} x {dim}");
                vec![y, rstd, d_x, d_gamma]
            };
            let (x, gamma, d_y) = (wide(&x), wide(&gamma), wide(&d_y));
            let (y, rstd) = reference::forward(&x, &gamma, f64::from(EPS));
            let (d_x, d_gamma) = reference::backward(&d_y, &x, &gamma, &rstd);
            check_fast(&format!("{n} x {dim}"), run, &[y, rstd, d_x, d_gamma], 4e-6);
        }
    }

    #[test]
    fn outputs_and_gradients_equal_pytorchs() {
        let golden = Golden::read("rms_norm");
        let x: Vec<f32> = test_input(6 * 19, 1).iter().map(|x| 2.0 * x).collect();
        let (gamma, d_y) = (test_input(19, 2), test_input(6 * 19, 4));
        let exec = Exec::new(2);
        let ([mut y, mut d_x], mut rstd, mut d_gamma) = ([[0.0; 6 * 19]; 2], [0.0; 6], [0.0; 19]);
        forward(exec, &x, &gamma, EPS, &mut y, &mut rstd);
        backward(exec, &d_y, &x, &gamma, &rstd, None, &mut d_x, Some(&mut d_gamma));
        golden.check("y", &y, 1e-6);
        golden.check("d_x", &d_x, 1e-6);
        golden.check("d_gamma", &d_gamma, 1e-6);
    }
}
