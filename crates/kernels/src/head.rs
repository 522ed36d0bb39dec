//! The output head: linear layer, softmax and the log-probability of each target token, fused.
//!
//! `z = h W^T`, `logprob_n = z_n[target_n] - lse(z_n)`, entropy `H_n = -sum_v p_v ln p_v = lse - sum_v p_v z_v`.
//! Backward: `d_z_v = g (1[v = target] - p_v) - g_H p_v (ln p_v + H)`, then `d_h = d_z W` and `d_W = d_z^T h`.
//!
//! Logits exist for a chunk of tokens at a time, never for all: at GPT-2's vocabulary those of one thousand tokens take
//! 200 MB, and PyTorch holds them three times.
//!
//! Shapes: `h` is `(N, D)`, `W` `(V, D)`, everything by token `(N)`.
//! Source: the chunked and fused form of Hsu et al. 2024, "Liger Kernel", <https://arxiv.org/abs/2410.10989>, section 3.2.

use crate::exec::Exec;
use crate::lanes::{TASK_ELEMENTS, sum_of};
use crate::math::exp;
use crate::matmul::{Onto, View, ViewMut, matmul};
use crate::packed::{PackedMatrix, backward_input, linear_unrounded};
use crate::parallel::for_each_chunk;
use crate::simd::{Kernel, LANES, Simd, dispatch};
use std::cell::RefCell;

/// Most logits held at a time: 64 MB.
const CHUNK_LOGITS: usize = 1 << 24;

thread_local! {
    static LOGITS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The head's weight, `(V, D)`.
#[derive(Clone, Copy, Debug)]
pub enum HeadWeight<'a> {
    /// Row-major f32.
    Floats(&'a [f32]),
    /// In a storage form: frozen, without a gradient.
    Packed(&'a PackedMatrix),
}

/// What the head needs of the tokens.
#[derive(Clone, Copy, Debug)]
pub struct HeadInput<'a> {
    /// Final hidden states, `(N, D)`.
    pub hidden: &'a [f32],
    /// The head's weight, `(V, D)`.
    pub weight: HeadWeight<'a>,
    /// The token to predict at each place. Below `V`.
    pub targets: &'a [u32],
}

impl HeadInput<'_> {
    /// `(N, D, V)`.
    ///
    /// Panics: if the lengths do not fit together or a target is no row of the weight.
    fn sizes(&self) -> (usize, usize, usize) {
        let n = self.targets.len();
        let dim = self.hidden.len().checked_div(n).unwrap_or(1);
        assert!(dim > 0 && self.hidden.len() == n * dim, "{} hidden values of {n} tokens", self.hidden.len());
        let vocab = match self.weight {
            HeadWeight::Floats(weight) => {
                assert!(weight.len().is_multiple_of(dim), "{} weights of width {dim}", weight.len());
                weight.len() / dim
            }
            HeadWeight::Packed(weight) => {
                assert!(n == 0 || weight.cols() == dim, "{weight:?} of width {dim}");
                weight.rows()
            }
        };
        assert!(self.targets.iter().all(|&t| (t as usize) < vocab), "a target outside the vocabulary of {vocab}");
        (n, dim, vocab)
    }
}

/// Rows of logits that one task takes: a small vocabulary's are too short for a task each.
fn rows_of_task(vocab: usize) -> usize {
    (TASK_ELEMENTS / 4 / vocab.max(1)).max(1)
}

