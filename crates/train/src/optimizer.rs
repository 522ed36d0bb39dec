//! AdamW over the parameters of a model, with its moments by parameter name.

use crate::TrainError;
use crate::files::write_error;
use crate::settings::{Optim, OptimizationSettings};
use burn::tensor::{Device, Tensor, TensorData};
use cavy_model::{Gradients, Model, ParameterInfo, ParameterVisitor};
use cavy_ops::kernels::adamw::{AdamW, Factors};
use cavy_ops::kernels::adamw8::Moments8;
use cavy_ops::kernels::random::subkey;
use cavy_ops::{adamw_step, adamw8_step};
use cavy_text::rng::hash_bytes;
use fs_err as fs;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo, TensorView};
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// AdamW with decay groups: weight decay for matrices and embeddings, none for norms and biases.
///
/// Parameters and moments change in place: a step allocates nothing once the moments are there.
///
/// Law: steps that are skipped leave no trace; the bias correction counts updates, as PyTorch's does.
/// Source: Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>; the groups are nanoGPT's.
#[derive(Debug)]
pub struct Optimizer {
    rule: AdamW,
    updates: u64,
    /// Numbers from which on a parameter has moments in 8 bits.
    small_from: usize,
    /// Of each parameter by name. Zeros are made when they are due.
    moments: BTreeMap<String, Moments>,
}

/// Fewest numbers of a parameter whose moments are in 8 bits, as bitsandbytes has it: norms and biases are few, and keep theirs.
const FEWEST_IN_8_BITS: usize = 4096;

/// Separates the rounding of moments from other uses of random numbers.
const ROUNDING: u64 = 0x8B17;

/// First and second moment of a parameter.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are as many as parameters, some hundred")]
enum Moments {
    /// In f32, flat, outside the autodiff graph.
    Full(Tensor<1>, Tensor<1>),
    /// In 8 bits.
    Small(Moments8),
}

impl Optimizer {
    /// The optimizer that `settings` describe, before its first update. The learning rate comes with each update.
    pub fn new(settings: &OptimizationSettings) -> Self {
        let rule = AdamW {
            lr: 0.0,
            beta1: settings.beta1 as f32,
            beta2: settings.beta2 as f32,
            eps: settings.eps as f32,
            weight_decay: settings.weight_decay as f32,
        };
        let small_from = if settings.optim == Optim::AdamW8bit { FEWEST_IN_8_BITS } else { usize::MAX };
        Self { rule, updates: 0, small_from, moments: BTreeMap::new() }
    }

    /// Updates done.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// One update of all parameters that have a gradient. Gradients are multiplied by `gradient_scale`, which clipping
    /// gives.
    pub fn update(&mut self, model: Model, gradients: Gradients, lr: f64, gradient_scale: f64) -> Model {
        self.updates += 1;
        let rule = AdamW { lr: lr as f32, ..self.rule };
        let rules = [AdamW { weight_decay: 0.0, ..rule }, rule];
        let (factors, gradient_scale) = (rules.map(|rule| rule.factors(self.updates)), gradient_scale as f32);
        model.update(gradients, &mut Update { optimizer: self, rules, factors, gradient_scale })
    }

    /// Writes the moments as `first.NAME` and `second.NAME`, in the model's own layout, to a safetensors file, and
    /// waits for the disk. Moments in 8 bits have `scales.NAME` besides.
    ///
    /// Errors: the disk's, with the path.
    pub(crate) fn save(&self, path: &Path) -> Result<(), TrainError> {
        let mut tensors = Vec::with_capacity(3 * self.moments.len());
        for (name, moments) in &self.moments {
            let mut push = |part: &str, values| tensors.push((format!("{part}.{name}"), values));
            match moments {
                Moments::Full(first, second) => {
                    push("first", Values::Tensor(first));
                    push("second", Values::Tensor(second));
                }
                Moments::Small(moments) => {
                    push("first", Values::Bytes(&moments.first));
                    push("second", Values::Bytes(&moments.second));
                    push("scales", Values::Floats(&moments.scales));
                }
            }
        }
        write_tensors(path, &tensors).map_err(write_error(path))
    }

