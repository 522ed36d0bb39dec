#![no_main]
//! Any bytes as a llama2.c file.

use cavy_files::{HuggingFace, Llama2c};
use cavy_fuzz::{check, path};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let Ok(read) = Llama2c::parse(path(), Arc::new(data.to_vec())) else { return };
    check(&read.tensors);
    let model = HuggingFace { config: read.header.config(), tensors: read.tensors };
    check(&model.to_gguf(path()).expect("a Llama of Hugging Face's names").1);
});
