//! Training: what a run is told, the one loop, the optimizer, checkpoints, and what a run leaves behind.

pub mod base;
pub mod checkpoint;
pub mod data;
mod error;
pub mod eval;
mod files;
mod log;
pub mod machine;
pub mod metrics;
pub mod objectives;
pub mod optimizer;
pub mod packing;
pub mod reference;
pub mod run;
pub mod sampler;
pub mod schedule;
pub mod settings;
pub mod step;
#[cfg(test)]
mod testing;

pub use error::{SettingsError, TrainError};
pub use objectives::pretrain;
pub use run::Outcome;
pub use schedule::Schedule;
pub use settings::{PretrainSettings, Settings};
