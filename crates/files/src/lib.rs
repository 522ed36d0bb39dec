//! Model files as bytes: what tensors are in them, of which type and shape, where; and the writing of them.
//!
//! Every reader maps its file and gives [`Tensors`]: what is known of each, and its bytes without a copy. Files are not
//! trusted: sizes are checked before anything is reserved, and whatever is wrong is an error that names the file and the
//! tensor or key. This crate knows no tensor library, and of architectures only what their tensors and settings are called
//! on either side ([`names`], [`config`]); [`hugging_face`] turns one side into the other.

mod backing;
pub mod config;
mod dtype;
mod error;
mod floats;
mod format;
mod gather;
pub mod gguf;
#[cfg(test)]
mod golden;
pub mod hugging_face;
pub mod llama2c;
pub mod names;
pub mod pth;
pub mod rope_rows;
pub mod safetensors;
mod save;
mod shards;
mod tensors;

pub use backing::{Backing, Bytes, TensorBytes, map};
pub use dtype::Dtype;
pub use error::FilesError;
pub use floats::{f32_bytes, f32_values};
pub use format::Format;
pub use gather::permute_rows;
pub use gguf::Gguf;
pub use hugging_face::HuggingFace;
pub use llama2c::Llama2c;
pub use pth::Pth;
pub use safetensors::Safetensors;
pub use save::{AtomicFile, Outgoing, Producer};
pub use tensors::{TensorInfo, Tensors};
