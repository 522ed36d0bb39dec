//! Tiny models whose weights come from a formula, see `testdata/make_llama_golden.py`.

use burn::tensor::{Device, Tensor, TensorData};
use cavy_model::{Model, ModelConfig, ParameterInfo, ParameterVisitor, WeightInit};
use std::path::{Path, PathBuf};

fn test_input(n: usize, salt: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + salt * 104_729) % 2003) as f32 / 2003.0 - 0.5).collect()
}

/// A file of the golden models.
pub(crate) fn golden_path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(file)
}

/// What the `config.json` of a golden model says.
pub(crate) fn config(variant: &str) -> ModelConfig {
    let path = golden_path(&format!("{variant}.json"));
    ModelConfig::from_json(&path, serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap()).unwrap()
}

struct GoldenWeights(Vec<String>);

impl ParameterVisitor for GoldenWeights {
    fn visit<const D: usize>(&mut self, info: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        let index = self.0.iter().position(|name| *name == info.name).unwrap();
        let (scale, shift) = match (info.name.contains("norm"), D) {
            (true, _) => (0.25, 1.0),
            (false, 1) => (0.25, 0.0),
            _ => (0.5, 0.0),
        };
        let values = test_input(info.shape.iter().product(), 100 + index);
        let values: Vec<f32> = values.into_iter().map(|x| x * scale + shift).collect();
        Tensor::from_data(TensorData::new(values, info.shape.clone()), &tensor.device())
    }
}

/// The golden model of this name.
pub(crate) fn model(variant: &str, device: &Device) -> Model {
    let model = Model::new(&config(variant), WeightInit::Gpt2, 0, device);
    let mut names: Vec<String> = model.parameters().into_iter().map(|info| info.name).collect();
    names.sort_unstable();
    model.for_each_parameter(&mut GoldenWeights(names))
}
