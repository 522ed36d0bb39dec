//! Low-rank corrections of a linear layer and the norms of corrected rows: the maths of LoRA and DoRA.
//!
//! `y += s h B^T` with `h = x A^T`. Backward: `d_h = s d_y B`, `d_B = s d_y^T h`, `d_A = d_h^T x`, `d_x = d_h A`.
//!
//! With `g` blocks, outputs and inner dimensions are split into `g` equal parts, and part `i` of the outputs sees part `i`
//! of the inner dimensions alone.
//!
//! Shapes: `x` is `(N, in)`, `A` `(g R, in)`, `B` `(out, R)`, `h` `(N, g R)`, `y` `(N, out)`, all row-major.
//! Sources: Hu et al. 2021, "LoRA", <https://arxiv.org/abs/2106.09685>, section 4.1; Liu et al. 2024, "DoRA",
//! <https://arxiv.org/abs/2402.09353>, equation 5.

use crate::exec::Exec;
use crate::matmul::{Onto, View, ViewMut, matmul};
use crate::parallel::for_each_chunk;

/// Columns that one task of a sum over rows takes.
const COLUMNS: usize = 64;
/// Elements that one task of a pass over rows takes, about.
const ELEMENTS: usize = 1 << 14;

/// The two factors of a low-rank matrix `s B A`.
#[derive(Clone, Copy, Debug)]
pub struct Factors<'a> {
    /// `(g R, in)`.
    pub a: &'a [f32],
    /// `(out, R)`.
    pub b: &'a [f32],
    /// Inner dimensions of one block, `R`.
    pub rank: usize,
    /// `g`, 1 for a plain product.
    pub blocks: usize,
    /// `s`.
    pub scale: f32,
}

/// Sizes of a product of `n` rows.
#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    inputs: usize,
    /// Inner dimensions of all blocks, `g R`.
    inner: usize,
    out: usize,
    /// Outputs of one block.
    part: usize,
}

impl Factors<'_> {
    /// Panics: if the lengths do not fit together.
    fn sizes(&self, n: usize) -> Sizes {
        let Self { a, b, rank, blocks, .. } = *self;
        let inner = rank * blocks;
        let fits = inner > 0 && a.len().is_multiple_of(inner) && b.len().is_multiple_of(inner);
        assert!(fits, "{} and {} values of factors of rank {rank} in {blocks} blocks", a.len(), b.len());
        let out = b.len() / rank;
        Sizes { n, inputs: a.len() / inner, inner, out, part: out / blocks }
    }

    /// Sizes of a product with `results` results.
    ///
    /// Panics: if the lengths do not fit together.
    fn sizes_of(&self, results: usize) -> Sizes {
        let sizes = self.sizes(0);
        assert!(sizes.out > 0 && results.is_multiple_of(sizes.out), "{results} results in rows of {}", sizes.out);
        Sizes { n: results / sizes.out, ..sizes }
    }

    /// `B` of one block, `(part, R)`.
    fn b_of(&self, block: usize, sizes: Sizes) -> View<'_> {
        View::new(&self.b[block * sizes.part * self.rank..][..sizes.part * self.rank], sizes.part, self.rank)
    }
}

/// `h = x A^T`, then `y += s h B^T`.
///
/// Shapes: `inner` is `h`, overwritten; `y` is added to.
/// Numbers: f32 sums. Same bits for any number of threads. With `B = 0`, `y` keeps its values.
/// Panics: if the lengths do not fit together.
/// Source: see the file's head.
pub fn forward(exec: Exec, factors: &Factors<'_>, x: &[f32], inner: &mut [f32], y: &mut [f32]) {
    let sizes @ Sizes { n, inputs, inner: width, out, part } = factors.sizes_of(y.len());
    let a = View::new(factors.a, width, inputs).t();
    matmul(exec, Onto::Overwrite, 1.0, View::new(x, n, inputs), a, ViewMut::new(inner, n, width));
    for block in 0..factors.blocks {
        let (h, b) = (block_of(inner, block, n, factors.rank, width), factors.b_of(block, sizes).t());
        let y = block_of_mut(y, block, n, part, out);
        matmul(exec, Onto::Add, factors.scale, h, b, y);
    }
}

