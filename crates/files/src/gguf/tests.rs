use super::*;
use crate::golden::{backing, golden, golden_bytes, test_input};
use crate::{Outgoing, f32_bytes, f32_values};
use proptest::prelude::*;

fn parse(bytes: &[u8]) -> Result<Gguf, FilesError> {
    Gguf::parse(Path::new("m.gguf"), backing(bytes))
}

fn message(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err().to_string()
}

/// A header of this many tensors and keys, and what follows it.
fn file(tensors: u64, keys: u64, rest: &[&[u8]]) -> Vec<u8> {
    let head = [MAGIC.as_slice(), &3_u32.to_le_bytes(), &tensors.to_le_bytes(), &keys.to_le_bytes()].concat();
    [head, rest.concat()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A tensor info; dimensions innermost first.
fn info(name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let sizes: Vec<u8> = dimensions.iter().flat_map(|size| size.to_le_bytes()).collect();
    let count = (dimensions.len() as u32).to_le_bytes();
    [text(name).as_slice(), &count, &sizes, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
}

#[test]
fn what_the_formats_own_package_wrote_is_read() {
    let Gguf { metadata, tensors } = Gguf::load(&golden("tiny.gguf")).unwrap();
    let expected = [
        ("general.architecture", Value::String("llama".into())),
        ("test.u8", Value::U8(200)),
        ("test.i8", Value::I8(-100)),
        ("test.u16", Value::U16(60000)),
        ("test.i16", Value::I16(-30000)),
        ("test.u32", Value::U32(4_000_000_000)),
        ("test.i32", Value::I32(-2_000_000_000)),
        ("test.f32", Value::F32(0.25)),
        ("test.bool", Value::Bool(true)),
        ("test.string", Value::String("Tschüß, мир".into())),
        ("test.u64", Value::U64(1 << 63)),
        ("test.i64", Value::I64(-(1 << 62))),
        ("test.f64", Value::F64(0.1)),
        ("test.ints", Value::Array(Array::I32(vec![1, -2, 3]))),
        ("test.floats", Value::Array(Array::F32(vec![0.5, -0.5]))),
        ("test.texts", Value::Array(Array::String(["<s>", "", "Ġthe"].map(String::from).into()))),
        ("test.bools", Value::Array(Array::Bool(vec![true, false]))),
    ];
    assert_eq!(metadata.iter().map(|(key, value)| (key, value.clone())).collect::<Vec<_>>(), expected);
    assert_eq!(tensors.info("plain.f32").unwrap().shape, [2, 3]);
    assert_eq!(tensors.f32("plain.f32").unwrap(), test_input(6, 1));
    let rounded = |n, salt, dtype| f32_values(dtype, &f32_bytes(dtype, &test_input(n, salt)).unwrap()).unwrap();
    assert_eq!(tensors.f32("plain.f16").unwrap(), rounded(4, 2, Dtype::F16));
    assert_eq!(tensors.f32("plain.bf16").unwrap(), rounded(6, 3, Dtype::BF16));
    let shapes = |name: &str| (tensors.info(name).unwrap().dtype, tensors.info(name).unwrap().shape.clone());
    for dtype in [Dtype::Q8_0, Dtype::Q4_0, Dtype::Q4_1, Dtype::Q5_0, Dtype::Q5_1] {
        assert_eq!(shapes(&format!("blocks.{dtype}").to_lowercase()), (dtype, vec![3, 64]));
    }
    for (salt, dtype) in (9_usize..).zip([Dtype::Q4K, Dtype::Q5K, Dtype::Q6K]) {
        let name = format!("blocks.{dtype}").to_lowercase();
        assert_eq!(shapes(&name), (dtype, vec![2, 256]));
        let raw: Vec<u8> = (0..2 * dtype.block().1).map(|i| (i * 31 + salt) as u8).collect();
        assert_eq!(*tensors.bytes(&name).unwrap(), *raw);
    }
}

#[test]
fn the_golden_file_is_written_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.gguf");
    let read = Gguf::load(&golden("tiny.gguf")).unwrap();
    save(&path, &read.metadata, Outgoing::all(&read.tensors)).unwrap();
    assert_eq!(fs_err::read(&path).unwrap(), golden_bytes("tiny.gguf"));
}

#[test]
fn getters_name_the_key_and_what_it_holds() {
    let metadata = Gguf::load(&golden("tiny.gguf")).unwrap().metadata;
    assert_eq!(metadata.u64("test.u8").unwrap(), 200);
    assert_eq!(metadata.f64("test.f32").unwrap(), 0.25);
    assert_eq!(metadata.str("general.architecture").unwrap(), "llama");
    assert!(metadata.bool("test.bool").unwrap());
    assert_eq!(metadata.strings("test.texts").unwrap().len(), 3);
    assert_eq!(metadata.array("test.ints").unwrap().len(), 3);
    assert_eq!(metadata.find_u64("absent").unwrap(), None);
    let place = golden("").display().to_string();
    let message = |error: FilesError| error.to_string().replace(&place, "");
    insta::assert_snapshot!(message(metadata.u64("absent").unwrap_err()), @r"
    tiny.gguf: key `absent` is missing
    hint: the file may be for another kind of model
    ");
    insta::assert_snapshot!(message(metadata.u64("test.i8").unwrap_err()), @r"
    tiny.gguf: key `test.i8` is -100, expected an integer of at least 0
    hint: correct it, or take the file from where the model comes from again
    ");
    insta::assert_snapshot!(message(metadata.str("test.ints").unwrap_err()), @r"
    tiny.gguf: key `test.ints` is an array of 3, expected text
    hint: correct it, or take the file from where the model comes from again
    ");
    assert!(metadata.bool("test.u8").is_err() && metadata.strings("test.ints").is_err());
    assert!(metadata.array("test.u8").is_err() && metadata.f64("test.string").is_err());
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = golden_bytes("tiny.gguf");
    let tensors = parse(&whole).unwrap().tensors;
    let end = tensors.infos().map(|info| info.range.end).max().unwrap();
    for length in 0..end {
        assert!(parse(&whole[..length]).is_err(), "{length} bytes");
    }
    // Only the padding after the last tensor may be missing.
    assert!(parse(&whole[..end]).is_ok());
}

#[test]
fn counts_are_not_believed() {
    let huge = u64::MAX.to_le_bytes();
    insta::assert_snapshot!(message(&file(u64::MAX, 0, &[])), @r"
    m.gguf: the list of tensors needs 18446744073709551615 bytes from byte 16, the file has 24 in all
    hint: it may be cut short; copy it again
    ");
    assert!(parse(&file(0, u64::MAX, &[])).is_err());
    assert!(parse(&file(0, 1 << 40, &[&[0; 64]])).is_err());
    insta::assert_snapshot!(message(&file(0, 1, &[&huge, &[0; 64]])), @r"
    m.gguf: the length of a key is 18446744073709551615, expected at most 65535
    hint: the file is damaged or made to do harm
    ");
    // A text, an array of texts, of numbers and of arrays, each of which claims to be endless.
    let key = text("k");
    for kind in
        [&8_u32.to_le_bytes()[..], &[9, 0, 0, 0, 8, 0, 0, 0], &[9, 0, 0, 0, 10, 0, 0, 0], &[9, 0, 0, 0, 9, 0, 0, 0]]
    {
        let message = message(&file(0, 1, &[&key, kind, &huge, &[0; 64]]));
        assert!(message.contains("key `k` needs"), "{message}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    let mut arrays = Vec::new();
    for _ in 0..10_000 {
        arrays.extend([9, 0, 0, 0]);
        arrays.extend(1_u64.to_le_bytes());
    }
    insta::assert_snapshot!(message(&file(0, 1, &[&text("k"), &[9, 0, 0, 0], &arrays])), @r"
    m.gguf: the nesting of key `k` is 5, expected at most 4
    hint: the file is damaged or made to do harm
    ");
}

#[test]
fn wrong_headers_are_named() {
    let version = |version: u32| [MAGIC.as_slice(), &version.to_le_bytes(), &[0; 16]].concat();
    insta::assert_snapshot!(message(b"PK\x03\x04 and more"), @r"
    m.gguf: this is a file that begins with `PK\x03\x04`, expected a little-endian GGUF file of version 2 or 3
    hint: GGUF files begin with `GGUF`
    ");
    insta::assert_snapshot!(message(&version(1)), @r"
    m.gguf: this is a GGUF file of version 1, expected a little-endian GGUF file of version 2 or 3
    hint: convert the model again
    ");
    insta::assert_snapshot!(message(&version(3_u32.swap_bytes())), @r"
    m.gguf: this is a big-endian GGUF file, expected a little-endian GGUF file of version 2 or 3
    hint: convert the model again for little-endian
    ");
    assert!(parse(&version(2)).is_ok() && parse(&version(3)).is_ok() && parse(&version(4)).is_err());
    assert!(parse(b"GGUF").is_err() && parse(b"GG").is_err());
    let bad_bool = file(0, 1, &[&text("k"), &7_u32.to_le_bytes(), &[2]]);
    let bad_type = file(0, 1, &[&text("k"), &13_u32.to_le_bytes(), &[0; 8]]);
    let bad_text = file(0, 1, &[&text("k"), &8_u32.to_le_bytes(), &1_u64.to_le_bytes(), &[0xFF]]);
    for bytes in [bad_bool, bad_type, bad_text] {
        assert!(message(&bytes).contains("key `k`"));
    }
    let entry = [text("k").as_slice(), &0_u32.to_le_bytes(), &[1]].concat();
    assert!(message(&file(0, 2, &[&entry, &entry])).contains("`k` occurs twice"));
    for alignment in [0_u32, 24, 1 << 21] {
        let entry = [text(ALIGNMENT_KEY).as_slice(), &4_u32.to_le_bytes(), &alignment.to_le_bytes()].concat();
        assert!(message(&file(0, 1, &[&entry])).contains(ALIGNMENT_KEY), "{alignment}");
    }
}

#[test]
fn wrong_tensors_are_named() {
    let padding = [0; 256];
    let one = |info: &[u8]| file(1, 0, &[info, &padding]);
    let two = |a: &[u8], b: &[u8]| file(2, 0, &[a, b, &padding]);
    assert!(parse(&one(&info("x", &[8], 0, 0))).is_ok());
    insta::assert_snapshot!(message(&two(&info("x", &[16], 0, 0), &info("y", &[8], 0, 32))), @r"
    m.gguf: tensors `x` and `y` overlap
    hint: the file is damaged or made to do harm
    ");
    insta::assert_snapshot!(message(&two(&info("x", &[8], 0, 0), &info("x", &[8], 0, 32))), @r"
    m.gguf: tensor `x` is already in m.gguf
    hint: a name may occur once in the files of a model
    ");
    insta::assert_snapshot!(message(&one(&info("x", &[8], 0, 8))), @r"
    m.gguf: tensor `x`, F32 [8]: its place in the file is not a multiple of the alignment
    hint: the file is damaged
    ");
    insta::assert_snapshot!(message(&one(&info("x", &[31, 2], 8, 0))), @r"
    m.gguf: tensor `x`, Q8_0 [2, 31]: its rows are not whole blocks of its type
    hint: the file is damaged
    ");
    insta::assert_snapshot!(message(&one(&info("x", &[8], 10, 0))), @r"
    m.gguf: tensor `x` has type Q2_K, which is not supported
    hint: convert it to one of F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K
    ");
    insta::assert_snapshot!(message(&one(&info("x", &[800], 0, 0))), @r"
    m.gguf: tensor `x` needs 3200 bytes from byte 64, the file has 313 in all
    hint: it may be cut short; copy it again
    ");
    insta::assert_snapshot!(message(&one(&info("x", &[1; 5], 0, 0))), @r"
    m.gguf: the number of dimensions of tensor `x` is 5, expected at most 4
    hint: the file is damaged or made to do harm
    ");
    insta::assert_snapshot!(message(&one(&info("x", &[1 << 40, 1 << 40], 0, 0))), @r"
    m.gguf: tensor `x`, F32 [1099511627776, 1099511627776]: its size in bytes does not fit 64 bits
    hint: the file is damaged
    ");
    assert!(parse(&one(&info("x", &[8], 0, u64::MAX - 31))).is_err());
    assert!(parse(&one(&info("x", &[8], 0, 1 << 40))).is_err());
    assert!(parse(&one(&info("x", &[u64::MAX], 24, 0))).is_err());
}

#[test]
fn what_cannot_be_held_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let none = Metadata::new();
    let one = |name| Outgoing::new(name, Dtype::F16, &[1], vec![0; 2]);
    assert!(save(&path, &none, [one("a"), one("a")]).is_err());
    assert!(save(&path, &none, [Outgoing::new("b", Dtype::Bool, &[1], vec![0])]).is_err());
    assert!(save(&path, &none, [Outgoing::new("d", Dtype::F16, &[1; 5], vec![0; 2])]).is_err());
    assert!(save(&path, &none, [Outgoing::new("h", Dtype::Q8_0, &[33], vec![0; 34])]).is_err());
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
}

fn array(depth: u32) -> BoxedStrategy<Array> {
    let flat = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4).prop_map(Array::U8),
        prop::collection::vec(any::<i16>(), 0..4).prop_map(Array::I16),
        prop::collection::vec(any::<bool>(), 0..4).prop_map(Array::Bool),
        prop::collection::vec(".{0,5}", 0..4).prop_map(Array::String),
        prop::collection::vec(any::<i64>(), 0..4).prop_map(Array::I64),
        prop::collection::vec(-1e9_f64..1e9, 0..4).prop_map(Array::F64),
    ];
    if depth == 0 {
        return flat.boxed();
    }
    prop_oneof![flat, prop::collection::vec(array(depth - 1), 0..3).prop_map(Array::Array)].boxed()
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        (-1e9_f32..1e9).prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        ".{0,20}".prop_map(Value::String),
        array(3).prop_map(Value::Array),
    ]
}

proptest! {
    // Each case writes and syncs a file.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn load_undoes_save(
        keys in prop::collection::btree_map("[a-z.]{1,12}", value(), 0..6),
        tensors in prop::collection::btree_map(
            "[a-z.]{1,12}",
            (0_usize..TYPES.len(), prop::collection::vec(0_usize..4, 0..4), any::<u8>()),
            0..6,
        ),
        alignment in prop::option::of(3_u32..9),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        let mut metadata = Metadata::new();
        keys.iter().for_each(|(key, value)| metadata.set(key, value.clone()));
        if let Some(power) = alignment {
            metadata.set(ALIGNMENT_KEY, Value::U32(1 << power));
        }
        // Rows must be whole blocks.
        let shape = |kind: usize, shape: &[usize]| {
            let block = TYPES[kind].1.block().0;
            let mut shape = shape.to_vec();
            if block > 1 {
                shape.pop();
                shape.push(block);
            }
            shape
        };
        let outgoing = tensors.iter().map(|(name, (kind, sizes, fill))| {
            let (dtype, shape) = (TYPES[*kind].1, shape(*kind, sizes));
            Outgoing::new(name, dtype, &shape, vec![*fill; dtype.size_bytes(&shape).unwrap()])
        });
        save(&path, &metadata, outgoing).unwrap();
        let read = Gguf::load(&path).unwrap();
        prop_assert_eq!(&read.metadata, &metadata);
        for (name, (kind, sizes, fill)) in &tensors {
            let found = read.tensors.info(name).unwrap();
            prop_assert_eq!((found.dtype, &found.shape), (TYPES[*kind].1, &shape(*kind, sizes)));
            prop_assert!(read.tensors.bytes(name).unwrap().iter().all(|byte| byte == fill));
        }
    }

    #[test]
    fn a_damaged_byte_never_panics(at in 0_usize..3000, byte in any::<u8>()) {
        let mut bytes = golden_bytes("tiny.gguf");
        bytes[at] = byte;
        if let Ok(read) = parse(&bytes) {
            for info in read.tensors.infos() {
                prop_assert_eq!(read.tensors.bytes(&info.name).unwrap().len(), info.size_bytes());
            }
        }
    }
}
