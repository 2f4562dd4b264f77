"""Record the fingerprints of components: a tool for developers.

After an edit, a developer has three choices, which the guard test names: restore the source; ``--bump`` the version,
because results may differ; or record the source as ``--unchanged`` in behavior, once equal bits were shown.

    python -m forgetbench.fingerprint_record                     # components whose source differs from the record
    python -m forgetbench.fingerprint_record --unchanged scoring
    python -m forgetbench.fingerprint_record --bump methods.ssd
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from forgetbench.attacks import attacks
from forgetbench.errors import UsageError
from forgetbench.fingerprints import (
    RECORD,
    RecordedComponent,
    class_hash,
    component_paths,
    plugin_package,
    read_record,
    tree_hash,
)
from forgetbench.methods import methods


def present() -> dict[str, str]:
    """Every component, methods and attacks included, with the hash of its tree as it is now. Imports torch."""
    kinds = [(name, registry.get(name)) for registry in (methods, attacks) for name in registry.names()]
    own = {f"{package}.{name}": kind for name, kind in kinds if (package := plugin_package(kind.__module__))}
    return {name: tree_hash(name) for name in component_paths()} | {
        name: class_hash(kind) for name, kind in own.items()
    }


def unrecorded() -> list[str]:
    """Recorded components whose source is not the recorded one, or is gone; new components are not among them."""
    now = present()
    return sorted(name for name, entry in read_record().items() if now.get(name) != entry.tree)


def write_record(unchanged: Iterable[str] = (), bumped: Iterable[str] = ()) -> None:
    """Record components as they are now.

    Args:
        unchanged: Components that keep their version, because results are equal bit by bit.
        bumped: Components whose version increases, because results may differ.

    Raises:
        UsageError: A name is unknown.
    """
    now, entries = present(), dict(read_record())
    keep, bump = set(unchanged), set(bumped)
    unknown = sorted((keep | bump) - set(now) - set(entries))
    if unknown:
        raise UsageError(f"Unknown component {unknown[0]!r}. Available: {', '.join(now)}.")
    for name in keep | bump:
        version = entries[name].version if name in entries else 0
        if name in now:
            entries[name] = RecordedComponent(max(1, version + (name in bump)), now[name])
        else:
            del entries[name]
    lines = ["# Written by `python -m forgetbench.fingerprint_record`; see fingerprints.py."]
    lines += [f'"{name}" = {{ version = {one.version}, tree = "{one.tree}" }}' for name, one in sorted(entries.items())]
    RECORD.write_text("\n".join(lines) + "\n", encoding="utf-8")
    read_record.cache_clear()


def main(words: Sequence[str]) -> int:
    """The developer's command; see the module's docstring. Returns 1 where something differs from the record."""
    chosen: dict[str, list[str]] = {"--unchanged": [], "--bump": []}
    current: list[str] | None = None
    for word in words:
        if word.startswith("--"):
            if word not in chosen:
                raise UsageError(f"Unknown option {word!r}. Available: {', '.join(chosen)}.")
            current = chosen[word]
        elif current is None:
            raise UsageError(f"Put --unchanged or --bump before {word!r}.")
        else:
            current.append(word)
    everything = list(present()) if chosen["--unchanged"] == ["all"] else chosen["--unchanged"]
    if everything or chosen["--bump"]:
        write_record(everything, chosen["--bump"])
    differing = unrecorded()
    for name in differing:
        sys.stdout.write(f"{name}: the source differs from the record\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
