//! Adapters on a model: made, taken off, merged; and a score head in the place of the output head.

use crate::adapter::{Adapter, Entry, adapted_weight};
use crate::adapter_config::{AdapterConfig, ends_with};
use crate::error::ModelError;
use crate::init::{Initializer, WeightInit};
use crate::layers::{Embedding, Linear};
use crate::model::Model;
use crate::parameters::{Held, ParameterInfo, ParameterVisitor};
use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use cavy_ops::Weight;
use cavy_ops::kernels::packed::PackedMatrix;
use std::collections::{BTreeMap, BTreeSet};

/// Adapters that were put on a model together.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) config: AdapterConfig,
    /// What the modules that are trained whole were before, by parameter name.
    pub(crate) originals: BTreeMap<String, Held>,
}

/// What tells the dropout of a layer's adapters apart from that of others: layer by layer, adapter by adapter.
pub(crate) fn site(layer: usize, adapter: usize) -> u64 {
    ((adapter as u64) << 32) + layer as u64 + 1
}

/// The layer's own weight, or the embedding's where the layer is a tied output head.
pub(crate) fn base_of<'a>(layer: &'a Linear, embedding: &'a Embedding) -> Weight<'a> {
    layer.base().unwrap_or_else(|| embedding.base())
}

impl Model {
    /// Puts adapters on the layers that `config` names, and freezes everything else but `modules_to_save`.
    ///
    /// `A` is uniform within `1 / sqrt(in)` (`kaiming_uniform_(a = sqrt 5)`), `B` zero, so the model computes what it did
    /// before. A score head that gets no adapter is trained whole, as in PEFT's classification tasks.
    ///
    /// Errors: an impossible setting, or a name that no layer has.
    pub fn attach(mut self, config: &AdapterConfig, seed: u64) -> Result<Self, ModelError> {
        config.validate()?;
        let mut config = config.clone();
        let (usual, fused) = self.conventions();
        let score = !self.labels.is_empty();
        let head = if score { "score" } else { "lm_head" };
        let adapts_head = config.placement(usual)?.of(head, true).is_some();
        if score && !adapts_head && !config.modules_to_save.iter().any(|end| end == "score") {
            config.modules_to_save.push("score".into());
        }
        let originals = self.set_aside(&config.modules_to_save)?;
        if adapts_head && !score {
            self.heads().lm_head.get_or_insert_with(Linear::without_weight);
        }
        self = self.trainable_where(|name| originals.contains_key(name));
        let (device, embedding, number) = (self.device(), self.heads().embedding.clone(), self.adapters.len());
        let placement = config.placement(usual)?;
        let (mut index, mut known, mut placed) = (0, BTreeSet::new(), 0);
        self.for_each_linear(&mut |name, layer| {
            index += 1;
            known.insert(name.rsplit('.').next().unwrap_or(name).to_owned());
            let Some(found) = placement.of(name, name == head) else { return };
            placed += 1;
            let split = config.split_qkv && fused.is_some_and(|fused| ends_with(name, fused));
            let (blocks, scale) = (if split { 3 } else { 1 }, config.scale(found.rank, found.alpha));
            let entry = Entry::new(scale, config.lora_dropout, blocks, site(index, number));
            let base = base_of(layer, &embedding);
            let adapter = Adapter::new(&base, found.rank, entry, config.use_dora, seed, &device);
            layer.adapters.push(adapter);
        });
        if placed == 0 {
            let known: Vec<String> = known.into_iter().collect();
            let name = config.target_modules.to_string();
            return Err(ModelError::NoModule { key: "target_modules", name, known: known.join(", ") });
        }
        self.adapters.push(Attached { config, originals });
        Ok(self)
    }

    /// Where its parameters are.
    pub fn device(&self) -> Device {
        let mut found = FirstDevice(None);
        let _same = self.clone().for_each_parameter(&mut found);
        let device = found.0.unwrap_or_else(Device::flex);
        if self.is_autodiff() { device.autodiff() } else { device }
    }

    /// What the modules that end with these names hold, so that they can be trained and still be gone back to.
    ///
    /// Errors: a name that nothing in the model has.
    pub(crate) fn set_aside(&mut self, modules: &[String]) -> Result<BTreeMap<String, Held>, ModelError> {
        let embeds = |end: &String| ends_with("transformer.wte", end) || ends_with("model.embed_tokens", end);
        if self.labels.is_empty() && modules.iter().any(|end| end == "lm_head" || embeds(end)) {
            self.untie();
        }
        let infos = self.parameters();
        for end in modules {
            if !infos.iter().any(|info| ends_with(info.module(), end)) {
                let known: BTreeSet<&str> = infos.iter().filter_map(|info| info.module().rsplit('.').next()).collect();
                let known: Vec<&str> = known.into_iter().filter(|part| part.parse::<usize>().is_err()).collect();
                let (name, known) = (end.clone(), known.join(", "));
                return Err(ModelError::NoModule { key: "modules_to_save", name, known });
            }
        }
        let mut copies = Copies { modules, found: BTreeMap::new() };
        let _same = self.clone().for_each_parameter(&mut copies);
        Ok(copies.found)
    }

    /// Gives a tied output head a weight of its own, which is the embedding's until one of them is trained.
    fn untie(&mut self) {
        let heads = self.heads();
        if !*heads.tied {
            return;
        }
        let layer = heads.lm_head.get_or_insert_with(Linear::without_weight);
        layer.packed.clone_from(&heads.embedding.packed);
        layer.weight = heads.embedding.weight.as_ref().map(|weight| own(weight.val()));
        *heads.tied = false;
    }

