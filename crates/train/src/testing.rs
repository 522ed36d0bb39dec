//! What the tests of this crate share.

use crate::sampler::Batch;
use burn::tensor::{Device, Tensor};
use cavy_model::{Gpt2Config, Model, ParameterInfo, ParameterVisitor, WeightInit};
use cavy_ops::Segments;
use std::sync::Arc;

/// A GPT-2 of a few thousand parameters: 19 tokens, 8 positions.
pub(crate) fn tiny_model(drop_rate: f64) -> Model {
    let config = Gpt2Config {
        vocab_size: 19,
        context_length: 8,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 32,
        drop_rate,
        qkv_bias: true,
        tie_word_embeddings: true,
        layer_norm_eps: 1e-5,
    };
    Model::new(&config.into(), WeightInit::Gpt2, 5, &Device::flex().autodiff())
}

/// `rows` windows of `context` tokens each, below 19.
pub(crate) fn batch(rows: usize, context: usize) -> Batch {
    let token = |i: usize| (i * i * 7 + i / 3) as u32 % 19;
    Batch {
        ids: (0..rows * context).map(token).collect(),
        targets: (1..=rows * context).map(token).collect(),
        trained: None,
        segments: Arc::new(Segments::uniform(rows, context)),
    }
}

/// The model with a NaN in its token embedding.
pub(crate) fn poisoned(model: Model) -> Model {
    struct Poison;
    impl ParameterVisitor for Poison {
        fn visit<const D: usize>(
            &mut self,
            info: &ParameterInfo,
            tensor: Tensor<D>,
            _: Option<Tensor<D>>,
        ) -> Tensor<D> {
            if info.name.contains("wte") { tensor * f32::NAN } else { tensor }
        }
    }
    model.for_each_parameter(&mut Poison)
}

/// All values of all parameters.
pub(crate) fn values(model: &Model) -> Vec<f32> {
    struct Values(Vec<f32>);
    impl ParameterVisitor for Values {
        fn visit<const D: usize>(&mut self, _: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
            self.0.extend(tensor.to_data().try_to_vec::<f32>().unwrap());
            tensor
        }
    }
    let mut values = Values(Vec::new());
    let _same = model.clone().for_each_parameter(&mut values);
    values.0
}
