"""A step asks nothing of the host: shown on PyTorch's `meta` device, where a value that the host wants is an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bvae_tune.data.image_store import ImageStore
from bvae_tune.models.config import ModelConfig
from bvae_tune.training.bank import Bank, TrainingConfig
from bvae_tune.training.batches import BLOCK_STEPS


class Devices(TorchDispatchMode):
    """Notes every operation that touches a tensor elsewhere than on the device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.operations = device, 0
        self.elsewhere: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.operations += 1
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type != self.device for tensor in tensors):
            self.elsewhere.append(str(function))
        return result


@pytest.fixture(autouse=True)
def fused_adagrad() -> Iterator[None]:
    """PyTorch's fused Adagrad does not know the meta device; it changes its arguments in place and returns nothing."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_fused_adagrad_", lambda *args, **kwargs: None, "Meta")
    yield
    library._destroy()


def bank_on_meta(
    store: ImageStore, architecture: str, widths: tuple[int, ...], precision: str = "float32", optimizer: str = "adam"
) -> Bank:
    model = ModelConfig(architecture, widths, latent_size=4, beta=4.0)  # type: ignore[arg-type]
    training = TrainingConfig(optimizer, 1e-3, batch_size=8, steps=60, precision=precision)  # type: ignore[arg-type]
    return Bank(model, training, store, [0, 1, 2], device="meta")


def take_steps(bank: Bank, first: int, count: int) -> None:
    bank._at_once(slice(0, 3), first, first + count)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("architecture", "widths", "optimizer"),
    [("fc", (24, 20), "adagrad"), ("fc", (24, 20), "adam"), ("conv", (4, 5, 6, 10, 16), "adam")],
)
def test_a_step_stays_on_its_device(
    store: ImageStore, architecture: str, widths: tuple[int, ...], optimizer: str, precision: str
) -> None:
    bank = bank_on_meta(store, architecture, widths, precision, optimizer)
    take_steps(bank, 0, 1)
    with Devices("meta") as seen:
        take_steps(bank, 1, BLOCK_STEPS - 1)
    assert seen.operations > 30 * (BLOCK_STEPS - 1)
    assert seen.elsewhere == []


def test_random_numbers_come_by_the_block(store: ImageStore) -> None:
    bank = bank_on_meta(store, "fc", (24, 20))
    take_steps(bank, 0, BLOCK_STEPS)
    with Devices("meta") as seen:
        take_steps(bank, BLOCK_STEPS, 1)
    assert sum("_to_copy" in operation for operation in seen.elsewhere) == 2  # indices of images, noise


def test_a_report_asks_the_host(store: ImageStore) -> None:
    """So that the tests above would notice a step that does."""
    with pytest.raises(NotImplementedError, match="meta"):
        bank_on_meta(store, "fc", (24, 20)).train(1)
