"""Makes gpt2.merges.gz: GPT-2's 50,000 byte-pair merges as token ids.

Source: OpenAI's `vocab.bpe` and `r50k_base.tiktoken` as bundled by the crate `tiktoken-rs` 0.12.1 (folder `assets`).
Form: gzip of two arrays of 50,000 little-endian u16, all left ids and then all right ids. Merge i makes token 256 + i;
tokens 0 to 255 are the single bytes in GPT-2's order; token 50256 is `<|endoftext|>` and no merge.
Usage: python make_gpt2.py path/to/tiktoken-rs-0.12.1/assets
"""

import base64
import gzip
import struct
import sys
from pathlib import Path

assets = Path(sys.argv[1])
printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
order = printable + [byte for byte in range(256) if byte not in printable]
letters = {}
for position, byte in enumerate(order):
    letters[chr(byte) if byte in printable else chr(256 + position - len(printable))] = byte

ids = {bytes([byte]): position for position, byte in enumerate(order)}
left, right = [], []
lines = (assets / "vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
for line in lines:
    first, second = (bytes(letters[letter] for letter in part) for part in line.split(" "))
    left.append(ids[first])
    right.append(ids[second])
    ids[first + second] = len(ids)

ranks = {}
for line in (assets / "r50k_base.tiktoken").read_text().splitlines():
    token, rank = line.split()
    ranks[base64.b64decode(token)] = int(rank)
assert ranks == ids, "vocab.bpe and r50k_base.tiktoken must describe the same tokens"
assert len(left) == 50_000

raw = struct.pack(f"<{len(left)}H", *left) + struct.pack(f"<{len(right)}H", *right)
Path(__file__).with_name("gpt2.merges.gz").write_bytes(gzip.compress(raw, 9, mtime=0))
