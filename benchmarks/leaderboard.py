"""Load on the leaderboard, over loopback: a board of 10,000 rows, mixed reads, and many submitters at once.

Run it as ``python benchmarks/leaderboard.py``; it makes its own server in a temporary folder and prints its figures.
The load comes from this process, on the same cores as the server: the figures are a lower bound.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx2
import numpy as np
import psutil
from sqlalchemy import insert, select

from forgetbench.answers import encode, index_digest, write_arrays
from forgetbench.evidence import Manifest, MethodRecord, ModelRecord, describe
from forgetbench.evidence import write_manifest as write
from forgetbench.leaderboard.client import submit
from forgetbench.leaderboard.database import Database
from forgetbench.leaderboard.models import Board, Entry, Event, MetricValue, Score, Token, utc_now
from forgetbench.leaderboard.server import create_token, install_pack
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.states import new_id
from forgetbench.leaderboard.worker import Worker
from forgetbench.packs import write_pack
from forgetbench.store import digest

TASK, SEEDS, CLASSES = "load/cnn/random-10", 10, 10
COUNTS = {"forget": 60, "retain": 100, "validation": 50, "test": 100}


class World:
    """A made-up task: logits that look like those of classifiers."""

    def __init__(self, counts: dict[str, int]) -> None:
        generator = np.random.default_rng(1)
        self.counts = counts
        self.labels = {name: generator.integers(0, CLASSES, count) for name, count in counts.items()}
        self.hashes = {"0": {name: index_digest(np.arange(count)) for name, count in counts.items()}}

    def model(self, number: int, memory: float) -> dict[str, np.ndarray]:
        """Evidence of one model."""
        generator, found = np.random.default_rng(number), {}
        for name, labels in self.labels.items():
            logits = generator.normal(0, 1, (len(labels), CLASSES))
            logits[np.arange(len(labels)), labels] += 2 + (memory if name == "forget" else 0)
            found[name] = encode(logits, attributes=False)
        return found

    def write_pack(self, folder: Path) -> Path:
        """The task's pack."""
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
        """A run of a method that nobody has run before."""
        folder.mkdir()
        models = []
        for seed in range(SEEDS):
            arrays = self.model(10_000 + number * SEEDS + seed, 0.3)
            name = f"d0-s{seed}.npz"
            write_arrays(folder / name, arrays)
            models.append(ModelRecord(draw=0, seed=seed, file=name, original=digest(seed), arrays=describe(arrays)))
        method = MethodRecord(
            name=f"m{number}", title="A method", family="made-up", needs=(), parameters={}, source_sha256=digest(number)
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
    """List many copies of the reference row, each with numbers of its own, and rank them."""
    database = Database(settings.database)
    generator = random.Random(2)  # noqa: S311 - numbers to sort by
    with database.writing() as session:
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
            mine = {
                "id": identity,
                "tier": "recomputed",
                "token_id": token.id,
                "submitter": token.name,
                "method": f"method-{number % 200}",
            }
            mine |= {
                "label": f"method-{number % 200}:lr={number}",
                "search_text": f"method-{number % 200}",
                "distance": distance,
            }
            entries.append({**plain, **mine, "cost": generator.random(), "family": f"family-{number % 7}"})
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
        from forgetbench.leaderboard import jobs

        jobs.request(session, "rank", str(board.id))
    started = time.monotonic()
    Worker(settings, database).drain()
    print(f"ranking {rows} rows: {time.monotonic() - started:.1f} s")
    database.close()


def start(settings: Settings, port: int, *, worker: bool) -> subprocess.Popen[bytes]:
    """`serve`, in a process of its own; returns when it is ready, and prints how long that took."""
    code = (
        "import sys; from forgetbench.leaderboard.server import serve;"
        "from forgetbench.leaderboard.settings import Settings;"
        f"serve(Settings(), port={port}, with_worker={worker})"
    )
    environment = {
        **os.environ,
        "FORGETBENCH_SERVER_FOLDER": str(settings.server_folder),
        "FORGETBENCH_DATABASE_URL": settings.database_url,
        "FORGETBENCH_READS_PER_MINUTE": "1000000",
        "FORGETBENCH_WRITES_PER_MINUTE": "1000000",
        "FORGETBENCH_DAILY_SUBMISSIONS": "100000",
    }
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    while True:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                break
        except httpx2.TransportError:
            time.sleep(0.02)
    used = sum(psutil.Process(process.pid).cpu_times()[:2])
    print(f"started in {time.monotonic() - started:.2f} s, {used:.2f} s of work")
    return process


async def load(
    base: str, server: psutil.Process, paths: list[str], rate: float, seconds: float
) -> dict[str, list[float]]:
    """Requests at a steady rate, whatever the answers take; latencies in milliseconds by path."""
    found: dict[str, list[float]] = {}
    statuses: Counter[int] = Counter()
    async with httpx2.AsyncClient(
        base_url=base, limits=httpx2.Limits(max_connections=64, keepalive_expiry=2), timeout=30
    ) as client:

        async def ask(path: str) -> None:
            before = time.perf_counter()
            answer = await client.get(path)
            statuses[answer.status_code] += 1
            found.setdefault(path, []).append((time.perf_counter() - before) * 1000)

        start_at, tasks, used = time.perf_counter(), [], sum(server.cpu_times()[:2])
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, start_at + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(ask(paths[number % len(paths)])))
        await asyncio.gather(*tasks)
    each = (sum(server.cpu_times()[:2]) - used) / sum(statuses.values()) * 1000
    print(f"  {rate:g} requests a second for {seconds:g} s: statuses {dict(statuses)}, {each:.1f} ms of work each")
    return found


