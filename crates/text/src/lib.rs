//! Text for cavy: from files to tokens to windows in a seeded order.
//!
//! A [`Corpus`] yields documents; a [`Tokenizer`] turns them into ids; [`shards`] stores the ids once, memory-mapped;
//! [`Windows`] says where each training example lies in them and [`Order`] in which order they come. [`split`] keeps
//! validation text apart and [`stories`] makes the built-in data. A [`ChatTemplate`] writes a conversation out. This crate knows no tensor library; seeds come in as
//! arguments.

pub mod builtin;
pub mod chat;
pub mod classify;
pub mod corpus;
mod error;
pub mod instruct;
pub mod order;
pub mod preference;
pub mod rng;
pub mod rows;
pub mod shards;
pub mod spam;
mod special;
pub mod split;
pub mod stories;
mod stream;
pub mod tokenizer;
pub mod windows;

pub use chat::{ChatInput, ChatTemplate, LocalTime, Message, encode_chat};
pub use corpus::{Corpus, Document, Place};
pub use error::TextError;
pub use instruct::ItemProblem;
pub use order::Order;
pub use shards::TokenStore;
pub use special::SpecialTokens;
pub use stream::TextStream;
pub use tokenizer::{GgufVocabulary, Tokenizer};
pub use windows::{RandomWindows, Windows};
