"""Packs and runs on this machine: where they lie, and who judges them. Needs no torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.reference import AuditVerdict, ReferenceBundle, ReferenceManifest, read_pack
from forgetbench.evidence.run import MANIFEST, Manifest, read_run
from forgetbench.scoring.scorer import Scorer
from forgetbench.store import canonical_json, home, write_atomically


@dataclass(frozen=True)
class Results:
    """The packs and runs below one folder."""

    home: Path = field(default_factory=home)
    """ForgetBench's folder."""

    @property
    def runs(self) -> Path:
        """Runs lie here, in a folder for each task."""
        return self.home / "runs"

    def pack_folder(self, task: str, key: str, draws: int, seeds: int) -> Path:
        """Where a task's pack lies: one folder for each definition and each count of draws and seeds."""
        return self.home / "packs" / task / f"{key[:12]}-g{draws}-s{seeds}"

    def verdict_file(self, task: str, key: str, draws: int, seeds: int) -> Path:
        """Where the verdict of a task's audit lies: one file for each folder that a pack may have."""
        return self.home / "audits" / task / f"{key[:12]}-g{draws}-s{seeds}.json"

    def verdict(self, task: str, key: str, draws: int, seeds: int) -> AuditVerdict | None:
        """What the last audit of a task found; None where there was none.

        Raises:
            ForgetBenchError: The file is damaged.
        """
        path = self.verdict_file(task, key, draws, seeds)
        return self._read_verdict(path, task) if path.is_file() else None

    def _read_verdict(self, path: Path, task: str) -> AuditVerdict:
        try:
            return AuditVerdict.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ForgetBenchError(f"{path} is damaged: remove it, and `forgetbench audit {task}` again.") from error

    def verdicts(self, task: str, key: str) -> list[AuditVerdict]:
        """What the last audits of a task found, whatever the counts of draws and seeds.

        Raises:
            ForgetBenchError: A file is damaged.
        """
        folder = self.home / "audits" / task
        return [self._read_verdict(path, task) for path in sorted(folder.glob(f"{key[:12]}-*.json"))]

    def keep_verdict(self, verdict: AuditVerdict, card: ReferenceManifest) -> None:
        """Keep what an audit found; runs that are made later put it into the pack again."""
        path = self.verdict_file(card.task, card.task_key, card.draws, card.seeds)
        write_atomically(path, canonical_json(verdict.model_dump(mode="json")))

    def judge(self, pack: ReferenceBundle) -> Scorer:
        """Scores runs against a pack; bands and scorecards are kept."""
        return Scorer(pack, self.home / "bands", self.home / "scores")

    def judge_of(self, manifest: Manifest, pack: Path | None = None) -> Scorer:
        """The judge of a run's task: of the pack given, or of the one that was made here.

        Raises:
            UsageError: There is no such pack.
        """
        folder = pack or self._pack_of(manifest)
        if not folder.is_dir():
            counts = f"{manifest.seeds} seeds and {manifest.draws} draws"
            raise UsageError(
                f"There is no pack of {manifest.task} with {counts} here. Make it with `forgetbench run "
                f"{manifest.task} --seeds {manifest.seeds}`, or name its folder with --pack."
            )
        return self.judge(read_pack(folder))

    def finished(self, patterns: Iterable[str]) -> dict[Path, list[Path]]:
        """Every run that was made here: the pack's folder -> the folders of its runs, sorted."""
        wanted, found = tuple(patterns), dict[Path, list[Path]]()
        for path in sorted(self.runs.rglob(MANIFEST)):
            task = path.parent.parent.relative_to(self.runs).as_posix()
            if any(fnmatch.fnmatch(task, pattern) for pattern in wanted):
                pack = self._pack_of(read_run(path.parent).manifest)
                if pack.is_dir():
                    found.setdefault(pack, []).append(path.parent)
        return found

    def _pack_of(self, manifest: Manifest) -> Path:
        return self.pack_folder(manifest.task, manifest.task_key, manifest.draws, manifest.seeds)
