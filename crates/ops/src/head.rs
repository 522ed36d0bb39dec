//! The output head: log-probabilities of target tokens without the logits of all.

use crate::cpu::{CpuOp, Input, apply, dims, exec, filled, filled_if, is_fused, slice, slice_mut, tensor};
use crate::embedding::TiedGradient;
use crate::packed::plain;
use burn::tensor::{Int, Tensor, TensorData, activation};
use burn_flex::FlexTensor;
use cavy_kernels::buffer::unfilled;
use cavy_kernels::head::{self, HeadInput, HeadWeight};
use cavy_kernels::packed::PackedMatrix;
use std::sync::Arc;

/// The loss of [`linear_cross_entropy`] with what it is made of.
#[derive(Debug)]
pub struct CrossEntropy {
    /// `-sum_n weights_n logprob_n`, one element.
    pub loss: Tensor<1>,
    /// What the model makes of each target; not differentiable.
    pub targets: TargetScores,
}

/// What a model makes of targets, one after the other. Where a target has no weight, nothing is known of it: 0 and false.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetScores {
    /// Log-probability of each, in nats.
    pub logprobs: Vec<f32>,
    /// Whether it is the likeliest token.
    pub likeliest: Vec<bool>,
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
        let logits = hidden.clone().matmul(weight.clone().transpose());
        let likeliest: Vec<i64> = logits.argmax(1).into_data().convert::<i64>().try_to_vec().unwrap_or_default();
        let (logprobs, _) = composed(hidden, weight, targets);
        let count = weights.len();
        let factors = Tensor::<1>::from_data(TensorData::new(weights.to_vec(), [count]), &logprobs.device());
        let loss = (logprobs.clone() * factors).sum().neg();
        let logprobs: Vec<f32> = logprobs.into_data().try_to_vec().unwrap_or_default();
        let known = |n: usize| weights[n] != 0.0;
        let scores = TargetScores {
            logprobs: (0..count).map(|n| if known(n) { logprobs[n] } else { 0.0 }).collect(),
            likeliest: (0..count).map(|n| known(n) && likeliest[n] == i64::from(targets[n])).collect(),
        };
        return CrossEntropy { loss, targets: scores };
    }
    let (hidden, weight) = (Input::of(hidden), Input::of(weight));
    fused_cross_entropy(targets, weights, tied.cloned(), None, |op| apply(op, [hidden, weight]))
}

/// [`linear_cross_entropy`] by a head that lies packed: the loss is differentiable by `hidden`, and the weight is frozen.
///
/// Shapes, Panics: as there.
pub fn packed_cross_entropy(
    hidden: Tensor<2>,
    weight: &PackedMatrix,
    targets: &Arc<[u32]>,
    weights: &[f32],
) -> CrossEntropy {
    if !is_fused(&hidden) {
        let weight = frozen(&hidden, weight);
        return linear_cross_entropy(hidden, weight, targets, weights, None);
    }
    let hidden = Input::of(hidden);
    fused_cross_entropy(targets, weights, None, Some(weight.clone()), |op| apply(op, [hidden]))
}

/// A copy of a packed weight as a tensor beside `hidden`.
fn frozen(hidden: &Tensor<2>, weight: &PackedMatrix) -> Tensor<2> {
    let weight = plain(weight, &hidden.device());
    if hidden.is_autodiff() { Tensor::from_inner(weight) } else { weight }
}

/// The loss by the kernel; tokens of weight zero are left out.
fn fused_cross_entropy(
    targets: &[u32],
    weights: &[f32],
    tied: Option<TiedGradient>,
    packed: Option<PackedMatrix>,
    apply: impl FnOnce(CrossEntropyOp) -> Tensor<1>,
) -> CrossEntropy {
    assert_eq!(targets.len(), weights.len(), "a weight for every target");
    let counted: Vec<usize> = (0..weights.len()).filter(|&n| weights[n] != 0.0).collect();
    let scores = Arc::new(std::sync::OnceLock::new());
    let op = CrossEntropyOp {
        targets: counted.iter().map(|&n| targets[n]).collect(),
        weights: counted.iter().map(|&n| weights[n]).collect(),
        rows: (counted.len() < weights.len()).then(|| counted.iter().map(|&n| n as u32).collect()),
        scores: Arc::clone(&scores),
        tied,
        packed,
    };
    let loss = apply(op);
    let found = scores.get().cloned().unwrap_or_default();
    let count = weights.len();
    let mut scores = TargetScores { logprobs: vec![0.0; count], likeliest: vec![false; count] };
    for ((&n, logprob), likeliest) in counted.iter().zip(found.logprobs).zip(found.likeliest) {
        (scores.logprobs[n], scores.likeliest[n]) = (logprob, likeliest);
    }
    CrossEntropy { loss, targets: scores }
}