def show(found: dict[str, list[float]]) -> None:
    for path, times in found.items():
        ordered = sorted(times)
        p95 = ordered[int(0.95 * len(ordered))]
        print(f"    {path[:70]:<70} median {statistics.median(ordered):6.1f} ms  p95 {p95:6.1f} ms  of {len(ordered)}")


def submitters(world: World, folder: Path, base: str, tokens: list[str], each: int) -> None:
    """Ten people submit at once; every one of their runs is there afterwards, listed once."""
    from concurrent.futures import ThreadPoolExecutor

    runs = [world.write_run(folder / f"run-{number}", number) for number in range(len(tokens) * each)]

    def send(number: int) -> str:
        return str(submit(runs[number], base, tokens[number % len(tokens)], wait_seconds=0).document["id"])

    started = time.monotonic()
    with ThreadPoolExecutor(len(tokens)) as pool:
        ids = list(pool.map(send, range(len(runs))))
    received = time.monotonic() - started
    while True:
        found = [httpx2.get(f"{base}/api/v1/submissions/{identity}") for identity in ids]
        if all(answer.status_code == 200 for answer in found):
            break
        time.sleep(0.5)
    once = all([event["after"] for event in answer.json()["history"]].count("listed") == 1 for answer in found)
    listed = time.monotonic() - started
    print(f"{len(runs)} submissions by {len(tokens)} people at once:")
    print(f"  received in {received:.1f} s, listed in {listed:.1f} s, each once: {once}")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--database", default="", help="SQLAlchemy URL of an empty database; SQLite otherwise")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forgetbench-load-") as name:
        folder = Path(name)
        settings = Settings(server_folder=folder / "server", database_url=chosen.database)
        world = World(COUNTS)
        install_pack(settings, world.write_pack(folder / "pack"))
        tokens = [create_token(settings, f"Submitter {number}", ["submit"]) for number in range(10)]
        database = Database(settings.database)
        Worker(settings, database).drain()
        database.close()
        fill(settings, chosen.rows)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        base, process = f"http://127.0.0.1:{port}", start(settings, port, worker=False)
        server = psutil.Process(process.pid)
        try:
            board, json_of = f"/boards/{TASK}", f"/api/v1/boards/{TASK}"
            print(f"a board of {chosen.rows} rows, the same views again and again:")
            show(asyncio.run(load(base, server, ["/health", board, json_of], 50, chosen.seconds)))
            print("views that nobody has asked for before:")
            fresh = [f"{board}?page={page}&sort=-lira.forget" for page in range(1, 1 + chosen.rows // 100)]
            times = asyncio.run(
                load(base, server, fresh + [f"{json_of}?q=method-{n}&sort=cost" for n in range(100)], 20, 10)
            )
            show({"pages": [t for p, ts in times.items() if "page=" in p for t in ts]})
            show({"searches": [t for p, ts in times.items() if "q=" in p for t in ts]})
            print("mixed reads:")
            mixed = [
                "/",
                board,
                json_of,
                f"{board}?columns=all",
                f"{board}?sort=cost",
                "/metrics",
                "/submit",
                f"/tasks/{TASK}",
            ]
            show(asyncio.run(load(base, server, mixed, 200, chosen.seconds)))
            print(f"web process: {server.memory_info().rss / 2**20:.0f} MiB")
        finally:
            process.terminate()
            process.wait()
        process = start(settings, port, worker=True)
        try:
            submitters(world, folder, base, tokens, 2)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
