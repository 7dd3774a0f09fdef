"""What a stranger installs: the wheel, the pinned environment, and the promises in pyproject.toml. Seed: none."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import bvae_tune


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    lines = (root / "cluster" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def installed_elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel alone, unpacked where neither the repository nor its environment's own installation is."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run([*command, "--disable-pip-version-check"], check=True, capture_output=True)
    return target


def requirements(project: dict[str, Any]) -> list[Requirement]:
    lists = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    return [Requirement(text) for texts in lists for text in texts]


def closure(wanted: list[Requirement]) -> set[str]:
    """The named distributions and everything that they need here, by canonical name."""
    todo = [(canonicalize_name(requirement.name), frozenset(requirement.extras)) for requirement in wanted]
    seen = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) not in seen:
            seen.add((name, extras))
            for needed in map(Requirement, importlib.metadata.requires(name) or []):
                if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                    todo.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    return {name for name, _ in seen}


def test_constraints_pin_exactly_what_is_installed(project: dict[str, Any], pins: dict[str, str]) -> None:
    # A CUDA build of torch pins its own libraries exactly.
    needed = {name for name in closure(requirements(project)) if not name.startswith(("nvidia-", "cuda-", "triton"))}
    assert needed - set(pins) == set(), "needed but not pinned in cluster/constraints.txt"
    assert set(pins) - needed == set(), "pinned in cluster/constraints.txt but needed by nothing"
    differing = {name for name in needed if Version(importlib.metadata.version(name)).public != pins[name]}
    assert differing == set(), "installed in another version than cluster/constraints.txt pins"


def test_pins_satisfy_the_declared_minimums(project: dict[str, Any], pins: dict[str, str]) -> None:
    for requirement in requirements(project):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
    assert pins["torch"] == "2.13.0"
    assert pins["ray"] == "2.60.0"


def test_every_import_is_declared_and_every_dependency_is_imported(project: dict[str, Any], root: Path) -> None:
    imported = set()
    for source in (root / "bvae_tune").rglob("*.py"):
        imported |= set(re.findall(r"^\s*(?:from|import) (\w+)", source.read_text(), re.MULTILINE))
    imported -= {"bvae_tune", "__future__"} | set(sys.stdlib_module_names)
    providers = importlib.metadata.packages_distributions()
    used = {canonicalize_name(providers[name][0]) for name in imported}
    declared = {canonicalize_name(Requirement(text).name) for text in project["project"]["dependencies"]}
    assert used == declared


def test_every_package_folder_is_listed(project: dict[str, Any], root: Path) -> None:
    folders = {source.parent.relative_to(root) for source in (root / "bvae_tune").rglob("*.py")}
    listed = set(project["tool"]["setuptools"]["packages"])
    assert {".".join(folder.parts) for folder in folders} | {"bvae_tune.search_spaces"} == listed
    assert all((root / folder / "__init__.py").exists() for folder in folders)


def test_wheel_holds_spaces_types_and_licence(wheel: Path, root: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(path.relative_to(root)) for path in (root / "bvae_tune").rglob("*.py")}
    spaces = {f"bvae_tune/search_spaces/{path.name}" for path in (root / "search_spaces").glob("*.yaml")}
    assert spaces
    assert sources | spaces | {"bvae_tune/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"bvae_tune", f"bvae_tune-{wheel.name.split('-')[1]}.dist-info"}


def test_shipped_spaces_are_found_by_name_from_any_folder(
    installed_elsewhere: Path, tmp_path: Path, root: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed_elsewhere)}
    for space in sorted(path.stem for path in (root / "search_spaces").glob("*.yaml")):
        code = f"import bvae_tune, bvae_tune.space as s; print(bvae_tune.__file__); s.load_space({space!r})"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).is_relative_to(installed_elsewhere)


def test_versions_agree(project: dict[str, Any], root: Path) -> None:
    version = project["project"]["version"]
    assert bvae_tune.__version__ == version
    assert f"version: {version}\n" in (root / "CITATION.cff").read_text()
    assert f"\n## {version}" in (root / "CHANGELOG.md").read_text()
    for cluster in ("gpu.yaml", "local.yaml"):
        text = (root / "cluster" / cluster).read_text()
        assert set(re.findall(r"bvae_tune-([\d.]+)-py3", text)) == {version}
