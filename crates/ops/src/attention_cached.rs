//! Attention over a cache of keys and values.

use crate::cpu::{exec, filled, is_fused, slice};
use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use cavy_kernels::attention::Heads;
use cavy_kernels::cached_attention::{NewTokens, forward};
use cavy_kernels::kv_cache::KvCache;

/// Attention of new tokens to what their rows of `cache` have seen and to each other; `layer` of the cache holds
/// their keys and values afterwards.
///
/// The cache lies in the machine's memory, so on another device its tokens come here and go back.
/// Not differentiable.
///
/// Shapes: `qkv` is `(N, (H + 2K) E)`, a token's query heads, key heads, value heads; the result is `(N, H E)`.
///
/// Panics: as [`forward`], and on a tensor with autodiff.
pub fn attention_cached(
    qkv: Tensor<2>,
    cache: &mut KvCache,
    layer: usize,
    heads: Heads,
    scale: f32,
    new: &[NewTokens],
) -> Tensor<2> {
    assert!(!qkv.is_autodiff(), "attention over a cache has no backward pass; use the model's valid form");
    let shape = [qkv.dims()[0], heads.width()];
    if is_fused(&qkv) {
        let qkv = qkv.try_into_primitive::<Flex>().expect("a tensor on the CPU");
        let qkv = if qkv.is_contiguous() { qkv } else { qkv.to_contiguous() };
        return Tensor::from_primitive::<Flex>(filled(shape, |out| {
            forward(exec(), cache, layer, heads, scale, new, slice(&qkv), out);
        }));
    }
    let device = qkv.device();
    let qkv: Vec<f32> = qkv.into_data().try_to_vec().unwrap_or_default();
    let mut out = vec![0.0; shape[0] * shape[1]];
    forward(exec(), cache, layer, heads, scale, new, &qkv, &mut out);
    Tensor::from_data(TensorData::new(out, shape), &device)
}
