//! Parameters by name, with their gradients: what optimizers, checkpoints and model files walk over.

use crate::decoder::Architecture;
use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use cavy_ops::gradient_stats;
use cavy_ops::kernels::grad_norm::Stats;

/// What a parameter is called and how it is treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Hugging Face's name.
    pub name: String,
    /// Sizes of its dimensions.
    pub shape: Vec<usize>,
    /// Whether weight decay applies: to matrices and embeddings, not to norms and biases.
    pub decay: bool,
    /// Whether it gets a gradient. On a device without autodiff nothing does.
    pub trainable: bool,
}

impl ParameterInfo {
    /// Number of its elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The name of the module it belongs to.
    pub(crate) fn module(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(module, _)| module)
    }
}

/// Something to do with each parameter and its gradient.
pub trait ParameterVisitor {
    /// Takes the parameter outside the autodiff graph and gives back its new value.
    fn visit<const D: usize>(
        &mut self,
        info: &ParameterInfo,
        tensor: Tensor<D>,
        gradient: Option<Tensor<D>>,
    ) -> Tensor<D>;
}

/// A tensor of one or two dimensions: parameters have no others.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    One(Tensor<1>),
    Two(Tensor<2>),
}

impl Held {
    pub(crate) fn new<const D: usize>(tensor: Tensor<D>) -> Self {
        match D {
            1 => Self::One(Tensor::from_dispatch(tensor.into_dispatch())),
            2 => Self::Two(Tensor::from_dispatch(tensor.into_dispatch())),
            _ => panic!("a parameter of {D} dimensions"),
        }
    }

    /// Its elements in row-major order.
    pub(crate) fn values(self) -> Vec<f32> {
        let data = match self {
            Self::One(tensor) => tensor.into_data(),
            Self::Two(tensor) => tensor.into_data(),
        };
        data.try_to_vec().unwrap_or_default()
    }

    pub(crate) fn into_tensor<const D: usize>(self) -> Tensor<D> {
        match (self, D) {
            (Self::One(tensor), 1) => Tensor::from_dispatch(tensor.into_dispatch()),
            (Self::Two(tensor), 2) => Tensor::from_dispatch(tensor.into_dispatch()),
            (held, _) => panic!("{held:?} asked for with {D} dimensions"),
        }
    }
}

/// Gradients by parameter name.
///
/// In a list, as all walks over a model have the same order: a step of a small model is a few milliseconds, of which a table that is
/// looked up for each parameter would take a tenth.
#[derive(Debug, Default)]
pub struct Gradients {
    list: Vec<(String, Option<Held>)>,
    /// Where the next one asked for probably is.
    next: usize,
}

impl Gradients {
    /// Takes what `found` holds for the parameters of `model`, of which none has a gradient here yet.
    pub(crate) fn collect<A: Architecture>(&mut self, model: &A, found: burn::tensor::Gradients) {
        model.visit(&mut Collector { path: Path::new(A::PREFIX), found, into: self });
    }

    /// The same in the order of the model's fields, in which one pass over all of it would have found them.
    pub(crate) fn in_order_of<A: Architecture>(mut self, model: &A) -> Self {
        let infos = list(model).into_iter();
        let list = infos.filter_map(|info| self.take(&info.name).map(|gradient| (info.name, Some(gradient)))).collect();
        Self { list, next: 0 }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn place(&self, name: &str) -> Option<usize> {
        let is_it = |at: &usize| self.list[*at].0 == name;
        (self.next..self.list.len()).chain(0..self.next.min(self.list.len())).find(is_it)
    }

    /// The gradient of a parameter, once.
    fn take(&mut self, name: &str) -> Option<Held> {
        let place = self.place(name)?;
        self.next = place + 1;
        self.list[place].1.take()
    }

    /// Adds the gradients of another pass.
    ///
    /// Panics: if a parameter has another shape there.
    pub fn add(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        for (name, gradient) in other.list {
            let sum = match (self.take(&name), gradient) {
                (None, gradient) => {
                    self.list.push((name, gradient));
                    continue;
                }
                (Some(Held::One(a)), Some(Held::One(b))) => Held::One(a + b),
                (Some(Held::Two(a)), Some(Held::Two(b))) => Held::Two(a + b),
                (Some(a), b) => panic!("`{name}`: gradients {a:?} and {b:?}"),
            };
            self.list[self.next - 1].1 = Some(sum);
        }
    }

    /// Sum of squares and largest absolute value over all parameters, summed in their order.
    pub fn stats(&self) -> Stats {
        let stats = |gradient: &Held| match gradient {
            Held::One(gradient) => gradient_stats(gradient),
            Held::Two(gradient) => gradient_stats(gradient),
        };
        self.list.iter().filter_map(|(_, gradient)| gradient.as_ref()).map(stats).fold(Stats::default(), Stats::and)
    }

    /// The gradient of one parameter, in row-major order.
    pub fn values(&self, name: &str) -> Option<Vec<f32>> {
        self.list[self.place(name)?].1.clone().map(Held::values)
    }
}

/// A path of fields with points between them, and what the model's names begin with.
struct Path {
    prefix: &'static str,
    text: String,
    /// Where each field begins, with the point before it.
    starts: Vec<usize>,
}

impl Path {
    fn new(prefix: &'static str) -> Self {
        Self { prefix, text: String::new(), starts: Vec::new() }
    }

