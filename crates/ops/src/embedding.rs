//! Looking rows up.

use crate::cpu::{CpuOp, Input, apply, dims, exec, filled, is_fused, slice, slice_mut, tensor};
use burn::tensor::{Int, Tensor, TensorData};
use burn_flex::FlexTensor;
use cavy_kernels::embedding;
use std::sync::{Arc, Mutex, PoisonError};

/// Carries the gradient of a tied weight from the output head to the embedding within one backward pass.
///
/// A tied weight is used twice. Summing two gradients of its full size would cost a large tensor of zeros and an
/// addition over the whole vocabulary; so the head, whose backward pass runs first, leaves its gradient here, and the
/// embedding adds the rows it touched in place and hands on the sum.
#[derive(Clone, Debug, Default)]
pub struct TiedGradient(Arc<Mutex<Option<FlexTensor>>>);

impl TiedGradient {
    pub(crate) fn put(&self, gradient: FlexTensor) {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(gradient);
        assert!(before.is_none(), "one head per tied weight and pass");
    }

    fn take(&self) -> Option<FlexTensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Row `ids[n]` of `weight` for every token `n`.
///
/// Shapes: `weight` is `(V, D)`, the result `(N, D)`.
///
/// Panics: if an id is not below `V`.
pub fn embedding(weight: Tensor<2>, ids: &Arc<[u32]>) -> Tensor<2> {
    lookup(weight, ids, None)
}

/// [`embedding()`] whose weight is also the output head's; the head must get the same [`TiedGradient`] in this pass.
pub fn embedding_tied(weight: Tensor<2>, ids: &Arc<[u32]>, tied: &TiedGradient) -> Tensor<2> {
    lookup(weight, ids, Some(tied.clone()))
}

fn lookup(weight: Tensor<2>, ids: &Arc<[u32]>, tied: Option<TiedGradient>) -> Tensor<2> {
    if is_fused(&weight) {
        return apply(Embedding { ids: Arc::clone(ids), tied }, [Input::of(weight)]);
    }
    let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    let count = ids.len();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &weight.device());
    weight.select(0, ids)
}

#[derive(Debug)]
struct Embedding {
    ids: Arc<[u32]>,
    tied: Option<TiedGradient>,
}

impl CpuOp<1> for Embedding {
    /// Rows and columns of the weight.
    type Saved = [usize; 2];

    fn forward(&self, [weight]: [FlexTensor; 1], _: [bool; 1]) -> (FlexTensor, [usize; 2]) {
        let shape = dims(&weight);
        let y = filled([self.ids.len(), shape[1]], |y| {
            embedding::forward(exec(), slice(&weight), shape[1], &self.ids, y);
        });
        (y, shape)
    }

    fn backward(self, d_y: FlexTensor, shape: [usize; 2], wanted: [bool; 1]) -> [Option<FlexTensor>; 1] {
        if !wanted[0] {
            return [None];
        }
        let started = self.tied.and_then(|tied| tied.take());
        let mut d_weight = started.unwrap_or_else(|| tensor(vec![0.0; shape[0] * shape[1]], shape));
        embedding::backward_add(exec(), slice(&d_y), shape[1], &self.ids, slice_mut(&mut d_weight));
        [Some(d_weight)]
    }
}
