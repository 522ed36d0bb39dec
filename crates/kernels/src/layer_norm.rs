//! Layer norm: `y = (x - mean) rstd gamma + beta` over each row, `rstd = 1 / sqrt(variance + eps)`.
//!
//! Backward, with `xhat = (x - mean) rstd` and `d_xhat = d_y gamma`:
//! `d_x = rstd (d_xhat - mean(d_xhat) - xhat mean(d_xhat xhat))`, `d_gamma = sum over rows of d_y xhat`,
//! `d_beta = sum over rows of d_y`.
//!
//! Shapes: `x`, `y` and their gradients `(N, D)`, `gamma` and `beta` `(D)`, `mean` and `rstd` `(N)`.
//! Source: Ba, Kiros and Hinton 2016, <https://arxiv.org/abs/1607.06450>.

use crate::exec::Exec;
use crate::lanes::{add_in_order, for_each_part, rows_per_block, rows_per_task, split};
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// Normalizes each row and keeps its `mean` and `rstd` for [`backward`].
///
/// Numbers: f32; the variance is that of the whole row (divided by D), in a second pass over the row. A row's result
/// does not depend on other rows or on the number of threads.
/// Panics: if `gamma` is empty or the lengths disagree.
/// Source: see the file's head.
pub fn forward(
    exec: Exec,
    x: &[f32],
    gamma: &[f32],
    beta: Option<&[f32]>,
    eps: f32,
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
) {
    let dim = gamma.len();
    assert!(dim > 0, "layer norm of rows without elements");
    assert!(beta.is_none_or(|beta| beta.len() == dim), "beta must have the {dim} elements of gamma");
    assert!(
        x.len() == mean.len() * dim && y.len() == x.len() && rstd.len() == mean.len(),
        "{} x {dim} rows",
        mean.len()
    );
    let rows = rows_per_task(dim);
    for_each_part(exec, [y, mean, rstd], [rows * dim, rows, rows], |index, [y, mean, rstd]| {
        let x = &x[index * rows * dim..][..y.len()];
        dispatch(exec, Forward { x, gamma, beta, eps, y, mean, rstd });
    });
}

/// What [`forward`] gave, from the `mean` and `rstd` that it kept: the same bits.
///
/// Panics: if `gamma` is empty or the lengths disagree.
pub(crate) fn again(exec: Exec, x: &[f32], gamma: &[f32], beta: &[f32], mean: &[f32], rstd: &[f32], y: &mut [f32]) {
    let dim = gamma.len();
    assert!(dim > 0 && beta.len() == dim && x.len() == mean.len() * dim, "{} x {dim} rows", mean.len());
    assert!(y.len() == x.len() && rstd.len() == mean.len(), "{} x {dim} rows", mean.len());
    dispatch(exec, Again { x, gamma, beta, mean, rstd, y });
}

struct Again<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    mean: &'a [f32],
    rstd: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Again<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, gamma, beta, mean, rstd, y } = self;
        let dim = gamma.len();
        let rows = x.chunks_exact(dim).zip(y.chunks_exact_mut(dim));
        for ((x, y), (&mean, &rstd)) in rows.zip(mean.iter().zip(rstd)) {
            for (((y, &x), &gamma), &beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
                *y = simd.mul_add((x - mean) * rstd, gamma, beta);
            }
        }
    }
}

