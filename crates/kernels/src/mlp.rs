//! Two linear layers with a GELU between: `y = gelu(x W1^T + b1) W2^T + b2`.
//!
//! The activation is taken from each block of the first product while the cache has it, and formed again in the backward
//! pass, where its slope is formed anyway: `u = x W1^T + b1` alone is kept.
//!
//! Backward: `d_u = (d_y W2) gelu'(u)`, `d_W2 = d_y^T gelu(u)`, `d_x = d_u W1`, `d_W1 = d_u^T x`; biases as in `linear.rs`.
//!
//! Shapes: `x` and `y` are `(N, D)` and `(N, out)`, `u` `(N, F)`, `W1` `(F, D)`, `W2` `(out, F)`.
//! Source: Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, equation 2, with the activation of Radford et al. 2018.
#![expect(unsafe_code, reason = "each block of a product goes on to the other buffers that have its shape")]

use crate::exec::Exec;
use crate::gelu::{self, Gelu};
use crate::linear::{self, BiasSums};
use crate::matmul::{After, Onto, Product, View, ViewMut, matmuls};
use crate::packed::linear::are_few;
use crate::parallel::SharedMut;
use std::ops::Range;

/// One of the layers: weight and bias.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// `(out, in)`.
    pub weight: &'a [f32],
    /// `(out)`.
    pub bias: &'a [f32],
}

impl Layer<'_> {
    fn outputs(self) -> usize {
        self.bias.len()
    }

    fn inputs(self) -> usize {
        assert!(!self.bias.is_empty() && self.weight.len().is_multiple_of(self.bias.len()), "a layer without outputs");
        self.weight.len() / self.bias.len()
    }

    fn view(&self) -> View<'_> {
        View::new(self.weight, self.outputs(), self.inputs())
    }
}

/// The gradients of one of the layers, in the same shapes; overwritten.
#[derive(Debug)]
pub struct LayerGradient<'a> {
    /// By the weight.
    pub weight: &'a mut [f32],
    /// By the bias.
    pub bias: &'a mut [f32],
}

/// `u`, the activation `h = gelu(u)` and `y`.
///
/// Numbers: those of the two layers and the activation one after the other, bit for bit.
/// Law: the same bits for any number of threads.
/// Panics: if the lengths do not fit together.
/// Source: see the file's head.
pub fn forward(exec: Exec, form: Gelu, x: &[f32], layers: [Layer<'_>; 2], u: &mut [f32], h: &mut [f32], y: &mut [f32]) {
    let [first, second] = layers;
    let (d, f) = (first.inputs(), first.outputs());
    let n = x.len() / d;
    assert!(second.inputs() == f && u.len() == n * f && h.len() == n * f, "{} of {n} rows of {f}", u.len());
    if are_few(exec, n) {
        linear::forward(exec, x, first.weight, Some(first.bias), f, u);
        gelu::forward(exec, form, u, h);
    } else {
        let (inner, active) = (SharedMut::new(u), SharedMut::new(h));
        let activate = |rows: Range<usize>, cols: Range<usize>| {
            let parts = rows.map(|row| {
                // SAFETY: a block of the product is one task's, here as there.
                let [u, h] = [&inner, &active].map(|x| unsafe { x.slice(row * f + cols.start, cols.len()) });
                (&*u, h)
            });
            gelu::forward_rows(exec, form, parts);
        };
        // SAFETY: the tasks of the product alone touch `u`, each its own block.
        let c = unsafe { ViewMut::shared(&inner, 0, n, f, f) };
        let (row, after) = (Some(first.bias), Some(After::new(&activate)));
        let (onto, scale, a, b) = (Onto::Overwrite, 1.0, View::new(x, n, d), first.view().t());
        matmuls(exec, [Product { onto, row, scale, a, b, c, after }]);
    }
    linear::forward(exec, h, second.weight, Some(second.bias), second.outputs(), y);
}

/// Buffers of `(N, F)` that the backward pass writes before it reads them.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// For the gradient by `u`.
    pub d_u: &'a mut [f32],
    /// For the activation.
    pub h: &'a mut [f32],
}

