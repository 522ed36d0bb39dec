//! The kernels of `cavy-kernels` as differentiable operations on Burn tensors.
//!
//! Every operation has two bodies. On the CPU (Burn's Flex, with or without autodiff) it is one fused kernel with
//! a hand-written backward pass. On any other device it is composed of Burn's own tensor operations, which
//! differentiate themselves. The tests hold the two equal, values and gradients.
//!
//! Shapes: `N` tokens of all sequences on one packed axis, `D` hidden, `H` query heads, `K` key/value heads,
//! `E` head dimension, `V` vocabulary. A linear layer's weight is `(out, in)`.

mod attention;
mod attention_cached;
mod block;
mod concat;
mod cpu;
mod embedding;
mod head;
mod linear;
mod low_rank;
mod mlp;
mod norm;
mod optimizer;
mod packed;
mod pointwise;
mod rope;
mod shared;

pub use attention::{AttentionSpec, attention};
pub use attention_cached::attention_cached;
pub use block::{BlockLayer, BlockSpec, NormWeights, gpt2_block};
pub use cavy_kernels as kernels;
pub use cavy_kernels::attention::Heads;
pub use cavy_kernels::block::Weights as BlockWeights;
pub use cavy_kernels::cached_attention::NewTokens;
pub use cavy_kernels::gelu::Gelu;
pub use cavy_kernels::segments::{Segment, Segments};
pub use cavy_kernels::{Exec, Isa};
pub use concat::concat;
pub use cpu::{composed_everywhere, exec, set_exec};
pub use embedding::{TiedGradient, embedding, embedding_tied};
pub use head::{
    CrossEntropy, TargetScores, linear_cross_entropy, packed_cross_entropy, packed_token_logprobs, token_logprobs,
};
pub use linear::{linear, linear_shared};
pub use low_rank::{LowRank, Weight, low_rank, rescale};
pub use mlp::{LayerWeights, gelu_mlp};
pub use norm::{layer_norm, layer_norm_residual, rms_norm, rms_norm_residual};
pub use optimizer::{adamw_step, adamw8_step, gradient_stats};
pub use packed::{packed_embedding, packed_head, packed_linear};
pub use pointwise::{add, add_residual, dropout, gelu, swiglu};
pub use rope::rope;
pub use shared::{Residual, SharedInput};
