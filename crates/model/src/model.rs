//! A language model of any architecture.

use crate::Pass;
use crate::attach::Attached;
use crate::config::ModelConfig;
use crate::decoder::{self, Architecture, OutputHeads};
use crate::error::ModelError;
use crate::files::{self, Source, Weights};
use crate::gpt2::Gpt2;
use crate::init::{Initializer, WeightInit};
use crate::layers::{Embedding, Linear};
use crate::llama::Llama;
use crate::parameters::{self, Gradients, ParameterInfo, ParameterVisitor};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use cavy_ops::kernels::kv_cache::KvCache;
use cavy_ops::{CrossEntropy, TargetScores};
use std::path::Path;
use std::sync::Arc;

/// A language model, with its adapters and, in the place of its output head, a score head if it has one.
///
/// Clones share their weights; what is changed in one, such as by an update, is copied first if others hold it.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) kind: Kind,
    pub(crate) adapters: Vec<Attached>,
    /// What the rows of the score head are called; none for a head of tokens.
    pub(crate) labels: Vec<String>,
}

/// The architecture.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Gpt2(Gpt2),
    Llama(Llama),
}

/// Calls the same on whichever architecture it is.
macro_rules! with {
    ($model:expr, $name:ident => $body:expr) => {
        match $model {
            Kind::Gpt2($name) => $body,
            Kind::Llama($name) => $body,
        }
    };
}

impl Model {
    /// A model with random weights.
    ///
    /// Panics: if `config` is not valid (see [`ModelConfig::validate`]).
    pub fn new(config: &ModelConfig, init: WeightInit, seed: u64, device: &Device) -> Self {
        if let Err(error) = config.validate() {
            panic!("{error}");
        }
        Self::made(config, &mut Initializer::new(init, seed, device))
    }

    /// A model of zeros whose parameters are about to be read.
    pub(crate) fn hollow(config: &ModelConfig, device: &Device) -> Self {
        Self::made(config, &mut Initializer::hollow(device))
    }

    fn made(config: &ModelConfig, init: &mut Initializer<'_>) -> Self {
        let kind = match config {
            ModelConfig::Gpt2(config) => Kind::Gpt2(Gpt2::new(config, init)),
            ModelConfig::Llama(config) => Kind::Llama(Llama::new(config, init)),
        };
        Self { kind, adapters: Vec::new(), labels: Vec::new() }
    }

    /// The same with another architecture inside.
    fn with_kind(self, change: impl FnOnce(Kind) -> Kind) -> Self {
        Self { kind: change(self.kind), ..self }
    }

    /// Its sizes.
    pub fn config(&self) -> ModelConfig {
        match &self.kind {
            Kind::Gpt2(model) => ModelConfig::Gpt2(model.config.clone()),
            Kind::Llama(model) => ModelConfig::Llama(model.config.clone()),
        }
    }

    /// The same model without autodiff; no copy of the weights.
    #[must_use]
    pub fn valid(&self) -> Self {
        let kind = match &self.kind {
            Kind::Gpt2(model) => Kind::Gpt2(model.valid()),
            Kind::Llama(model) => Kind::Llama(model.valid()),
        };
        let mut model = Self { kind, adapters: self.adapters.clone(), labels: self.labels.clone() };
        model.forget(false);
        model
    }

    /// Final hidden states, `(N, D)`, for an output head of its own or for [`Self::logits_of`].
    ///
    /// Panics: if an id is not below the vocabulary's size or a position not below the context length.
    pub fn hidden(&self, pass: &Pass) -> Tensor<2> {
        with!(&self.kind, model => decoder::hidden(model, pass))
    }

    /// Final hidden states of tokens that follow what their rows of `cache` have seen; the cache has seen them then.
    ///
    /// Segment `i` of `pass` belongs to row `rows[i]`; [`Pass::following`] makes such a pass.
    ///
    /// Panics: as [`Self::hidden`], and if a row has no room.
    pub fn hidden_cached(&self, pass: &Pass, cache: &mut KvCache, rows: &[usize]) -> Tensor<2> {
        with!(&self.kind, model => decoder::hidden_cached(model, pass, cache, rows))
    }

    /// Next-token logits after the tokens `rows` of hidden states, `(rows, V)` in one vector.
    ///
    /// Panics: if a row is out of bounds.
    pub fn logits_of(&self, hidden: Tensor<2>, rows: &[usize]) -> Vec<f32> {
        with!(&self.kind, model => decoder::logits(model, hidden, rows))
    }

    /// Next-token logits after the tokens `rows` of the pass, `(rows, V)` in one vector.
    ///
    /// Panics: as [`Self::hidden`], and if a row is out of bounds.
    pub fn logits(&self, pass: &Pass, rows: &[usize]) -> Vec<f32> {
        self.logits_of(self.hidden(pass), rows)
    }

    /// `-sum_n weights_n ln p(targets_n)` and what the model makes of each target.
    ///
    /// Shapes: `targets` and `weights` are `(N)`.
    ///
    /// Panics: as [`Self::hidden`], and if a target is not below the vocabulary's size.
    pub fn loss(&self, pass: &Pass, targets: &Arc<[u32]>, weights: &[f32]) -> CrossEntropy {
        with!(&self.kind, model => decoder::loss(model, pass, targets, weights))
    }

    /// The loss of a pass, what the model makes of each target, and the gradients of all parameters.
    ///
    /// With `recompute`, only the input of each block is kept for the backward pass and the block is computed again
    /// there: a third more work for a fraction of the memory, and the same bits.
    ///
    /// Panics: as [`Self::loss`], and on a model without autodiff.
    pub fn loss_and_gradients(
        &self,
        pass: &Pass,
        targets: &Arc<[u32]>,
        weights: &[f32],
        recompute: bool,
    ) -> (f64, TargetScores, Gradients) {
        if recompute {
            return with!(&self.kind, model => decoder::recomputed(model, pass, targets, weights));
        }
        with!(&self.kind, model => decoder::loss_and_gradients(model, pass, targets, weights))
    }

