//! GELU: `y = x Phi(x)`, with the normal distribution's `Phi` or the tanh approximation that GPT-2 uses.
//!
//! Erf: `Phi(x) = (1 + erf(x / sqrt 2)) / 2`. Tanh: `Phi(x) = (1 + tanh u) / 2 = 1 / (1 + e^(-2 u))` with
//! `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
//!
//! Shapes: element by element, any length.
//! Source: Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>.

use crate::exec::Exec;
use crate::lanes::TASK_ELEMENTS;
use crate::math::{erf, exp};
use crate::parallel::for_each_chunk;
use crate::simd::{Kernel, Simd, dispatch};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// Coefficient of the cubic term of the tanh form.
const CUBIC: f64 = 0.044_715;
/// `sqrt(2 / pi)`.
const SQRT_2_OVER_PI: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
/// `1 / sqrt(2 pi)`, the normal density at 0.
const DENSITY_AT_0: f64 = SQRT_2_OVER_PI / 2.0;

/// Which form of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// The tanh approximation (`gelu_new` and `gelu_pytorch_tanh` in a Hugging Face config).
    Tanh,
    /// The definition (`gelu` in a Hugging Face config).
    Erf,
}

/// `y = gelu(x)`.
///
/// Numbers: a few units in the last place of `x` in f32. Same bits for any number of threads.
/// Panics: if the lengths differ.
/// Source: see the file's head.
pub fn forward(exec: Exec, form: Gelu, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "gelu of {} into {} elements", x.len(), y.len());
    for_each_chunk(exec, y, TASK_ELEMENTS, |index, y| {
        let x = &x[index * TASK_ELEMENTS..][..y.len()];
        forward_rows(exec, form, std::iter::once((x, y)));
    });
}

/// `d_x = d_y gelu'(x)`, from the input of [`forward`].
///
/// Numbers: as [`forward`].
/// Panics: if the lengths differ.
/// Source: see the file's head.
pub fn backward(exec: Exec, form: Gelu, d_y: &[f32], x: &[f32], d_x: &mut [f32]) {
    assert!(d_y.len() == x.len() && x.len() == d_x.len(), "gelu of {}, {}, {}", d_y.len(), x.len(), d_x.len());
    for_each_chunk(exec, d_x, TASK_ELEMENTS, |index, d_x| {
        let part = index * TASK_ELEMENTS..index * TASK_ELEMENTS + d_x.len();
        dispatch(exec, Backward { form, d_y: &d_y[part.clone()], x: &x[part], d_x });
    });
}

/// [`forward`] of rows `(x, y)` on the calling thread.
pub(crate) fn forward_rows<'a>(exec: Exec, form: Gelu, rows: impl Iterator<Item = (&'a [f32], &'a mut [f32])>) {
    dispatch(exec, Forward { form, rows });
}

/// `d -> d gelu'(x)` in place and `y = gelu(x)` of rows `(x, [d, y])` on the calling thread, with the bits of [`forward`] and
/// [`backward`].
pub(crate) fn backward_rows<'a>(exec: Exec, form: Gelu, rows: impl Iterator<Item = (&'a [f32], [&'a mut [f32]; 2])>) {
    dispatch(exec, Both { form, rows });
}

/// Value and slope of the tanh form.
#[inline(always)]
fn tanh_lanes<S: Simd>(simd: S, x: S::Lanes) -> (S::Lanes, S::Lanes) {
    let (factor, square) = (2.0 * SQRT_2_OVER_PI, simd.mul(x, x));
    let negated = -factor * S::LOGISTIC_UNIT;
    let exponent = simd.mul_add_lanes(square, simd.splat((negated * CUBIC) as f32), simd.splat(negated as f32));
    let (phi, density) = simd.logistic_lanes(simd.mul(x, exponent));
    let factor = factor as f32;
    let d_exponent = simd.mul_add_lanes(square, simd.splat(3.0 * factor * CUBIC as f32), simd.splat(factor));
    (simd.mul(x, phi), simd.mul_add_lanes(simd.mul(x, d_exponent), density, phi))
}

