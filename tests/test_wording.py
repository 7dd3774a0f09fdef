from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from bvae_tune.wording import clock, command, counted, duration, nats, percent, percent_with_spread, significant


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (0.4, "0 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (11_400, "3 h 10 min"),
        (187260, "2 d 4 h"),
    ],
)
def test_duration_in_words(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_a_short_duration_drops_the_seconds() -> None:
    assert [duration(seconds, short=True) for seconds in (45, 150, 7200)] == ["45 s", "2 min", "2 h 00 min"]


def test_a_clock_is_short_enough_for_a_column() -> None:
    assert [clock(seconds) for seconds in (None, 7.6, 125, 3599.7, 11_405)] == [
        "–",
        "0:08",
        "2:05",
        "1:00:00",
        "3:10:05",
    ]


def test_one_of_a_thing_is_no_plural() -> None:
    assert [counted(number, "trial") for number in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]
    assert [counted(number, "GPU") for number in (0.5, 1.0)] == ["0.5 GPUs", "1 GPU"]


def test_shares_are_shown_as_percent_with_their_spread_if_they_have_one() -> None:
    assert percent(0.72345) == "72.3%"
    assert percent(None) == "–"
    assert percent_with_spread(0.7, 0.041) == "70.0% ± 4.1"
    assert percent_with_spread(0.7, 0.0) == "70.0%"
    assert percent_with_spread(None, 0.1) == "–"


def test_nats_have_two_decimals() -> None:
    assert [nats(value) for value in (None, 0.0, 0.0505, 15.2221, 118.0)] == ["–", "0.00", "0.05", "15.22", "118.00"]


def test_significant_digits() -> None:
    assert [significant(value) for value in (0.0055249, 1.2572, 118.22, 4.0)] == ["0.00552", "1.26", "118", "4"]
    assert [significant(value) for value in (999.6, 1048.6, 999_400, 1.5e6)] == ["1,000", "1,050", "999,000", "1.5e+06"]
    assert significant(float("nan")) == "–"


def test_a_command_can_be_pasted_into_a_shell() -> None:
    assert command("resume", Path("runs/one")) == "bvae-tune resume runs/one"
    assert shlex.split(command("resume", Path("my runs/dé'jà"))) == ["bvae-tune", "resume", "my runs/dé'jà"]
