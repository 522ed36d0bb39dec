//! One AdamW for the tests that follow PyTorch's over some steps.

use burn::tensor::{Tensor, TensorData};
use cavy_model::{ParameterInfo, ParameterVisitor};
use cavy_ops::adamw_step;
use cavy_ops::kernels::adamw::AdamW;
use std::collections::HashMap;

/// AdamW on every parameter.
pub(crate) struct Update {
    rule: AdamW,
    decay: f32,
    /// Steps begun; the first is 1.
    pub(crate) step: u64,
    moments: HashMap<String, [Vec<f32>; 2]>,
}

impl Update {
    /// By `rule`, with `decay` where parameters decay.
    pub(crate) fn new(rule: AdamW, decay: f32) -> Self {
        Self { rule, decay, step: 0, moments: HashMap::new() }
    }
}

impl ParameterVisitor for Update {
    fn visit<const D: usize>(
        &mut self,
        info: &ParameterInfo,
        tensor: Tensor<D>,
        gradient: Option<Tensor<D>>,
    ) -> Tensor<D> {
        let (device, n) = (tensor.device(), info.shape.iter().product());
        let moments = self.moments.entry(info.name.clone()).or_insert_with(|| [vec![0.0; n], vec![0.0; n]]);
        let tensors = |x: &Vec<f32>| Tensor::from_data(TensorData::new(x.clone(), [n]), &device);
        let rule = AdamW { weight_decay: if info.decay { self.decay } else { 0.0 }, ..self.rule };
        let state = (tensors(&moments[0]), tensors(&moments[1]));
        let (tensor, (first, second)) = adamw_step(rule.factors(self.step), 1.0, tensor, gradient.unwrap(), state);
        *moments = [first, second].map(|moment| moment.into_data().try_to_vec().unwrap());
        tensor
    }
}
