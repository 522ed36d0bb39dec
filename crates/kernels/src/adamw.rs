//! AdamW: Adam's step with decoupled weight decay, in one pass over parameter, gradient and both moments.
//!
//! With `g = grad_scale grad` at step `t = 1, 2, ...`:
//! `p = p (1 - lr weight_decay)`, `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
//! `p = p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)`.
//!
//! Shapes: `param`, `grad`, `m` and `v` of one length; `m` and `v` start as zeros.
//! Source: Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>, algorithm 2, in the form of
//! `torch.optim.AdamW`: the decay is multiplied by the learning rate, `eps` is added after the bias correction.

use crate::exec::Exec;
use crate::lanes::{TASK_ELEMENTS, for_each_part};
use crate::simd::{Kernel, Simd, dispatch};

/// Elements of a task: four arrays of them stay in a core's cache, and small layers are several.
const TASK: usize = TASK_ELEMENTS / 4;

/// The settings of a step. The default is PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Share of a parameter, times the learning rate, that each step takes away.
    pub weight_decay: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 }
    }
}

/// The factors of one step, worked out in f64 as PyTorch does.
#[derive(Clone, Copy, Debug)]
pub struct Factors {
    /// `1 - lr weight_decay`.
    pub keep: f64,
    /// `beta1`.
    pub beta1: f64,
    /// `beta2`.
    pub beta2: f64,
    /// `lr / (1 - beta1^t)`.
    pub step_size: f64,
    /// `sqrt(1 - beta2^t)`.
    pub root_correction: f64,
    /// `eps`.
    pub eps: f64,
}

impl Factors {
    /// The factors that an update of f32 numbers takes.
    pub(crate) fn narrow(self) -> Narrow {
        Narrow {
            keep: self.keep as f32,
            beta2: self.beta2 as f32,
            one_minus_beta1: (1.0 - self.beta1) as f32,
            one_minus_beta2: (1.0 - self.beta2) as f32,
            step_size: self.step_size as f32,
            root_factor: (1.0 / self.root_correction) as f32,
            eps: self.eps as f32,
        }
    }
}

/// [`Factors`] in f32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Narrow {
    keep: f32,
    beta2: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    step_size: f32,
    root_factor: f32,
    eps: f32,
}

impl Narrow {
    /// One number's update by its gradient `g`; the root of the new second moment.
    #[inline(always)]
    pub(crate) fn update<S: Simd>(self, simd: S, g: f32, p: &mut f32, m: &mut f32, v: &mut f32) -> f32 {
        *m = simd.mul_add(self.one_minus_beta1, g - *m, *m);
        *v = simd.mul_add(self.one_minus_beta2 * g, g, self.beta2 * *v);
        let root = v.sqrt();
        let denominator = simd.mul_add(root, self.root_factor, self.eps);
        *p = simd.mul_add(-self.step_size, *m / denominator, *p * self.keep);
        root
    }
}

impl AdamW {
    /// The factors of step `step`, the first of which is 1: once for all parameters, as numbers are read as they are written.
    ///
    /// Panics: if `step` is 0.
    pub fn factors(&self, step: u64) -> Factors {
        assert!(step > 0, "the first step of AdamW is 1");
        let (lr, beta1, beta2) = (as_written(self.lr), as_written(self.beta1), as_written(self.beta2));
        let power = |beta: f64| beta.powf(step as f64);
        Factors {
            keep: 1.0 - lr * as_written(self.weight_decay),
            beta1,
            beta2,
            step_size: lr / (1.0 - power(beta1)),
            root_correction: (1.0 - power(beta2)).sqrt(),
            eps: as_written(self.eps),
        }
    }
}

/// The shortest decimal number that rounds to `x`.
///
/// A setting of 0.999 means that number; the f32 next to it would make `1 - beta2` wrong by 1.3e-5.
fn as_written(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// One step, in place.
///
/// Numbers: f32, the factors in f64. Same bits for any number of threads.
/// Panics: if the lengths differ.
/// Source: see the file's head.
pub fn step(
    exec: Exec,
    factors: Factors,
    grad_scale: f32,
    param: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let lens = [param.len(), grad.len(), m.len(), v.len()];
    assert!(lens.iter().all(|&len| len == grad.len()), "param, grad, m and v of {lens:?} elements");
    for_each_part(exec, [param, m, v], [TASK; 3], |index, [param, m, v]| {
        let grad = &grad[index * TASK..][..param.len()];
        dispatch(exec, Step { factors, grad_scale, param, grad, m, v });
    });
}

struct Step<'a> {
    factors: Factors,
    grad_scale: f32,
    param: &'a mut [f32],
    grad: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

impl Kernel for Step<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let narrow = self.factors.narrow();
        for (((p, &grad), m), v) in self.param.iter_mut().zip(self.grad).zip(self.m).zip(self.v) {
            narrow.update(simd, grad * self.grad_scale, p, m, v);
        }
    }
}

/// The formulas in f64, one element at a time.
pub mod reference {
    use super::AdamW;

