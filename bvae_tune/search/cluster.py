"""Ray: an embedded single node, or a cluster that runs already; what fits on it; whether its nodes see the study."""

from __future__ import annotations

import gc
import importlib
import logging
import math
import os
import socket
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bvae_tune.errors import InputError, RunError
from bvae_tune.search.importing import without_collector
from bvae_tune.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from bvae_tune.space_config import ResourcesConfig

# Read by Ray when it is imported or started.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Tune's workers have an environment of their own: those that Ray would start ahead never serve a trial.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
}
# Trials exchange a few numbers and read images from a mapped file: Ray's own store stays nearly empty.
_OBJECT_STORE_BYTES = 100 * 2**20


@dataclass(frozen=True)
class Placement:
    """What a trial gets and how many run at once; `cores` and `all_gpus` are those of the whole cluster."""

    cpus: float
    gpus: float
    concurrent: int
    cores: float
    all_gpus: float

    @property
    def threads(self) -> int:
        """CPU threads of a trial."""
        return max(1, int(self.cpus))


@contextmanager
def ray_session(address: str | None, meanwhile: str | None = None, console: Console | None = None) -> Iterator[None]:
    """Ray for the time of a run: embedded without an address, joined with one; one already joined is used as it is.

    Args:
        address: of a cluster.
        meanwhile: a module to import while Ray starts.
        console: says that it is being started, or joined.

    Raises:
        InputError: nothing answers at the address.
        RunError: the embedded Ray does not start.
    """
    if address is not None:
        _check_address(address)
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    with without_collector():
        import ray
    if ray.is_initialized():
        with _giving_back():
            yield
        return
    if meanwhile:
        # What it raises is raised again by the import that follows.
        threading.Thread(target=_import_quietly, args=(meanwhile,), daemon=True).start()
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    waiting = f"joining the Ray cluster at {address}" if address else "starting Ray on this machine"
    try:
        with console.status(waiting) if console is not None else nullcontext():
            ray.init(
                address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else local),
            )
    except Exception as error:
        if address:
            raise InputError(f"--address {address}: no Ray cluster could be joined there ({error})") from error
        raise RunError(f"Ray did not start on this machine: {error}") from error
    try:
        for name in ("ray", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
    finally:
        ray.shutdown()


@contextmanager
def _giving_back() -> Iterator[None]:
    """At an interrupt, hand back what Tune's workers hold in a Ray that goes on.

    Only the end of Tune's controller gives it back, and the traceback keeps the controller alive: a worker would train,
    and write, until Python's collector comes by.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        traceback.clear_frames(interrupt.__traceback__)
        gc.collect()
        raise


def _check_address(address: str) -> None:
    # Ray itself would try for minutes.
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if "://" in address or not host or not port.isdigit():
        raise InputError(
            f"--address {address}: give HOST:PORT as `ray start --head` prints it, or auto on a node of the cluster"
        )
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise InputError(
            f"--address {address}: nothing answers there ({error}); is the cluster up, and does `ray status "
            f"--address {address}` work from here?"
        ) from error


def _import_quietly(module: str) -> None:
    with suppress(Exception), without_collector():
        importlib.import_module(module)


def place(resources: ResourcesConfig, trainings: int, embedded: bool) -> Placement:
    """Resolve `auto` against the nodes that are up, with so many trainings ahead.

    Raises:
        InputError: no node can hold a trial (on a cluster that may grow this needs an explicit `concurrent_trials`).
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return placement_on(resources, trainings, nodes, embedded)


def placement_on(
    resources: ResourcesConfig, trainings: int, nodes: Sequence[Mapping[str, float]], embedded: bool
) -> Placement:
    """As `place`, on nodes that have these numbers of "CPU" and "GPU"."""
    if resources.gpus_per_trial == "auto":
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    else:
        gpus = float(resources.gpus_per_trial)
    if resources.cpus_per_trial == "auto":
        limit = math.inf if resources.concurrent_trials == "auto" else resources.concurrent_trials
        cpus = _cores_for_each(nodes, gpus, min(trainings, limit))
    else:
        cpus = float(resources.cpus_per_trial)
    fitting = _fitting(nodes, cpus, gpus)
    if resources.concurrent_trials == "auto":
        concurrent = fitting
    else:
        concurrent = int(resources.concurrent_trials)
    if concurrent < 1 or (embedded and not fitting):
        largest = ", ".join(_in_words(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes)
        hint = "" if embedded else "; on a cluster that grows on demand give resources.concurrent_trials a number"
        raise InputError(
            f"resources: a trial takes {_in_words(cpus, gpus)}, and no node has them ({largest}); "
            f"lower resources.cpus_per_trial or gpus_per_trial{hint}"
        )
    return Placement(
        cpus,
        gpus,
        concurrent,
        cores=sum(node.get("CPU", 0) for node in nodes),
        all_gpus=sum(node.get("GPU", 0) for node in nodes),
    )


def _cores_for_each(nodes: Sequence[Mapping[str, float]], gpus: float, at_once: float) -> float:
    """Two, unless fewer trials could then run at once.

    Two trials with a core each train 1.1 to 1.8 times as much as one after the other with both. Three cores and more
    for a trial have not been measured.
    """
    return 2.0 if _fitting(nodes, 2, gpus) >= min(at_once, _fitting(nodes, 1, gpus)) > 0 else 1.0


def _in_words(cpus: float, gpus: float) -> str:
    return f"{counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}"


def _fitting(nodes: Sequence[Mapping[str, float]], cpus: float, gpus: float) -> int:
    return sum(_fits(node, cpus, gpus) for node in nodes)


def _fits(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many trials one node holds."""
    by_cpu = int(node.get("CPU", 0) / cpus + 1e-9)
    if gpus == 0:
        return by_cpu
    on_gpus = node.get("GPU", 0)
    # A trial's share of a GPU is never split over two.
    by_gpu = int(on_gpus) * int(1 / gpus + 1e-9) if gpus < 1 else int(on_gpus / gpus + 1e-9)
    return min(by_cpu, by_gpu)


def probe_nodes(study: str, file: str) -> None:
    """Let every node show that it sees `file` in the study's folder, and has bvae-tune.

    Raises:
        InputError: names the nodes that do not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from bvae_tune.search.storage import sees

    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    probe = ray.remote(num_cpus=0, max_retries=0)(sees)
    answers = {
        node: probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(study, file)
        for node in nodes
    }
    problems = []
    for node, answer in answers.items():
        try:
            if not ray.get(answer, timeout=60):
                problems.append(f"{nodes[node]}: does not see it")
        except Exception as error:
            problems.append(f"{nodes[node]}: {str(error).strip().splitlines()[-1]}")
    if problems:
        raise InputError(
            f"{study}: every node must see the study's folder and have bvae-tune installed. "
            + "; ".join(problems)
            + ". Put --storage on a folder that all nodes share"
        )