    /// The same weights without adapters, nothing of it trained: the policy before fine-tuning.
    ///
    /// Modules that were trained whole are what they were before. No copy of the weights.
    #[must_use]
    pub fn without_adapter(&self) -> Self {
        let mut model = self.clone();
        model.for_each_linear(&mut |_, layer| layer.adapters.clear());
        let hollow = model.heads().lm_head.take_if(|layer| layer.base().is_none());
        drop(hollow);
        for attached in std::mem::take(&mut model.adapters).into_iter().rev() {
            model = model.for_each_parameter(&mut Restore(attached.originals));
        }
        model.trainable_where(|_| false)
    }

    /// The same function without adapters: what they change is folded into the weights they change. Packed weights with
    /// adapters become f32. Nothing of it is trained.
    #[must_use]
    pub fn merged(mut self) -> Self {
        if self.adapters.is_empty() {
            return self;
        }
        let device = self.device();
        let plain_device = device.clone().without_autodiff();
        let mut plain = self.valid();
        let embedding = plain.heads().embedding.clone();
        let mut weights = BTreeMap::new();
        plain.for_each_linear(&mut |name, layer| {
            if layer.adapters.is_empty() {
                return;
            }
            let base = base_of(layer, &embedding);
            let own = match &base {
                Weight::Dense(weight) => weight.clone(),
                Weight::Packed(_) => Tensor::from_data(TensorData::new(base.values(), base.dims()), &plain_device),
            };
            weights.insert(name.to_owned(), adapted_weight(&layer.adapters, &own));
        });
        drop(plain);
        if weights.contains_key("lm_head") {
            self.untie();
        }
        self.for_each_linear(&mut |name, layer| {
            if let Some(weight) = weights.remove(name) {
                let weight = if device.is_autodiff() { Tensor::from_inner(weight) } else { weight };
                layer.weight = Some(Param::initialized(ParamId::new(), weight));
                layer.packed = None;
                layer.adapters.clear();
            }
        });
        self.adapters.clear();
        self.trainable_where(|_| false)
    }

    /// The same values with every weight as f32, none packed; what was packed is frozen.
    #[must_use]
    pub fn dequantized(mut self) -> Self {
        let device = self.device();
        let plain = |packed: &PackedMatrix| {
            let base = Weight::Packed(packed);
            Param::initialized(ParamId::new(), Tensor::from_data(TensorData::new(base.values(), base.dims()), &device))
        };
        self.for_each_linear(&mut |_, layer| {
            layer.weight = layer.packed.take().map(|packed| plain(&packed)).or_else(|| layer.weight.take());
        });
        let (_, table) = self.token_embedding();
        table.weight = table.packed.take().map(|packed| plain(&packed)).or_else(|| table.weight.take());
        self
    }

    /// The model with a score head of `num_labels` rows in the place of its output head, for classification, rewards and
    /// values; its weight, and its bias if it has one, are uniform within `1 / sqrt(D)`, as `nn.Linear` begins.
    ///
    /// It is Hugging Face's `score` of `*ForSequenceClassification`, which has no bias. Labels are called `LABEL_0` and so on
    /// until [`Self::with_labels`]. The head is trainable; all else stays as trainable as it was.
    ///
    /// Panics: if `num_labels` is 0.
    #[must_use]
    pub fn with_head(mut self, num_labels: usize, bias: bool, seed: u64) -> Self {
        assert!(num_labels > 0, "a score head has rows");
        let device = self.device();
        self.put_head(num_labels, bias, &mut Initializer::new(WeightInit::Pytorch, seed, &device));
        self
    }

    /// [`Self::with_head`] with values from anywhere.
    pub(crate) fn put_head(&mut self, num_labels: usize, bias: bool, init: &mut Initializer<'_>) {
        let width = self.heads().embedding.base().dims()[1];
        let heads = self.heads();
        *heads.score = Some(Linear::new(init, width, num_labels, bias, crate::init::INIT_STD));
        *heads.lm_head = None;
        self.labels = (0..num_labels).map(|label| format!("LABEL_{label}")).collect();
    }

    /// The same with names for the rows of its score head.
    ///
    /// Panics: if there are more or fewer names than rows.
    #[must_use]
    pub fn with_labels(mut self, names: Vec<String>) -> Self {
        assert_eq!(names.len(), self.labels.len(), "names of labels");
        self.labels = names;
        self
    }

    /// What the rows of its score head are called; none for a model with a head of tokens.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// How its last adapters were made, if it has any.
    pub fn adapter_config(&self) -> Option<&AdapterConfig> {
        self.adapters.last().map(|attached| &attached.config)
    }
}

/// A parameter of its own with the values of `tensor`, shared until one of the two changes.
fn own(tensor: Tensor<2>) -> Param<Tensor<2>> {
    let tensor = if tensor.is_autodiff() { Tensor::from_inner(tensor.inner()) } else { tensor };
    Param::initialized(ParamId::new(), tensor)
}

/// Finds the device of the first parameter.
struct FirstDevice(Option<Device>);

impl ParameterVisitor for FirstDevice {
    fn visit<const D: usize>(&mut self, _: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        self.0.get_or_insert_with(|| tensor.device());
        tensor
    }
}

/// Collects the parameters of modules by the end of their names.
struct Copies<'a> {
    modules: &'a [String],
    found: BTreeMap<String, Held>,
}

impl ParameterVisitor for Copies<'_> {
    fn visit<const D: usize>(&mut self, info: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        if self.modules.iter().any(|end| ends_with(info.module(), end)) {
            self.found.insert(info.name.clone(), Held::new(tensor.clone()));
        }
        tensor
    }
}

/// Puts parameters back.
struct Restore(BTreeMap<String, Held>);

impl ParameterVisitor for Restore {
    fn visit<const D: usize>(&mut self, info: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        self.0.remove(&info.name).map_or(tensor, Held::into_tensor)
    }
}