/// A row of values of the tanh form.
#[inline(always)]
fn forward_tanh<S: Simd>(simd: S, x: &[f32], y: &mut [f32]) {
    let ((x, x_tail), (y, y_tail)) = (x.as_chunks(), y.as_chunks_mut());
    for (x, y) in x.iter().zip(y) {
        simd.store(tanh_lanes(simd, simd.load(x)).0, y);
    }
    if !x_tail.is_empty() {
        let x = simd.load_part(x_tail, simd.splat(0.0));
        simd.store_part(tanh_lanes(simd, x).0, y_tail);
    }
}

/// A row of gradients of the tanh form.
#[inline(always)]
fn backward_tanh<S: Simd>(simd: S, x: &[f32], d_y: &[f32], d_x: &mut [f32]) {
    let ((x, x_tail), (d_y, d_y_tail), (d_x, d_x_tail)) = (x.as_chunks(), d_y.as_chunks(), d_x.as_chunks_mut());
    for ((x, d_y), d_x) in x.iter().zip(d_y).zip(d_x) {
        simd.store(simd.mul(simd.load(d_y), tanh_lanes(simd, simd.load(x)).1), d_x);
    }
    if !x_tail.is_empty() {
        let [x, d_y] = [x_tail, d_y_tail].map(|tail| simd.load_part(tail, simd.splat(0.0)));
        simd.store_part(simd.mul(d_y, tanh_lanes(simd, x).1), d_x_tail);
    }
}

/// [`forward_tanh`] and [`backward_tanh`] in place.
#[inline(always)]
fn both_tanh<S: Simd>(simd: S, x: &[f32], d: &mut [f32], y: &mut [f32]) {
    let ((x, x_tail), (d, d_tail), (y, y_tail)) = (x.as_chunks(), d.as_chunks_mut(), y.as_chunks_mut());
    for ((x, d), y) in x.iter().zip(d).zip(y) {
        let (value, slope) = tanh_lanes(simd, simd.load(x));
        simd.store(value, y);
        simd.store(simd.mul(simd.load(d), slope), d);
    }
    if !x_tail.is_empty() {
        let [x, d] = [x_tail, &*d_tail].map(|tail| simd.load_part(tail, simd.splat(0.0)));
        let (value, slope) = tanh_lanes(simd, x);
        simd.store_part(value, y_tail);
        simd.store_part(simd.mul(d, slope), d_tail);
    }
}

/// From `erf(x / sqrt 2)`.
#[inline(always)]
fn value_erf<S: Simd>(simd: S, x: f32, erf: f32) -> f32 {
    let half = 0.5 * x;
    simd.mul_add(half, erf, half)
}

/// From `erf(x / sqrt 2)`.
#[inline(always)]
fn slope_erf<S: Simd>(simd: S, x: f32, erf: f32) -> f32 {
    let phi = simd.mul_add(0.5, erf, 0.5);
    let density = DENSITY_AT_0 as f32 * exp(simd, -0.5 * x * x);
    simd.mul_add(x, density, phi)
}

struct Forward<I> {
    form: Gelu,
    rows: I,
}

impl<'a, I: Iterator<Item = (&'a [f32], &'a mut [f32])>> Kernel for Forward<I> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (x, y) in self.rows {
            match self.form {
                Gelu::Tanh => forward_tanh(simd, x, y),
                Gelu::Erf => {
                    let pairs = y.iter_mut().zip(x);
                    pairs.for_each(|(y, &x)| *y = value_erf(simd, x, erf(simd, x * FRAC_1_SQRT_2 as f32)));
                }
            }
        }
    }
}