/// Columns of one block of a row-major matrix.
fn block_of(x: &[f32], block: usize, rows: usize, part: usize, width: usize) -> View<'_> {
    View::strided(x.get(block * part..).unwrap_or_default(), rows, part, width)
}

/// [`block_of`] to be written.
fn block_of_mut(x: &mut [f32], block: usize, rows: usize, part: usize, width: usize) -> ViewMut<'_> {
    ViewMut::strided(x.get_mut(block * part..).unwrap_or_default(), rows, part, width)
}

/// `d_h = s d_y B`, overwritten.
///
/// Numbers, Panics, Source: as [`forward`].
pub fn backward_inner(exec: Exec, factors: &Factors<'_>, d_y: &[f32], d_inner: &mut [f32]) {
    let sizes @ Sizes { n, inner, out, part, .. } = factors.sizes_of(d_y.len());
    assert_eq!(d_inner.len(), n * inner, "{n} rows of {inner}");
    for block in 0..factors.blocks {
        let d_y = block_of(d_y, block, n, part, out);
        let d_h = block_of_mut(d_inner, block, n, factors.rank, inner);
        matmul(exec, Onto::Overwrite, factors.scale, d_y, factors.b_of(block, sizes), d_h);
    }
}

/// `d_B = s d_y^T h`, overwritten.
///
/// Numbers, Panics, Source: as [`forward`].
pub fn backward_b(exec: Exec, factors: &Factors<'_>, d_y: &[f32], inner: &[f32], d_b: &mut [f32]) {
    let Sizes { n, inner: width, out, part, .. } = factors.sizes_of(d_y.len());
    assert_eq!(d_b.len(), factors.b.len(), "values of B");
    for (block, d_b) in d_b.chunks_mut(part * factors.rank).enumerate() {
        let d_y = block_of(d_y, block, n, part, out).t();
        let h = block_of(inner, block, n, factors.rank, width);
        matmul(exec, Onto::Overwrite, factors.scale, d_y, h, ViewMut::new(d_b, part, factors.rank));
    }
}

/// `d_A = d_h^T x`, overwritten; `inner` is the number of inner dimensions of all blocks.
///
/// Numbers, Panics, Source: as [`forward`].
pub fn backward_a(exec: Exec, d_inner: &[f32], x: &[f32], inner: usize, d_a: &mut [f32]) {
    crate::linear::backward_weight(exec, d_inner, x, inner, d_a);
}

/// `d_x = d_h A`, or added to what is there.
///
/// Numbers, Panics, Source: as [`forward`].
pub fn backward_input(exec: Exec, onto: Onto, factors: &Factors<'_>, d_inner: &[f32], d_x: &mut [f32]) {
    let Sizes { inputs, inner, .. } = factors.sizes(0);
    let n = d_inner.len() / inner;
    let a = View::new(factors.a, inner, inputs);
    matmul(exec, onto, 1.0, View::new(d_inner, n, inner), a, ViewMut::new(d_x, n, inputs));
}

