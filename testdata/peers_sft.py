"""TRL's losses on the first instructions, and the adapter it began with, for `cavy bench sft --adapter`.

TRL 1.16, PEFT 0.21, transformers 5, PyTorch 2.15. Usage: peers_sft.py --model DIR --data instruction-data.json --mode
full|lora|dora --adapter OUT [--steps 4 --batch 8 --lr 2e-5 --first 0]. Prints one JSON line.
"""
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
from peers_common import alpaca, arguments, result, rows, train

a = arguments(lr=2e-5)
tokenizer = AutoTokenizer.from_pretrained(a.model)
model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
items = rows(a)
data = Dataset.from_list([dict(prompt=alpaca(row), completion=row["output"]) for row in items])
config = SFTConfig(output_dir="/tmp/trl-sft", per_device_train_batch_size=a.batch, learning_rate=a.lr, num_train_epochs=1,
                   logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", bf16=False, weight_decay=0.0,
                   gradient_checkpointing=False, dataloader_pin_memory=False, lr_scheduler_type="constant")
extra = {}
if a.mode != "full":
    extra["peft_config"] = LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM",
                                      use_dora=a.mode == "dora")
trainer = SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer, **extra)
trainer._get_train_sampler = lambda *args, **kw: torch.utils.data.SequentialSampler(trainer.train_dataset)
if a.mode != "full" and a.adapter:
    trainer.model.save_pretrained(a.adapter)
seconds, history = train(trainer)
result(mode=a.mode, tokens_per_s=history[-1]["num_tokens"] / seconds, seconds=seconds, history=history)
