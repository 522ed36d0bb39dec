//! `cavy inspect`: what is in a model file.

use crate::error::CliError;
use crate::open::resolve;
use crate::{Ending, text};
use cavy_files::{Format, Gguf, TensorInfo, Tensors};
use cavy_model::{KvStorage, Source};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Model folder or file, or `hf:org/name[@revision]` of the hub
    path: PathBuf,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Opens and prints.
pub(crate) fn inspect(args: &InspectArgs) -> Result<Ending, CliError> {
    let path = resolve(&args.path)?;
    let format = Format::detect(&path)?;
    let tensors = Format::load_tensors(&path)?;
    let source = Source::open(&path);
    if args.json {
        text::data(&as_json(format, &tensors, source.as_ref().ok()).to_string());
        return Ok(Ending::Done);
    }
    text::data(&format!("format       {format:?}"));
    match &source {
        Ok(source) => {
            let config = &source.config;
            text::data(&format!("model        {}", source.fields["model_type"].as_str().unwrap_or("unknown")));
            text::data(&format!("parameters   {}", text::thousands(config.num_parameters() as u64)));
            text::data(&format!("vocabulary   {}", text::thousands(config.vocab_size() as u64)));
            text::data(&format!("context      {}", text::thousands(config.context_length() as u64)));
            let row = |storage| config.kv_shape(storage).row_bytes(config.context_length()).unwrap_or(0) as f64;
            let (full, small) = (text::bytes(row(KvStorage::F32)), text::bytes(row(KvStorage::Q8)));
            text::data(&format!("kv cache     {full} for a whole context in f32, {small} in 8 bits"));
        }
        Err(error) => text::data(&format!("model        cannot be run: {error}")),
    }
    for (dtype, (count, bytes)) in by_type(&tensors) {
        text::data(&format!("{dtype:<12} {count} tensors, {}", text::bytes(bytes as f64)));
    }
    if format == Format::Gguf {
        let gguf = Gguf::load(&path)?;
        for (key, value) in gguf.metadata.iter() {
            text::data(&format!("{key} = {value}"));
        }
    }
    if args.tensors {
        for info in tensors.infos() {
            let shape: Vec<String> = info.shape.iter().map(ToString::to_string).collect();
            text::data(&format!("{:<6} {:>16}  {}", info.dtype.to_string(), shape.join(" x "), info.name));
        }
    }
    Ok(Ending::Done)
}

/// Tensors and bytes of each type.
fn by_type(tensors: &Tensors) -> BTreeMap<String, (usize, usize)> {
    let mut types: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for info in tensors.infos() {
        let entry = types.entry(info.dtype.to_string()).or_default();
        *entry = (entry.0 + 1, entry.1 + info.size_bytes());
    }
    types
}

fn as_json(format: Format, tensors: &Tensors, source: Option<&Source>) -> Value {
    let tensor = |info: &TensorInfo| json!({"name": info.name, "dtype": info.dtype.to_string(), "shape": info.shape, "bytes": info.size_bytes()});
    json!({
        "format": format!("{format:?}"), "config": source.map(|source| &source.fields),
        "parameters": source.map(|source| source.config.num_parameters()),
        "tensors": tensors.infos().map(tensor).collect::<Vec<_>>(),
    })
}
