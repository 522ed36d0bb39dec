//! GPT-2: learned positions, pre-norm blocks, tanh GELU, and an output head that is usually the token embedding.
//!
//! Source: Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3; names and layout
//! as in Hugging Face's `GPT2LMHeadModel`.

use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::layers::{Embedding, Initializer, LayerNorm, Linear};
use crate::parameters::Gradients;
use crate::{Pass, files};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use cavy_ops::kernels::random::subkey;
use cavy_ops::{
    AttentionSpec, CrossEntropy, Gelu, Heads, TiedGradient, add, attention, dropout, embedding, embedding_tied, gelu,
    linear_cross_entropy,
};
use std::path::Path;
use std::sync::Arc;

/// Standard deviation of initial weights.
const INIT_STD: f64 = 0.02;

/// A GPT-2 language model.
#[derive(Module, Debug)]
pub struct Gpt2 {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
    lm_head: Option<Linear>,
    #[module(skip)]
    config: Gpt2Config,
}

/// One pre-norm block: `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: SelfAttention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct SelfAttention {
    c_attn: Linear,
    c_proj: Linear,
}

#[derive(Module, Debug)]
struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
}

/// What a block needs to know beside its input.
#[derive(Clone)]
struct BlockContext {
    spec: AttentionSpec,
    eps: f64,
    drop_rate: f32,
    key: u64,
}

impl BlockContext {
    /// Dropout number `place` of this block.
    fn dropped(&self, x: Tensor<2>, place: u64) -> Tensor<2> {
        dropout(x, self.drop_rate, subkey(self.key, place))
    }
}

impl Block {
    fn new(init: &mut Initializer<'_>, config: &Gpt2Config) -> Self {
        let (d, f) = (config.hidden_size, config.inner_size());
        // What is added to the residual stream 2 L times is smaller by the square root of that.
        let residual_std = INIT_STD / (2.0 * config.num_hidden_layers as f64).sqrt();
        Self {
            ln_1: LayerNorm::new(init, d),
            attn: SelfAttention {
                c_attn: Linear::new(init, d, 3 * d, config.qkv_bias, INIT_STD),
                c_proj: Linear::new(init, d, d, true, residual_std),
            },
            ln_2: LayerNorm::new(init, d),
            mlp: Mlp {
                c_fc: Linear::new(init, d, f, true, INIT_STD),
                c_proj: Linear::new(init, f, d, true, residual_std),
            },
        }
    }

    /// Shapes: `x` and the result are `(N, D)`.
    fn forward(&self, x: Tensor<2>, context: &BlockContext) -> Tensor<2> {
        let qkv = self.attn.c_attn.forward(self.ln_1.forward(x.clone(), context.eps)); // (N, 3 D)
        let mixed = attention(qkv, &context.spec); // (N, D); the only step that mixes positions
        let x = add(x, context.dropped(self.attn.c_proj.forward(mixed), 1));
        let inner = self.mlp.c_fc.forward(self.ln_2.forward(x.clone(), context.eps)); // (N, F)
        add(x, context.dropped(self.mlp.c_proj.forward(gelu(inner, Gelu::Tanh)), 2))
    }
}

impl Gpt2 {
    /// A model with GPT-2's initial values: normal with standard deviation 0.02, smaller for what is added to the
    /// residual stream; biases zero.
    ///
    /// Panics: if `config` is not valid (see [`Gpt2Config::validate`]).
    pub fn new(config: &Gpt2Config, seed: u64, device: &Device) -> Self {
        if let Err(error) = config.validate() {
            panic!("{error}");
        }
        let mut init = Initializer::new(seed, device);
        let (d, v) = (config.hidden_size, config.vocab_size);
        Self {
            wte: Embedding { weight: init.normal(v, d, INIT_STD) },
            wpe: Embedding { weight: init.normal(config.context_length, d, INIT_STD) },
            h: (0..config.num_hidden_layers).map(|_| Block::new(&mut init, config)).collect(),
            ln_f: LayerNorm::new(&init, d),
            lm_head: (!config.tie_word_embeddings).then(|| Linear::new(&mut init, d, v, false, INIT_STD)),
            config: config.clone(),
        }
    }

    /// Its sizes.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// Final hidden states, `(N, D)`, for an output head of its own or for generation.
    ///
    /// Panics: if an id is not below the vocabulary's size or a position not below the context length.
    pub fn hidden(&self, pass: &Pass) -> Tensor<2> {
        let x = self.blocks(self.embed(pass, None), pass);
        self.ln_f.forward(x, self.config.layer_norm_eps)
    }

    /// `-sum_n weights_n ln p(targets_n)` and the log-probability of each target.
    ///
    /// Shapes: `targets` and `weights` are `(N)`.
    ///
    /// Panics: as [`Self::hidden`], and if a target is not below the vocabulary's size.
    pub fn loss(&self, pass: &Pass, targets: &Arc<[u32]>, weights: &[f32]) -> CrossEntropy {
        let tied = self.lm_head.is_none().then(TiedGradient::default);
        let x = self.blocks(self.embed(pass, tied.as_ref()), pass);
        self.head_loss(x, targets, weights, tied.as_ref())
    }

