"""Tasks: image set, network, recipe and scenario, read from TOML; the catalog has one file per group of variants."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from forgetbench.errors import UsageError, described_pattern, field_message, validation_message
from forgetbench.registry import how_to_list, unknown
from forgetbench.store import JsonObject, digest, file_digest
from forgetbench.tasks.recipe import Recipe
from forgetbench.tasks.seal import Seal
from forgetbench.user_files import is_file, read_toml, user_path

CATALOG = Path(__file__).parents[1] / "catalog"
PLACES = {"path": "file", "checkpoint": "checkpoint", "scores": "file of scores"}
"""Options whose value is the path of a file or folder -> what it is."""

INDICES = "-indices-"
"""Separates a task's name from the hash of the index file that replaces its scenario."""
DEVELOPMENT = "/development"
"""Ending of the name of a task's development version."""
METHOD_STREAMS = ("method", "method-init")
"""Streams of random numbers that methods get."""
SEALED = "/sealed-"
"""Separates a task's name from the fingerprint of the salt of its sealed draws."""
NOT_THE_BOARD = "development bundle: not the board"
"""Warning wherever scores of a development version are shown."""


class Section(BaseModel):
    """Base of a task's sections: frozen, and an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Choice(Section):
    """Something from a registry, with its options."""

    name: str
    """Its name in the registry."""
    options: JsonObject = Field(default={})
    """Options by keyword; the others have their defaults."""

    @field_validator("options")
    @classmethod
    def _json_holds_them(cls, options: JsonObject) -> JsonObject:
        """Refuse what JSON cannot hold: options are part of hashes and of published files."""
        for name, value in options.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError):
                raise ValueError(
                    f"{name} must be text, a finite number, true or false, or a list of them, not {value!r}"
                ) from None
        return options

    def shaping(self) -> JsonObject:
        """Name and options without paths on this machine, which shape no result.

        An image set is identified by its content, which is part of every cache key; other files are identified by their
        hash, the option sha256.
        """
        options = {name: value for name, value in self.options.items() if name not in PLACES}
        if "table" in options:
            options["table"] = Path(str(options["table"])).name
        return {"name": self.name, "options": options}


class Setting(NamedTuple):
    """What of a task decides which defaults and presets of a method apply."""

    network: str = ""
    """Name of the network."""
    image_set: str = ""
    """Name of the image set."""
    scenario: str = ""
    """Name of the scenario."""

    @property
    def tables(self) -> tuple[str, str]:
        """The tables of defaults that apply, the more specific one last."""
        return self.network, f"{self.network}/{self.scenario}"


class Task(Section):
    """One task of the benchmark."""

    name: str = Field(
        pattern=described_pattern(
            r"^[a-z0-9][a-z0-9-]*(/[a-z0-9][a-z0-9-]*)*$",
            "lower-case letters a to z, digits and dashes, in parts separated by /, such as my-images/cnn/random-10",
        )
    )
    """``image-set/network/scenario``; the seeds of every stream are derived from it."""
    title: str
    """The task in one line."""
    description: str = ""
    """Why it is in the catalog, and the source of its numbers."""
    tier: Literal["cpu", "paper"] = "cpu"
    """``cpu`` runs on a laptop, mostly in minutes; ``paper`` needs a GPU."""
    track: Literal["match-oracle", "erase"] | None = None
    """What a good method does; None is the scenario's own track."""
    image_set: Choice
    """The image set and its options."""
    network: Choice
    """The network and its options."""
    recipe: Recipe
    """How originals and oracles are trained."""
    scenario: Choice
    """The scenario and its parameters."""
    draws: int = Field(default=1, ge=1, le=1000)
    """Number of forget sets."""
    seeds: int = Field(default=6, ge=2, le=1000)
    """Number of originals, and of oracles in each of the two sets."""
    seal: Seal | None = Field(default=None, repr=False)
    """The secret of a server from which hidden seeds derive; None elsewhere. It is in no hash and no public file."""
    method_seeds: str = Field(default="", repr=False)
    """Name of the seeds that methods get; "" for those of the task. Another name is for running a method once more."""

    @model_validator(mode="before")
    @classmethod
    def _without_protocol(cls, values: Any) -> Any:
        """Accept files of earlier versions, which named the protocol: it belongs to scores, not to tasks."""
        return (
            {key: value for key, value in values.items() if key != "protocol"} if isinstance(values, dict) else values
        )

    @model_validator(mode="after")
    def _margin_needs_cosines(self) -> Task:
        if self.recipe.margin and not self.network.options.get("cosine"):
            raise ValueError("recipe: margin needs a network with option cosine, such as cosine = 64.0")
        return self

    @field_validator("network", "scenario")
    @classmethod
    def _files_are_known_by_their_hash(cls, choice: Choice) -> Choice:
        options = choice.options
        place = next((name for name in sorted(PLACES) if options.get(name)), None)
        if place is None or options.get("sha256"):
            return choice
        file = user_path(str(options[place]))
        if not is_file(file):
            raise ValueError(
                f"option {place} names {file}, which does not exist. Correct the path, and add the file's SHA-256 as "
                "option sha256"
            )
        raise ValueError(f'add sha256 = "{file_digest(file)}" to the options: it identifies the {PLACES[place]}')

    @cached_property
    def key(self) -> str:
        """Hash of everything that shapes a model; the counts of seeds and draws, titles, tier and track do not."""
        silent = {"title", "description", "tier", "track", "draws", "seeds", "seal", "method_seeds"}
        whole = self.model_dump(mode="json", exclude=silent, exclude_defaults=True)
        return digest({**whole, **self._shaping()})

    @property
    def setting(self) -> Setting:
        """What decides which defaults and presets of a method apply."""
        return Setting(self.network.name, self.image_set.name, self.scenario.name)

    def public(self) -> JsonObject:
        """The task without paths on this machine, its seal, and other seeds of methods, ready for JSON."""
        return {**self.model_dump(mode="json", exclude={"seal", "method_seeds"}), **self._shaping()}

    def _shaping(self) -> JsonObject:
        return {part: getattr(self, part).shaping() for part in ("image_set", "network", "scenario")}

    def stream(self, name: str, *indices: int) -> int:
        """The seed of a stream of random numbers (63 bits), derived from the task's name, a word and indices.

        Where a seal covers the stream, the seed derives from its salt instead, which only the server knows.
        """
        if self.method_seeds and name in METHOD_STREAMS:
            name = f"{name}-{self.method_seeds}"
        if self.seal is not None and self.seal.covers(name):
            return self.seal.seed(name, *indices)
        return int(digest([self.name, name, *indices])[:16], 16) >> 1

    def development(self) -> Task:
        """The task on which hyper-parameters are tuned: the same under another name, so other draws, seeds and models.

        A scenario that names its classes keeps them. Servers publish a bundle of it, oracles included, for each sealed
        board.
        """
        changes = {"name": f"{self.name}{DEVELOPMENT}", "title": f"{self.title} ({NOT_THE_BOARD})", "seal": None}
        return Task.model_validate({**self.model_dump(), **changes})

    def with_hidden_oracles(self, salt: str) -> Task:
        """The task with public draws, whose oracles only the server can train: their seeds derive from a salt."""
        return Task.model_validate({**self.model_dump(), "seal": {"salt": salt, "draws": "public"}})

    def with_method_seeds(self, name: str) -> Task:
        """The same task, on which methods get other seeds: those of this name."""
        return self.model_copy(update={"method_seeds": name})

    def with_sealed_draws(self, salt: str) -> Task:
        """The task under another name, with all seeds derived from a salt.

        Originals, oracles and methods have other seeds, and there are other forget sets where the scenario draws them.
        """
        seal = Seal(salt=salt, draws="sealed")
        changes = {"name": f"{self.name}{SEALED}{seal.fingerprint}", "seal": seal}
        return Task.model_validate({**self.model_dump(), **changes})

    def forgetting(self, path: Path) -> Task:
        """The same task with the forget set of an index file, under another name.

        Raises:
            UsageError: The file does not exist.
        """
        if not is_file(path):
            raise UsageError(f"Index file {path} does not exist.")
        sha256 = file_digest(path)
        changes = {
            "name": f"{self.name}{INDICES}{sha256[:8]}",
            "title": f"Forget the rows of {path.name}, otherwise as {self.name}",
            "description": f"{self.description}\nThe forget set is listed in {path.name}, SHA-256 {sha256}.".strip(),
            "track": None,
            "scenario": {"name": "indices", "options": {"path": str(path), "sha256": sha256}},
            "draws": 1,
        }
        return Task.model_validate({**self.model_dump(), **changes})

    def with_counts(self, *, seeds: int | None = None, draws: int | None = None) -> Task:
        """The same task with other numbers of seeds and forget sets; None keeps the number.

        Raises:
            UsageError: A number is too small or too large.
        """
        changes = {name: count for name, count in (("seeds", seeds), ("draws", draws)) if count is not None}
        try:
            return Task.model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            raise UsageError(validation_message(error)) from error