    /// The new `(param, m, v)`.
    pub fn step(settings: &AdamW, step: u64, g: f64, [p, m, v]: [f64; 3]) -> [f64; 3] {
        let f = settings.factors(step);
        let m = f.beta1 * m + (1.0 - f.beta1) * g;
        let v = f.beta2 * v + (1.0 - f.beta2) * g * g;
        [p * f.keep - f.step_size * m / (v.sqrt() / f.root_correction + f.eps), m, v]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;
    use crate::testing::{check_fast, test_input, wide};

    /// Parameter, m and v after `steps` steps from zero moments; step `t` has the gradient `test_input(n, 10 + t)`.
    fn run_steps(exec: Exec, settings: &AdamW, steps: u64, grad_scale: f32, n: usize) -> Vec<Vec<f32>> {
        let (mut param, mut m, mut v) = (test_input(n, 1), vec![0.0; n], vec![0.0; n]);
        for t in 1..=steps {
            step(exec, settings.factors(t), grad_scale, &mut param, &test_input(n, 10 + t as usize), &mut m, &mut v);
        }
        vec![param, m, v]
    }

    fn reference_steps(settings: &AdamW, steps: u64, grad_scale: f64, n: usize) -> Vec<Vec<f64>> {
        let mut states: Vec<[f64; 3]> = wide(&test_input(n, 1)).into_iter().map(|p| [p, 0.0, 0.0]).collect();
        for t in 1..=steps {
            for (state, g) in states.iter_mut().zip(wide(&test_input(n, 10 + t as usize))) {
                *state = reference::step(settings, t, grad_scale * g, *state);
            }
        }
        (0..3).map(|k| states.iter().map(|state| state[k]).collect()).collect()
    }

    #[test]
    fn the_reference_has_the_worked_out_values() {
        // The first step from zero moments: m = 0.1 * 2, v = 0.001 * 4, both corrected to 2 and 4, so the step is
        // lr * 2 / 2 = 0.001 on top of 3 * (1 - 0.001 * 0.01).
        let [p, m, v] = reference::step(&AdamW { eps: 0.0, ..AdamW::default() }, 1, 2.0, [3.0, 0.0, 0.0]);
        assert!((p - (3.0 - 3e-5 - 1e-3)).abs() < 1e-12 && (m - 0.2).abs() < 1e-12 && (v - 0.004).abs() < 1e-12);
    }

    #[test]
    fn settings_mean_the_decimal_number_they_are_written_as() {
        let f = AdamW::default().factors(1);
        assert_eq!((f.beta1, f.beta2, f.eps, f.step_size), (0.9, 0.999, 1e-8, 1e-3 / (1.0 - 0.9)));
        assert_eq!(f.keep, 1.0 - 1e-3 * 1e-2);
    }

    #[test]
    fn the_fast_path_equals_the_reference_at_any_length() {
        let settings = AdamW { lr: 0.02, weight_decay: 0.3, ..AdamW::default() };
        for n in [0, 1, 7, 16, 33, TASK_ELEMENTS - 1, TASK_ELEMENTS, 2 * TASK_ELEMENTS + 1] {
            // The second moment is about 1e-4 here; at 2^13 times that its errors are seen like the others'.
            let run = |exec| {
                let mut outputs = run_steps(exec, &settings, 3, 0.5, n);
                outputs[2].iter_mut().for_each(|v| *v *= 8192.0);
                outputs
            };
            let mut want = reference_steps(&settings, 3, 0.5, n);
            want[2].iter_mut().for_each(|v| *v *= 8192.0);
            check_fast(&format!("{n}"), run, &want, 5e-7);
        }
    }

    #[test]
    fn a_scaled_gradient_is_the_gradient_of_a_scaled_loss() {
        let (mut a, mut b) = ([1.0, 2.0], [1.0, 2.0]);
        let [mut m, mut v, mut m2, mut v2] = [[0.0; 2]; 4];
        step(Exec::new(1), AdamW::default().factors(1), 0.25, &mut a, &[4.0, -8.0], &mut m, &mut v);
        step(Exec::new(1), AdamW::default().factors(1), 1.0, &mut b, &[1.0, -2.0], &mut m2, &mut v2);
        assert_eq!((a, m, v), (b, m2, v2));
    }

    #[test]
    #[should_panic(expected = "the first step of AdamW is 1")]
    fn step_zero_is_refused() {
        step(Exec::new(1), AdamW::default().factors(0), 1.0, &mut [], &[], &mut [], &mut []);
    }

    /// Largest gap between two tensors, relative to the largest value of the second. NaN if either holds one.
    fn gap(got: &[f32], want: &[f64]) -> f64 {
        let worst = |gaps: &mut dyn Iterator<Item = f64>| gaps.fold(0.0, |max, gap| if gap <= max { max } else { gap });
        let scale = worst(&mut want.iter().map(|x| x.abs()));
        worst(&mut got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).abs())) / scale
    }

    #[test]
    fn ten_steps_equal_pytorchs_which_a_missing_decay_would_not() {
        let golden = Golden::read("adamw");
        let tuned = AdamW { lr: 0.01, beta2: 0.95, weight_decay: 0.1, ..AdamW::default() };
        for (case, settings) in [("default", AdamW::default()), ("tuned", tuned)] {
            let state = run_steps(Exec::new(2), &settings, 10, 1.0, 33);
            for (name, got) in ["param", "m", "v"].iter().zip(&state) {
                let gap = gap(got, &golden.values(&format!("{case}.{name}")));
                assert!(gap <= 1e-6, "{case}.{name}: gap {gap:e}");
            }
        }
        // The smallest effect the test is about is 50 times its bound.
        let undecayed = AdamW { weight_decay: 0.0, ..AdamW::default() };
        let state = run_steps(Exec::new(2), &undecayed, 10, 1.0, 33);
        assert!(gap(&state[0], &golden.values("undecayed.param")) <= 1e-6);
        assert!(gap(&state[0], &golden.values("default.param")) > 5e-5);
    }
}
