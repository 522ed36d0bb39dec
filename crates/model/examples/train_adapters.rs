//! Trains adapters of tiny models and writes base, adapter and logits, for `testdata/adapters/check_in_peft.py` to compare:
//!
//! ```text
//! cargo run --release -p cavy-model --example train_adapters -- OUT
//! python testdata/adapters/check_in_peft.py OUT
//! ```

use burn::tensor::{Device, Tensor};
use cavy_model::{
    AdapterConfig, Model, ModelConfig, ModelError, ParameterInfo, ParameterVisitor, Pass, Targets, WeightInit,
};
use cavy_ops::Segments;
use std::path::Path;
use std::sync::Arc;

const TOKENS: usize = 16;

/// Steps of one size by the sign of the gradient, which suit models of any scale.
struct Descent;

impl ParameterVisitor for Descent {
    fn visit<const D: usize>(
        &mut self,
        _: &ParameterInfo,
        tensor: Tensor<D>,
        gradient: Option<Tensor<D>>,
    ) -> Tensor<D> {
        match gradient {
            Some(gradient) => tensor - gradient.sign() * 0.003,
            None => tensor,
        }
    }
}

fn trained(base: Model, config: &AdapterConfig) -> Result<Model, ModelError> {
    let mut model = base.attach(config, 1)?;
    let vocab = model.config().vocab_size() as u32;
    let ids: Vec<u32> = (0..TOKENS as u32).map(|i| (7 * i + 3) % (vocab - 1) + 1).collect();
    let targets: Arc<[u32]> = (0..TOKENS as u32).map(|i| (5 * i + 1) % vocab).collect();
    let pass = Pass::new(ids.into(), Arc::new(Segments::uniform(1, TOKENS)), None);
    for _ in 0..30 {
        let (_, _, gradients) = model.loss_and_gradients(&pass, &targets, &[1.0; TOKENS], false);
        model = model.update(gradients, &mut Descent);
    }
    Ok(model)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = std::env::args().nth(1).ok_or("usage: train_adapters OUT")?;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/adapters");
    for sizes in ["gpt2_lora", "llama_dora", "llama_head"] {
        for kind in ["lora", "dora", "rslora", "split", "head", "whole"] {
            let path = data.join(sizes).join("config.json");
            let config = ModelConfig::from_json(&path, serde_json::from_slice(&fs_err::read(&path)?)?)?;
            let base = Model::new(&config, WeightInit::Pytorch, 3, &Device::flex().autodiff());
            let embedding = if sizes.starts_with("gpt2") { "wte" } else { "embed_tokens" };
            let config = AdapterConfig {
                r: 4,
                lora_alpha: 6.0,
                target_modules: Targets::AllLinear,
                use_dora: kind == "dora",
                use_rslora: kind == "rslora",
                split_qkv: kind == "split",
                lora_head: kind == "head",
                modules_to_save: if kind == "whole" { vec![embedding.into(), "lm_head".into()] } else { Vec::new() },
                ..AdapterConfig::default()
            };
            let dir = Path::new(&out).join(format!("{sizes}-{kind}"));
            base.save(&dir)?;
            let model = trained(base, &config)?;
            model.save_adapter(&dir.join("adapter"))?;
            let vocab = model.config().vocab_size() as u32;
            let ids: Vec<u32> = (0..TOKENS as u32).map(|i| (11 * i + 2) % (vocab - 1) + 1).collect();
            let pass = Pass::new(ids.clone().into(), Arc::new(Segments::uniform(1, TOKENS)), None);
            let logits = model.valid().logits(&pass, &(0..TOKENS).collect::<Vec<_>>());
            fs_err::write(dir.join("logits.json"), serde_json::to_string(&(ids, logits))?)?;
        }
    }
    Ok(())
}