def names(pattern: str = "*") -> list[str]:
    """Names of the catalog's tasks that match a wildcard pattern, sorted."""
    return sorted(fnmatch.filter(_catalog(CATALOG)[0], pattern))


@cache
def _catalog(folder: Path) -> tuple[Mapping[str, tuple[Path, JsonObject]], Mapping[str, str]]:
    """The catalog's tasks: name -> file and content; and second names -> names.

    A file of name N has one task, N. With tables ``[variants.V]`` it also has tasks N-V, which differ from it in the
    values of these tables; ``variant = "W"`` says which variant N itself is, so that N-W is a second name of it. A file
    of name N-W has the tasks N-W and N-V.
    """
    tasks: dict[str, tuple[Path, JsonObject]] = {}
    second: dict[str, str] = {}
    for path in sorted(folder.rglob("*.toml")):
        content = read_toml(path)
        name = str(path.relative_to(folder).with_suffix(""))
        variants = content.pop("variants", {})
        own = f"-{content.pop('variant', '')}"
        stem = name.removesuffix(own)
        if own != "-" and stem == name:
            second[name + own] = name
        tasks[name] = (path, {**content, "name": name})
        for variant, changes in variants.items():
            tasks[f"{stem}-{variant}"] = (path, {**_merged(content, changes), "name": f"{stem}-{variant}"})
    return tasks, second


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> JsonObject:
    """The content with changed values; tables are merged."""
    merged = dict(content)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(content.get(name), dict)
        merged[name] = _merged(content[name], value) if both else value
    return merged


