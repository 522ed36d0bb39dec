//! Speed of the kernels at GPT-2's sizes, on one thread and on two: GB/s of the bytes a kernel must read and write.
//!
//! `copy` and `triad` are the machine's memory bandwidth, the limit of everything here: rows whose arrays do not fit
//! into the caches cannot be faster. Each kernel is compared with its reference: a wrong one panics and has no row.
//!
//! Run `cargo bench -p cavy-kernels`, or `cargo bench -p cavy-kernels -- gelu` for some rows.

#![expect(clippy::wildcard_imports, reason = "each module of rows takes what they share")]

use cavy_kernels::adamw::{self, AdamW};
use cavy_kernels::gelu::{self, Gelu};
use cavy_kernels::parallel::for_each_chunk;
use cavy_kernels::{Exec, dropout, embedding, grad_norm, layer_norm, rms_norm, rope, swiglu};
use divan::Bencher;
use divan::counter::BytesCount;
use std::hint::black_box;

/// Tokens of a step.
const N: usize = 1024;
/// GPT-2's width, and that of its feed-forward layers.
const D: usize = 768;
const F: usize = 3072;
/// GPT-2's vocabulary.
const V: usize = 50_257;
/// Elements of arrays that no cache holds: an eighth of GPT-2's parameters.
const LARGE: usize = 16 << 20;
const THREADS: [usize; 2] = [1, 2];

fn main() {
    divan::main();
}

/// Values in [-2, 2).
fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 2003) as f32 / 500.75 - 2.0).collect()
}

/// The first elements of `x`, for a comparison with a reference.
fn first(x: &[f32], n: usize) -> Vec<f64> {
    x[..n].iter().copied().map(f64::from).collect()
}

/// Panics unless `got` starts with `want`.
fn assert_near(got: &[f32], want: &[f64]) {
    for (&got, &want) in got.iter().zip(want) {
        assert!((f64::from(got) - want).abs() <= 1e-5 * (1.0 + want.abs()), "got {got}, expected {want}");
    }
}

/// Times `run`, which reads and writes `floats` f32 in all.
fn time(bencher: Bencher<'_, '_>, floats: usize, run: impl FnMut()) {
    bencher.counter(BytesCount::new(4 * floats)).bench_local(run);
}

mod memory {
    use super::*;

    #[divan::bench(args = THREADS)]
    fn copy(bencher: Bencher<'_, '_>, threads: usize) {
        let (x, mut y) = (values(LARGE), values(LARGE));
        time(bencher, 2 * LARGE, || {
            for_each_chunk(Exec::new(threads), &mut y, 1 << 14, |i, y| y.copy_from_slice(&x[i << 14..][..y.len()]));
        });
    }

    #[divan::bench(args = THREADS)]
    fn triad(bencher: Bencher<'_, '_>, threads: usize) {
        let (a, b, mut y) = (values(LARGE), values(LARGE), values(LARGE));
        time(bencher, 3 * LARGE, || {
            for_each_chunk(Exec::new(threads), &mut y, 1 << 14, |i, y| {
                let inputs = a[i << 14..].iter().zip(&b[i << 14..]);
                y.iter_mut().zip(inputs).for_each(|(y, (a, b))| *y = a + 0.5 * b);
            });
        });
    }

    /// The same copy of N x D, which caches hold: the limit of the norms, rotary embedding and embedding.
    #[divan::bench(args = THREADS)]
    fn copy_in_cache(bencher: Bencher<'_, '_>, threads: usize) {
        let (x, mut y) = (values(N * D), values(N * D));
        time(bencher, 2 * N * D, || {
            for_each_chunk(Exec::new(threads), &mut y, 1 << 14, |i, y| y.copy_from_slice(&x[i << 14..][..y.len()]));
        });
    }
}

mod elementwise {
    use super::*;

    fn gelu_forward(bencher: Bencher<'_, '_>, threads: usize, form: Gelu) {
        let (x, mut y) = (values(N * F), vec![0.0; N * F]);
        time(bencher, 2 * N * F, || gelu::forward(Exec::new(threads), form, &x, &mut y));
        let want: Vec<f64> = first(&x, 999).into_iter().map(|x| gelu::reference::forward(form, x)).collect();
        assert_near(&y, &want);
    }

    fn gelu_backward(bencher: Bencher<'_, '_>, threads: usize, form: Gelu) {
        let (x, mut d_x) = (values(N * F), vec![0.0; N * F]);
        time(bencher, 3 * N * F, || gelu::backward(Exec::new(threads), form, &x, &x, &mut d_x));
        let want: Vec<f64> = first(&x, 999).into_iter().map(|x| gelu::reference::backward(form, x, x)).collect();
        assert_near(&d_x, &want);
    }

