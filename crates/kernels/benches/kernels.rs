//! Speed of the kernels at GPT-2's sizes, on one thread and on two: GB/s of the bytes a kernel must read and write, and
//! of products, attention and the output head G items a second, where an item is a floating-point operation.
//!
//! `copy` and `triad` are the machine's memory bandwidth, the limit of the former: rows whose arrays do not fit into the
//! caches cannot be faster. `multiply_add` is the rate of multiply-adds on registers, the limit of the latter. Each
//! kernel is compared with its reference: a wrong one panics and has no row.
//!
//! Run `cargo bench -p cavy-kernels`, or `cargo bench -p cavy-kernels -- gelu` for some rows.

#![expect(clippy::wildcard_imports, reason = "each module of rows takes what they share")]

use cavy_kernels::adamw::{self, AdamW};
use cavy_kernels::gelu::{self, Gelu};
use cavy_kernels::parallel::for_each_chunk;
use cavy_kernels::{Exec, HalfFormat, dropout, embedding, grad_norm, layer_norm, rms_norm, rope, swiglu};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
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

/// What is made of products: floating-point operations a second.
mod products {
    use super::*;
    use cavy_kernels::attention::{self, Attention, Heads};
    use cavy_kernels::head::{self, HeadInput};
    use cavy_kernels::int8::{self, Int8Matrix};
    use cavy_kernels::matmul::{Onto, View, ViewMut, matmul};
    use cavy_kernels::parallel::for_each;
    use cavy_kernels::segments::Segments;
    use cavy_kernels::simd::{Kernel, Simd, dispatch};

    /// Multiply-adds of twelve independent vectors.
    struct MultiplyAdd(usize);

    impl Kernel for MultiplyAdd {
        type Output = f32;
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> f32 {
            let (factor, summand) = (black_box(0.999), black_box(0.001));
            let mut sums = [[1.0_f32; 16]; 12];
            for _ in 0..self.0 {
                for x in sums.as_flattened_mut() {
                    *x = simd.mul_add(*x, factor, summand);
                }
            }
            sums.as_flattened().iter().sum()
        }
    }

    #[divan::bench(args = THREADS)]
    fn multiply_add(bencher: Bencher<'_, '_>, threads: usize) {
        let (exec, turns) = (Exec::new(threads), 1 << 16);
        bencher.counter(ItemsCount::new(threads * turns * 2 * 12 * 16)).bench_local(|| {
            for_each(exec, threads, |_| {
                black_box(dispatch(exec, MultiplyAdd(turns)));
            });
        });
    }

    /// `C = A B` with `m x k` and `k x n`, each as it is or transposed.
    #[derive(Clone, Copy, Debug)]
    struct Case(usize, usize, usize, &'static str);

    impl std::fmt::Display for Case {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{} x {} x {}, {}", self.0, self.1, self.2, self.3)
        }
    }

    /// A layer's `y = x W^T`, `d_x = d_y W` and `d_W = d_y^T x`: of GPT-2, of its head, and of a model 128 wide.
    const CASES: [Case; 15] = [
        Case(N, D, 3 * D, "a bt"),
        Case(N, 3 * D, D, "a b"),
        Case(3 * D, N, D, "at b"),
        Case(N, D, F, "a bt"),
        Case(N, F, D, "a b"),
        Case(F, N, D, "at b"),
        Case(256, D, V, "a bt"),
        Case(256, V, D, "a b"),
        Case(V, 256, D, "at b"),
        Case(768, 128, 384, "a bt"),
        Case(768, 384, 128, "a b"),
        Case(384, 768, 128, "at b"),
        Case(768, 128, 65, "a bt"),
        Case(768, 65, 128, "a b"),
        Case(65, 768, 128, "at b"),
    ];

