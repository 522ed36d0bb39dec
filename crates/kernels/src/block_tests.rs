use super::*;
use crate::exec::Precision;
use crate::testing::test_input;
use crate::{layer_norm, linear};

const GELU: Gelu = Gelu::Tanh;
const EPS: f32 = 1e-5;

/// Gain and bias of both norms, then weight and bias of each layer, in the order of [`Weights`].
struct Parameters {
    heads: Heads,
    tensors: [Vec<f32>; 12],
}

impl Parameters {
    fn new(heads: usize, dim: usize, inner: usize) -> Self {
        let d = heads * dim;
        let sizes = [d, d, d, d, 3 * d * d, 3 * d, d * d, d, inner * d, inner, d * inner, d];
        let mut salt = 0;
        let tensors = sizes.map(|size| {
            salt += 1;
            test_input(size, salt).iter().map(|x| x + if salt % 2 == 1 && salt < 4 { 1.0 } else { 0.0 }).collect()
        });
        Self { heads: Heads::new(heads, heads, dim).unwrap(), tensors }
    }

    fn block<'a>(&'a self, segments: &'a Segments, qkv_bias: bool) -> Block<'a> {
        let [g1, b1, g2, b2, qkv, qkv_b, out, out_b, fc, fc_b, proj, proj_b] = &self.tensors;
        let layer = |weight, bias| Layer { weight, bias: Some(bias) };
        let weights = Weights {
            norms: [Norm { gain: g1, bias: b1 }, Norm { gain: g2, bias: b2 }],
            qkv: Layer { weight: qkv, bias: qkv_bias.then_some(qkv_b) },
            out: layer(out, out_b),
            mlp: [layer(fc, fc_b), layer(proj, proj_b)],
        };
        Block { weights, heads: self.heads, segments, scale: 0.3, eps: EPS, gelu: GELU }
    }
}

/// `[y, d_x]`, and the gradients in the order of the parameters.
type Results = ([Vec<f32>; 2], Vec<Vec<f32>>);

fn nan(len: usize) -> Vec<f32> {
    vec![f32::NAN; len]
}

fn depth_first(exec: Exec, parameters: &Parameters, block: &Block<'_>, x: &[f32], d_y: &[f32]) -> Results {
    let (mut y, mut d_x) = (nan(x.len()), nan(x.len()));
    let mut gradients: Vec<Vec<f32>> = parameters.tensors.iter().map(|x| nan(x.len())).collect();
    let kept = forward(exec, block, x, &mut y);
    {
        let has_bias = block.weights.qkv.bias.is_some();
        let [g1, b1, g2, b2, qkv, qkv_b, out, out_b, fc, fc_b, proj, proj_b] = &mut gradients[..] else {
            unreachable!()
        };
        let layer = |weight, bias| LayerGradient { weight, bias: Some(bias) };
        let weights = Weights {
            norms: [NormGradient { gain: g1, bias: b1 }, NormGradient { gain: g2, bias: b2 }],
            qkv: LayerGradient { weight: qkv, bias: has_bias.then_some(qkv_b) },
            out: layer(out, out_b),
            mlp: [layer(fc, fc_b), layer(proj, proj_b)],
        };
        backward(exec, block, d_y, (x, &kept), &mut d_x, weights);
    }
    ([y, d_x], gradients)
}