/// `norm_o = ||W_o + s B_o A||` for every row, without forming `B A`: the square is
/// `||W_o||^2 + 2 s B_o (A W_o^T) + s^2 B_o (A A^T) B_o^T`.
///
/// Shapes: `squares` holds `||W_o||^2`, `(out)`; `products` is `A W^T`, `(g R, out)`; `norms` is `(out)`, overwritten.
/// Numbers: products in f32, what belongs to a row in f64.
/// Panics: if the lengths do not fit together.
/// Source: Liu et al. 2024, <https://arxiv.org/abs/2402.09353>, equation 5.
pub fn row_norms(exec: Exec, factors: &Factors<'_>, squares: &[f64], products: &[f32], norms: &mut [f32]) {
    let Sizes { inputs, inner, out, part, .. } = factors.sizes(0);
    assert!(
        squares.len() == out && norms.len() == out && products.len() == inner * out,
        "norms of {out} rows from {} squares and {} products",
        squares.len(),
        products.len()
    );
    let mut gram = vec![0.0; inner * inner];
    let a = View::new(factors.a, inner, inputs);
    matmul(exec, Onto::Overwrite, 1.0, a, a.t(), ViewMut::new(&mut gram, inner, inner));
    let (rank, scale) = (factors.rank, f64::from(factors.scale));
    for_each_chunk(exec, norms, COLUMNS, |task, norms| {
        for (i, norm) in norms.iter_mut().enumerate() {
            let o = task * COLUMNS + i;
            let (b, first) = (&factors.b[o * rank..][..rank], o / part * rank);
            let (mut linear, mut quadratic) = (0.0, 0.0);
            for (r, &b_r) in b.iter().enumerate() {
                let row = &gram[(first + r) * inner + first..][..rank];
                let with: f64 = row.iter().zip(b).map(|(g, b)| f64::from(*g) * f64::from(*b)).sum();
                linear += f64::from(b_r) * f64::from(products[(first + r) * out + o]);
                quadratic += f64::from(b_r) * with;
            }
            *norm = (squares[o] + scale * (2.0 * linear + scale * quadratic)).max(0.0).sqrt() as f32;
        }
    });
}

/// `||W_o||^2` of every row of a matrix with so many columns.
///
/// Numbers: f64 sums in order.
pub fn row_squares(exec: Exec, weight: &[f32], cols: usize, squares: &mut [f64]) {
    assert_eq!(weight.len(), squares.len() * cols, "{} rows of {cols}", squares.len());
    for_each_chunk(exec, squares, COLUMNS, |task, squares| {
        for (square, row) in squares.iter_mut().zip(weight[task * COLUMNS * cols..].chunks_exact(cols.max(1))) {
            *square = row.iter().map(|&w| f64::from(w) * f64::from(w)).sum();
        }
    });
}

/// `y_o = c_o x_o + b_o` for every row.
///
/// Shapes: `x` and `y` are `(N, out)`, `factors` and `bias` `(out)`; `y` is overwritten.
/// Panics: if the lengths do not fit together.
/// Source: see the file's head.
pub fn rescale(exec: Exec, x: &[f32], factors: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let out = factors.len();
    assert!(x.len() == y.len() && bias.is_none_or(|bias| bias.len() == out), "{} values, {}", x.len(), y.len());
    let rows = (ELEMENTS / out.max(1)).max(1);
    for_each_chunk(exec, y, (rows * out).max(1), |task, y| {
        for (y, x) in y.chunks_exact_mut(out).zip(x[task * rows * out..].chunks_exact(out)) {
            match bias {
                Some(bias) => {
                    let terms = x.iter().zip(factors).zip(bias);
                    y.iter_mut().zip(terms).for_each(|(y, ((x, c), b))| *y = x * c + b);
                }
                None => y.iter_mut().zip(x.iter().zip(factors)).for_each(|(y, (x, c))| *y = x * c),
            }
        }
    });
}

/// `x_o *= c_o` for every row.
///
/// Panics: if `x` does not hold whole rows.
pub fn rescale_in_place(exec: Exec, x: &mut [f32], factors: &[f32]) {
    let out = factors.len();
    assert!(out > 0 && x.len().is_multiple_of(out), "{} values in rows of {out}", x.len());
    for_each_chunk(exec, x, (ELEMENTS / out).max(1) * out, |_, x| {
        for x in x.chunks_exact_mut(out) {
            x.iter_mut().zip(factors).for_each(|(x, c)| *x *= c);
        }
    });
}

