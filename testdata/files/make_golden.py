#!/usr/bin/env python3
"""Writes the golden model files: what the formats' own Python packages make of values that any language can rebuild.

Made with Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, gguf 0.19.0 and numpy 2.0.2, on the
CPU. Run it as `python testdata/files/make_golden.py`; it overwrites the files beside it. All but `legacy.pth`, which has a random id in
it, are the same bytes each time.

Values come from `test_input(n, salt)`, in [-0.5, 0.5), a multiple of which is stated where it is used. The functions
below say which tensors a file has; the tests of `cavy-files` read them back.
"""

import json
import os
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

HERE = Path(__file__).resolve().parent


def test_input(n, salt):
    """Test values in [-0.5, 0.5), the twin of the Rust function of this name."""
    i = np.arange(n, dtype=np.int64)
    return np.float32((i * 7919 + salt * 104729) % 2003) / np.float32(2003) - np.float32(0.5)


def given(shape, salt, dtype=torch.float32):
    """`test_input` in a shape and a type."""
    return torch.tensor(test_input(int(np.prod(shape)), salt)).reshape(shape).to(dtype)


def safetensors_files():
    """`tiny.safetensors`: one tensor of each floating type and one of integers. `sharded/`: two shards and an index."""
    tensors = {
        "a.f32": given((2, 3), 1),
        "b.f16": given((3, 2), 2, torch.float16),
        "c.bf16": given((4,), 3, torch.bfloat16),
        "d.i64": torch.arange(3),
        "e.scalar": given((), 4),
        "f.empty": torch.zeros(0, 2),
    }
    save_file(tensors, HERE / "tiny.safetensors", {"format": "pt"})
    folder = HERE / "sharded"
    folder.mkdir(exist_ok=True)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    shards = [{"a": given((2, 3), 1), "b": given((4,), 2)}, {"c": given((3, 3), 3, torch.bfloat16)}]
    weight_map = {}
    for name, shard in zip(names, shards):
        save_file(shard, folder / name, {"format": "pt"})
        weight_map.update({key: name for key in shard})
    index = {"metadata": {"total_size": 58}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def gguf_file():
    """`tiny.gguf`: a key of every type, arrays of numbers and texts, tensors of plain and quantized types."""
    path = HERE / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("test.u8", 200)
    writer.add_int8("test.i8", -100)
    writer.add_uint16("test.u16", 60000)
    writer.add_int16("test.i16", -30000)
    writer.add_uint32("test.u32", 4_000_000_000)
    writer.add_int32("test.i32", -2_000_000_000)
    writer.add_float32("test.f32", 0.25)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "Tschüß, мир")
    writer.add_uint64("test.u64", 2**63)
    writer.add_int64("test.i64", -(2**62))
    writer.add_float64("test.f64", 0.1)
    writer.add_array("test.ints", [1, -2, 3])
    writer.add_array("test.floats", [0.5, -0.5])
    writer.add_array("test.texts", ["<s>", "", "Ġthe"])
    writer.add_array("test.bools", [True, False])
    writer.add_tensor("plain.f32", test_input(6, 1).reshape(2, 3))
    writer.add_tensor("plain.f16", test_input(4, 2).astype(np.float16))
    kinds = gguf.GGMLQuantizationType
    bf16 = gguf.quants.quantize(test_input(6, 3).reshape(3, 2), kinds.BF16)
    writer.add_tensor("plain.bf16", bf16, raw_dtype=kinds.BF16)
    for salt, kind in enumerate([kinds.Q8_0, kinds.Q4_0, kinds.Q4_1, kinds.Q5_0, kinds.Q5_1], start=4):
        blocks = gguf.quants.quantize(test_input(3 * 64, salt).reshape(3, 64), kind)
        writer.add_tensor(f"blocks.{kind.name.lower()}", blocks, raw_dtype=kind)
    for salt, kind in enumerate([kinds.Q4_K, kinds.Q5_K, kinds.Q6_K], start=9):
        # gguf cannot make these; any bytes are blocks of them.
        _, size = gguf.GGML_QUANT_SIZES[kind]
        raw = ((np.arange(2 * size) * 31 + salt) % 256).astype(np.uint8).reshape(2, size)
        writer.add_tensor(f"blocks.{kind.name.lower()}", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_gguf_file():
    """`llama.gguf`: a Llama of one block with two heads of four and one key head, its rows as llama.cpp's converter has
    them. Salts count the tensors from 1, values are those of Hugging Face's order."""

    def permuted(weights, heads):
        # `LlamaModel.permute` of convert_hf_to_gguf.py.
        halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
        return halves.swapaxes(1, 2).reshape(weights.shape)

    writer = gguf.GGUFWriter(HERE / "llama.gguf", "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(5)
    writer.add_rope_dimension_count(4)
    writer.add_bos_token_id(1)
    q8 = gguf.GGMLQuantizationType.Q8_0
    shapes = {"token_embd": (5, 8), "blk.0.attn_norm": (8,), "blk.0.attn_q": (8, 8), "blk.0.attn_k": (4, 8)}
    shapes |= {"blk.0.attn_v": (4, 8), "blk.0.attn_output": (8, 8), "blk.0.ffn_norm": (8,), "blk.0.ffn_gate": (32, 8)}
    shapes |= {"blk.0.ffn_up": (32, 8), "blk.0.ffn_down": (8, 32), "output_norm": (8,)}
    for salt, (name, shape) in enumerate(shapes.items(), start=1):
        values = test_input(int(np.prod(shape)), salt).reshape(shape)
        heads = {"blk.0.attn_q": 2, "blk.0.attn_k": 1}.get(name)
        values = values if heads is None else np.ascontiguousarray(permuted(values, heads))
        if name == "blk.0.ffn_down":
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, q8), raw_dtype=q8)
        else:
            writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Harm:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("echo harm",)


