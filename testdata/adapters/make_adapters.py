"""Adapters of tiny models as PEFT writes them, and what it computes with them.

    python make_adapters.py        # peft 0.21.2, transformers 5, torch 2

Computed in f64 from the f32 values in the files. The base models' weights come from a formula: tensor number `i` in the order of
sorted names has the values `test_input(n, 100 + i)`, times 0.25 plus 1 for norms, times 0.25 for other vectors, times 0.5 for the
rest; a module trained whole starts as its base and ends 0.05 `test_input(n, 300 + i)` away. Of the adapters, `A` and `B` are 0.3
`test_input`, magnitudes the norms times `1 + 0.5 test_input`.
"""
import json
import os
import shutil

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

HERE = os.path.dirname(os.path.abspath(__file__))
GPT2 = dict(model_type="gpt2", vocab_size=37, n_positions=16, n_embd=24, n_layer=2, n_head=3, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)
LLAMA = dict(model_type="llama", vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0)
TIED = dict(tie_word_embeddings=True)
CASES = {
    "gpt2_lora": (GPT2, dict(target_modules="all-linear")),
    "gpt2_dora": (GPT2, dict(use_dora=True)),
    "gpt2_score": (GPT2, dict(target_modules="all-linear", task_type="SEQ_CLS")),
    "llama_lora": (LLAMA, dict(target_modules="all-linear", use_rslora=True, alpha_pattern={"up_proj": 3},
                               rank_pattern={"q_proj": 2, r".*\.1\.mlp\.down_proj": 6})),
    "llama_dora": ({**LLAMA, "attention_bias": True}, dict(target_modules=["q_proj", "o_proj", "down_proj"], use_dora=True)),
    "llama_head": ({**LLAMA, **TIED}, dict(target_modules=r".*\.v_proj|lm_head")),
    "llama_whole": ({**LLAMA, **TIED}, dict(target_modules=["v_proj"], modules_to_save=["embed_tokens", "lm_head", "norm"])),
}


def test_input(n, salt):
    i = np.arange(n, dtype=np.int64)
    return np.float32((i * 7919 + salt * 104729) % 2003) / np.float32(2003) - np.float32(0.5)


def formula(tensor, salt):
    return torch.tensor(test_input(tensor.numel(), salt)).reshape(tensor.shape)


def fill(model):
    names = sorted(name for name, _ in model.named_parameters())
    for name, parameter in model.named_parameters():
        x = formula(parameter, 100 + names.index(name))
        norm = "norm" in name or ".ln_" in name
        if norm and name.endswith("weight"):
            x = 0.25 * x + 1
        else:
            x = (0.25 if parameter.ndim == 1 else 0.5) * x
        parameter.copy_(x)


def fill_adapter(model):
    names = sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        x = formula(parameter, 300 + names.index(name))
        if "lora_magnitude" in name:
            parameter.mul_(1 + 0.5 * x)
        elif "lora_" in name:
            parameter.copy_(0.3 * x)
        else:
            parameter.add_(0.05 * x)


def main():
    torch.manual_seed(0)
    for case, (sizes, options) in CASES.items():
        score = options.get("task_type") == "SEQ_CLS"
        sizes = dict(sizes)
        config = AutoConfig.for_model(sizes.pop("model_type"), **sizes)
        config.num_labels, config.pad_token_id = 3, 0
        auto = AutoModelForSequenceClassification if score else AutoModelForCausalLM
        base = auto.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            fill(base)
            model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, **options))
            fill_adapter(model)
        folder = os.path.join(HERE, case)
        model.save_pretrained(folder)
        os.remove(os.path.join(folder, "README.md"))
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(config.to_dict(), file, indent=1, sort_keys=True)
            file.write("\n")
        model = model.double().eval()
        n, vocab = 16, config.vocab_size
        ids = torch.tensor([[(7 * i + 3) % (vocab - 1) + 1 for i in range(n)]])
        if score:
            logits = model(ids).logits[0]
            loss = torch.nn.functional.cross_entropy(logits[None], torch.tensor([1]))
        else:
            logits = model(ids).logits[0]
            targets = torch.tensor([(5 * i + 1) % vocab for i in range(n)])
            loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        loss.backward()
        out = {"logits": logits.detach().float(), "loss": loss.detach().reshape(1).float()}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                name = name.replace(".modules_to_save.default", "").replace(".default", "").removeprefix("base_model.model.")
                name = name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
                # Of each gradient its sum, sum of squares and first elements: enough to see any mistake.
                g = parameter.grad.double().flatten()
                out["grad." + name] = torch.cat([torch.stack([g.sum(), (g * g).sum()]), g[:6]]).float()
        save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(folder, "golden.safetensors"))


main()
