//! What all architectures share: the passes over their blocks, the loss and its gradients.

use crate::Pass;
use crate::init::INIT_STD;
use crate::layers::{Embedding, Linear};
use crate::parameters::Gradients;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use cavy_ops::kernels::kv_cache::KvCache;
use cavy_ops::kernels::packed::PackedMatrix;
use cavy_ops::kernels::random::subkey;
use cavy_ops::{
    AttentionSpec, CrossEntropy, Heads, NewTokens, TiedGradient, attention, attention_cached, dropout, embedding,
    linear, linear_cross_entropy, packed_cross_entropy, packed_head,
};
use std::cell::RefCell;
use std::sync::Arc;

/// A language model made of blocks of one kind.
pub(crate) trait Architecture: Module {
    /// What Hugging Face's names begin with, but for the output head's.
    const PREFIX: &'static str;
    /// The residual stream before the first block, `(N, D)`. With `tied`, the head's gradient joins the embedding's.
    fn embed(&self, pass: &Pass, tied: Option<&TiedGradient>) -> Tensor<2>;
    /// Number of blocks.
    fn depth(&self) -> usize;
    /// Block `at.layer`. Shapes: `(N, D)` to the same.
    fn block(&self, x: Tensor<2>, at: &LayerPass<'_, '_>) -> Tensor<2>;
    /// The norm after the last block.
    fn final_norm(&self, x: Tensor<2>) -> Tensor<2>;
    /// The output head.
    fn head(&self) -> Head<'_>;
    /// Every linear layer with its name, for what packs or adapts them.
    fn for_each_linear(&mut self, f: &mut dyn FnMut(&str, &mut Linear));
    /// The token embedding with its name.
    fn token_embedding(&mut self) -> (&'static str, &mut Embedding);
}

/// The output head: a layer of its own, or the token embedding.
pub(crate) enum Head<'a> {
    Own(&'a Linear),
    Tied(&'a Embedding),
}

impl Head<'_> {
    fn is_tied(&self) -> bool {
        matches!(self, Self::Tied(_))
    }

    /// The weight as a tensor, `(V, D)`; `None` where it is packed.
    pub(crate) fn weight(&self) -> Option<Tensor<2>> {
        let (Self::Own(Linear { weight, .. }) | Self::Tied(Embedding { weight, .. })) = self;
        weight.as_ref().map(Param::val)
    }

    /// The weight where it is packed, `(V, D)`.
    pub(crate) fn packed(&self) -> Option<&PackedMatrix> {
        let (Self::Own(Linear { packed, .. }) | Self::Tied(Embedding { packed, .. })) = self;
        packed.as_ref()
    }

    /// Logits of every row, `(N, V)`.
    fn forward(&self, hidden: Tensor<2>) -> Tensor<2> {
        match (self.weight(), self.packed()) {
            (Some(weight), _) => linear(hidden, weight, None),
            (None, Some(packed)) => packed_head(hidden, packed),
            (None, None) => unreachable!("an output head has a weight"),
        }
    }
}

/// One block of a pass.
pub(crate) struct LayerPass<'a, 'c> {
    pub(crate) pass: &'a Pass,
    pub(crate) layer: usize,
    cached: Option<&'a Cached<'c>>,
}

/// The cache that a pass reads and extends.
pub(crate) struct Cached<'a> {
    cache: RefCell<&'a mut KvCache>,
    new: Vec<NewTokens>,
}

impl LayerPass<'_, '_> {
    fn key(&self) -> u64 {
        subkey(self.pass.dropout_key.unwrap_or(0), self.layer as u64)
    }

    /// The share of activations that fall, where it is `rate` in training.
    fn rate(&self, rate: f64) -> f32 {
        if self.pass.dropout_key.is_some() { rate as f32 } else { 0.0 }
    }

    /// Dropout number `place` of this block.
    pub(crate) fn dropped(&self, x: Tensor<2>, rate: f64, place: u64) -> Tensor<2> {
        dropout(x, self.rate(rate), subkey(self.key(), place))
    }

    /// Attention of every token to what it sees of its own sequence, in the pass and in the cache.
    ///
    /// Shapes: `qkv` is `(N, (H + 2K) E)`, the result `(N, H E)`.
    pub(crate) fn attention(
        &self,
        qkv: Tensor<2>,
        heads: Heads,
        scale: f32,
        window: Option<usize>,
        drop_rate: f64,
    ) -> Tensor<2> {
        if let Some(Cached { cache, new }) = self.cached {
            return attention_cached(qkv, &mut cache.borrow_mut(), self.layer, heads, scale, new);
        }
        let spec = AttentionSpec {
            heads,
            segments: Arc::clone(&self.pass.segments),
            window,
            scale,
            dropout: self.rate(drop_rate),
            dropout_key: subkey(self.key(), 0),
        };
        attention(qkv, &spec)
    }
}

/// Dropout of the embeddings, before the first block.
pub(crate) fn dropped_embedding(x: Tensor<2>, pass: &Pass, rate: f64) -> Tensor<2> {
    let Some(key) = pass.dropout_key else { return x };
    dropout(x, rate as f32, subkey(key, u64::MAX))
}

/// Standard deviation of what is added to the residual stream `2 L` times: smaller by the square root of that.
///
/// Source: Radford et al. 2019, section 2.3.
pub(crate) fn residual_std(layers: usize) -> f64 {
    INIT_STD / (2.0 * layers as f64).sqrt()
}

