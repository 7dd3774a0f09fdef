from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bvae_tune.data.image_store import ImageStore

# Trains a bank twice, the second time with little more memory from some step on: all replicas at once do not fit.
SCRIPT = """
import resource, sys
import torch
from bvae_tune.data.image_store import open_store
from bvae_tune.errors import RunError
from bvae_tune.models.config import ModelConfig
from bvae_tune.training.bank import Bank, TrainingConfig

torch.set_num_threads(1)
store = open_store(sys.argv[1])
model = ModelConfig("fc", (24, 20), latent_size=4, beta=4.0)
training = TrainingConfig("adam", 1e-3, batch_size=1024, steps=100)

def starve(megabytes):
    # Leaves so much to allocate, in one piece; all else that earlier steps have freed is taken.
    left, taken = torch.empty(megabytes * 2**18), []
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))
    try:
        while True:
            taken.append(torch.empty(2**16))
    except RuntimeError:
        return taken

class Batches:
    def __init__(self, plan, starve_at):
        self.plan, self.starve_at, self.taken = plan, starve_at, None

    def batch(self, step, seeds):
        if step == self.starve_at and self.taken is None:
            self.taken = starve(200)
        return self.plan.batch(step, seeds)

turns = Bank(model, training, store, [1, 2, 3, 4], together=1)
expected = turns.train(3)
bank = Bank(model, training, store, [1, 2, 3, 4], together=4)
bank._batches = Batches(bank._batches, int(sys.argv[2]))
report = bank.train(3)
print(report.notice)
assert report.step == 3 and all(bank.finite)
assert max(abs(ours / theirs - 1) for ours, theirs in zip(report.loss, expected.loss)) < 1e-4
for name, values in turns.weights().items():
    assert (bank.weights()[name] - values).abs().max() < 1e-5
assert "in turns of" in bank.train(4).notice

huge = Bank(model, TrainingConfig("adam", 1e-3, batch_size=100_000, steps=100), store, [1])
try:
    huge.train(1)
except RunError as error:
    print(error)
"""


@pytest.mark.parametrize("starve_at", [0, 1])  # the first step, and one with others behind it
@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited as on Linux")
def test_out_of_memory_trains_in_turns_with_the_same_numbers(store: ImageStore, tmp_path: Path, starve_at: int) -> None:
    script = tmp_path / "starve.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, store.path, str(starve_at)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    notice, error = done.stdout.splitlines()
    assert "out of memory with 4 replicas of the bank at once: trained in turns of" in notice
    assert (
        "with one replica at a time and training.batch_size 100,000; lower training.batch_size, model.widths" in error
    )
