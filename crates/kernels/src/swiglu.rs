//! SwiGLU's gate: `y = silu(gate) up` with `silu(z) = z sigmoid(z)`.
//!
//! Backward, with `s = sigmoid(gate)`: `d_up = d_y gate s` and `d_gate = d_y up s (1 + gate (1 - s))`.
//!
//! Shapes: element by element, any length.
//! Source: Shazeer 2020, <https://arxiv.org/abs/2002.05202>, equation 5 (`Swish_1(x W) * (x V)`).

use crate::exec::Exec;
use crate::lanes::{TASK_ELEMENTS, for_each_part};
use crate::math::{exp, sigmoid};
use crate::parallel::for_each_chunk;
use crate::simd::{Kernel, Simd, dispatch};

/// `y = silu(gate) up`.
///
/// Numbers: a few units in the last place in f32. Same bits for any number of threads.
/// Panics: if the lengths differ.
/// Source: see the file's head.
pub fn forward(exec: Exec, gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert!(gate.len() == y.len() && up.len() == y.len(), "SwiGLU of {}, {}, {}", gate.len(), up.len(), y.len());
    for_each_chunk(exec, y, TASK_ELEMENTS, |index, y| {
        let part = index * TASK_ELEMENTS..index * TASK_ELEMENTS + y.len();
        dispatch(exec, Forward { gate: &gate[part.clone()], up: &up[part], y });
    });
}

/// The gradients of [`forward`] by both inputs.
///
/// Numbers: as [`forward`].
/// Panics: if the lengths differ.
/// Source: see the file's head.
pub fn backward(exec: Exec, d_y: &[f32], gate: &[f32], up: &[f32], d_gate: &mut [f32], d_up: &mut [f32]) {
    let lens = [d_y.len(), gate.len(), up.len(), d_gate.len(), d_up.len()];
    assert!(lens.iter().all(|&len| len == d_y.len()), "SwiGLU of {lens:?} elements");
    for_each_part(exec, [d_gate, d_up], [TASK_ELEMENTS; 2], |index, [d_gate, d_up]| {
        let part = index * TASK_ELEMENTS..index * TASK_ELEMENTS + d_gate.len();
        let (d_y, gate, up) = (&d_y[part.clone()], &gate[part.clone()], &up[part]);
        dispatch(exec, Backward { d_y, gate, up, d_gate, d_up });
    });
}

struct Forward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for ((y, &gate), &up) in self.y.iter_mut().zip(self.gate).zip(self.up) {
            *y = gate / (1.0 + exp(simd, -gate)) * up;
        }
    }
}

struct Backward<'a> {
    d_y: &'a [f32],
    gate: &'a [f32],
    up: &'a [f32],
    d_gate: &'a mut [f32],
    d_up: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let outputs = self.d_gate.iter_mut().zip(self.d_up);
        for ((((d_gate, d_up), &d_y), &gate), &up) in outputs.zip(self.d_y).zip(self.gate).zip(self.up) {
            let (s, rest) = sigmoid(simd, gate);
            *d_up = d_y * gate * s;
            *d_gate = d_y * up * s * simd.mul_add(gate, rest, 1.0);
        }
    }
}

/// The formulas in f64, one element at a time.
pub mod reference {
    /// `silu(gate) up`.
    pub fn forward(gate: f64, up: f64) -> f64 {
        gate / (1.0 + (-gate).exp()) * up
    }