/// All gradients, from the input and the `u` of [`forward`].
///
/// Numbers, Law, Panics, Source: as [`forward`].
pub fn backward(
    exec: Exec,
    form: Gelu,
    d_y: &[f32],
    (x, u): (&[f32], &[f32]),
    layers: [Layer<'_>; 2],
    scratch: Scratch<'_>,
    d_x: &mut [f32],
    d_layers: [LayerGradient<'_>; 2],
) {
    let ([first, second], [d_first, d_second]) = (layers, d_layers);
    let (d, f, out) = (first.inputs(), first.outputs(), second.outputs());
    let n = x.len() / d;
    let Scratch { d_u, h } = scratch;
    assert!([u.len(), d_u.len(), h.len()].iter().all(|&len| len == n * f), "{} of {n} rows of {f}", u.len());
    {
        let (slopes, active) = (SharedMut::new(&mut *d_u), SharedMut::new(&mut *h));
        let activate = |rows: Range<usize>, cols: Range<usize>| {
            let parts = rows.map(|row| {
                let at = row * f + cols.start;
                // SAFETY: a block of the product is one task's, here as there.
                (&u[at..at + cols.len()], [&slopes, &active].map(|x| unsafe { x.slice(at, cols.len()) }))
            });
            gelu::backward_rows(exec, form, parts);
        };
        // SAFETY: the tasks of the product alone touch `d_u`, each its own block.
        let c = unsafe { ViewMut::shared(&slopes, 0, n, f, f) };
        let (a, b, after) = (View::new(d_y, n, out), second.view(), Some(After::new(&activate)));
        matmuls(exec, [Product { onto: Onto::Overwrite, row: None, scale: 1.0, a, b, c, after }]);
    }
    let (d_u_view, d_y_view) = (View::new(d_u, n, f), View::new(d_y, n, out));
    let sums = [BiasSums::new(exec, d_u_view, d_first.bias), BiasSums::new(exec, d_y_view, d_second.bias)];
    let [add_first, add_second] =
        sums.each_ref().map(|sums| |rows: Range<usize>, cols: Range<usize>| sums.beside(rows, cols));
    let product = |a, b, c, after| Product { onto: Onto::Overwrite, row: None, scale: 1.0, a, b, c, after };
    let products = [
        product(d_u_view, first.view(), ViewMut::new(d_x, n, d), None),
        product(d_u_view.t(), View::new(x, n, d), ViewMut::new(d_first.weight, f, d), Some(After::new(&add_first))),
        product(d_y_view.t(), View::new(h, n, f), ViewMut::new(d_second.weight, out, f), Some(After::new(&add_second))),
    ];
    matmuls(exec, products);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::{Isa, Precision};
    use crate::testing::test_input;

    /// `[y, d_x, d_W1, d_b1, d_W2, d_b2]` by the layers and the activation one after the other.
    fn apart(exec: Exec, form: Gelu, x: &[f32], d_y: &[f32], layers: [Layer<'_>; 2]) -> Vec<Vec<f32>> {
        let [first, second] = layers;
        let (d, f, out) = (first.inputs(), first.outputs(), second.outputs());
        let n = x.len() / d;
        let nan = |len: usize| vec![f32::NAN; len];
        let (mut u, mut h, mut y) = (nan(n * f), nan(n * f), nan(n * out));
        linear::forward(exec, x, first.weight, Some(first.bias), f, &mut u);
        gelu::forward(exec, form, &u, &mut h);
        linear::forward(exec, &h, second.weight, Some(second.bias), out, &mut y);
        let (mut d_h, mut d_u, mut d_x) = (nan(n * f), nan(n * f), nan(n * d));
        let (mut d_w1, mut d_b1, mut d_w2, mut d_b2) = (nan(f * d), nan(f), nan(out * f), nan(out));
        let onto = Onto::Overwrite;
        linear::backward(exec, d_y, (&h, second.weight), out, (onto, &mut d_h), &mut d_w2, Some(&mut d_b2));
        gelu::backward(exec, form, &d_h, &u, &mut d_u);
        linear::backward(exec, &d_u, (x, first.weight), f, (onto, &mut d_x), &mut d_w1, Some(&mut d_b1));
        vec![y, d_x, d_w1, d_b1, d_w2, d_b2]
    }

    fn together(exec: Exec, form: Gelu, x: &[f32], d_y: &[f32], layers: [Layer<'_>; 2]) -> Vec<Vec<f32>> {
        let [first, second] = layers;
        let (d, f, out) = (first.inputs(), first.outputs(), second.outputs());
        let n = x.len() / d;
        let nan = |len: usize| vec![f32::NAN; len];
        let (mut u, mut h, mut y) = (nan(n * f), nan(n * f), nan(n * out));
        forward(exec, form, x, layers, &mut u, &mut h, &mut y);
        let (mut d_u, mut d_x) = (nan(n * f), nan(n * d));
        h.fill(f32::NAN);
        let (mut d_w1, mut d_b1, mut d_w2, mut d_b2) = (nan(f * d), nan(f), nan(out * f), nan(out));
        let gradients = [
            LayerGradient { weight: &mut d_w1, bias: &mut d_b1 },
            LayerGradient { weight: &mut d_w2, bias: &mut d_b2 },
        ];
        let scratch = Scratch { d_u: &mut d_u, h: &mut h };
        backward(exec, form, d_y, (x, &u), layers, scratch, &mut d_x, gradients);
        vec![y, d_x, d_w1, d_b1, d_w2, d_b2]
    }

    #[test]
    fn it_has_the_bits_of_its_parts_one_after_the_other() {
        for (n, d, f, out) in [(1, 3, 5, 2), (7, 16, 64, 16), (65, 33, 130, 40), (200, 24, 96, 24), (0, 4, 8, 4)] {
            let (x, d_y) = (test_input(n * d, 1), test_input(n * out, 2));
            let (w1, b1) = (test_input(f * d, 3).iter().map(|x| 4.0 * x).collect::<Vec<_>>(), test_input(f, 4));
            let (w2, b2) = (test_input(out * f, 5), test_input(out, 6));
            let layers = [Layer { weight: &w1, bias: &b1 }, Layer { weight: &w2, bias: &b2 }];
            let sets = Isa::available().into_iter().map(|isa| (isa, Precision::F32));
            for (isa, precision) in sets.chain([(Isa::detect(), Precision::Mixed)]) {
                for form in [Gelu::Tanh, Gelu::Erf] {
                    let exec = |threads| Exec::new(threads).with_isa(isa).with_precision(precision);
                    let want = apart(exec(2), form, &x, &d_y, layers);
                    for threads in [1, 2, 3] {
                        let found = together(exec(threads), form, &x, &d_y, layers);
                        assert!(
                            found == want,
                            "{n} {d} {f} {out}, {isa:?}, {precision:?}, {form:?}, {threads} threads"
                        );
                    }
                }
            }
        }
    }
}