/// Runs `visit(first token, tokens, logits)` for chunks of tokens.
fn for_each_logits(exec: Exec, input: &HeadInput<'_>, mut visit: impl FnMut(usize, usize, &mut [f32])) {
    let (n, dim, vocab) = input.sizes();
    let chunks = n.div_ceil((CHUNK_LOGITS / vocab.max(1)).max(1)).max(1);
    let chunk = n.div_ceil(chunks).max(1);
    LOGITS.with_borrow_mut(|logits| {
        if logits.len() < chunk * vocab {
            *logits = vec![0.0; chunk * vocab];
        }
        for first in (0..n).step_by(chunk) {
            let tokens = chunk.min(n - first);
            let logits = &mut logits[..tokens * vocab];
            let hidden = &input.hidden[first * dim..][..tokens * dim];
            match input.weight {
                HeadWeight::Floats(weight) => {
                    let (hidden, weight) = (View::new(hidden, tokens, dim), View::new(weight, vocab, dim).t());
                    matmul(exec, Onto::Overwrite, 1.0, hidden, weight, ViewMut::new(logits, tokens, vocab));
                }
                HeadWeight::Packed(weight) => linear_unrounded(exec, hidden, weight, None, logits),
            }
            visit(first, tokens, logits);
        }
    });
}

/// `d_h` and `d_W` of one chunk from the gradient of its logits.
fn backward_chunk(
    exec: Exec,
    input: &HeadInput<'_>,
    (first, tokens): (usize, usize),
    d_logits: &[f32],
    d_hidden: Option<&mut [f32]>,
    d_weight: Option<&mut [f32]>,
) {
    let (_, dim, vocab) = input.sizes();
    let rows = first * dim..(first + tokens) * dim;
    if let Some(d_hidden) = d_hidden {
        let d_hidden = &mut d_hidden[rows.clone()];
        match input.weight {
            HeadWeight::Floats(weight) => {
                let (d_logits, weight) = (View::new(d_logits, tokens, vocab), View::new(weight, vocab, dim));
                matmul(exec, Onto::Overwrite, 1.0, d_logits, weight, ViewMut::new(d_hidden, tokens, dim));
            }
            HeadWeight::Packed(weight) => backward_input(exec, d_logits, weight, d_hidden),
        }
    }
    if let Some(d_weight) = d_weight {
        assert!(matches!(input.weight, HeadWeight::Floats(_)), "a packed weight is frozen");
        let d_logits = View::new(d_logits, tokens, vocab);
        let onto = if first == 0 { Onto::Overwrite } else { Onto::Add };
        let hidden = View::new(&input.hidden[rows], tokens, dim);
        matmul(exec, onto, 1.0, d_logits.t(), hidden, ViewMut::new(d_weight, vocab, dim));
    }
}

/// Log-probability of each target, whether it is the likeliest token, and the gradients of `-sum_n weights_n logprob_n`
/// where they are wanted.
///
/// The weights being known, logits are formed once: each chunk turns into its own gradient in place.
///
/// Shapes: `weights`, `logprobs` and `likeliest` are `(N)`, `d_hidden` `(N, D)`, `d_weight` `(V, D)`; all outputs are overwritten.
/// Numbers: f32; the largest logit is subtracted before exponentials. Same bits for any number of threads.
/// Panics: if the lengths do not fit together or a target is outside the vocabulary.
/// Source: see the file's head.
pub fn cross_entropy(
    exec: Exec,
    input: &HeadInput<'_>,
    weights: &[f32],
    (logprobs, likeliest): (&mut [f32], &mut [bool]),
    mut d_hidden: Option<&mut [f32]>,
    mut d_weight: Option<&mut [f32]>,
) {
    let (n, _, vocab) = input.sizes();
    let lengths = [weights.len(), logprobs.len(), likeliest.len()];
    assert!(lengths == [n; 3], "weights and results of {lengths:?}, {n} tokens");
    if n == 0 {
        d_weight.into_iter().for_each(|d| d.fill(0.0));
        return;
    }
    let wants_gradient = d_hidden.is_some() || d_weight.is_some();
    for_each_logits(exec, input, |first, tokens, logits| {
        let part = first..first + tokens;
        let results = logprobs[part.clone()].iter_mut().zip(&mut likeliest[part]);
        let mut rows: Vec<_> = logits.chunks_mut(vocab).zip(results).collect();
        let rows_of_task = rows_of_task(vocab);
        for_each_chunk(exec, &mut rows, rows_of_task, |task, rows| {
            for (index, (logits, (logprob, likeliest))) in rows.iter_mut().enumerate() {
                let token = first + task * rows_of_task + index;
                let target = input.targets[token] as usize;
                let at_target = logits[target];
                let (max, sum) = dispatch(exec, Exponentials { logits });
                **logprob = at_target - max - sum.ln();
                **likeliest = at_target >= max;
                if wants_gradient {
                    let factor = weights[token];
                    dispatch(exec, Scale { x: logits, factor: factor / sum });
                    logits[target] -= factor;
                }
            }
        });
        if wants_gradient {
            backward_chunk(exec, input, (first, tokens), logits, d_hidden.as_deref_mut(), d_weight.as_deref_mut());
        }
    });
}