/// The gradients of [`forward`]; those by `gamma` and `beta` where asked for. `around` is added to `d_x`: what reaches `x`
/// past the norm, `(N, D)`.
///
/// Numbers: f32; `d_gamma` and `d_beta` are summed in blocks of rows that depend on the shape alone, then over the
/// blocks in order, so the bits do not depend on the number of threads.
/// Panics: if `gamma` is empty or the lengths disagree.
/// Source: see the file's head.
pub fn backward(
    exec: Exec,
    d_y: &[f32],
    x: &[f32],
    gamma: &[f32],
    mean: &[f32],
    rstd: &[f32],
    around: Option<&[f32]>,
    d_x: &mut [f32],
    d_gamma: Option<&mut [f32]>,
    d_beta: Option<&mut [f32]>,
) {
    let dim = gamma.len();
    assert!(dim > 0, "layer norm of rows without elements");
    assert!(d_y.len() == x.len() && d_x.len() == x.len(), "{}, {}, {} elements", d_y.len(), x.len(), d_x.len());
    assert!(mean.len() * dim == x.len() && rstd.len() == mean.len(), "{} rows of {dim}", mean.len());
    assert!(d_gamma.as_ref().is_none_or(|d| d.len() == dim), "d_gamma must have {dim} elements");
    assert!(d_beta.as_ref().is_none_or(|d| d.len() == dim), "d_beta must have {dim} elements");
    assert!(around.is_none_or(|around| around.len() == x.len()), "a gradient around the norm of {} elements", x.len());
    let rows = rows_per_block(mean.len());
    // Each block's sums: D of d_gamma, then D of d_beta.
    let mut sums = vec![0.0; mean.len().div_ceil(rows) * 2 * dim];
    for_each_part(exec, [d_x, &mut sums], [rows * dim, 2 * dim], |index, [d_x, sums]| {
        let elements = index * rows * dim..index * rows * dim + d_x.len();
        let ours = index * rows..index * rows + d_x.len() / dim;
        let (d_gamma, d_beta) = sums.split_at_mut(dim);
        let (d_y, x, around) = (&d_y[elements.clone()], &x[elements.clone()], around.map(|around| &around[elements]));
        let (mean, rstd) = (&mean[ours.clone()], &rstd[ours]);
        dispatch(exec, Backward { d_y, x, gamma, mean, rstd, around, d_x, d_gamma, d_beta });
    });
    if let Some(d_gamma) = d_gamma {
        add_in_order(&sums, 2 * dim, 0, d_gamma);
    }
    if let Some(d_beta) = d_beta {
        add_in_order(&sums, 2 * dim, dim, d_beta);
    }
}

struct Forward<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    beta: Option<&'a [f32]>,
    eps: f32,
    y: &'a mut [f32],
    mean: &'a mut [f32],
    rstd: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let (n, mut row) = (self.mean.len(), 0);
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
        let (mut means, mut sums) = ([zero; R], [zero; R]);
        for column in 0..dim / LANES {
            for r in 0..R {
                sums[r] = simd.add(sums[r], simd.load(&x[r].0[column]));
            }
        }
        if !dim.is_multiple_of(LANES) {
            for r in 0..R {
                sums[r] = simd.add(sums[r], simd.load_part(x[r].1, zero));
            }
        }
        let (mean, rstd) = (&mut self.mean[first..first + R], &mut self.rstd[first..first + R]);
        for r in 0..R {
            mean[r] = simd.sum(sums[r]) / dim as f32;
            (means[r], sums[r]) = (simd.splat(mean[r]), zero);
        }
        for column in 0..dim / LANES {
            for r in 0..R {
                let x = simd.sub(simd.load(&x[r].0[column]), means[r]);
                sums[r] = simd.mul_add_lanes(x, x, sums[r]);
            }
        }
        if !dim.is_multiple_of(LANES) {
            for r in 0..R {
                let x = simd.sub(simd.load_part(x[r].1, means[r]), means[r]);
                sums[r] = simd.mul_add_lanes(x, x, sums[r]);
            }
        }
        for r in 0..R {
            rstd[r] = 1.0 / (simd.sum(sums[r]) / dim as f32 + self.eps).sqrt();
        }
        for (r, y) in self.y[part].chunks_exact_mut(dim).enumerate() {
            let row = Normalize { mean: simd.splat(mean[r]), rstd: simd.splat(rstd[r]) };
            match self.beta {
                Some(beta) => row.run::<true, S>(simd, x[r], self.gamma, beta, &mut y[..dim]),
                None => row.run::<false, S>(simd, x[r], self.gamma, self.gamma, &mut y[..dim]),
            }
        }
    }
}

/// A row's mean and `rstd`, in every lane.
struct Normalize<L> {
    mean: L,
    rstd: L,
}

impl<L: Copy> Normalize<L> {
    #[inline(always)]
    fn run<const BETA: bool, S: Simd<Lanes = L>>(
        self,
        simd: S,
        (x, x_tail): (&[[f32; LANES]], &[f32]),
        gamma: &[f32],
        beta: &[f32],
        y: &mut [f32],
    ) {
        let ((gamma, gamma_tail), (beta, beta_tail)) = (gamma.as_chunks(), beta.as_chunks());
        let (y, y_tail) = y.as_chunks_mut();
        for (((y, x), gamma), beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
            simd.store(self.row::<BETA, S>(simd, [simd.load(x), simd.load(gamma), simd.load(beta)]), y);
        }
        if !y_tail.is_empty() {
            let zero = simd.splat(0.0);
            let [x, gamma] = [simd.load_part(x_tail, zero), simd.load_part(gamma_tail, zero)];
            simd.store_part(self.row::<BETA, S>(simd, [x, gamma, simd.load_part(beta_tail, zero)]), y_tail);
        }
    }