    /// The loss of a pass, the log-probability of each target, and the gradients of all parameters.
    ///
    /// With `recompute`, only the input of each block is kept for the backward pass and the block is computed again
    /// there: a third more work for a fraction of the memory, and the same bits.
    /// Source: Chen et al. 2016, <https://arxiv.org/abs/1604.06174>.
    ///
    /// Panics: as [`Self::loss`], and on a model without autodiff.
    pub fn loss_and_gradients(
        &self,
        pass: &Pass,
        targets: &Arc<[u32]>,
        weights: &[f32],
        recompute: bool,
    ) -> (f64, Vec<f32>, Gradients) {
        if recompute {
            return self.recomputed(pass, targets, weights);
        }
        let CrossEntropy { loss, logprobs } = self.loss(pass, targets, weights);
        let value = f64::from(loss.clone().inner().into_scalar::<f32>());
        let mut gradients = Gradients::default();
        gradients.collect(self, loss.backward());
        (value, logprobs, gradients)
    }

    fn recomputed(&self, pass: &Pass, targets: &Arc<[u32]>, weights: &[f32]) -> (f64, Vec<f32>, Gradients) {
        let tied = self.lm_head.is_none().then(TiedGradient::default);
        let plain = self.valid();
        let mut inputs = vec![plain.embed(pass, None)];
        for (layer, block) in plain.h.iter().enumerate() {
            let x = block.forward(inputs[layer].clone(), &self.context(pass, layer));
            inputs.push(x);
        }
        drop(plain);
        let leaf = |x: Tensor<2>| Tensor::from_inner(x).require_grad();
        // The gradient by a block's input, from that by its output: the sum's own gradient is one everywhere.
        let through = |y: Tensor<2>, d_y: Tensor<2>| (y * Tensor::from_inner(d_y)).sum().backward();
        let mut collected = Gradients::default();
        let x = leaf(inputs.pop().expect("one input more than blocks"));
        let CrossEntropy { loss, logprobs } = self.head_loss(x.clone(), targets, weights, tied.as_ref());
        let value = f64::from(loss.clone().inner().into_scalar::<f32>());
        let mut gradients = loss.backward();
        let mut d_x = x.grad_remove(&mut gradients).expect("the head's input has a gradient");
        collected.collect(self, gradients);
        for (layer, block) in self.h.iter().enumerate().rev() {
            let x = leaf(inputs.pop().expect("an input for every block"));
            let mut gradients = through(block.forward(x.clone(), &self.context(pass, layer)), d_x);
            d_x = x.grad_remove(&mut gradients).expect("a block's input has a gradient");
            collected.collect(self, gradients);
        }
        collected.collect(self, through(self.embed(pass, tied.as_ref()), d_x));
        (value, logprobs, collected)
    }

    /// Next-token logits after the tokens `rows` of the pass, `(rows, V)` in one vector.
    ///
    /// Panics: as [`Self::hidden`], and if a row is out of bounds.
    pub fn logits(&self, pass: &Pass, rows: &[usize]) -> Vec<f32> {
        let rows: Arc<[u32]> = rows.iter().map(|&row| row as u32).collect();
        let hidden = embedding(self.hidden(pass), &rows);
        let logits = cavy_ops::linear(hidden, self.head_weight(), None);
        logits.into_data().try_to_vec().unwrap_or_default()
    }

    /// Writes a Hugging Face directory: `config.json` and `model.safetensors`, each whole or not at all.
    ///
    /// Errors: a file that cannot be written, by its path.
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        files::save(self, dir)
    }

    /// Reads a Hugging Face directory.
    ///
    /// Errors: a missing or broken file or tensor, by path and name.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        files::load(dir, device)
    }

    /// The output head's weight, `(V, D)`.
    pub fn head_weight(&self) -> Tensor<2> {
        self.lm_head.as_ref().map_or_else(|| self.wte.weight.val(), |head| head.weight.val())
    }

    fn embed(&self, pass: &Pass, tied: Option<&TiedGradient>) -> Tensor<2> {
        let tokens = match tied {
            Some(tied) => embedding_tied(self.wte.weight.val(), &pass.ids, tied),
            None => embedding(self.wte.weight.val(), &pass.ids),
        };
        let x = add(tokens, embedding(self.wpe.weight.val(), &pass.positions));
        dropout(x, self.drop_rate(pass), subkey(pass.dropout_key.unwrap_or(0), u64::MAX))
    }

    fn blocks(&self, x: Tensor<2>, pass: &Pass) -> Tensor<2> {
        self.h.iter().enumerate().fold(x, |x, (layer, block)| block.forward(x, &self.context(pass, layer)))
    }

    fn head_loss(
        &self,
        x: Tensor<2>,
        targets: &Arc<[u32]>,
        weights: &[f32],
        tied: Option<&TiedGradient>,
    ) -> CrossEntropy {
        let hidden = self.ln_f.forward(x, self.config.layer_norm_eps);
        linear_cross_entropy(hidden, self.head_weight(), targets, weights, tied)
    }

    fn drop_rate(&self, pass: &Pass) -> f32 {
        if pass.dropout_key.is_some() { self.config.drop_rate as f32 } else { 0.0 }
    }

    fn context(&self, pass: &Pass, layer: usize) -> BlockContext {
        let dim = self.config.hidden_size / self.config.num_attention_heads;
        let heads = Heads::new(self.config.num_attention_heads, self.config.num_attention_heads, dim);
        let key = subkey(pass.dropout_key.unwrap_or(0), layer as u64);
        let spec = AttentionSpec {
            heads: heads.expect("a config that was checked"),
            segments: Arc::clone(&pass.segments),
            window: None,
            scale: 1.0 / (dim as f32).sqrt(),
            dropout: self.drop_rate(pass),
            dropout_key: subkey(key, 0),
        };
        BlockContext { spec, eps: self.config.layer_norm_eps, drop_rate: self.drop_rate(pass), key }
    }
}