/// `d_m_o = sum over rows of d_y_o x_o / norm_o`, overwritten.
///
/// Numbers: f32 sums in the order of the rows. Same bits for any number of threads.
/// Panics: if the lengths do not fit together.
/// Source: see the file's head.
pub fn backward_magnitude(exec: Exec, d_y: &[f32], x: &[f32], norms: &[f32], d_magnitude: &mut [f32]) {
    let out = norms.len();
    assert!(d_y.len() == x.len() && d_magnitude.len() == out && out > 0 && x.len().is_multiple_of(out), "{out} rows");
    for_each_chunk(exec, d_magnitude, COLUMNS, |task, d_m| {
        d_m.fill(0.0);
        let (first, count) = (task * COLUMNS, d_m.len());
        for (d_y, x) in d_y.chunks_exact(out).zip(x.chunks_exact(out)) {
            let terms = d_y[first..][..count].iter().zip(&x[first..][..count]);
            d_m.iter_mut().zip(terms).for_each(|(sum, (d, x))| *sum += d * x);
        }
        d_m.iter_mut().zip(&norms[first..]).for_each(|(sum, norm)| *sum /= norm);
    });
}

/// The formulas in f64.
pub mod reference {
    /// Sizes and factors of a product.
    #[derive(Clone, Copy, Debug)]
    pub struct Product<'a> {
        /// As in [`super::Factors`].
        pub a: &'a [f64],
        /// As in [`super::Factors`].
        pub b: &'a [f64],
        /// As in [`super::Factors`].
        pub rank: usize,
        /// As in [`super::Factors`].
        pub blocks: usize,
        /// As in [`super::Factors`].
        pub scale: f64,
    }

    impl Product<'_> {
        /// `s B A`, `(out, in)`, with the zeros between blocks.
        pub fn matrix(&self) -> Vec<f64> {
            let (inputs, out) = (self.a.len() / (self.rank * self.blocks), self.b.len() / self.rank);
            let part = out / self.blocks;
            let element = |o: usize, i: usize| {
                let of = |r: usize| self.b[o * self.rank + r] * self.a[(o / part * self.rank + r) * inputs + i];
                self.scale * (0..self.rank).map(of).sum::<f64>()
            };
            (0..out * inputs).map(|at| element(at / inputs, at % inputs)).collect()
        }

        /// `y + s (x A^T) B^T`.
        pub fn forward(&self, x: &[f64], y: &[f64]) -> Vec<f64> {
            let zeros = vec![0.0; self.b.len() / self.rank];
            let product = crate::linear::reference::forward(x, &self.matrix(), &zeros);
            y.iter().zip(product).map(|(y, p)| y + p).collect()
        }

        /// `(d_x, d_A, d_B)`.
        pub fn backward(&self, d_y: &[f64], x: &[f64]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
            let out = self.b.len() / self.rank;
            let (inputs, part) = (self.a.len() / (self.rank * self.blocks), out / self.blocks);
            let (d_x, d_m, _) = crate::linear::reference::backward(d_y, x, &self.matrix(), out);
            let (mut d_a, mut d_b) = (vec![0.0; self.a.len()], vec![0.0; self.b.len()]);
            for (at, d) in d_m.iter().enumerate() {
                let (o, i) = (at / inputs, at % inputs);
                for r in 0..self.rank {
                    let row = (o / part * self.rank + r) * inputs + i;
                    d_a[row] += self.scale * d * self.b[o * self.rank + r];
                    d_b[o * self.rank + r] += self.scale * d * self.a[row];
                }
            }
            (d_x, d_a, d_b)
        }

        /// `||W_o + s B_o A||` of every row.
        pub fn norms(&self, weight: &[f64]) -> Vec<f64> {
            let inputs = self.a.len() / (self.rank * self.blocks);
            let sum: Vec<f64> = weight.iter().zip(self.matrix()).map(|(w, d)| w + d).collect();
            sum.chunks(inputs).map(|row| row.iter().map(|w| w * w).sum::<f64>().sqrt()).collect()
        }
    }

    /// `m_o / norm_o x_o + b_o`.
    pub fn rescale(x: &[f64], magnitude: &[f64], norms: &[f64], bias: &[f64]) -> Vec<f64> {
        let of = |(i, x): (usize, &f64)| {
            let o = i % norms.len();
            magnitude[o] / norms[o] * x + bias[o]
        };
        x.iter().enumerate().map(of).collect()
    }

    /// `(d_x, d_magnitude)`; the norms are constants.
    pub fn rescale_backward(d_y: &[f64], x: &[f64], magnitude: &[f64], norms: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let out = norms.len();
        let mut d_magnitude = vec![0.0; out];
        for (i, d) in d_y.iter().enumerate() {
            d_magnitude[i % out] += d * x[i] / norms[i % out];
        }
        (d_y.iter().enumerate().map(|(i, d)| d * magnitude[i % out] / norms[i % out]).collect(), d_magnitude)
    }
}

