"""The search space: one pydantic root over the rooms' own frozen dataclasses, and the checks across rooms."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from bvae_tune.data.labels import LabelsConfig
from bvae_tune.data.sources import DatasetConfig
from bvae_tune.errors import InputError
from bvae_tune.metrics.config import MetricConfig, ProtocolConfig
from bvae_tune.models.config import ModelConfig
from bvae_tune.space_config import KINDS, Distribution, ResourcesConfig, Scalar, SearchConfig
from bvae_tune.space_file import KeyPath, SpaceFile, find_space, override, read_mapping, read_space_file
from bvae_tune.training.config import TrainingConfig, check_training

_SHORT_NAMES = {"beta": "model.beta", "beta_norm": "model.beta_norm", "latent_size": "model.latent_size"}
_SEARCHABLE = {"model": ModelConfig, "training": TrainingConfig}


class StudyConfig(BaseModel):
    """A resolved search space. `space` maps dotted keys (`model.beta`) to what they are drawn from."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dataset: DatasetConfig = DatasetConfig()
    labels: LabelsConfig = LabelsConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    metric: MetricConfig = MetricConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    space: dict[str, Distribution] = {}
    search: SearchConfig = SearchConfig()
    resources: ResourcesConfig = ResourcesConfig()

    @model_validator(mode="after")
    def _model_and_training_fit(self) -> StudyConfig:
        check_training(self.model, self.training)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `load_space` reads back to an equal configuration."""
        data = self.model_dump(mode="json")
        data["space"] = {short_key(key): _write_distribution(value) for key, value in self.space.items()}
        return data

    def to_yaml(self) -> str:
        """The whole configuration, defaults included, as a search space's YAML."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def load_space(space: str | Path | Mapping[str, Any] | StudyConfig, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read and check a search space.

    Args:
        space: a YAML file, the name of a packaged search space (`shapes`), the same as a dictionary, or a
            configuration already loaded.
        overrides: `key=value` settings, as the command line's `--set`.

    Raises:
        InputError: names file, line, key, value and what would be right, for every mistake found.
    """
    if isinstance(space, StudyConfig):
        file = read_mapping(space.to_dict())
    elif isinstance(space, Mapping):
        file = read_mapping(space)
    else:
        file = read_space_file(find_space(space))
    override(file, overrides)
    data = _plain(file.data)
    if not isinstance(data.get("space", {}) or {}, dict):
        raise InputError(f"{file.where(('space',))}: a mapping of keys to distributions, as beta: {{uniform: [1, 4]}}")
    written = data.get("space") or {}
    data["space"], paths = _read_distributions(file, written)
    config = _validate(file, data, paths)
    _check_across(file, config, data, paths)
    return config


def full_key(name: str) -> str:
    """The dotted key of a searched one: `beta` is `model.beta`; dotted keys stay as they are."""
    return _SHORT_NAMES.get(name, name)


def short_key(key: str) -> str:
    """The name to show: `model.beta` is `beta`, `training.learning_rate` stays."""
    return next((short for short, full in _SHORT_NAMES.items() if full == key), key)


def searchable_keys() -> tuple[str, ...]:
    """Every dotted key that `space` may name."""
    return tuple(f"{room}.{name}" for room, config in _SEARCHABLE.items() for name in _fields(config))


def configure(config: StudyConfig, parameters: Mapping[str, Any]) -> tuple[ModelConfig, TrainingConfig]:
    """The model and training of a trial: the study's own, with the trial's values in their places.

    Keys are dotted or short. A given beta replaces the study's beta_norm, and the other way round. Raises InputError
    for an unknown key and for values that do not fit.
    """
    data: dict[str, Any] = {
        "model": dataclasses.asdict(config.model),
        "training": dataclasses.asdict(config.training),
    }
    for name, value in parameters.items():
        room, _, key = full_key(name).partition(".")
        if key not in data.get(room, {}):
            raise InputError(f"{name}: {_unknown(name, (*_SHORT_NAMES, *searchable_keys()))}")
        data[room][key] = _from_choice(room, key, value)
        other = {"beta": "beta_norm", "beta_norm": "beta"}.get(key) if room == "model" else None
        if other and value is not None and full_key(other) not in map(full_key, parameters):
            data[room][other] = None
    checked = _validate(SpaceFile("", data), _plain(data), {})
    return checked.model, checked.training


def _fields(config: Any) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(config))


def _plain(value: Any) -> Any:
    """JSON's types only, so that pydantic can be strict; 1e4 is a whole number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, Scalar) else str(value)


