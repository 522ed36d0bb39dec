//! Scaling laws: how many parameters and tokens a budget is best spent on, and what loss to expect.
//!
//! `N` is a model's parameters, `D` the tokens it is trained on, `C = 6 N D` the floating-point operations of training,
//! `L` the loss in nats a token. Pure numbers in, pure numbers out: the seed, the threads and the count of a shape's
//! parameters come in as arguments.

pub mod approach;
pub mod bootstrap;
pub mod envelope;
mod error;
pub mod fit;
pub mod huber;
pub mod hyperparameters;
pub mod inference;
pub mod isoflop;
pub mod ladder;
pub mod law;
pub mod lbfgs;
pub mod points;
mod random;
pub mod repeat;
mod search;
pub mod shape;

pub use approach::PowerLaw;
pub use error::ScalingError;
pub use law::{Law, Optimum};
pub use points::Point;

/// Floating-point operations of training `n` parameters on `d` tokens: `6 n d`.
///
/// Source: Kaplan et al. 2020, section 2.1, <https://arxiv.org/abs/2001.08361>.
pub fn training_flops(n: f64, d: f64) -> f64 {
    6.0 * n * d
}
