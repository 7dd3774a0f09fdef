"""cluster/local.yaml brought up: an SSH server, `ray up`, a search by `ray exec`, `ray down`. Seed: 0 (the space's).

The machine of the cluster is this one, seen through an SSH server of the test's own. The server runs in a process
namespace of its own, because `ray stop` ends every Ray process that it can see, and with a home folder of its own, so
that nothing of the user's is touched and nothing is left behind.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

import bvae_tune

NEEDED = ("sshd", "ssh", "ssh-keygen", "rsync", "unshare")
SEARCH = " ".join(
    (
        "bvae-tune search --space shapes --address auto --trials 2 --name smoke --storage ~/runs",
        "--set training.steps=20 --set training.report_every=10 --set labels.count=500",
        "--set metric.train_points=500 --set metric.test_points=500",
    )
)


@dataclass(frozen=True)
class Machine:
    """A machine to log in to."""

    home: Path
    key: Path
    temporary: Path
    server: psutil.Process

    def ray_processes(self) -> list[str]:
        """The names of the Ray processes that run there."""
        children = self.server.children(recursive=True)
        return sorted(child.name() for child in children if child.name() in {"gcs_server", "raylet"})


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("an SSH server on port 22 needs root")
    missing = [name for name in NEEDED if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin") is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: openssh-server, openssh-client, rsync, util-linux)")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 22)) == 0:
            pytest.skip(
                "port 22 of 127.0.0.1 is taken; the test brings an SSH server of its own, and Ray knows no other port"
            )

    home, secrets = tmp_path / "home", tmp_path / "ssh"
    home.mkdir()
    (home / ".bashrc").touch()
    temporary = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets stand below it
    secrets.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(secrets / name)], check=True)
    # pip there reads the same settings as here.
    settings = {"HOME": str(home), "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME", str(Path.home() / ".config"))}
    settings |= {"RAY_TMPDIR": str(temporary)} | {
        name: value for name, value in os.environ.items() if name.startswith("PIP_")
    }
    lines = [
        "Port 22",
        "ListenAddress 127.0.0.1",
        f"HostKey {secrets / 'host'}",
        f"AuthorizedKeysFile {secrets / 'user.pub'}",
        "StrictModes no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "UsePAM no",
        "PermitRootLogin prohibit-password",
        "PidFile none",
        "SetEnv " + " ".join(f'"{name}={value}"' for name, value in settings.items()),
    ]
    (secrets / "sshd_config").write_text("\n".join(lines) + "\n")
    Path("/run/sshd").mkdir(exist_ok=True)
    sshd = shutil.which("sshd", path="/usr/sbin:" + os.environ["PATH"])
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", str(sshd), "-D", "-e"]
    log = tmp_path / "sshd.log"
    with log.open("w") as stream:
        server = subprocess.Popen([*command, "-f", str(secrets / "sshd_config")], stderr=stream)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", 22)) == 0:
                    break
            time.sleep(0.1)
        else:
            pytest.fail(f"the SSH server did not come up: {log.read_text()}")
        yield Machine(home, secrets / "user", temporary, psutil.Process(server.pid))
    finally:
        server.kill()  # unshare's --kill-child ends the whole namespace with it
        server.wait()
        shutil.rmtree(temporary)


def cluster_file(root: Path, folder: Path, machine: Machine, wheel: Path) -> Path:
    """cluster/local.yaml with what its comments say to change."""
    config = yaml.safe_load((root / "cluster" / "local.yaml").read_text())
    config["cluster_name"] = f"bvae-tune-test-{os.getpid()}"
    config["auth"] = {"ssh_user": getpass.getuser(), "ssh_private_key": str(machine.key)}
    token = folder / "auth_token"
    token.write_text("0123456789abcdef" * 4)
    local = {"cluster/constraints.txt": root / "cluster/constraints.txt", "~/.ray/auth_token": token, "dist": wheel}
    for remote, source in config["file_mounts"].items():
        config["file_mounts"][remote] = str(local["dist" if source.startswith("dist/") else source])
    path = folder / "local.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def ray(machine: Machine, *arguments: str) -> str:
    """Runs one of Ray's cluster commands as a user would, and returns all that it printed."""
    temporary = {"RAY_TMPDIR": str(machine.temporary), "TMPDIR": str(machine.temporary)}
    environment = {**os.environ, **temporary, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [str(Path(sys.executable).with_name("ray")), *arguments]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800, check=False
    )
    print(f"$ ray {' '.join(arguments)}\n{done.stdout}")
    assert done.returncode == 0
    return done.stdout


@pytest.mark.soak
def test_up_search_down(root: Path, tmp_path: Path, machine: Machine, wheel: Path) -> None:
    file = str(cluster_file(root, tmp_path, machine, wheel))

    ray(machine, "up", "--yes", "--no-config-cache", file)
    assert machine.ray_processes() == ["gcs_server", "raylet"]

    said = ray(machine, "exec", "--no-config-cache", file, SEARCH)
    assert "smoke" in said
    study = bvae_tune.load(str(machine.home / "runs" / "smoke"))
    assert [trial.state for trial in study.trials] == ["complete", "complete"]
    assert study.best is not None

    refused = ray(machine, "exec", "--no-config-cache", file, "RAY_AUTH_TOKEN=wrong ray status || true")
    assert "InvalidAuthToken" in refused

    ray(machine, "down", "--yes", file)
    assert machine.ray_processes() == []
