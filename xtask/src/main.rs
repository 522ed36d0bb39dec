//! Chores of the workspace. The house rules are tests: `cargo test -p xtask`.
fn main() {}
