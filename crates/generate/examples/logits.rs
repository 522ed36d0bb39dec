//! The logits after each of some tokens, to be compared with another program's: `logits MODEL ID...`.
//!
//! Writes `(ids, vocabulary)` numbers as f32 in little-endian order to stdout. Weights are taken as f32.
//! `testdata/round_trips.py` reads them.

use burn::tensor::Device;
use cavy_model::{Model, Pass, Source, Weights};
use cavy_ops::Segments;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or("usage: logits MODEL ID...")?;
    let ids: Vec<u32> = arguments.map(|id| id.parse()).collect::<Result<_, _>>()?;
    let model = Model::open(&Source::open(Path::new(&model))?, Weights::F32, &Device::flex())?;
    let pass = Pass::new(ids.as_slice().into(), Arc::new(Segments::uniform(1, ids.len())), None);
    let logits = model.logits(&pass, &(0..ids.len()).collect::<Vec<_>>());
    let bytes: Vec<u8> = logits.into_iter().flat_map(f32::to_le_bytes).collect();
    Ok(std::io::stdout().lock().write_all(&bytes)?)
}
