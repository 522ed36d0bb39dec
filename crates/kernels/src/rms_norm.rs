//! RMS norm: `y = x rstd gamma` over each row, `rstd = 1 / sqrt(mean(x^2) + eps)`.
//!
//! Backward, with `xhat = x rstd` and `d_xhat = d_y gamma`: `d_x = rstd (d_xhat - xhat mean(d_xhat xhat))` and
//! `d_gamma = sum over rows of d_y xhat`.
//!
//! Shapes: `x`, `y` and their gradients `(N, D)`, `gamma` `(D)`, `rstd` `(N)`.
//! Source: Zhang and Sennrich 2019, <https://arxiv.org/abs/1910.07467>, equation 4.

use crate::exec::Exec;
use crate::lanes::{add_in_order, for_each_part, rows_per_block, rows_per_task, split};
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
    let rows = rows_per_block(rstd.len());
    let mut sums = vec![0.0; rstd.len().div_ceil(rows) * dim];
    for_each_part(exec, [d_x, &mut sums], [rows * dim, dim], |index, [d_x, d_gamma]| {
        let elements = index * rows * dim..index * rows * dim + d_x.len();
        let rstd = &rstd[index * rows..][..d_x.len() / dim];
        let (d_y, x, around) = (&d_y[elements.clone()], &x[elements.clone()], around.map(|around| &around[elements]));
        dispatch(exec, Backward { d_y, x, gamma, rstd, around, d_x, d_gamma });
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
    fn run<S: Simd>(mut self, simd: S) {
        let (n, mut row) = (self.rstd.len(), 0);
        while S::ROOMY && n - row >= 8 {
            self.rows::<8, S>(simd, row);
            row += 8;
        }
        while S::ROOMY && n - row >= 4 {
            self.rows::<4, S>(simd, row);
            row += 4;
        }
        for row in row..n {
            self.rows::<1, S>(simd, row);
        }
    }
}

impl Forward<'_> {
    /// `R` rows from `first` on, so that their chains of sums and roots run side by side.
    #[inline(always)]
    fn rows<const R: usize, S: Simd>(&mut self, simd: S, first: usize) {
        let (dim, zero) = (self.gamma.len(), simd.splat(0.0));
        let part = first * dim..(first + R) * dim;
        let x: [_; R] = split(&self.x[part.clone()], dim);
        let mut sums = [zero; R];
        for column in 0..dim / LANES {
            for r in 0..R {
                let x = simd.load(&x[r].0[column]);
                sums[r] = simd.mul_add_lanes(x, x, sums[r]);
            }
        }
        if !dim.is_multiple_of(LANES) {
            for r in 0..R {
                let x = simd.load_part(x[r].1, zero);
                sums[r] = simd.mul_add_lanes(x, x, sums[r]);
            }
        }
        let rstd = &mut self.rstd[first..first + R];
        for r in 0..R {
            rstd[r] = 1.0 / (simd.sum(sums[r]) / dim as f32 + self.eps).sqrt();
        }
        let (gamma, gamma_tail) = self.gamma.as_chunks();
        for (r, y) in self.y[part].chunks_exact_mut(dim).enumerate() {
            let (rstd, (x, x_tail), (y, y_tail)) = (simd.splat(rstd[r]), x[r], y[..dim].as_chunks_mut());
            for ((y, x), gamma) in y.iter_mut().zip(x).zip(gamma) {
                simd.store(simd.mul(simd.mul(simd.load(x), rstd), simd.load(gamma)), y);
            }
            if !y_tail.is_empty() {
                let xhat = simd.mul(simd.load_part(x_tail, zero), rstd);
                simd.store_part(simd.mul(xhat, simd.load_part(gamma_tail, zero)), y_tail);
            }
        }
    }
}

struct Backward<'a> {
    d_y: &'a [f32],
    x: &'a [f32],
    gamma: &'a [f32],
    rstd: &'a [f32],
    around: Option<&'a [f32]>,
    d_x: &'a mut [f32],
    d_gamma: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let (n, mut row) = (self.rstd.len(), 0);
        while S::ROOMY && n - row >= 4 {
            self.rows::<4, S>(simd, row);
            row += 4;
        }
        for row in row..n {
            self.rows::<1, S>(simd, row);
        }
    }
}

