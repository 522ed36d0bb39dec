use super::*;
use crate::golden::{backing, golden, golden_bytes, test_input};
use crate::{Outgoing, f32_bytes, f32_values};
use proptest::prelude::*;

/// A file of this header, and after it `data` bytes.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn parse(bytes: &[u8]) -> Result<Safetensors, FilesError> {
    Safetensors::parse(Path::new("m.safetensors"), backing(bytes))
}

fn message(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err().to_string()
}

#[test]
fn what_pytorch_saved_is_read() {
    let read = Safetensors::load(&golden("tiny.safetensors")).unwrap();
    assert_eq!(read.metadata, BTreeMap::from([("format".into(), "pt".into())]));
    let tensors = read.tensors;
    let rounded = |n, salt, dtype| f32_values(dtype, &f32_bytes(dtype, &test_input(n, salt)).unwrap()).unwrap();
    assert_eq!(tensors.f32("a.f32").unwrap(), test_input(6, 1));
    assert_eq!(tensors.f32("b.f16").unwrap(), rounded(6, 2, Dtype::F16));
    assert_eq!(tensors.f32("c.bf16").unwrap(), rounded(4, 3, Dtype::BF16));
    assert_eq!(tensors.f32("e.scalar").unwrap(), test_input(1, 4));
    assert!(tensors.info("e.scalar").unwrap().shape.is_empty());
    assert_eq!(tensors.info("f.empty").unwrap().shape, [0, 2]);
    assert_eq!(tensors.info("b.f16").unwrap().shape, [3, 2]);
    assert_eq!(tensors.bytes("d.i64").unwrap()[8..16], 1_i64.to_le_bytes());
    assert!(tensors.f32("d.i64").is_err());
}