#[cfg(test)]
mod tests {
    use super::reference::Product;
    use super::*;
    use crate::testing::{check_fast, grad_gap, test_input, weighted_sum, wide};

    #[test]
    fn the_reference_has_the_worked_out_values() {
        // B A = [3; 4] [1 2] = [3 6; 4 8], twice that on [1 1] is [18 24]; on top of [1 1].
        let product = Product { a: &[1.0, 2.0], b: &[3.0, 4.0], rank: 1, blocks: 1, scale: 2.0 };
        assert_eq!(product.forward(&[1.0, 1.0], &[1.0, 1.0]), [19.0, 25.0]);
        // Two blocks: the first output sees the first row of A alone, the second the second.
        let product = Product { a: &[1.0, 2.0, 5.0, 7.0], b: &[3.0, 4.0], rank: 1, blocks: 2, scale: 1.0 };
        assert_eq!(product.matrix(), [3.0, 6.0, 20.0, 28.0]);
        // [3 4] has the norm 5; with a magnitude of 10, an output of 2 becomes 4, and 5 with the bias.
        let still = Product { a: &[0.0, 0.0], b: &[0.0], rank: 1, blocks: 1, scale: 1.0 };
        assert_eq!(still.norms(&[3.0, 4.0]), [5.0]);
        assert_eq!(reference::rescale(&[2.0], &[10.0], &[5.0], &[1.0]), [5.0]);
    }

    #[test]
    fn backward_is_the_derivative_of_forward() {
        for (n, inputs, out, rank, blocks) in [(3, 4, 6, 2, 1), (2, 5, 6, 2, 3)] {
            let (x, y) = (wide(&test_input(n * inputs, 1)), wide(&test_input(n * out, 5)));
            let (a, b) = (wide(&test_input(rank * blocks * inputs, 2)), wide(&test_input(out * rank, 3)));
            let d_y = wide(&test_input(n * out, 4));
            let loss = |x: &[f64], a: &[f64], b: &[f64]| {
                weighted_sum(&Product { a, b, rank, blocks, scale: 0.7 }.forward(x, &y), &d_y)
            };
            let (d_x, d_a, d_b) = Product { a: &a, b: &b, rank, blocks, scale: 0.7 }.backward(&d_y, &x);
            assert!(grad_gap(|x| loss(x, &a, &b), &x, &d_x) < 1e-6);
            assert!(grad_gap(|a| loss(&x, a, &b), &a, &d_a) < 1e-6);
            assert!(grad_gap(|b| loss(&x, &a, b), &b, &d_b) < 1e-6);
        }
    }

    #[test]
    fn backward_of_rescaling_is_the_derivative_of_forward() {
        let (n, out) = (3, 4);
        let (x, m, bias) = (wide(&test_input(n * out, 1)), wide(&test_input(out, 2)), wide(&test_input(out, 3)));
        let norms: Vec<f64> = test_input(out, 4).iter().map(|x| f64::from(*x) + 1.0).collect();
        let d_y = wide(&test_input(n * out, 5));
        let loss = |x: &[f64], m: &[f64]| weighted_sum(&reference::rescale(x, m, &norms, &bias), &d_y);
        let (d_x, d_m) = reference::rescale_backward(&d_y, &x, &m, &norms);
        assert!(grad_gap(|x| loss(x, &m), &x, &d_x) < 1e-6);
        assert!(grad_gap(|m| loss(&x, m), &m, &d_m) < 1e-6);
    }