    fn enter(&mut self, field: &str) {
        self.starts.push(self.text.len());
        if !self.text.is_empty() {
            self.text.push('.');
        }
        self.text.push_str(field);
    }

    fn exit(&mut self) {
        self.text.truncate(self.starts.pop().unwrap_or(0));
    }

    /// Hugging Face's name of the parameter at this path; of an adapter's, PEFT's without `base_model.model.`. Only the second adapter of a
    /// layer and those after it are numbered.
    fn name(&self) -> String {
        let head = self.text.starts_with("lm_head.") || self.text.starts_with("score.");
        let prefix = if head { "" } else { self.prefix };
        if let Some((layer, rest)) = self.text.split_once(".adapters.")
            && let Some((number, part)) = rest.split_once('.')
        {
            let number = if number == "0" { String::new() } else { format!(".{number}") };
            let part = part.split('.').next().unwrap_or(part);
            return match part {
                "lora_a" => format!("{prefix}{layer}.lora_A{number}.weight"),
                "lora_b" => format!("{prefix}{layer}.lora_B{number}.weight"),
                other => format!("{prefix}{layer}.{other}{number}"),
            };
        }
        [prefix, &self.text].concat()
    }
}

fn info<const D: usize>(path: &Path, tensor: &Tensor<D>) -> ParameterInfo {
    let (name, shape) = (path.name(), tensor.dims().to_vec());
    ParameterInfo { name, shape, decay: D > 1, trainable: tensor.is_require_grad() }
}

struct Collector<'a> {
    path: Path,
    found: burn::tensor::Gradients,
    into: &'a mut Gradients,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad_remove(&mut self.found) {
            self.into.list.push((self.path.name(), Some(Held::new(gradient))));
        }
    }
}

/// Collects what is known of every parameter.
struct Lister {
    path: Path,
    list: Vec<ParameterInfo>,
}

impl ModuleVisitor for Lister {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.list.push(info(&self.path, &param.val()));
    }
}

struct Updater<'a, V> {
    path: Path,
    gradients: Gradients,
    visitor: &'a mut V,
}

impl<V: ParameterVisitor> ModuleMapper for Updater<'_, V> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let info = info(&self.path, &tensor);
        let (autodiff, trainable) = (tensor.is_autodiff(), info.trainable);
        // From here on nobody else holds the parameter, so it can change in place.
        let gradient = self.gradients.take(&info.name).map(Held::into_tensor);
        let tensor = self.visitor.visit(&info, tensor.inner(), gradient);
        let tensor = match (autodiff, trainable) {
            (true, true) => Tensor::from_inner(tensor).require_grad(),
            (true, false) => Tensor::from_inner(tensor),
            (false, _) => tensor,
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

/// Every parameter in the order of its fields.
pub(crate) fn list<A: Architecture>(model: &A) -> Vec<ParameterInfo> {
    let mut lister = Lister { path: Path::new(A::PREFIX), list: Vec::new() };
    model.visit(&mut lister);
    lister.list
}

/// The model whose parameters are what `visitor` makes of them and their gradients.
pub(crate) fn update<A: Architecture, V: ParameterVisitor>(model: A, gradients: Gradients, visitor: &mut V) -> A {
    model.map(&mut Updater { path: Path::new(A::PREFIX), gradients, visitor })
}

/// The first part of a model that has something to train: 0 for the embeddings, `i + 1` for block `i`, after all blocks
/// for what follows them.
pub(crate) fn first_trainable<A: Architecture>(model: &A) -> usize {
    let blocks = format!("{}{}.", A::PREFIX, A::BLOCKS);
    let stage = |info: &ParameterInfo| match info.name.strip_prefix(&blocks) {
        Some(rest) => rest.split('.').next().and_then(|index| index.parse::<usize>().ok()).map_or(0, |i| i + 1),
        None if info.decay && info.name.starts_with(A::PREFIX) && !info.name.contains(".lora_") => 0,
        None => model.depth() + 1,
    };
    list(model).iter().filter(|info| info.trainable).map(stage).min().unwrap_or(model.depth() + 1)
}

/// Makes parameters trainable or frozen by name.
struct Freezer<'a, F> {
    path: Path,
    wanted: &'a F,
}

