"""The cluster files as Ray's own launcher reads them, without a network and without credentials. Seed: none."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.providers import _get_node_provider_cls
from ray.autoscaler._private.util import prepare_config, validate_config

from bvae_tune.space import load_space

FILES = ("gpu.yaml", "local.yaml")


def load(root: Path, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((root / "cluster" / name).read_text())
    return loaded


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, and an error for whoever opens a connection."""

    def refuse(*_: object) -> None:
        raise AssertionError("the check of a cluster file must not need a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(root: Path, name: str) -> None:
    prepared = prepare_config(load(root, name))
    validate_config(prepared)
    # What `ray up` imports next: for AWS it needs boto3, which the test extra brings.
    assert _get_node_provider_cls(prepared["provider"]) is not None


@pytest.mark.usefixtures("offline")
def test_ray_refuses_a_broken_file(root: Path) -> None:
    config = load(root, "gpu.yaml")
    config["head_node_type"] = "heed"
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", FILES)
def test_token_and_dashboard(root: Path, name: str) -> None:
    config = load(root, name)
    token = "~/bvae-tune/auth_token"
    assert config["file_mounts"][token] == "~/.ray/auth_token"
    (environment,) = (command for command in config["setup_commands"] if command.endswith("> ~/bvae-tune/env"))
    assert "RAY_AUTH_MODE=token" in environment
    assert f"RAY_AUTH_TOKEN_PATH={token}" in environment
    (start,) = (command for command in config["head_start_ray_commands"] if "ray start" in command)
    assert "--dashboard-host=127.0.0.1" in start


@pytest.mark.parametrize("name", FILES)
def test_sends_and_installs_the_wheel_under_the_constraints(root: Path, name: str) -> None:
    config = load(root, name)
    sources = {local: remote for remote, local in config["file_mounts"].items()}
    (wheel,) = (local for local in sources if local.endswith(".whl"))
    assert (root / "cluster/constraints.txt").exists()
    install = [
        command
        for command in config["setup_commands"]
        if f"pip install --quiet --constraint {sources['cluster/constraints.txt']}" in command
    ]
    assert len(install) == 1
    assert install[0].endswith(sources[wheel])


def test_gpu_workers_are_spot_from_zero_and_the_head_is_not(root: Path) -> None:
    config = prepare_config(load(root, "gpu.yaml"))
    kinds = dict(config["available_node_types"])
    head = kinds.pop(config["head_node_type"])
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}
    assert kinds
    for kind in kinds.values():
        assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert kind["min_workers"] == 0
        assert 0 < kind["max_workers"] <= config["max_workers"]
        assert kind["resources"]["GPU"] > 0


def test_every_machine_mounts_the_folder_that_the_search_is_told_of(root: Path) -> None:
    text = (root / "cluster" / "gpu.yaml").read_text()
    (storage,) = set(re.findall(r"--storage (\S+)", text))
    mounts = [command for command in load(root, "gpu.yaml")["initialization_commands"] if "mount -t nfs4" in command]
    assert len(mounts) == 1
    assert mounts[0].endswith(f":/ {storage}")


def test_worked_example_is_one_command_whose_resources_add_up(root: Path) -> None:
    head = (root / "cluster" / "gpu.yaml").read_text().partition("\n\n")[0]
    commands = "\n".join(line.lstrip("#") for line in head.splitlines())
    (pasted,) = re.findall(r"\.venv/bin/(ray exec .*?\")$", commands, re.MULTILINE | re.DOTALL)
    shown = "ray() { printf '%s' \"${@: -1}\"; }\n" + pasted  # the last word that the shell gives Ray
    told = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True).stdout
    assert "\n" not in told, "Ray's shell on the head would take a second line for another command"
    words = shlex.split(told)
    assert words[:2] == ["bvae-tune", "search"]
    settings = [value for flag, value in pairwise(words) if flag == "--set"]
    example = load_space(words[words.index("--space") + 1], settings).resources
    assert isinstance(example.cpus_per_trial, int | float)
    assert isinstance(example.gpus_per_trial, int | float)
    assert isinstance(example.concurrent_trials, int)
    config = load(root, "gpu.yaml")
    worker = config["available_node_types"]["gpu_spot"]
    machines = config["max_workers"]
    assert example.concurrent_trials * example.gpus_per_trial == machines * worker["resources"]["GPU"]
    assert example.concurrent_trials * example.cpus_per_trial <= machines * worker["resources"]["CPU"]
