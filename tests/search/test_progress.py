from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from bvae_tune.search.progress import Progress
from bvae_tune.search.records import TrialRecord

MakeRecord = Callable[..., TrialRecord]


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def plain() -> Console:
    return Console(file=io.StringIO(), width=60)


def terminal(width: int = 80, height: int = 24) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def drawn(progress: Progress, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(progress)
    return written(console).splitlines()


def test_without_a_terminal_each_finished_trial_is_one_plain_line(make_record: MakeRecord) -> None:
    console = plain()
    with Progress(console, "shapes", 3, 1, steps=400) as progress:
        untrained = make_record(0, kind="baseline", label="untrained", score=0.35, step=0)
        progress.update([make_record(0, "running", kind="baseline", label="untrained", step=0)])
        progress.update([untrained])
        progress.update([untrained, make_record(0, "running", step=100)])
        progress.update([untrained, make_record(0, score=0.6), make_record(1, "pruned", score=0.3, step=200)])
        failed = make_record(2, "failed", step=0, reason="the loss is not finite", seconds=None)
        progress.update([untrained, make_record(0, score=0.6), make_record(1, "pruned", score=0.3, step=200), failed])
    lines = written(console).splitlines()
    assert progress.error is None
    assert [line.split(":")[0] for line in lines] == ["shapes", "untrained", "trial 0", "trial 1", "trial 2", "shapes"]
    assert lines[0] == "shapes: 3 trials, 1 control (baselines and confirmations)"
    assert "60.0% (β 4, M 3, 41 s); 2 of 3 trials" in lines[2]
    assert "best 60.0% (L = 4): trial 0, β 4 (β_norm 0.00293), M 3" in lines[2]
    assert "pruned at step 200 with 30.0%" in lines[3]
    assert "failed: the loss is not finite" in lines[4]
    assert "3 of 3 trials, 1 of 1 control, 1 pruned, 1 failed after" in lines[5]
    assert "\x1b" not in written(console)


def test_trials_of_an_earlier_run_are_no_news(make_record: MakeRecord) -> None:
    console = plain()
    with Progress(console, "shapes", 2, 0, steps=400) as progress:
        progress.update([make_record(0, score=0.7), make_record(1, "running", step=200)])
        progress.update([make_record(0, score=0.7), make_record(1, score=0.6)])
    assert [line.split(":")[0] for line in written(console).splitlines()] == ["shapes", "trial 1", "shapes"]


def test_the_best_is_no_collapsed_trial(make_record: MakeRecord) -> None:
    off = make_record(0, score=0.9)
    assert off.result is not None
    off = dataclasses.replace(off, result=dataclasses.replace(off.result, kl_per_latent=((0.001,),)))
    console = plain()
    with Progress(console, "shapes", 2, 0) as progress:
        progress.update([off])
        progress.update([make_record(1, score=0.6)])
    assert "best 60.0% (L = 4): trial 1" in written(console).splitlines()[-1]


def test_a_confirmation_speaks_of_controls_only(make_record: MakeRecord) -> None:
    console = plain()
    with Progress(console, "shapes", 0, 2, steps=400) as progress:
        progress.update([make_record(n, "running", kind="confirm", label=f"pair {n}", step=0) for n in range(2)])
        progress.update([make_record(n, kind="confirm", label=f"pair {n}") for n in range(2)])
    assert "best" not in written(console)
    assert "0 trials" not in written(console)
    assert written(console).splitlines()[-1].startswith("shapes: 2 of 2 controls after ")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 40), (80, 14)])
def test_the_live_table_shows_the_study_and_fits_the_terminal(make_record: MakeRecord, width: int, height: int) -> None:
    progress = Progress(terminal(width, height), "shapes-20260101-120000", 40, 2, steps=400)
    reason = "the loss is not finite at step 173; lower the learning rate, or raise beta, or look at the images"
    progress.update(
        [
            make_record(0, kind="baseline", label="untrained", score=0.35, step=0),
            make_record(1, kind="baseline", label="beta=1", score=0.41),
            *(make_record(n, score=0.5 + n / 100) for n in range(20)),
            make_record(20, "failed", step=100, reason=reason),
            make_record(21, "running", beta=12.34, latent_size=17, step=100, score=0.44),
        ]
    )
    lines = drawn(progress, width, height)
    text = "\n".join(lines)
    assert progress.error is None
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert "shapes-20260101-120000" in lines[0]
    assert "21 of 40 trials, 2 of 2 controls, 1 failed" in lines[1]
    assert re.search(r"trial 21 +running +12\.3 +17 +100/400 +44\.0%", text)
    assert re.search(r"best 69\.0% \(L = 4\): trial 19, β 4 \(β_norm 0\.00293\), M 3", text)
    assert "against chance 25.0%, untrained 35.0%, beta=1 41.0%; not represented: rotation" in text
    assert "trial 20 failed: the loss is not finite" in text
    # The latest stand on top; what does not fit is counted.
    ended = re.findall(r"^ *trial (\d+) +complete", text, re.MULTILINE)
    assert ended == [str(n) for n in range(19, 19 - len(ended), -1)]
    if height < 30:
        hidden = re.search(r"(\d+) earlier", text)
        assert hidden is not None
        assert int(hidden[1]) == 24 - len(re.findall(r"(complete|running|failed) +\d", text))


