use super::*;
use crate::clusters::Clusters;

fn fold(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |sum: u64, &number| sum.wrapping_mul(31).wrapping_add(number))
}

#[test]
fn the_hash_functions_are_numpys() {
    let signer = Signer::new(MinhashConfig::default());
    assert_eq!(
        signer.a[..4],
        [775_169_054_918_279_404, 1_758_426_461_858_698_313, 2_109_959_069_025_162, 965_365_488_286_768_774]
    );
    assert_eq!(signer.a[111], 223_865_076_026_037_746);
    assert_eq!(signer.b[..3], [1_062_448_801_025_099_917, 1_324_811_268_927_594_100, 1_217_488_311_597_731_462]);
    assert_eq!(signer.b[111], 1_097_409_548_522_419_201);
    assert_eq!(sha1_64(b"hello"), 11_738_849_977_924_252_842);
    // Folds of all 112 numbers, from NumPy's arrays (testdata/curate/make_minhash.py).
    assert_eq!(fold(&signer.a), FOLD_A);
    assert_eq!(fold(&signer.b), FOLD_B);
}

#[test]
fn a_signature_is_datatroves() {
    let signer = Signer::new(MinhashConfig::default());
    let mut signature = Vec::new();
    assert!(signer.sign_words("the quick brown fox jumps over the lazy dog".split(' '), &mut signature));
    assert_eq!(
        signature[..4],
        [585_594_454_516_184_072, 284_080_765_670_708_113, 594_234_408_324_153_881, 226_360_113_463_360_020]
    );
    assert_eq!(fold(&signature), FOLD_SIGNATURE);
    assert!(!signer.sign_words("one two three four".split(' '), &mut signature));
}

#[test]
fn a_signature_with_xxhash_is_datatroves_too() {
    // Made with datatrove 0.10.1, whose default this hash is.
    assert_eq!(xxh64(b"hello", 0), 2_794_345_569_481_354_659);
    let mut signer = Signer::new(MinhashConfig { hash: ShingleHash::Xxhash, ..MinhashConfig::default() });
    let mut signature = Vec::new();
    assert!(signer.sign("The quick brown fox jumps over the lazy dog.", &mut signature));
    assert_eq!(
        signature[..4],
        [85_330_943_174_081_874, 663_359_892_825_767_826, 302_227_827_184_868_053, 34_440_879_854_629_237]
    );
    assert_eq!(signature[111], 3_963_570_588_256_049);
}

#[test]
fn signatures_of_32_bits_are_datatroves() {
    // Made with datatrove 0.10.1: the first four, the last, the sum.
    for (hash, first, last, sum) in [
        (ShingleHash::Sha1, [727_492_965, 1_312_834_104, 1_177_392_338, 807_274_274], 226_228_629, 81_704_023_659),
        (ShingleHash::Xxhash, [125_697_124, 899_546_107, 441_372_471, 462_256_105], 1_493_573_167, 82_432_815_191),
    ] {
        let mut signer = Signer::new(MinhashConfig { hash, precision: 32, ..MinhashConfig::default() });
        let mut signature = Vec::new();
        assert!(signer.sign("The quick brown fox jumps over the lazy dog.", &mut signature));
        assert_eq!((&signature[..4], signature[111], signature.iter().sum::<u64>()), (&first[..], last, sum));
    }
}

const FOLD_A: u64 = 11_464_312_384_335_970_951;
const FOLD_B: u64 = 2_147_386_399_228_434_564;
const FOLD_SIGNATURE: u64 = 3_704_794_815_085_131_970;

/// Words that no two of which are alike.
fn prose(count: usize, salt: usize) -> Vec<String> {
    (0..count).map(|index| letters(index * 31 + salt * 9973)).collect()
}

fn letters(mut number: usize) -> String {
    let mut out = String::new();
    for _ in 0..4 {
        out.push((b'a' + (number % 26) as u8) as char);
        number /= 26;
    }
    out
}

#[test]
fn the_share_of_equal_hashes_is_the_similarity() {
    // datatrove's test: a text with its tail in another order keeps the share of its shingles that is left.
    let words = prose(600, 1);
    for kept in [0, 100, 300, 450, 570] {
        let mut other = words.clone();
        other[kept..].reverse();
        let mut signer = Signer::new(MinhashConfig::default());
        let (mut first, mut second) = (Vec::new(), Vec::new());
        signer.sign(&words.join(" "), &mut first);
        signer.sign(&other.join(" "), &mut second);
        let equal = first.iter().zip(&second).filter(|(a, b)| a == b).count() as f64 / 112.0;
        let shared = (kept as f64 - 4.0).max(0.0);
        let similarity = shared / (2.0 * 596.0 - shared);
        assert!((equal - similarity).abs() <= 0.15, "{kept}: {equal} for {similarity}");
    }
}