    #[inline(always)]
    fn row<const BETA: bool, S: Simd<Lanes = L>>(&self, simd: S, [x, gamma, beta]: [L; 3]) -> L {
        let xhat = simd.mul(simd.sub(x, self.mean), self.rstd);
        if BETA { simd.mul_add_lanes(xhat, gamma, beta) } else { simd.mul(xhat, gamma) }
    }
}

struct Backward<'a> {
    d_y: &'a [f32],
    x: &'a [f32],
    gamma: &'a [f32],
    mean: &'a [f32],
    rstd: &'a [f32],
    around: Option<&'a [f32]>,
    d_x: &'a mut [f32],
    d_gamma: &'a mut [f32],
    d_beta: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let (n, mut row) = (self.mean.len(), 0);
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
        let (d_beta, d_beta_tail) = self.d_beta[..dim].as_chunks_mut::<LANES>();
        let mut rows = [Row { mean: zero, rstd: zero, total: zero, dot: zero }; R];
        for r in 0..R {
            (rows[r].mean, rows[r].rstd) = (simd.splat(self.mean[first + r]), simd.splat(self.rstd[first + r]));
        }
        for column in 0..dim / LANES {
            let gamma = simd.load(&gamma[column]);
            let mut sums = [simd.load(&d_gamma[column]), simd.load(&d_beta[column])];
            for r in 0..R {
                let (d_y, x) = (simd.load(&d_y[r].0[column]), simd.load(&x[r].0[column]));
                sums = rows[r].add(simd, d_y, x, gamma, sums);
            }
            simd.store(sums[0], &mut d_gamma[column]);
            simd.store(sums[1], &mut d_beta[column]);
        }
        if !dim.is_multiple_of(LANES) {
            let gamma = simd.load_part(gamma_tail, zero);
            let mut sums = [simd.load_part(d_gamma_tail, zero), simd.load_part(d_beta_tail, zero)];
            for r in 0..R {
                let (d_y, x) = (simd.load_part(d_y[r].1, zero), simd.load_part(x[r].1, zero));
                sums = rows[r].add(simd, d_y, x, gamma, sums);
            }
            simd.store_part(sums[0], d_gamma_tail);
            simd.store_part(sums[1], d_beta_tail);
        }
        // Apart from the sums, which an index that is not constant would keep out of the registers.
        let mut means = rows;
        for r in 0..R {
            means[r].total = simd.splat(-simd.sum(rows[r].total) / dim as f32);
            means[r].dot = simd.splat(-simd.sum(rows[r].dot) / dim as f32);
        }
        for (r, d_x) in self.d_x[part.clone()].chunks_exact_mut(dim).enumerate() {
            let around = self.around.map(|around| &around[part.start + r * dim..][..dim]);
            match around {
                Some(around) => means[r].run::<true, S>(simd, d_y[r], x[r], self.gamma, around, &mut d_x[..dim]),
                None => means[r].run::<false, S>(simd, d_y[r], x[r], self.gamma, self.gamma, &mut d_x[..dim]),
            }
        }
    }
}

/// What a row's gradient takes from the whole row, in every lane: the sums of `d_xhat` and `d_xhat xhat`, by lane at first, then
/// their negated means.
#[derive(Clone, Copy)]
struct Row<L> {
    mean: L,
    rstd: L,
    total: L,
    dot: L,
}

impl<L: Copy> Row<L> {
    /// Takes in [`LANES`] columns, and adds them to the sums over rows: of `d_gamma` and `d_beta`.
    #[inline(always)]
    fn add<S: Simd<Lanes = L>>(&mut self, simd: S, d_y: L, x: L, gamma: L, [d_gamma, d_beta]: [L; 2]) -> [L; 2] {
        let xhat = simd.mul(simd.sub(x, self.mean), self.rstd);
        let d_xhat = simd.mul(d_y, gamma);
        self.total = simd.add(self.total, d_xhat);
        self.dot = simd.mul_add_lanes(d_xhat, xhat, self.dot);
        [simd.mul_add_lanes(d_y, xhat, d_gamma), simd.add(d_beta, d_y)]
    }

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
            let d = self.gradient(simd, simd.load(d_y), simd.load(x), simd.load(gamma));
            simd.store(if AROUND { simd.add(d, simd.load(around)) } else { d }, d_x);
        }
        if !d_x_tail.is_empty() {
            let zero = simd.splat(0.0);
            let [d_y, x] = [simd.load_part(d_y_tail, zero), simd.load_part(x_tail, zero)];
            let d = self.gradient(simd, d_y, x, simd.load_part(gamma_tail, zero));
            simd.store_part(if AROUND { simd.add(d, simd.load_part(around_tail, zero)) } else { d }, d_x_tail);
        }
    }

    #[inline(always)]
    fn gradient<S: Simd<Lanes = L>>(&self, simd: S, d_y: L, x: L, gamma: L) -> L {
        let xhat = simd.mul(simd.sub(x, self.mean), self.rstd);
        simd.mul(self.rstd, simd.mul_add_lanes(xhat, self.dot, simd.mul_add_lanes(d_y, gamma, self.total)))
    }
}

