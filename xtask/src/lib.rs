//! The house rules of the workspace are tests: `cargo test -p xtask`. A library, since `cargo run` needs the one binary.
