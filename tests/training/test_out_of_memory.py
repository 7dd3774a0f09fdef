from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bvae_tune.data.image_store import ImageStore

# Trains a bank twice, the second time with little more address space than it has: all replicas at once do not fit.
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

def limit(megabytes):
    pages = int(open("/proc/self/statm").read().split()[0])
    space = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (space, resource.RLIM_INFINITY))

turns = Bank(model, training, store, [1, 2, 3, 4], together=1)
turns.train(3)
bank = Bank(model, training, store, [1, 2, 3, 4], together=4)
limit(80)
report = bank.train(3)
print(report.notice)
assert report.step == 3 and all(bank.finite)
for name, values in turns.weights().items():
    assert (bank.weights()[name] - values).abs().max() < 1e-5
assert "in turns of" in bank.train(4).notice

huge = Bank(model, TrainingConfig("adam", 1e-3, batch_size=100_000, steps=100), store, [1])
try:
    huge.train(1)
except RunError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited as on Linux")
def test_out_of_memory_trains_in_turns_with_the_same_numbers(store: ImageStore, tmp_path: Path) -> None:
    script = tmp_path / "starve.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script, store.path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    notice, error = done.stdout.splitlines()
    assert "out of memory with 4 replicas of the bank at once: trained in turns of" in notice
    assert "with one replica at a time; lower training.batch_size, model.widths" in error
