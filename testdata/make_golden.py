#!/usr/bin/env python3
"""Writes the golden vectors: what PyTorch computes for inputs that any language can rebuild bit for bit.

Made with Python 3.11, torch 2.15.0, transformers 5.23.0 (a cross-check of the small GPT-2 only) and numpy 2.0.2, on the
CPU. Run it as `python testdata/make_golden.py`; it overwrites the `*.safetensors` files beside it.

Files are safetensors, one per kernel, f32 unless said otherwise; only results are stored. PyTorch computes in f64 from
the f32 inputs, so a stored number is exact to its last place and a test's bound is about our rounding alone.

Inputs come from `test_input(n, salt)`, values in [-0.5, 0.5); factors on them are powers of two, thus exact. Gradients
are those of `sum(y * d_y)` with the stated `d_y`, unless the file has a loss of its own. Each function below says which
salts its inputs have; the same text is in the file's metadata.
"""

import inspect
import json
import math
import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
DTYPE = torch.float64


def test_input(n, salt):
    """Test values in [-0.5, 0.5), the twin of the Rust function of this name."""
    i = np.arange(n, dtype=np.int64)
    return np.float32((i * 7919 + salt * 104729) % 2003) / np.float32(2003) - np.float32(0.5)


def given(shape, salt, scale=1.0, shift=0.0, grad=True):
    """`shift + scale * test_input` in f32, as a leaf in f64."""
    values = np.float32(shift) + np.float32(scale) * test_input(math.prod(shape), salt)
    assert values.dtype == np.float32
    return torch.tensor(values.reshape(shape)).to(DTYPE).requires_grad_(grad)


def fixed(shape, salt, scale=1.0):
    """As `given`, without a gradient."""
    return given(shape, salt, scale, grad=False)


