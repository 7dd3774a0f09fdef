"""What training asks of the memory allocator."""

from __future__ import annotations

import ctypes
import re
import sys
from functools import cache

import torch

from bvae_tune.wording import size

OUT_OF_MEMORY_ADVICE = (
    "lower training.batch_size, model.widths or resources.trials_per_bank, or run fewer trials at once"
)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@cache
def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, for the next step to use again.

    By default glibc gives large blocks back to the system at once and every step faults them in anew: a third of the
    time of `fc` 1200. Elsewhere than on Linux with glibc this does nothing.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30) or libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # older glibc's most
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: numpy's, the device's, or one of a library without an error class of its own."""
    without_class = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")
    named = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return named or any(words in str(error) for words in without_class)


def out_of_memory_in_words(error: BaseException) -> str:
    """How much was asked for, where the allocator says so in bytes, or its own words; and what to lower."""
    asked = re.search(r"tried to allocate (\d+) bytes", str(error))
    told = f"{size(int(asked[1]))} asked for at once" if asked else error
    return f"out of memory ({told}); {OUT_OF_MEMORY_ADVICE}"