    /// Reads what [`Self::save`] wrote after `updates` updates.
    ///
    /// Errors: what is wrong with the file, in words that follow its path: found, expected.
    pub(crate) fn load(
        settings: &OptimizationSettings,
        path: &Path,
        updates: u64,
        device: &Device,
    ) -> Result<Self, (String, String)> {
        let bytes = fs::read(path).map_err(|error| (error.to_string(), "a readable file".to_owned()))?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|error| (error.to_string(), "a whole safetensors file".to_owned()))?;
        let mut moments = BTreeMap::new();
        for name in tensors.names() {
            let Some(parameter) = name.strip_prefix("first.") else { continue };
            let second = format!("second.{parameter}");
            let pair = match tensors.tensor(&format!("scales.{parameter}")) {
                Ok(scales) => {
                    let bytes = |name: &str| view(&tensors, name, Dtype::U8).map(|view| view.data().to_vec());
                    let found =
                        Moments8 { first: bytes(name)?, second: bytes(&second)?, scales: floats(scales.data()) };
                    if !found.fits(found.first.len()) {
                        let lengths = [found.first.len(), found.second.len(), found.scales.len()];
                        return Err((
                            format!("moments of `{parameter}` of lengths {lengths:?}"),
                            "ones that fit".to_owned(),
                        ));
                    }
                    Moments::Small(found)
                }
                Err(_) => Moments::Full(read_tensor(&tensors, name, device)?, read_tensor(&tensors, &second, device)?),
            };
            moments.insert(parameter.to_owned(), pair);
        }
        Ok(Self { updates, moments, ..Self::new(settings) })
    }
}

struct Update<'a> {
    optimizer: &'a mut Optimizer,
    /// Without decay and with it.
    rules: [AdamW; 2],
    factors: [Factors; 2],
    gradient_scale: f32,
}

impl ParameterVisitor for Update<'_> {
    fn visit<const D: usize>(
        &mut self,
        info: &ParameterInfo,
        tensor: Tensor<D>,
        gradient: Option<Tensor<D>>,
    ) -> Tensor<D> {
        let Some(gradient) = gradient else { return tensor };
        let Optimizer { updates, small_from, ref mut moments, .. } = *self.optimizer;
        if !moments.contains_key(&info.name) {
            let (count, device) = (info.elements(), tensor.device());
            let zeros = if count >= small_from {
                Moments::Small(Moments8::zeros(count))
            } else {
                Moments::Full(Tensor::zeros([count], &device), Tensor::zeros([count], &device))
            };
            moments.insert(info.name.clone(), zeros);
        }
        let place = moments.get_mut(&info.name).expect("put there");
        let group = usize::from(info.decay);
        // Taken out of the map, so that nobody else holds the moments and they can change in place.
        let (tensor, moments) = match std::mem::replace(place, Moments::Small(Moments8::zeros(0))) {
            Moments::Full(first, second) => {
                let moments = (first, second);
                let (tensor, (first, second)) =
                    adamw_step(self.factors[group], self.gradient_scale, tensor, gradient, moments);
                (tensor, Moments::Full(first, second))
            }
            Moments::Small(mut moments) => {
                let key = subkey(hash_bytes(ROUNDING, info.name.as_bytes()), updates);
                let scale = self.gradient_scale;
                (
                    adamw8_step(&self.rules[group], (updates, key), scale, tensor, gradient, &mut moments),
                    Moments::Small(moments),
                )
            }
        };
        *place = moments;
        tensor
    }
}

