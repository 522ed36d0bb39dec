use super::*;
use crate::golden::{backing, golden, golden_bytes, test_input};
use proptest::prelude::*;

fn parse(bytes: &[u8]) -> Result<Llama2c, FilesError> {
    Llama2c::parse(Path::new("m.bin"), backing(bytes))
}

/// The message of a golden file with other sizes at its beginning.
fn message(sizes: [i32; 7]) -> String {
    let mut bytes = golden_bytes("tiny.llama2c.bin");
    bytes[..HEADER_BYTES].copy_from_slice(&sizes.map(i32::to_le_bytes).concat());
    parse(&bytes).unwrap_err().to_string()
}

/// The sizes that `make_golden.py` wrote.
const SIZES: [i32; 7] = [16, 12, 2, 4, 2, 10, 6];

#[test]
fn what_llama2c_wrote_is_read_in_hugging_faces_order() {
    let Llama2c { header, tensors } = Llama2c::load(&golden("tiny.llama2c.bin")).unwrap();
    assert_eq!((header.hidden_size, header.intermediate_size, header.head_dim()), (16, 12, 4));
    assert_eq!((header.num_attention_heads, header.num_key_value_heads), (4, 2));
    assert!(header.tie_word_embeddings && !tensors.contains("lm_head.weight"));
    assert_eq!(tensors.len(), 2 + 2 * 9);
    assert_eq!(tensors.f32("model.embed_tokens.weight").unwrap(), test_input(160, 1));
    assert_eq!(tensors.f32("model.norm.weight").unwrap(), test_input(16, 11));
    let second = |salt, size| test_input(2 * size, salt)[size..].to_vec();
    for (name, salt, shape) in [
        ("input_layernorm", 2, vec![16]),
        ("self_attn.v_proj", 5, vec![8, 16]),
        ("self_attn.o_proj", 6, vec![16, 16]),
        ("post_attention_layernorm", 7, vec![16]),
        ("mlp.gate_proj", 8, vec![12, 16]),
        ("mlp.down_proj", 9, vec![16, 12]),
        ("mlp.up_proj", 10, vec![12, 16]),
    ] {
        let name = format!("model.layers.1.{name}.weight");
        assert_eq!(tensors.info(&name).unwrap().shape, shape);
        assert_eq!(tensors.f32(&name).unwrap(), second(salt, shape.iter().product()), "{name}");
    }
    // Rows of queries and keys come in the order 0, 2, 1, 3 of each head of four.
    for (name, salt, rows) in [("q", 3, 16), ("k", 4, 8)] {
        let stored = second(salt, rows * 16);
        let moved = (0..rows).flat_map(|row| {
            let from = row / 4 * 4 + [0, 2, 1, 3][row % 4];
            stored[from * 16..(from + 1) * 16].to_vec()
        });
        let found = tensors.f32(&format!("model.layers.1.self_attn.{name}_proj.weight")).unwrap();
        assert_eq!(found, moved.collect::<Vec<f32>>());
    }
}

#[test]
fn a_negative_vocabulary_means_a_head_of_its_own() {
    let Llama2c { header, tensors } = Llama2c::load(&golden("untied.llama2c.bin")).unwrap();
    assert!(!header.tie_word_embeddings);
    assert_eq!(tensors.f32("lm_head.weight").unwrap(), test_input(160, 14));
    assert_eq!(header.config()["tie_word_embeddings"], false);
}

#[test]
fn a_file_cut_anywhere_or_longer_is_refused() {
    for name in ["tiny.llama2c.bin", "untied.llama2c.bin"] {
        let whole = golden_bytes(name);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{name}: {length} bytes");
        }
        assert!(parse(&[whole.as_slice(), &[0]].concat()).is_err());
    }
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    insta::assert_snapshot!(message([16, 12, 3, 4, 2, 10, 6]), @r"
    m.bin: a model of these sizes needs 17340 bytes from byte 0, the file has 11836 in all
    hint: it may be cut short; copy it again
    ");
    insta::assert_snapshot!(message([16, 12, 1, 4, 2, 10, 6]), @r"
    m.bin: its size in bytes is 11836, expected 6332
    hint: the file is damaged; copy it again
    ");
    insta::assert_snapshot!(message([LATER_MAGIC, 1, 2, 4, 2, 10, 6]), @r"
    m.bin: this is a llama2.c file of version 1, expected a llama2.c file of version 0, which begins with seven sizes
    hint: export it again with `--version 0`
    ");
    insta::assert_snapshot!(message([0x0403_4B50, 20, 0, 0, 0, 0, 0]), @r"
    m.bin: this is a file that begins with [67324752, 20, 0, 0, 0, 0, 0], expected a llama2.c file of version 0, which begins with seven sizes
    hint: it may be of another format
    ");
    insta::assert_snapshot!(message([i32::MAX - 1, i32::MAX, 1024, 1, 1, i32::MAX, i32::MAX]), @r"
    m.bin: a model of these sizes needs 18446744073709551615 bytes from byte 0, the file has 11836 in all
    hint: it may be cut short; copy it again
    ");
    for (at, sizes) in [(0, &[0, -16, 12, 20][..]), (1, &[0, -1]), (2, &[0, 1025]), (3, &[0, 3, 16]), (4, &[0, 3, 8])] {
        for size in sizes {
            let mut changed = SIZES;
            changed[at] = *size;
            assert!(message(changed).contains("seven sizes") || message(changed).contains("needs"), "{changed:?}");
        }
    }
    assert!(message([16, 12, 2, 4, 2, i32::MIN, 6]).contains("seven sizes"));
}

proptest! {
    #[test]
    fn any_sizes_are_read_or_refused(sizes in prop::array::uniform7(-3_i32..40)) {
        let mut bytes = golden_bytes("tiny.llama2c.bin");
        bytes[..HEADER_BYTES].copy_from_slice(&sizes.map(i32::to_le_bytes).concat());
        let _either = parse(&bytes);
    }
}
