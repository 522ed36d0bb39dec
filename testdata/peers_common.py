"""What the scripts beside TRL share: their arguments, the Alpaca prompt, the result's line."""
import argparse, json, resource, time, torch


def arguments(**own):
    """Options of the names and defaults given, besides those that both scripts have; sets threads and seed."""
    defaults = dict(model=None, data=None, mode="full", adapter=None, steps=4, batch=8, first=0, threads=2) | own
    parser = argparse.ArgumentParser()
    for name, default in defaults.items():
        parser.add_argument("--" + name, default=default, type=str if default is None else type(default))
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    return a


def rows(a):
    """The items that the steps see, in file order."""
    return json.load(open(a.data))[a.first : a.first + a.batch * a.steps]


def alpaca(item):
    text = ("Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruction:\n" + item["instruction"])
    if item["input"]:
        text += "\n\n### Input:\n" + item["input"]
    return text + "\n\n### Response:\n"


def train(trainer):
    """Seconds of training, and TRL's records of its steps."""
    start = time.time()
    trainer.train()
    seconds = time.time() - start
    return seconds, [{k: v for k, v in h.items() if k != "total_flos"} for h in trainer.state.log_history if "loss" in h]


def result(**values):
    print(json.dumps(dict(tool="trl", **values, peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))))