/// Log-probability of each target, the entropy of each prediction, and the log of each softmax's denominator; with
/// `d_hidden` also the gradient of each log-probability by its hidden state.
///
/// The gradient row of a token is `W_target - sum_v p_v W_v`, whatever comes after, so where the weight is frozen it can be
/// formed while the logits are there, and only needs a factor per token in the backward pass.
///
/// Shapes: all outputs are `(N)` and overwritten, `d_hidden` is `(N, D)`.
/// Numbers, Panics, Source: as [`cross_entropy`].
pub fn token_logprobs(
    exec: Exec,
    input: &HeadInput<'_>,
    logprobs: &mut [f32],
    entropy: &mut [f32],
    lse: &mut [f32],
    mut d_hidden: Option<&mut [f32]>,
) {
    let (n, _, vocab) = input.sizes();
    assert!(logprobs.len() == n && entropy.len() == n && lse.len() == n, "results for {n} tokens");
    for_each_logits(exec, input, |first, tokens, logits| {
        let part = first..first + tokens;
        let results = logprobs[part.clone()].iter_mut().zip(&mut entropy[part.clone()]).zip(&mut lse[part]);
        let mut rows: Vec<_> = logits.chunks_mut(vocab).zip(results).collect();
        let rows_of_task = rows_of_task(vocab);
        for_each_chunk(exec, &mut rows, rows_of_task, |task, rows| {
            for (index, (logits, ((logprob, entropy), lse))) in rows.iter_mut().enumerate() {
                let target = input.targets[first + task * rows_of_task + index] as usize;
                let at_target = logits[target];
                let (log_denominator, mean) = dispatch(exec, MeanLogit { logits });
                **lse = log_denominator;
                **logprob = at_target - log_denominator;
                **entropy = log_denominator - mean;
                if d_hidden.is_some() {
                    let (entropy, lse) = (**entropy, log_denominator);
                    dispatch(exec, LogprobGradient { logits, lse, entropy, d_logprob: 1.0, d_entropy: 0.0 });
                    logits[target] += 1.0;
                }
            }
        });
        if d_hidden.is_some() {
            backward_chunk(exec, input, (first, tokens), logits, d_hidden.as_deref_mut(), None);
        }
    });
}

/// Gradients of [`token_logprobs`] by the hidden states and the weight; logits are formed again.
///
/// Shapes: `d_logprobs`, `d_entropy`, `lse` and `entropy` are `(N)`, the last two its results.
/// Numbers, Panics, Source: as [`cross_entropy`].
pub fn token_logprobs_backward(
    exec: Exec,
    input: &HeadInput<'_>,
    (d_logprobs, d_entropy): (&[f32], &[f32]),
    (entropy, lse): (&[f32], &[f32]),
    mut d_hidden: Option<&mut [f32]>,
    mut d_weight: Option<&mut [f32]>,
) {
    let (n, _, vocab) = input.sizes();
    assert!([d_logprobs, d_entropy, entropy, lse].iter().all(|x| x.len() == n), "gradients for {n} tokens");
    if n == 0 {
        d_weight.into_iter().for_each(|d| d.fill(0.0));
        return;
    }
    for_each_logits(exec, input, |first, tokens, logits| {
        for_each_chunk(exec, logits, vocab, |index, logits| {
            let token = first + index;
            let (d_logprob, d_entropy) = (d_logprobs[token], d_entropy[token]);
            dispatch(exec, LogprobGradient { logits, lse: lse[token], entropy: entropy[token], d_logprob, d_entropy });
            logits[input.targets[token] as usize] += d_logprob;
        });
        backward_chunk(exec, input, (first, tokens), logits, d_hidden.as_deref_mut(), d_weight.as_deref_mut());
    });
}

