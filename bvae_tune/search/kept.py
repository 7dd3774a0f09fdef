"""What can be asked of the weights that a study keeps: other scores, and what each latent does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.labels import LabelsConfig, WeakLabels
from bvae_tune.data.sources import load_labels, open_dataset
from bvae_tune.errors import InputError
from bvae_tune.evaluation import encode_labelled, score
from bvae_tune.inspection import Activations, kl_per_latent, mean_activations, traversals
from bvae_tune.metrics.mutual_information import information
from bvae_tune.metrics.protocol import MISSING_INFORMATION, TrialScore
from bvae_tune.models.codes import Codes, Trained
from bvae_tune.models.networks import load_model
from bvae_tune.models.stack import some_of
from bvae_tune.randomness import generator
from bvae_tune.search.checkpoints import Checkpoint
from bvae_tune.search.folder import trial_folder
from bvae_tune.search.task import check_fingerprints
from bvae_tune.space import load_space
from bvae_tune.wording import percent

if TYPE_CHECKING:
    from bvae_tune.search.study import Study, TrialRecord

_RESCORABLE = ("metric.", "protocol.classifier_seeds", "protocol.keep", "labels.")


@dataclass(frozen=True)
class Evaluation:
    """A trial's weights, scored again.

    Attributes:
        step: training steps behind them.
        final: whether the trial had ended there.
        collapsed: whether every latent is switched off (see `TrialResult.collapsed`).
        score: of its replicas.
    """

    step: int
    final: bool
    collapsed: bool
    score: TrialScore

    def to_dict(self) -> dict[str, Any]:
        """Plain data, flat, safe for JSON."""
        return {"step": self.step, "final": self.final, "collapsed": self.collapsed, **self.score.to_dict()}


@dataclass(frozen=True)
class Traversal:
    """One image's code with each latent in turn set to other values.

    Attributes:
        step, final: as of an `Evaluation`.
        replica: which of the trial's models it is, the one of the highest score.
        image: index of the image in its dataset.
        pixels: (C, H, W) float32 in [0, 1], the image.
        reconstruction: (C, H, W), from its undisturbed code.
        decoded: (M, steps, C, H, W), row m with latent m set to each of `values`.
        kl: (M,) nats per image, mean over the labelled images; None for codes without a variance.
        values: (steps,).
        meanings: (M,) the factor that a latent knows most of, as "scale 61%"; empty if it knows of none.
    """

    step: int
    final: bool
    replica: int
    image: int
    pixels: npt.NDArray[np.float32]
    reconstruction: npt.NDArray[np.float32]
    decoded: npt.NDArray[np.float32]
    kl: tuple[float, ...] | None
    values: tuple[float, ...]
    meanings: tuple[str, ...]


def evaluate(study: Study, record: TrialRecord, settings: Sequence[str] = (), file: str | None = None) -> Evaluation:
    """Score a trial's kept weights again, on the study's images.

    Args:
        study: theirs.
        record: the trial.
        settings: `key=value` for keys of metric and labels, `protocol.classifier_seeds` and `protocol.keep`.
        file: of the trial's weights, if not the newest (see `Study.checkpoint`).

    Raises:
        InputError: the weights are not kept, images or labels have changed, a setting is wrong or is none of
            evaluation.
    """
    for setting in settings:
        if not setting.strip().startswith(_RESCORABLE):
            raise InputError(
                f"--set {setting}: only keys of evaluation can change here "
                "(metric.*, labels.*, protocol.classifier_seeds, protocol.keep); training is done"
            )
    config = load_space(study.config, settings)
    store, labels = _open(study, config.labels)
    checkpoint = study.checkpoint(record, file)
    codes = encode_labelled(_load(study, record, store, checkpoint), store, labels)
    again = score(codes, labels, config.metric, config.protocol, config.search.seed)
    result = checkpoint.result
    return Evaluation(result.step, checkpoint.final, result.collapsed, again)


def traverse(
    study: Study,
    record: TrialRecord,
    image: int | None = None,
    limit: float | None = None,
    steps: int = 9,
    *,
    image_seed: int | None = None,
    file: str | None = None,
) -> Traversal:
    """Latent traversals of a trial's best replica (Figs. 1 to 3 and 6: from -3 to 3; InfoGAN's codes from -1 to 1).

    Args:
        study: theirs.
        record: the trial.
        image: whose code is traversed; the first labelled one if not given.
        limit: each latent goes from -limit to limit; the model's own (`ModelConfig.traversal_limit`) if not given.
        steps: so many values.
        image_seed: draws the image from the whole dataset, in place of `image`.
        file: of the trial's weights, if not the newest (see `Study.checkpoint`).

    Raises:
        InputError: the weights are not kept, images or labels have changed, or there is no such image.
    """
    checkpoint = study.checkpoint(record, file)
    scored = checkpoint.result.score
    replica = scored.best_replica
    store, labels = _open(study, study.config.labels)
    if image_seed is not None:
        image = int(generator(image_seed, "traversed image").integers(store.count))
    chosen = int(labels.indices[0]) if image is None else image
    check_image(store, chosen)
    model = _load(study, record, store, checkpoint, replica)
    if limit is None:
        limit = study.configuration(record)[0].traversal_limit
    known = encode_labelled(model, store, labels)
    pixels = store.gather(np.array([chosen]))
    code = model.encode(pixels[None]).mean  # (1, 1, M)
    shape = (store.channels, store.height, store.width)
    decoded = traversals(model, code, range(code.shape[-1]), limit, steps)[0, 0]
    return Traversal(
        step=checkpoint.result.step,
        final=checkpoint.final,
        replica=replica,
        image=chosen,
        pixels=pixels[0].reshape(shape).numpy(),
        reconstruction=model.decode(code)[0, 0].reshape(shape).numpy(),
        decoded=decoded.reshape(-1, steps, *shape),
        kl=None if known.logvar is None else tuple(kl_per_latent(known)[0].tolist()),
        values=tuple(np.linspace(-limit, limit, steps).tolist()),
        meanings=_meanings(known, labels, tuple(scored.information)),
    )


def check_image(store: ImageStore, image: int) -> None:
    """Raises InputError where there is no such image."""
    if not 0 <= image < store.count:
        raise InputError(f"--image {image}: {store.name} has the images 0 to {store.count - 1}")


def reconstruct(
    study: Study, record: TrialRecord, replica: int, count: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The first `count` labelled images and what a replica of a trial makes of them.

    Returns:
        images and their reconstructions from the means of their codes, each (count, C, H, W) float32 in [0, 1].

    Raises:
        InputError: the weights are not kept, or images or labels have changed.
    """
    store, labels = _open(study, study.config.labels)
    model = _load(study, record, store, study.checkpoint(record), replica)
    pixels = store.gather(labels.indices[:count])
    decoded = model.decode(model.encode(pixels[None]).mean)[0]
    shape = (-1, store.channels, store.height, store.width)
    return pixels.view(shape).numpy(), decoded.view(shape).numpy(force=True)


