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
enum Held {
    One(Tensor<1>),
    Two(Tensor<2>),
}

impl Held {
    fn new<const D: usize>(tensor: Tensor<D>) -> Self {
        match D {
            1 => Self::One(Tensor::from_dispatch(tensor.into_dispatch())),
            2 => Self::Two(Tensor::from_dispatch(tensor.into_dispatch())),
            _ => panic!("a parameter of {D} dimensions"),
        }
    }

    fn into_tensor<const D: usize>(self) -> Tensor<D> {
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
        let data = match self.0.get(name)?.clone() {
            Held::One(gradient) => gradient.into_data(),
            Held::Two(gradient) => gradient.into_data(),
        };
        Some(data.try_to_vec().unwrap_or_default())
    }
}

/// Hugging Face's name of the parameter at a path of fields.
fn name(prefix: &str, path: &[String]) -> String {
    let joined = path.join(".");
    if joined.starts_with("lm_head") { joined } else { format!("{prefix}{joined}") }
}

fn info<const D: usize>(prefix: &str, path: &[String], tensor: &Tensor<D>) -> ParameterInfo {
    ParameterInfo { name: name(prefix, path), shape: tensor.dims().to_vec(), decay: D > 1 }
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
        let autodiff = tensor.is_autodiff();
        // From here on nobody else holds the parameter, so it can change in place.
        let gradient = self.gradients.0.remove(&info.name).map(Held::into_tensor);
        let tensor = self.visitor.visit(&info, tensor.inner(), gradient);
        let tensor = if autodiff { Tensor::from_inner(tensor).require_grad() } else { tensor };
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
