"""Folds of NumPy's hash functions and of one signature, for `crates/curate/src/minhash/tests.rs`. NumPy 2.0.2, Python 3.11."""
import hashlib

import numpy as np

PRIME = (1 << 61) - 1
gen = np.random.RandomState(1)
a = gen.randint(1, PRIME, dtype=np.uint64, size=112)
b = gen.randint(0, PRIME, dtype=np.uint64, size=112)
words = "the quick brown fox jumps over the lazy dog".split()
shingles = [int.from_bytes(hashlib.sha1(" ".join(words[i : i + 5]).encode()).digest()[:8], "little") for i in range(5)]
signature = [min(((x * int(i) + int(j)) % 2**64) % PRIME for x in shingles) for i, j in zip(a, b)]
for name, numbers in (("FOLD_A", a), ("FOLD_B", b), ("FOLD_SIGNATURE", signature)):
    fold = 0
    for number in numbers:
        fold = (fold * 31 + int(number)) % 2**64
    print(f"const {name}: u64 = {fold:_};")
packed = b"".join(int(number).to_bytes(8, "little") for number in signature)
assert hashlib.sha256(packed).hexdigest() == "5111488576fd07f07c8cfbf034ff68e03acb2475d32d9c6e6704af7032021c10"