def test_time_left_follows_from_steps_per_slot_and_second(make_record: MakeRecord) -> None:
    clock = Clock()
    progress = Progress(terminal(), "shapes", 4, 0, steps=400, clock=clock)
    resumed = make_record(0, "running", step=200)
    progress.update([resumed, make_record(1, "running", step=0)])
    assert "time left not known yet" in drawn(progress)[0]
    clock.seconds = 100.0
    progress.update([make_record(0), make_record(1, "running", step=200)])
    # 400 steps were done here in 100 s by two slots: half a second per step and slot. 1,000 steps are left for two.
    assert "about 4 min left" in drawn(progress)[0]
    clock.seconds = 215.0
    assert "3 min 35 s, about 2 min left" in drawn(progress)[0]
    # 1,300 steps took two slots 215 s. One trial is left, which one slot ends: 100 steps in 33 s, 15 of them gone.
    progress.update([*(make_record(n) for n in range(3)), make_record(3, "running", step=300)])
    clock.seconds = 230.0
    assert "about 18 s left" in drawn(progress)[0]


def test_a_running_trial_s_clock_goes_on_between_its_reports(make_record: MakeRecord) -> None:
    clock = Clock()
    progress = Progress(terminal(), "shapes", 2, 0, steps=400, clock=clock)
    progress.update([make_record(0, "running", step=100)])
    clock.seconds = 3.0
    progress.update([make_record(0, "running", step=100), make_record(1, "running", step=0)])
    clock.seconds = 5.0
    rows = drawn(progress)
    assert [row.split()[-1] for row in rows if "running" in row] == ["0:16", "0:02"]
    for number in (0, 1):  # both share a bank, and its time
        progress.update([make_record(number, "running", step=200)], sharing=2)
    clock.seconds = 25.0
    rows = drawn(progress)
    assert [row.split()[-1] for row in rows if "running" in row] == ["0:31", "0:31"]


def test_searched_steps_are_those_of_each_trial(make_record: MakeRecord) -> None:
    progress = Progress(terminal(), "shapes", 2, 0)
    progress.update([make_record(0, "running", step=100, parameters={"training.steps": 800})])
    progress.update([make_record(0, "running", step=200, parameters={"training.steps": 800})])
    assert any("200/800" in line for line in drawn(progress))
    assert progress.error is None


def test_a_long_label_is_cut_before_any_number(make_record: MakeRecord) -> None:
    progress = Progress(terminal(), "shapes", 0, 8, steps=12000)
    label = "beta=1 for trial 12, pair 3"
    progress.update([make_record(0, kind="confirm", label=label, step=12000, replicas=4, seconds=11405.0)])
    (row,) = (line for line in drawn(progress) if "beta=1 for" in line)
    assert re.search(r"…  complete +4 +3 +12000/12000 +50\.0% ± 4\.0 +3:10:05 *$", row)


@pytest.mark.parametrize("make_console", [plain, terminal])
def test_it_never_raises_into_the_study(make_console: Callable[[], Console]) -> None:
    progress = Progress(make_console(), "shapes", 2, 0, steps=400)
    with progress:
        progress.update([object()])  # type: ignore[list-item]
        progress.message("still here")
    assert isinstance(progress.error, AttributeError)


def test_a_closed_terminal_is_no_reason_to_stop(make_record: MakeRecord) -> None:
    console = plain()
    console.file.close()
    with Progress(console, "shapes", 1, 0, steps=400) as progress:
        progress.update([])
        progress.update([make_record(0)])
        progress.message("nobody reads this")
    assert isinstance(progress.error, ValueError)


def test_ctrl_c_passes_and_leaves_the_cursor_as_it_was(make_record: MakeRecord) -> None:
    console = terminal()
    with pytest.raises(KeyboardInterrupt), Progress(console, "shapes", 1, 0, steps=400) as progress:  # noqa: PT012
        progress.update([make_record(0, "running", step=100)])
        progress.message("saved")
        raise KeyboardInterrupt
    text = written(console)
    assert "saved" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
