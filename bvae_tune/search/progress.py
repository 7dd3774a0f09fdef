"""What a person sees while a study runs: a live table on a terminal, one plain line per finished trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bvae_tune.wording import clock, duration, percent, percent_with_spread, significant

if TYPE_CHECKING:
    from bvae_tune.search.records import TrialRecord

FINISHED = ("complete", "pruned", "failed")
STATE_STYLES = {"running": "cyan", "complete": "", "pruned": "dim", "failed": "red"}
FAILURES_SHOWN = 3
WIDEST = 120
OTHER_COLUMNS = 60  # characters, gaps included


class Progress:
    """Shows a study while it runs; a context manager whose calls never raise (`error` keeps the first thing caught).

    Args:
        console: where to draw. A live table if it is a terminal, plain lines if not.
        title: the study's name.
        trials_total: searched trials wanted in the end, those of earlier runs of the study included.
        controls_total: baselines and confirmations wanted in the end.
        steps: training steps of a trial that does not search `training.steps` (untrained networks take none).
        clock: seconds that never go back.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        trials_total: int,
        controls_total: int,
        steps: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.error: Exception | None = None
        self._console = console
        self._title = title
        self._totals = {"trials": trials_total, "controls": controls_total}
        self._steps = steps
        self._records: tuple[TrialRecord, ...] = ()
        self._finished: dict[tuple[str, int], None] = {}  # keys in the order in which trials were seen to end
        self._reported: dict[tuple[str, int], tuple[int, float]] = {}  # last step, and when it was first seen
        self._slots = 1
        self._started = self._updated = clock()
        self._clock = clock
        self._work_before: int | None = None
        self._left: float | None = None
        live = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, get_renderable=self.__rich__, refresh_per_second=2) if live else None

    def __enter__(self) -> Self:
        with self._guarded():
            if self._live is not None:
                self._live.start()
            else:
                totals = {"trials": self._totals["trials"], "baselines and confirmations": self._totals["controls"]}
                self._line(
                    f"{self._title}: {', '.join(f'{number} {name}' for name, number in totals.items() if number)}"
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guarded():
            if self._live is not None:
                self._live.stop()
            else:
                parts = [f"{self._title}: {self._count()} after {duration(self._elapsed())}", self._best_text()]
                self._line("; ".join(filter(None, parts)))

    def update(self, records: Sequence[TrialRecord]) -> None:
        """Takes all trials of the study as they now stand, controls too. The first call is the state before the run."""
        with self._guarded():
            for record in records:
                step = last_step(record)
                if self._reported.get(_key(record), (-1, 0.0))[0] != step:
                    self._reported[_key(record)] = step, self._clock()
            ended = [record for record in records if record.state in FINISHED and _key(record) not in self._finished]
            # A new dictionary, since the table may just be reading the old one in its thread.
            self._finished = {**self._finished, **dict.fromkeys(map(_key, ended))}
            self._records = tuple(records)
            self._slots = max(self._slots, sum(record.state == "running" for record in records))
            work = sum(self._work(record) for record in records)
            first = self._work_before is None
            self._work_before = work if self._work_before is None else self._work_before
            self._updated = self._clock()
            self._left = self._estimate(work - self._work_before)
            # At the first call they come from an earlier run of the study: no news.
            if self._live is None and not first:
                for record in ended:
                    self._line(self._news(record))

    def message(self, text: str) -> None:
        """One line for the reader, above the live table or among the plain lines."""
        with self._guarded():
            self._line(text)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = self.error or error

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def _elapsed(self) -> float:
        return self._clock() - self._started

    def _since_update(self) -> float:
        return self._clock() - self._updated

    # Time left. Work is counted in training steps; a pruned or failed trial counts as done, so that pruning shows.

    def _steps_of(self, record: TrialRecord) -> int:
        return 0 if record.label == "untrained" else int(record.parameters.get("training.steps", self._steps or 0))

    def _work(self, record: TrialRecord) -> int:
        steps = self._steps_of(record)
        return steps if record.state in FINISHED else min(steps, last_step(record))

    def _estimate(self, done_here: int) -> float | None:
        """Seconds until the last trial ends, from the pace of this run; None before there is any."""
        if done_here <= 0:
            return None
        open_work = [self._steps_of(record) - self._work(record) for record in self._records]
        unseen = max(0, sum(self._totals.values()) - len(self._records))
        known = [steps for record in self._records if (steps := self._steps_of(record))]
        open_work += [self._steps or sum(known) // len(known)] * unseen
        slot_seconds_per_step = self._elapsed() * self._slots / done_here
        return slot_seconds_per_step * max(sum(open_work) / self._slots, *open_work)

    # Words.

    def _count(self) -> str:
        done = [record for record in self._records if record.state in FINISHED]
        trials = sum(record.kind == "search" for record in done)
        parts = [f"{trials} of {self._totals['trials']} trials"] if self._totals["trials"] else []
        if self._totals["controls"]:
            parts.append(f"{len(done) - trials} of {self._totals['controls']} controls")
        for state in ("pruned", "failed"):
            if number := sum(record.state == state for record in done):
                parts.append(f"{number} {state}")
        return ", ".join(parts)

    def _left_text(self) -> str:
        if sum(record.state in FINISHED for record in self._records) >= sum(self._totals.values()):
            return ""
        if self._left is None:
            return "time left not known yet"
        left = max(0.0, self._left - self._since_update())
        return f"about {duration(left) if left < 60 else duration(60 * round(left / 60), short=True)} left"

    def _best(self) -> TrialRecord | None:
        scored = [r for r in self._records if r.kind == "search" and r.state == "complete" and r.score is not None]
        return max(scored, key=lambda record: record.score or 0.0, default=None)

    def _best_text(self) -> str:
        if not self._totals["trials"]:
            return ""
        best = self._best()
        if best is None:
            return "no finished trial yet"
        spread = best.result.score.spread if best.result else None
        where = f"β {significant(best.beta)} (β_norm {significant(best.beta_norm)}), M {best.latent_size}"
        return f"best {percent_with_spread(best.score, spread)}{_pairs(best)}: {best.label}, {where}"

    def _news(self, record: TrialRecord) -> str:
        what = f"β {significant(record.beta)}, M {record.latent_size}, {duration(record.seconds)}"
        match record.state:
            case "failed":
                told = f"failed: {record.reason or 'reason unknown'}"
            case "pruned":
                told = f"pruned at step {last_step(record)} with {percent(last_score(record))}"
            case _:
                told = percent(record.score)
        parts = [f"{record.label}: {told} ({what})", self._count(), self._best_text(), self._left_text()]
        return "; ".join(filter(None, parts))

    # The live table.

    def __rich__(self) -> RenderableType:
        try:
            return self._view()
        except Exception as error:
            self.error = self.error or error
            return Text("")

    def _view(self) -> RenderableType:
        total = sum(self._totals.values())
        done = sum(record.state in FINISHED for record in self._records)
        width = min(self._console.width, WIDEST)
        head = Table.grid(expand=True)
        head.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        head.add_column(justify="right", no_wrap=True)
        times = filter(None, (duration(self._elapsed()), self._left_text()))
        head.add_row(Text(self._title, style="bold"), Text(", ".join(times)))
        head.add_row(ProgressBar(total=max(total, 1), completed=done), Text("  " + self._count()))
        foot = self._foot()
        # Two lines of head, four of the table's own, and one for the prompt that follows.
        rows = max(4, self._console.height - 7 - len(foot))
        return Constrain(Group(head, self._table(rows, width), *foot), width)

    def _table(self, rows: int, width: int) -> Table:
        table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, padding=(0, 1, 0, 0))
        # Long labels of confirmations are cut before any number is.
        table.add_column("trial", no_wrap=True, max_width=max(12, width - OTHER_COLUMNS))
        table.add_column("state", no_wrap=True, min_width=8)
        # Least widths keep the columns in their places while the numbers change.
        for title, width in (("β", 5), ("M", 2), ("step", 11), ("score", 11), ("time", 7)):
            table.add_column(title, justify="right", no_wrap=True, min_width=width)
        best = self._best()
        order = {key: place for place, key in enumerate(self._finished)}
        running = [record for record in self._records if record.state == "running"]
        ended = [record for record in self._records if _key(record) in order]
        shown = running + sorted(ended, key=lambda record: order[_key(record)], reverse=True)
        for record in shown[: rows if len(shown) <= rows else rows - 1]:
            steps = self._steps_of(record)
            step = f"{last_step(record)}/{steps}" if steps else f"{last_step(record)}"
            seconds = record.seconds
            if record.state == "running":
                seconds = (seconds or 0.0) + self._clock() - self._reported[_key(record)][1]
            score = percent_with_spread(last_score(record), record.result.score.spread if record.result else None)
            table.add_row(
                record.label,
                record.state,
                significant(record.beta),
                str(record.latent_size),
                step,
                score,
                clock(seconds),
                style="bold green" if record is best else STATE_STYLES.get(record.state, ""),
            )
        if len(shown) > rows:
            table.add_row(f"{len(shown) - rows + 1} earlier", style="dim")
        return table

    def _foot(self) -> list[Text]:
        lines = [Text(text, style="bold") for text in [self._best_text()] if text]
        best = self._best()
        if best is not None and best.result is not None:
            score = best.result.score
            against = [f"chance {percent(score.chance)}"]
            against += [
                f"{record.label} {percent(record.score)}"
                for record in self._records
                if record.kind == "baseline" and record.score is not None
            ]
            missing = f"; not represented: {', '.join(score.missing)}" if score.missing else ""
            lines.append(Text(f"against {', '.join(against)}{missing}"))
        failed = [record for record in self._records if record.state == "failed"]
        for record in failed[-FAILURES_SHOWN:]:
            lines.append(Text(f"{record.label} failed: {record.reason or 'reason unknown'}", style="red"))
        for line in lines:
            line.no_wrap = True
            line.overflow = "ellipsis"
        return lines


def last_step(record: TrialRecord) -> int:
    """Training steps behind the trial's last report; 0 before the first."""
    return record.result.step if record.result else max(record.intermediate, default=0)


def last_score(record: TrialRecord) -> float | None:
    """The final score, or the latest one of a trial that has not finished or was stopped."""
    if record.score is not None or not record.intermediate:
        return record.score
    return record.intermediate[max(record.intermediate)]


def _key(record: TrialRecord) -> tuple[str, int]:
    return record.kind, record.number


def _pairs(record: TrialRecord) -> str:
    return f" (L = {record.result.score.pairs})" if record.result else ""