/// The formulas in f64, row by row.
pub mod reference {
    /// `(y, mean, rstd)`.
    pub fn forward(x: &[f64], gamma: &[f64], beta: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let dim = gamma.len();
        let (mut y, mut means, mut rstds) = (Vec::new(), Vec::new(), Vec::new());
        for row in x.chunks(dim) {
            let mean = row.iter().sum::<f64>() / dim as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / dim as f64;
            let rstd = 1.0 / (variance + eps).sqrt();
            y.extend((0..dim).map(|j| (row[j] - mean) * rstd * gamma[j] + beta[j]));
            means.push(mean);
            rstds.push(rstd);
        }
        (y, means, rstds)
    }

    /// `(d_x, d_gamma, d_beta)`.
    pub fn backward(
        d_y: &[f64],
        x: &[f64],
        gamma: &[f64],
        mean: &[f64],
        rstd: &[f64],
    ) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let dim = gamma.len();
        let (mut d_x, mut d_gamma, mut d_beta) = (Vec::new(), vec![0.0; dim], vec![0.0; dim]);
        for (i, (d_y, x)) in d_y.chunks(dim).zip(x.chunks(dim)).enumerate() {
            let xhat: Vec<f64> = x.iter().map(|x| (x - mean[i]) * rstd[i]).collect();
            let d_xhat: Vec<f64> = d_y.iter().zip(gamma).map(|(d_y, gamma)| d_y * gamma).collect();
            let mean_d = d_xhat.iter().sum::<f64>() / dim as f64;
            let mean_dot = d_xhat.iter().zip(&xhat).map(|(d, xhat)| d * xhat).sum::<f64>() / dim as f64;
            d_x.extend((0..dim).map(|j| rstd[i] * (d_xhat[j] - mean_d - xhat[j] * mean_dot)));
            for j in 0..dim {
                d_gamma[j] += d_y[j] * xhat[j];
                d_beta[j] += d_y[j];
            }
        }
        (d_x, d_gamma, d_beta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;
    use crate::lanes::TASK_ELEMENTS;
    use crate::testing::{check_fast, grad_gap, test_input, test_input_f64, weighted_sum, wide};

    const EPS: f32 = 1e-5;

    #[test]
    fn the_reference_has_the_worked_out_values() {
        // Mean 2, variance (1 + 0 + 1) / 3, so with eps = 1/3 the deviation is 1 and xhat = (-1, 0, 1).
        let (y, mean, rstd) = reference::forward(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0], &[0.5, 0.0, 0.0], 1.0 / 3.0);
        for (got, want) in y.iter().chain(&mean).chain(&rstd).zip([-0.5, 0.0, 3.0, 2.0, 1.0]) {
            assert!((got - want).abs() < 1e-12);
        }
    }

    #[test]
    fn backward_is_the_derivative_of_forward() {
        let (x, gamma, beta) = (test_input_f64(21, 1), test_input_f64(7, 2), test_input_f64(7, 3));
        let d_y = test_input_f64(21, 4);
        let eps = f64::from(EPS);
        let (_, mean, rstd) = reference::forward(&x, &gamma, &beta, eps);
        let (d_x, d_gamma, d_beta) = reference::backward(&d_y, &x, &gamma, &mean, &rstd);
        assert!(grad_gap(|x| weighted_sum(&d_y, &reference::forward(x, &gamma, &beta, eps).0), &x, &d_x) < 1e-6);
        assert!(grad_gap(|g| weighted_sum(&d_y, &reference::forward(&x, g, &beta, eps).0), &gamma, &d_gamma) < 1e-6);
        assert!(grad_gap(|b| weighted_sum(&d_y, &reference::forward(&x, &gamma, b, eps).0), &beta, &d_beta) < 1e-6);
    }

