//! The golden models of the Llama family, for tests that go over all of them.

/// Their names in `testdata/models`.
pub(crate) const VARIANTS: [&str; 8] =
    ["llama", "llama_biased", "llama_linear", "llama_llama3", "llama_yarn", "mistral", "qwen2", "qwen3"];