    #[divan::bench(args = THREADS)]
    fn gelu_tanh_forward(bencher: Bencher<'_, '_>, threads: usize) {
        gelu_forward(bencher, threads, Gelu::Tanh);
    }

    #[divan::bench(args = THREADS)]
    fn gelu_tanh_backward(bencher: Bencher<'_, '_>, threads: usize) {
        gelu_backward(bencher, threads, Gelu::Tanh);
    }

    #[divan::bench(args = THREADS)]
    fn gelu_erf_forward(bencher: Bencher<'_, '_>, threads: usize) {
        gelu_forward(bencher, threads, Gelu::Erf);
    }

    #[divan::bench(args = THREADS)]
    fn gelu_erf_backward(bencher: Bencher<'_, '_>, threads: usize) {
        gelu_backward(bencher, threads, Gelu::Erf);
    }

    #[divan::bench(args = THREADS)]
    fn swiglu_forward(bencher: Bencher<'_, '_>, threads: usize) {
        let (gate, up, mut y) = (values(N * F), values(N * F), vec![0.0; N * F]);
        time(bencher, 3 * N * F, || swiglu::forward(Exec::new(threads), &gate, &up, &mut y));
        let want: Vec<f64> = first(&gate, 999).into_iter().map(|x| swiglu::reference::forward(x, x)).collect();
        assert_near(&y, &want);
    }

    #[divan::bench(args = THREADS)]
    fn swiglu_backward(bencher: Bencher<'_, '_>, threads: usize) {
        let (d_y, gate, up) = (values(N * F), values(N * F), values(N * F));
        let (mut d_gate, mut d_up) = (vec![0.0; N * F], vec![0.0; N * F]);
        time(bencher, 5 * N * F, || swiglu::backward(Exec::new(threads), &d_y, &gate, &up, &mut d_gate, &mut d_up));
        let grads = first(&gate, 999).into_iter().map(|x| swiglu::reference::backward(x, x, x));
        let (want_gate, want_up): (Vec<f64>, Vec<f64>) = grads.unzip();
        assert_near(&d_gate, &want_gate);
        assert_near(&d_up, &want_up);
    }

    #[divan::bench(args = THREADS)]
    fn dropout_forward(bencher: Bencher<'_, '_>, threads: usize) {
        let (x, mut y) = (values(N * F), vec![0.0; N * F]);
        time(bencher, 2 * N * F, || dropout::forward(Exec::new(threads), 0.1, 7, &x, &mut y));
        assert_near(&y, &dropout::reference::forward(0.1, 7, &first(&x, 999)));
    }
}

mod rows {
    use super::*;

    #[divan::bench(args = THREADS)]
    fn layer_norm_forward(bencher: Bencher<'_, '_>, threads: usize) {
        let (x, gamma, mut y) = (values(N * D), values(D), vec![0.0; N * D]);
        let [mut mean, mut rstd] = [(); 2].map(|()| vec![0.0; N]);
        time(bencher, 2 * N * D, || {
            layer_norm::forward(Exec::new(threads), &x, &gamma, Some(&gamma), 1e-5, &mut y, &mut mean, &mut rstd);
        });
        let gamma = first(&gamma, D);
        assert_near(&y, &layer_norm::reference::forward(&first(&x, 3 * D), &gamma, &gamma, 1e-5).0);
    }

    #[divan::bench(args = THREADS)]
    fn layer_norm_backward(bencher: Bencher<'_, '_>, threads: usize) {
        let (d_y, gamma, mut d_x) = (values(N * D), values(D), vec![0.0; N * D]);
        let (mean, rstd) = (values(N), values(N));
        let [mut d_gamma, mut d_beta] = [(); 2].map(|()| vec![0.0; D]);
        time(bencher, 3 * N * D, || {
            let (d_gamma, d_beta) = (Some(&mut d_gamma[..]), Some(&mut d_beta[..]));
            layer_norm::backward(Exec::new(threads), &d_y, &d_y, &gamma, &mean, &rstd, &mut d_x, d_gamma, d_beta);
        });
        let (x, mean, rstd) = (first(&d_y, 3 * D), first(&mean, 3), first(&rstd, 3));
        assert_near(&d_x, &layer_norm::reference::backward(&x, &x, &first(&gamma, D), &mean, &rstd).0);
    }

