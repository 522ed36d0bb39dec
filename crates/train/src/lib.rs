//! Training: what a run is told, the one loop, the optimizer, checkpoints, and what a run leaves behind.

mod error;
pub mod metrics;
pub mod pretrain;
pub mod schedule;
pub mod settings;

pub use error::{SettingsError, TrainError};
pub use schedule::Schedule;
pub use settings::PretrainSettings;