/// Documents over three shards, copies among them, and which are copies of which.
fn corpus() -> Vec<(u32, u32, String)> {
    let mut documents = Vec::new();
    for shard in 0..3_u32 {
        for index in 0..40_u32 {
            // Every fourth document of a shard occurs in all three, with a word changed.
            let salt = if index.is_multiple_of(4) { index as usize } else { 1000 + (shard * 40 + index) as usize };
            let mut words = prose(300, salt);
            words[150] = format!("changed{}", letters(shard as usize));
            documents.push((shard, index, words.join(" ")));
        }
    }
    documents
}

fn in_memory(documents: &[(u32, u32, String)], config: &MinhashConfig) -> DuplicateSets {
    let mut signer = Signer::new(config.clone());
    let mut first: std::collections::HashMap<(usize, Vec<u64>), u64> = std::collections::HashMap::new();
    let mut clusters = Clusters::default();
    let mut signature = Vec::new();
    for (shard, index, text) in documents {
        let name = u64::from(*shard) << 32 | u64::from(*index);
        signer.sign(text, &mut signature);
        for (bucket, hashes) in signature.chunks(config.hashes_per_bucket).enumerate() {
            let other = *first.entry((bucket, hashes.to_vec())).or_insert(name);
            if other != name {
                clusters.join(other, name);
            }
        }
    }
    DuplicateSets::of(&mut clusters)
}

#[test]
fn sets_on_disk_are_those_in_memory_whatever_the_budget() {
    let config = MinhashConfig::default();
    let documents = corpus();
    let expected = in_memory(&documents, &config);
    assert_eq!(expected.sizes, [(3, 10)].into());
    assert_eq!(expected.remove[&2], [0, 4, 8, 12, 16, 20, 24, 28, 32, 36]);
    assert!(!expected.remove.contains_key(&0));
    for budget in [1, 1 << 30] {
        let folder = tempfile::tempdir().unwrap();
        let mut signer = Signer::new(config.clone());
        let mut signature = Vec::new();
        for shard in 0..3 {
            let mut writer = SignatureWriter::new(folder.path(), shard, &config, budget).unwrap();
            for (_, index, text) in documents.iter().filter(|document| document.0 == shard) {
                signer.sign(text, &mut signature);
                writer.push(*index, &signature).unwrap();
            }
            writer.finish().unwrap();
        }
        assert_eq!(find_duplicates(folder.path(), &config, 1 << 20).unwrap(), expected);
    }
}

#[test]
fn what_a_killed_writer_left_does_not_count() {
    let config = MinhashConfig::default();
    let documents = corpus();
    let folder = tempfile::tempdir().unwrap();
    let mut signer = Signer::new(config.clone());
    let mut signature = Vec::new();
    let many: Vec<u32> = (0..200).collect();
    // Killed with little memory: three runs of 64 signatures, the last of which is cut off.
    let mut killed = SignatureWriter::new(folder.path(), 0, &config, 1).unwrap();
    for &index in &many {
        signer.sign(&documents[index as usize % documents.len()].2, &mut signature);
        killed.push(index, &signature).unwrap();
    }
    drop(killed);
    let left = folder.path().join("bucket_003/000000-0002.minhash.sig");
    let bytes = fs_err::read(&left).unwrap();
    fs_err::write(&left, &bytes[..bytes.len() - 5]).unwrap();
    for shard in 0..3 {
        let mut writer = SignatureWriter::new(folder.path(), shard, &config, 1 << 30).unwrap();
        for (_, index, text) in documents.iter().filter(|document| document.0 == shard) {
            signer.sign(text, &mut signature);
            writer.push(*index, &signature).unwrap();
        }
        writer.finish().unwrap();
    }
    assert_eq!(find_duplicates(folder.path(), &config, 1 << 20).unwrap(), in_memory(&documents, &config));
}

#[test]
fn a_damaged_file_of_signatures_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = MinhashConfig { num_buckets: 1, ..MinhashConfig::default() };
    let mut writer = SignatureWriter::new(folder.path(), 0, &config, 1 << 20).unwrap();
    writer.push(0, &[3; 8]).unwrap();
    writer.push(1, &[2; 8]).unwrap();
    writer.finish().unwrap();
    assert_eq!(find_duplicates(folder.path(), &config, 1 << 20).unwrap(), DuplicateSets::default());
    let path = folder.path().join("bucket_000/000000-0000.minhash.sig");
    let mut bytes = fs_err::read(&path).unwrap();
    bytes[7] ^= 0x40;
    fs_err::write(&path, &bytes).unwrap();
    let error = find_duplicates(folder.path(), &config, 1 << 20).unwrap_err().to_string();
    assert!(error.contains("000000-0000.minhash.sig") && error.contains("not in order"), "{error}");
    fs_err::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let error = find_duplicates(folder.path(), &config, 1 << 20).unwrap_err().to_string();
    assert!(error.contains("cut off"), "{error}");
}

