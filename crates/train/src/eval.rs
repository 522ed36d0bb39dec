//! What a loss says in other units.

use cavy_text::TokenStore;

/// A loss in nats for each token as bits for each byte of the text behind `store`, if that is known: the same for any
/// tokenizer.
///
/// `loss / ln 2 * tokens / bytes`.
pub fn bits_per_byte(loss: f64, store: &TokenStore) -> Option<f64> {
    let bytes = store.text_bytes();
    (bytes > 0).then(|| loss / std::f64::consts::LN_2 * store.len() as f64 / bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_bytes_a_token_halve_the_bits() {
        let store = TokenStore::from_tokens(vec![0; 100], 2, 200).unwrap();
        assert_eq!(bits_per_byte(std::f64::consts::LN_2, &store), Some(0.5));
        assert_eq!(bits_per_byte(1.0, &TokenStore::from_tokens(vec![0], 1, 0).unwrap()), None);
    }
}