    /// Differentiable outputs of the head at the tokens `rows` of the pass, `(rows, V)`: the scores of a model with
    /// [`Self::with_head`].
    ///
    /// Panics: as [`Self::hidden`], and if a row is out of bounds.
    pub fn head_rows(&self, pass: &Pass, rows: &[usize]) -> Tensor<2> {
        with!(&self.kind, model => decoder::head_rows(model, pass, rows))
    }

    /// Differentiable log-probabilities of `targets` after the tokens `rows` of the pass, and the entropies of those
    /// predictions, in nats, both `(rows)`. Logits exist for a chunk of tokens at a time; with a frozen head, only once.
    ///
    /// Panics: as [`Self::hidden`], if a row is out of bounds or a target not below the vocabulary's size, and unless there
    /// is a target for every row.
    pub fn token_logprobs(&self, pass: &Pass, rows: &[usize], targets: &Arc<[u32]>) -> (Tensor<1>, Tensor<1>) {
        assert_eq!(rows.len(), targets.len(), "a target for every row");
        with!(&self.kind, model => decoder::logprobs_of(model, pass, rows, targets))
    }

    /// The gradients of a loss that was computed from this model's parameters by all that are trainable.
    ///
    /// Panics: if the loss has more than one element.
    pub fn gradients(&self, loss: &Tensor<1>) -> Gradients {
        with!(&self.kind, model => decoder::gradients(model, loss))
    }

    /// The model in which the parameters whose names are `wanted` are trained and all others frozen: `|_| false` freezes
    /// everything. Nothing frozen costs a gradient, and nothing below the first trainable part is differentiated.
    #[must_use]
    pub fn trainable_where(self, wanted: impl Fn(&str) -> bool) -> Self {
        self.with_kind(|kind| match kind {
            Kind::Gpt2(model) => Kind::Gpt2(parameters::trainable_where(model, &wanted)),
            Kind::Llama(model) => Kind::Llama(parameters::trainable_where(model, &wanted)),
        })
    }

    /// Every parameter in the order of its fields.
    pub fn parameters(&self) -> Vec<ParameterInfo> {
        with!(&self.kind, model => parameters::list(model))
    }

    /// The model whose parameters are what `visitor` makes of them and their gradients.
    #[must_use]
    pub fn update<V: ParameterVisitor>(self, gradients: Gradients, visitor: &mut V) -> Self {
        let step = !gradients.is_empty();
        let mut model = self.with_kind(|kind| match kind {
            Kind::Gpt2(model) => Kind::Gpt2(parameters::update(model, gradients, visitor)),
            Kind::Llama(model) => Kind::Llama(parameters::update(model, gradients, visitor)),
        });
        // A step changes what is trainable, any other visitor perhaps everything.
        model.forget(!step);
        model
    }

    /// Forgets what adapters have computed from parameters.
    fn forget(&mut self, base: bool) {
        if self.adapters.is_empty() {
            return;
        }
        self.for_each_linear(&mut |_, linear| {
            let base = base || linear.weight.as_ref().is_some_and(|weight| weight.val().is_require_grad());
            linear.adapters.iter_mut().for_each(|adapter| adapter.entry.forget(base));
        });
    }

    /// [`Self::update`] without gradients: reads or replaces every parameter.
    #[must_use]
    pub fn for_each_parameter<V: ParameterVisitor>(self, visitor: &mut V) -> Self {
        self.update(Gradients::default(), visitor)
    }

    /// Whether its parameters are in an autodiff graph.
    pub(crate) fn is_autodiff(&self) -> bool {
        with!(&self.kind, model => parameters::is_autodiff(model))
    }

    /// What can stand as output head.
    pub(crate) fn heads(&mut self) -> OutputHeads<'_> {
        with!(&mut self.kind, model => model.heads())
    }

    /// What an adapter's placement needs to know of the architecture: PEFT's usual targets, and the layer that gives
    /// queries, keys and values at once.
    pub(crate) fn conventions(&self) -> (&'static [&'static str], Option<&'static str>) {
        fn of<A: Architecture>(_: &A) -> (&'static [&'static str], Option<&'static str>) {
            (A::USUAL_TARGETS, A::FUSED_QKV)
        }
        with!(&self.kind, model => of(model))
    }

    /// Every linear layer with its name.
    pub(crate) fn for_each_linear(&mut self, f: &mut dyn FnMut(&str, &mut Linear)) {
        with!(&mut self.kind, model => model.for_each_linear(f));
    }

    /// The token embedding with its name.
    pub(crate) fn token_embedding(&mut self) -> (&'static str, &mut Embedding) {
        with!(&mut self.kind, model => model.token_embedding())
    }

    /// Writes a Hugging Face directory: `config.json` and `model.safetensors`, each whole or not at all.
    ///
    /// Errors: a file that cannot be written, by its path.
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        files::save(self, dir)
    }

    /// Loads what [`Source::open`] found.
    ///
    /// Errors: a missing or broken tensor, by path and name.
    pub fn open(source: &Source, weights: Weights, device: &Device) -> Result<Self, ModelError> {
        files::model_of(source, weights, device)
    }

    /// Reads a model to be trained: all weights as f32.
    ///
    /// Errors: a missing or broken file or tensor, by path and name.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        Self::open(&Source::open(dir)?, Weights::F32, device)
    }
}
