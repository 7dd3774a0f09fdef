"""The one checkpoint path: a trial's state and result as one file in the study's folder, whole or not there.

Start, reuse, retry and resume all load here. While a trial runs its two latest checkpoints stay, so that one which was
cut short leaves another; the final file holds the weights only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyarrow import fs

from bvae_tune.search.records import TrialResult
from bvae_tune.search.storage import WEIGHTS
from bvae_tune.training.checkpoint import CheckpointError, from_bytes, to_bytes
from bvae_tune.training.state import parameters_of

if TYPE_CHECKING:
    from torch import Tensor

_SUFFIX, _DRAFT = ".safetensors", ".draft"
KEPT_WHILE_RUNNING = 2


@dataclass(frozen=True)
class Checkpoint:
    """What one file holds: `state` for going on, or weights only if `final`."""

    state: dict[str, Tensor]
    result: TrialResult
    final: bool

    @property
    def weights(self) -> dict[str, Tensor]:
        """Parameters of the R replicas, name -> (R, ...) float32."""
        return self.state if self.final else parameters_of(self.state)


@dataclass(frozen=True)
class Latest:
    """The newest whole checkpoint of a trial, if there is one, and the names of newer ones that are damaged."""

    checkpoint: Checkpoint | None
    damaged: tuple[str, ...]


class CheckpointFolder:
    """A trial's checkpoints, reached through pyarrow so that the study may lie where all nodes see it.

    Args:
        study: the study's folder, an absolute path or a URI that pyarrow knows.
        folder: the trial's, relative to it.
    """

    def __init__(self, study: str, folder: str) -> None:
        self._fs, root = fs.FileSystem.from_uri(study)
        self._path = f"{root.rstrip('/')}/{folder}"

    def save(self, state: Mapping[str, Tensor], result: TrialResult, final: bool) -> None:
        """Write atomically, then drop what is no longer needed, drafts that a killed worker left among it."""
        metadata = {"result": json.dumps(result.to_dict()), "final": json.dumps(final)}
        name = WEIGHTS if final else f"step-{result.step:010d}{_SUFFIX}"
        self._fs.create_dir(self._path, recursive=True)
        draft = f"{self._path}/{name}.{os.getpid()}{_DRAFT}"
        try:
            with self._fs.open_output_stream(draft) as stream:
                stream.write(to_bytes(state, metadata))
            self._fs.move(draft, f"{self._path}/{name}")
        except OSError:
            with suppress(OSError):
                self._fs.delete_file(draft)
            raise
        steps = self._steps()
        drafts = [other for other in self._names() if other.endswith(_DRAFT)]
        self.drop([*(steps if final else steps[:-KEPT_WHILE_RUNNING]), *drafts])

    def latest(self) -> Latest:
        """The newest whole checkpoint: the final one, else the one of most steps; damaged ones are passed over."""
        damaged: list[str] = []
        for name in (WEIGHTS, *reversed(self._steps())):
            try:
                return Latest(self.read(name), tuple(damaged))
            except FileNotFoundError:
                continue
            except CheckpointError:
                damaged.append(name)
        return Latest(None, tuple(damaged))

    def read(self, name: str) -> Checkpoint:
        """Raises FileNotFoundError, or CheckpointError where the file is damaged."""
        path = f"{self._path}/{name}"
        with self._fs.open_input_stream(path) as stream:
            state, metadata = from_bytes(stream.read(), path)
        try:
            result = TrialResult.from_dict(json.loads(metadata["result"]))
            return Checkpoint(state, result, json.loads(metadata["final"]))
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} holds no result ({error})") from error

    def drop(self, names: Sequence[str]) -> None:
        """Delete these files."""
        for name in names:
            # A worker that a killed driver left behind may be faster.
            with suppress(FileNotFoundError):
                self._fs.delete_file(f"{self._path}/{name}")

    def _steps(self) -> list[str]:
        """Names of the running trial's checkpoints, by step."""
        return [name for name in self._names() if name.startswith("step-") and name.endswith(_SUFFIX)]

    def _names(self) -> list[str]:
        selector = fs.FileSelector(self._path, allow_not_found=True)
        return sorted(info.base_name for info in self._fs.get_file_info(selector))
