//! What every fused operation shares: from Burn tensor to slice and back, and the step of the autodiff graph.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{DType, Shape, Tensor};
use burn_flex::{FlexTensor, Layout};
use cavy_kernels::Exec;
use cavy_kernels::buffer::unfilled;
use std::cell::Cell;
use std::sync::RwLock;

/// A float tensor in the autodiff graph of the CPU.
pub(crate) type Tracked = FloatTensor<Autodiff<Flex>>;

static EXEC: RwLock<Option<Exec>> = RwLock::new(None);

/// Chooses instruction set and threads for all operations of this process.
///
/// Burn's operations take no such argument, so this is the one place where it is global.
pub fn set_exec(exec: Exec) {
    *EXEC.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(exec);
}

/// What [`set_exec`] chose; at first, everything this machine has.
pub fn exec() -> Exec {
    let chosen = *EXEC.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    chosen.unwrap_or_else(|| {
        let exec = Exec::new(std::thread::available_parallelism().map_or(1, usize::from));
        set_exec(exec);
        exec
    })
}

thread_local! {
    static COMPOSED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` with every operation composed of Burn's own, as on a device without fused kernels.
pub fn composed_everywhere<T>(body: impl FnOnce() -> T) -> T {
    let before = COMPOSED.replace(true);
    let result = body();
    COMPOSED.set(before);
    result
}

/// A tensor on the CPU, inside or outside an autodiff graph.
pub(crate) enum Input {
    Plain(FlexTensor),
    Tracked(Tracked),
}

/// Whether fused kernels serve this tensor.
pub(crate) fn is_fused<const D: usize>(tensor: &Tensor<D>) -> bool {
    use burn::backend::{DispatchDevice, GradientCheckpointingStrategy};
    let device = tensor.device();
    let inner = device.clone().without_autodiff();
    !COMPOSED.get()
        && tensor.dtype() == DType::F32
        && matches!(inner.as_dispatch(), DispatchDevice::Flex(_))
        && device
            .gradient_checkpointing_strategy()
            .is_none_or(|strategy| strategy == GradientCheckpointingStrategy::default())
}

impl Input {
    /// Panics: unless [`is_fused`] holds.
    pub(crate) fn of<const D: usize>(tensor: Tensor<D>) -> Self {
        if tensor.is_autodiff() {
            Self::Tracked(tensor.try_into_primitive::<Autodiff<Flex>>().expect("a tracked tensor on the CPU"))
        } else {
            Self::Plain(tensor.try_into_primitive::<Flex>().expect("a tensor on the CPU"))
        }
    }

    fn is_tracked(&self) -> bool {
        matches!(self, Self::Tracked(tensor) if tensor.is_tracked())
    }
}

/// A fused operation with `N` differentiable inputs.
///
/// Laws: `forward` fills `saved` only if an input is tracked; `backward` returns a gradient for exactly the wanted ones.
pub(crate) trait CpuOp<const N: usize>: std::fmt::Debug + Send + Sized + 'static {
    /// What the backward pass needs.
    type Saved: Clone + std::fmt::Debug + Send + 'static;
    /// Output and what to save. `tracked` says which inputs want a gradient.
    fn forward(&self, inputs: [FlexTensor; N], tracked: [bool; N]) -> (FlexTensor, Self::Saved);
    /// Gradients by the inputs from the gradient by the output.
    fn backward(self, d_y: FlexTensor, saved: Self::Saved, wanted: [bool; N]) -> [Option<FlexTensor>; N];
}

#[derive(Debug)]
struct GraphStep<O>(O);

impl<O: CpuOp<N>, const N: usize> Backward<Flex, N> for GraphStep<O> {
    type State = O::Saved;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let d_y = contiguous(grads.consume::<Flex>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let gradients = self.0.backward(d_y, ops.state, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

/// Runs `op` on `inputs` and, where one of them is tracked, records its backward pass.
pub(crate) fn apply<O: CpuOp<N>, const N: usize, const D: usize>(op: O, inputs: [Input; N]) -> Tensor<D> {
    let tracked = inputs.each_ref().map(Input::is_tracked);
    if !inputs.iter().any(|input| matches!(input, Input::Tracked(_))) {
        let plain = inputs.map(|input| match input {
            Input::Plain(tensor) => contiguous(tensor),
            Input::Tracked(_) => unreachable!("no input is tracked"),
        });
        let (y, _) = op.forward(plain, tracked);
        return Tensor::from_primitive::<Flex>(y);
    }
    let inputs = inputs.map(|input| match input {
        Input::Plain(tensor) => Tracked::new(tensor),
        Input::Tracked(tensor) => tensor,
    });
    let nodes = inputs.each_ref().map(Tracked::node);
    let (y, saved) = op.forward(inputs.map(|input| contiguous(input.into_primitive())), tracked);
    let y = match GraphStep(op).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(saved, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(y)
}

/// The same values in row-major order without gaps.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// The elements of a contiguous tensor.
pub(crate) fn slice(tensor: &FlexTensor) -> &[f32] {
    let (start, end) = tensor.layout().contiguous_offsets().expect("a contiguous tensor");
    &tensor.storage::<f32>()[start..end]
}

/// The elements of a contiguous tensor to be changed in place: copied first if it is shared.
pub(crate) fn slice_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    let (start, end) = tensor.layout().contiguous_offsets().expect("a contiguous tensor");
    &mut tensor.storage_mut::<f32>()[start..end]
}

/// The sizes of a tensor of `D` dimensions.
pub(crate) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    let shape = tensor.layout().shape();
    std::array::from_fn(|axis| shape[axis])
}

/// A tensor over `data`.
pub(crate) fn tensor<const D: usize>(data: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    let bytes = burn::tensor::Bytes::from_elems(data);
    FlexTensor::new(bytes, Layout::contiguous(Shape::from(shape)), DType::F32)
}

/// A new tensor that `fill` writes whole.
pub(crate) fn filled<const D: usize>(shape: [usize; D], fill: impl FnOnce(&mut [f32])) -> FlexTensor {
    let mut data = unfilled(shape.iter().product());
    fill(&mut data);
    tensor(data, shape)
}

/// `filled` where `wanted`.
pub(crate) fn filled_if<const D: usize>(
    wanted: bool,
    shape: [usize; D],
    fill: impl FnOnce(&mut [f32]),
) -> Option<FlexTensor> {
    wanted.then(|| filled(shape, fill))
}
