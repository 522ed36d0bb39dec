//! What all architectures share: the passes over their blocks, the loss and its gradients.

use crate::Pass;
use crate::adapter::{Adapter, adapted, adapted_weight, wants_bare};
use crate::init::INIT_STD;
use crate::layers::{Embedding, Linear};
use crate::parameters::{self, Gradients};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use cavy_ops::kernels::kv_cache::KvCache;
use cavy_ops::kernels::random::subkey;
use cavy_ops::{
    AttentionSpec, CrossEntropy, Heads, NewTokens, TargetScores, TiedGradient, Weight, attention, attention_cached,
    dropout, embedding, linear, linear_cross_entropy, packed_cross_entropy, packed_head, packed_token_logprobs,
    token_logprobs,
};
use std::cell::RefCell;
use std::sync::Arc;

/// A language model made of blocks of one kind.
pub(crate) trait Architecture: Module {
    /// What Hugging Face's names begin with, but for the output head's.
    const PREFIX: &'static str;
    /// What its list of blocks is called.
    const BLOCKS: &'static str;
    /// The layers that PEFT adapts unless it is told which.
    const USUAL_TARGETS: &'static [&'static str];
    /// The layer that gives queries, keys and values at once, if there is one.
    const FUSED_QKV: Option<&'static str>;
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
    /// What can stand as output head, to be replaced.
    fn heads(&mut self) -> OutputHeads<'_>;
}

/// Everything that can stand as an output head.
pub(crate) struct OutputHeads<'a> {
    pub(crate) lm_head: &'a mut Option<Linear>,
    pub(crate) score: &'a mut Option<Linear>,
    pub(crate) embedding: &'a mut Embedding,
    /// Whether the token embedding is the output head.
    pub(crate) tied: &'a mut bool,
}

/// The output head: a layer of its own, or the token embedding with the adapters that are for its use as a head.
pub(crate) enum Head<'a> {
    Own(&'a Linear),
    Tied(&'a Embedding, &'a [Adapter]),
}

impl<'a> Head<'a> {
    /// The head of a model with this layer, if it has one, and this embedding.
    pub(crate) fn of(layer: Option<&'a Linear>, embedding: &'a Embedding) -> Self {
        match layer {
            Some(own) if own.base().is_some() => Self::Own(own),
            tied => Self::Tied(embedding, tied.map_or(&[], |layer| &layer.adapters)),
        }
    }

    /// Where the embedding's gradient and the head's can meet, if they are one parameter that is trained.
    fn tied_gradient(&self) -> Option<TiedGradient> {
        match self {
            Self::Tied(Embedding { weight: Some(weight), .. }, []) => {
                weight.val().is_require_grad().then(TiedGradient::default)
            }
            _ => None,
        }
    }

