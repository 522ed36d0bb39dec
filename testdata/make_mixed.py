"""Gradients of a GPT-2 over ten AdamW steps in f64, and how far PyTorch's bf16 autocast is from them.

    python testdata/make_mixed.py

writes testdata/mixed.safetensors. PyTorch 2.x on a CPU. `crates/model/tests/mixed.rs` holds cavy's mixed precision to it.

The model: vocabulary 256, context 64, width 128, 4 layers, 4 heads, biases everywhere, tied head. Element i of parameter
number p (in the order of `shapes`) is scale * (uniform(100 + p, i) - 0.5) + shift in f64, then f32, with `uniform` and
`subkey` of crates/kernels/src/random.rs: scale 0.07 for matrices (deviation 0.02) and biases, for gains 0.1 with shift 1. Matrices of
layers are (out, in). Step s has tokens subkey(7, 130 s + i) % 256 for i below 130: two sequences of 65, the last 64 targets.

Tensors: grad.<name> (10, 256), of each step the f64 gradient at elements subkey(9, j) % n, j below 256; autocast.<name> (10),
the error of the gradient that autocast has at the same weights, |g - g64| / |g64| over those elements; losses (10).
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

V, T, D, L, H, B, STEPS, SAMPLE = 256, 64, 128, 4, 4, 2, 10, 256


def mix(x):
    """splitmix64's finalizer, `mix` in crates/kernels/src/random.rs."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = x ^ (x >> np.uint64(30))
    x = x * np.uint64(0xBF58476D1CE4E5B9)
    x = x ^ (x >> np.uint64(27))
    x = x * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def subkey(key, count):
    return mix(mix(np.full(1, key, dtype=np.uint64)) ^ np.arange(count, dtype=np.uint64))


def uniform(key, count):
    return ((subkey(key, count) >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def shapes():
    found = {"transformer.wte.weight": (V, D), "transformer.wpe.weight": (T, D)}
    for layer in range(L):
        block = f"transformer.h.{layer}."
        for name, outputs, inputs in [("attn.c_attn", 3 * D, D), ("attn.c_proj", D, D), ("mlp.c_fc", 4 * D, D), ("mlp.c_proj", D, 4 * D)]:
            found |= {f"{block}{name}.weight": (outputs, inputs), f"{block}{name}.bias": (outputs,)}
        for name in ["ln_1", "ln_2"]:
            found |= {f"{block}{name}.weight": (D,), f"{block}{name}.bias": (D,)}
    return found | {"transformer.ln_f.weight": (D,), "transformer.ln_f.bias": (D,)}


def weights():
    made = {}
    for number, (name, shape) in enumerate(shapes().items()):
        gain = ".ln_" in name and name.endswith("weight")
        scale, shift = (0.1, 1.0) if gain else (0.07, 0.0)
        values = scale * (uniform(100 + number, int(np.prod(shape))) - 0.5) + shift
        # The same f32 number that cavy computes.
        values = values.astype(np.float32).astype(np.float64)
        made[name] = torch.tensor(values).reshape(shape).requires_grad_()
    return made


def batch(step):
    tokens = subkey(7, 130 * STEPS)[130 * step : 130 * (step + 1)] % np.uint64(V)
    ids = torch.tensor(tokens.astype(np.int64)).reshape(B, T + 1)
    return ids[:, :-1], ids[:, 1:]


def loss_of(w, step):
    ids, targets = batch(step)

    def norm(x, name):
        return F.layer_norm(x, (D,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = F.embedding(ids, w["transformer.wte.weight"]) + w["transformer.wpe.weight"]
    for layer in range(L):
        block = f"transformer.h.{layer}."
        q, k, v = (z.view(B, T, H, D // H).transpose(1, 2) for z in linear(norm(x, block + "ln_1"), block + "attn.c_attn").split(D, 2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(mixed.transpose(1, 2).reshape(B, T, D), block + "attn.c_proj")
        hidden = F.gelu(linear(norm(x, block + "ln_2"), block + "mlp.c_fc"), approximate="tanh")
        x = x + linear(hidden, block + "mlp.c_proj")
    logits = F.linear(norm(x, "transformer.ln_f"), w["transformer.wte.weight"])
    return F.cross_entropy(logits.view(-1, V).float() if logits.dtype == torch.bfloat16 else logits.view(-1, V), targets.reshape(-1))


def gradients(w, step, autocast):
    copies = {name: x.detach().clone().requires_grad_() for name, x in w.items()}
    if autocast:
        copies = {name: x.detach().float().requires_grad_() for name, x in copies.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = loss_of(copies, step)
    loss.backward()
    return loss.item(), {name: x.grad.double() for name, x in copies.items()}


def main():
    w = weights()
    optimizer = torch.optim.AdamW(w.values(), lr=1e-3, weight_decay=0.0)
    picked = {name: torch.tensor((subkey(9, SAMPLE) % np.uint64(x.numel())).astype(np.int64)) for name, x in w.items()}
    exact = {name: [] for name in w}
    errors = {name: [] for name in w}
    losses = []
    for step in range(STEPS):
        loss, g64 = gradients(w, step, False)
        _, half = gradients(w, step, True)
        losses.append(loss)
        for name in w:
            a, b = (g[name].flatten()[picked[name]] for g in (g64, half))
            exact[name].append(a.float())
            errors[name].append(((a - b).norm() / a.norm()).item())
            w[name].grad = g64[name]
        optimizer.step()
    out = {f"grad.{name}": torch.stack(x) for name, x in exact.items()}
    out |= {f"autocast.{name}": torch.tensor(x, dtype=torch.float64) for name, x in errors.items()}
    out["losses"] = torch.tensor(losses, dtype=torch.float64)
    for name, x in errors.items():
        print(f"{name:40} {sum(x) / STEPS:.2e}")
    print(losses)
    save_file(out, pathlib.Path(__file__).parent / "mixed.safetensors")


if __name__ == "__main__":
    main()
