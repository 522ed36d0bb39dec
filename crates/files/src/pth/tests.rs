use super::*;
use crate::dtype::Dtype;
use crate::golden::{backing, golden, golden_bytes, test_input};
use crate::{f32_bytes, f32_values};
use proptest::prelude::*;

fn parse(bytes: &[u8]) -> Result<Pth, FilesError> {
    Pth::parse(Path::new("m.pth"), backing(bytes), Part::Model)
}

fn message(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err().to_string()
}

fn load(name: &str) -> Tensors {
    Pth::load(&golden(name), Part::Model).unwrap().tensors
}

/// A zip archive of stored members.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let (size, length) = ((bytes.len() as u32).to_le_bytes(), (name.len() as u16).to_le_bytes());
        directory.extend([b"PK\x01\x02".as_slice(), &[0; 16], &size, &size, &length, &[0; 12]].concat());
        directory.extend((file.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        file.extend([b"PK\x03\x04".as_slice(), &[0; 14], &size, &size, &length, &[0; 2], name.as_bytes()].concat());
        file.extend(*bytes);
    }
    let (start, count) = ((file.len() as u32).to_le_bytes(), (members.len() as u16).to_le_bytes());
    let end = [b"PK\x05\x06".as_slice(), &[0; 4], &count, &count, &(directory.len() as u32).to_le_bytes(), &start];
    [file, directory, end.concat(), vec![0; 2]].concat()
}

/// What an archive with this pickle and a storage `0` of 16 bytes says.
fn pickle_message(pickle: &[u8]) -> String {
    message(&archive(&[("m/data.pkl", pickle), ("m/data/0", &[0; 16])]))
}

