"""Do replicas find the same latents? UDR (Duan et al. 2020), in its Spearman form: needs codes, no labels.

Entangled codes may be mixed in any way, disentangled ones only permuted and mirrored: replicas that agree up to that
have probably disentangled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Latents whose mean KL from the prior is lower, in nats, carry nothing and are left out (Duan et al. 2020).
INFORMATIVE_KL = 0.01


def informative_latents(mean: NDArray[np.floating], logvar: NDArray[np.floating] | None = None) -> NDArray[np.bool_]:
    """Which latents (R, M) carry something: mean KL from the prior above INFORMATIVE_KL, or not constant (no logvar).

    Args:
        mean, logvar: (R, n, M) float, of the encoder's Gaussians.
    """
    if logvar is None:
        varies: NDArray[np.bool_] = np.ptp(mean, axis=1) > 0
        return varies
    kl = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).mean(axis=1, dtype=np.float64)
    informative: NDArray[np.bool_] = kl > INFORMATIVE_KL
    return informative


def agreement(mean: NDArray[np.floating], logvar: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
    """UDR of each replica, (R,) in [0, 1]: the median over the others of how well the two agree.

    With C the absolute Spearman correlations of two replicas' informative latents, a pair's agreement is the mean over
    all latents of both of `max(C)**2 / sum(C)`, maximum and sum over the other's latents: 1 where each has one partner
    and no other relation. A pair in which a replica has no informative latent agrees in nothing: 0.

    Args:
        mean, logvar: (R, n, M) float, R at least 2.
    """
    from scipy.stats import rankdata  # slow to import, and only several replicas need it

    replicas = len(mean)
    informative = informative_latents(mean, logvar)
    codes = []
    for r in range(replicas):
        rank = rankdata(mean[r][:, informative[r]], axis=0)
        rank -= rank.mean(axis=0)
        length = np.sqrt((rank**2).sum(axis=0))
        codes.append(rank / np.where(length > 0, length, 1))
    pairs = np.zeros((replicas, replicas))
    for i in range(replicas):
        for j in range(i):
            pairs[i, j] = pairs[j, i] = _relative_strength(np.abs(codes[i].T @ codes[j]))
    others = ~np.eye(replicas, dtype=bool)
    return np.array([np.median(pairs[r][others[r]]) for r in range(replicas)])


def _relative_strength(correlation: NDArray[np.float64]) -> float:
    if not correlation.size:
        return 0.0
    parts = []
    for axis in (0, 1):
        total = correlation.sum(axis=axis)
        parts.append(correlation.max(axis=axis) ** 2 / np.where(total > 0, total, 1))
    return float(np.concatenate(parts).mean())