#[test]
fn a_text_keeps_the_similarity_of_what_stands_before_a_reversed_tail() {
    // datatrove's case: some 3,300 characters, their tail read backwards from 0, 5, ..., 95 % on.
    let text: String = prose(660, 5).join(" ");
    for (hash, precision) in
        [(ShingleHash::Sha1, 64), (ShingleHash::Xxhash, 64), (ShingleHash::Sha1, 32), (ShingleHash::Xxhash, 32)]
    {
        let mut signer = Signer::new(MinhashConfig { hash, precision, ..MinhashConfig::default() });
        let (mut first, mut again, mut second) = (Vec::new(), Vec::new(), Vec::new());
        signer.sign(&text, &mut first);
        Signer::new(signer.config().clone()).sign(&text, &mut again);
        assert_eq!((first.len(), &again), (14 * 8, &first));
        for percent in (0..100).step_by(5) {
            let (head, tail) = text.split_at(text.len() * percent / 100);
            let other: String = head.chars().chain(tail.chars().rev()).collect();
            signer.sign(&other, &mut second);
            let equal = first.iter().zip(&second).filter(|(a, b)| a == b).count() as f64 / 112.0;
            let kept = percent as f64 / 100.0;
            assert!((equal - kept).abs() < 0.21, "{hash:?}: {equal} at {percent} %");
        }
    }
}

/// What is found in documents of some shards.
fn sets_of(folder: &std::path::Path, shards: &[&[String]], budget_bytes: usize) -> DuplicateSets {
    let config = MinhashConfig::default();
    let (mut signer, mut signature) = (Signer::new(config.clone()), Vec::new());
    for (shard, texts) in shards.iter().enumerate() {
        let mut writer = SignatureWriter::new(folder, shard as u32, &config, budget_bytes).unwrap();
        for (index, text) in texts.iter().enumerate() {
            assert!(signer.sign(text, &mut signature));
            writer.push(index as u32, &signature).unwrap();
        }
        writer.finish().unwrap();
    }
    find_duplicates(folder, &config, 1 << 20).unwrap()
}

#[test]
fn every_bucket_has_all_documents_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let texts: Vec<String> = (0..100).map(|salt| prose(50, salt).join(" ")).collect();
    sets_of(folder.path(), &[&texts], 1 << 30);
    for bucket in 0..14 {
        let path = folder.path().join(format!("bucket_{bucket:03}/000000-0000.minhash.sig"));
        let bytes = fs_err::read(path).unwrap();
        let records: Vec<(Vec<u64>, u32)> = bytes
            .chunks_exact(8 * 8 + 4)
            .map(|record| {
                let (hashes, document) = record.split_at(64);
                let hashes = hashes.chunks_exact(8).map(|hash| u64::from_le_bytes(hash.try_into().unwrap())).collect();
                (hashes, u32::from_le_bytes(document.try_into().unwrap()))
            })
            .collect();
        assert!(records.is_sorted());
        let mut documents: Vec<u32> = records.iter().map(|record| record.1).collect();
        documents.sort_unstable();
        assert_eq!(documents, (0..100).collect::<Vec<_>>());
    }
}

/// Windows of 400 characters at datatrove's offsets: four sets of overlapping ones, and two alone.
fn windows() -> Vec<String> {
    let text: String = prose(500, 3).join(" ");
    let offsets: [&[usize]; 6] =
        [&[0, 20, 50], &[400, 420], &[800, 810, 820, 840, 860], &[1205, 1215, 1225, 1245], &[1600], &[2000]];
    offsets.concat().into_iter().map(|offset| text[offset..offset + 400].to_owned()).collect()
}

#[test]
fn windows_that_overlap_are_sets_and_one_of_each_stays() {
    let folder = tempfile::tempdir().unwrap();
    let sets = sets_of(folder.path(), &[&windows()], 1 << 30);
    assert_eq!(sets.sizes, [(2, 1), (3, 1), (4, 1), (5, 1)].into());
    assert_eq!(sets.remove, [(0, vec![1, 2, 4, 6, 7, 8, 9, 11, 12, 13])].into());
}

#[test]
fn the_same_documents_stay_however_they_are_spread_over_files() {
    // datatrove's case of one and of ten workers to a bucket: here files, runs of files and what merges them.
    let texts: Vec<String> =
        (0..20).flat_map(|salt| [prose(80, salt).join(" "), prose(80, salt % 7).join(" ")]).collect();
    let removed = |shards: &[&[String]], budget_bytes| {
        let folder = tempfile::tempdir().unwrap();
        let sets = sets_of(folder.path(), shards, budget_bytes);
        let mut starts = vec![0];
        shards.iter().for_each(|shard| starts.push(starts[starts.len() - 1] + shard.len()));
        let global = sets.remove.iter().flat_map(|(&shard, documents)| {
            let start = starts[shard as usize];
            documents.iter().map(move |&document| start + document as usize)
        });
        let mut global: Vec<usize> = global.collect();
        global.sort_unstable();
        (global, sets.sizes)
    };
    let one = removed(&[&texts], 1 << 30);
    assert_eq!(one.0.len(), 20);
    assert_eq!(removed(&texts.chunks(4).collect::<Vec<_>>(), 1 << 30), one);
    assert_eq!(removed(&texts.chunks(13).collect::<Vec<_>>(), 1), one);
}