def activations(
    study: Study, record: TrialRecord, groups: Sequence[tuple[str, ...]], count: int | None = None
) -> Activations:
    """What each latent of a trial's best replica answers to (see `bvae_tune.inspection.mean_activations`).

    Args:
        study: theirs.
        record: the trial.
        groups: of factor names.
        count: so many images, drawn without replacement with the study's seed; None for all.

    Raises:
        InputError: the weights are not kept, images or labels have changed, or the images are not the complete grid of
            these factors.
    """
    store, _ = _open(study, study.config.labels)
    images = np.arange(store.count)
    if count is not None:
        images = generator(study.config.search.seed, "activations").permutation(store.count)[:count]
    checkpoint = study.checkpoint(record)
    model = _load(study, record, store, checkpoint, checkpoint.result.score.best_replica)
    return mean_activations(model, store, groups, images)


def _meanings(codes: Codes, labels: WeakLabels, usable: tuple[str, ...]) -> tuple[str, ...]:
    """What each latent of one replica knows most of, among the usable factors; a switched-off one knows nothing."""
    factors = labels.factors[:, [labels.names.index(name) for name in usable]]
    mean = codes.mean.numpy()
    logvar = None if codes.logvar is None else codes.logvar.numpy()
    found = []
    for latent in range(mean.shape[2]):
        alone = np.s_[:, :, latent : latent + 1]
        shares = information(mean[alone], factors, None if logvar is None else logvar[alone]).factors[0]
        best = int(shares.argmax())
        known = shares[best] >= MISSING_INFORMATION
        found.append(f"{usable[best].replace('_', ' ')} {percent(float(shares[best]))}" if known else "")
    return tuple(found)


def _open(study: Study, config: LabelsConfig) -> tuple[ImageStore, WeakLabels]:
    """The study's images, and these labels of them; both as they were, unless other labels are asked for."""
    store = open_dataset(study.config.dataset)
    labels = load_labels(config, store)
    wanted = study.facts["labels"] if config == study.config.labels else labels.fingerprint
    check_fingerprints(store, labels, (study.facts["images"], wanted))
    return store, labels


def _load(
    study: Study, record: TrialRecord, store: ImageStore, checkpoint: Checkpoint, replica: int | None = None
) -> Trained:
    """All replicas of a trial, or one."""
    model, _ = study.configuration(record)
    kept = slice(None) if replica is None else slice(replica, replica + 1)
    try:
        return load_model(some_of(checkpoint.weights, kept), model, store.channels, store.height, store.width)
    except InputError as error:
        raise InputError(
            f"{study.path / trial_folder(record.kind, record.number)}: not the weights of {record.label}, which is "
            f"{model.network} with {model.latent_size} latents: {error}"
        ) from None