/// The pickle of `{"w": tensor}`, a view of four `f32` with this offset, sizes and strides.
fn view(offset: u8, sizes: &[u8], strides: &[u8]) -> Vec<u8> {
    let tuple = |items: &[u8]| {
        let items: Vec<u8> = items.iter().flat_map(|&item| [b'K', item]).collect();
        [b"(".as_slice(), &items, b"t"].concat()
    };
    let storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ";
    let call = [storage.as_slice(), &[b'K', offset], &tuple(sizes), &tuple(strides), b"tR"].concat();
    [b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n(".as_slice(), &call, b"s."].concat()
}

fn view_archive(offset: u8, sizes: &[u8], strides: &[u8]) -> Vec<u8> {
    archive(&[("m/data.pkl", &view(offset, sizes, strides)), ("m/data/0", &[0; 16])])
}

#[test]
fn what_pytorch_saved_is_read() {
    let tensors = load("plain.pth");
    let rounded = |n, salt, dtype| f32_values(dtype, &f32_bytes(dtype, &test_input(n, salt)).unwrap()).unwrap();
    assert_eq!(tensors.f32("f32").unwrap(), test_input(6, 1));
    assert_eq!(tensors.f32("f16").unwrap(), rounded(6, 2, Dtype::F16));
    assert_eq!(tensors.f32("bf16").unwrap(), rounded(4, 3, Dtype::BF16));
    assert_eq!(tensors.f32("f64").unwrap(), test_input(2, 4));
    assert_eq!(tensors.f32("parameter").unwrap(), test_input(4, 5));
    assert_eq!(tensors.f32("scalar").unwrap(), [0.5]);
    assert_eq!(tensors.info("empty").unwrap().shape, [0, 3]);
    let bytes = |name: &str, dtype| {
        assert_eq!(tensors.info(name).unwrap().dtype, dtype);
        tensors.bytes(name).unwrap().to_vec()
    };
    assert_eq!(bytes("i64", Dtype::I64), [1_i64, -2, 1 << 40].map(i64::to_le_bytes).concat());
    assert_eq!(bytes("i32", Dtype::I32), [7_i32, -8].map(i32::to_le_bytes).concat());
    assert_eq!(bytes("i16", Dtype::I16), (-300_i16).to_le_bytes());
    assert_eq!(bytes("i8", Dtype::I8), [0xFD]);
    assert_eq!(bytes("u8", Dtype::U8), [255, 0]);
    assert_eq!(bytes("bool", Dtype::Bool), [1, 0, 1]);
}

#[test]
fn views_of_a_shared_storage_are_gathered() {
    let tensors = load("views.pth");
    let whole = test_input(24, 1);
    assert_eq!(tensors.f32("whole").unwrap(), whole);
    assert_eq!(tensors.f32("tied").unwrap(), whole);
    let pick = |rows: &[usize], columns: &[usize]| -> Vec<f32> {
        rows.iter().flat_map(|row| columns.iter().map(move |column| row * 6 + column)).map(|at| whole[at]).collect()
    };
    let transposed: Vec<f32> = (0..24).map(|i| whole[i % 4 * 6 + i / 4]).collect();
    assert_eq!(tensors.info("transposed").unwrap().shape, [6, 4]);
    assert_eq!(tensors.f32("transposed").unwrap(), transposed);
    assert_eq!(tensors.f32("rows").unwrap(), pick(&[1, 2], &[0, 1, 2, 3, 4, 5]));
    assert_eq!(tensors.f32("columns").unwrap(), pick(&[0, 1, 2, 3], &[2, 3]));
    assert_eq!(tensors.f32("stepped").unwrap(), pick(&[0, 2], &[0, 3]));
    assert_eq!(tensors.f32("one").unwrap(), [whole[2 * 6 + 3]]);
    // Element (i, j, k) of the permuted one is element (j, k, i) of a (2, 3, 4) tensor.
    let base = test_input(24, 2);
    let permuted: Vec<f32> = (0..24).map(|i| base[i % 6 * 4 + i / 6]).collect();
    assert_eq!(tensors.info("permuted").unwrap().shape, [4, 2, 3]);
    assert_eq!(tensors.f32("permuted").unwrap(), permuted);
}

#[test]
fn a_checkpoints_parts_can_be_chosen() {
    let model = Pth::load(&golden("nested.pth"), Part::Model).unwrap();
    assert_eq!(model.key.as_deref(), Some("model_state_dict"));
    let names: Vec<&str> = model.tensors.infos().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["0.weight", "0.bias", "1.weight", "1.bias"]);
    assert_eq!(model.tensors.f32("0.weight").unwrap(), test_input(6, 1));
    assert_eq!(model.values["epoch"], 3);
    assert_eq!(model.values["loss"], 1.5);
    assert_eq!(model.values["config.name"], "tiny");
    assert_eq!(model.values["config.dtype"], "bfloat16");
    assert_eq!(model.values["config.none"], Value::Null);
    assert_eq!(model.values["config.pair.1"], 2.0);
    assert_eq!(model.values["flags.0"], true);
    assert_eq!(model.values["optimizer_state_dict.param_groups.0.lr"], 0.1);
    let whole = Pth::load(&golden("nested.pth"), Part::Whole).unwrap();
    assert!(whole.key.is_none() && whole.tensors.contains("model_state_dict.0.weight"));
    assert!(whole.tensors.contains("optimizer_state_dict.state.0.exp_avg"));
    let optimizer = Pth::load(&golden("nested.pth"), Part::Key("optimizer_state_dict")).unwrap();
    assert!(optimizer.tensors.contains("state.3.exp_avg_sq"));
    assert!(Pth::load(&golden("nested.pth"), Part::Key("epoch")).is_err());
    assert!(Pth::load(&golden("nested.pth"), Part::Key("absent")).is_err());
}

#[test]
fn files_that_are_not_read_say_why() {
    let place = golden("").display().to_string();
    let message = |name| Pth::load(&golden(name), Part::Model).unwrap_err().to_string().replace(&place, "");
    insta::assert_snapshot!(message("harm.pth"), @r"
    harm.pth: the pickle asks for `posix.system`: this file would run code
    hint: where you trust it, load it in Python and save `model.state_dict()` alone
    ");
    insta::assert_snapshot!(message("legacy.pth"), @r"
    legacy.pth: this is a pickle, as PyTorch wrote before 1.6, expected a PyTorch checkpoint (a zip archive)
    hint: save it again with `torch.save(torch.load(path, weights_only=True), path)`
    ");
    insta::assert_snapshot!(message("expanded.pth"), @r"
    expanded.pth: tensor `e`, F32 [1000]: it repeats elements of a smaller storage
    hint: save `tensor.contiguous()` instead
    ");
    insta::assert_snapshot!(message("tiny.gguf"), @r"
    tiny.gguf: this is a file that begins with `GGUF`, expected a PyTorch checkpoint (a zip archive)
    hint: it may be cut short or of another format
    ");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for name in ["plain.pth", "views.pth", "nested.pth"] {
        let whole = golden_bytes(name);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{name}: {length} bytes");
        }
    }
}

#[test]
fn views_past_their_storage_are_refused() {
    assert!(parse(&view_archive(0, &[4], &[1])).is_ok());
    assert!(parse(&view_archive(0, &[2, 2], &[1, 2])).is_ok());
    assert!(parse(&view_archive(4, &[0, 9], &[9, 9])).is_ok());
    for (offset, sizes, strides) in [
        (1, &[4][..], &[1][..]),
        (0, &[5], &[1]),
        (0, &[2, 2], &[3, 1]),
        (0, &[2, 2], &[4, 1]),
        (4, &[1], &[1]),
        (4, &[], &[]),
        (5, &[0], &[1]),
        (0, &[5], &[0]),
    ] {
        let message = message(&view_archive(offset, sizes, strides));
        assert!(message.contains("tensor `w`, F32") && message.contains("storage"), "{message}");
    }
    insta::assert_snapshot!(message(&view_archive(1, &[4], &[1])), @r"
    m.pth: tensor `w`, F32 [4]: it reaches past its storage
    hint: the file is damaged; copy it again
    ");
    // A storage of another size than the pickle says, and none at all.
    let pickle = view(0, &[4], &[1]);
    assert!(message(&archive(&[("m/data.pkl", &pickle), ("m/data/0", &[0; 12])])).contains("shorter"));
    assert!(message(&archive(&[("m/data.pkl", &pickle)])).contains("not in the archive"));
}

#[test]
fn no_name_but_those_of_state_dicts_is_known() {
    for (pickle, name) in [
        (&b"\x80\x02cos\nsystem\nU\x02ls\x85R."[..], "os.system"),
        (b"\x80\x02cbuiltins\neval\n.", "builtins.eval"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x02ctorch\n_utils._rebuild_tensor_v2\n.", ""),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor\n.", "torch._utils._rebuild_tensor"),
        (b"\x80\x02ctorch\nComplexFloatStorage\n.", "torch.ComplexFloatStorage"),
    ] {
        let message = pickle_message(pickle);
        assert!(message.contains(name), "{message}");
        assert_eq!(message.contains("would run code"), !name.is_empty(), "{message}");
    }
}

#[test]
fn opcodes_and_operands_that_do_not_fit_are_refused() {
    for pickle in [
        &b""[..],
        b".",
        b"\x80\x02",
        b"t.",
        b"R.",
        b"(R.",
        b"}K\x01R.",
        b"cos",
        b"s.",
        b"}K\x01s.",
        b"K\x01K\x02K\x03s.",
        b"}(K\x01u.",
        b"K\x01K\x02a.",
        b"}K\x02a.",
        b"h\x00.",
        b"q\x00.",
        b"(}K\x01b.",
        b"K\x01}b.",
        b"Q.",
        b"K\x01Q.",
        b")Q.",
        b"\x8a\x09abc.",
        b"X\xff\xff\xff\xffabc.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.",
        b"U\x01\xff.",
        b"ccollections\nOrderedDict\nK\x01R.",
        b"ctorch\nFloatStorage\n)R.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x00K\x00))tR.",
        b"\x81.",
        b"(i__main__\nX\n.",
        b"}\x92.",
        b"\x82\x01.",
    ] {
        let message = pickle_message(pickle);
        assert!(message.contains("the pickle before byte") || message.contains("without tensors"), "{message}");
    }
    insta::assert_snapshot!(pickle_message(b"\x80\x02\x82\x01."), @r"
    m.pth: the pickle before byte 3 is opcode 0x82, expected that of a state dict
    hint: the file is damaged; copy it again
    ");
    insta::assert_snapshot!(pickle_message(b"\x80\x02}."), @r"
    m.pth: this is a checkpoint without tensors, expected a state dict
    hint: save `model.state_dict()`
    ");
}

#[test]
fn what_lies_below_a_mark_is_out_of_reach() {
    // The item of APPEND would be one from before the mark, which TUPLE then looks for in vain.
    let message = pickle_message(b"]K\x01(at.");
    assert!(message.contains("without its operands"), "{message}");
}

#[test]
fn a_model_key_without_tensors_is_not_the_model() {
    // `{"w": tensor, "model": {"n": 1}}`.
    let tensor = view(0, &[4], &[1]);
    let pickle = [&tensor[..tensor.len() - 1], b"U\x05model}U\x01nK\x01ss."].concat();
    let read = parse(&archive(&[("m/data.pkl", &pickle), ("m/data/0", &[0; 16])])).unwrap();
    assert!(read.key.is_none() && read.tensors.contains("w"));
    assert_eq!(read.values["model.n"], 1);
}

#[test]
fn objects_that_hold_themselves_and_endless_names_are_refused() {
    insta::assert_snapshot!(pickle_message(b"\x80\x02]q\x00h\x00a."), @r"
    m.pth: the nesting of its dicts is 33, expected at most 32
    hint: the file is damaged or made to do harm
    ");
    // Thirty dicts, each of which holds the one before twice: 2^30 names.
    let mut pickle = b"\x80\x02}U\x01aNs".to_vec();
    for i in 0..30_u8 {
        pickle.extend([b'q', i, b'}', b'U', 1, b'a', b'h', i, b's', b'U', 1, b'b', b'h', i, b's']);
    }
    pickle.push(b'.');
    insta::assert_snapshot!(pickle_message(&pickle), @r"
    m.pth: the size of all names in bytes is 67108865, expected at most 67108864
    hint: the file is damaged or made to do harm
    ");
}

#[test]
fn objects_without_end_are_refused() {
    let most = 1 << 22;
    let pickle = [b"\x80\x02".as_slice(), &vec![b'}'; most + 1], b"."].concat();
    assert!(pickle_message(&pickle).contains("the number of objects made"));
    let pickle = [b"\x80\x02}".as_slice(), &vec![0x94; most + 1], b"."].concat();
    assert!(pickle_message(&pickle).contains("the number of objects remembered"));
    assert!(pickle_message(&vec![b'('; 16 << 20]).contains("cut short"));
    assert!(pickle_message(&vec![b'('; (16 << 20) + 1]).contains("the size of its pickle"));
}

#[test]
fn archives_that_are_damaged_or_compressed_are_refused() {
    let whole = view_archive(0, &[4], &[1]);
    assert!(parse(&whole).is_ok());
    insta::assert_snapshot!(message(&whole[..whole.len() - 1]), @r"
    m.pth: the directory at its end is missing or cut short, expected a whole zip archive
    hint: the file is damaged; copy it again
    ");
    let find = |signature: &[u8]| whole.windows(4).position(|window| window == signature).unwrap();
    let (entry, end) = (find(b"PK\x01\x02"), find(b"PK\x05\x06"));
    let with = |at: usize, byte: u8| {
        let mut changed = whole.clone();
        changed[at] = byte;
        message(&changed)
    };
    insta::assert_snapshot!(with(entry + 10, 8), @r"
    m.pth: this is an archive whose `m/data.pkl` is compressed or encrypted, expected a stored one
    hint: save it again with `torch.save(torch.load(path, weights_only=True), path)`
    "); // Deflated.
    assert!(with(entry + 8, 1).contains("encrypted"));
    insta::assert_snapshot!(with(entry + 45, 0x7F), @r"
    m.pth: `m/data.pkl` in it is not inside the file, expected a whole zip archive
    hint: the file is damaged; copy it again
    "); // The member's offset.
    assert!(with(end + 10, 3).contains("directory"));
    assert!(with(end + 11, 0xFF).contains("directory"));
    assert!(with(end + 19, 0xFF).contains("directory"));
    let pickle = view(0, &[4], &[1]);
    assert!(message(&archive(&[("m/data.pkl", &pickle), ("m/data.pkl", &pickle)])).contains("twice"));
    assert!(message(&archive(&[("data.pkl", &pickle)])).contains("without a `data.pkl`"));
    assert!(message(&archive(&[("m/data.pkl", &pickle), ("m/byteorder", b"big")])).contains("big-endian"));
}

#[test]
fn archives_of_more_than_four_gigabytes_are_understood() {
    // The 64-bit fields alone, as they are written past 2^32 bytes: here with small numbers in them.
    let storage = [1.0_f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
    let plain = archive(&[("m/data.pkl", &view(0, &[4], &[1])), ("m/data/0", &storage)]);
    let start = plain.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    let (mut file, mut rest) = (plain[..start].to_vec(), &plain[start..plain.len() - 22]);
    let directory_start = file.len() as u64;
    while !rest.is_empty() {
        let size = u64::from(u32::from_le_bytes(rest[20..24].try_into().unwrap())).to_le_bytes();
        let offset = u64::from(u32::from_le_bytes(rest[42..46].try_into().unwrap())).to_le_bytes();
        let name = 46 + usize::from(rest[28]);
        file.extend([&rest[..20], &[0xFF; 8], &rest[28..30], &[28, 0], &rest[32..42], &[0xFF; 4]].concat());
        file.extend([&rest[46..name], &[1, 0, 24, 0], &size, &size, &offset].concat());
        rest = &rest[name..];
    }
    let (end64, size) = (file.len() as u64, file.len() as u64 - directory_start);
    file.extend([b"PK\x06\x06".as_slice(), &[0; 20], &2_u64.to_le_bytes(), &2_u64.to_le_bytes()].concat());
    file.extend([size.to_le_bytes(), directory_start.to_le_bytes()].concat());
    file.extend([b"PK\x06\x07".as_slice(), &[0; 4], &end64.to_le_bytes(), &[0; 4]].concat());
    file.extend([b"PK\x05\x06".as_slice(), &[0; 4], &[0xFF; 12], &[0; 2]].concat());
    assert_eq!(parse(&file).unwrap().tensors.f32("w").unwrap(), [1.0, 2.0, 3.0, 4.0]);
    for length in 0..file.len() {
        assert!(parse(&file[..length]).is_err(), "{length} bytes");
    }
}

proptest! {
    #[test]
    fn a_damaged_byte_never_panics(name in prop::sample::select(vec!["plain.pth", "views.pth", "nested.pth"]),
                                   at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = golden_bytes(name);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = parse(&bytes) {
            for info in read.tensors.infos() {
                prop_assert_eq!(read.tensors.bytes(&info.name).unwrap().len(), info.size_bytes());
            }
        }
    }

    #[test]
    fn any_pickle_is_read_or_refused(pickle in prop::collection::vec(any::<u8>(), 0..64)) {
        let _either = parse(&archive(&[("m/data.pkl", &pickle)]));
    }
}

#[test]
fn a_byte_that_changed_is_found_by_its_checksum() {
    let mut bytes = golden_bytes("plain.pth");
    // The values of the first tensor: `test_input(6, 1)`.
    let first: Vec<u8> = test_input(6, 1).iter().flat_map(|x| x.to_le_bytes()).collect();
    let at = bytes.windows(first.len()).position(|window| window == first).unwrap();
    bytes[at + 5] ^= 1;
    let message = message(&bytes);
    assert!(message.contains("checksum of `plain/data/0`") && message.contains("hint: "), "{message}");
}

#[test]
fn shards_are_read_through_their_index() {
    let index = golden("sharded_pth").join("pytorch_model.bin.index.json");
    let tensors = Pth::load_shards(&index).unwrap();
    assert_eq!(tensors.f32("a").unwrap(), test_input(6, 1));
    assert_eq!(tensors.f32("c").unwrap(), test_input(3, 3));
    let folder = tempfile::tempdir().unwrap();
    for entry in fs_err::read_dir(golden("sharded_pth")).unwrap() {
        let path = entry.unwrap().path();
        fs_err::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let index = folder.path().join("pytorch_model.bin.index.json");
    let text = fs_err::read_to_string(&index).unwrap();
    fs_err::write(&index, text.replace("\"c\"", "\"d\"")).unwrap();
    assert!(Pth::load_shards(&index).unwrap_err().to_string().contains("`d`"));
    fs_err::write(&index, text.replace("-00002-of", "-00003-of")).unwrap();
    assert!(Pth::load_shards(&index).unwrap_err().to_string().contains("no such file"));
}
