//! Any bytes as a fastText model: refused, or asked without a panic.
#![no_main]

use cavy_curate::fasttext::FastText;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(model) = FastText::parse(bytes) {
        let probabilities = model.probabilities("a text of émigré words\nfrom 2024");
        assert_eq!(probabilities.len(), model.labels().len());
    }
});