/// The largest element; NaN counts as smaller than all and shows in what follows.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let (body, tail) = x.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in body {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(tail).fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max })
}

/// `z -> e^(z - max)` in place; returns the maximum and the sum.
struct Exponentials<'a> {
    logits: &'a mut [f32],
}

impl Kernel for Exponentials<'_> {
    type Output = (f32, f32);
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (f32, f32) {
        let max = largest(self.logits);
        self.logits.iter_mut().for_each(|z| *z = exp(simd, *z - max));
        (max, sum_of(self.logits, |sum, e| sum + e))
    }
}

/// `lse` and `sum_v p_v z_v` of one row.
struct MeanLogit<'a> {
    logits: &'a mut [f32],
}

impl Kernel for MeanLogit<'_> {
    type Output = (f32, f32);
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (f32, f32) {
        let max = largest(self.logits);
        let sum = sum_of(self.logits, |sum, z| sum + exp(simd, z - max));
        // Relative to the maximum, so that large logits do not cancel.
        let weighted = sum_of(self.logits, |sum, z| simd.mul_add(exp(simd, z - max), z - max, sum));
        (max + sum.ln(), max + weighted / sum)
    }
}

/// `z -> -p (g + g_H (ln p + H))` in place.
struct LogprobGradient<'a> {
    logits: &'a mut [f32],
    lse: f32,
    entropy: f32,
    d_logprob: f32,
    d_entropy: f32,
}

impl Kernel for LogprobGradient<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { logits, lse, entropy, d_logprob, d_entropy } = self;
        logits.iter_mut().for_each(|z| {
            let log_p = *z - lse;
            *z = -exp(simd, log_p) * simd.mul_add(d_entropy, log_p + entropy, d_logprob);
        });
    }
}

/// `x -> factor x` in place.
struct Scale<'a> {
    x: &'a mut [f32],
    factor: f32,
}

impl Kernel for Scale<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        self.x.iter_mut().for_each(|x| *x *= self.factor);
    }
}

/// The formulas in f64.
pub mod reference {
    /// `(logprobs, entropies)`.
    pub fn token_logprobs(hidden: &[f64], weight: &[f64], targets: &[u32]) -> (Vec<f64>, Vec<f64>) {
        let dim = hidden.len() / targets.len();
        let each = |(h, &target): (&[f64], &u32)| {
            let z: Vec<f64> = weight.chunks(dim).map(|w| w.iter().zip(h).map(|(w, h)| w * h).sum()).collect();
            let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
            (z[target as usize] - lse, -z.iter().map(|z| (z - lse).exp() * (z - lse)).sum::<f64>())
        };
        hidden.chunks(dim).zip(targets).map(each).unzip()
    }

