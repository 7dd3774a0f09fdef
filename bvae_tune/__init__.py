"""bvae-tune: finds the β and the latent size M with which a β-VAE disentangles your images.

    import bvae_tune

    study = bvae_tune.search("shapes", overrides=["search.trials=4"])
    print(study.best)
    study = bvae_tune.load("runs/NAME")
    bvae_tune.score(codes, factors)

Importing the package imports neither torch nor ray; each function imports what it needs when it is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from bvae_tune.metrics.config import MetricConfig, ProtocolConfig
    from bvae_tune.metrics.protocol import TrialScore
    from bvae_tune.search.runner import search as search
    from bvae_tune.search.study import Study

__all__ = ["load", "score", "search"]
__version__ = "0.1.0"


def load(path: str | Path) -> Study:
    """Open a study's folder for reading. Raises InputError where there is none, or one of a newer format."""
    from bvae_tune.search.study import Study

    return Study.open(path)


def score(
    codes: np.ndarray,
    factors: np.ndarray,
    names: Sequence[str] | None = None,
    metric: MetricConfig | None = None,
    protocol: ProtocolConfig | None = None,
    seed: int = 0,
) -> TrialScore:
    """The disentanglement score (Sec. 3, Eq. 5) of codes from anywhere.

    Args:
        codes: (n, M), or (R, n, M) from R replicas; float means of the latents.
        factors: (n, K) int, -1 where unknown.
        names: of the K factors; `factor 0`, ... where not given.
        metric: pairs, points and classifier; the defaults of MetricConfig where not given.
        protocol: classifier seeds and the share kept (A.4); the defaults of ProtocolConfig where not given.
        seed: the pairs are drawn from it.

    Raises:
        InputError: shapes that do not fit, or fewer than two usable factors.
    """
    import numpy as np

    from bvae_tune.metrics.config import MetricConfig, ProtocolConfig
    from bvae_tune.metrics.protocol import score_codes

    means, values = np.asarray(codes), np.asarray(factors)
    means = means[None] if means.ndim == 2 else means
    labels = tuple(names) if names is not None else tuple(f"factor {k}" for k in range(values.shape[-1]))
    return score_codes(means, values, labels, metric or MetricConfig(), protocol or ProtocolConfig(), seed)


def __getattr__(name: str) -> Any:
    # bvae_tune.search is the room of that name, which is callable: see its __init__.
    if name == "search":
        return importlib.import_module("bvae_tune.search")
    raise AttributeError(f"module 'bvae_tune' has no attribute {name!r}")
