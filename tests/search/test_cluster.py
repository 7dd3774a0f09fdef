from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from bvae_tune.errors import InputError
from bvae_tune.search.cluster import placement_on, probe_nodes, ray_session
from bvae_tune.search.runner import search
from bvae_tune.space_config import ResourcesConfig

TWO_CORES = {"CPU": 2.0}
EIGHT_GPUS = {"CPU": 32.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("resources", "nodes", "expected"),
    [
        ({}, [TWO_CORES], (1, 0, 2)),
        ({"cpus_per_trial": 2}, [TWO_CORES], (2, 0, 1)),
        ({"cpus_per_trial": 0.5}, [TWO_CORES], (0.5, 0, 4)),
        ({}, [TWO_CORES, {"CPU": 3.0}], (1, 0, 5)),
        ({"cpus_per_trial": 2}, [{"CPU": 3.0}, {"CPU": 3.0}], (2, 0, 2)),
        ({}, [EIGHT_GPUS], (2, 1, 8)),
        ({}, [TWO_CORES, EIGHT_GPUS], (2, 1, 8)),
        ({"gpus_per_trial": 0.25}, [EIGHT_GPUS], (1, 0.25, 32)),
        ({"gpus_per_trial": 0.4}, [EIGHT_GPUS], (2, 0.4, 16)),
        ({"gpus_per_trial": 0.1, "cpus_per_trial": 2}, [EIGHT_GPUS], (2, 0.1, 16)),
        ({"gpus_per_trial": 2}, [EIGHT_GPUS], (2, 2, 4)),
        ({"gpus_per_trial": 0}, [EIGHT_GPUS], (1, 0, 32)),
        ({"concurrent_trials": 3}, [EIGHT_GPUS], (2, 1, 3)),
    ],
)
def test_auto_is_a_gpu_if_there_is_one_and_as_many_of_many_trials_as_fit(
    resources: dict[str, Any], nodes: list[dict[str, float]], expected: tuple[float, float, int]
) -> None:
    placement = placement_on(ResourcesConfig(**resources), 1000, nodes, embedded=True)
    assert (placement.cpus, placement.gpus, placement.concurrent) == expected
    assert placement.cores == sum(node["CPU"] for node in nodes)
    assert placement.threads == max(1, int(expected[0]))


@pytest.mark.parametrize(
    ("resources", "trainings", "nodes", "expected"),
    [
        ({}, 1, [TWO_CORES], (2, 1)),
        ({}, 2, [TWO_CORES], (1, 2)),
        ({"concurrent_trials": 1}, 13, [TWO_CORES], (2, 1)),
        ({}, 1, [{"CPU": 1.0}], (1, 1)),
        ({}, 6, [{"CPU": 12.0}], (2, 6)),
        ({}, 7, [{"CPU": 12.0}], (1, 12)),
        ({}, 2, [{"CPU": 3.0}, {"CPU": 3.0}], (2, 2)),
        ({}, 3, [{"CPU": 3.0}, {"CPU": 3.0}], (1, 6)),
        ({}, 1, [{"CPU": 1.0}, {"CPU": 1.0}], (1, 2)),
    ],
)
def test_auto_gives_a_trial_two_cores_where_that_keeps_no_other_waiting(
    resources: dict[str, Any], trainings: int, nodes: list[dict[str, float]], expected: tuple[float, int]
) -> None:
    placement = placement_on(ResourcesConfig(**resources), trainings, nodes, embedded=True)
    assert (placement.cpus, placement.concurrent) == expected


def test_what_no_node_can_hold_is_refused() -> None:
    for resources in ({"cpus_per_trial": 4}, {"gpus_per_trial": 1}, {"gpus_per_trial": 1, "concurrent_trials": 2}):
        with pytest.raises(InputError, match=r"no node has them \(2 CPUs and 0 GPUs\)"):
            placement_on(ResourcesConfig(**resources), 10, [TWO_CORES], embedded=True)
    growing = placement_on(ResourcesConfig(gpus_per_trial=1, concurrent_trials=4), 10, [TWO_CORES], embedded=False)
    assert (growing.cpus, growing.concurrent) == (1, 4)
    with pytest.raises(InputError, match=r"give resources\.concurrent_trials a number"):
        placement_on(ResourcesConfig(gpus_per_trial=1), 10, [TWO_CORES], embedded=False)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere.invalid:6379"])
def test_an_address_where_nothing_answers_is_bad_input(address: str) -> None:
    with pytest.raises(InputError, match=f"--address {address}: nothing answers there"), ray_session(address):
        pass


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "head", ":6379", "head:port"])
def test_an_address_in_another_form_is_bad_input(address: str) -> None:
    with pytest.raises(InputError, match=r"give HOST:PORT as `ray start --head` prints it"), ray_session(address):
        pass


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[str]:
    """The address of a cluster of two nodes with a core each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
    try:
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def test_a_study_runs_on_both_nodes_of_a_cluster(
    make_space: Callable[..., dict[str, Any]], two_nodes: str, tmp_path: Path
) -> None:
    space = make_space(
        search={"trials": 4, "baselines": []},
        training={"steps": 6_000, "report_every": 1_500},
        resources={"concurrent_trials": "auto"},
    )
    study = search(space, name="two nodes", storage=tmp_path, address=two_nodes)
    assert [trial.state for trial in study.trials] == ["complete"] * 4
    nodes = {trial.user_attrs["node"] for trial in study.searched.trials}
    assert len(nodes) == 2
    assert study.sessions[0]["concurrent"] == 2
    assert not ray.is_initialized()

    (tmp_path / "probe").touch()
    with ray_session(two_nodes):
        probe_nodes(str(tmp_path), "probe")
        with pytest.raises(InputError, match=r"every node must see the study's folder.*does not see it.*--storage"):
            probe_nodes(str(tmp_path), "not there")


# Over $0, hidden from the nodes; tells what lies there after the command.
MOUNT = 'mount -t tmpfs tmpfs "$0" && { "$@"; code=$?; ls -A "$0"; exit $code; }'


def test_a_folder_that_the_nodes_do_not_see_is_refused_before_anything_runs(
    make_space: Callable[..., dict[str, Any]],
    two_nodes: str,
    own_mounts: list[str],
    command: list[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(make_space()))
    arguments = ["search", "--space", tmp_path / "space.yaml", "--storage", tmp_path / "runs", "--address", two_nodes]
    search = [*own_mounts, MOUNT, tmp_path / "runs", *command, *arguments]
    refused = subprocess.run(search, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "every node must see the study's folder" in refused.stderr
    assert refused.stdout == ""