    fn multiply(bencher: Bencher<'_, '_>, exec: Exec, case: Case) {
        let Case(m, k, n, layout) = case;
        let (a, b, mut c) = (values(m * k), values(k * n), vec![0.0; m * n]);
        let a = if layout.contains("at") { View::new(&a, k, m).t() } else { View::new(&a, m, k) };
        let b = if layout.contains("bt") { View::new(&b, n, k).t() } else { View::new(&b, k, n) };
        bencher.counter(ItemsCount::new(2 * m * k * n)).bench_local(|| {
            matmul(exec, Onto::Overwrite, 1.0, a, b, ViewMut::new(&mut c, m, n));
        });
        // Two roundings to bf16; those to binary16 and the sums of its runs cost less.
        let bound = if exec.half_products().is_some() { 1.01 / 128.0 } else { 1e-6 };
        for index in [0, m * n / 2, m * n - 1] {
            let terms = (0..k).map(|p| f64::from(a.at(index / n, p)) * f64::from(b.at(p, index % n)));
            let (want, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
            assert!((f64::from(c[index]) - want).abs() <= bound * size, "{case}: {} is not {want}", c[index]);
        }
    }

    #[divan::bench(args = CASES, consts = THREADS, min_time = 0.2, sample_count = 10)]
    fn product<const THREADS: usize>(bencher: Bencher<'_, '_>, case: Case) {
        multiply(bencher, Exec::new(THREADS), case);
    }

    /// With each kind of half-precision products that the machine has.
    #[divan::bench(args = half_cases(), consts = THREADS, min_time = 0.2, sample_count = 10)]
    fn mixed_product<const THREADS: usize>(bencher: Bencher<'_, '_>, HalfCase(format, case): HalfCase) {
        multiply(bencher, Exec::new(THREADS).with_half_products(format), case);
    }

    #[derive(Clone, Copy)]
    struct HalfCase(HalfFormat, Case);

    impl std::fmt::Display for HalfCase {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}, {}", self.0.name(), self.1)
        }
    }

    fn half_cases() -> Vec<HalfCase> {
        let available = HalfFormat::available().into_iter();
        available.flat_map(|format| CASES.map(|case| HalfCase(format, case))).collect()
    }

    /// Tokens, outputs and inputs of a frozen layer.
    const LAYERS: [[usize; 3]; 3] = [[N, F, D], [N, D, F], [256, V, D]];

    #[divan::bench(args = LAYERS, consts = THREADS, min_time = 0.2, sample_count = 10)]
    fn int8_forward<const THREADS: usize>(bencher: Bencher<'_, '_>, [n, rows, cols]: [usize; 3]) {
        let (exec, x, w, mut y) = (Exec::new(THREADS), values(n * cols), values(rows * cols), vec![0.0; n * rows]);
        let weight = Int8Matrix::quantize(exec, &w, rows, cols);
        let items = ItemsCount::new(2 * n * rows * cols);
        bencher.counter(items).bench_local(|| int8::forward(exec, &x, &weight, None, &mut y));
        let first_rows = Int8Matrix::quantize(exec, &w[..4 * cols], 4, cols);
        assert_near(&y[..4], &int8::reference::forward(&x[..cols], &first_rows));
    }

    #[divan::bench(args = LAYERS, consts = THREADS, min_time = 0.2, sample_count = 10)]
    fn int8_backward<const THREADS: usize>(bencher: Bencher<'_, '_>, [n, rows, cols]: [usize; 3]) {
        let (exec, d_y, w, mut d_x) = (Exec::new(THREADS), values(n * rows), values(rows * cols), vec![0.0; n * cols]);
        let weight = Int8Matrix::quantize(exec, &w, rows, cols);
        let items = ItemsCount::new(2 * n * rows * cols);
        bencher.counter(items).bench_local(|| int8::backward_input(exec, &d_y, &weight, &mut d_x));
        assert_near(&d_x[..cols], &int8::reference::backward_input(&d_y[..rows], &weight));
    }

    /// Sequences, tokens of each, heads and their size: of GPT-2 and of a model 128 wide.
    const ATTENTION: [[usize; 4]; 2] = [[4, 256, 12, 64], [12, 64, 4, 32]];

    fn attend(bencher: Bencher<'_, '_>, threads: usize, [count, len, heads, dim]: [usize; 4], backward: bool) {
        let (exec, segments) = (Exec::new(threads), Segments::uniform(count, len));
        let (n, heads) = (count * len, Heads::new(heads, heads, dim).expect("heads"));
        let scale = 1.0 / (dim as f32).sqrt();
        let spec = Attention { heads, segments: &segments, window: None, scale, dropout: 0.0, dropout_key: 0 };
        let qkv = values(n * heads.packed_width());
        let (mut out, mut lse) = (vec![0.0; n * heads.width()], vec![0.0; n * heads.query()]);
        attention::forward(exec, &spec, &qkv, &mut out, &mut lse);
        assert_near(&out, &attention::reference::forward(&spec, &first(&qkv, qkv.len())));
        // Two products forward, five backward, of the pairs of tokens that see each other.
        let flops = 4 * heads.width() * count * len * (len + 1) / 2;
        if !backward {
            let bencher = bencher.counter(ItemsCount::new(flops));
            return bencher.bench_local(|| attention::forward(exec, &spec, &qkv, &mut out, &mut lse));
        }
        let (d_out, mut d_qkv) = (values(out.len()), vec![0.0; qkv.len()]);
        attention::backward(exec, &spec, &d_out, &qkv, &out, &lse, &mut d_qkv);
        let want = attention::reference::backward(&spec, &first(&d_out, d_out.len()), &first(&qkv, qkv.len()));
        let size = want.iter().fold(1.0_f64, |size, x| size.max(x.abs()));
        let near = d_qkv.iter().zip(&want).all(|(got, want)| (f64::from(*got) - want).abs() <= 1e-5 * size);
        assert!(near, "gradients of attention");
        bencher.counter(ItemsCount::new(flops / 2 * 5)).bench_local(|| {
            attention::backward(exec, &spec, &d_out, &qkv, &out, &lse, &mut d_qkv);
        });
    }

    #[divan::bench(args = ATTENTION, consts = THREADS)]
    fn attention_forward<const THREADS: usize>(bencher: Bencher<'_, '_>, sizes: [usize; 4]) {
        attend(bencher, THREADS, sizes, false);
    }

    #[divan::bench(args = ATTENTION, consts = THREADS)]
    fn attention_backward<const THREADS: usize>(bencher: Bencher<'_, '_>, sizes: [usize; 4]) {
        attend(bencher, THREADS, sizes, true);
    }

    /// Tokens, width, vocabulary: some of GPT-2's, and of a model of characters.
    const HEADS: [[usize; 3]; 2] = [[333, D, V], [768, 128, 65]];

    #[divan::bench(args = HEADS, consts = THREADS, sample_count = 5)]
    fn cross_entropy<const THREADS: usize>(bencher: Bencher<'_, '_>, [n, dim, vocab]: [usize; 3]) {
        let (hidden, weight) = (values(n * dim), values(vocab * dim).iter().map(|w| w / 20.0).collect::<Vec<_>>());
        let targets: Vec<u32> = (0..n).map(|i| (i * 7919 % vocab) as u32).collect();
        let input =
            HeadInput { hidden: &hidden, weight: cavy_kernels::head::HeadWeight::Floats(&weight), targets: &targets };
        let (weights, mut logprobs, mut likeliest) = (vec![1.0 / n as f32; n], vec![0.0; n], vec![false; n]);
        let (mut d_hidden, mut d_weight) = (vec![0.0; n * dim], vec![0.0; vocab * dim]);
        bencher.counter(ItemsCount::new(6 * n * dim * vocab)).bench_local(|| {
            let (d_hidden, d_weight) = (Some(&mut d_hidden[..]), Some(&mut d_weight[..]));
            let results = (&mut logprobs[..], &mut likeliest[..]);
            head::cross_entropy(Exec::new(THREADS), &input, &weights, results, d_hidden, d_weight);
        });
        let weight = first(&weight, weight.len());
        assert_near(&logprobs, &head::reference::token_logprobs(&first(&hidden, 2 * dim), &weight, &targets[..2]).0);
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
            layer_norm::backward(Exec::new(threads), &d_y, &d_y, &gamma, &mean, &rstd, None, &mut d_x, d_gamma, d_beta);
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
            rms_norm::backward(Exec::new(threads), &x, &x, &gamma, &rstd, None, &mut d_x, Some(&mut d_gamma));
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
        let mut step = |t| adamw::step(Exec::new(threads), settings.factors(t), 1.0, &mut param, &grad, &mut m, &mut v);
        step(1);
        time(bencher, 7 * LARGE, || step(2));
        drop((param, m, v));
        let (mut param, [mut m, mut v]) = (values(999), [[0.0; 999]; 2]);
        adamw::step(Exec::new(threads), settings.factors(1), 1.0, &mut param, &grad[..999], &mut m, &mut v);
        let want = first(&grad, 999).into_iter().map(|p| adamw::reference::step(&settings, 1, p, [p, 0.0, 0.0])[0]);
        assert_near(&param, &want.collect::<Vec<_>>());
    }
}
