//! AdamW over the parameters of a model, with its moments by parameter name.

use crate::TrainError;
use crate::files::write_error;
use crate::settings::OptimizationSettings;
use burn::tensor::{Device, Tensor, TensorData};
use cavy_model::{Gradients, Model, ParameterInfo, ParameterVisitor};
use cavy_ops::adamw_step;
use cavy_ops::kernels::adamw::AdamW;
use fs_err as fs;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
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
    /// First and second moment of each parameter, flat, outside the autodiff graph. Zeros are made when they are due.
    moments: BTreeMap<String, (Tensor<1>, Tensor<1>)>,
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
        Self { rule, updates: 0, moments: BTreeMap::new() }
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
        model.update(gradients, &mut Update { optimizer: self, rule, gradient_scale: gradient_scale as f32 })
    }

    /// Writes the moments as `first.NAME` and `second.NAME`, in the model's own layout, to a safetensors file, and
    /// waits for the disk.
    ///
    /// Errors: the disk's, with the path.
    pub(crate) fn save(&self, path: &Path) -> Result<(), TrainError> {
        let pair = |(name, (first, second)): (&String, &(Tensor<1>, Tensor<1>))| {
            [(format!("first.{name}"), first.clone()), (format!("second.{name}"), second.clone())]
        };
        let tensors: Vec<(String, Tensor<1>)> = self.moments.iter().flat_map(pair).collect();
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
            let read = |name: &str| read_tensor(&tensors, name, device);
            let pair = (read(name)?, read(&format!("second.{parameter}"))?);
            moments.insert(parameter.to_owned(), pair);
        }
        Ok(Self { updates, moments, ..Self::new(settings) })
    }
}

struct Update<'a> {
    optimizer: &'a mut Optimizer,
    rule: AdamW,
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
        let (shape, count, device) = (tensor.dims(), info.shape.iter().product::<usize>(), tensor.device());
        // Taken out of the map, so that nobody else holds the moments and they can change in place.
        let moments = self.optimizer.moments.remove(&info.name);
        let moments = moments.unwrap_or_else(|| (Tensor::zeros([count], &device), Tensor::zeros([count], &device)));
        let rule = AdamW { weight_decay: if info.decay { self.rule.weight_decay } else { 0.0 }, ..self.rule };
        let (flat, gradient) = (tensor.reshape([count]), gradient.reshape([count]));
        let (flat, moments) = adamw_step(&rule, self.optimizer.updates, self.gradient_scale, flat, gradient, moments);
        self.optimizer.moments.insert(info.name.clone(), moments);
        flat.reshape(shape)
    }
}

/// Writes tensors one after the other, so that no more than one is held twice.
fn write_tensors(path: &Path, tensors: &[(String, Tensor<1>)]) -> io::Result<()> {
    let mut offset = 0;
    let mut infos = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let bytes = tensor.dims()[0] * size_of::<f32>();
        let info =
            TensorInfo { dtype: Dtype::F32, shape: tensor.dims().to_vec(), data_offsets: (offset, offset + bytes) };
        infos.push((name.clone(), info));
        offset += bytes;
    }
    let metadata = Metadata::new(None, infos).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (_, tensor) in tensors {
        let values: Vec<f32> = tensor.to_data().try_to_vec().map_err(|error| io::Error::other(format!("{error:?}")))?;
        for value in values {
            file.write_all(&value.to_le_bytes())?;
        }
    }
    file.into_inner()?.sync_all()
}

fn read_tensor(tensors: &SafeTensors<'_>, name: &str, device: &Device) -> Result<Tensor<1>, (String, String)> {
    let view = tensors.tensor(name).map_err(|_| (format!("no tensor `{name}`"), "both moments".to_owned()))?;
    if view.dtype() != Dtype::F32 || view.shape().len() != 1 {
        let found = format!("tensor `{name}` of {:?} {:?}", view.dtype(), view.shape());
        return Err((found, "one row of F32".to_owned()));
    }
    let values: Vec<f32> = view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let count = values.len();
    Ok(Tensor::from_data(TensorData::new(values, [count]), &device.clone().without_autodiff()))
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
            optimizer.moments.values().flat_map(|(first, second)| [address(first), address(second)]).collect()
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

    #[test]
    fn moments_come_back_from_the_disk_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.safetensors");
        let settings = OptimizationSettings::default();
        let mut optimizer = Optimizer::new(&settings);
        let model = tiny_model(0.0);
        let found = gradients(&model);
        let _model = optimizer.update(model, found, 1e-3, 1.0);
        optimizer.save(&path).unwrap();
        let loaded = Optimizer::load(&settings, &path, 1, &Device::flex().autodiff()).unwrap();
        let values = |optimizer: &Optimizer| -> Vec<(String, Vec<f32>, Vec<f32>)> {
            let values = |tensor: &Tensor<1>| tensor.to_data().try_to_vec().unwrap();
            let of = |(name, (a, b)): (&String, &(Tensor<1>, Tensor<1>))| (name.clone(), values(a), values(b));
            optimizer.moments.iter().map(of).collect()
        };
        assert_eq!(values(&optimizer), values(&loaded));
        assert!(values(&loaded).iter().any(|(_, first, _)| first.iter().any(|&m| m != 0.0)));
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let (found, expected) = Optimizer::load(&settings, &path, 1, &Device::flex()).err().unwrap();
        assert!(expected.contains("whole"), "{found}, {expected}");
    }
}
