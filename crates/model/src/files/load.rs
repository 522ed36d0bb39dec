//! A model out of its files.

use super::source::Source;
use crate::error::ModelError;
use crate::init::Initializer;
use crate::model::Model;
use crate::parameters::{ParameterInfo, ParameterVisitor};
use burn::tensor::{Device, Tensor, TensorData};
use cavy_files::{Dtype, TensorInfo};
use cavy_ops::exec;
use cavy_ops::kernels::packed::{Format, PackedMatrix, dequantize};
use std::sync::Arc;

/// In which form the weights of linear layers and the token embedding are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// As f32, to be trained or to compute as exactly as the file allows.
    F32,
    /// As they are stored: half precision and quantized blocks are multiplied from that form.
    AsStored,
    /// Converted to a form that can be written.
    Packed(Format),
    /// 8 bits with one scale a row, and products of many tokens in 8 bits: the layers of blocks. Output head and embedding are Q8_0.
    Int8,
}

/// The weight of the head of Hugging Face's `*ForSequenceClassification`.
const SCORE: &str = "score.weight";

/// A model of so few parameters is not measured against its file: whichever tensor is missing can be named.
const FEW_PARAMETERS: usize = 1 << 20;

/// Loads the model of `source`.
///
/// Errors: a model far larger than its files, before memory is asked for; a missing tensor, or one of another shape or type than `config.json` asks for, by path and name.
pub(crate) fn model_of(source: &Source, weights: Weights, device: &Device) -> Result<Model, ModelError> {
    let (asked, held) = (source.config.num_parameters(), source.tensors.infos().map(TensorInfo::elements).sum());
    if asked / 2 > FEW_PARAMETERS.max(held) {
        return Err(ModelError::Size { path: source.path.clone(), asked, held });
    }
    let mut model = Model::hollow(&source.config, device);
    if source.tensors.contains(SCORE) {
        let rows = source.tensors.info(SCORE)?.shape.first().copied().unwrap_or(0);
        if rows == 0 {
            check(source, source.tensors.info(SCORE)?, &[1, 0])?;
        }
        model.put_head(rows, source.tensors.contains("score.bias"), &mut Initializer::hollow(device));
        let name = |label: usize| source.fields["id2label"][label.to_string()].as_str().map(str::to_owned);
        if let Some(names) = (0..rows).map(name).collect() {
            model = model.with_labels(names);
        }
    }
    if weights != Weights::F32 {
        let mut error = None;
        let mut pack = |name: &str, shape: [usize; 2]| match packed(source, name, shape, weights) {
            Ok(packed) => packed,
            Err(found) => {
                error.get_or_insert(found);
                None
            }
        };
        model.for_each_linear(&mut |name, linear| {
            let Some(weight) = &linear.weight else { return };
            linear.packed = pack(&format!("{name}.weight"), weight.val().dims());
            linear.weight = linear.weight.take().filter(|_| linear.packed.is_none());
        });
        let (name, table) = model.token_embedding();
        if let Some(weight) = &table.weight {
            table.packed = pack(&format!("{name}.weight"), weight.val().dims());
            table.weight = table.weight.take().filter(|_| table.packed.is_none());
        }
        if let Some(error) = error {
            return Err(error);
        }
    }
    let mut loader = Loader { source, error: None };
    let model = model.for_each_parameter(&mut loader);
    if weights == Weights::F32 {
        // Nothing of the model lies in the file any more.
        source.tensors.release();
    }
    loader.error.map_or(Ok(model), Err)
}

/// Hugging Face stores the linear layers of GPT-2's blocks as `Conv1D`, `(in, out)`.
pub(crate) fn is_conv1d(name: &str) -> bool {
    name.starts_with("transformer.h.") && name.ends_with(".weight") && !name.contains(".ln_")
}

/// Whether a tensor of the file has `(in, out)` for the model's `(out, in)`. Quantized blocks of GGUF are as the model
/// wants them.
fn lies_transposed(source: &Source, info: &TensorInfo, name: &str) -> bool {
    is_conv1d(name) && !source.tensors.is_turned(&info.name)
}

/// The name in the file: a bare model is saved without the prefix.
fn stored<'a>(source: &'a Source, name: &str) -> Result<&'a TensorInfo, ModelError> {
    let bare = name.trim_start_matches("transformer.").trim_start_matches("model.");
    let name = if source.tensors.contains(name) || !source.tensors.contains(bare) { name } else { bare };
    Ok(source.tensors.info(name)?)
}