/// The layers one after the other, all rows at once but for the weights' gradients.
fn layer_by_layer(exec: Exec, parameters: &Parameters, block: &Block<'_>, x: &[f32], d_y: &[f32]) -> Results {
    let Block { weights: Weights { norms, qkv, out, mlp }, segments, .. } = *block;
    let (n, d) = (segments.tokens(), norms[0].gain.len());
    let (f, spec) = (mlp[0].weight.len() / d, block.attention(segments));
    let norm = |number: usize, x: &[f32]| {
        let (mut y, mut mean, mut rstd) = (nan(n * d), nan(n), nan(n));
        let Norm { gain, bias } = norms[number];
        layer_norm::forward(exec, x, gain, Some(bias), EPS, &mut y, &mut mean, &mut rstd);
        (y, mean, rstd)
    };
    let apply = |layer: Layer<'_>, x: &[f32], outputs: usize| {
        let mut y = nan(n * outputs);
        linear::forward(exec, x, layer.weight, layer.bias, outputs, &mut y);
        y
    };
    let (normed_1, mean_1, rstd_1) = norm(0, x);
    let packed = apply(qkv, &normed_1, 3 * d);
    let (mut mixed, mut lse) = (nan(n * d), nan(n * block.heads.query()));
    attention::forward(exec, &spec, &packed, &mut mixed, &mut lse);
    let mut stream = apply(out, &mixed, d);
    add_to(exec, x, &mut stream);
    let (normed_2, mean_2, rstd_2) = norm(1, &stream);
    let inner = apply(mlp[0], &normed_2, f);
    let mut active = nan(n * f);
    gelu::forward(exec, GELU, &inner, &mut active);
    let mut y = apply(mlp[1], &active, d);
    add_to(exec, &stream, &mut y);

    let mut g: Vec<Vec<f32>> = parameters.tensors.iter().map(|x| nan(x.len())).collect();
    let middle = tokens_of(&halves(segments)[0]).end;
    let mut back = |at: usize, layer: Layer<'_>, d_y: &[f32], x: &[f32]| {
        let ((outputs, inputs), [weight, bias]) = ((d_y.len() / n, x.len() / n), &mut g[at..at + 2]) else {
            unreachable!()
        };
        let (mut d_x, mut other) = (nan(x.len()), nan(weight.len()));
        let ((first, second), (x_first, x_second)) = (d_y.split_at(middle * outputs), x.split_at(middle * inputs));
        linear::backward_input(exec, d_y, layer.weight, outputs, &mut d_x);
        linear::backward_weight(exec, first, x_first, outputs, weight);
        linear::backward_weight(exec, second, x_second, outputs, &mut other);
        add_to(exec, &other, weight);
        if layer.bias.is_some() {
            linear::backward_bias(exec, d_y, bias);
        }
        d_x
    };
    let d_active = back(10, mlp[1], d_y, &active);
    let mut d_inner = nan(n * f);
    gelu::backward(exec, GELU, &d_active, &inner, &mut d_inner);
    let d_normed_2 = back(8, mlp[0], &d_inner, &normed_2);
    let (mut d_stream, [mut g2, mut b2]) = (nan(n * d), [nan(d), nan(d)]);
    let (d_gain, d_bias, mean, rstd) = (Some(&mut g2[..]), Some(&mut b2[..]), &mean_2, &rstd_2);
    layer_norm::backward(
        exec,
        &d_normed_2,
        &stream,
        norms[1].gain,
        mean,
        rstd,
        Some(d_y),
        &mut d_stream,
        d_gain,
        d_bias,
    );
    let d_mixed = back(6, out, &d_stream, &mixed);
    let mut d_packed = nan(packed.len());
    attention::backward(exec, &spec, &d_mixed, &packed, &mixed, &lse, &mut d_packed);
    let d_normed_1 = back(4, qkv, &d_packed, &normed_1);
    let (mut d_x, [mut g1, mut b1]) = (nan(n * d), [nan(d), nan(d)]);
    let (d_gain, d_bias) = (Some(&mut g1[..]), Some(&mut b1[..]));
    let around = Some(&d_stream[..]);
    layer_norm::backward(exec, &d_normed_1, x, norms[0].gain, &mean_1, &rstd_1, around, &mut d_x, d_gain, d_bias);
    for (at, sums) in [g1, b1, g2, b2].into_iter().enumerate() {
        g[at] = sums;
    }
    ([y, d_x], g)
}

/// The same bits, NaN where both are.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[test]
fn it_has_the_bits_of_its_layers_one_after_the_other() {
    let lengths: [&[usize]; 3] = [&[64; 8], &[70, 1, 30, 200, 64, 64, 3, 129, 66, 300, 64, 65], &[40; 17]];
    for (case, (lengths, (heads, dim, inner))) in
        lengths.into_iter().zip([(4, 16, 256), (3, 5, 33), (2, 32, 128)]).enumerate()
    {
        let (parameters, segments) = (Parameters::new(heads, dim, inner), Segments::of_lengths(lengths));
        let (block, n) = (parameters.block(&segments, case != 1), segments.tokens());
        let (x, d_y) = (test_input(n * heads * dim, 20), test_input(n * heads * dim, 21));
        let sets = Isa::available().into_iter().map(|isa| (isa, Precision::F32));
        for (isa, precision) in sets.chain([(Isa::detect(), Precision::Mixed)]) {
            let exec = |threads| Exec::new(threads).with_isa(isa).with_precision(precision);
            let (want, want_g) = layer_by_layer(exec(2), &parameters, &block, &x, &d_y);
            let (first, first_g) = depth_first(exec(1), &parameters, &block, &x, &d_y);
            let what = format!("case {case}, {isa:?}, {precision:?}");
            assert!(first.iter().zip(&want).all(|(a, b)| same(a, b)), "values of {what}");
            for (at, (found, want)) in first_g.iter().zip(&want_g).enumerate() {
                // Those of norms and biases are summed in other parts.
                let bound = 1e-5 * want.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
                let near = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a - b).abs() <= bound;
                let fits = if at < 4 || at % 2 == 1 { found.iter().zip(want).all(near) } else { same(found, want) };
                assert!(fits, "gradient {at} of {what}");
            }
            for threads in [2, 3, 7] {
                let (found, found_g) = depth_first(exec(threads), &parameters, &block, &x, &d_y);
                let fits = found.iter().zip(&first).chain(found_g.iter().zip(&first_g)).all(|(a, b)| same(a, b));
                assert!(fits, "{threads} threads, {what}");
            }
        }
    }
}

