"""Reference bundles, runs and results of audits in ForgetBench's folder, and the scorers of runs. Needs no torch."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.attacks import Population
from forgetbench.evidence.reference import PACK, AuditFitness, ReferenceBundle, ReferenceManifest, read_pack
from forgetbench.evidence.run import MANIFEST, Manifest, read_run
from forgetbench.scoring.scorer import Scorer
from forgetbench.store import Store, canonical_json, digest, home, leftovers_below, write_atomically
from forgetbench.tasks.task import DEVELOPMENT, Task


@dataclass(frozen=True)
class Results:
    """Reference bundles, runs and results of audits below one folder."""

    home: Path = field(default_factory=home)
    """ForgetBench's folder."""
    workers: int | None = None
    """Rows that are scored at a time; None is one for each core."""

    @property
    def runs(self) -> Path:
        """The folder of runs, with a folder for each task."""
        return self.home / "runs"

    @property
    def packs(self) -> Path:
        """The folder of reference bundles, with a folder for each task."""
        return self.home / "packs"

    def run_folder(self, task: str, label: str) -> Path:
        """The folder of a row's run: the one that has it already, or a free one that no other row shares.

        Args:
            task: Name of the task.
            label: The row's name; a name that is no folder's name on every system gets a hash.
        """
        parent, plain = self.runs / task, _plain(label)
        exact, hashed = parent / folder_name(label), parent / _hashed(label)
        earlier = [parent / plain] if plain else []  # versions that added no hash put the row there
        for folder in (exact, hashed, *earlier):
            if _row_in(folder) == label:
                return folder
        # a folder system that ignores case may have another row under this name
        return hashed if os.path.lexists(exact) and _row_in(exact) != "" else exact

    def repeats(self, manifest: Manifest) -> list[Path]:
        """The folders of further runs of a row's method on the same originals, with other seeds of the method."""
        found = []
        for place in sorted((self.home / "repeats").glob("*")):
            folder = Results(place).run_folder(manifest.task, manifest.row)
            if (folder / MANIFEST).is_file():
                again = read_run(folder).manifest
                same = (again.task_key, again.draws, again.seeds, again.method.fingerprint, again.method.parameters)
                if same == (
                    manifest.task_key,
                    manifest.draws,
                    manifest.seeds,
                    manifest.method.fingerprint,
                    manifest.method.parameters,
                ):
                    found.append(folder)
        return found

    def reference_folder(self, task: str, key: str, draws: int, seeds: int) -> Path:
        """The folder of a task's reference bundle: one for each definition and each count of draws and seeds."""
        return self.packs / task / f"{key[:12]}-g{draws}-s{seeds}"

    def development_bundle(self, task: Task) -> ReferenceBundle | None:
        """The development bundle of a task, fetched from a server or built here; None for other tasks, or if absent.

        Raises:
            ForgetBenchError: A file of it is missing or damaged.
        """
        folder = self.reference_folder(task.name, task.key, task.draws, task.seeds)
        if not task.name.endswith(DEVELOPMENT) or not (folder / PACK).is_file():
            return None
        return read_pack(folder)

    def attacks_folder(self, card: ReferenceManifest) -> Path:
        """The folder of the attacks on a board: one for each definition and each count of draws and seeds."""
        return self.home / "attacks" / card.task / f"{card.task_key[:12]}-g{card.draws}-s{card.seeds}"

    def attack_folder(self, card: ReferenceManifest, label: str) -> Path:
        """The folder of one attack with its budget; below it, one for each population."""
        return self.attacks_folder(card) / folder_name(label)

    def attacked_folder(self, attack: Path, population: Population, row: str) -> Path:
        """The folder of one attacked population, below that of the attack."""
        return attack / "rows" / folder_name(row) if population == "row" else attack / population

    def fitness_file(self, task: str, key: str, draws: int, seeds: int) -> Path:
        """The file of a task's audit: one for each folder of a reference bundle."""
        return self.home / "audits" / task / f"{key[:12]}-g{draws}-s{seeds}.json"

    def fitness(self, task: str, key: str, draws: int, seeds: int) -> AuditFitness | None:
        """The fitness of metrics by a task's last audit; None if it was not audited.

        Raises:
            ForgetBenchError: The file is damaged.
        """
        path = self.fitness_file(task, key, draws, seeds)
        return self._read_fitness(path, task) if path.is_file() else None

    def fitness_records(self, task: str, key: str) -> list[AuditFitness]:
        """The fitness of metrics by a task's last audits, for all counts of draws and seeds.

        Raises:
            ForgetBenchError: A file is damaged.
        """
        folder = self.home / "audits" / task
        return [self._read_fitness(path, task) for path in sorted(folder.glob(f"{key[:12]}-*.json"))]

    def write_fitness(self, fitness: AuditFitness, manifest: ReferenceManifest) -> None:
        """Keep the result of an audit; later runs write it into the reference bundle again."""
        path = self.fitness_file(manifest.task, manifest.task_key, manifest.draws, manifest.seeds)
        write_atomically(path, canonical_json(fitness.model_dump(mode="json")))

    def leftovers(self) -> list[Path]:
        """Folders in the store, of runs and of bundles that were set aside, or whose writers were killed."""
        store = Store(self.home / "store")
        return [*store.leftovers(), *leftovers_below(self.runs), *leftovers_below(self.packs)]

    def scorer(self, reference: ReferenceBundle, *, all_rows: bool = False) -> Scorer:
        """Scores runs against a reference bundle; bands and scorecards are cached."""
        return Scorer(reference, self.home / "bands", self.home / "scores", all_rows, self.workers)

    def scorer_of(self, manifest: Manifest, folder: Path | None = None, *, all_rows: bool = False) -> Scorer:
        """The scorer of a run's task.

        Args:
            manifest: The run's manifest.
            folder: The folder of the reference bundle; None is the one that was made here.
            all_rows: Compute metrics that never rank from all rows, and not from a fixed number of them.

        Raises:
            UsageError: There is no such bundle.
        """
        folder = folder or self._reference_of(manifest)
        if not folder.is_dir():
            counts = f"{manifest.seeds} seeds and {manifest.draws} draws"
            raise UsageError(
                f"No reference bundle of {manifest.task} with {counts} here. Make it with `forgetbench run "
                f"{manifest.task} --seeds {manifest.seeds}`, or give its folder with --pack."
            )
        return self.scorer(read_pack(folder), all_rows=all_rows)

    def finished(self, patterns: Iterable[str]) -> dict[Path, list[Path]]:
        """Every run that was made here: folder of the reference bundle -> folders of its runs, sorted."""
        wanted, runs = tuple(patterns), dict[Path, list[Path]]()
        for path in sorted(self.runs.rglob(MANIFEST)):
            if any(part.startswith(".") for part in path.relative_to(self.runs).parts):
                continue  # a folder that is being written
            task = path.parent.parent.relative_to(self.runs).as_posix()
            if any(fnmatch.fnmatch(task, pattern) for pattern in wanted):
                reference = self._reference_of(read_run(path.parent).manifest)
                if reference.is_dir():
                    runs.setdefault(reference, []).append(path.parent)
        return runs

    def _read_fitness(self, path: Path, task: str) -> AuditFitness:
        try:
            return AuditFitness.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ForgetBenchError(f"{path} is damaged. Remove it and run `forgetbench audit {task}` again.") from error

    def _reference_of(self, manifest: Manifest) -> Path:
        return self.reference_folder(manifest.task, manifest.task_key, manifest.draws, manifest.seeds)


