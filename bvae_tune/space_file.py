"""A search space's YAML as plain data that still knows which line each key came from."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bvae_tune.errors import InputError

KeyPath = tuple[str | int, ...]


class _SafeLoader(yaml.SafeLoader):
    """SafeLoader (YAML 1.1) that reads 2e-3 as the number it is, wherever it stands."""


_SafeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass
class SpaceFile:
    """Plain data (dicts, lists, scalars) and where each part of it was written."""

    name: str
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overridden: dict[KeyPath, str] = field(default_factory=dict)

    def named_last(self, *paths: KeyPath) -> KeyPath:
        """Which of the keys that do not go together is to be blamed: the one set last, else the first."""
        settings = list(enumerate(self.overridden))
        return max(paths, key=lambda path: max((i for i, key in settings if path[: len(key)] == key), default=-1))

    def where(self, path: KeyPath) -> str:
        """`shapes.yaml, line 4, training.steps` or `--set training.steps=x`, for the start of a message."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.overridden:
                return f"--set {self.overridden[path[:length]]}"
        if path not in self.lines:  # a group that only settings mention
            for target, setting in self.overridden.items():
                if path and target[: len(path)] == path:
                    return f"--set {setting}"
        key = ".".join(str(part) for part in path)
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name}, line {self.lines[path[:length]]}, {key}"
        return ", ".join(part for part in (self.name, key) if part)


def packaged_spaces() -> dict[str, Path]:
    """The search spaces that come with the package, by name: from the wheel, else from the checkout's top level."""
    package = Path(__file__).parent
    inside = package / "search_spaces"
    folder = inside if inside.is_dir() else package.parent / "search_spaces"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_space(path_or_name: str | Path) -> Path:
    """The file of a search space given as a file or as the name of a packaged one; InputError where there is none."""
    path = Path(path_or_name)
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"--space {path}: this is a folder; give a YAML file or the name of a packaged search space")
    packaged = packaged_spaces()
    if str(path_or_name) in packaged:
        return packaged[str(path_or_name)]
    raise InputError(
        f"--space {path_or_name}: there is no such file, and no packaged search space of that name "
        f"(packaged: {', '.join(packaged)})"
    )


def read_space_file(path: Path) -> SpaceFile:
    """Read a YAML file; InputError names the line of a syntax error, of a key given twice, of a non-mapping root."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}") from error
    loader = _SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None and not isinstance(node, yaml.MappingNode):
            raise InputError(f"{path}, line 1: a search space is a mapping of keys (dataset:, model:, space:, ...)")
        lines: dict[KeyPath, int] = {}
        if node is not None:
            _note_lines(str(path), node, (), lines)
        data = {} if node is None else loader.construct_document(node)
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{path}: a part of it contains itself (through an anchor, &name and *name)") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-99-99
        raise InputError(f"{path}: not valid YAML: {error}") from error
    finally:
        loader.dispose()
    return SpaceFile(str(path), data, lines)


def _note_lines(name: str, node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            line = key.start_mark.line + 1
            if inner in lines:
                dotted = ".".join(str(part) for part in inner)
                raise InputError(f"{name}, line {line}, {dotted}: given twice (first on line {lines[inner]})")
            lines[inner] = line
            _note_lines(name, value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            _note_lines(name, value, (*path, index), lines)


def read_mapping(data: Mapping[str, Any]) -> SpaceFile:
    """A search space given as a dictionary from Python."""
    return SpaceFile("search space", copy.deepcopy(dict(data)))


def override(file: SpaceFile, settings: Sequence[str]) -> None:
    """Apply `key=value` settings in order; the value is read as YAML.

    `model.beta=4`, `space.beta={uniform: [1, 4]}`, `space.training.batch_size=null` (no longer searched). In `space`
    everything after the first dot is one key. Raises InputError for text without `=` and for a value that is no YAML.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        parts = tuple(part.strip() for part in key.strip().split(".", 1 if key.strip().startswith("space.") else -1))
        if not equals or not all(parts):
            raise InputError(f"--set {setting}: write key=value, as in --set training.steps=2000")
        try:
            value = _SafeLoader(text).get_single_data()
        except yaml.MarkedYAMLError as error:
            problem = error.problem or error.context
            raise InputError(f"--set {setting}: the value is not valid YAML: {problem}") from error
        except (yaml.YAMLError, ValueError) as error:
            raise InputError(f"--set {setting}: the value is not valid YAML: {error}") from error
        target = file.data
        for part in parts[:-1]:
            inner = target.get(part)
            if inner is None:
                inner = target[part] = {}
            if not isinstance(inner, dict):
                raise InputError(f"--set {setting}: {part} is not a group of keys")
            target = inner
        target[parts[-1]] = value
        # Of those in force only, in the order of their last mention.
        for older in [key for key in file.overridden if key[: len(parts)] == parts]:
            del file.overridden[older]
        file.overridden[parts] = setting