    #[test]
    fn the_fast_path_equals_the_reference_at_any_size() {
        for (n, dim) in
            [(0, 5), (1, 1), (3, 7), (5, 16), (4, 33), (17, 48), (65, 769), (301, 64), (3, TASK_ELEMENTS + 1)]
        {
            let x: Vec<f32> = test_input(n * dim, 5).iter().map(|x| 3.0 * x + 1.0).collect();
            let (gamma, beta, d_y) = (test_input(dim, 6), test_input(dim, 7), test_input(n * dim, 8));
            let run = |exec| {
                let (mut y, mut mean, mut rstd) = (vec![f32::NAN; n * dim], vec![f32::NAN; n], vec![f32::NAN; n]);
                forward(exec, &x, &gamma, Some(&beta), EPS, &mut y, &mut mean, &mut rstd);
                let (mut d_x, mut d_gamma, mut d_beta) = (y.clone(), vec![f32::NAN; dim], vec![f32::NAN; dim]);
                backward(exec, &d_y, &x, &gamma, &mean, &rstd, None, &mut d_x, Some(&mut d_gamma), Some(&mut d_beta));
                let mut with_around = vec![f32::NAN; n * dim];
                backward(exec, &d_y, &x, &gamma, &mean, &rstd, Some(&x), &mut with_around, None, None);
                assert!(with_around.iter().zip(d_x.iter().zip(&x)).all(|(sum, (d, x))| *sum == d + x), "{n} x {dim}");
                vec![y, mean, rstd, d_x, d_gamma, d_beta]
            };
            let (x, gamma, beta, d_y) = (wide(&x), wide(&gamma), wide(&beta), wide(&d_y));
            let (y, mean, rstd) = reference::forward(&x, &gamma, &beta, f64::from(EPS));
            let (d_x, d_gamma, d_beta) = reference::backward(&d_y, &x, &gamma, &mean, &rstd);
            // A row of one element has variance 0 and rstd 316, which magnifies the rounding of its inputs.
            let bound = if dim == 1 { 1e-4 } else { 4e-6 };
            check_fast(&format!("{n} x {dim}"), run, &[y, mean, rstd, d_x, d_gamma, d_beta], bound);
        }
    }

    #[test]
    fn beta_and_the_gradients_by_parameters_may_be_left_out() {
        let (x, gamma, d_y) = (test_input(30, 1), test_input(10, 2), test_input(30, 3));
        let exec = Exec::new(1);
        let [mut y, mut with_zero, mut d_x, mut alone] = [(); 4].map(|()| vec![0.0; 30]);
        let (mut mean, mut rstd) = ([0.0; 3], [0.0; 3]);
        forward(exec, &x, &gamma, None, EPS, &mut y, &mut mean, &mut rstd);
        forward(exec, &x, &gamma, Some(&[0.0; 10]), EPS, &mut with_zero, &mut mean, &mut rstd);
        assert_eq!(y, with_zero);
        let mut d_gamma = [0.0; 10];
        backward(exec, &d_y, &x, &gamma, &mean, &rstd, None, &mut d_x, Some(&mut d_gamma), None);
        backward(exec, &d_y, &x, &gamma, &mean, &rstd, None, &mut alone, None, None);
        assert!(d_x == alone && d_gamma.iter().all(|&d| d != 0.0));
    }

    #[test]
    fn a_large_mean_does_not_drown_the_variance() {
        let x: Vec<f32> = (0..64).map(|i| 1000.0 + (i % 2) as f32).collect();
        let (mut y, mut mean, mut rstd) = (vec![0.0; 64], [0.0], [0.0]);
        forward(Exec::new(1), &x, &[1.0; 64], None, 0.0, &mut y, &mut mean, &mut rstd);
        assert!((mean[0], rstd[0]) == (1000.5, 2.0) && y[..2] == [-1.0, 1.0]);
    }

    #[test]
    fn outputs_and_gradients_equal_pytorchs() {
        let golden = Golden::read("layer_norm");
        let x: Vec<f32> = test_input(6 * 19, 1).iter().map(|x| 2.0 * x).collect();
        let (gamma, beta, d_y) = (test_input(19, 2), test_input(19, 3), test_input(6 * 19, 4));
        let exec = Exec::new(2);
        let ([mut y, mut d_x], [mut mean, mut rstd]) = ([[0.0; 6 * 19]; 2], [[0.0; 6]; 2]);
        let [mut d_gamma, mut d_beta] = [[0.0; 19]; 2];
        forward(exec, &x, &gamma, Some(&beta), EPS, &mut y, &mut mean, &mut rstd);
        backward(exec, &d_y, &x, &gamma, &mean, &rstd, None, &mut d_x, Some(&mut d_gamma), Some(&mut d_beta));
        golden.check("y", &y, 1e-6);
        golden.check("d_x", &d_x, 1e-6);
        golden.check("d_gamma", &d_gamma, 1e-6);
        golden.check("d_beta", &d_beta, 1e-6);
    }
}
