//! Adapters on a model as a user names them.

use crate::error::CliError;
use cavy_model::{Device, Model, Source, Weights};
use clap::Args;
use std::path::{Path, PathBuf};

/// Which adapters a model gets.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct AdapterArgs {
    /// Folder of a PEFT adapter, with how much of its change counts (1 if not said); may be given several times
    #[arg(long = "adapter", value_name = "DIR[=WEIGHT]")]
    adapters: Vec<String>,
}

impl AdapterArgs {
    pub(crate) fn is_empty(&self) -> bool {
        self.adapters.is_empty()
    }

    /// The model with the adapters, in their order.
    pub(crate) fn put_on(&self, model: Model) -> Result<Model, CliError> {
        self.adapters.iter().try_fold(model, |model, adapter| {
            let (dir, weight) = parse(adapter)?;
            loaded(model, &dir, weight)
        })
    }
}

fn loaded(model: Model, dir: &Path, weight: f64) -> Result<Model, CliError> {
    if !dir.join("adapter_config.json").exists() {
        let message = format!("{}: no `adapter_config.json` there", dir.display());
        return Err(CliError::failed(message, "give the folder that training wrote, or PEFT's `save_pretrained`"));
    }
    Ok(model.load_adapter(dir, weight)?)
}

/// Writes an adapter of the model in `source` as a GGUF file.
pub(crate) fn export(source: &Source, adapter: &Path, out: &Path) -> Result<(), CliError> {
    let model = Model::open(source, Weights::AsStored, &Device::flex())?;
    Ok(loaded(model, &resolved(adapter), 1.0)?.save_adapter_gguf(out)?)
}

/// Folder and weight. A folder whose name holds `=` is still found.
fn parse(adapter: &str) -> Result<(PathBuf, f64), CliError> {
    let path = Path::new(adapter);
    match adapter.rsplit_once('=') {
        Some((dir, weight)) if !path.exists() => {
            let wrong = || {
                let message = format!("`--adapter {adapter}`: `{weight}` is not a number");
                CliError::usage(message, "write `DIR=0.5`, or `DIR` alone for all of it")
            };
            Ok((resolved(Path::new(dir)), weight.parse().ok().filter(|w: &f64| w.is_finite()).ok_or_else(wrong)?))
        }
        _ => Ok((resolved(path), 1.0)),
    }
}

/// A run directory stands for the adapter in it.
fn resolved(path: &Path) -> PathBuf {
    let inner = path.join("adapter");
    if !path.join("adapter_config.json").exists() && inner.join("adapter_config.json").exists() {
        return inner;
    }
    path.to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_follows_the_folder() {
        let folder = |adapter: &str| parse(adapter).map(|(dir, weight)| (dir.display().to_string(), weight));
        assert_eq!(folder("some/dir").unwrap(), ("some/dir".to_owned(), 1.0));
        assert_eq!(folder("some/dir=0.25").unwrap(), ("some/dir".to_owned(), 0.25));
        assert_eq!(folder("a=b=-1").unwrap(), ("a=b".to_owned(), -1.0));
        assert!(folder("some/dir=x").unwrap_err().to_string().contains("`x` is not a number"));
        assert!(folder("some/dir=nan").is_err());
    }
}
