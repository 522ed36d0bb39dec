//! The output head: log-probabilities of target tokens without the logits of all.

use crate::cpu::{CpuOp, Input, apply, dims, exec, filled, filled_if, is_fused, slice, slice_mut, tensor};
use crate::embedding::TiedGradient;
use burn::tensor::{Int, Tensor, TensorData, activation};
use burn_flex::FlexTensor;
use cavy_kernels::buffer::unfilled;
use cavy_kernels::head::{self, HeadInput};
use std::sync::Arc;

/// The loss of [`linear_cross_entropy`] with what it is made of.
#[derive(Debug)]
pub struct CrossEntropy {
    /// `-sum_n weights_n logprob_n`, one element.
    pub loss: Tensor<1>,
    /// Log-probability of each target, in nats; not differentiable.
    pub logprobs: Vec<f32>,
}

/// Cross-entropy of the targets: `-sum_n weights_n ln softmax(hidden_n W^T)[targets_n]`.
///
/// For training, where the weights are known beforehand: gradients are formed together with the loss, so logits are
/// computed once and never for more than a chunk of tokens. Tokens of weight zero cost nothing.
/// Give `tied` where `weight` is also the embedding's (see [`TiedGradient`]).
///
/// Shapes: `hidden` is `(N, D)`, `weight` `(V, D)`, `targets` and `weights` `(N)`.
///
/// Panics: if a target is not below `V`.
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: &Arc<[u32]>,
    weights: &[f32],
    tied: Option<&TiedGradient>,
) -> CrossEntropy {
    assert_eq!(targets.len(), weights.len(), "a weight for every target");
    if !is_fused(&hidden) {
        let (logprobs, _) = composed(hidden, weight, targets);
        let count = weights.len();
        let weights = Tensor::<1>::from_data(TensorData::new(weights.to_vec(), [count]), &logprobs.device());
        let loss = (logprobs.clone() * weights).sum().neg();
        let logprobs = logprobs.into_data().try_to_vec().unwrap_or_default();
        return CrossEntropy { loss, logprobs };
    }
    let counted: Vec<usize> = (0..weights.len()).filter(|&n| weights[n] != 0.0).collect();
    let logprobs = Arc::new(std::sync::OnceLock::new());
    let op = CrossEntropyOp {
        targets: counted.iter().map(|&n| targets[n]).collect(),
        weights: counted.iter().map(|&n| weights[n]).collect(),
        rows: (counted.len() < weights.len()).then(|| counted.iter().map(|&n| n as u32).collect()),
        logprobs: Arc::clone(&logprobs),
        tied: tied.cloned(),
    };
    let loss = apply(op, [Input::of(hidden), Input::of(weight)]);
    let found = logprobs.get().cloned().unwrap_or_default();
    let mut logprobs = vec![0.0; weights.len()];
    counted.iter().zip(found).for_each(|(&n, logprob)| logprobs[n] = logprob);
    CrossEntropy { loss, logprobs }
}

#[derive(Debug)]
struct CrossEntropyOp {
    targets: Vec<u32>,
    weights: Vec<f32>,
    /// The tokens that carry weight, if not all do.
    rows: Option<Vec<u32>>,
    logprobs: Arc<std::sync::OnceLock<Vec<f32>>>,
    tied: Option<TiedGradient>,
}

impl CpuOp<2> for CrossEntropyOp {
    /// The gradients themselves, for a loss whose own gradient is one.
    type Saved = (Option<FlexTensor>, Option<FlexTensor>);

    fn forward(&self, [hidden, weight]: [FlexTensor; 2], tracked: [bool; 2]) -> (FlexTensor, Self::Saved) {
        let ([n, dim], [vocab, _]) = (dims::<2>(&hidden), dims::<2>(&weight));
        let counted = self.targets.len();
        let gathered = self.rows.as_ref().map(|rows| {
            let mut gathered = unfilled(counted * dim);
            cavy_kernels::embedding::forward(exec(), slice(&hidden), dim, rows, &mut gathered);
            gathered
        });
        let input = HeadInput {
            hidden: gathered.as_deref().unwrap_or_else(|| slice(&hidden)),
            weight: slice(&weight),
            targets: &self.targets,
        };
        let mut logprobs = unfilled(counted);
        let mut d_hidden = filled_if(tracked[0], [counted, dim], |_| ());
        let mut d_weight = filled_if(tracked[1], [vocab, dim], |_| ());
        let (d_h, d_w) = (d_hidden.as_mut().map(slice_mut), d_weight.as_mut().map(slice_mut));
        head::cross_entropy(exec(), &input, &self.weights, &mut logprobs, d_h, d_w);
        if let (Some(rows), Some(compact)) = (&self.rows, &d_hidden) {
            let mut spread = tensor(vec![0.0; n * dim], [n, dim]);
            cavy_kernels::embedding::backward_add(exec(), slice(compact), dim, rows, slice_mut(&mut spread));
            d_hidden = Some(spread);
        }
        let pairs = logprobs.iter().zip(&self.weights);
        let loss: f64 = -pairs.map(|(&logprob, &weight)| f64::from(logprob) * f64::from(weight)).sum::<f64>();
        self.logprobs.get_or_init(|| logprobs);
        (tensor(vec![loss as f32], [1]), (d_hidden, d_weight))
    }