    #[test]
    fn the_fast_path_equals_the_reference() {
        for (n, inputs, out, rank, blocks) in
            [(1, 1, 1, 1, 1), (5, 7, 9, 2, 1), (65, 33, 132, 8, 3), (64, 130, 96, 16, 3), (17, 65, 257, 5, 1)]
        {
            let (x, w) = (test_input(n * inputs, 1), test_input(out * inputs, 6));
            let (a, b) = (test_input(rank * blocks * inputs, 2), test_input(out * rank, 3));
            let (base, d) = (test_input(n * out, 5), test_input(n * out, 4));
            let factors = Factors { a: &a, b: &b, rank, blocks, scale: 0.7 };
            let inner = rank * blocks;
            let run = |exec| {
                let (mut y, mut h, mut d_h) = (base.clone(), vec![f32::NAN; n * inner], vec![f32::NAN; n * inner]);
                let (mut d_x, mut d_a) = (vec![f32::NAN; n * inputs], vec![f32::NAN; a.len()]);
                let (mut d_b, mut norms) = (vec![f32::NAN; b.len()], vec![f32::NAN; out]);
                forward(exec, &factors, &x, &mut h, &mut y);
                backward_inner(exec, &factors, &d, &mut d_h);
                backward_b(exec, &factors, &d, &h, &mut d_b);
                backward_a(exec, &d_h, &x, inner, &mut d_a);
                backward_input(exec, Onto::Overwrite, &factors, &d_h, &mut d_x);
                let (mut products, mut squares) = (vec![f32::NAN; inner * out], vec![f64::NAN; out]);
                crate::linear::forward(exec, &a, &w, None, out, &mut products);
                row_squares(exec, &w, inputs, &mut squares);
                row_norms(exec, &factors, &squares, &products, &mut norms);
                vec![y, d_x, d_a, d_b, norms]
            };
            let (wide_a, wide_b) = (wide(&a), wide(&b));
            let product = Product { a: &wide_a, b: &wide_b, rank, blocks, scale: f64::from(0.7_f32) };
            let (d_x, d_a, d_b) = product.backward(&wide(&d), &wide(&x));
            let expected = [product.forward(&wide(&x), &wide(&base)), d_x, d_a, d_b, product.norms(&wide(&w))];
            // Two products one after the other.
            check_fast("low rank", run, &expected, 5e-6);
        }
    }

    #[test]
    fn fast_rescaling_equals_the_reference() {
        for (n, out) in [(1, 1), (5, 7), (65, 130), (700, 33)] {
            let (x, m, bias) = (test_input(n * out, 1), test_input(out, 2), test_input(out, 3));
            let (norms, d): (Vec<f32>, _) =
                (test_input(out, 4).iter().map(|x| x + 1.0).collect(), test_input(n * out, 5));
            let factors: Vec<f32> = m.iter().zip(&norms).map(|(m, norm)| m / norm).collect();
            let run = |exec| {
                let (mut y, mut d_x, mut d_m) = (vec![f32::NAN; n * out], d.clone(), vec![f32::NAN; out]);
                rescale(exec, &x, &factors, Some(&bias), &mut y);
                rescale_in_place(exec, &mut d_x, &factors);
                backward_magnitude(exec, &d, &x, &norms, &mut d_m);
                vec![y, d_x, d_m]
            };
            let (wide_m, wide_norms) = (wide(&m), wide(&norms));
            let (d_x, d_m) = reference::rescale_backward(&wide(&d), &wide(&x), &wide_m, &wide_norms);
            let y = reference::rescale(&wide(&x), &wide_m, &wide_norms, &wide(&bias));
            check_fast("rescaling", run, &[y, d_x, d_m], 2e-6);
        }
    }

    #[test]
    fn a_factor_of_zeros_changes_nothing() {
        let (x, a, base) = (test_input(6 * 5, 1), test_input(4 * 5, 2), test_input(6 * 9, 3));
        let factors = Factors { a: &a, b: &[0.0; 36], rank: 4, blocks: 1, scale: 3.0 };
        let (mut y, mut inner) = (base.clone(), [0.0; 24]);
        forward(Exec::new(2), &factors, &x, &mut inner, &mut y);
        assert_eq!(y, base);
    }
}
