"""The pairs of Eq. 5 and their z_diff, against a reference that goes pair by pair."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from bvae_tune.errors import InputError
from bvae_tune.metrics.factor_change import draw_pairs, mean_differences, pair_tables
from bvae_tune.randomness import generator


def z_diff_pair_by_pair(
    codes: NDArray[np.float32], first: NDArray[np.int64], second: NDArray[np.int64], length: int
) -> NDArray[np.float64]:
    points = first.shape[1]
    result = np.zeros((points, codes.shape[1]))
    for b in range(points):
        for pair in range(length):
            z_i, z_j = codes[first[pair, b]], codes[second[pair, b]]
            for m in range(codes.shape[1]):
                result[b, m] += abs(float(z_i[m]) - float(z_j[m])) / length
    return result


def test_z_diff_is_that_of_the_reference(draw_factors, names) -> None:
    factors = draw_factors(400, 1)
    codes = np.random.default_rng(2).normal(size=(400, 7)).astype(np.float32)
    table = pair_tables(factors, names).train
    _, first, second = draw_pairs(table, 60, 16, generator(4, "test"))
    lengths = (1, 4, 16)
    for length, z_diff in zip(lengths, mean_differences(codes, first, second, lengths), strict=True):
        assert z_diff == pytest.approx(z_diff_pair_by_pair(codes, first, second, length), abs=1e-6)


def test_blocks_of_points_do_not_change_z_diff(monkeypatch, draw_factors, names) -> None:
    codes = np.random.default_rng(2).normal(size=(400, 7)).astype(np.float32)
    _, first, second = draw_pairs(pair_tables(draw_factors(400, 1), names).test, 50, 4, generator(4, "test"))
    whole = mean_differences(codes, first, second, (1, 4))
    monkeypatch.setattr("bvae_tune.metrics.factor_change.GATHERED_VALUES", 7 * 8)
    assert (mean_differences(codes, first, second, (1, 4)) == whole).all()


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(40, 120),
    values=st.lists(st.integers(2, 4), min_size=2, max_size=4),
    unknown=st.floats(0, 0.3),
    seed=st.integers(0, 2**31),
)
def test_pairs_share_a_known_value_within_their_half(images: int, values: list[int], unknown: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    factors = rng.integers(0, values, size=(images, len(values)))
    factors[rng.random(factors.shape) < unknown] = -1
    tables = pair_tables(factors, [f"f{k}" for k in range(len(values))])
    drawn = []
    for table in (tables.train, tables.test):
        y, first, second = draw_pairs(table, 50, 3, generator(seed, "test"))
        column = np.array(tables.factors)[y]
        assert (factors[first, column] == factors[second, column]).all()
        assert (factors[first, column] >= 0).all()
        assert (first != second).all()
        drawn.append(set(table.rows))
    assert not drawn[0] & drawn[1]


def test_first_images_and_partners_are_uniform() -> None:
    # 3 values over 60 images of each half, in groups of different size; factor b is there to make two.
    factors = np.stack([np.repeat([0, 1, 2], [20, 40, 60]), np.arange(120) % 2], axis=1)
    table = pair_tables(factors, ("a", "b")).train
    y, first, second = draw_pairs(table, 60_000, 1, generator(6, "test"))
    assert chisquare(np.bincount(y)).pvalue > 1e-3
    firsts = Counter(first[0, y == 0].tolist())
    assert len(firsts) == 60
    assert chisquare(list(firsts.values())).pvalue > 1e-3
    some = first[0, 0]
    partners = Counter(second[0, (first[0] == some) & (y == y[0])].tolist())
    equals = [row for row in table.rows[: table.factor_size[0]] if factors[row, 0] == factors[some, 0]]
    if y[0] == 1:
        equals = [row for row in table.rows[table.factor_size[0] :] if factors[row, 1] == factors[some, 1]]
    assert sorted(partners) == sorted(set(equals) - {some})
    assert chisquare(list(partners.values())).pvalue > 1e-3


def test_a_pair_may_be_one_image_twice_on_request(draw_factors, names) -> None:
    table = pair_tables(draw_factors(400, 1), names).train
    _, first, second = draw_pairs(table, 2_000, 2, generator(4, "test"), distinct=False)
    assert (first == second).any()


def test_fewer_pairs_are_the_first_of_more(draw_factors, names) -> None:
    table = pair_tables(draw_factors(400, 1), names).train
    few = draw_pairs(table, 100, 4, generator(4, "test"))
    many = draw_pairs(table, 100, 16, generator(4, "test"))
    assert (few[0] == many[0]).all()
    assert (few[1] == many[1][:4]).all()
    assert (few[2] == many[2][:4]).all()


def test_factors_without_pairs_are_named_and_left_out(draw_factors) -> None:
    factors = draw_factors(400, 1)
    extra = np.stack([np.full(400, 3), np.arange(400), np.full(400, -1)], axis=1)
    names = ("x", "y", "scale", "rotation", "constant", "all_different", "unknown")
    tables = pair_tables(np.hstack([factors, extra]), names)
    assert tables.factors == (0, 1, 2, 3)
    assert tables.chance == 0.25
    assert list(tables.unusable) == ["constant", "all_different", "unknown"]


def test_one_usable_factor_is_an_error_that_says_why_for_each() -> None:
    factors = np.stack([np.arange(100) % 5, np.full(100, 3), np.arange(100), np.full(100, -1)], axis=1)
    with pytest.raises(InputError) as error:
        pair_tables(factors, ("shape", "colour", "serial", "size"))
    message = str(error.value)
    assert "has 1 (shape)" in message
    assert "colour: it has the same value in all 100 labelled images" in message
    assert "serial: its 100 values over 100 labelled images leave 0" in message
    assert "size: no labelled image knows its value" in message
