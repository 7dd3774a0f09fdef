"""The grid of factors, and labels drawn from a store. Seeds: 0 and 1, and hypothesis's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bvae_tune.data import FactorSpace, ImageStore, LabelsConfig, WeakLabels, draw_labels, load_labels
from bvae_tune.data.shapes import SPACE
from bvae_tune.errors import InputError

sizes = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def space_of(sizes: list[int]) -> FactorSpace:
    return FactorSpace(tuple(f"f{k}" for k in range(len(sizes))), tuple(tuple(map(float, range(s))) for s in sizes))


@settings(deadline=None)
@given(sizes=sizes, data=st.data())
def test_points_and_factors_go_round(sizes: list[int], data: st.DataObject) -> None:
    space = space_of(sizes)
    points = np.array(data.draw(st.lists(st.integers(0, space.count - 1), min_size=1, max_size=20)))
    factors = space.factors(points)
    assert factors.dtype == np.int64
    assert ((factors >= 0) & (factors < sizes)).all()
    np.testing.assert_array_equal(space.indices(factors), points)


@settings(deadline=None)
@given(sizes=sizes)
def test_last_factor_is_fastest(sizes: list[int]) -> None:
    space = space_of(sizes)
    grid = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1).reshape(-1, len(sizes))
    np.testing.assert_array_equal(space.factors(np.arange(space.count)), grid)
    assert space.sizes == tuple(sizes)


def test_points_off_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        SPACE.factors(np.array([SPACE.count]))
    with pytest.raises(ValueError, match="invalid"):
        SPACE.indices(np.array([[0, 6, 0, 0, 0]]))


@settings(deadline=None)
@given(count=st.integers(1, 594), seed=st.integers(0, 1000))
def test_drawn_labels_are_the_stores_own(small: ImageStore, count: int, seed: int) -> None:
    names = ("position_y", "scale")
    labels = draw_labels(small, LabelsConfig(count=count, factors=names, seed=seed))
    assert labels.names == names
    assert len(set(labels.indices.tolist())) == count
    np.testing.assert_array_equal(labels.factors, small.factors(labels.indices)[:, [4, 1]])
    assert (labels.factors >= 0).any(axis=1).all(), "an image of which nothing is known is no label"


def test_more_labels_are_the_fewer_and_some_more(small: ImageStore) -> None:
    few, many = (draw_labels(small, LabelsConfig(count=count, seed=0)) for count in (50, 200))
    np.testing.assert_array_equal(many.indices[:50], few.indices)
    other = draw_labels(small, LabelsConfig(count=50, seed=1))
    assert set(other.indices.tolist()) != set(few.indices.tolist())


def test_every_part_of_the_images_is_drawn_from(shapes: ImageStore) -> None:
    drawn = draw_labels(shapes, LabelsConfig(count=5000, seed=0)).indices
    tenths = np.bincount(drawn * 10 // shapes.count, minlength=10)
    # 500 each; a binomial count beyond five standard deviations of 21 has odds under one in a million.
    assert abs(tenths - 500).max() < 106
    assert abs(np.corrcoef(np.arange(5000), drawn)[0, 1]) < 0.07, "in random order: halves are alike"


def test_without_names_all_that_varies_is_labelled(small: ImageStore, shapes: ImageStore) -> None:
    assert draw_labels(shapes, LabelsConfig(count=10)).names == SPACE.names
    assert len(draw_labels(small, LabelsConfig()).indices) == 594


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LabelsConfig(count=595), r"labels\.count: 595; there are 594 images of small with a known factor"),
        (LabelsConfig(count=0), r"labels\.count: 0"),
        (LabelsConfig(factors=("scale", "positon_x")), r"no factor 'positon_x'.*did you mean 'position_x'\?"),
        (LabelsConfig(factors=("colour",)), r"among those of small: shape, scale, rotation, position_x, position_y$"),
        (LabelsConfig(factors=("scale", "scale")), "name each factor once"),
        (LabelsConfig(factors=()), "at least one"),
    ],
)
def test_what_cannot_be_drawn_is_explained(small: ImageStore, config: LabelsConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_labels(config, small)


def test_fingerprint_changes_with_names_images_and_values(small: ImageStore) -> None:
    labels = draw_labels(small, LabelsConfig(count=20))
    changed = labels.factors.copy()
    changed[0, 0] += 1
    variants = [
        labels,
        WeakLabels(labels.names[::-1], labels.indices, labels.factors),
        WeakLabels(labels.names, labels.indices + 1, labels.factors),
        WeakLabels(labels.names, labels.indices, changed),
    ]
    assert len({variant.fingerprint for variant in variants}) == 4
    assert draw_labels(small, LabelsConfig(count=20)).fingerprint == labels.fingerprint
