//! Every fused operation equals its composition of Burn's own operations, in values and gradients: the one serves the
//! CPU, the other every other device.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use burn::tensor::{Device, Tensor, TensorData};
use cavy_ops::kernels::packed::{Format, PackedMatrix};
use cavy_ops::{
    AttentionSpec, BlockSpec, BlockWeights, Exec, Gelu, Heads, LowRank, Residual, Segments, SharedInput, TiedGradient,
    Weight, add, add_residual, attention, composed_everywhere, concat, dropout, embedding, embedding_tied, gelu,
    gelu_mlp, gpt2_block, layer_norm, layer_norm_residual, linear, linear_cross_entropy, linear_shared, low_rank,
    packed_cross_entropy, packed_head, packed_linear, packed_token_logprobs, rescale, rms_norm, rms_norm_residual,
    rope, swiglu, token_logprobs,
};
use std::sync::Arc;

fn input<const D: usize>(shape: [usize; D], salt: usize) -> Tensor<D> {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| ((i * 7919 + salt * 104_729) % 2003) as f32 / 2003.0 - 0.5).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Values of `f(inputs)` and the gradients by the inputs of its sum weighted by test values.
fn run<const D: usize>(inputs: &[Tensor<2>], f: &impl Fn(&[Tensor<2>]) -> Tensor<D>) -> Vec<Vec<f32>> {
    let leaves: Vec<Tensor<2>> = inputs.iter().map(|x| Tensor::from_inner(x.clone()).require_grad()).collect();
    let y = f(&leaves);
    let weights = Tensor::from_inner(input(y.dims(), 99));
    let mut gradients = (y.clone() * weights).sum().backward();
    let mut results = vec![values(y.inner())];
    for leaf in &leaves {
        results.push(leaf.grad_remove(&mut gradients).map(values).unwrap_or_default());
    }
    results
}

fn check<const D: usize>(inputs: &[Tensor<2>], f: impl Fn(&[Tensor<2>]) -> Tensor<D>) {
    let fused = run(inputs, &f);
    let composed = composed_everywhere(|| run(inputs, &f));
    for (index, (fused, composed)) in fused.iter().zip(&composed).enumerate() {
        assert!(!fused.is_empty(), "result {index} is missing");
        assert_eq!(fused.len(), composed.len(), "result {index}");
        for (a, b) in fused.iter().zip(composed) {
            assert!((a - b).abs() <= 2e-5 * (1.0 + b.abs()), "result {index}: {a} fused, {b} composed");
        }
    }
    // The same without autodiff.
    let plain = values(f(inputs));
    assert_eq!(plain, fused[0], "values outside the autodiff graph");
}

fn row(x: &Tensor<2>) -> Tensor<1> {
    let [_, d] = x.dims();
    x.clone().reshape([d])
}

#[test]
fn linear_layers() {
    let inputs = [input([5, 7], 1), input([9, 7], 2), input([1, 9], 3)];
    check(&inputs, |x| linear(x[0].clone(), x[1].clone(), Some(row(&x[2]))));
    check(&inputs[..2], |x| linear(x[0].clone(), x[1].clone(), None));
}

#[test]
fn a_frozen_weight_gets_no_gradient_and_its_input_still_does() {
    let x = Tensor::from_inner(input([5, 7], 1)).require_grad();
    let weight = Tensor::from_inner(input([9, 7], 2));
    let mut gradients = linear(x.clone(), weight.clone(), None).sum().backward();
    assert!(x.grad_remove(&mut gradients).is_some());
    assert!(weight.grad_remove(&mut gradients).is_none());
}

/// `(rows, cols)` weights in a storage form.
fn packed(format: Format, rows: usize, cols: usize, salt: usize) -> PackedMatrix {
    PackedMatrix::quantize(Exec::new(1), format, rows, cols, &values(input([rows, cols], salt))).unwrap().unwrap()
}

#[test]
fn frozen_layers_in_storage_forms() {
    for format in [Format::F16, Format::Bf16, Format::Q8_0, Format::Q4_1] {
        let (first, second) = (packed(format, 9, 64, 2), packed(format, 5, 64, 3));
        // More rows than are rounded outside an autodiff graph.
        let inputs = [input([17, 64], 1), input([1, 9], 4)];
        for k in 0..2 {
            check(&inputs, |x| {
                packed_linear(x[0].clone(), [(&first, Some(row(&x[1]))), (&second, None)])[k].clone()
                    + row(&x[1]).sum().unsqueeze()
            });
        }
        check(&inputs[..1], |x| packed_head(x[0].clone(), &first));
    }
}