    fn base(&self) -> Weight<'a> {
        match self {
            Self::Own(layer) => layer.base().expect("an output head has a weight"),
            Self::Tied(embedding, _) => embedding.base(),
        }
    }

    fn adapters(&self) -> &'a [Adapter] {
        match self {
            Self::Own(layer) => &layer.adapters,
            Self::Tied(_, adapters) => adapters,
        }
    }

    /// The weight with its adapters, `(V, D)`: as it is stored where it has none, a tensor otherwise.
    fn weight_in_use(&self, device: &Device) -> Weight<'a> {
        let (base, adapters) = (self.base(), self.adapters());
        if adapters.is_empty() {
            return base;
        }
        let own = match base {
            Weight::Dense(weight) => weight,
            packed @ Weight::Packed(_) => Tensor::from_data(TensorData::new(packed.values(), packed.dims()), device),
        };
        Weight::Dense(adapted_weight(adapters, &own))
    }

    fn bias(&self) -> Option<Tensor<1>> {
        match self {
            Self::Own(layer) => layer.bias.as_ref().map(Param::val),
            Self::Tied(..) => None,
        }
    }

    /// Logits of every row, `(N, V)`. With a key, the dropout of adapters is on.
    fn forward(&self, hidden: Tensor<2>, dropout_key: Option<u64>) -> Tensor<2> {
        let (base, adapters, bias) = (self.base(), self.adapters(), self.bias());
        let product = |x: Tensor<2>, bias: Option<Tensor<1>>| match &base {
            Weight::Dense(weight) => linear(x, weight.clone(), bias),
            Weight::Packed(packed) => packed_head(x, packed),
        };
        if adapters.is_empty() {
            return product(hidden, bias);
        }
        let first = if wants_bare(adapters) { None } else { bias.clone() };
        let result = product(hidden.clone(), first);
        adapted(adapters, &base, result, &hidden, bias, dropout_key, None, |x| product(x, None))
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
        attention(qkv, &self.attention_spec(heads, scale, window, drop_rate))
    }

    /// How a pass without a cache attends.
    fn attention_spec(&self, heads: Heads, scale: f32, window: Option<usize>, drop_rate: f64) -> AttentionSpec {
        AttentionSpec {
            heads,
            segments: Arc::clone(&self.pass.segments),
            window,
            scale,
            dropout: self.rate(drop_rate),
            dropout_key: subkey(self.key(), 0),
        }
    }

    /// How attention without a window goes where nothing is dropped and there is no cache.
    pub(crate) fn plain_attention(&self, heads: Heads, scale: f32, drop_rate: f64) -> Option<AttentionSpec> {
        let is_plain = self.cached.is_none() && self.rate(drop_rate) == 0.0;
        is_plain.then(|| self.attention_spec(heads, scale, None, drop_rate))
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

/// The rows of hidden states, all or some of them.
fn rows_of(hidden: Tensor<2>, rows: &[usize]) -> Tensor<2> {
    if rows.len() == hidden.dims()[0] && rows.iter().enumerate().all(|(i, &row)| i == row) {
        return hidden;
    }
    let rows: Arc<[u32]> = rows.iter().map(|&row| row as u32).collect();
    embedding(hidden, &rows)
}

/// Logits of some rows of hidden states, `(rows, V)` in one vector.
pub(crate) fn logits<A: Architecture>(model: &A, hidden: Tensor<2>, rows: &[usize]) -> Vec<f32> {
    model.head().forward(rows_of(hidden, rows), None).into_data().try_to_vec().unwrap_or_default()
}

/// Differentiable outputs of the head at some tokens of a pass, `(rows, V)`.
pub(crate) fn head_rows<A: Architecture>(model: &A, pass: &Pass, rows: &[usize]) -> Tensor<2> {
    model.head().forward(rows_of(hidden(model, pass), rows), pass.dropout_key)
}

/// Differentiable log-probabilities of `targets` after some tokens of a pass, and entropies there.
pub(crate) fn logprobs_of<A: Architecture>(
    model: &A,
    pass: &Pass,
    rows: &[usize],
    targets: &Arc<[u32]>,
) -> (Tensor<1>, Tensor<1>) {
    let tied = model.head().tied_gradient();
    let x = blocks(model, model.embed(pass, tied.as_ref()), pass, None);
    let hidden = rows_of(model.final_norm(x), rows);
    match model.head().weight_in_use(&hidden.device()) {
        Weight::Dense(weight) => token_logprobs(hidden, weight, targets, tied.as_ref()),
        Weight::Packed(packed) => packed_token_logprobs(hidden, packed, targets),
    }
}

fn head_loss<A: Architecture>(
    model: &A,
    x: Tensor<2>,
    targets: &Arc<[u32]>,
    weights: &[f32],
    tied: Option<&TiedGradient>,
) -> CrossEntropy {
    let hidden = model.final_norm(x);
    match model.head().weight_in_use(&hidden.device()) {
        Weight::Dense(weight) => linear_cross_entropy(hidden, weight, targets, weights, tied),
        Weight::Packed(packed) => packed_cross_entropy(hidden, packed, targets, weights),
    }
}

/// `-sum_n weights_n ln p(targets_n)` and what the model makes of each target.
pub(crate) fn loss<A: Architecture>(model: &A, pass: &Pass, targets: &Arc<[u32]>, weights: &[f32]) -> CrossEntropy {
    let tied = model.head().tied_gradient();
    let x = blocks(model, model.embed(pass, tied.as_ref()), pass, None);
    head_loss(model, x, targets, weights, tied.as_ref())
}

/// The loss, what the model makes of each target, and the gradients of all parameters.
pub(crate) fn loss_and_gradients<A: Architecture>(
    model: &A,
    pass: &Pass,
    targets: &Arc<[u32]>,
    weights: &[f32],
) -> (f64, TargetScores, Gradients) {
    let CrossEntropy { loss, targets: scores } = loss(model, pass, targets, weights);
    let value = f64::from(loss.clone().inner().into_scalar::<f32>());
    (value, scores, gradients(model, &loss))
}

/// The gradients of all trainable parameters; none if the loss depends on no such.
pub(crate) fn gradients<A: Architecture>(model: &A, loss: &Tensor<1>) -> Gradients {
    let mut gradients = Gradients::default();
    if loss.is_autodiff() && loss.is_tracked() {
        gradients.collect(model, loss.backward());
    }
    gradients
}

/// [`loss_and_gradients`] with only the input of each block kept for the backward pass, where the block is computed again.
///
/// Source: Chen et al. 2016, <https://arxiv.org/abs/1604.06174>.
pub(crate) fn recomputed<A: Architecture>(
    model: &A,
    pass: &Pass,
    targets: &Arc<[u32]>,
    weights: &[f32],
) -> (f64, TargetScores, Gradients) {
    let at = |layer| LayerPass { pass, layer, cached: None };
    let tied = model.head().tied_gradient();
    // Nothing below the first trainable part is differentiated: `first` blocks, or all that there is.
    let first = parameters::first_trainable(model);
    let plain = model.valid();
    let mut inputs = vec![plain.embed(pass, None)];
    for layer in 0..plain.depth() {
        inputs.push(plain.block(inputs[layer].clone(), &at(layer)));
    }
    drop(plain);
    let leaf = |x: Tensor<2>, stage: usize| {
        let x = Tensor::from_inner(x);
        if stage > first { x.require_grad() } else { x }
    };
    // The gradient by a block's input, from that by its output: the sum's own gradient is one everywhere.
    let through = |y: Tensor<2>, d_y: Tensor<2>| (y * Tensor::from_inner(d_y)).sum().backward();
    let mut collected = Gradients::default();
    let x = leaf(inputs.pop().expect("one input more than blocks"), model.depth() + 1);
    let CrossEntropy { loss, targets: scores } = head_loss(model, x.clone(), targets, weights, tied.as_ref());
    let value = f64::from(loss.clone().inner().into_scalar::<f32>());
    if !loss.is_tracked() {
        return (value, scores, collected);
    }
    let mut gradients = loss.backward();
    let mut d_x = x.grad_remove(&mut gradients);
    collected.collect(model, gradients);
    for layer in (0..model.depth()).rev() {
        let Some(d_y) = d_x.take() else { break };
        let x = leaf(inputs.pop().expect("an input for every block"), layer + 1);
        let y = model.block(x.clone(), &at(layer));
        if !y.is_tracked() {
            break;
        }
        let mut gradients = through(y, d_y);
        d_x = x.grad_remove(&mut gradients);
        collected.collect(model, gradients);
    }
    if let Some(d_x) = d_x.filter(|_| first == 0) {
        collected.collect(model, through(model.embed(pass, tied.as_ref()), d_x));
    }
    // Their squares are summed in this order.
    (value, scores, collected.in_order_of(model))
}