/// What a tensor of the file is made of.
enum Values<'a> {
    Tensor(&'a Tensor<1>),
    Floats(&'a [f32]),
    Bytes(&'a [u8]),
}

/// Writes tensors one after the other, so that no more than one is held twice.
fn write_tensors(path: &Path, tensors: &[(String, Values<'_>)]) -> io::Result<()> {
    let mut offset = 0;
    let mut infos = Vec::with_capacity(tensors.len());
    for (name, values) in tensors {
        let (dtype, len) = match values {
            Values::Tensor(tensor) => (Dtype::F32, tensor.dims()[0]),
            Values::Floats(floats) => (Dtype::F32, floats.len()),
            Values::Bytes(bytes) => (Dtype::U8, bytes.len()),
        };
        let bytes = len * if dtype == Dtype::U8 { 1 } else { size_of::<f32>() };
        infos.push((name.clone(), TensorInfo { dtype, shape: vec![len], data_offsets: (offset, offset + bytes) }));
        offset += bytes;
    }
    // The file is read by names and offsets, so wide numbers need not be aligned.
    let metadata = Metadata::new(None, infos).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (_, values) in tensors {
        match values {
            Values::Tensor(tensor) => {
                let floats: Vec<f32> = tensor.to_data().try_to_vec().map_err(|e| io::Error::other(format!("{e:?}")))?;
                write_floats(&mut file, &floats)?;
            }
            Values::Floats(floats) => write_floats(&mut file, floats)?,
            Values::Bytes(bytes) => file.write_all(bytes)?,
        }
    }
    file.into_inner()?.sync_all()
}

fn write_floats(file: &mut impl Write, floats: &[f32]) -> io::Result<()> {
    floats.iter().try_for_each(|float| file.write_all(&float.to_le_bytes()))
}

fn read_tensor(tensors: &SafeTensors<'_>, name: &str, device: &Device) -> Result<Tensor<1>, (String, String)> {
    let values = floats(view(tensors, name, Dtype::F32)?.data());
    let count = values.len();
    Ok(Tensor::from_data(TensorData::new(values, [count]), &device.clone().without_autodiff()))
}

/// A tensor by name, of one row of that type.
fn view<'a>(tensors: &SafeTensors<'a>, name: &str, dtype: Dtype) -> Result<TensorView<'a>, (String, String)> {
    let view = tensors.tensor(name).map_err(|_| (format!("no tensor `{name}`"), "both moments".to_owned()))?;
    if view.dtype() != dtype || view.shape().len() != 1 {
        let found = format!("tensor `{name}` of {:?} {:?}", view.dtype(), view.shape());
        return Err((found, format!("one row of {dtype:?}")));
    }
    Ok(view)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{batch, tiny_model};
    use burn::backend::Flex;

    /// Where the values of each parameter lie in memory.
    struct Addresses(Vec<(String, usize)>);

    fn address<const D: usize>(tensor: &Tensor<D>) -> usize {
        let primitive = tensor.clone().try_into_primitive::<Flex>().unwrap();
        primitive.storage::<f32>().as_ptr().addr()
    }

    impl ParameterVisitor for Addresses {
        fn visit<const D: usize>(
            &mut self,
            info: &ParameterInfo,
            tensor: Tensor<D>,
            _: Option<Tensor<D>>,
        ) -> Tensor<D> {
            self.0.push((info.name.clone(), address(&tensor)));
            tensor
        }
    }

    struct Values(BTreeMap<String, Vec<f32>>);

    impl ParameterVisitor for Values {
        fn visit<const D: usize>(
            &mut self,
            info: &ParameterInfo,
            tensor: Tensor<D>,
            _: Option<Tensor<D>>,
        ) -> Tensor<D> {
            self.0.insert(info.name.clone(), tensor.to_data().try_to_vec().unwrap());
            tensor
        }
    }

    fn gradients(model: &Model) -> Gradients {
        let batch = batch(2, 8);
        let weights = vec![1.0 / 16.0; 16];
        model.loss_and_gradients(&batch.pass(None), &batch.targets, &weights, false).2
    }

    #[test]
    fn an_update_changes_parameters_and_moments_where_they_lie() {
        let mut optimizer = Optimizer::new(&OptimizationSettings::default());
        let model = tiny_model(0.0);
        let found = gradients(&model);
        let mut model = optimizer.update(model, found, 1e-3, 1.0);
        let moments = |optimizer: &Optimizer| -> Vec<usize> {
            let of = |moments: &Moments| match moments {
                Moments::Full(first, second) => [address(first), address(second)],
                Moments::Small(moments) => [moments.first.as_ptr().addr(), moments.second.as_ptr().addr()],
            };
            optimizer.moments.values().flat_map(of).collect()
        };
        let mut before = Addresses(Vec::new());
        model = model.for_each_parameter(&mut before);
        let moments_before = moments(&optimizer);
        for _ in 0..2 {
            let found = gradients(&model);
            model = optimizer.update(model, found, 1e-3, 1.0);
        }
        let mut after = Addresses(Vec::new());
        let _model = model.for_each_parameter(&mut after);
        assert_eq!(before.0, after.0);
        assert_eq!(moments_before, moments(&optimizer));
        assert_eq!(before.0.len(), optimizer.moments.len());
    }

    #[test]
    fn matrices_decay_and_norms_and_biases_do_not() {
        // A scale of zero makes all gradients zero, so only the decay is left: 1 - 0.1 * 0.5 = 0.95.
        let settings = OptimizationSettings { weight_decay: 0.5, ..OptimizationSettings::default() };
        let read = |model: Model| {
            let mut values = Values(BTreeMap::new());
            (model.for_each_parameter(&mut values), values.0)
        };
        let (model, before) = read(tiny_model(0.0));
        let found = gradients(&model);
        let (model, after) = read(Optimizer::new(&settings).update(model, found, 0.1, 0.0));
        let mut groups = [0, 0];
        for info in model.parameters() {
            let matrix = info.shape.len() > 1;
            groups[usize::from(matrix)] += 1;
            let expected: f32 = if matrix { 0.95 } else { 1.0 };
            for (old, new) in before[&info.name].iter().zip(&after[&info.name]) {
                assert!((new - old * expected).abs() <= 1e-6 * old.abs(), "{}: {old} to {new}", info.name);
            }
        }
        assert!(groups[0] > 4 && groups[1] > 4, "{groups:?}");
    }

    /// Numbers of a large parameter of the tiny model.
    const LARGE: usize = 300;

    /// One update in 8 bits, of a model of which only some parameters are large enough.
    fn updated(optim: Optim) -> (Optimizer, Model) {
        let settings = OptimizationSettings { optim, ..OptimizationSettings::default() };
        let mut optimizer = Optimizer::new(&settings);
        if optim == Optim::AdamW8bit {
            optimizer.small_from = LARGE;
        }
        let model = tiny_model(0.0);
        let found = gradients(&model);
        let model = optimizer.update(model, found, 1e-3, 1.0);
        (optimizer, model)
    }

    fn bits_of(optimizer: &Optimizer) -> Vec<(String, Vec<f32>, Vec<f32>)> {
        let values = |tensor: &Tensor<1>| tensor.to_data().try_to_vec().unwrap();
        let of = |(name, moments): (&String, &Moments)| match moments {
            Moments::Full(first, second) => (name.clone(), values(first), values(second)),
            Moments::Small(moments) => {
                let [first, second] = moments.decoded();
                (format!("{name} in 8 bits"), first, second)
            }
        };
        optimizer.moments.iter().map(of).collect()
    }

    #[test]
    fn the_first_update_is_the_same_in_8_bits_and_large_parameters_alone_have_them() {
        let (optimizer, model) = updated(Optim::AdamW8bit);
        let (exact, expected) = updated(Optim::AdamW);
        for (found, expected) in crate::testing::values(&model).iter().zip(crate::testing::values(&expected)) {
            assert!((found - expected).abs() <= 1e-6, "{found} {expected}");
        }
        let small: Vec<String> = bits_of(&optimizer).into_iter().map(|(name, ..)| name).collect();
        let sizes = model.parameters().into_iter().map(|info| (info.name, info.shape.iter().product::<usize>()));
        let mut expected: Vec<String> =
            sizes.map(|(name, n)| if n < LARGE { name } else { format!("{name} in 8 bits") }).collect();
        expected.sort();
        let large = expected.iter().filter(|name| name.ends_with("8 bits")).count();
        assert!(large > 0 && large < expected.len(), "{expected:?}");
        assert_eq!(small, expected);
        assert_eq!(bits_of(&exact).len(), small.len());
    }

    #[test]
    fn moments_come_back_from_the_disk_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.safetensors");
        for optim in [Optim::AdamW, Optim::AdamW8bit] {
            let settings = OptimizationSettings { optim, ..OptimizationSettings::default() };
            let (mut optimizer, model) = updated(optim);
            optimizer.save(&path).unwrap();
            let mut loaded = Optimizer::load(&settings, &path, 1, &Device::flex().autodiff()).unwrap();
            loaded.small_from = optimizer.small_from;
            assert_eq!(bits_of(&optimizer), bits_of(&loaded));
            assert!(bits_of(&loaded).iter().any(|(_, first, _)| first.iter().any(|&m| m != 0.0)));
            // And so does the next update.
            let (a, b) = (gradients(&model), gradients(&model));
            let values = |model: &Model| crate::testing::values(model);
            let again = optimizer.update(tiny_model(0.0), a, 1e-3, 1.0);
            assert_eq!(values(&again), values(&loaded.update(tiny_model(0.0), b, 1e-3, 1.0)));
            assert_eq!(bits_of(&optimizer), bits_of(&loaded));
        }
        let settings = OptimizationSettings::default();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let (found, expected) = Optimizer::load(&settings, &path, 1, &Device::flex()).err().unwrap();
        assert!(expected.contains("whole"), "{found}, {expected}");
    }
}