def save(name, about, tensors):
    """Writes a safetensors file: floats as f32 (`*_f64` as f64)."""
    header, data = {"__metadata__": {"about": " ".join(about.split())}}, b""
    for key, tensor in tensors.items():
        wide = key.endswith("_f64")
        array = tensor.detach().numpy().astype("<f8" if wide else "<f4")
        assert np.isfinite(array).all(), (name, key)
        end = len(data) + array.nbytes
        header[key] = {"dtype": "F64" if wide else "F32", "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (HERE / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def backward(y, d_y, **leaves):
    """The gradients of `sum(y * d_y)` by the leaves, as `d_<name>`."""
    grads = torch.autograd.grad((y * d_y).sum(), list(leaves.values()))
    return {f"d_{name}": grad for name, grad in zip(leaves, grads)}


def linear():
    """y = x W^T + b. N = 5, 7 inputs, 9 outputs. x (5, 7) salt 1, W (9, 7) salt 2, b (9) salt 3, d_y (5, 9) salt 4.
    Tensors: y, d_x, d_weight, d_bias."""
    x, weight, bias = given((5, 7), 1), given((9, 7), 2), given((9,), 3)
    y = F.linear(x, weight, bias)
    return {"y": y, **backward(y, fixed((5, 9), 4), x=x, weight=weight, bias=bias)}


def layer_norm():
    """N = 6, D = 19, eps 1e-5. x = 2 * salt 1 (6, 19), gamma salt 2, beta salt 3, d_y salt 4.
    Tensors: y, d_x, d_gamma, d_beta."""
    x, gamma, beta = given((6, 19), 1, 2.0), given((19,), 2), given((19,), 3)
    y = F.layer_norm(x, (19,), gamma, beta, 1e-5)
    return {"y": y, **backward(y, fixed((6, 19), 4), x=x, gamma=gamma, beta=beta)}


def rms_norm():
    """N = 6, D = 19, eps 1e-6. x = 2 * salt 1 (6, 19), gamma salt 2, d_y salt 4. Tensors: y, d_x, d_gamma."""
    x, gamma = given((6, 19), 1, 2.0), given((19,), 2)
    y = F.rms_norm(x, (19,), gamma, 1e-6)
    return {"y": y, **backward(y, fixed((6, 19), 4), x=x, gamma=gamma)}


def gelu():
    """n = 101, x = 16 * salt 1, d_y salt 2. Tensors: y_tanh, d_x_tanh, y_erf, d_x_erf."""
    out = {}
    for form, approximate in [("tanh", "tanh"), ("erf", "none")]:
        x = given((101,), 1, 16.0)
        y = F.gelu(x, approximate=approximate)
        out |= {f"y_{form}": y, f"d_x_{form}": backward(y, fixed((101,), 2), x=x)["d_x"]}
    return out


def swiglu():
    """y = silu(gate) * up. n = 101, gate = 16 * salt 1, up salt 2, d_y salt 3. Tensors: y, d_gate, d_up."""
    gate, up = given((101,), 1, 16.0), given((101,), 2)
    y = F.silu(gate) * up
    return {"y": y, **backward(y, fixed((101,), 3), gate=gate, up=up)}


def rope():
    """Hugging Face's half rotation, 3 heads of E = 8, theta 10000, inv_freq rounded to f32, angles in f64.
    Positions 0, 1, 2, 5, 100, 100000; x (6, 24) salt 1, d_y salt 2. Tensors: y, d_x."""
    x = given((6, 24), 1)
    inv_freq = (10000.0 ** (-torch.arange(0, 8, 2, dtype=DTYPE) / 8)).float().to(DTYPE)
    angles = torch.tensor([0, 1, 2, 5, 100, 100000], dtype=DTYPE)[:, None] * inv_freq
    angles = torch.cat([angles, angles], -1)[:, None, :]  # (N, 1, E)
    heads = x.view(6, 3, 8)
    rotated = torch.cat([-heads[..., 4:], heads[..., :4]], -1)
    y = (heads * angles.cos() + rotated * angles.sin()).reshape(6, 24)
    return {"y": y, **backward(y, fixed((6, 24), 2), x=x)}


def embedding():
    """V = 11, D = 5, ids 3, 0, 3, 10, 7, 3; weight (11, 5) salt 1, d_y (6, 5) salt 2. Tensors: y, d_weight."""
    weight = given((11, 5), 1)
    y = F.embedding(torch.tensor([3, 0, 3, 10, 7, 3]), weight)
    return {"y": y, **backward(y, fixed((6, 5), 2), weight=weight)}


def attention():
    """Causal attention of H = 4 query heads of E = 8 with scale 1 / sqrt(E), packed: qkv = 4 * salt 1, (12, (H + 2K) E),
    a row's query heads, then its key heads, then its value heads; d_out (12, H E) salt 2. 12 tokens in segments of 7 and
    5. Cases <heads>_<segments>_<window>: `mha` has K = 4, `gqa` K = 2 (query head h reads key head h // 2); in `packed`
    the segments see only themselves, in `prefix` the second continues the first at position 7 and sees all of it;
    `all` has no window, in `w3` a query sees its own and the two positions before it.
    Tensors per case: <case>.out (12, 32), <case>.lse (12, 4), <case>.d_qkv."""
    out = {}
    segment = torch.tensor([0] * 7 + [1] * 5)
    for heads, kv in [("mha", 4), ("gqa", 2)]:
        for kind in ["packed", "prefix"]:
            for window_name, window in [("all", 100), ("w3", 3)]:
                restart = torch.arange(12) if kind == "prefix" else torch.tensor([*range(7), *range(5)])
                distance = restart[:, None] - restart[None, :]
                seen = (distance >= 0) & (distance < window)
                seen &= (segment[:, None] == segment[None, :]) | torch.tensor(kind == "prefix")
                qkv = given((12, (4 + 2 * kv) * 8), 1, 4.0)
                q, k, v = qkv.split([32, kv * 8, kv * 8], -1)
                q = q.view(12, 4, 8).transpose(0, 1)  # (H, N, E)
                k, v = (z.view(12, kv, 8).repeat_interleave(4 // kv, 1).transpose(0, 1) for z in (k, v))
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
                scores = (q @ k.transpose(1, 2) / math.sqrt(8)).masked_fill(~seen, -math.inf)
                lse = scores.logsumexp(-1)  # (H, N)
                assert torch.allclose((scores - lse[..., None]).exp() @ v, y)
                y = y.transpose(0, 1).reshape(12, 32)
                case = f"{heads}_{kind}_{window_name}"
                out |= {f"{case}.out": y, f"{case}.lse": lse.T}
                out[f"{case}.d_qkv"] = backward(y, fixed((12, 32), 2), qkv=qkv)["d_qkv"]
    return out


def head():
    """logits = x W^T, x = 8 * salt 1 (6, 8), W (11, 8) salt 2; targets 3, 0, 10, 7, 7, 1; weights 1, 0, 0.5, 2, 1, 0.25.
    Tensors: logprobs (6) of the targets, entropy (6), loss_f64 = sum(w * -logprob) / sum(w), d_x and d_weight of that
    loss; d_x_sum and d_weight_sum are the gradients of sum(w * logprob)."""
    x, weight = given((6, 8), 1, 8.0), given((11, 8), 2)
    targets = torch.tensor([3, 0, 10, 7, 7, 1])
    weights = torch.tensor([1.0, 0.0, 0.5, 2.0, 1.0, 0.25], dtype=DTYPE)
    all_logprobs = (x @ weight.T).log_softmax(-1)
    logprobs = all_logprobs[torch.arange(6), targets]
    loss = -(weights * logprobs).sum() / weights.sum()
    grads = backward(loss, 1.0, x=x, weight=weight)
    entropy = -(all_logprobs.exp() * all_logprobs).sum(-1)
    out = {"logprobs": logprobs, "entropy": entropy, "loss_f64": loss, **grads}
    return out | {f"{name}_sum": grad * -weights.sum() for name, grad in grads.items()}


def adamw():
    """Ten steps of torch.optim.AdamW on n = 33: param salt 1, gradient of step t salt 10 + t.
    Cases: `default` with PyTorch's settings, `tuned` with lr 0.01, betas 0.9 and 0.95, weight_decay 0.1,
    `undecayed` as `default` with weight_decay 0. Tensors per case: <case>.param, <case>.m, <case>.v."""
    out = {}
    tuned = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}
    for case, settings in [("default", {}), ("tuned", tuned), ("undecayed", {"weight_decay": 0.0})]:
        param = given((33,), 1)
        optimizer = torch.optim.AdamW([param], **settings)
        for t in range(1, 11):
            param.grad = fixed((33,), 10 + t)
            optimizer.step()
        state = optimizer.state[param]
        out |= {f"{case}.param": param, f"{case}.m": state["exp_avg"], f"{case}.v": state["exp_avg_sq"]}
    return out


# The small GPT-2: vocabulary, context, width, layers, heads.
V, T, D, L, H = 37, 16, 24, 2, 3


def gpt2_weights(tied):
    """Hugging Face's names and shapes (`Conv1D` weights are (in, out)), in the order that counts the salts from 100."""
    shapes = {"transformer.wte.weight": (V, D), "transformer.wpe.weight": (T, D)}
    for layer in range(L):
        block = f"transformer.h.{layer}."
        for name, size_in, size_out in [("attn.c_attn", D, 3 * D), ("attn.c_proj", D, D), ("mlp.c_fc", D, 4 * D), ("mlp.c_proj", 4 * D, D)]:
            shapes |= {f"{block}{name}.weight": (size_in, size_out), f"{block}{name}.bias": (size_out,)}
        for name in ["ln_1", "ln_2"]:
            shapes |= {f"{block}{name}.weight": (D,), f"{block}{name}.bias": (D,)}
    shapes |= {"transformer.ln_f.weight": (D,), "transformer.ln_f.bias": (D,)}
    if not tied:
        shapes["lm_head.weight"] = (V, D)
    weights = {}
    for index, (name, shape) in enumerate(shapes.items()):
        gamma = ".ln_" in name and name.endswith("weight")
        scale, shift = (0.25, 1.0) if gamma else (0.5, 0.0) if len(shape) == 2 else (0.25, 0.0)
        weights[name] = given(shape, 100 + index, scale, shift)
    return weights


def gpt2_ids():
    """Token i is (i * i + 3 * i + 1) % 37; sequence b reads 17 b .. 17 b + 16 and predicts the tokens one later."""
    ids = torch.tensor([[(i * i + 3 * i + 1) % V for i in range(17 * b, 17 * b + 17)] for b in range(2)])
    return ids[:, :-1], ids[:, 1:]


def gpt2_logits(weights, ids):
    def norm(x, name):
        return F.layer_norm(x, (D,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    def conv1d(x, name):
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["transformer.wte.weight"][ids] + weights["transformer.wpe.weight"]
    for layer in range(L):
        block = f"transformer.h.{layer}."
        q, k, v = conv1d(norm(x, block + "ln_1"), block + "attn.c_attn").view(2, T, 3, H, D // H).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + conv1d(mixed.transpose(1, 2).reshape(2, T, D), block + "attn.c_proj")
        hidden = F.gelu(conv1d(norm(x, block + "ln_2"), block + "mlp.c_fc"), approximate="tanh")
        x = x + conv1d(hidden, block + "mlp.c_proj")
    return norm(x, "transformer.ln_f") @ weights.get("lm_head.weight", weights["transformer.wte.weight"]).T


def gpt2_loss(weights):
    ids, targets = gpt2_ids()
    return F.cross_entropy(gpt2_logits(weights, ids).view(-1, V), targets.reshape(-1))


def assert_transformers_agree(weights, tied):
    """The formulas above are those of Hugging Face's GPT-2."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=V, n_positions=T, n_embd=D, n_layer=L, n_head=H, tie_word_embeddings=tied)
    model = GPT2LMHeadModel(config).to(DTYPE).eval()
    missing, unexpected = model.load_state_dict({k: w.detach() for k, w in weights.items()}, strict=False)
    assert not unexpected and missing == (["lm_head.weight"] if tied else []), (missing, unexpected)
    ids, _ = gpt2_ids()
    assert torch.allclose(model(ids).logits, gpt2_logits(weights, ids), atol=1e-12)


def gpt2_losses(tied, weight_decay, steps=10):
    weights = gpt2_weights(tied)
    groups = [
        {"params": [w for w in weights.values() if w.ndim >= 2], "weight_decay": weight_decay},
        {"params": [w for w in weights.values() if w.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    losses = []
    for _ in range(steps):
        loss = gpt2_loss(weights)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.tensor(losses, dtype=DTYPE)


def gpt2(tied):
    """A GPT-2 of vocabulary 37, context 16, width 24, 2 layers, 3 heads, biases everywhere, tanh GELU, layer norm eps
    1e-5. Weights by Hugging Face's names and shapes, salts 100, 101, ... in the order wte, wpe, then for each layer
    attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj, ln_1, ln_2 (each weight, then bias), then ln_f, then lm_head.weight
    where untied; the matrices of the layers are `Conv1D`, (in, out). Values: 0.5 * test_input for tensors of two
    dimensions, 0.25 * test_input for biases, 1 + 0.25 * test_input for the weights of norms. Token i is
    (i * i + 3 * i + 1) % 37; sequence b of 2 reads tokens 17 b .. 17 b + 16 and predicts 17 b + 1 .. 17 b + 17.
    Tensors: logits (2, 16, 37); loss_f64, the mean cross-entropy; grad.<name> of it; grad_norm_f64 over all gradients;
    clip_factor_f64, by which clip_grad_norm_(max_norm = 0.1) multiplies them; losses_f64 (10), before each of ten AdamW
    steps on this batch (lr 1e-3, weight_decay 0.1 on tensors of two dimensions, no clipping); losses_undecayed_f64, the
    same with weight_decay 0."""
    weights = gpt2_weights(tied)
    assert_transformers_agree(weights, tied)
    loss = gpt2_loss(weights)
    loss.backward()
    out = {"logits": gpt2_logits(weights, gpt2_ids()[0]), "loss_f64": loss}
    out |= {f"grad.{name}": weight.grad.clone() for name, weight in weights.items()}
    some = weights["transformer.wpe.weight"]
    before = some.grad.clone()
    out["grad_norm_f64"] = torch.nn.utils.clip_grad_norm_(weights.values(), 0.1)
    out["clip_factor_f64"] = (some.grad / before).median()
    out["losses_f64"] = gpt2_losses(tied, 0.1)
    out["losses_undecayed_f64"] = gpt2_losses(tied, 0.0)
    return out


def main():
    torch.manual_seed(0)
    for kernel in [linear, layer_norm, rms_norm, gelu, swiglu, rope, embedding, attention, head, adamw]:
        save(kernel.__name__, inspect.getdoc(kernel), kernel())
    for name, tied in [("gpt2_tied", True), ("gpt2_untied", False)]:
        results = gpt2(tied)
        save(name, inspect.getdoc(gpt2), results)
        for key in ["loss_f64", "grad_norm_f64", "clip_factor_f64", "losses_f64", "losses_undecayed_f64"]:
            print(name, key, results[key].tolist())


if __name__ == "__main__":
    main()
