"""TRL's losses, rewards and log-probabilities on the first pairs, and the adapter it began with, for `cavy bench dpo --adapter`.

TRL 1.16, PEFT 0.21, transformers 5, PyTorch 2.15. Usage: peers_dpo.py --model DIR --data
instruction-data-with-preference.json --mode full|lora|lora-pre --adapter OUT [--steps 4 --batch 8 --lr 5e-6 --beta 0.1
--first 0 --dtype float32]. Prints one JSON line. With `--start DIR` it begins with that adapter; in float64 it says what rounding
makes of rewards that are differences of sums a hundred thousand times as large.
"""
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer
from peers_common import alpaca, arguments, result, rows, train

a = arguments(start=None, dtype="float32", lr=5e-6, beta=0.1)
tokenizer = AutoTokenizer.from_pretrained(a.model)
model = AutoModelForCausalLM.from_pretrained(a.model, dtype=getattr(torch, a.dtype))
items = rows(a)
data = Dataset.from_list([dict(prompt=alpaca(row), chosen=row["chosen"], rejected=row["rejected"]) for row in items])
config = DPOConfig(output_dir="/tmp/trl-dpo", per_device_train_batch_size=a.batch, learning_rate=a.lr, beta=a.beta,
                   num_train_epochs=1, logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", bf16=False,
                   gradient_checkpointing=False, dataloader_pin_memory=False, max_length=1024,
                   lr_scheduler_type="constant", weight_decay=0.0, precompute_ref_log_probs="pre" in a.mode)
extra = {}
if a.start:
    model = PeftModel.from_pretrained(model, a.start, is_trainable=True).to(getattr(torch, a.dtype))
elif "lora" in a.mode:
    extra["peft_config"] = LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
trainer = DPOTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer, **extra)
trainer._get_train_sampler = lambda *args, **kw: torch.utils.data.SequentialSampler(trainer.train_dataset)
if "lora" in a.mode and a.adapter:
    trainer.model.save_pretrained(a.adapter)
seconds, history = train(trainer)
result(mode=a.mode, pairs_per_s=len(items) / seconds, seconds=seconds, history=history)
