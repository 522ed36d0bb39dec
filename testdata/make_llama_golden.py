"""Logits and gradients of tiny models of the Llama family, by Hugging Face's transformers.

    python make_llama_golden.py        # transformers 5, torch 2

Computed in f64. Weights come from a formula, so only `config.json` and the results are stored. Tensor number `i` in the order of sorted
names has the values `test_input(n, 100 + i)`, times 0.25 plus 1 for norms, times 0.25 for biases, times 0.5 for the rest.
"""
import json
import os

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
SIZES = dict(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, max_position_embeddings=64, rms_norm_eps=1e-5)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)
VARIANTS = {
    "llama": dict(model_type="llama", rope_theta=10000.0, tie_word_embeddings=True),
    "llama_biased": dict(model_type="llama", attention_bias=True, mlp_bias=True, num_key_value_heads=4),
    "llama_linear": dict(model_type="llama", rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=2.0)),
    "llama_llama3": dict(model_type="llama", rope_parameters=LLAMA3),
    "llama_yarn": dict(model_type="llama", rope_parameters=YARN),
    "mistral": dict(model_type="mistral", sliding_window=7, head_dim=16),
    "qwen2": dict(model_type="qwen2", tie_word_embeddings=True),
    "qwen3": dict(model_type="qwen3", head_dim=16),
}


def test_input(n, salt):
    i = np.arange(n, dtype=np.int64)
    return np.float32((i * 7919 + salt * 104729) % 2003) / np.float32(2003) - np.float32(0.5)


def values(name, tensor, index):
    x = torch.tensor(test_input(tensor.numel(), 100 + index)).reshape(tensor.shape)
    if "norm" in name:
        return 0.25 * x + 1
    return (0.25 if tensor.ndim == 1 else 0.5) * x


def main():
    folder = os.path.join(HERE, "models")
    os.makedirs(folder, exist_ok=True)
    for name, options in VARIANTS.items():
        options = {**SIZES, **options}
        if options["model_type"].startswith("qwen2"):
            del options["head_dim"]
        config = AutoConfig.for_model(options.pop("model_type"), **options)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").double().eval()
        parameters = sorted(model.named_parameters())
        with torch.no_grad():
            for index, (key, parameter) in enumerate(parameters):
                parameter.copy_(values(key, parameter, index))
        n = 24
        ids = torch.tensor([[(7 * i + 3) % 61 for i in range(n)]])
        targets = torch.tensor([(5 * i + 1) % 61 for i in range(n)])
        logits = model(ids).logits[0]
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        loss.backward()
        out = {"logits": logits.detach().float(), "loss": loss.detach().reshape(1).float()}
        for key, parameter in parameters:
            # Of each gradient its sum, sum of squares and first elements: enough to see any mistake.
            g = parameter.grad.double().flatten()
            out["grad." + key] = torch.cat([torch.stack([g.sum(), (g * g).sum()]), g[:6]]).float()
        save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(folder, name + ".safetensors"))
        with open(os.path.join(folder, name + ".json"), "w") as file:
            json.dump(config.to_dict(), file, indent=1, sort_keys=True)
            file.write("\n")


main()