    #[divan::bench(args = THREADS)]
    fn rms_norm_forward(bencher: Bencher<'_, '_>, threads: usize) {
        let (x, gamma, mut y, mut rstd) = (values(N * D), values(D), vec![0.0; N * D], vec![0.0; N]);
        time(bencher, 2 * N * D, || rms_norm::forward(Exec::new(threads), &x, &gamma, 1e-5, &mut y, &mut rstd));
        assert_near(&y, &rms_norm::reference::forward(&first(&x, 3 * D), &first(&gamma, D), 1e-5).0);
    }

    #[divan::bench(args = THREADS)]
    fn rms_norm_backward(bencher: Bencher<'_, '_>, threads: usize) {
        let (x, gamma, rstd) = (values(N * D), values(D), values(N));
        let (mut d_x, mut d_gamma) = (vec![0.0; N * D], vec![0.0; D]);
        time(bencher, 3 * N * D, || {
            rms_norm::backward(Exec::new(threads), &x, &x, &gamma, &rstd, &mut d_x, Some(&mut d_gamma));
        });
        let (x, gamma, rstd) = (first(&x, 3 * D), first(&gamma, D), first(&rstd, 3));
        assert_near(&d_x, &rms_norm::reference::backward(&x, &x, &gamma, &rstd).0);
    }

    #[divan::bench(args = THREADS)]
    fn rope_rotate(bencher: Bencher<'_, '_>, threads: usize) {
        let (x, mut y, freq) = (values(N * D), vec![0.0; N * D], rope::inv_freq(64, 10_000.0));
        let positions: Vec<u32> = (0..N as u32).collect();
        time(bencher, 2 * N * D, || rope::rotate(Exec::new(threads), &x, D / 64, &positions, &freq, &mut y));
        assert_near(&y, &rope::reference::rotate(1.0, &first(&x, 3 * D), D / 64, &positions[..3], &freq));
    }

    #[divan::bench(args = THREADS)]
    fn embedding_forward(bencher: Bencher<'_, '_>, threads: usize) {
        let (weight, mut y, ids) = (values(V * D), vec![0.0; N * D], ids());
        time(bencher, 2 * N * D, || embedding::forward(Exec::new(threads), &weight, D, &ids, &mut y));
        assert_near(&y, &embedding::reference::forward(&first(&weight, V * D), D, &ids[..3]));
    }

    #[divan::bench(args = THREADS)]
    fn embedding_backward(bencher: Bencher<'_, '_>, threads: usize) {
        let (d_y, ids) = (values(N * D), ids());
        let mut d_weight = vec![0.0; V * D];
        embedding::backward_add(Exec::new(threads), &d_y, D, &ids, &mut d_weight);
        assert_near(&d_weight, &embedding::reference::backward(&first(&d_y, N * D), D, &ids, V));
        time(bencher, 3 * N * D, || embedding::backward_add(Exec::new(threads), &d_y, D, &ids, &mut d_weight));
    }

    fn ids() -> Vec<u32> {
        (0..N).map(|i| (i * 7919 % V) as u32).collect()
    }
}

mod optimizer {
    use super::*;

    #[divan::bench(args = THREADS)]
    fn grad_norm_stats(bencher: Bencher<'_, '_>, threads: usize) {
        let g = values(LARGE);
        let (got, want) = (grad_norm::stats(Exec::new(threads), &g), grad_norm::reference::stats(&g));
        assert!((got.sum_squares / want.sum_squares - 1.0).abs() < 1e-9 && got.max_abs == want.max_abs);
        time(bencher, LARGE, || {
            black_box(grad_norm::stats(Exec::new(threads), &g));
        });
    }

    #[divan::bench(args = THREADS)]
    fn adamw_step(bencher: Bencher<'_, '_>, threads: usize) {
        let (mut param, grad) = (values(LARGE), values(LARGE));
        let (mut m, mut v) = (vec![0.0; LARGE], vec![0.0; LARGE]);
        let settings = AdamW::default();
        let mut step = |t| adamw::step(Exec::new(threads), &settings, t, 1.0, &mut param, &grad, &mut m, &mut v);
        step(1);
        time(bencher, 7 * LARGE, || step(2));
        drop((param, m, v));
        let (mut param, [mut m, mut v]) = (values(999), [[0.0; 999]; 2]);
        adamw::step(Exec::new(threads), &settings, 1, 1.0, &mut param, &grad[..999], &mut m, &mut v);
        let want = first(&grad, 999).into_iter().map(|p| adamw::reference::step(&settings, 1, p, [p, 0.0, 0.0])[0]);
        assert_near(&param, &want.collect::<Vec<_>>());
    }
}