#[derive(Debug)]
struct CrossEntropyOp {
    targets: Vec<u32>,
    weights: Vec<f32>,
    /// The tokens that carry weight, if not all do.
    rows: Option<Vec<u32>>,
    scores: Arc<std::sync::OnceLock<TargetScores>>,
    tied: Option<TiedGradient>,
    /// The weight, where it is no input.
    packed: Option<PackedMatrix>,
}

/// The gradients themselves, for a loss whose own gradient is one.
type LossGradients = (Option<FlexTensor>, Option<FlexTensor>);

impl CrossEntropyOp {
    fn compute(&self, hidden: &FlexTensor, weight: HeadWeight<'_>, tracked: [bool; 2]) -> (FlexTensor, LossGradients) {
        let [n, dim] = dims::<2>(hidden);
        let counted = self.targets.len();
        let gathered = self.rows.as_ref().map(|rows| {
            let mut gathered = unfilled(counted * dim);
            cavy_kernels::embedding::forward(exec(), slice(hidden), dim, rows, &mut gathered);
            gathered
        });
        let input =
            HeadInput { hidden: gathered.as_deref().unwrap_or_else(|| slice(hidden)), weight, targets: &self.targets };
        let mut scores = TargetScores { logprobs: unfilled(counted), likeliest: vec![false; counted] };
        let mut d_hidden = filled_if(tracked[0], [counted, dim], |_| ());
        let mut d_weight = match weight {
            HeadWeight::Floats(weight) => filled_if(tracked[1], [weight.len() / dim, dim], |_| ()),
            HeadWeight::Packed(_) => None,
        };
        let (d_h, d_w) = (d_hidden.as_mut().map(slice_mut), d_weight.as_mut().map(slice_mut));
        head::cross_entropy(exec(), &input, &self.weights, (&mut scores.logprobs, &mut scores.likeliest), d_h, d_w);
        if let (Some(rows), Some(compact)) = (&self.rows, &d_hidden) {
            let mut spread = tensor(vec![0.0; n * dim], [n, dim]);
            cavy_kernels::embedding::backward_add(exec(), slice(compact), dim, rows, slice_mut(&mut spread));
            d_hidden = Some(spread);
        }
        let pairs = scores.logprobs.iter().zip(&self.weights);
        let loss: f64 = -pairs.map(|(&logprob, &weight)| f64::from(logprob) * f64::from(weight)).sum::<f64>();
        self.scores.get_or_init(|| scores);
        (tensor(vec![loss as f32], [1]), (d_hidden, d_weight))
    }
}

/// A gradient of the loss times the loss's own.
fn scaled(gradient: Option<FlexTensor>, d_y: &FlexTensor) -> Option<FlexTensor> {
    let (mut gradient, factor) = (gradient?, slice(d_y)[0]);
    if factor != 1.0 {
        slice_mut(&mut gradient).iter_mut().for_each(|x| *x *= factor);
    }
    Some(gradient)
}

impl CpuOp<1> for CrossEntropyOp {
    type Saved = LossGradients;

    fn forward(&self, [hidden]: [FlexTensor; 1], [tracked]: [bool; 1]) -> (FlexTensor, LossGradients) {
        let weight = self.packed.as_ref().expect("a packed weight in place of the input");
        self.compute(&hidden, HeadWeight::Packed(weight), [tracked, false])
    }

    fn backward(self, d_y: FlexTensor, saved: LossGradients, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [scaled(saved.0, &d_y)]
    }
}

impl CpuOp<2> for CrossEntropyOp {
    type Saved = LossGradients;

    fn forward(&self, [hidden, weight]: [FlexTensor; 2], tracked: [bool; 2]) -> (FlexTensor, LossGradients) {
        self.compute(&hidden, HeadWeight::Floats(slice(&weight)), tracked)
    }

