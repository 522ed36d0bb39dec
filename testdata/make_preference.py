"""Makes preference.json: losses of pairs and their gradients, by TRL's own trainers on made-up log-probabilities.

Usage: python make_preference.py        (torch 2.15.0, trl 1.16.0)
"""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
import trl
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer

assert trl.__version__ == "1.16.0"
F64 = torch.float64
accelerator = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)


def pair(salt):
    """Log-probabilities of the tokens of two answers, by the policy and the reference."""
    lengths = (3 + salt % 4, 2 + salt * 3 % 5)

    def tokens(n, shift):
        return [-0.05 - ((i * 7919 + (salt * 4 + shift) * 104729) % 2003) / 2003 * 3 for i in range(n)]

    return [tokens(n, 2 * i + who) for who in (0, 1) for i, n in enumerate(lengths)]


def dpo(case, answers):
    chosen, rejected, ref_chosen, ref_rejected = (torch.tensor(a, dtype=F64) for a in answers)
    width = max(len(chosen), len(rejected))
    policy = torch.zeros(2, width, dtype=F64)
    mask = torch.zeros(2, width + 1, dtype=torch.int64)
    for row, answer in enumerate((chosen, rejected)):
        policy[row, : len(answer)] = answer
        mask[row, 1 : len(answer) + 1] = 1
    policy.requires_grad_(True)
    nothing = torch.zeros(2, width, dtype=F64)
    outputs = SimpleNamespace(log_probs=policy, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())

    class Model:
        training = True

        def __call__(self, **_):
            return outputs

    metrics = {mode: __import__("collections").defaultdict(list) for mode in ("train", "eval")}
    loss_types = [case["loss_type"]] + (["sft"] if case["sft_weight"] else [])
    trainer = SimpleNamespace(
        model=Model(), accelerator=accelerator, aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True,
        f_divergence_type="reverse_kl", loss_types=loss_types, loss_weights=[1.0, case["sft_weight"]][: len(loss_types)],
        beta=case["beta"], label_smoothing=case["label_smoothing"], use_weighting=False, _metrics=metrics,
        _total_train_tokens=0, _tp_size=1)
    inputs = {
        "input_ids": torch.zeros(2, width + 1, dtype=torch.int64), "attention_mask": mask, "completion_mask": mask,
        "ref_chosen_logps": ref_chosen.sum()[None], "ref_rejected_logps": ref_rejected.sum()[None]}
    loss = DPOTrainer._compute_loss(trainer, trainer.model, inputs, False)
    loss.backward()
    found = {name: values[0] for name, values in metrics["train"].items() if name.startswith(("rewards", "logps"))}
    return loss.item(), policy.grad[0, 0].item(), policy.grad[1, 0].item(), found


def without_reference(case, answers):
    chosen, rejected = (torch.tensor(a, dtype=F64, requires_grad=True) for a in answers[:2])
    settings = SimpleNamespace(
        accelerator=accelerator, beta=case["beta"], alpha=0.0, loss_type="simpo", simpo_gamma=case["simpo_gamma"],
        label_smoothing=case["label_smoothing"])
    if case["loss_type"] == "simpo":
        loss = CPOTrainer.cpo_loss(settings, chosen.mean()[None], rejected.mean()[None])[0].mean()
    else:
        # `get_batch_loss_metrics`: the loss of the chosen answer less the odds ratio's. It goes through f32.
        loss = -chosen.mean() - ORPOTrainer.odds_ratio_loss(settings, chosen.mean()[None], rejected.mean()[None])[0].mean()
    loss.backward()
    return loss.item(), chosen.grad[0].item(), rejected.grad[0].item(), {}


def kto(case, answers):
    """`KTOTrainer._compute_loss` is one piece with its forward passes, so its four lines stand here."""
    chosen, rejected = (torch.tensor(a, dtype=F64, requires_grad=True) for a in answers[:2])
    chosen_logratios, rejected_logratios = chosen.sum() - sum(answers[2]), rejected.sum() - sum(answers[3])
    chosen_losses = 1 - torch.sigmoid(case["beta"] * (chosen_logratios - case["kl"]))
    rejected_losses = 1 - torch.sigmoid(case["beta"] * (case["kl"] - rejected_logratios))
    losses = torch.stack([case["desirable_weight"] * chosen_losses, case["undesirable_weight"] * rejected_losses])
    losses.mean().backward()
    return losses.mean().item(), chosen.grad[0].item(), rejected.grad[0].item(), {}


base = {"beta": 0.1, "label_smoothing": 0.0, "simpo_gamma": 0.5, "kl": 0.0, "desirable_weight": 1.0,
        "undesirable_weight": 1.0, "sft_weight": 0.0}
wanted = [
    ("sigmoid", {}), ("sigmoid", {"beta": 0.5}), ("sigmoid", {"sft_weight": 0.3}), ("hinge", {}), ("hinge", {"beta": 2.0}),
    ("ipo", {}), ("ipo", {"beta": 0.6}), ("robust", {"label_smoothing": 0.1}), ("robust", {"label_smoothing": 0.3}),
    ("kto", {"kl": 0.4}), ("kto", {"desirable_weight": 1.5, "undesirable_weight": 0.5}), ("orpo", {}), ("orpo", {"beta": 0.4}),
    ("simpo", {"beta": 2.0}), ("simpo", {"beta": 2.5, "simpo_gamma": 1.2, "label_smoothing": 0.1}),
]
cases = []
for salt, (loss_type, more) in enumerate(wanted):
    case = {"loss_type": loss_type} | base | more
    answers = pair(salt)
    run = {"kto": kto, "orpo": without_reference, "simpo": without_reference}.get(loss_type, dpo)
    case["answers"] = answers
    case["loss"], case["d_chosen"], case["d_rejected"], case["metrics"] = run(case, answers)
    cases.append(case)
Path(__file__).with_name("preference.json").write_text(json.dumps(cases, indent=1) + "\n")