struct Backward<'a> {
    form: Gelu,
    d_y: &'a [f32],
    x: &'a [f32],
    d_x: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { form, d_y, x, d_x } = self;
        match form {
            Gelu::Tanh => backward_tanh(simd, x, d_y, d_x),
            Gelu::Erf => {
                let triples = d_x.iter_mut().zip(d_y).zip(x);
                let slope = |x| slope_erf(simd, x, erf(simd, x * FRAC_1_SQRT_2 as f32));
                triples.for_each(|((d_x, &d_y), &x)| *d_x = d_y * slope(x));
            }
        }
    }
}

/// The value, and its slope into the gradient.
struct Both<I> {
    form: Gelu,
    rows: I,
}

impl<'a, I: Iterator<Item = (&'a [f32], [&'a mut [f32]; 2])>> Kernel for Both<I> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (x, [d, y]) in self.rows {
            match self.form {
                Gelu::Tanh => both_tanh(simd, x, d, y),
                Gelu::Erf => d.iter_mut().zip(y).zip(x).for_each(|((d, y), &x)| {
                    let erf = erf(simd, x * FRAC_1_SQRT_2 as f32);
                    *y = value_erf(simd, x, erf);
                    *d *= slope_erf(simd, x, erf);
                }),
            }
        }
    }
}

/// The formulas in f64, one element at a time.
pub mod reference {
    use super::{CUBIC, DENSITY_AT_0, FRAC_1_SQRT_2, Gelu, SQRT_2_OVER_PI};
    use crate::math::erf_f64;