    fn backward(self, d_y: FlexTensor, saved: LossGradients, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let (d_hidden, d_weight) = (scaled(saved.0, &d_y), scaled(saved.1, &d_y));
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
/// With a frozen weight the gradient of each log-probability is formed while its logits are there, and the backward pass
/// only scales it; a gradient by the entropies or by the weight takes the logits once more. Where the weights of a loss
/// are known beforehand, [`linear_cross_entropy`] never takes them twice. Give `tied` where `weight` is also the
/// embedding's and is trained (see [`TiedGradient`]).
///
/// Shapes: `hidden` is `(N, D)`, `weight` `(V, D)`, both results `(N)`.
///
/// Panics: if a target is not below `V`.
pub fn token_logprobs(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: &Arc<[u32]>,
    tied: Option<&TiedGradient>,
) -> (Tensor<1>, Tensor<1>) {
    if !is_fused(&hidden) {
        return composed(hidden, weight, targets);
    }
    let op = TokenLogprobs { targets: Arc::clone(targets), tied: tied.cloned(), packed: None };
    two_rows(apply(op, [Input::of(hidden), Input::of(weight)]))
}

/// [`token_logprobs`] by a head that lies packed: differentiable by `hidden`, and the weight is frozen.
///
/// Shapes, Panics: as there.
pub fn packed_token_logprobs(hidden: Tensor<2>, weight: &PackedMatrix, targets: &Arc<[u32]>) -> (Tensor<1>, Tensor<1>) {
    if !is_fused(&hidden) {
        let weight = frozen(&hidden, weight);
        return composed(hidden, weight, targets);
    }
    let op = TokenLogprobs { targets: Arc::clone(targets), tied: None, packed: Some(weight.clone()) };
    two_rows(apply(op, [Input::of(hidden)]))
}

fn two_rows(both: Tensor<2>) -> (Tensor<1>, Tensor<1>) {
    let [_, n] = both.dims();
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
struct TokenLogprobs {
    targets: Arc<[u32]>,
    tied: Option<TiedGradient>,
    /// The weight, where it is no input.
    packed: Option<PackedMatrix>,
}

/// What the backward pass of [`token_logprobs`] needs.
#[derive(Clone, Debug)]
struct SavedLogprobs {
    hidden: FlexTensor,
    /// The weight, where it is an input.
    weight: Option<FlexTensor>,
    entropy: Vec<f32>,
    /// The log of each softmax's denominator.
    lse: Vec<f32>,
    /// The gradient of each log-probability by its hidden state, where the weight is frozen.
    rows: Option<FlexTensor>,
}

impl TokenLogprobs {
    fn input<'a>(&'a self, hidden: &'a FlexTensor, weight: Option<&'a FlexTensor>) -> HeadInput<'a> {
        let packed = || HeadWeight::Packed(self.packed.as_ref().expect("a packed weight in place of the input"));
        let weight = weight.map_or_else(packed, |weight| HeadWeight::Floats(slice(weight)));
        HeadInput { hidden: slice(hidden), weight, targets: &self.targets }
    }

    fn compute(
        &self,
        hidden: FlexTensor,
        weight: Option<FlexTensor>,
        [by_hidden, by_weight]: [bool; 2],
    ) -> (FlexTensor, SavedLogprobs) {
        let n = self.targets.len();
        let (mut entropy, mut lse) = (unfilled(n), unfilled(n));
        let mut rows = filled_if(by_hidden && !by_weight, dims::<2>(&hidden), |_| ());
        let both = filled([2, n], |both| {
            let (logprobs, entropies) = both.split_at_mut(n);
            let input = self.input(&hidden, weight.as_ref());
            head::token_logprobs(exec(), &input, logprobs, &mut entropy, &mut lse, rows.as_mut().map(slice_mut));
            entropies.copy_from_slice(&entropy);
        });
        (both, SavedLogprobs { hidden, weight, entropy, lse, rows })
    }

    fn gradients(&self, d_y: &FlexTensor, saved: SavedLogprobs, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let SavedLogprobs { hidden, weight, entropy, lse, rows } = saved;
        let gradients @ (d_logprobs, d_entropy) = slice(d_y).split_at(self.targets.len());
        if let Some(mut rows) = rows
            && d_entropy.iter().all(|&d| d == 0.0)
        {
            let [_, dim] = dims::<2>(&rows);
            let scaled = slice_mut(&mut rows).chunks_exact_mut(dim.max(1)).zip(d_logprobs);
            scaled.for_each(|(row, d)| row.iter_mut().for_each(|x| *x *= d));
            return [Some(rows), None];
        }
        let mut d_hidden = filled_if(wanted[0], dims::<2>(&hidden), |_| ());
        let mut d_weight = weight.as_ref().and_then(|weight| filled_if(wanted[1], dims::<2>(weight), |_| ()));
        let input = self.input(&hidden, weight.as_ref());
        let (d_h, d_w) = (d_hidden.as_mut().map(slice_mut), d_weight.as_mut().map(slice_mut));
        head::token_logprobs_backward(exec(), &input, gradients, (&entropy, &lse), d_h, d_w);
        match (&self.tied, d_weight) {
            (Some(tied), Some(d_weight)) => {
                tied.put(d_weight);
                [d_hidden, None]
            }
            (_, d_weight) => [d_hidden, d_weight],
        }
    }
}

impl CpuOp<1> for TokenLogprobs {
    type Saved = SavedLogprobs;

    fn forward(&self, [hidden]: [FlexTensor; 1], [tracked]: [bool; 1]) -> (FlexTensor, SavedLogprobs) {
        self.compute(hidden, None, [tracked, false])
    }

    fn backward(self, d_y: FlexTensor, saved: SavedLogprobs, [wanted]: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let [d_hidden, _] = self.gradients(&d_y, saved, [wanted, false]);
        [d_hidden]
    }
}

impl CpuOp<2> for TokenLogprobs {
    type Saved = SavedLogprobs;

    fn forward(&self, [hidden, weight]: [FlexTensor; 2], tracked: [bool; 2]) -> (FlexTensor, SavedLogprobs) {
        self.compute(hidden, Some(weight), tracked)
    }

    fn backward(self, d_y: FlexTensor, saved: SavedLogprobs, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        self.gradients(&d_y, saved, wanted)
    }
}