impl<F: Fn(&str) -> bool> ModuleMapper for Freezer<'_, F> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.val().is_autodiff() {
            return param;
        }
        // A new leaf, so that nothing of what the parameter was part of before is held.
        let tensor = Tensor::from_inner(param.val().inner());
        let wanted = (self.wanted)(&self.path.name());
        let tensor = if wanted { tensor.require_grad() } else { tensor };
        Param::initialized(param.id, tensor)
    }
}

/// The model in which the parameters whose names are `wanted` are trained, and no others.
pub(crate) fn trainable_where<A: Architecture>(model: A, wanted: &impl Fn(&str) -> bool) -> A {
    model.map(&mut Freezer { path: Path::new(A::PREFIX), wanted })
}

/// Whether the parameters of a model are in an autodiff graph.
pub(crate) fn is_autodiff<A: Architecture>(model: &A) -> bool {
    struct Asked(bool);
    impl ModuleVisitor for Asked {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= param.val().is_autodiff();
        }
    }
    let mut asked = Asked(false);
    model.visit(&mut asked);
    asked.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn gradients(list: &[(&str, f32)]) -> Gradients {
        let of = |&(name, x): &(&str, f32)| {
            (name.to_owned(), Some(Held::One(Tensor::from_data([x].as_slice(), &Device::flex()))))
        };
        Gradients { list: list.iter().map(of).collect(), next: 0 }
    }

    #[test]
    fn gradients_are_added_and_taken_by_name_in_any_order() {
        let mut sum = Gradients::default();
        sum.add(gradients(&[("a", 1.0), ("b", 2.0), ("c", 3.0)]));
        sum.add(gradients(&[("c", 30.0), ("d", 40.0), ("a", 10.0)]));
        sum.add(gradients(&[("b", 200.0)]));
        for (name, want) in [("a", 11.0), ("b", 202.0), ("c", 33.0), ("d", 40.0)] {
            assert_eq!(sum.values(name), Some(vec![want]), "{name}");
        }
        assert_eq!((sum.stats().sum_squares, sum.stats().max_abs), (121.0 + 40_804.0 + 1089.0 + 1600.0, 202.0));
        for name in ["b", "c", "a"] {
            assert!(sum.take(name).is_some() && sum.take(name).is_none(), "{name} is there once");
        }
        assert!(sum.take("e").is_none() && sum.values("e").is_none());
    }

    #[test]
    fn recomputed_gradients_are_in_the_order_of_the_parameters() {
        let config = crate::Gpt2Config {
            vocab_size: 7,
            context_length: 4,
            hidden_size: 4,
            num_hidden_layers: 3,
            num_attention_heads: 2,
            intermediate_size: 0,
            drop_rate: 0.0,
            qkv_bias: true,
            tie_word_embeddings: false,
            layer_norm_eps: 1e-5,
        };
        let model = crate::Model::new(&config.into(), crate::WeightInit::Gpt2, 1, &Device::flex().autodiff());
        let segments = std::sync::Arc::new(cavy_ops::Segments::uniform(1, 4));
        let pass = crate::Pass::new([1, 2, 3, 4].into(), segments, None);
        let order: Vec<String> = model.parameters().into_iter().map(|info| info.name).collect();
        for recompute in [false, true] {
            let found = model.loss_and_gradients(&pass, &[2, 3, 4, 5].into(), &[0.25; 4], recompute).2;
            assert!(found.list.iter().map(|(name, _)| name).eq(&order), "{recompute}");
        }
    }

    #[test]
    fn names_are_those_of_hugging_face_and_peft() {
        let mut path = Path::new("transformer.");
        let mut name = |fields: &str| {
            fields.split('/').for_each(|field| path.enter(field));
            let name = path.name();
            fields.split('/').for_each(|_| path.exit());
            name
        };
        for (fields, want) in [
            ("h/0/attn/c_attn/weight", "transformer.h.0.attn.c_attn.weight"),
            ("lm_head/weight", "lm_head.weight"),
            ("lm_heads/weight", "transformer.lm_heads.weight"),
            ("h/1/mlp/c_fc/adapters/0/lora_a/weight", "transformer.h.1.mlp.c_fc.lora_A.weight"),
            ("h/1/mlp/c_fc/adapters/2/lora_b/weight", "transformer.h.1.mlp.c_fc.lora_B.2.weight"),
            ("score/adapters/1/magnitude", "score.magnitude.1"),
        ] {
            assert_eq!(name(fields), want);
        }
    }
}