_LABEL = re.compile(r"[A-Za-z0-9][\w+.-]*(:[A-Za-z_]\w*=[\w+.-]+(,[A-Za-z_]\w*=[\w+.-]+)*)?", re.ASCII)
"""Labels that `_plain` maps to different names: a method's name, and hyper-parameters."""
_RESERVED = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$"}) | {
    f"{device}{digit}" for device in ("com", "lpt") for digit in "0123456789"
}
"""Names of devices, which are no file names on Windows, whatever follows after a dot."""
_LONGEST = 80


def folder_name(label: str) -> str:
    """A folder's name for a label: different labels have different names, which every file system accepts.

    ``ssd:alpha=3,dampening=0.5`` is ``ssd-alpha=3-dampening=0.5``. Where more is replaced than these marks, a hash of
    the label follows.
    """
    plain = _plain(label)
    unchanged = _LABEL.fullmatch(label) and plain == re.sub("[:,]", "-", label)
    return plain if unchanged and len(plain) <= _LONGEST and not _is_reserved(plain) else _hashed(label)


def _plain(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9+.=_-]+", "-", label).strip("-.")


def _hashed(label: str) -> str:
    plain = _plain(label)
    start = "row" if _is_reserved(plain) else plain[: _LONGEST - 20].strip("-.") or "row"
    return f"{start}-{digest(label)[:12]}"


def _is_reserved(name: str) -> bool:
    return name.partition(".")[0].lower() in _RESERVED


def _row_in(folder: Path) -> str | None:
    """The row whose run a folder contains; None if it contains no run, "" if the run is damaged."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        return read_run(folder).manifest.row
    except UsageError:
        return ""
