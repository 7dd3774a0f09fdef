"""Models meet metrics: real networks, real images. Seeds: images 0, networks 0 to 2, metric 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.labels import LabelsConfig, WeakLabels, draw_labels
from bvae_tune.data.shapes import SPACE, render
from bvae_tune.data.sources import import_arrays
from bvae_tune.errors import InputError
from bvae_tune.evaluation import encode_labelled, score
from bvae_tune.metrics.config import MetricConfig, ProtocolConfig
from bvae_tune.models.networks import Codes, ModelConfig, TrainedModel, build_network, initial_parameters

NAMES = ("position_x", "position_y", "scale", "rotation")
METRIC = MetricConfig(train_points=2_000, test_points=1_000)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    factors = SPACE.factors(np.random.default_rng(0).permutation(SPACE.count)[:3_000])
    path = tmp_path_factory.mktemp("evaluation") / "images.arrow"
    return import_arrays(render(factors), factors=factors, factor_names=SPACE.names, path=path)


@pytest.fixture(scope="module")
def labels(store: ImageStore) -> WeakLabels:
    return draw_labels(store, LabelsConfig(count=2_000, factors=NAMES))


@pytest.fixture(scope="module")
def encoder(store: ImageStore) -> TrainedModel:
    model = ModelConfig(widths=(64, 64), latent_size=6)
    network = build_network(model, store.channels, store.height, store.width)
    return TrainedModel(model, network, initial_parameters(network, seeds=(0, 1, 2)))


class Pixels:
    """The first pixel of each row: an encoder without variances."""

    def encode(self, images: Tensor) -> Codes:
        return Codes(images[..., ::64], None)


def test_codes_are_those_of_each_image_alone(store: ImageStore, labels: WeakLabels, encoder: TrainedModel) -> None:
    codes = encode_labelled(encoder, store, labels, batch=300)
    assert codes.mean.shape == (3, 2_000, 6)
    assert codes.logvar is not None
    for row in (0, 299, 300, 1_999):
        alone = encoder.encode(store.gather(labels.indices[row])[None, None])
        assert alone.logvar is not None
        torch.testing.assert_close(codes.mean[:, row], alone.mean[:, 0])
        torch.testing.assert_close(codes.logvar[:, row], alone.logvar[:, 0])


def test_the_batch_does_not_change_the_score(store: ImageStore, labels: WeakLabels, encoder: TrainedModel) -> None:
    whole, parts = (
        score(encode_labelled(encoder, store, labels, batch), labels, METRIC, ProtocolConfig(), 0)
        for batch in (2_000, 256)
    )
    assert whole.score == pytest.approx(parts.score, abs=0.003)
    assert whole.information == pytest.approx(parts.information, abs=0.003)


def test_untrained_networks_score_little_above_chance(
    store: ImageStore, labels: WeakLabels, encoder: TrainedModel
) -> None:
    trial = score(encode_labelled(encoder, store, labels), labels, MetricConfig(), ProtocolConfig(), 0)
    assert trial.chance == 0.25
    assert 0.25 < trial.score < 0.45
    assert len(trial.replica_scores) == 3
    assert "rotation" in trial.missing
    assert trial.agreement is not None


def test_encoders_without_variances_are_scored_too(store: ImageStore, labels: WeakLabels) -> None:
    codes = encode_labelled(Pixels(), store, labels)
    assert codes.logvar is None
    assert codes.mean.shape == (1, 2_000, 64)
    assert score(codes, labels, METRIC, ProtocolConfig(), 0).information["position_y"] >= 0


def test_the_public_score_takes_plain_arrays(store: ImageStore, labels: WeakLabels, encoder: TrainedModel) -> None:
    import bvae_tune

    codes = encode_labelled(encoder, store, labels)
    expected = score(codes, labels, METRIC, ProtocolConfig(), 0)
    public = bvae_tune.score(codes.mean.numpy(), labels.factors, names=labels.names, metric=METRIC)
    assert public.seed_scores == expected.seed_scores
    # Plain codes bring no variances, so no latent counts as switched off.
    assert public.information == score(Codes(codes.mean, None), labels, METRIC, ProtocolConfig(), 0).information
    one = bvae_tune.score(codes.mean[0].numpy(), labels.factors, metric=METRIC)
    assert one.seed_scores[0] == expected.seed_scores[0]
    assert set(one.information) == {"factor 0", "factor 1", "factor 2", "factor 3"}


def test_a_diverged_network_is_an_error_and_not_a_score(
    store: ImageStore, labels: WeakLabels, encoder: TrainedModel
) -> None:
    broken = {name: torch.full_like(values, torch.nan) for name, values in encoder.parameters.items()}
    codes = encode_labelled(TrainedModel(encoder.model, encoder.network, broken), store, labels)
    with pytest.raises(InputError, match="not finite"):
        score(codes, labels, METRIC, ProtocolConfig(), 0)