    /// `(d_hidden, d_weight)` of `sum_n d_logprobs_n logprob_n + d_entropy_n H_n`.
    pub fn backward(
        hidden: &[f64],
        weight: &[f64],
        targets: &[u32],
        d_logprobs: &[f64],
        d_entropy: &[f64],
    ) -> (Vec<f64>, Vec<f64>) {
        let dim = hidden.len() / targets.len();
        let (mut d_hidden, mut d_weight) = (vec![0.0; hidden.len()], vec![0.0; weight.len()]);
        for (n, h) in hidden.chunks(dim).enumerate() {
            let z: Vec<f64> = weight.chunks(dim).map(|w| w.iter().zip(h).map(|(w, h)| w * h).sum()).collect();
            let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
            let entropy = -z.iter().map(|z| (z - lse).exp() * (z - lse)).sum::<f64>();
            for (v, z) in z.iter().enumerate() {
                let p = (z - lse).exp();
                let hit = if targets[n] as usize == v { 1.0 } else { 0.0 };
                let d_z = d_logprobs[n] * (hit - p) - d_entropy[n] * p * (z - lse + entropy);
                for i in 0..dim {
                    d_hidden[n * dim + i] += d_z * weight[v * dim + i];
                    d_weight[v * dim + i] += d_z * h[i];
                }
            }
        }
        (d_hidden, d_weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::Format;
    use crate::packed::reference::dequantize;
    use crate::packed::testing::random_matrix;
    use crate::testing::{check_fast, grad_gap, test_input, wide};

    fn targets(n: usize, vocab: usize) -> Vec<u32> {
        (0..n).map(|i| ((i * 31 + 7) % vocab) as u32).collect()
    }

    #[test]
    fn the_reference_has_the_worked_out_values() {
        // Logits 0 and ln 3: probabilities 1/4 and 3/4, entropy -(ln(1/4) / 4 + 3 ln(3/4) / 4) = 0.5623351.
        let (logprobs, entropy) = reference::token_logprobs(&[1.0], &[0.0, 3.0_f64.ln()], &[1]);
        assert!((logprobs[0] - 0.75_f64.ln()).abs() < 1e-12);
        assert!((entropy[0] - 0.562_335_1).abs() < 1e-6);
    }

    #[test]
    fn backward_is_the_derivative_of_forward() {
        let (n, dim, vocab) = (4, 3, 7);
        let (h, w) = (wide(&test_input(n * dim, 1)), wide(&test_input(vocab * dim, 2)));
        let (g, g_h, targets) = (wide(&test_input(n, 3)), wide(&test_input(n, 4)), targets(n, vocab));
        let loss = |h: &[f64], w: &[f64]| {
            let (logprobs, entropy) = reference::token_logprobs(h, w, &targets);
            (0..n).map(|i| g[i] * logprobs[i] + g_h[i] * entropy[i]).sum::<f64>()
        };
        let (d_h, d_w) = reference::backward(&h, &w, &targets, &g, &g_h);
        assert!(grad_gap(|h| loss(h, &w), &h, &d_h) < 1e-6);
        assert!(grad_gap(|w| loss(&h, w), &w, &d_w) < 1e-6);
    }

    #[test]
    fn the_fast_paths_equal_the_reference() {
        for (n, dim, vocab) in [(1, 1, 1), (6, 8, 11), (33, 24, 130)] {
            let h: Vec<f32> = test_input(n * dim, 1).iter().map(|x| 4.0 * x).collect();
            let (w, targets) = (test_input(vocab * dim, 2), targets(n, vocab));
            let (g, g_h) = (test_input(n, 3), test_input(n, 4));
            let input = HeadInput { hidden: &h, weight: HeadWeight::Floats(&w), targets: &targets };
            let (logprobs, entropies) = reference::token_logprobs(&wide(&h), &wide(&w), &targets);
            let run = |exec| {
                let (mut lp, mut ent, mut lse) = (vec![f32::NAN; n], vec![f32::NAN; n], vec![f32::NAN; n]);
                let (mut d_h, mut d_w) = (vec![f32::NAN; n * dim], vec![f32::NAN; vocab * dim]);
                token_logprobs(exec, &input, &mut lp, &mut ent, &mut lse, None);
                token_logprobs_backward(exec, &input, (&g, &g_h), (&ent, &lse), Some(&mut d_h), Some(&mut d_w));
                vec![lp, ent, d_h, d_w]
            };
            let (d_h, d_w) = reference::backward(&wide(&h), &wide(&w), &targets, &wide(&g), &wide(&g_h));
            check_fast("token_logprobs", run, &[logprobs.clone(), entropies, d_h, d_w], 2e-6);
            let run = |exec| {
                let mut lp = vec![f32::NAN; n];
                let (mut d_h, mut d_w) = (vec![f32::NAN; n * dim], vec![f32::NAN; vocab * dim]);
                cross_entropy(exec, &input, &g, (&mut lp, &mut vec![false; g.len()]), Some(&mut d_h), Some(&mut d_w));
                vec![lp, d_h, d_w]
            };
            let negated: Vec<f64> = g.iter().map(|&g| -f64::from(g)).collect();
            let (d_h, d_w) = reference::backward(&wide(&h), &wide(&w), &targets, &negated, &vec![0.0; n]);
            check_fast("cross_entropy", run, &[logprobs, d_h, d_w], 2e-6);
        }
    }

    #[test]
    fn a_packed_weight_is_its_floats() {
        let (n, dim, vocab) = (9, 64, 50);
        // Weights reach 128, logits some units.
        let h: Vec<f32> = test_input(n * dim, 1).iter().map(|x| x / 64.0).collect();
        let (targets, g, g_h) = (targets(n, vocab), test_input(n, 3), test_input(n, 4));
        for format in [Format::Q8_0, Format::Q4_1, Format::Bf16] {
            let packed = random_matrix(format, vocab, dim, 2);
            let floats = dequantize(format, packed.bytes());
            let run = |weight, exec| {
                let input = HeadInput { hidden: &h, weight, targets: &targets };
                let (mut lp, mut ent, mut lse) = (vec![f32::NAN; n], vec![f32::NAN; n], vec![f32::NAN; n]);
                let (mut d_h, mut loss_d_h) = (vec![f32::NAN; n * dim], vec![f32::NAN; n * dim]);
                token_logprobs(exec, &input, &mut lp, &mut ent, &mut lse, None);
                token_logprobs_backward(exec, &input, (&g, &g_h), (&ent, &lse), Some(&mut d_h), None);
                cross_entropy(exec, &input, &g, (&mut lp, &mut vec![false; g.len()]), Some(&mut loss_d_h), None);
                vec![lp, ent, d_h, loss_d_h]
            };
            let want = run(HeadWeight::Floats(&floats), Exec::new(1));
            let want: Vec<Vec<f64>> = want.iter().map(|want| wide(want)).collect();
            check_fast(&format!("{packed:?}"), |exec| run(HeadWeight::Packed(&packed), exec), &want, 3e-5);
        }
    }

    #[test]
    #[should_panic(expected = "a packed weight is frozen")]
    fn a_packed_weight_has_no_gradient() {
        let weight = random_matrix(Format::Bf16, 2, 1, 1);
        let input = HeadInput { hidden: &[1.0], weight: HeadWeight::Packed(&weight), targets: &[1] };
        cross_entropy(Exec::new(1), &input, &[1.0], (&mut [0.0], &mut [false]), None, Some(&mut [0.0; 2]));
    }

    #[test]
    fn chunks_of_a_large_vocabulary_join_up() {
        // Three chunks: 40 tokens of a vocabulary that leaves room for 16.
        let (n, dim, vocab) = (40, 2, CHUNK_LOGITS / 16);
        let (h, w) = (test_input(n * dim, 1), test_input(vocab * dim, 2));
        let targets: Vec<u32> = targets(n, vocab);
        let (mut lp, mut d_h, mut d_w) = (vec![f32::NAN; n], vec![f32::NAN; n * dim], vec![f32::NAN; vocab * dim]);
        let input = HeadInput { hidden: &h, weight: HeadWeight::Floats(&w), targets: &targets };
        cross_entropy(
            Exec::new(2),
            &input,
            &vec![1.0; n],
            (&mut lp, &mut vec![false; n]),
            Some(&mut d_h),
            Some(&mut d_w),
        );
        for token in [0, 13, 14, 27, 39] {
            let h = wide(&h[token * dim..][..dim]);
            let (logprob, _) = reference::token_logprobs(&h, &wide(&w), &targets[token..=token]);
            assert!((f64::from(lp[token]) - logprob[0]).abs() < 1e-5, "{token}");
        }
        // Softmax gradients of a token sum to zero over the vocabulary, and so do those of all tokens.
        let total: f64 = d_w.iter().map(|&x| f64::from(x)).sum();
        assert!(total.abs() < 1e-2 && d_w.iter().all(|x| x.is_finite()) && d_h.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn logits_of_a_thousand_and_a_nan_are_handled() {
        let input = HeadInput { hidden: &[1000.0], weight: HeadWeight::Floats(&[1.0, -1.0, 0.5]), targets: &[1] };
        let (mut lp, mut ent, mut lse) = ([0.0], [0.0], [0.0]);
        token_logprobs(Exec::new(1), &input, &mut lp, &mut ent, &mut lse, None);
        assert_eq!((lp[0], ent[0], lse[0]), (-2000.0, 0.0, 1000.0));
        let input = HeadInput { hidden: &[f32::NAN], ..input };
        cross_entropy(Exec::new(1), &input, &[1.0], (&mut lp, &mut [false]), None, None);
        assert!(lp[0].is_nan());
    }

    #[test]
    #[should_panic(expected = "a target outside the vocabulary of 2")]
    fn a_target_outside_the_vocabulary_is_refused() {
        let input = HeadInput { hidden: &[1.0], weight: HeadWeight::Floats(&[1.0, 2.0]), targets: &[2] };
        cross_entropy(Exec::new(1), &input, &[1.0], (&mut [0.0], &mut [false]), None, None);
    }

    #[test]
    fn the_fast_paths_equal_pytorch() {
        let golden = crate::golden::Golden::read("head");
        let h: Vec<f32> = test_input(48, 1).iter().map(|x| 8.0 * x).collect();
        let (w, targets) = (test_input(88, 2), [3, 0, 10, 7, 7, 1]);
        let (weights, total) = ([1.0, 0.0, 0.5, 2.0, 1.0, 0.25], 4.75);
        let input = HeadInput { hidden: &h, weight: HeadWeight::Floats(&w), targets: &targets };
        let (mut lp, mut ent, mut lse) = ([0.0; 6], [0.0; 6], [0.0; 6]);
        let (mut d_h, mut d_w) = ([0.0; 48], [0.0; 88]);
        let exec = Exec::new(2);
        token_logprobs(exec, &input, &mut lp, &mut ent, &mut lse, None);
        token_logprobs_backward(exec, &input, (&weights, &[0.0; 6]), (&ent, &lse), Some(&mut d_h), Some(&mut d_w));
        for (name, found) in [("logprobs", &lp[..]), ("entropy", &ent), ("d_x_sum", &d_h), ("d_weight_sum", &d_w)] {
            golden.check(name, found, 2e-6);
        }
        let mean = weights.map(|w| w / total);
        cross_entropy(exec, &input, &mean, (&mut lp, &mut vec![false; mean.len()]), Some(&mut d_h), Some(&mut d_w));
        for (name, found) in [("logprobs", &lp[..]), ("d_x", &d_h), ("d_weight", &d_w)] {
            golden.check(name, found, 2e-6);
        }
        let loss: f64 = lp.iter().zip(mean).map(|(&lp, w)| -f64::from(lp) * f64::from(w)).sum();
        assert!((loss - golden.values("loss_f64")[0]).abs() < 1e-6);
    }
}