def _read_distributions(
    file: SpaceFile, written: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Distributions as their fields by dotted key, and how each key was written."""
    known = searchable_keys()
    read: dict[str, dict[str, Any]] = {}
    paths: dict[str, str] = {}
    for name, body in written.items():
        where, key = file.where(("space", name)), full_key(name)
        if key not in known:
            raise InputError(f"{where}: this key cannot be searched; {_unknown(name, (*_SHORT_NAMES, *known))}")
        if key in paths and ("space", name) not in file.overridden:
            raise InputError(f"{where}: the same key as {paths[key]}; give it once")
        if body is None:  # as --set space.beta=null leaves it
            read.pop(key, None)
            continue
        if not isinstance(body, dict) or len(body) != 1:
            raise InputError(f"{where} is {body!r}; give one distribution, as in {name}: {{uniform: [1, 4]}}")
        kind, values = next(iter(body.items()))
        if kind not in KINDS:
            raise InputError(f"{where}: no distribution is called {_unknown(kind, KINDS)}")
        if not isinstance(values, list):
            raise InputError(f"{where}: {kind} is {values!r}; give a list, as in {{{kind}: [1, 4]}}")
        paths[key] = name
        if kind in ("categorical", "grid"):
            read[key] = {"kind": kind, "choices": [json.dumps(v) if isinstance(v, list) else v for v in values]}
        elif len(values) == 2:
            read[key] = {"kind": kind, "low": values[0], "high": values[1]}
        else:
            raise InputError(f"{where}: {kind} is {values!r}; give a low and a high bound, as in {{{kind}: [1, 4]}}")
    return read, paths


def _write_distribution(distribution: Distribution) -> dict[str, list[Any]]:
    if not distribution.choices:
        return {distribution.kind: [distribution.low, distribution.high]}
    return {
        distribution.kind: [
            json.loads(v) if isinstance(v, str) and v.startswith("[") else v for v in distribution.choices
        ]
    }


def _from_choice(room: str, key: str, value: Any) -> Any:
    hint = get_type_hints(_SEARCHABLE[room])[key]
    return json.loads(value) if isinstance(value, str) and value.startswith("[") and "tuple" in str(hint) else value


def _validate(file: SpaceFile, data: Mapping[str, Any], paths: Mapping[str, str]) -> StudyConfig:
    try:
        return StudyConfig.model_validate_json(json.dumps(data))
    except ValidationError as error:
        messages: dict[str, list[str]] = {}
        for details in error.errors(include_url=False):
            path, message = _explain(file, data, details["loc"], details)
            if path[:1] == ("space",) and len(path) > 1:
                path = ("space", paths.get(str(path[1]), path[1]))
            alternatives = messages.setdefault(file.where(path), [])
            if message not in alternatives:
                alternatives.append(message)
        raise InputError("\n".join(f"{where}: {', or '.join(found)}" for where, found in messages.items())) from None


def _explain(file: SpaceFile, data: Any, location: KeyPath, details: Any) -> tuple[KeyPath, str]:
    """Where in `data` a pydantic error lies (its loc also names union branches), and what to say of it."""
    path: KeyPath = ()
    value = data
    for part in location:
        inside = (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int))
        if not inside:
            break
        path, value = (*path, part), value[part]
    kind = details["type"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return path, f"there is no such key; {_unknown_key(path)}"
    if kind == "value_error":
        keys, colon, message = str(details["ctx"]["error"]).partition(": ")
        # The rooms' messages open with the key that they are about, or with those that do not go together.
        if colon and re.fullmatch(r"\w+\.\w+(, \w+\.\w+)*", keys):
            return file.named_last(*(tuple(key.split(".")) for key in keys.split(", "))), message
        return path, str(details["ctx"]["error"])
    if kind == "literal_error":
        options = [option.strip(" '") for option in details["ctx"]["expected"].replace(" or ", ",").split(",")]
        return path, f"not {_unknown(str(value), options)}"
    if kind in ("list_type", "tuple_type"):
        return path, f"is {value!r}, but should be a list, as in [{value}]"
    if kind == "dataclass_type":
        return path, f"is {value!r}, but must be a group of keys"
    return path, f"is {value!r}, but {details['msg'].replace('Input should', 'should')}"


def _unknown_key(path: KeyPath) -> str:
    """As `_unknown`, of a key of the file or of one of its groups; a key that another group has is sent there."""
    groups = {
        name: _fields(field.annotation)
        for name, field in StudyConfig.model_fields.items()
        if dataclasses.is_dataclass(field.annotation)
    }
    key = str(path[-1])
    homes = [f"{group}.{key}" for group, keys in groups.items() if key in keys]
    known = groups[str(path[0])] if len(path) > 1 else tuple(StudyConfig.model_fields)
    if homes:
        return f"{key!r}, did you mean {' or '.join(homes)}? (allowed: {', '.join(known)})"
    return _unknown(key, known)


def _unknown(given: str, allowed: Iterable[str]) -> str:
    """`'betta', did you mean beta? (allowed: ...)`."""
    options = list(allowed)
    close = difflib.get_close_matches(given, options, n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    return f"{given!r}{hint} (allowed: {', '.join(options)})"


def _check_across(file: SpaceFile, config: StudyConfig, data: dict[str, Any], paths: Mapping[str, str]) -> None:
    space, model, training, search = config.space, config.model, config.training, config.search

    def fail(message: str, *paths: KeyPath) -> None:
        raise InputError(f"{file.where(file.named_last(*paths))}: {message}")

    given = [key for key in ("beta", "beta_norm") if getattr(model, key) is not None]
    searched = [key for key in ("beta", "beta_norm") if full_key(key) in space]
    if len(searched) == 2:
        both = "beta and beta_norm are both searched; they fix each other, so search one"
        fail(both, ("space", paths["model.beta_norm"]), ("space", paths["model.beta"]))
    if given and searched:
        why = f"{searched[0]} is searched; {given[0]} follows from it, so take {given[0]} out"
        if given == searched:
            why = f"{given[0]} is searched, so that the one given is of no effect; take one of the two out"
        fail(why, ("model", given[0]), ("space", paths[full_key(searched[0])]))
    if not given and not searched and model.has_beta and model.default_beta is None:
        unset = [(room, key) for room in ("model", "space") for key in ("beta", "beta_norm")]
        fail("give beta or beta_norm, or search one of them", ("model",), *unset)
    if not model.has_beta and "beta=1" in search.baselines:
        no_beta = f"{model.architecture} has no β to set to 1; search.baselines: give [untrained] or []"
        fail(no_beta, ("search", "baselines"), ("model", "architecture"))

    sigma_searched = "model.sigma" in space
    always_bernoulli = model.likelihood == "bernoulli" and "model.likelihood" not in space
    if always_bernoulli and (sigma_searched or model.sigma != 1):
        sigma = ("space", paths["model.sigma"]) if sigma_searched else ("model", "sigma")
        why = "sigma is the gaussian likelihood's, and of no effect with bernoulli"
        fail(f"{why}; take it out or set it to 1, or give model.likelihood: gaussian", sigma, ("model", "likelihood"))

    for key, distribution in space.items():
        path = ("space", paths[key])
        room, _, name = key.partition(".")
        hint = str(get_type_hints(_SEARCHABLE[room])[name])
        if distribution.kind in ("uniform", "loguniform") and "float" not in hint:
            number = "int" in hint and "tuple" not in hint
            fail(
                f"{distribution.kind} draws fractions; " + ("use int or logint" if number else "use categorical"), path
            )
        if search.sampler == "grid" and not distribution.choices:
            instead = f"for {paths[key]} use grid or categorical instead of {distribution.kind}"
            fail(f"the grid sampler needs lists: {instead}", path, ("search", "sampler"))
        for value in distribution.extremes:
            try:
                configure(config, {key: value})
            except InputError as error:
                fail(f"{value!r} is not possible here ({error})", path)
            if value is None and name in ("beta", "beta_norm") and model.default_beta is None:
                fail("null leaves its trials without a β; give numbers only", path)

    if not space and search.sampler == "grid":
        fail("the grid sampler needs searched keys, and space names none", ("search", "sampler"))
    steps_fixed = not {"training.steps", "training.report_every"} & set(space)
    if steps_fixed and training.steps and training.steps % training.report_every:
        reports = max(1, round(training.steps / training.report_every))
        fail(
            f"steps {training.steps} is no multiple of report_every {training.report_every}; "
            f"steps {reports * training.report_every} would be",
            ("training", "report_every"),
            ("training", "steps"),
        )
    if config.resources.trials_per_bank > 1:
        together = ("resources", "trials_per_bank")
        if search.sampler != "grid" or search.pruner != "none":
            only = "trials share a bank in a grid without a pruner only: sampler grid, pruner none"
            fail(f"{only}, or trials_per_bank 1", together, ("search", "sampler"), ("search", "pruner"))
        if list(space)[-1] not in (full_key("beta"), full_key("beta_norm")):
            fail("trials that share a bank differ in β alone: name it as the last key of space", together)
    if search.min_resource is not None and "training.steps" not in space and search.min_resource > training.steps:
        fail(
            f"search.min_resource {search.min_resource} is above training.steps ({training.steps})",
            ("search", "min_resource"),
            ("training", "steps"),
        )
    if search.min_resource is not None and steps_fixed and search.min_resource % training.report_every:
        fail(
            f"search.min_resource {search.min_resource} is no multiple of training.report_every "
            f"({training.report_every}): trials are judged where they report",
            ("search", "min_resource"),
            ("training", "report_every"),
        )
