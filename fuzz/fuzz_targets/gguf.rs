#![no_main]
//! Any bytes as a GGUF file, and as a Hugging Face model if they are one.

use cavy_files::{Gguf, HuggingFace};
use cavy_fuzz::{check, path};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let Ok(gguf) = Gguf::parse(path(), Arc::new(data.to_vec())) else { return };
    check(&gguf.tensors);
    if let Ok(model) = HuggingFace::from_gguf(gguf) {
        check(&model.tensors);
        if let Ok((_, tensors)) = model.to_gguf(path()) {
            check(&tensors);
        }
    }
});