/// Sums of a shared dimension this long go back to memory on the way, which copies of the weights are not made for. All tokens are in one
/// half, since no sequence is parted.
#[test]
fn long_layers_and_a_single_unit_have_the_bits_of_layers() {
    let (parameters, segments) = (Parameters::new(4, 64, 1040), Segments::of_lengths(&[20, 9]));
    let (block, exec) = (parameters.block(&segments, true), Exec::new(2));
    let [x, d_y] = [20, 21].map(|salt| test_input(segments.tokens() * 256, salt));
    let (found, found_g) = depth_first(exec, &parameters, &block, &x, &d_y);
    let mut want = layer_by_layer(exec, &parameters, &block, &x, &d_y).0;
    if exec.isa() != Isa::Neon {
        assert!(found.iter().zip(&want).all(|(a, b)| same(a, b)));
    }
    want = depth_first(exec.with_threads(1), &parameters, &block, &x, &d_y).0;
    assert!(found == want && found_g.iter().flatten().all(|x| x.is_finite()));
}

#[test]
fn every_sequence_is_in_one_task() {
    let parameters = Parameters::new(1, 4, 8);
    for lengths in [&[64; 12][..], &[1; 700], &[500, 1, 1, 1], &[10, 60, 70, 5]] {
        let segments = Segments::of_lengths(lengths);
        let block = parameters.block(&segments, true);
        for (threads, falling) in [(1, false), (2, true), (5, false), (64, true)] {
            let tasks = block.tasks(threads, 128, falling);
            let middle = tokens_of(&halves(&segments)[0]).end;
            assert!(tasks.iter().map(|task| whole(task).tokens).all(|at| at.end <= middle || at.start >= middle));
            let parts: Vec<Part> = tasks.iter().map(|task| whole(task)).collect();
            assert!(parts.iter().flat_map(|part| part.segments.clone()).eq(0..lengths.len()), "{lengths:?}");
            assert!(parts.iter().flat_map(|part| part.tokens.clone()).eq(0..segments.tokens()), "{lengths:?}");
            assert_eq!(tasks.concat().len(), units(&segments).len());
        }
    }
    let segments = Segments::uniform(12, 64);
    let units_of = |threads, falling| -> Vec<usize> {
        parameters.block(&segments, true).tasks(threads, 128, falling).iter().map(Vec::len).collect()
    };
    assert_eq!(units_of(2, true), [2, 2, 1, 1, 2, 2, 1, 1], "of each half");
    assert_eq!(units_of(2, false), [2; 6]);
    assert_eq!(units_of(6, false), [1; 12], "as many threads as there are units");
}

#[test]
fn it_pays_for_small_models_with_many_sequences_that_stand_alone() {
    let (exec, many) = (Exec::new(2).with_isa(Isa::Portable), Segments::uniform(8, 64));
    assert!(pays(exec, &many, 128, 512));
    assert!(!pays(exec, &many, 768, 3072), "weights too large");
    assert!(!pays(exec, &Segments::uniform(4, 256), 128, 512), "too few sequences");
    assert!(!pays(exec, &Segments::uniform(7, 64), 128, 512), "too few sequences");
    assert!(!pays(exec, &many.clone().with_continuation(3, 5), 128, 512), "a sequence continues another");
}

#[test]
#[should_panic(expected = "continues another")]
fn a_segment_that_continues_another_is_refused() {
    let (parameters, segments) = (Parameters::new(1, 4, 8), Segments::uniform(8, 64).with_continuation(0, 3));
    let x = test_input(segments.tokens() * 4, 1);
    forward(Exec::new(1), &parameters.block(&segments, true), &x, &mut nan(x.len()));
}
