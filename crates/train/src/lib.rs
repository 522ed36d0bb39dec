//! Training: what a run is told, the one loop, the optimizer, checkpoints, and what a run leaves behind.

pub mod checkpoint;
pub mod data;
mod error;
pub mod eval;
mod files;
pub mod metrics;
pub mod optimizer;
pub mod pretrain;
pub mod sampler;
pub mod schedule;
pub mod settings;
pub mod step;
#[cfg(test)]
mod testing;

pub use error::{SettingsError, TrainError};
pub use schedule::Schedule;
pub use settings::PretrainSettings;
