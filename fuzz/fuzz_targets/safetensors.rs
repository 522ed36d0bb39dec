#![no_main]
//! Any bytes as a safetensors file, as the index of shards and as a `config.json`.

use cavy_files::{HuggingFace, Safetensors, Tensors, hugging_face, safetensors};
use cavy_fuzz::{check, path};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    if let Ok(read) = Safetensors::parse(path(), Arc::new(data.to_vec())) {
        check(&read.tensors);
        if let Ok(model) = hugging_face::from_book(read.tensors) {
            check(&model);
        }
    }
    let _either = safetensors::parse_index(path(), data);
    if let Ok(config) = serde_json::from_slice(data) {
        let _either = HuggingFace { config, tensors: Tensors::default() }.to_gguf(path());
    }
});
