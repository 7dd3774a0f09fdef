"""The search room. It is callable, since it shares its name with what it does: `bvae_tune.search("shapes")`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bvae_tune.search.study import Study
    from bvae_tune.space import StudyConfig


class _Room(ModuleType):
    def __call__(
        self,
        space: str | Path | Mapping[str, Any] | StudyConfig,
        overrides: Sequence[str] = (),
        **options: Any,
    ) -> Study:
        """Run a study; see `bvae_tune.search.runner.search`."""
        from bvae_tune.search.runner import search

        return search(space, overrides, **options)


sys.modules[__name__].__class__ = _Room
