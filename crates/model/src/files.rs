//! Models in files: what a path holds, a model out of it, and a model into a Hugging Face directory.

mod load;
mod save;
mod source;

pub use load::Weights;
pub(crate) use load::{is_conv1d, model_of, transposed};
pub(crate) use save::save;
pub use source::{Origin, Source};
