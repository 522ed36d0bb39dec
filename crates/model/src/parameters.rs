//! Parameters by name, with their gradients: what optimizers, checkpoints and model files walk over.

use crate::decoder::Architecture;
use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use cavy_ops::gradient_stats;
use cavy_ops::kernels::grad_norm::Stats;
use std::collections::HashMap;

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
#[derive(Debug, Default)]
pub struct Gradients(HashMap<String, Held>);

impl Gradients {
    /// Takes what `found` holds for the parameters of `model`.
    pub(crate) fn collect<A: Architecture>(&mut self, model: &A, found: burn::tensor::Gradients) {
        model.visit(&mut Collector { prefix: A::PREFIX, path: Vec::new(), found, into: self });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the gradients of another pass.
    ///
    /// Panics: if a parameter has another shape there.
    pub fn add(&mut self, other: Self) {
        for (name, gradient) in other.0 {
            let sum = match (self.0.remove(&name), gradient) {
                (None, gradient) => gradient,
                (Some(Held::One(a)), Held::One(b)) => Held::One(a + b),
                (Some(Held::Two(a)), Held::Two(b)) => Held::Two(a + b),
                (Some(a), b) => panic!("`{name}`: gradients {a:?} and {b:?}"),
            };
            self.0.insert(name, sum);
        }
    }

    /// Sum of squares and largest absolute value over all parameters, summed in the order of their names.
    pub fn stats(&self) -> Stats {
        let mut names: Vec<&String> = self.0.keys().collect();
        names.sort_unstable();
        let stats = |name: &String| match &self.0[name] {
            Held::One(gradient) => gradient_stats(gradient),
            Held::Two(gradient) => gradient_stats(gradient),
        };
        names.into_iter().map(stats).fold(Stats::default(), Stats::and)
    }

    /// The gradient of one parameter, in row-major order.
    pub fn values(&self, name: &str) -> Option<Vec<f32>> {
        self.0.get(name).cloned().map(Held::values)
    }
}

/// Hugging Face's name of the parameter at a path of fields; of an adapter's, PEFT's without `base_model.model.`. Only the
/// second adapter of a layer and those after it are numbered.
fn name(prefix: &str, path: &[String]) -> String {
    let head = path.first().is_some_and(|first| first == "lm_head" || first == "score");
    let prefix = if head { "" } else { prefix };
    let adapter = path.iter().position(|part| part == "adapters");
    let Some(at) = adapter.filter(|at| at + 2 < path.len()) else { return format!("{prefix}{}", path.join(".")) };
    let (layer, number) = (path[..at].join("."), &path[at + 1]);
    let number = if number == "0" { String::new() } else { format!(".{number}") };
    match path[at + 2].as_str() {
        "lora_a" => format!("{prefix}{layer}.lora_A{number}.weight"),
        "lora_b" => format!("{prefix}{layer}.lora_B{number}.weight"),
        other => format!("{prefix}{layer}.{other}{number}"),
    }
}

fn info<const D: usize>(prefix: &str, path: &[String], tensor: &Tensor<D>) -> ParameterInfo {
    let (name, shape) = (name(prefix, path), tensor.dims().to_vec());
    ParameterInfo { name, shape, decay: D > 1, trainable: tensor.is_require_grad() }
}

struct Collector<'a> {
    prefix: &'static str,
    path: Vec<String>,
    found: burn::tensor::Gradients,
    into: &'a mut Gradients,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad_remove(&mut self.found) {
            let before = self.into.0.insert(name(self.prefix, &self.path), Held::new(gradient));
            assert!(before.is_none(), "two gradients for `{}`", name(self.prefix, &self.path));
        }
    }
}

/// Collects what is known of every parameter.
struct Lister {
    prefix: &'static str,
    path: Vec<String>,
    list: Vec<ParameterInfo>,
}

impl ModuleVisitor for Lister {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.list.push(info(self.prefix, &self.path, &param.val()));
    }
}

struct Updater<'a, V> {
    prefix: &'static str,
    path: Vec<String>,
    gradients: Gradients,
    visitor: &'a mut V,
}

impl<V: ParameterVisitor> ModuleMapper for Updater<'_, V> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let info = info(self.prefix, &self.path, &tensor);
        let (autodiff, trainable) = (tensor.is_autodiff(), info.trainable);
        // From here on nobody else holds the parameter, so it can change in place.
        let gradient = self.gradients.0.remove(&info.name).map(Held::into_tensor);
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
    let mut lister = Lister { prefix: A::PREFIX, path: Vec::new(), list: Vec::new() };
    model.visit(&mut lister);
    lister.list
}

/// The model whose parameters are what `visitor` makes of them and their gradients.
pub(crate) fn update<A: Architecture, V: ParameterVisitor>(model: A, gradients: Gradients, visitor: &mut V) -> A {
    model.map(&mut Updater { prefix: A::PREFIX, path: Vec::new(), gradients, visitor })
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
    prefix: &'static str,
    path: Vec<String>,
    wanted: &'a F,
}

impl<F: Fn(&str) -> bool> ModuleMapper for Freezer<'_, F> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.val().is_autodiff() {
            return param;
        }
        // A new leaf, so that nothing of what the parameter was part of before is held.
        let tensor = Tensor::from_inner(param.val().inner());
        let wanted = (self.wanted)(&name(self.prefix, &self.path));
        let tensor = if wanted { tensor.require_grad() } else { tensor };
        Param::initialized(param.id, tensor)
    }
}

/// The model in which the parameters whose names are `wanted` are trained, and no others.
pub(crate) fn trainable_where<A: Architecture>(model: A, wanted: &impl Fn(&str) -> bool) -> A {
    model.map(&mut Freezer { prefix: A::PREFIX, path: Vec::new(), wanted })
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