impl Backward<'_> {
    /// `R` rows from `first` on.
    #[inline(always)]
    fn rows<const R: usize, S: Simd>(&mut self, simd: S, first: usize) {
        let (dim, zero) = (self.gamma.len(), simd.splat(0.0));
        let part = first * dim..(first + R) * dim;
        let (d_y, x): ([_; R], [_; R]) = (split(&self.d_y[part.clone()], dim), split(&self.x[part.clone()], dim));
        let (gamma, gamma_tail) = self.gamma.as_chunks::<LANES>();
        let (d_gamma, d_gamma_tail) = self.d_gamma[..dim].as_chunks_mut::<LANES>();
        let (mut rstd, mut dot) = ([zero; R], [zero; R]);
        for r in 0..R {
            rstd[r] = simd.splat(self.rstd[first + r]);
        }
        for column in 0..dim / LANES {
            let (gamma, mut sum) = (simd.load(&gamma[column]), simd.load(&d_gamma[column]));
            for r in 0..R {
                let xhat = simd.mul(simd.load(&x[r].0[column]), rstd[r]);
                let product = simd.mul(simd.load(&d_y[r].0[column]), xhat);
                sum = simd.add(sum, product);
                dot[r] = simd.mul_add_lanes(product, gamma, dot[r]);
            }
            simd.store(sum, &mut d_gamma[column]);
        }
        if !dim.is_multiple_of(LANES) {
            let (gamma, mut sum) = (simd.load_part(gamma_tail, zero), simd.load_part(d_gamma_tail, zero));
            for r in 0..R {
                let xhat = simd.mul(simd.load_part(x[r].1, zero), rstd[r]);
                let product = simd.mul(simd.load_part(d_y[r].1, zero), xhat);
                sum = simd.add(sum, product);
                dot[r] = simd.mul_add_lanes(product, gamma, dot[r]);
            }
            simd.store_part(sum, d_gamma_tail);
        }
        // Apart from the sums, which an index that is not constant would keep out of the registers.
        let mut rows = [Gradient { rstd: zero, mean_dot: zero }; R];
        for r in 0..R {
            rows[r] = Gradient { rstd: rstd[r], mean_dot: simd.splat(-simd.sum(dot[r]) / dim as f32) };
        }
        for (r, d_x) in self.d_x[part.clone()].chunks_exact_mut(dim).enumerate() {
            let around = self.around.map(|around| &around[part.start + r * dim..][..dim]);
            match around {
                Some(around) => rows[r].run::<true, S>(simd, d_y[r], x[r], self.gamma, around, &mut d_x[..dim]),
                None => rows[r].run::<false, S>(simd, d_y[r], x[r], self.gamma, self.gamma, &mut d_x[..dim]),
            }
        }
    }
}

/// What a row's gradient takes from the whole row, in every lane: `rstd` and the negated `mean(d_xhat xhat)`.
#[derive(Clone, Copy)]
struct Gradient<L> {
    rstd: L,
    mean_dot: L,
}

impl<L: Copy> Gradient<L> {
    /// `d_x`, with what is around the norm where there is such.
    #[inline(always)]
    fn run<const AROUND: bool, S: Simd<Lanes = L>>(
        self,
        simd: S,
        (d_y, d_y_tail): (&[[f32; LANES]], &[f32]),
        (x, x_tail): (&[[f32; LANES]], &[f32]),
        gamma: &[f32],
        around: &[f32],
        d_x: &mut [f32],
    ) {
        let ((gamma, gamma_tail), (around, around_tail)) = (gamma.as_chunks(), around.as_chunks());
        let (d_x, d_x_tail) = d_x.as_chunks_mut();
        for ((((d_x, d_y), x), gamma), around) in d_x.iter_mut().zip(d_y).zip(x).zip(gamma).zip(around) {
            let d = self.of(simd, simd.load(d_y), simd.load(x), simd.load(gamma));
            simd.store(if AROUND { simd.add(d, simd.load(around)) } else { d }, d_x);
        }
        if !d_x_tail.is_empty() {
            let zero = simd.splat(0.0);
            let [d_y, x] = [simd.load_part(d_y_tail, zero), simd.load_part(x_tail, zero)];
            let d = self.of(simd, d_y, x, simd.load_part(gamma_tail, zero));
            simd.store_part(if AROUND { simd.add(d, simd.load_part(around_tail, zero)) } else { d }, d_x_tail);
        }
    }

    #[inline(always)]
    fn of<S: Simd<Lanes = L>>(&self, simd: S, d_y: L, x: L, gamma: L) -> L {
        let xhat = simd.mul(x, self.rstd);
        simd.mul(self.rstd, simd.mul_add_lanes(xhat, self.mean_dot, simd.mul(d_y, gamma)))
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
