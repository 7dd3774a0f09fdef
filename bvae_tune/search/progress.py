"""What a person sees while a study runs: a live table on a terminal, one plain line per finished trial elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bvae_tune.search.records import FINISHED, TrialRecord, ranked
from bvae_tune.wording import clock, counted, duration, percent, percent_with_spread, significant

STATE_STYLES = {"running": "cyan", "complete": "", "pruned": "dim", "failed": "red"}
FAILURES_SHOWN = 3
WIDEST = 120
OTHER_COLUMNS = 60  # characters, gaps included

_Key = tuple[str, int]  # a trial's kind and number


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
        self._records: dict[_Key, TrialRecord] = {}
        self._open: dict[_Key, TrialRecord] = {}
        self._finished: dict[_Key, None] = {}  # in the order in which trials were seen to end
        self._reported: dict[_Key, tuple[float, int]] = {}  # when the last step was first seen; how many share a bank
        self._counts: Counter[tuple[bool, str]] = Counter()  # by whether it is searched, and its state
        self._best: TrialRecord | None = None
        self._work = self._work_known = self._trials_known = 0  # see `_estimate`
        self._work_before: int | None = None
        self._slots = 1
        self._started = self._updated = clock()
        self._clock = clock
        live = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, get_renderable=self.__rich__, refresh_per_second=2) if live else None

    def __enter__(self) -> Self:
        with self._guarded():
            if self._live is not None:
                self._live.start()
            else:
                totals = {"trial": self._totals["trials"], "control": self._totals["controls"]}
                told = ", ".join(counted(number, name) for name, number in totals.items() if number)
                both = all(totals.values())  # a run that only confirms needs no explanation
                self._line(f"{self._title}: {told}{' (baselines and confirmations)' if both else ''}")
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

    def update(self, records: Sequence[TrialRecord], sharing: int = 1) -> None:
        """Takes trials and controls as they now stand; the others stand as before.

        The first call is the state before the run: all trials of the study. So many as are `sharing` a bank share its
        time.
        """
        with self._guarded():
            ended = [record for record in records if record.state in FINISHED and _key(record) not in self._finished]
            for record in records:
                self._take(record, sharing)
            self._slots = max(self._slots, self._count_in("running"))
            self._updated = self._clock()
            # At the first call they come from an earlier run of the study: no news.
            if self._work_before is None:
                self._work_before = self._work
            elif self._live is None:
                for record in ended:
                    self._line(self._news(record))

    def _take(self, record: TrialRecord, sharing: int) -> None:
        """Put the record in the place of the trial's older one, in every sum too: a study may have thousands."""
        key = _key(record)
        older = self._records.get(key)
        for one, sign in ((older, -1), (record, 1)):
            if one is not None:
                steps = self._steps_of(one)
                self._counts[one.kind == "search", one.state] += sign
                self._work += sign * self._work_of(one)
                self._work_known += sign * steps
                self._trials_known += sign * bool(steps)
        if older is None or last_step(older) != last_step(record):
            self._reported[key] = self._clock(), sharing
        self._records[key] = record
        if record.state in FINISHED:
            self._finished[key] = None
            self._open.pop(key, None)
        else:
            self._open[key] = record
        if record.kind == "search" and record.state == "complete" and record.score is not None:
            self._best = ranked([*filter(None, [self._best]), record])[0]

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
        searched = record.parameters.get("training.steps", self._steps or 0)
        return int(searched) if record.steps is None else record.steps

    def _work_of(self, record: TrialRecord) -> int:
        steps = self._steps_of(record)
        return steps if record.state in FINISHED else min(steps, last_step(record))

    def _estimate(self) -> float | None:
        """Seconds from the last update until the last trial ends, from the pace of this run; None before there is any.

        Trials not yet begun are taken to have the mean of the steps of those known.
        """
        if self._work_before is None or self._work <= self._work_before:
            return None
        open_work = [self._steps_of(record) - self._work_of(record) for record in list(self._open.values())]
        unseen = max(0, sum(self._totals.values()) - len(self._records))
        open_work += [self._steps or self._work_known // max(1, self._trials_known)] * unseen
        slot_seconds_per_step = (self._updated - self._started) * self._slots / (self._work - self._work_before)
        return slot_seconds_per_step * max([sum(open_work) / self._slots, *open_work])

    # Words.

    def _count_in(self, *states: str) -> int:
        return sum(self._counts[searched, state] for searched in (True, False) for state in states)

    def _count(self) -> str:
        trials = sum(self._counts[True, state] for state in FINISHED)
        parts = [f"{trials} of {counted(self._totals['trials'], 'trial')}"] if self._totals["trials"] else []
        if self._totals["controls"]:
            parts.append(f"{self._count_in(*FINISHED) - trials} of {counted(self._totals['controls'], 'control')}")
        for state in ("pruned", "failed"):
            if number := self._count_in(state):
                parts.append(f"{number} {state}")
        return ", ".join(parts)

    def _left_text(self) -> str:
        if self._count_in(*FINISHED) >= sum(self._totals.values()):
            return ""
        estimate = self._estimate()
        if estimate is None:
            return "time left not known yet"
        left = max(0.0, estimate - self._since_update())
        return f"about {duration(left) if left < 60 else duration(60 * round(left / 60), short=True)} left"

    def _best_text(self) -> str:
        if not self._totals["trials"]:
            return ""
        best = self._best
        if best is None:
            over = sum(self._counts[True, state] for state in FINISHED) >= self._totals["trials"]
            return "none ran to its end" if over else "no finished trial yet"
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
        done = self._count_in(*FINISHED)
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
        best = self._best
        # Copies, since this is another thread than the one that updates.
        running = [record for record in list(self._open.values()) if record.state == "running"]
        shown = running + [self._records[key] for key in reversed(list(self._finished))]
        for record in shown[: rows if len(shown) <= rows else rows - 1]:
            steps = self._steps_of(record)
            step = f"{last_step(record)}/{steps}" if steps else f"{last_step(record)}"
            seconds = record.seconds
            if record.state == "running":
                since, sharing = self._reported[_key(record)]
                seconds = (seconds or 0.0) + (self._clock() - since) / sharing
            score = percent_with_spread(last_score(record), record.result.score.spread if record.result else None)
            table.add_row(
                record.label,
                record.state,
                significant(record.beta),
                str(record.latent_size),
                step,
                score,
                clock(seconds),
                style="bold green" if best and _key(record) == _key(best) else STATE_STYLES.get(record.state, ""),
            )
        if len(shown) > rows:
            table.add_row(f"{len(shown) - rows + 1} earlier", style="dim")
        return table

    def _foot(self) -> list[Text]:
        lines = [Text(text, style="bold") for text in [self._best_text()] if text]
        best = self._best
        if best is not None and best.result is not None:
            score = best.result.score
            against = [f"chance {percent(score.chance)}"]
            against += [
                f"{record.label} {percent(record.score)}"
                for record in list(self._records.values())
                if record.kind == "baseline" and record.score is not None
            ]
            missing = f"; not represented: {', '.join(score.missing)}" if score.missing else ""
            lines.append(Text(f"against {', '.join(against)}{missing}"))
        failed = [record for record in list(self._records.values()) if record.state == "failed"]
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
    """The score of the last report; the final one of a trial that has ended."""
    return record.result.score.score if record.result else None


def _key(record: TrialRecord) -> _Key:
    return record.kind, record.number


def _pairs(record: TrialRecord) -> str:
    return f" (L = {record.result.score.pairs})" if record.result else ""
