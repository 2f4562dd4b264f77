"""An artificial task, runs for it, and a board filled with rows, for load tests of the leaderboard."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
from sqlalchemy import insert, select

from forgetbench.evidence.arrays import encode, index_digest, write_arrays
from forgetbench.evidence.reference import write_pack
from forgetbench.evidence.run import Manifest, MethodRecord, ModelRecord, describe
from forgetbench.evidence.run import write_manifest as write
from forgetbench.leaderboard.db import queue
from forgetbench.leaderboard.db.models import Board, Entry, Event, MetricValue, Score, Token, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.db.states import new_id
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.worker.worker import Worker
from forgetbench.store import digest

TASK, SEEDS, CLASSES = "load/cnn/random-10", 10, 10
COUNTS = {"forget": 60, "retain": 100, "validation": 50, "test": 100}


class World:
    """An artificial task with logits that resemble those of classifiers."""

    def __init__(self, counts: dict[str, int]) -> None:
        generator = np.random.default_rng(1)
        self.counts = counts
        self.labels = {name: generator.integers(0, CLASSES, count) for name, count in counts.items()}
        self.hashes = {"0": {name: index_digest(np.arange(count)) for name, count in counts.items()}}

    def model(self, number: int, memory: float) -> dict[str, np.ndarray]:
        """Evidence of one model."""
        generator, arrays = np.random.default_rng(number), {}
        for name, labels in self.labels.items():
            logits = generator.normal(0, 1, (len(labels), CLASSES))
            logits[np.arange(len(labels)), labels] += 2 + (memory if name == "forget" else 0)
            arrays[name] = encode(logits, attributes=False)
        return arrays

    def write_pack(self, folder: Path) -> Path:
        """Write the reference bundle of the task."""
        folder.mkdir()
        np.savez(folder / "labels-d0.npz", **self.labels)
        for start, role, memory in ((0, "originals", 2.0), (100, "references", 0.0), (200, "controls", 0.0)):
            (folder / role).mkdir()
            for seed in range(SEEDS):
                write_arrays(folder / role / f"d0-s{seed}.npz", self.model(start + seed, memory))
        card = {
            "protocol": 1,
            "task": TASK,
            "task_key": digest(TASK),
            "definition": {},
            "title": "A board under load",
            "track": "match-oracle",
            "scenario": "random",
            "attributes": False,
            "classes": [str(number) for number in range(CLASSES)],
            "image_set": {"name": "load"},
            "draws": 1,
            "seeds": SEEDS,
            "counts": {"0": self.counts},
            "index_hashes": self.hashes,
            "originals": [digest(seed) for seed in range(SEEDS)],
        }
        write_pack(folder, card)
        return folder

    def write_run(self, folder: Path, number: int) -> Path:
        """Write a run of a new method."""
        folder.mkdir()
        models = []
        for seed in range(SEEDS):
            arrays = self.model(10_000 + number * SEEDS + seed, 0.3)
            name = f"d0-s{seed}.npz"
            write_arrays(folder / name, arrays)
            models.append(ModelRecord(draw=0, seed=seed, file=name, original=digest(seed), arrays=describe(arrays)))
        method = MethodRecord(
            name=f"m{number}", title="A method", family="made-up", needs=(), parameters={}, fingerprint=digest(number)
        )
        manifest = Manifest(
            protocol=1,
            task=TASK,
            task_key=digest(TASK),
            method=method,
            draws=1,
            seeds=SEEDS,
            index_hashes=self.hashes,
            models=tuple(models),
            environment={},
            created=utc_now().isoformat(),
        )
        write(folder, manifest)
        return folder


def fill(settings: Settings, rows: int) -> None:
    """List many copies of the reference row with different numbers, and rank them."""
    database = Database(settings.database)
    generator = random.Random(2)  # noqa: S311 - numbers to sort by
    with database.write_session() as session:
        board = session.scalars(select(Board)).one()
        example = session.scalars(select(Score)).first()
        entry = session.get_one(Entry, example.entry_id)
        values = session.scalars(select(MetricValue).where(MetricValue.entry_id == entry.id)).all()
        token = session.scalars(select(Token)).first()
        plain = {column.key: getattr(entry, column.key) for column in Entry.__table__.columns}
        card = {**example.card, "name": "row"}
        entries, scores, numbers, events = [], [], [], []
        for number in range(rows):
            identity, distance = new_id(), 1 + 20 * generator.random()
            pseudo = [distance + generator.gauss(0, 1) for _ in range(SEEDS)]
            brief = {
                **example.brief,
                "name": f"m{number}",
                "distance": {**example.brief["distance"], "value": distance, "pseudo": pseudo},
            }
            changes = {
                "id": identity,
                "tier": "recomputed",
                "token_id": token.id,
                "submitter": token.name,
                "method": f"method-{number % 200}",
            }
            changes |= {
                "label": f"method-{number % 200}:lr={number}",
                "search_text": f"method-{number % 200}",
                "distance": distance,
            }
            entries.append({**plain, **changes, "cost": generator.random(), "family": f"family-{number % 7}"})
            scores.append(
                {
                    "entry_id": identity,
                    "card": card,
                    "brief": brief,
                    "software": {},
                    "seconds": 0.0,
                    "scored_at": utc_now(),
                }
            )
            numbers += [
                {
                    "entry_id": identity,
                    "metric": v.metric,
                    "board_id": board.id,
                    "value": generator.random(),
                    "low": 0.0,
                    "high": 1.0,
                    "z": 1.0,
                    "note": "",
                }
                for v in values
            ]
            events.append(
                {
                    "entry_id": identity,
                    "at": utc_now(),
                    "actor": "load",
                    "before": None,
                    "after": "listed",
                    "reason": "",
                }
            )
        for table, lines in ((Entry, entries), (Score, scores), (MetricValue, numbers), (Event, events)):
            session.execute(insert(table), lines)
        queue.enqueue(session, "rank", str(board.id))
    started = time.monotonic()
    Worker(settings, database).drain()
    print(f"ranking {rows} rows: {time.monotonic() - started:.1f} s")
    database.close()
