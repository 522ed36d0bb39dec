#!/usr/bin/env python3
"""Writes `packed.safetensors`: what the Python package `gguf` makes of weights and of blocks.

Made with Python 3.11, gguf 0.19.0 and numpy 2.0.2. Run it as `python testdata/make_packed_golden.py`.

For each format `<name>.bytes` are whole blocks and `<name>.values` the f32 weights that `gguf.quants.dequantize` finds in
them. Blocks of F16, BF16, Q8_0, Q4_0 and Q4_1 are what `gguf.quants.quantize` makes of `weights()`. Blocks of the other
formats are three of arbitrary bits, `(i * 7919 + 104729) % 2003 % 256` for byte `i`, with their binary16 scales set.
"""

import json
import struct
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

HERE = Path(__file__).resolve().parent
SCALES = [[0.1, 0.3], [-0.017, 2.5], [3e-6, -4e-5]]  # The last are denormal as binary16.


def weights():
    """Ten runs of 32: run r is test_input(32, r) times 4^(r - 5), and run 3 is zeros. Powers of two are exact."""
    i = np.arange(32, dtype=np.int64)
    runs = [
        (np.float32((i * 7919 + r * 104729) % 2003) / np.float32(2003) - np.float32(0.5)) * np.float32(4.0 ** (r - 5))
        for r in range(10)
    ]
    runs[3] = np.zeros(32, dtype=np.float32)
    return np.concatenate(runs).reshape(1, 320)


def blocks(qtype, places):
    """Three blocks of arbitrary bits, with the scales at the byte `places`."""
    _, size = GGML_QUANT_SIZES[qtype]
    data = ((np.arange(3 * size, dtype=np.int64) * 7919 + 104729) % 2003 % 256).astype(np.uint8).reshape(3, size)
    for block, scales in zip(data, SCALES):
        for place, scale in zip(places, scales):
            block[place : place + 2] = np.frombuffer(np.float16(scale).tobytes(), dtype=np.uint8)
    return data.reshape(1, -1)


def main():
    Type = GGMLQuantizationType
    tensors = {}
    written = [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1]
    read = {Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208]}
    for qtype in written + list(read):
        packed = quants.quantize(weights(), qtype) if qtype in written else blocks(qtype, read[qtype])
        values = quants.dequantize(packed, qtype)
        assert np.isfinite(values).all(), qtype
        tensors[f"{qtype.name}.bytes"] = packed.reshape(-1).view(np.uint8)
        tensors[f"{qtype.name}.values"] = values.reshape(-1).astype("<f4")
    header, data = {"__metadata__": {"about": " ".join(__doc__.split())}}, b""
    for key, array in tensors.items():
        dtype = "U8" if array.dtype == np.uint8 else "F32"
        header[key] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (HERE / "packed.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


if __name__ == "__main__":
    main()
