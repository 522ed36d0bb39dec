//! cavy.
