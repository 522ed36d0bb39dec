//! A product of rounded activations and integer weights, in whichever orientation.

use super::{Int8Matrix, plain};
use crate::Exec;

/// `y_ij = s_j * sum over runs of d * (sum over p of q_ip w_pj) + b_j`, with `q` and `d` of `x` times `fold`.
pub(super) struct Product<'a> {
    /// `(n, k)`.
    pub(super) x: &'a [f32],
    pub(super) n: usize,
    pub(super) weight: &'a Int8Matrix,
    /// Whether the shared dimension is that of the weight's rows.
    pub(super) is_backward: bool,
    /// `b`, if there is one.
    pub(super) bias: Option<&'a [f32]>,
    /// `(n, width)`.
    pub(super) y: &'a mut [f32],
}

impl<'a> Product<'a> {
    /// `y = x W^T`. There are rows, and the lengths fit.
    pub(super) fn new(x: &'a [f32], n: usize, weight: &'a Int8Matrix, y: &'a mut [f32]) -> Self {
        Self { x, n, weight, is_backward: false, bias: None, y }
    }

    pub(super) fn with_bias(self, bias: Option<&'a [f32]>) -> Self {
        Self { bias, ..self }
    }

    /// `y = x W` instead.
    pub(super) fn backward(self) -> Self {
        Self { is_backward: true, ..self }
    }

    /// The shared dimension.
    pub(super) fn steps(&self) -> usize {
        if self.is_backward { self.weight.rows() } else { self.weight.cols }
    }

    /// Results of a row.
    pub(super) fn width(&self) -> usize {
        if self.is_backward { self.weight.cols } else { self.weight.rows() }
    }

    /// What each number of a row of `x` is multiplied with before it is rounded.
    pub(super) fn fold(&self) -> Option<&'a [f32]> {
        if self.is_backward { Some(&self.weight.scales) } else { None }
    }

    /// What each result of a row is multiplied with.
    pub(super) fn scales(&self) -> Option<&'a [f32]> {
        if self.is_backward { None } else { Some(&self.weight.scales) }
    }

    pub(super) fn run(self, exec: Exec) {
        #[cfg(target_arch = "x86_64")]
        if super::vnni::is_there(exec) {
            return super::vnni::run(exec, self);
        }
        plain::run(exec, self);
    }
}