    fn backward(self, d_y: FlexTensor, saved: Self::Saved, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let factor = slice(&d_y)[0];
        let scaled = |gradient: Option<FlexTensor>| {
            gradient.map(|mut gradient| {
                if factor != 1.0 {
                    slice_mut(&mut gradient).iter_mut().for_each(|x| *x *= factor);
                }
                gradient
            })
        };
        let (d_hidden, d_weight) = (scaled(saved.0), scaled(saved.1));
        match (self.tied, d_weight) {
            (Some(tied), Some(d_weight)) => {
                tied.put(d_weight);
                [d_hidden, None]
            }
            (_, d_weight) => [d_hidden, d_weight],
        }
    }
}

/// Log-probability of each target and entropy of each prediction, both differentiable, in nats.
///
/// The backward pass forms the logits again. Where the weights of a loss are known beforehand,
/// [`linear_cross_entropy`] is cheaper by a third.
///
/// Shapes: `hidden` is `(N, D)`, `weight` `(V, D)`, both results `(N)`.
///
/// Panics: if a target is not below `V`.
pub fn token_logprobs(hidden: Tensor<2>, weight: Tensor<2>, targets: &Arc<[u32]>) -> (Tensor<1>, Tensor<1>) {
    if !is_fused(&hidden) {
        return composed(hidden, weight, targets);
    }
    let n = targets.len();
    let both: Tensor<2> = apply(TokenLogprobs(Arc::clone(targets)), [Input::of(hidden), Input::of(weight)]);
    (both.clone().narrow(0, 0, 1).reshape([n]), both.narrow(0, 1, 1).reshape([n]))
}

fn composed(hidden: Tensor<2>, weight: Tensor<2>, targets: &[u32]) -> (Tensor<1>, Tensor<1>) {
    let n = targets.len();
    let logprobs = activation::log_softmax(hidden.matmul(weight.transpose()), 1); // (N, V)
    let targets: Vec<i64> = targets.iter().map(|&t| i64::from(t)).collect();
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [n, 1]), &logprobs.device());
    let entropy = (logprobs.clone().exp() * logprobs.clone()).sum_dim(1).neg();
    (logprobs.gather(1, targets).reshape([n]), entropy.reshape([n]))
}

/// Both results as the rows of one tensor, since an operation of the graph has one output.
#[derive(Debug)]
struct TokenLogprobs(Arc<[u32]>);

impl CpuOp<2> for TokenLogprobs {
    /// Hidden states, weight, entropy and the log of each softmax's denominator.
    type Saved = (FlexTensor, FlexTensor, Vec<f32>, Vec<f32>);

    fn forward(&self, [hidden, weight]: [FlexTensor; 2], _: [bool; 2]) -> (FlexTensor, Self::Saved) {
        let n = self.0.len();
        let (mut entropy, mut lse) = (unfilled(n), unfilled(n));
        let both = filled([2, n], |both| {
            let (logprobs, entropies) = both.split_at_mut(n);
            let input = HeadInput { hidden: slice(&hidden), weight: slice(&weight), targets: &self.0 };
            head::token_logprobs(exec(), &input, logprobs, &mut entropy, &mut lse);
            entropies.copy_from_slice(&entropy);
        });
        (both, (hidden, weight, entropy, lse))
    }

    fn backward(self, d_y: FlexTensor, saved: Self::Saved, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let (hidden, weight, entropy, lse) = saved;
        let mut d_hidden = filled_if(wanted[0], dims::<2>(&hidden), |_| ());
        let mut d_weight = filled_if(wanted[1], dims::<2>(&weight), |_| ());
        let input = HeadInput { hidden: slice(&hidden), weight: slice(&weight), targets: &self.0 };
        let (d_h, d_w) = (d_hidden.as_mut().map(slice_mut), d_weight.as_mut().map(slice_mut));
        let gradients = slice(&d_y).split_at(self.0.len());
        head::token_logprobs_backward(exec(), &input, gradients, (&entropy, &lse), d_h, d_w);
        [d_hidden, d_weight]
    }
}
