"""Adapters that cavy trained give in PEFT the logits they give there.

    cargo run --release -p cavy-model --example train_adapters -- OUT
    python check_in_peft.py OUT        # peft 0.21.2, transformers 5, torch 2

Prints the largest difference of logits of each, and how much the adapter moves them; fails above 1e-4.
"""
import json
import os
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

worst = 0.0
for name in sorted(os.listdir(sys.argv[1])):
    folder = os.path.join(sys.argv[1], name)
    ids, logits = json.load(open(os.path.join(folder, "logits.json")))
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        before = base(torch.tensor([ids])).logits[0].flatten()
        model = PeftModel.from_pretrained(base, os.path.join(folder, "adapter")).eval()
        found = model(torch.tensor([ids])).logits[0].flatten()
    expected = torch.tensor(logits)
    gap, moved = (found - expected).abs().max().item(), (before - expected).abs().max().item()
    print(f"{name:20} difference {gap:.1e}, moved by {moved:.2f}")
    worst = max(worst, gap) if gap == gap else float("nan")
    assert moved > 0.1, name
assert worst < 1e-4, worst