#[test]
fn shards_are_one_model() {
    for path in ["sharded", "sharded/model.safetensors.index.json"] {
        let tensors = Safetensors::load(&golden(path)).unwrap().tensors;
        assert_eq!(tensors.infos().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(tensors.f32("b").unwrap(), test_input(4, 2));
        assert_eq!(tensors.info("c").unwrap().dtype, Dtype::BF16);
        assert_eq!(tensors.paths().len(), 2);
    }
}

/// What loading the golden shards says after their index was changed.
fn message_with_index(index: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        fs_err::copy(golden("sharded").join(shard), folder.path().join(shard)).unwrap();
    }
    fs_err::copy(folder.path().join("model-00001-of-00002.safetensors"), folder.path().join("copy")).unwrap();
    fs_err::write(folder.path().join(INDEX), index).unwrap();
    let error = Safetensors::load(folder.path()).unwrap_err().to_string();
    error.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn an_index_may_not_point_outside_its_folder() {
    for shard in ["../x", "/etc/passwd", "..", "a/b", "C:x", "..\\\\x", ""] {
        let message = message_with_index(&format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#));
        assert!(message.contains("is not a plain file name"), "{message}");
    }
}

#[test]
fn an_index_that_does_not_fit_its_shards_is_refused() {
    insta::assert_snapshot!(
        message_with_index(r#"{"weight_map": {"z": "model-00001-of-00002.safetensors"}}"#),
        @r"
    model.safetensors.index.json: tensor `z` is said to be in `model-00001-of-00002.safetensors`, which has no such tensor
    hint: copy both files again
    "
    );
    insta::assert_snapshot!(
        message_with_index(r#"{"weight_map": {"a": "copy", "b": "model-00001-of-00002.safetensors"}}"#),
        @r"
    model-00001-of-00002.safetensors: tensor `a` is already in copy
    hint: a name may occur once in the files of a model
    "
    );
    insta::assert_snapshot!(
        message_with_index(r#"{"weight_map": {"a": "gone"}}"#),
        @r"
    gone: no such file
    hint: check the spelling; a relative path starts where the command is run
    "
    );
    insta::assert_snapshot!(message_with_index("{"), @r"
    model.safetensors.index.json: not valid JSON: EOF while parsing an object at line 1 column 1
    hint: it may be cut short; copy it again
    ");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = golden_bytes("tiny.safetensors");
    for length in 0..whole.len() {
        assert!(parse(&whole[..length]).is_err(), "{length} bytes");
    }
    let longer = [whole.as_slice(), &[0]].concat();
    assert!(message(&longer).contains("bytes after the header"));
}

#[test]
fn what_is_wrong_is_named() {
    insta::assert_snapshot!(message(&golden_bytes("tiny.safetensors")[..400]), @r"
    m.safetensors: the header needs 400 bytes from byte 8, the file has 400 in all
    hint: it may be cut short; copy it again
    ");
    insta::assert_snapshot!(message(b"GGUF\x03\0\0\0\0"), @r"
    m.safetensors: this is a header of 14064895815 bytes, expected a safetensors file
    hint: the file may be of another format, or damaged
    ");
    insta::assert_snapshot!(message(&file(r#"{"x":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}"#, 2)), @r"
    m.safetensors: tensor `x` has type F8_E4M3, which is not supported
    hint: convert it to one of F32, F16, BF16
    ");
    insta::assert_snapshot!(message(&file(r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4)), @r"
    m.safetensors: the header is wrong: invalid shape, data type, or offset for tensor
    hint: the file is damaged; copy it again
    ");
    insta::assert_snapshot!(message(&file(r#"{"x":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#, 3)), @r"
    m.safetensors: the header is wrong: invalid offset for tensor `x`
    hint: the file is damaged; copy it again
    ");
    let overlap =
        r#"{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#;
    insta::assert_snapshot!(message(&file(overlap, 3)), @r"
    m.safetensors: the header is wrong: invalid offset for tensor `y`
    hint: the file is damaged; copy it again
    ");
}

#[test]
fn sizes_that_overflow_are_refused() {
    let most = usize::MAX / 8;
    // Nine tensors, each as large as can be, whose sizes together pass 64 bits.
    let entries = (0..9_u128).map(|i| {
        let (start, end) = (i * most as u128, (i + 1) * most as u128);
        format!(r#""{i}":{{"dtype":"U8","shape":[{most}],"data_offsets":[{start},{end}]}}"#)
    });
    let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    assert!(parse(&file(&header, 8)).is_err());
    let huge = format!(r#"{{"x":{{"dtype":"F32","shape":[{0},{0}],"data_offsets":[0,4]}}}}"#, usize::MAX);
    assert!(parse(&file(&huge, 4)).is_err());
    let eight = format!(r#"{{"x":{{"dtype":"U8","shape":[{most}],"data_offsets":[0,{most}]}}}}"#);
    assert!(parse(&file(&eight, 4)).is_err());
}

#[test]
fn deep_nesting_is_refused() {
    let deep = "[".repeat(100_000);
    assert!(parse(&file(&deep, 0)).is_err());
    assert!(parse(&file(&format!(r#"{{"x":{deep}"#), 0)).is_err());
    assert!(parse_index(Path::new("i.json"), deep.as_bytes()).is_err());
}

#[test]
fn a_repeated_name_and_a_quantized_type_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let one = |name| Outgoing::new(name, Dtype::U8, &[1], vec![0]);
    assert!(save(&path, &BTreeMap::new(), [one("a"), one("a")]).is_err());
    assert!(save(&path, &BTreeMap::new(), [one("__metadata__")]).is_err());
    assert!(save(&path, &BTreeMap::new(), [Outgoing::new("q", Dtype::Q8_0, &[32], vec![0; 34])]).is_err());
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_formats_own_reader_reads_what_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let values = f32_bytes(Dtype::F32, &test_input(6, 1)).unwrap();
    let tensors =
        [Outgoing::new("x", Dtype::U8, &[3], &[1, 2, 3][..]), Outgoing::new("w", Dtype::F32, &[2, 3], &values)];
    save(&path, &BTreeMap::from([("format".into(), "pt".into())]), tensors).unwrap();
    let bytes = fs_err::read(&path).unwrap();
    let read = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.tensor("w").unwrap().data(), values);
    assert_eq!(read.tensor("x").unwrap().data(), [1, 2, 3]);
    // Wide elements lie at multiples of their size.
    let start = read.tensor("w").unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize;
    assert!(start.is_multiple_of(8));
}

proptest! {
    // Each case writes and syncs a file.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn load_undoes_save_and_saving_again_gives_the_same_bytes(
        tensors in prop::collection::btree_map(
            "[a-z.]{1,12}",
            (0_usize..TYPES.len(), prop::collection::vec(0_usize..4, 0..4), any::<u8>()),
            0..6,
        ),
        metadata in prop::collection::btree_map("[a-z]{1,5}", ".{0,9}", 0..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (path, again) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
        let outgoing = tensors.iter().map(|(name, (kind, shape, fill))| {
            let dtype = TYPES[*kind].1;
            Outgoing::new(name, dtype, shape, vec![*fill; dtype.size_bytes(shape).unwrap()])
        });
        save(&path, &metadata, outgoing).unwrap();
        let read = Safetensors::load(&path).unwrap();
        prop_assert_eq!(&read.metadata, &metadata);
        prop_assert_eq!(read.tensors.len(), tensors.len());
        for (name, (kind, shape, fill)) in &tensors {
            let info = read.tensors.info(name).unwrap();
            prop_assert_eq!((info.dtype, &info.shape), (TYPES[*kind].1, shape));
            prop_assert!(read.tensors.bytes(name).unwrap().iter().all(|byte| byte == fill));
        }
        save(&again, &read.metadata, Outgoing::all(&read.tensors)).unwrap();
        prop_assert_eq!(fs_err::read(&path).unwrap(), fs_err::read(&again).unwrap());
    }

    #[test]
    fn a_damaged_byte_never_panics(at in 0_usize..480, byte in any::<u8>()) {
        let mut bytes = golden_bytes("tiny.safetensors");
        let end = bytes.len() - 1;
        bytes[at.min(end)] = byte;
        if let Ok(read) = parse(&bytes) {
            for info in read.tensors.infos() {
                prop_assert_eq!(read.tensors.bytes(&info.name).unwrap().len(), info.size_bytes());
            }
        }
    }
}