    /// `gelu(x)`.
    pub fn forward(form: Gelu, x: f64) -> f64 {
        match form {
            Gelu::Tanh => 0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + CUBIC * x.powi(3))).tanh()),
            Gelu::Erf => 0.5 * x * (1.0 + erf_f64(x * FRAC_1_SQRT_2)),
        }
    }

    /// `d_y gelu'(x)`.
    pub fn backward(form: Gelu, d_y: f64, x: f64) -> f64 {
        let slope = match form {
            Gelu::Tanh => {
                let tanh = (SQRT_2_OVER_PI * (x + CUBIC * x.powi(3))).tanh();
                let d_u = SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
                0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * d_u
            }
            Gelu::Erf => 0.5 * (1.0 + erf_f64(x * FRAC_1_SQRT_2)) + x * DENSITY_AT_0 * (-0.5 * x * x).exp(),
        };
        d_y * slope
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Isa;
    use crate::golden::Golden;
    use crate::testing::{check_fast, grad_gap, test_input, wide};

    const FORMS: [Gelu; 2] = [Gelu::Tanh, Gelu::Erf];

    #[test]
    fn the_reference_has_the_worked_out_values() {
        // Phi(1) = 0.8413447 and Phi(-1) = 0.1586553 in tables of the normal distribution.
        assert!((reference::forward(Gelu::Erf, 1.0) - 0.841_344_7).abs() < 1e-7);
        assert!((reference::forward(Gelu::Erf, -1.0) + 0.158_655_3).abs() < 1e-7);
        // u = 0.7978846 * 1.044715 = 0.8335620, tanh u = 0.6823840, so y = 0.8411920.
        assert!((reference::forward(Gelu::Tanh, 1.0) - 0.841_192_0).abs() < 1e-7);
    }

    #[test]
    fn backward_is_the_derivative_of_forward() {
        let x = wide(&test_input(41, 1)).iter().map(|x| 12.0 * x).collect::<Vec<_>>();
        let d_y = wide(&test_input(41, 2));
        for form in FORMS {
            let loss = |x: &[f64]| x.iter().zip(&d_y).map(|(&x, d_y)| d_y * reference::forward(form, x)).sum();
            let d_x: Vec<f64> = x.iter().zip(&d_y).map(|(&x, &d_y)| reference::backward(form, d_y, x)).collect();
            assert!(grad_gap(loss, &x, &d_x) < 1e-6);
        }
    }

    #[test]
    fn the_fast_path_equals_the_reference_at_any_length() {
        for n in [0, 1, 7, 16, 33, TASK_ELEMENTS - 1, TASK_ELEMENTS, 2 * TASK_ELEMENTS + 1] {
            let x: Vec<f32> = test_input(n, 3).iter().map(|x| 16.0 * x).collect();
            let d_y = test_input(n, 4);
            for form in FORMS {
                let run = |exec| {
                    let (mut y, mut d_x) = (vec![f32::NAN; n], vec![f32::NAN; n]);
                    forward(exec, form, &x, &mut y);
                    backward(exec, form, &d_y, &x, &mut d_x);
                    vec![y, d_x]
                };
                let (x, d_y) = (wide(&x), wide(&d_y));
                let y = x.iter().map(|&x| reference::forward(form, x)).collect();
                let d_x = x.iter().zip(&d_y).map(|(&x, &d_y)| reference::backward(form, d_y, x)).collect();
                check_fast("gelu", run, &[y, d_x], 5e-7);
            }
        }
    }

    #[test]
    fn far_from_zero_it_is_the_identity_or_zero_and_nan_stays() {
        for form in FORMS {
            let mut y = [0.0; 4];
            forward(Exec::new(1), form, &[1e4, -1e4, f32::NAN, 0.0], &mut y);
            assert!(y[0] == 1e4 && y[1] == 0.0 && y[2].is_nan() && y[3] == 0.0);
            let mut d_x = [0.0; 3];
            backward(Exec::new(1), form, &[1.0, 1.0, 1.0], &[1e4, -1e4, f32::NAN], &mut d_x);
            assert!(d_x[0] == 1.0 && d_x[1] == 0.0 && d_x[2].is_nan());
        }
    }

    #[test]
    fn an_element_has_the_same_bits_in_any_row_and_with_value_and_slope_at_once() {
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let x: Vec<f32> = test_input(77, 1).iter().map(|x| 40.0 * x).chain([1e4, -1e4, f32::NAN]).collect();
        let d_y = test_input(x.len(), 2);
        for (form, isa) in FORMS.into_iter().flat_map(|form| Isa::available().into_iter().map(move |isa| (form, isa))) {
            let exec = Exec::new(1).with_isa(isa);
            let [mut y, mut d_x] = [(); 2].map(|()| vec![0.0; x.len()]);
            forward(exec, form, &x, &mut y);
            backward(exec, form, &d_y, &x, &mut d_x);
            for len in [1, 15, 16, 17, 80] {
                let ([mut cut, mut value], mut slope) = ([(); 2].map(|()| vec![0.0; x.len()]), d_y.clone());
                forward_rows(exec, form, x.chunks(len).zip(cut.chunks_mut(len)));
                let outputs = slope.chunks_mut(len).zip(value.chunks_mut(len)).map(|(d, y)| [d, y]);
                backward_rows(exec, form, x.chunks(len).zip(outputs));
                assert!(bits(&y) == bits(&cut) && bits(&y) == bits(&value), "{form:?}, {}, {len}", isa.name());
                assert!(bits(&d_x) == bits(&slope), "{form:?}, {}, {len}", isa.name());
            }
        }
    }

    #[test]
    fn outputs_and_gradients_equal_pytorchs() {
        let golden = Golden::read("gelu");
        let x: Vec<f32> = test_input(101, 1).iter().map(|x| 16.0 * x).collect();
        for (form, name) in FORMS.into_iter().zip(["tanh", "erf"]) {
            let [mut y, mut d_x] = [[0.0; 101]; 2];
            forward(Exec::new(2), form, &x, &mut y);
            backward(Exec::new(2), form, &test_input(101, 2), &x, &mut d_x);
            golden.check(&format!("y_{name}"), &y, 5e-7);
            golden.check(&format!("d_x_{name}"), &d_x, 5e-7);
        }
    }
}