    /// `(d_gate, d_up)`.
    pub fn backward(d_y: f64, gate: f64, up: f64) -> (f64, f64) {
        let s = 1.0 / (1.0 + (-gate).exp());
        (d_y * up * s * (1.0 + gate * (1.0 - s)), d_y * gate * s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;
    use crate::testing::{check_fast, grad_gap, test_input, test_input_f64, wide};

    #[test]
    fn the_reference_has_the_worked_out_values() {
        // sigmoid(ln 3) = 3 / 4, so silu(ln 3) = 0.75 ln 3 = 0.8239592.
        assert!((reference::forward(3.0_f64.ln(), 2.0) - 2.0 * 0.823_959_2).abs() < 1e-7);
        assert_eq!(reference::forward(0.0, 5.0), 0.0);
    }

    #[test]
    fn backward_is_the_derivative_of_forward() {
        let gate: Vec<f64> = test_input_f64(31, 1).iter().map(|x| 12.0 * x).collect();
        let (up, d_y) = (test_input_f64(31, 2), test_input_f64(31, 3));
        let loss = |gate: &[f64], up: &[f64]| -> f64 {
            gate.iter().zip(up).zip(&d_y).map(|((&gate, &up), d_y)| d_y * reference::forward(gate, up)).sum()
        };
        let grads = (0..31).map(|i| reference::backward(d_y[i], gate[i], up[i]));
        let (d_gate, d_up): (Vec<f64>, Vec<f64>) = grads.unzip();
        assert!(grad_gap(|gate| loss(gate, &up), &gate, &d_gate) < 1e-6);
        assert!(grad_gap(|up| loss(&gate, up), &up, &d_up) < 1e-6);
    }

    #[test]
    fn the_fast_path_equals_the_reference_at_any_length() {
        for n in [0, 1, 7, 16, 33, TASK_ELEMENTS - 1, TASK_ELEMENTS, 2 * TASK_ELEMENTS + 1] {
            let gate: Vec<f32> = test_input(n, 1).iter().map(|x| 40.0 * x).collect();
            let (up, d_y) = (test_input(n, 2), test_input(n, 3));
            let run = |exec| {
                let [mut y, mut d_gate, mut d_up] = [(); 3].map(|()| vec![f32::NAN; n]);
                forward(exec, &gate, &up, &mut y);
                backward(exec, &d_y, &gate, &up, &mut d_gate, &mut d_up);
                vec![y, d_gate, d_up]
            };
            let (gate, up, d_y) = (wide(&gate), wide(&up), wide(&d_y));
            let y = (0..n).map(|i| reference::forward(gate[i], up[i])).collect();
            let grads = (0..n).map(|i| reference::backward(d_y[i], gate[i], up[i]));
            let (d_gate, d_up) = grads.unzip();
            check_fast(&format!("{n}"), run, &[y, d_gate, d_up], 5e-7);
        }
    }

    #[test]
    fn a_closed_gate_gives_zero_and_an_open_one_passes() {
        let (mut y, mut d_gate, mut d_up) = ([0.0; 3], [0.0; 3], [0.0; 3]);
        let (gate, up) = ([-1e4, 1e4, f32::NAN], [3.0, 3.0, 3.0]);
        forward(Exec::new(1), &gate, &up, &mut y);
        backward(Exec::new(1), &[1.0; 3], &gate, &up, &mut d_gate, &mut d_up);
        assert!(y[..2] == [0.0, 3e4] && d_gate[..2] == [0.0, 3.0] && d_up[..2] == [0.0, 1e4]);
        assert!(y[2].is_nan() && d_gate[2].is_nan() && d_up[2].is_nan());
    }

    #[test]
    fn outputs_and_gradients_equal_pytorchs() {
        let golden = Golden::read("swiglu");
        let gate: Vec<f32> = test_input(101, 1).iter().map(|x| 16.0 * x).collect();
        let (up, d_y) = (test_input(101, 2), test_input(101, 3));
        let [mut y, mut d_gate, mut d_up] = [[0.0; 101]; 3];
        forward(Exec::new(2), &gate, &up, &mut y);
        backward(Exec::new(2), &d_y, &gate, &up, &mut d_gate, &mut d_up);
        golden.check("y", &y, 5e-7);
        golden.check("d_gate", &d_gate, 5e-7);
        golden.check("d_up", &d_up, 5e-7);
    }
}
