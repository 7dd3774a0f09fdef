"""A study in TensorBoard: scalars of every trial and the HParams tab, written by the driver and read by nobody else.

Event files are a view: the record is the Optuna study. So an error here is counted, told once, and never passed on.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter

if TYPE_CHECKING:
    from bvae_tune.search.records import TrialRecord, TrialResult
    from bvae_tune.space_config import Distribution

SHOWN_ALWAYS = ("beta", "beta_norm", "latent_size")

# TensorBoard sorts groups of tags by code point: the capital puts the scores on top.
SCORE, SPREAD, MIG, KL, STEPS = "Score/score", "Score/spread over replicas", "Score/MIG", "loss/KL", "cost/steps"


class TensorBoardLog:
    """Writes a study's event files below `folder`, one run per trial (`trial-00007`, `baseline-00000`, ...).

    Every call returns quietly whatever happens: `errors` counts what could not be written and `tell` hears of the
    first. Each report is on the disk when the call returns. A trial that goes on after a resume or a retry starts a
    new session at the step of its next report, so that TensorBoard drops what it had seen from that step on.

    Args:
        folder: the study's `tensorboard/`, made when missing.
        space: the searched keys and their distributions, for the columns of the HParams tab.
        tell: takes one line of text, at the first error only.
    """

    def __init__(self, folder: Path, space: Mapping[str, Distribution], tell: Callable[[str], None]) -> None:
        self.errors = 0
        self._folder = folder
        self._types = dict.fromkeys(SHOWN_ALWAYS, api_pb2.DATA_TYPE_FLOAT64)
        self._types |= {key: _type(distribution) for key, distribution in space.items() if not _shown_always(key)}
        self._types["kind"] = api_pb2.DATA_TYPE_STRING
        self._tell = tell
        self._files: dict[str, Path] = {}
        self._steps: dict[str, int] = {}
        self._columns_written = False

    def write_result(self, record: TrialRecord, result: TrialResult) -> None:
        """One report of a trial: all its scalars at `result.step`."""
        with self._guarded():
            if not self._columns_written:
                self._write("", Event(summary=self._columns(tuple(result.score.information)), step=0))
                self._columns_written = True
            run = run_name(record)
            self._start(run, record)
            if result.step <= self._steps.get(run, result.step):
                self._write(run, Event(session_log=SessionLog(status=SessionLog.START), step=result.step))
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(result).items()]
            self._write(run, Event(summary=Summary(value=values), step=result.step))
            self._steps[run] = result.step

    def finish(self, record: TrialRecord) -> None:
        """The end of a trial, with its state: failed ones show as failures in the HParams tab."""
        with self._guarded():
            run = run_name(record)
            self._start(run, record)
            status = api_pb2.STATUS_FAILURE if record.state == "failed" else api_pb2.STATUS_SUCCESS
            end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
            plugin_data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
            self._write(run, Event(summary=_plugin_summary(metadata.SESSION_END_INFO_TAG, plugin_data), step=0))
            self._files.pop(run, None)
            self._steps.pop(run, None)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.errors += 1
            if self.errors == 1:
                self._tell(f"TensorBoard files in {self._folder} cannot be written ({error}); the study goes on")

    def _start(self, run: str, record: TrialRecord) -> None:
        if run not in self._files:
            values = {key: _value(record.parameters[key]) for key in self._types if key in record.parameters}
            setting = {"beta": record.beta, "beta_norm": record.beta_norm, "latent_size": record.latent_size}
            values |= {key: value for key, value in setting.items() if not math.isnan(value)}
            values["kind"] = record.kind if record.kind == "search" else record.label
            self._write(run, Event(summary=hparams_pb(values, trial_id=run), step=0))

    def _columns(self, factors: tuple[str, ...]) -> Summary:
        """The columns of the HParams tab: what was searched, and what is worth comparing between trials."""
        shown = {SCORE: "score", SPREAD: "spread", KL: "KL (nats)", MIG: "MIG", STEPS: "steps"}
        shown |= {f"information/{name}": f"information of {name}" for name in factors}
        experiment = api_pb2.Experiment(
            hparam_infos=[
                api_pb2.HParamInfo(name=name, type=type_, differs=True) for name, type_ in self._types.items()
            ],
            metric_infos=[
                api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=title) for tag, title in shown.items()
            ],
            time_created_secs=time.time(),
        )
        return _plugin_summary(metadata.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=experiment))

    def _write(self, run: str, event: Event) -> None:
        """Appends one event to the run's file of this session; a new file opens with the format's version."""
        events = [event]
        path = self._files.get(run)
        if path is None:
            path = self._folder / run / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
            path.parent.mkdir(parents=True, exist_ok=True)
            events.insert(0, Event(file_version="brain.Event:2", step=0))
        try:
            with path.open("ab") as file:
                writer = RecordWriter(file)
                for each in events:
                    each.wall_time = time.time()
                    writer.write(each.SerializeToString())
        except OSError:
            # What follows a torn record is never read: the next event opens another file.
            self._files.pop(run, None)
            raise
        self._files[run] = path


def run_name(record: TrialRecord) -> str:
    """`trial-00007` for a searched trial, `baseline-00000` or `confirm-00003` for a control."""
    return f"{'trial' if record.kind == 'search' else record.kind}-{record.number:05d}"


def scalars(result: TrialResult) -> dict[str, float]:
    """Tag -> value for one report. Scores, MIG and information are shares, losses in nats per image.

    Losses are means over the replicas; a model shows those that it has. `latent KL/01` is the latent of the largest KL
    (each replica sorts its own, since latents have no order in common).
    """
    score = result.score
    values = {SCORE: score.score, SPREAD: score.spread, MIG: score.mig}
    if score.agreement is not None:
        values["Score/agreement of replicas"] = score.agreement
    values |= {f"Score by pairs/L={pairs:02d}": value for pairs, value in score.profile.items()}
    values |= {f"Score by replica/{number}": value for number, value in enumerate(score.replica_scores)}
    values |= {f"information/{name}": value for name, value in score.information.items()}
    by_rank = zip(*(sorted(latents, reverse=True) for latents in result.kl_per_latent), strict=True)
    values |= {f"latent KL/{rank:02d}": _mean(latents) for rank, latents in enumerate(by_rank, start=1)}
    losses = {"reconstruction": result.reconstruction, "KL": result.kl} | result.further_losses
    values |= {f"loss/{name}": _mean(each) for name, each in losses.items() if each}
    values["cost/images per second"] = result.images_per_second
    values["cost/images seen"] = float(result.images_seen)
    values["cost/seconds training"] = result.seconds_training
    values["cost/seconds evaluating"] = result.seconds_evaluating
    values[STEPS] = float(result.step)
    return values


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _shown_always(key: str) -> bool:
    return key.removeprefix("model.") in SHOWN_ALWAYS


def _type(distribution: Distribution) -> Any:
    kinds = {type(choice) for choice in distribution.choices}
    if kinds == {bool}:
        return api_pb2.DATA_TYPE_BOOL
    return api_pb2.DATA_TYPE_FLOAT64 if kinds <= {int, float} else api_pb2.DATA_TYPE_STRING


def _value(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float) else str(value)


def _plugin_summary(tag: str, plugin_data: plugin_data_pb2.HParamsPluginData) -> Summary:
    value = Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(plugin_data), tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])
