//! Any bytes as a web archive, plain and in gzip members: documents and damages come out, nothing panics, the end is reached.
#![no_main]

use cavy_curate::read::warc::{GzMembers, Plain, WarcReader};
use cavy_curate::read::warc_documents;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut documents, mut damages) = (0, 0);
    let mut each = |_| {
        documents += 1;
        Ok(())
    };
    let mut damage = |at: u64, _| {
        assert!(at <= bytes.len() as u64);
        damages += 1;
    };
    warc_documents(WarcReader::new(Plain::new(bytes)), &mut each, &mut damage).expect("`each` never fails");
    warc_documents(WarcReader::new(GzMembers::new(bytes)), &mut each, &mut damage).expect("`each` never fails");
    // Every record and every damage takes bytes of the file.
    assert!(documents + damages <= 2 * bytes.len() + 2);
});