def pth_files():
    """State dicts: plain, of views, nested in a checkpoint, in the format before 1.6, and one that would run code."""
    plain = OrderedDict(
        f32=given((2, 3), 1),
        f16=given((3, 2), 2, torch.float16),
        bf16=given((4,), 3, torch.bfloat16),
        f64=given((2,), 4, torch.float64),
        i64=torch.tensor([1, -2, 2**40]),
        i32=torch.tensor([7, -8], dtype=torch.int32),
        i16=torch.tensor([-300], dtype=torch.int16),
        i8=torch.tensor([-3], dtype=torch.int8),
        u8=torch.tensor([255, 0], dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        scalar=torch.tensor(0.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(given((2, 2), 5)),
    )
    torch.save(plain, HERE / "plain.pth")
    whole = given((4, 6), 1)
    views = {
        "whole": whole,
        "transposed": whole.t(),
        "rows": whole[1:3],
        "columns": whole[:, 2:4],
        "stepped": whole[::2, ::3],
        "tied": whole,
        "permuted": given((2, 3, 4), 2).permute(2, 0, 1),
        "one": whole[2:3].t()[3:4],
    }
    torch.save(views, HERE / "views.pth")
    torch.save({"e": torch.tensor([1.0]).expand(1000)}, HERE / "expanded.pth")
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    with torch.no_grad():
        for salt, parameter in enumerate(model.parameters(), start=1):
            parameter.copy_(given(parameter.shape, salt))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(given((1, 3), 9)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        for salt, parameter in enumerate(model.parameters(), start=1):
            parameter.copy_(given(parameter.shape, salt))
    checkpoint = {
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "epoch": 3,
        "loss": 1.5,
        "config": {"n_layer": 2, "name": "tiny", "big": 2**70, "dtype": torch.bfloat16, "none": None, "pair": (1, 2.0)},
        "flags": [True, False],
    }
    torch.save(checkpoint, HERE / "nested.pth")
    for name in ["plain", "views", "nested"]:
        # The pickles alone, for the fuzzer to begin with.
        with zipfile.ZipFile(HERE / f"{name}.pth") as archive:
            (HERE / f"{name}.pkl").write_bytes(archive.read(f"{name}/data.pkl"))
    (HERE / "sharded_pth").mkdir(exist_ok=True)
    shards = {"pytorch_model-00001-of-00002.bin": {"a": given((2, 3), 1), "b": given((4,), 2)},
              "pytorch_model-00002-of-00002.bin": {"c": given((3,), 3)}}
    for name, tensors in shards.items():
        torch.save(tensors, HERE / "sharded_pth" / name)
    weight_map = {key: name for name, tensors in shards.items() for key in tensors}
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (HERE / "sharded_pth" / "pytorch_model.bin.index.json").write_text(index + "\n")
    torch.save(plain, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"weight": given((2,), 1), "trap": Harm()}, HERE / "harm.pth")


# The sizes of `tiny.llama2c.bin`, as its header has them.
DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCAB, SEQ = 16, 12, 2, 4, 2, 10, 6


def llama2c_files():
    """`tiny.llama2c.bin`, whose head is the embedding, and `untied.llama2c.bin`: salts count the tensors from 1."""
    kv = DIM // HEADS * KV_HEADS
    sizes = [VOCAB * DIM, LAYERS * DIM, LAYERS * DIM * DIM, LAYERS * kv * DIM, LAYERS * kv * DIM, LAYERS * DIM * DIM]
    sizes += [LAYERS * DIM, LAYERS * HIDDEN * DIM, LAYERS * DIM * HIDDEN, LAYERS * HIDDEN * DIM, DIM]
    sizes += [SEQ * (DIM // HEADS) // 2] * 2
    for name, sign, more in [("tiny", 1, []), ("untied", -1, [VOCAB * DIM])]:
        header = struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, sign * VOCAB, SEQ)
        values = [test_input(size, salt).astype("<f4").tobytes() for salt, size in enumerate(sizes + more, start=1)]
        (HERE / f"{name}.llama2c.bin").write_bytes(header + b"".join(values))


def names_file():
    """`names.json`: for each architecture, pairs of Hugging Face's name and GGUF's, for block 0 or 13."""
    llama = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    block = "input_layernorm self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj "
    block += "post_attention_layernorm mlp.gate_proj mlp.up_proj mlp.down_proj"
    llama += [f"model.layers.13.{name}.weight" for name in block.split()]
    biases = [f"model.layers.0.self_attn.{name}_proj.bias" for name in "qkv"]
    norms = [f"model.layers.0.self_attn.{name}_norm.weight" for name in "qk"]
    gpt2 = ["transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"]
    gpt2 += [f"transformer.ln_f.{ending}" for ending in ["weight", "bias"]]
    block = "ln_1 attn.c_attn attn.c_proj ln_2 mlp.c_fc mlp.c_proj".split()
    gpt2 += [f"transformer.h.13.{name}.{ending}" for name in block for ending in ["weight", "bias"]]
    pairs = {}
    lists = {"LLAMA": llama, "QWEN2": llama + biases, "QWEN3": llama + norms, "GPT2": gpt2}
    for architecture, names in lists.items():
        table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture], 14)
        pairs[architecture.lower()] = [[name, table.get_name(name, (".weight", ".bias"))] for name in names]
    (HERE / "names.json").write_text(json.dumps(pairs) + "\n")


def llama3_rope_file():
    """`llama3_rope.json`: what Llama 3.2 divides the frequencies of a head of 64 by, and its settings."""
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0}
    rope.update(high_freq_factor=4.0, original_max_position_embeddings=8192)
    config = LlamaConfig(hidden_size=128, num_attention_heads=2, head_dim=64, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1.0 / 500000.0 ** (torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    text = json.dumps({"rope": rope, "factors": (plain / scaled.double()).tolist()})
    (HERE / "llama3_rope.json").write_text(text + "\n")


if __name__ == "__main__":
    llama3_rope_file()
    names_file()
    safetensors_files()
    gguf_file()
    llama_gguf_file()
    pth_files()
    llama2c_files()
