//! Reads the golden vectors in `testdata/`; `make_golden.py` there says what each file holds.

use crate::testing::assert_near;
use safetensors::{Dtype, SafeTensors};

/// One golden file.
pub(crate) struct Golden {
    name: String,
    bytes: Vec<u8>,
}

impl Golden {
    /// Reads `testdata/<name>.safetensors`.
    pub(crate) fn read(name: &str) -> Self {
        let path = format!("{}/../../testdata/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Self { name: name.into(), bytes: fs_err::read(path).unwrap() }
    }

    /// The values of a tensor, stored as f32 or f64.
    pub(crate) fn values(&self, tensor: &str) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(tensor).unwrap_or_else(|error| panic!("{}.{tensor}: {error}", self.name));
        match view.dtype() {
            Dtype::F32 => view.data().as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
            Dtype::F64 => view.data().as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
            other => panic!("{}.{tensor} holds {other:?}, expected F32 or F64", self.name),
        }
    }

    /// The bytes of a tensor, stored as u8.
    pub(crate) fn bytes(&self, tensor: &str) -> Vec<u8> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(tensor).unwrap_or_else(|error| panic!("{}.{tensor}: {error}", self.name));
        assert_eq!(view.dtype(), Dtype::U8, "{}.{tensor}", self.name);
        view.data().to_vec()
    }

    /// Fails unless every `|got - golden| <= bound * (1 + |golden|)`.
    pub(crate) fn check(&self, tensor: &str, got: &[f32], bound: f64) {
        assert_near(&format!("{}.{tensor}", self.name), got, &self.values(tensor), bound);
    }
}