fn blocks<A: Architecture>(model: &A, x: Tensor<2>, pass: &Pass, cached: Option<&Cached<'_>>) -> Tensor<2> {
    (0..model.depth()).fold(x, |x, layer| model.block(x, &LayerPass { pass, layer, cached }))
}

/// Final hidden states, `(N, D)`.
pub(crate) fn hidden<A: Architecture>(model: &A, pass: &Pass) -> Tensor<2> {
    model.final_norm(blocks(model, model.embed(pass, None), pass, None))
}

/// Final hidden states of the tokens of a pass that follow what their rows of the cache have seen.
///
/// Segment `i` of the pass belongs to row `rows[i]`. The cache has seen them afterwards.
pub(crate) fn hidden_cached<A: Architecture>(model: &A, pass: &Pass, cache: &mut KvCache, rows: &[usize]) -> Tensor<2> {
    let segments = pass.segments.list();
    let of = |(segment, &row): (&cavy_ops::Segment, &usize)| NewTokens { row, start: segment.start, len: segment.len };
    let new: Vec<NewTokens> = segments.iter().zip(rows).map(of).collect();
    let cached = Cached { cache: RefCell::new(cache), new };
    let x = blocks(model, model.embed(pass, None), pass, Some(&cached));
    let Cached { cache, new } = cached;
    new.iter().for_each(|new| cache.borrow_mut().advance(new.row, new.len));
    model.final_norm(x)
}

/// Logits of some rows of hidden states, `(rows, V)` in one vector.
pub(crate) fn logits<A: Architecture>(model: &A, hidden: Tensor<2>, rows: &[usize]) -> Vec<f32> {
    let everything = rows.len() == hidden.dims()[0] && rows.iter().enumerate().all(|(i, &row)| i == row);
    let hidden = if everything {
        hidden
    } else {
        let rows: Arc<[u32]> = rows.iter().map(|&row| row as u32).collect();
        embedding(hidden, &rows)
    };
    model.head().forward(hidden).into_data().try_to_vec().unwrap_or_default()
}

fn head_loss<A: Architecture>(
    model: &A,
    x: Tensor<2>,
    targets: &Arc<[u32]>,
    weights: &[f32],
    tied: Option<&TiedGradient>,
) -> CrossEntropy {
    let hidden = model.final_norm(x);
    match (model.head().weight(), model.head().packed()) {
        (Some(weight), _) => linear_cross_entropy(hidden, weight, targets, weights, tied),
        (None, Some(packed)) => packed_cross_entropy(hidden, packed, targets, weights),
        (None, None) => unreachable!("an output head has a weight"),
    }
}

/// `-sum_n weights_n ln p(targets_n)` and the log-probability of each target.
pub(crate) fn loss<A: Architecture>(model: &A, pass: &Pass, targets: &Arc<[u32]>, weights: &[f32]) -> CrossEntropy {
    let tied = model.head().is_tied().then(TiedGradient::default);
    let x = blocks(model, model.embed(pass, tied.as_ref()), pass, None);
    head_loss(model, x, targets, weights, tied.as_ref())
}

/// The loss, the log-probability of each target, and the gradients of all parameters.
pub(crate) fn loss_and_gradients<A: Architecture>(
    model: &A,
    pass: &Pass,
    targets: &Arc<[u32]>,
    weights: &[f32],
) -> (f64, Vec<f32>, Gradients) {
    let CrossEntropy { loss, logprobs } = loss(model, pass, targets, weights);
    let value = f64::from(loss.clone().inner().into_scalar::<f32>());
    let mut gradients = Gradients::default();
    gradients.collect(model, loss.backward());
    (value, logprobs, gradients)
}

/// [`loss_and_gradients`] with only the input of each block kept for the backward pass, where the block is computed again.
///
/// Source: Chen et al. 2016, <https://arxiv.org/abs/1604.06174>.
pub(crate) fn recomputed<A: Architecture>(
    model: &A,
    pass: &Pass,
    targets: &Arc<[u32]>,
    weights: &[f32],
) -> (f64, Vec<f32>, Gradients) {
    let at = |layer| LayerPass { pass, layer, cached: None };
    let tied = model.head().is_tied().then(TiedGradient::default);
    let plain = model.valid();
    let mut inputs = vec![plain.embed(pass, None)];
    for layer in 0..plain.depth() {
        inputs.push(plain.block(inputs[layer].clone(), &at(layer)));
    }
    drop(plain);
    let leaf = |x: Tensor<2>| Tensor::from_inner(x).require_grad();
    // The gradient by a block's input, from that by its output: the sum's own gradient is one everywhere.
    let through = |y: Tensor<2>, d_y: Tensor<2>| (y * Tensor::from_inner(d_y)).sum().backward();
    let mut collected = Gradients::default();
    let x = leaf(inputs.pop().expect("one input more than blocks"));
    let CrossEntropy { loss, logprobs } = head_loss(model, x.clone(), targets, weights, tied.as_ref());
    let value = f64::from(loss.clone().inner().into_scalar::<f32>());
    let mut gradients = loss.backward();
    let mut d_x = x.grad_remove(&mut gradients).expect("the head's input has a gradient");
    collected.collect(model, gradients);
    for layer in (0..model.depth()).rev() {
        let x = leaf(inputs.pop().expect("an input for every block"));
        let mut gradients = through(model.block(x.clone(), &at(layer)), d_x);
        d_x = x.grad_remove(&mut gradients).expect("a block's input has a gradient");
        collected.collect(model, gradients);
    }
    collected.collect(model, through(model.embed(pass, tied.as_ref()), d_x));
    (value, logprobs, collected)
}
