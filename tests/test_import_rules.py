"""The import rules of the architecture, read from the sources and from a fresh interpreter. Seed: none."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# From the ground floor up; a room may import the rooms of lower floors only, and itself.
FLOORS = (
    {"errors", "randomness", "wording"},
    {"metrics", "data", "models"},
    {"training"},
    {"evaluation", "inspection"},
    {"space_config", "space_file"},
    {"space"},
    {"search"},
    {"experiments"},
    {"reporting"},
    {"cli"},
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = {"ray", "optuna", "pydantic", "typer"}
PACKAGE = Path(__file__).parents[1] / "bvae_tune"


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(source: Path) -> str:
    parts = source.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: Path) -> Iterator[tuple[str, bool]]:
    """Each imported module's full name, and whether the import runs when the module is imported."""
    tree = ast.parse(source.read_text())
    package = module_of(source) if source.name == "__init__.py" else module_of(source).rpartition(".")[0]
    late = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_type_checking(outer)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node not in late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(
                    [*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [base])]
                )
            yield base, node not in late
            yield from ((f"{base}.{alias.name}", node not in late) for alias in node.names)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def room(module: str) -> str | None:
    """The room of a module of the project; None for the package itself and for other people's modules."""
    parts = module.split(".")
    return parts[1] if parts[0] == "bvae_tune" and len(parts) > 1 else None


def test_every_module_stands_in_a_room() -> None:
    assert {room(module_of(source)) for source in sources()} - {None} <= set(LEVEL), "name the new room's floor above"


@pytest.mark.parametrize("source", sources(), ids=module_of)
def test_imports_run_down_only(source: Path) -> None:
    own = room(module_of(source))
    for imported, _ in imports(source):
        other = room(imported)
        # The package's own __init__ is the front door, which names what lies behind it.
        if own is not None and other in LEVEL and other != own:
            assert LEVEL[other] < LEVEL[own], f"{module_of(source)} imports {imported}, which is not on a lower floor"


@pytest.mark.parametrize("source", sources(), ids=module_of)
def test_rooms_below_space_know_no_framework(source: Path) -> None:
    own = room(module_of(source))
    below = own in LEVEL and LEVEL[own] < LEVEL["space"]
    found = {imported.split(".")[0] for imported, _ in imports(source)} & HEAVY
    assert not (below and found), f"{module_of(source)} imports {found}"


def test_no_cycles_among_modules() -> None:
    names = {module_of(source) for source in sources()}
    graph = {
        module_of(source): {name for name, at_once in imports(source) if at_once and name in names}
        for source in sources()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for imported in sorted(graph[module] - {module}):
                visit(imported, (*path, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("bvae_tune", ("torch", "ray", "optuna", "matplotlib")),
        ("bvae_tune.cli.main", ("torch", "ray", "optuna", "matplotlib")),
        ("bvae_tune.search.runner", ("torch", "ray", "scipy", "sklearn", "pandas")),
        ("bvae_tune.search.trial_run", ("ray", "scipy", "sklearn", "pandas")),
    ],
)
def test_front_doors_stay_light(module: str, heavy: tuple[str, ...]) -> None:
    """A person waits for these before anything happens, or before the first step of a worker's first trial."""
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