#[test]
fn a_frozen_layer_in_a_graph_does_not_round_its_input() {
    let weight = packed(Format::Q8_0, 9, 64, 2);
    let x = input([3, 64], 1);
    let of = |x: Tensor<2>| {
        let [y] = packed_linear(x, [(&weight, None)]);
        y
    };
    let inside = run(std::slice::from_ref(&x), &|x: &[Tensor<2>]| of(x[0].clone()));
    let composed = composed_everywhere(|| run(std::slice::from_ref(&x), &|x: &[Tensor<2>]| of(x[0].clone())));
    let gap = |y: &[f32]| y.iter().zip(&composed[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(gap(&inside[0]) < 1e-6 && gap(&values(of(x))) > 1e-4);
}

#[test]
fn norms() {
    let inputs = [input([6, 33], 1), input([1, 33], 2), input([1, 33], 3)];
    check(&inputs, |x| layer_norm(x[0].clone(), row(&x[1]), Some(row(&x[2])), 1e-5));
    check(&inputs[..2], |x| layer_norm(x[0].clone(), row(&x[1]), None, 1e-5));
    check(&inputs[..2], |x| rms_norm(x[0].clone(), row(&x[1]), 1e-6));
}

#[test]
fn norms_of_a_residual_stream() {
    // Two blocks, so that the second's gradient goes around the first's branch and through it.
    let inputs = [input([6, 33], 1), input([1, 33], 2), input([1, 33], 3), input([33, 33], 4)];
    check(&inputs, |x| {
        (0..2).fold(x[0].clone(), |stream, _| {
            let residual = Residual::default();
            let beta = Some(row(&x[2]));
            let normed = layer_norm_residual(stream.clone(), row(&x[1]), beta, 1e-5, Some(residual.clone()));
            add_residual(stream, linear(normed, x[3].clone(), None), residual)
        })
    });
    check(&[inputs[0].clone(), inputs[1].clone(), inputs[3].clone()], |x| {
        (0..2).fold(x[0].clone(), |stream, _| {
            let residual = Residual::default();
            let normed = rms_norm_residual(stream.clone(), row(&x[1]), 1e-6, Some(residual.clone()));
            add_residual(stream, linear(normed, x[2].clone(), None), residual)
        })
    });
}

#[test]
fn pointwise_functions() {
    let (x, y) = (input([4, 19], 1) * 8.0, input([4, 19], 2) * 8.0);
    for form in [Gelu::Tanh, Gelu::Erf] {
        check(std::slice::from_ref(&x), |x| gelu(x[0].clone(), form));
    }
    check(&[x.clone(), y.clone()], |x| add(x[0].clone(), x[1].clone()));
    check(&[x.clone(), y], |x| swiglu(x[0].clone(), x[1].clone()));
    check(&[x], |x| dropout(x[0].clone(), 0.3, 5));
}

#[test]
fn two_layers_with_a_gelu_between() {
    let inputs = [input([21, 12], 1), input([40, 12], 2) * 4.0, input([1, 40], 3), input([9, 40], 4), input([1, 9], 5)];
    for form in [Gelu::Tanh, Gelu::Erf] {
        check(&inputs, |x| gelu_mlp(x[0].clone(), [(x[1].clone(), row(&x[2])), (x[3].clone(), row(&x[4]))], form));
        // With a frozen first layer.
        let frozen = (Tensor::from_inner(inputs[1].clone()), Tensor::from_inner(row(&inputs[2])));
        let learning = [inputs[0].clone(), inputs[3].clone(), inputs[4].clone()];
        let plain = (inputs[1].clone(), row(&inputs[2]));
        check(&learning, |x| {
            let first = if x[0].is_autodiff() { frozen.clone() } else { plain.clone() };
            gelu_mlp(x[0].clone(), [first, (x[1].clone(), row(&x[2]))], form)
        });
    }
}

/// As one operation and composed of Burn's own. With a bias for queries, keys and values and without.
#[test]
fn a_block_of_gpt2() {
    let (d, f, segments) = (12, 20, Arc::new(Segments::of_lengths(&[64, 70, 64, 3, 61, 64, 64, 64, 64, 65])));
    let n = segments.tokens();
    let sizes = [[n, d], [1, d], [1, d], [1, d], [1, d], [3 * d, d], [d, d], [1, d], [f, d], [1, f], [d, f], [1, d]];
    let mut inputs: Vec<_> = sizes.into_iter().enumerate().map(|(salt, shape)| input(shape, salt)).collect();
    let heads = Heads::new(3, 3, d / 3).unwrap();
    let spec = |segments: &Arc<Segments>| AttentionSpec {
        heads,
        segments: Arc::clone(segments),
        window: None,
        scale: 0.5,
        dropout: 0.0,
        dropout_key: 0,
    };
    for qkv_bias in [false, true] {
        inputs.extend(qkv_bias.then(|| input([1, 3 * d], 40)));
        check(&inputs, |t| {
            let layer = |at: usize| (t[at].clone(), Some(row(&t[at + 1])));
            let weights = BlockWeights {
                norms: [(row(&t[1]), row(&t[2])), (row(&t[3]), row(&t[4]))],
                qkv: (t[5].clone(), t.get(12).map(row)),
                out: layer(6),
                mlp: [layer(8), layer(10)],
            };
            let spec = BlockSpec { attention: spec(&segments), eps: 1e-5, gelu: Gelu::Tanh };
            let x = t[0].clone();
            if let Some(y) = gpt2_block(&x, &weights, &spec) {
                return y;
            }
            let BlockWeights { norms: [first, second], qkv, out, mlp: [fc, proj] } = weights;
            let qkv = linear(layer_norm(x.clone(), first.0, Some(first.1), 1e-5), qkv.0, qkv.1);
            let x = add(x, linear(attention(qkv, &spec.attention), out.0, out.1));
            let inner = linear(layer_norm(x.clone(), second.0, Some(second.1), 1e-5), fc.0, fc.1);
            add(x, linear(gelu(inner, Gelu::Tanh), proj.0, proj.1))
        });
    }
    let weights = BlockWeights {
        norms: [(row(&inputs[1]), row(&inputs[2])), (row(&inputs[3]), row(&inputs[4]))],
        qkv: (inputs[5].clone(), None),
        out: (inputs[6].clone(), Some(row(&inputs[7]))),
        mlp: [(inputs[8].clone(), Some(row(&inputs[9]))), (inputs[10].clone(), Some(row(&inputs[11])))],
    };
    let serves = |segments, dropout| {
        let attention = AttentionSpec { dropout, ..spec(segments) };
        gpt2_block(&inputs[0], &weights, &BlockSpec { attention, eps: 1e-5, gelu: Gelu::Tanh }).is_some()
    };
    assert!(serves(&segments, 0.0), "the comparison above was of one body with itself");
    assert!(!serves(&segments, 0.1) && !serves(&Arc::new(Segments::of_lengths(&[n])), 0.0));
}

#[test]
fn embeddings() {
    let ids: Arc<[u32]> = Arc::from([3, 0, 3, 6]);
    check(&[input([7, 5], 1)], |x| embedding(x[0].clone(), &ids));
}

#[test]
fn a_tied_weight_gets_the_gradients_of_both_its_uses() {
    let (ids, targets): (Arc<[u32]>, Arc<[u32]>) = (Arc::from([3, 0, 3, 6]), Arc::from([1, 1, 2, 5]));
    check(&[input([7, 5], 1)], |x| {
        let tied = TiedGradient::default();
        let hidden = embedding_tied(x[0].clone(), &ids, &tied);
        linear_cross_entropy(hidden, x[0].clone(), &targets, &[0.5, 0.25, 0.0, 1.0], Some(&tied)).loss
    });
}

#[test]
fn rotary_embeddings() {
    let positions: Arc<[u32]> = Arc::from([0, 1, 2, 1000]);
    let inv_freq: Arc<[f32]> = Arc::from([1.0, 0.1, 0.01]);
    check(&[input([4, 12], 1)], |x| rope(x[0].clone(), 2, &positions, &inv_freq));
}

#[test]
fn attention_with_groups_window_prefix_and_dropout() {
    for (window, dropout) in [(None, 0.0), (Some(3), 0.0), (None, 0.25)] {
        let spec = AttentionSpec {
            heads: Heads::new(4, 2, 6).unwrap(),
            segments: Arc::new(Segments::of_lengths(&[5, 1]).with_continuation(0, 4).with_continuation(2, 2)),
            window,
            scale: 0.4,
            dropout,
            dropout_key: 3,
        };
        check(&[input([12, 48], 1) * 3.0], |x| attention(x[0].clone(), &spec));
    }
}

#[test]
fn the_output_head() {
    let inputs = [input([6, 8], 1) * 3.0, input([11, 8], 2)];
    let targets: Arc<[u32]> = Arc::from([0, 10, 3, 3, 7, 1]);
    for weights in [[0.2; 6], [0.0, 1.0, 0.5, 0.0, 0.0, 2.0]] {
        check(&inputs, |x| linear_cross_entropy(x[0].clone(), x[1].clone(), &targets, &weights, None).loss);
    }
    check(&inputs, |x| {
        let (logprobs, entropy) = token_logprobs(x[0].clone(), x[1].clone(), &targets, None);
        logprobs + entropy * 0.5
    });
}

#[test]
fn the_output_head_in_storage_forms() {
    let (hidden, weight) = (input([6, 32], 1) * 3.0, packed(Format::Q4_1, 11, 32, 2));
    let targets: Arc<[u32]> = Arc::from([0, 10, 3, 3, 7, 1]);
    for weights in [[0.2; 6], [0.0, 1.0, 0.5, 0.0, 0.0, 2.0]] {
        check(std::slice::from_ref(&hidden), |x| packed_cross_entropy(x[0].clone(), &weight, &targets, &weights).loss);
    }
    for by_entropy in [0.5, 0.0] {
        check(std::slice::from_ref(&hidden), |x| {
            let (logprobs, entropy) = packed_token_logprobs(x[0].clone(), &weight, &targets);
            logprobs + entropy * by_entropy
        });
        // A frozen weight as a tensor: gradient rows are formed with the logits.
        let frozen = Tensor::from_inner(input([11, 32], 2));
        check(std::slice::from_ref(&hidden), |x| {
            let frozen = if x[0].is_autodiff() { frozen.clone() } else { frozen.clone().inner() };
            let (logprobs, entropy) = token_logprobs(x[0].clone(), frozen, &targets, None);
            logprobs * 3.0 + entropy * by_entropy
        });
    }
}

#[test]
fn log_probabilities_come_with_the_loss() {
    let (hidden, weight) = (input([6, 8], 1) * 3.0, input([11, 8], 2));
    let targets: Arc<[u32]> = Arc::from([0, 10, 3, 3, 7, 1]);
    let weights = [1.0, 0.5, 0.0, 1.0, 1.0, 2.0];
    let fused = linear_cross_entropy(hidden.clone(), weight.clone(), &targets, &weights, None);
    let (all, _) = token_logprobs(hidden.clone(), weight.clone(), &targets, None);
    let all = values(all);
    let loss: f32 = weights.iter().zip(&all).map(|(w, logprob)| -w * logprob).sum();
    assert!((values(fused.loss)[0] - loss).abs() < 1e-5);
    let composed =
        composed_everywhere(|| linear_cross_entropy(hidden.clone(), weight.clone(), &targets, &weights, None));
    assert_eq!(fused.targets.likeliest, composed.targets.likeliest);
    for (n, (found, expected)) in fused.targets.logprobs.iter().zip(&all).enumerate() {
        // A token without weight is not computed.
        assert!((found - if n == 2 { 0.0 } else { *expected }).abs() < 1e-5, "{n}");
    }
}

#[test]
fn low_rank_corrections() {
    for (blocks, dropout) in [(1, 0.0), (3, 0.0), (1, 0.4), (3, 0.4)] {
        let how = LowRank { scale: 0.7, blocks, dropout, dropout_key: 5 };
        // The result, the input, and both factors.
        let inputs = [input([5, 12], 1), input([5, 33], 2), input([4 * blocks, 33], 3), input([12, 4], 4)];
        check(&inputs, |x| low_rank(x[0].clone(), x[1].clone(), x[2].clone(), x[3].clone(), how, None));
    }
}

#[test]
fn learned_lengths_of_rows() {
    let norms: Vec<f32> = (1..=9).map(|i| i as f32 * 0.3).collect();
    let inputs = [input([70, 9], 1), input([1, 9], 2), input([1, 9], 3)];
    check(&inputs, |x| rescale(x[0].clone(), row(&x[1]), &norms, Some(row(&x[2]))));
    check(&inputs[..2], |x| rescale(x[0].clone(), row(&x[1]), &norms, None));
}

#[test]
fn the_gradients_of_a_shared_input_meet_in_one_buffer() {
    for dropout in [0.0, 0.4] {
        let how = LowRank { scale: 0.7, blocks: 1, dropout, dropout_key: 5 };
        let inputs = [input([5, 33], 1), input([7, 33], 2), input([6, 33], 3), input([4, 33], 4), input([7, 4], 5)];
        check(&inputs, |x| {
            let shared = SharedInput::new(3);
            let first = linear_shared(x[0].clone(), x[1].clone(), None, Some(&shared));
            let first = low_rank(first, x[0].clone(), x[3].clone(), x[4].clone(), how, Some(&shared));
            let second = linear_shared(x[0].clone(), x[2].clone(), None, Some(&shared));
            concat([first, second.clone(), second * 2.0])
        });
    }
}

#[test]
fn norms_of_corrected_rows_are_those_of_the_formed_matrix() {
    let how = LowRank { scale: 0.7, blocks: 1, dropout: 0.0, dropout_key: 0 };
    let (weight, a, b) = (input([9, 64], 1), input([4, 64], 2), input([9, 4], 3));
    let stored = packed(Format::Q8_0, 9, 64, 1);
    for base in [Weight::Dense(weight), Weight::Packed(&stored)] {
        let found = base.adapted_norms(&base.row_squares(), &a, &b, &how);
        let whole = Tensor::<2>::from_data(TensorData::new(base.values(), [9, 64]), &Device::flex());
        let formed = whole + b.clone().matmul(a.clone()) * 0.7;
        let expected = values((formed.clone() * formed).sum_dim(1).sqrt());
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= 2e-6 * expected, "{found}, {expected}");
        }
    }
}