/// Fails unless the file's tensor has the shape that the config asks for.
fn check(source: &Source, info: &TensorInfo, expected: &[usize]) -> Result<(), ModelError> {
    if info.shape == expected {
        return Ok(());
    }
    let (path, name) = (source.path.clone(), info.name.clone());
    Err(ModelError::Shape { path, name, expected: expected.into(), found: info.shape.clone() })
}

/// The packed form of a type that has one.
pub(crate) fn format_of(dtype: Dtype) -> Option<Format> {
    Some(match dtype {
        Dtype::F32 => Format::F32,
        Dtype::F16 => Format::F16,
        Dtype::BF16 => Format::Bf16,
        Dtype::Q4_0 => Format::Q4_0,
        Dtype::Q4_1 => Format::Q4_1,
        Dtype::Q5_0 => Format::Q5_0,
        Dtype::Q5_1 => Format::Q5_1,
        Dtype::Q8_0 => Format::Q8_0,
        Dtype::Q4K => Format::Q4K,
        Dtype::Q5K => Format::Q5K,
        Dtype::Q6K => Format::Q6K,
        _ => return None,
    })
}

/// The weight in the form wanted; `None` where it is to be a tensor of f32.
fn packed(
    source: &Source,
    name: &str,
    shape: [usize; 2],
    weights: Weights,
) -> Result<Option<PackedMatrix>, ModelError> {
    let info = stored(source, name)?;
    let transposed = lies_transposed(source, info, name);
    let wanted = match weights {
        Weights::F32 => return Ok(None),
        Weights::AsStored => format_of(info.dtype).unwrap_or(Format::F32),
        Weights::Packed(format) => format,
        Weights::Int8 => Format::Q8_0,
    };
    let [rows, cols] = shape;
    let in_rows = weights == Weights::Int8 && name.contains(".h.") | name.contains(".layers.");
    if wanted == Format::F32 {
        return Ok(None);
    }
    let broken = |source| ModelError::Packed { name: name.to_owned(), source };
    if format_of(info.dtype) == Some(wanted) && !transposed && !in_rows {
        check(source, info, &shape)?;
        let bytes = source.tensors.bytes(&info.name)?;
        let range = 0..bytes.len();
        return PackedMatrix::new(wanted, rows, cols, Arc::new(bytes), range).map(Some).map_err(broken);
    }
    if wanted.bytes_of(rows, cols).is_none() {
        return Ok(None); // Its rows are not whole blocks: it stays f32, as in other converters.
    }
    let values = values(source, info, name, &shape)?;
    if in_rows {
        return PackedMatrix::quantize_rows(exec(), rows, cols, &values).map(Some).map_err(broken);
    }
    let packed = PackedMatrix::quantize(exec(), wanted, rows, cols, &values);
    packed.ok_or(ModelError::ReadOnlyFormat { format: wanted.to_string() })?.map(Some).map_err(broken)
}

/// The f32 values of a tensor, in the model's order of dimensions.
fn values(source: &Source, info: &TensorInfo, name: &str, expected: &[usize]) -> Result<Vec<f32>, ModelError> {
    let conv1d = lies_transposed(source, info, name);
    let there: Vec<usize> = if conv1d { expected.iter().rev().copied().collect() } else { expected.to_vec() };
    check(source, info, &there)?;
    let values = f32_values(source, &info.name)?;
    Ok(if conv1d { transposed(&values, there[0], there[1]) } else { values })
}

/// The f32 values of a tensor of any floating-point or quantized type.
pub(crate) fn f32_values(source: &Source, name: &str) -> Result<Vec<f32>, ModelError> {
    let info = source.tensors.info(name)?;
    match format_of(info.dtype) {
        Some(format) => {
            let bytes = source.tensors.bytes(name)?;
            let mut values = vec![0.0; info.elements()];
            dequantize(exec(), format, &bytes, &mut values);
            Ok(values)
        }
        None => Ok(source.tensors.f32(name)?),
    }
}

/// The transpose of a `(rows, cols)` matrix.
pub(crate) fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| values[i % rows * cols + i / rows]).collect()
}

/// Replaces every parameter by the file's; the first error is kept.
struct Loader<'a> {
    source: &'a Source,
    error: Option<ModelError>,
}

impl ParameterVisitor for Loader<'_> {
    fn visit<const D: usize>(&mut self, info: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        if self.error.is_some() {
            return tensor;
        }
        let found = stored(self.source, &info.name);
        match found.and_then(|stored| values(self.source, stored, &info.name, &info.shape)) {
            Ok(values) => Tensor::from_data(TensorData::new(values, info.shape.clone()), &tensor.device()),
            Err(error) => {
                self.error = Some(error);
                tensor
            }
        }
    }
}
