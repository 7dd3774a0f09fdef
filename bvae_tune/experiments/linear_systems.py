"""The systems of Fig. 5 left without training steps: true factors, raw pixels, principal and independent components.

They are fitted by the process that asks for them, a row at a time, and kept beside a study's record in `linear.json`.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.labels import WeakLabels
from bvae_tune.data.sources import load_labels, open_dataset
from bvae_tune.experiments import Scale
from bvae_tune.experiments.reproduction import check_shapes
from bvae_tune.metrics.protocol import TrialScore, score_codes
from bvae_tune.randomness import derive_seed, generator
from bvae_tune.search import folder
from bvae_tune.search.study import Study
from bvae_tune.wording import percent

if TYPE_CHECKING:
    from torch import Tensor

    from bvae_tune.models.linear import IndependentComponents, PrincipalComponents

TRUTH, RAW, PCA, PCA_STANDARDISED = "ground truth", "raw pixels", "PCA", "PCA, standardised pixels"
ICA, ICA_PAIRS = "ICA", "ICA, pairs of shapes"
EXPLAINED: Final = 0.608  # of the variance, by the paper's ten principal components (A.4)
COMPONENTS: Final = 10
LENGTHS: Final = (4, 16, 64)  # L at which the table shows scores
_FILE: Final = "linear.json"
_BATCH: Final = 4096


# Images that components are fitted to, drawn with the study's seed; None for all.
IMAGES: Final = {Scale.SMOKE: 3_000, Scale.CPU: None, Scale.HOURS: None, Scale.PAPER: None}


def linear_scores(study: Study, images: int | None, told: Callable[[str], None]) -> dict[str, tuple[TrialScore, str]]:
    """Score and remark of each system by its label, on the study's labels and by its metric and protocol.

    Args:
        study: in whose folder they are kept; rows that are there already are only read.
        images: so many are what components are fitted to, of rows that are not there yet; None for all.
        told: called with what is being done.

    Raises:
        InputError: the images are no grid of three shapes.
    """
    path = study.path / _FILE
    found = _read_kept(path, told)
    for label, score, note in _fit_linear(study, images, set(found), told):
        found[label] = (score, note)
        rows = {label: {"score": score.to_dict(), "note": note} for label, (score, note) in found.items()}
        folder.write_atomically(path, json.dumps(rows, indent=1).encode())
    return found


def _read_kept(path: Path, told: Callable[[str], None]) -> dict[str, tuple[TrialScore, str]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {label: (TrialScore.from_dict(row["score"]), row["note"]) for label, row in rows.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told(f"{path}: damaged ({error}); its systems are scored anew")
        return {}


def _fit_linear(
    study: Study, images: int | None, done: set[str], told: Callable[[str], None]
) -> Iterator[tuple[str, TrialScore, str]]:
    from bvae_tune.evaluation import encode_labelled  # torch
    from bvae_tune.models.linear import RawPixels, pixel_moments, principal_components

    config = study.config
    store = open_dataset(config.dataset)
    labels = load_labels(config.labels, store)
    check_shapes(store)
    shapes = store.columns[store.factor_names.index("shape")].astype(np.int64)

    def score(mean: npt.NDArray[Any], labelled: WeakLabels = labels) -> TrialScore:
        return score_codes(mean, labelled.factors, labelled.names, config.metric, config.protocol, config.search.seed)

    if TRUTH not in done:
        told("scoring the true factors")
        varying = [store.factor_names.index(name) for name in store.varying_factors]  # dSprites has one colour
        factors = store.factors(labels.indices)[:, varying].astype(np.float64)
        yield TRUTH, score(((factors - factors.mean(0)) / factors.std(0))[None]), ", ".join(store.varying_factors)
    if RAW not in done:
        told("scoring raw pixels")
        pixels = encode_labelled(RawPixels(), store, labels).mean.numpy()
        yield RAW, score(pixels), f"{store.dimensions:,} values"
    if {PCA, PCA_STANDARDISED, ICA, ICA_PAIRS} <= done:
        return
    chosen = _chosen(store, images, config.search.seed)
    parts = []
    for value in range(len(np.unique(shapes))):
        told(f"covariance of the images of shape {value + 1}")
        parts.append(pixel_moments(_batches(store, chosen[shapes[chosen] == value])))
    whole = sum(parts[1:], parts[0])
    fitted = {
        PCA: principal_components(whole, COMPONENTS, unit_variance=True),
        PCA_STANDARDISED: principal_components(whole, COMPONENTS, standardise=True, unit_variance=True),
    }
    nearest = min(fitted, key=lambda label: abs(fitted[label].explained - EXPLAINED))
    for label, components in fitted.items():
        if label not in done:
            which = "the nearer to" if label == nearest else "the farther from"
            note = f"{percent(components.explained)} of the variance, {which} the paper's {percent(EXPLAINED)}; "
            note += f"{len(chosen):,} images"
            yield label, score(encode_labelled(components, store, labels).mean.numpy()), note
    seeds = [derive_seed(config.search.seed, "ICA", replica) for replica in range(config.protocol.replicas)]
    if ICA not in done:
        models = _ica(fitted[nearest], store, chosen, seeds, told)
        codes = np.concatenate([encode_labelled(model, store, labels).mean.numpy() for model in models])
        yield ICA, score(codes), f"of {nearest}; {len(chosen):,} images; {_converged(models)}"
    if ICA_PAIRS not in done:
        scores, models = [], []
        for one, other in ((0, 1), (0, 2), (1, 2)):
            pair = principal_components(
                parts[one] + parts[other], COMPONENTS, standardise=nearest == PCA_STANDARDISED, unit_variance=True
            )
            members = np.isin(shapes, (one, other))
            (model,) = _ica(pair, store, chosen[members[chosen]], seeds[:1], told)
            models.append(model)
            mine = members[labels.indices]
            labelled = WeakLabels(labels.names, labels.indices[mine], labels.factors[mine])
            scores.append(score(encode_labelled(model, store, labelled).mean.numpy(), labelled))
        yield ICA_PAIRS, _averaged(scores), f"three models, averaged (A.3); {_converged(models)}"


def _chosen(store: ImageStore, images: int | None, seed: int) -> npt.NDArray[np.int64]:
    if images is None:
        return np.arange(store.count)
    return np.sort(generator(seed, "components").permutation(store.count)[:images])


def _batches(store: ImageStore, images: npt.NDArray[np.int64]) -> Iterator[Tensor]:
    return (store.gather(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH))


def _ica(
    components: PrincipalComponents,
    store: ImageStore,
    images: npt.NDArray[np.int64],
    seeds: Sequence[int],
    told: Callable[[str], None],
) -> list[IndependentComponents]:
    import torch

    from bvae_tune.models.linear import independent_components

    told(f"ICA of {len(images):,} images")
    codes = torch.cat([components.encode(batch[None]).mean[0] for batch in _batches(store, images)])
    # scikit-learn takes seeds of 32 bits.
    return [independent_components(components, codes, seed % 2**32) for seed in seeds]


def _converged(models: Sequence[IndependentComponents]) -> str:
    return f"{sum(model.converged for model in models)} of {len(models)} converged"


def _averaged(scores: Sequence[TrialScore]) -> TrialScore:
    """The mean of several models' scores, each on images of its own; the spread is over the models."""
    mean = statistics.fmean
    # With few labels a factor may be usable among the images of some models only.
    names = [name for name in scores[0].information if all(name in each.information for each in scores)]
    return dataclasses.replace(
        scores[0],
        score=mean(each.score for each in scores),
        spread=statistics.stdev(each.score for each in scores),
        replica_scores=tuple(each.score for each in scores),
        seed_scores=tuple(each.seed_scores[0] for each in scores),
        profile={pairs: mean(each.profile[pairs] for each in scores) for pairs in scores[0].profile},
        mig=mean(each.mig for each in scores),
        information={name: mean(each.information[name] for each in scores) for name in names},
        missing=tuple(name for name in names if all(name in each.missing for each in scores)),
        converged=all(each.converged for each in scores),
    )
