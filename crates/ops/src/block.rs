//! A block of GPT-2 as one operation.

use crate::attention::AttentionSpec;
use crate::cpu::{CpuOp, Input, apply, dims, exec, filled, is_fused, slice, slice_mut};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use cavy_kernels::block::{self, Block, Kept, Layer, LayerGradient, Norm, NormGradient, Weights};
use cavy_kernels::gelu::Gelu;
use std::sync::Arc;

/// Gain and bias of a norm.
pub type NormWeights = (Tensor<1>, Tensor<1>);

/// Weight `(out, in)` and bias `(out)` of a layer.
pub type BlockLayer = (Tensor<2>, Option<Tensor<1>>);

/// What is between the weights of a block.
#[derive(Clone, Debug)]
pub struct BlockSpec {
    /// How it attends.
    pub attention: AttentionSpec,
    /// What is added to a variance.
    pub eps: f32,
    /// Between the feed-forward layers.
    pub gelu: Gelu,
}

/// `z = x + attention(norm(x))`, `y = z + mlp(norm(z))`; `None` where the operations one after the other are as good or better: on
/// another device, where a part is frozen, with dropout, and for all but small models.
///
/// Shapes: `x` and the result are `(N, D)`; the weights are those of [`cavy_kernels::block::Weights`].
pub fn gpt2_block(x: &Tensor<2>, weights: &Weights<NormWeights, BlockLayer>, spec: &BlockSpec) -> Option<Tensor<2>> {
    let Weights { norms, qkv, out, mlp } = weights;
    let AttentionSpec { segments, window, dropout, .. } = &spec.attention;
    let layers = [qkv, out, &mlp[0], &mlp[1]];
    let ([width], [inner, _]) = (norms[0].0.dims(), mlp[0].0.dims());
    let is_plain =
        window.is_none() && *dropout == 0.0 && [out, &mlp[0], &mlp[1]].iter().all(|(_, bias)| bias.is_some());
    if !is_plain || !is_fused(x) || !block::pays(exec(), segments, width, inner) {
        return None;
    }
    let learns = x.is_autodiff();
    let vectors = || {
        norms.iter().flat_map(|(gain, bias)| [gain, bias]).chain(layers.iter().filter_map(|(_, bias)| bias.as_ref()))
    };
    let of_one_kind = |is_autodiff, is_tracked| is_autodiff == learns && (!learns || is_tracked);
    let fits = of_one_kind(x.is_autodiff(), x.is_tracked())
        && layers.iter().all(|(weight, _)| of_one_kind(weight.is_autodiff(), weight.is_tracked()))
        && vectors().all(|vector| of_one_kind(vector.is_autodiff(), vector.is_tracked()));
    if !fits {
        return None;
    }
    let op = BlockOp(spec.clone());
    let one = |tensor: &Tensor<1>| Input::of(tensor.clone());
    let two = |tensor: &Tensor<2>| Input::of(tensor.clone());
    let bias = |layer: &BlockLayer| one(layer.1.as_ref().expect("checked"));
    let [n1, n2] = norms;
    let first = [two(x), one(&n1.0), one(&n1.1), one(&n2.0), one(&n2.1), two(&qkv.0)];
    let last = [two(&out.0), bias(out), two(&mlp[0].0), bias(&mlp[0]), two(&mlp[1].0), bias(&mlp[1])];
    let mut inputs = first.into_iter().chain(last).chain(qkv.1.as_ref().map(one));
    Some(match qkv.1 {
        Some(_) => apply::<_, 13, 2>(op, std::array::from_fn(|_| inputs.next().expect("thirteen"))),
        None => apply::<_, 12, 2>(op, std::array::from_fn(|_| inputs.next().expect("twelve"))),
    })
}

#[derive(Debug)]
struct BlockOp(BlockSpec);

/// The inputs, and what the kernel keeps.
type Saved = Option<(Vec<FlexTensor>, Arc<Kept>)>;

impl BlockOp {
    /// Of the inputs: `x`, the norms, the weight of queries, keys and values, the other layers, and the bias left out before, if there is one.
    fn kernel<'a>(&'a self, inputs: &'a [FlexTensor]) -> Block<'a> {
        let at = |index: usize| slice(&inputs[index]);
        let layer = |index: usize| Layer { weight: at(index), bias: Some(at(index + 1)) };
        let AttentionSpec { heads, ref segments, scale, .. } = self.0.attention;
        let norms = [Norm { gain: at(1), bias: at(2) }, Norm { gain: at(3), bias: at(4) }];
        let qkv = Layer { weight: at(5), bias: inputs.get(12).map(slice) };
        let weights = Weights { norms, qkv, out: layer(6), mlp: [layer(8), layer(10)] };
        Block { weights, heads, segments, scale, eps: self.0.eps, gelu: self.0.gelu }
    }

    fn run(&self, inputs: &[FlexTensor]) -> (FlexTensor, Kept) {
        let mut kept = None;
        let y = filled(dims::<2>(&inputs[0]), |y| {
            kept = Some(block::forward(exec(), &self.kernel(inputs), slice(&inputs[0]), y));
        });
        (y, kept.expect("a tensor that was filled"))
    }

    fn run_back<const N: usize>(
        &self,
        d_y: &FlexTensor,
        inputs: &[FlexTensor],
        kept: &Kept,
    ) -> [Option<FlexTensor>; N] {
        let like = |input: &FlexTensor| match input.layout().shape().num_dims() {
            1 => filled(dims::<1>(input), |_| ()),
            _ => filled(dims::<2>(input), |_| ()),
        };
        let mut gradients: [FlexTensor; N] = std::array::from_fn(|index| like(&inputs[index]));
        {
            let mut slices = gradients.iter_mut().map(slice_mut);
            let mut next = || slices.next().expect("an input");
            let d_x = next();
            let norms = [0; 2].map(|_| NormGradient { gain: next(), bias: next() });
            let qkv = next();
            let [out, first, second] = [0; 3].map(|_| LayerGradient { weight: next(), bias: Some(next()) });
            let qkv = LayerGradient { weight: qkv, bias: slices.next() };
            let weights = Weights { norms, qkv, out, mlp: [first, second] };
            block::backward(exec(), &self.kernel(inputs), slice(d_y), (slice(&inputs[0]), kept), d_x, weights);
        }
        gradients.map(Some)
    }
}

macro_rules! with_inputs {
    ($($count:literal)*) => {$(
        impl CpuOp<$count> for BlockOp {
            type Saved = Saved;

            fn forward(&self, inputs: [FlexTensor; $count], tracked: [bool; $count]) -> (FlexTensor, Saved) {
                let (y, kept) = self.run(&inputs);
                (y, tracked.contains(&true).then(|| (Vec::from(inputs), Arc::new(kept))))
            }

            fn backward(self, d_y: FlexTensor, saved: Saved, _: [bool; $count]) -> [Option<FlexTensor>; $count] {
                let Some((inputs, kept)) = saved else { return [const { None }; $count] };
                self.run_back(&d_y, &inputs, &kept)
            }
        }
    )*};
}

with_inputs!(12 13);