def read_task(name: str) -> Task:
    """A task of the catalog by its name, or any task by the path of its TOML file.

    ``NAME/development`` is the development version of a task of the catalog.

    Raises:
        UsageError: The task is unknown (the message has similar names), or its file is not valid.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not is_file(path):
            raise UsageError(f"Task file {name} does not exist. Correct the path.")
        return _parse(path, read_toml(path))
    tasks, second_names = _catalog(CATALOG)
    if name.endswith(DEVELOPMENT) and name not in tasks:
        return read_task(name.removesuffix(DEVELOPMENT)).development()
    name = second_names.get(name, name)
    if name not in tasks:
        raise UsageError(unknown("task", name, names()) + " Give a custom task by the path of its file, my-task.toml.")
    return _parse(*tasks[name])


def find_tasks(patterns: Iterable[str]) -> list[Task]:
    """The tasks of names, wildcard patterns and paths, each once, in the given order.

    Raises:
        UsageError: No pattern was given, or one matches nothing.
    """
    tasks: dict[str, Task] = {}
    for pattern in patterns:
        matching = names(pattern) if set(pattern) & set("*?[") and not pattern.endswith(".toml") else [pattern]
        if not matching:
            raise UsageError(f"No task matches {pattern!r}. {how_to_list('task', names())}")
        for name in matching:
            task = read_task(name)
            tasks.setdefault(task.name, task)
    if not tasks:
        raise UsageError("Name a task. `forgetbench list tasks` shows all.")
    return list(tasks.values())


def _parse(path: Path, content: JsonObject) -> Task:
    if "seal" in content:
        raise UsageError(f"Task file {path} has a seal, which only a server adds to a task. Remove it.")
    if "method_seeds" in content:
        raise UsageError(f"Task file {path} has method_seeds, which only `forgetbench verify` sets. Remove it.")
    try:
        return Task.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"Task file {path}{_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    """Field errors in one line, after the file's name; for an unknown key, the available keys."""
    sections: dict[str, type[BaseModel]] = {
        "recipe": Recipe,
        "image_set": Choice,
        "network": Choice,
        "scenario": Choice,
    }
    extra = [item for item in error.errors() if item["type"] == "extra_forbidden"]
    first, *others = error.errors()
    if not others and first["type"] == "value_error" and len(first["loc"]) == 1 and first["loc"][0] in sections:
        return f", [{first['loc'][0]}]: {field_message(first)}."
    if not extra:
        return f": {validation_message(error)}"
    sentences = []
    for item in extra:
        *place, key = (str(part) for part in item["loc"])
        model = sections.get(place[0], Task) if place else Task
        sentences.append(unknown(f"key in [{'.'.join(place)}]" if place else "key", key, sorted(model.model_fields)))
    return f": {' '.join(sentences)}"
