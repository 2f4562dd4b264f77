"""Load test of the leaderboard over loopback: a board of 10,000 rows, reads, many submitters, kills, and scoring.

Run ``python benchmarks/leaderboard.py``. It starts servers in a temporary folder and prints its results. The load comes
from this process, on the same cores as the server, so that the results are a lower bound.
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
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
from sqlalchemy import func, insert, select

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from support.leaderboard import World

from forgetbench.errors import ForgetBenchError
from forgetbench.leaderboard.admin import create_token, install_bundle
from forgetbench.leaderboard.client.submit import submit
from forgetbench.leaderboard.db import queue
from forgetbench.leaderboard.db.models import Board, Entry, Event, MetricValue, Score, Token, utc_now
from forgetbench.leaderboard.db.session import Database, open_database
from forgetbench.leaderboard.db.states import new_id
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.worker.worker import Worker

TASK, SEEDS, CLASSES = "load/cnn/random-10", 10, 10
SMALL = {"forget": 60, "retain": 100, "validation": 50, "test": 100}
CIFAR = {"forget": 5_000, "retain": 10_000, "validation": 5_000, "test": 10_000}
"""Rows of a submission of CIFAR-10 size."""
_SERVE = (
    "import sys; from forgetbench.leaderboard.serve import serve;"
    "from forgetbench.leaderboard.settings import Settings;"
    "serve(Settings(), port=int(sys.argv[1]), with_worker=sys.argv[2] == 'worker')"
)
_WORK = (
    "from forgetbench.leaderboard.serve import run_worker;"
    "from forgetbench.leaderboard.settings import Settings; run_worker(Settings())"
)


def make_world(counts: dict[str, int]) -> World:
    """An artificial task of ten classes and ten seeds."""
    return World(TASK, counts=counts, classes=CLASSES, seeds=SEEDS)


def free_port() -> int:
    """A port without a listener."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_server(settings: Settings, port: int, *, worker: bool = False) -> subprocess.Popen[bytes]:
    """Start `serve` in a separate process, and wait until it is ready."""
    command = [sys.executable, "-c", _SERVE, str(port), "worker" if worker else "none"]
    process = subprocess.Popen(command, env=_environment(settings), stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                break
        except httpx2.TransportError:
            time.sleep(0.02)
    return process


@contextmanager
def running_server(settings: Settings, *, worker: bool = False) -> Iterator[tuple[str, psutil.Process]]:
    """Address and process of a server; prints how long its start took."""
    started, port = time.monotonic(), free_port()
    process = start_server(settings, port, worker=worker)
    server = psutil.Process(process.pid)
    print(f"started in {time.monotonic() - started:.2f} s, {sum(server.cpu_times()[:2]):.2f} s of work")
    try:
        yield f"http://127.0.0.1:{port}", server
    finally:
        process.terminate()
        process.wait()


def start_worker(settings: Settings) -> subprocess.Popen[bytes]:
    """Start a scoring worker only."""
    return subprocess.Popen([sys.executable, "-c", _WORK], env=_environment(settings), stderr=subprocess.DEVNULL)


def _environment(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "FORGETBENCH_SERVER_FOLDER": str(settings.server_folder),
        "FORGETBENCH_DATABASE_URL": settings.database_url,
        "FORGETBENCH_READS_PER_MINUTE": "1000000",
        "FORGETBENCH_WRITES_PER_MINUTE": "1000000",
        "FORGETBENCH_DAILY_SUBMISSIONS": "100000",
        "FORGETBENCH_LEASE_SECONDS": "3",
    }


def fill(settings: Settings, rows: int) -> None:
    """List many copies of a reference row with different numbers, and rank them."""
    generator = random.Random(2)  # noqa: S311 - numbers to sort by
    with open_database(settings) as database:
        with database.write_session() as session:
            board = session.scalars(select(Board)).one()
            example = session.scalars(select(Score)).first()
            entry = session.get_one(Entry, example.entry_id)
            values = session.scalars(select(MetricValue).where(MetricValue.entry_id == entry.id)).all()
            token = session.scalars(select(Token)).first()
            template = {column.key: getattr(entry, column.key) for column in Entry.__table__.columns}
            lines: dict[type, list[dict[str, object]]] = {Entry: [], Score: [], MetricValue: [], Event: []}
            for number in range(rows):
                entry_id, distance = new_id(), 1 + 20 * generator.random()
                method = f"method-{number % 200}"
                changes = {
                    "id": entry_id,
                    "tier": "claimed",
                    "baseline": False,
                    "token_id": token.id,
                    "submitter": token.name,
                    "method": method,
                    "label": f"{method}:lr={number}",
                    "search_text": method,
                    "distance": distance,
                    "cost": generator.random(),
                    "family": f"family-{number % 7}",
                }
                pseudo_values = [distance + generator.gauss(0, 1) for _ in range(SEEDS)]
                changed = {**example.brief["distance"], "value": distance, "pseudo_values": pseudo_values}
                score = {
                    "entry_id": entry_id,
                    "card": {**example.card, "name": "row"},
                    "brief": {**example.brief, "name": f"m{number}", "distance": changed},
                    "software": {},
                    "seconds": 0.0,
                    "scored_at": utc_now(),
                }
                lines[Entry].append({**template, **changes})
                lines[Score].append(score)
                for value in values:
                    numbers = {"value": generator.random(), "low": 0.0, "high": 1.0, "z": 1.0, "note": ""}
                    lines[MetricValue].append(
                        {"entry_id": entry_id, "metric": value.metric, "board_id": board.id, **numbers}
                    )
                event = {"actor": "load", "before": None, "after": "listed", "reason": ""}
                lines[Event].append({"entry_id": entry_id, "at": utc_now(), **event})
            for model, content in lines.items():
                session.execute(insert(model), content)
            queue.enqueue(session, "rank", str(board.id))
        started = time.monotonic()
        Worker(settings, database).drain()
        print(f"ranking {rows} rows: {time.monotonic() - started:.1f} s")


async def load(
    base: str, server: psutil.Process, paths: list[str], rate: float, seconds: float
) -> dict[str, list[float]]:
    """Send requests at a steady rate, however long answers take; return latencies in milliseconds by path."""
    results: dict[str, list[float]] = {}
    statuses: Counter[int] = Counter()
    limits = httpx2.Limits(max_connections=64, keepalive_expiry=2)
    async with httpx2.AsyncClient(base_url=base, limits=limits, timeout=30) as client:

        async def request(path: str) -> None:
            before = time.perf_counter()
            answer = await client.get(path)
            statuses[answer.status_code] += 1
            results.setdefault(path, []).append((time.perf_counter() - before) * 1000)

        start_at, tasks, used = time.perf_counter(), [], sum(server.cpu_times()[:2])
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, start_at + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(request(paths[number % len(paths)])))
        await asyncio.gather(*tasks)
    work = (sum(server.cpu_times()[:2]) - used) / sum(statuses.values()) * 1000
    print(f"  {rate:g} requests a second for {seconds:g} s: statuses {dict(statuses)}, {work:.1f} ms of work each")
    return results


def show(results: dict[str, list[float]]) -> None:
    """Print the latencies of each path."""
    for path, times in results.items():
        ordered = sorted(times)
        p95 = ordered[int(0.95 * len(ordered))]
        print(f"    {path[:70]:<70} median {statistics.median(ordered):6.1f} ms  p95 {p95:6.1f} ms  of {len(ordered)}")


def measure_reads(settings: Settings, rows: int, seconds: float) -> None:
    """Measure reads of one board of many rows."""
    with running_server(settings) as (base, server):
        board, document = f"/boards/{TASK}", f"/api/v1/boards/{TASK}"
        print(f"a board of {rows} rows, the same views repeatedly:")
        show(asyncio.run(load(base, server, ["/health", board, document], 50, min(seconds, 20))))
        print("views that are not cached:")
        pages = [f"{board}?page={page}&sort=-lira.forget" for page in range(1, 1 + rows // 100)]
        searches = [f"{document}?q=method-{number}&sort=cost" for number in range(100)]
        times = asyncio.run(load(base, server, pages + searches, 20, 10))
        for title, paths in (("pages", pages), ("searches", searches)):
            show({title: [latency for path in paths for latency in times.get(path, ())]})
        print("mixed reads:")
        views = [f"{board}?columns=all", f"{board}?sort=cost", "/metrics", "/submit", f"/tasks/{TASK}"]
        show(asyncio.run(load(base, server, ["/", board, document, *views], 200, seconds)))
        print(f"web process: {server.memory_info().rss / 2**20:.0f} MiB")


def measure_cpu(settings: Settings, rows: int) -> None:
    """Measure the processor time of one request: that of the server's process, so that other load does not count."""
    board, document = f"/boards/{TASK}", f"/api/v1/boards/{TASK}"
    metrics = ("lira.forget", "gap.test", "gap.retain", "gap.forget")
    kinds = {
        "/health": ["/health"] * 200,
        "a cached page": [board] * 200,
        "the first page by a metric": [f"{board}?page=2&sort={metric}" for metric in metrics],
        "a fresh page": [f"{board}?page={page}&sort=-{metric}" for metric in metrics for page in range(1, 16)],
        "a fresh page with all metrics": [f"{board}?page={page}&columns=all" for page in range(1, 31)],
        "a fresh search": [f"{board}?q=method-{number}&sort=cost" for number in range(60)],
        "a fresh search, as JSON": [f"{document}?q=method-{number}&sort=cost" for number in range(60)],
        "a search without results": [f"{board}?q=nonesuch-{number}" for number in range(60)],
    }
    with running_server(settings) as (base, server), httpx2.Client(base_url=base, timeout=60) as client:
        for path in (board, document, f"{board}?q=warm", f"{document}?q=warm"):  # templates and plans are made once
            client.get(path)
        print(f"processor time of one request, a board of {rows} rows:")
        for kind, paths in kinds.items():
            before = sum(server.cpu_times()[:2])
            if any(client.get(path).status_code != 200 for path in paths):
                raise SystemExit(f"not all requests of {kind!r} were answered")
            used = sum(server.cpu_times()[:2]) - before
            print(f"  {kind}: {1000 * used / len(paths):.1f} ms")


def measure_submitters(settings: Settings, world: World, folder: Path, tokens: list[str], runs_each: int) -> None:
    """Several people submit at once; check that every run is listed exactly once afterwards."""
    runs = [
        world.write_run(folder / f"run-{number}", f"m{number}", start=10_000 + number * SEEDS, memory=0.3)
        for number in range(len(tokens) * runs_each)
    ]
    with running_server(settings, worker=True) as (base, _):

        def send(number: int) -> str:
            return submit(runs[number], base, tokens[number % len(tokens)], wait_seconds=0).document.id

        started = time.monotonic()
        with ThreadPoolExecutor(len(tokens)) as pool:
            ids = list(pool.map(send, range(len(runs))))
        received = time.monotonic() - started
        while True:
            answers = [httpx2.get(f"{base}/api/v1/submissions/{entry_id}") for entry_id in ids]
            if all(answer.status_code == 200 for answer in answers):
                break
            time.sleep(0.5)
        listed = time.monotonic() - started
    once = all([event["after"] for event in answer.json()["history"]].count("listed") == 1 for answer in answers)
    print(f"{len(runs)} submissions by {len(tokens)} people at once:")
    print(f"  received in {received:.1f} s, listed in {listed:.1f} s, each exactly once: {once}")


def measure_scoring(folder: Path) -> None:
    """Measure how long the worker needs for one submission of CIFAR-10 size."""
    world = make_world(CIFAR)
    settings = Settings(server_folder=folder / "server")
    install_bundle(settings, world.write_pack(folder / "pack"))
    token = create_token(settings, "Ada")
    database = Database(settings.database)
    worker = Worker(settings, database)
    started = time.monotonic()
    worker.drain()
    print(f"scoring, {SEEDS} seeds, {CIFAR}, {CLASSES} classes:")
    print(f"  bands and both reference rows, once per board: {time.monotonic() - started:.1f} s")
    run = world.write_run(folder / "run", memory=0.3)
    size = sum(path.stat().st_size for path in run.iterdir()) / 2**20
    with running_server(settings) as (base, server):
        started = time.monotonic()
        submit(run, base, token, wait_seconds=0)
        print(f"  upload of {size:.0f} MiB, and its checks: {time.monotonic() - started:.1f} s")
        print(f"  web process after it: {server.memory_info().rss / 2**20:.0f} MiB")
    started, used = time.monotonic(), time.process_time()
    worker.work_once()
    print(f"  its score: {time.monotonic() - started:.1f} s, {time.process_time() - used:.1f} s of work")
    worker.drain()
    print(f"  worker process: {psutil.Process().memory_info().rss / 2**20:.0f} MiB")
    database.close()


def kill_at_random(settings: Settings, world: World, folder: Path, tokens: list[str], kills: int) -> None:
    """Kill server and worker (SIGKILL) at random moments while people submit, then count what is stored."""
    generator, port = random.Random(5), free_port()  # noqa: S311 - moments of the kills
    base, finished = f"http://127.0.0.1:{port}", threading.Event()
    accepted: set[str] = set()
    refusals: list[str] = []

    def send(sender: int) -> None:
        count = 0
        while not finished.is_set():
            start = 100_000 * (sender + 1) + count * SEEDS
            run = world.write_run(folder / f"kill-{sender}-{count}", f"m{sender}", start=start, memory=0.3)
            count += 1
            time.sleep(0.5)
            while True:  # like a person: repeat the submission until the server answers
                try:
                    accepted.add(submit(run, base, tokens[sender], wait_seconds=0).document.id)
                    break
                except ForgetBenchError as error:
                    if "cannot be reached" not in str(error):
                        refusals.append(str(error))
                        break
                    time.sleep(0.1)

    processes = {"server": start_server(settings, port), "worker": start_worker(settings)}
    started, killed = time.monotonic(), {"server": 0, "worker": 0}
    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(send, sender) for sender in range(4)]
        for _ in range(kills):
            time.sleep(generator.uniform(0.2, 3.0))
            name = generator.choice(sorted(processes))
            processes[name].kill()
            processes[name].wait()
            killed[name] += 1
            processes[name] = start_server(settings, port) if name == "server" else start_worker(settings)
        finished.set()
        for sender in senders:
            sender.result()
    print(
        f"{kills} kills ({killed}) in {time.monotonic() - started:.0f} s, {len(accepted)} submissions accepted, "
        f"{len(refusals)} refused {refusals[:2]}"
    )
    deadline, unlisted = time.monotonic() + 900, set(accepted)
    while unlisted and time.monotonic() < deadline:
        unlisted = {id_ for id_ in unlisted if httpx2.get(f"{base}/api/v1/submissions/{id_}").status_code != 200}
        time.sleep(1)
    for process in processes.values():
        process.terminate()
        process.wait()
    count_stored(settings, accepted)


def count_stored(settings: Settings, accepted: set[str]) -> None:
    """Print how many accepted submissions are stored, scored and listed."""
    listings = select(Event.entry_id, func.count()).where(Event.after == "listed").group_by(Event.entry_id)
    with open_database(settings) as database, database.read_session() as session:
        states = dict(session.execute(select(Entry.id, Entry.state).where(Entry.tier != "reference")).all())
        listed = dict(session.execute(listings).all())
        scored = set(session.scalars(select(Score.entry_id)))
    folders = {path.name for path in settings.evidence.iterdir()}
    print(f"  states: {dict(Counter(states.values()))}")
    print(
        f"  accepted and stored: {len(accepted & set(states))} of {len(accepted)}; rows without an answer to the "
        f"client: {len(set(states) - accepted)}"
    )
    print(
        f"  listed: {sum(states.get(id_) == 'listed' for id_ in accepted)}; scored: {len(accepted & scored)}; listed "
        f"exactly once: {sum(listed.get(id_) == 1 for id_ in accepted)}"
    )
    print(
        f"  evidence without a row: {len(folders - set(states))} folders; uploads left: "
        f"{len(list(settings.incoming.iterdir()))} (a worker removes both when they are six hours old)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["cpu", "reads", "submitters", "kills", "scoring"])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--database", default="", help="SQLAlchemy URL of an empty database; default: SQLite")
    options = parser.parse_args()
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="forgetbench-load-") as name:
        folder = Path(name)
        settings = Settings(server_folder=folder / "server", database_url=options.database)
        world = make_world(SMALL)
        install_bundle(settings, world.write_pack(folder / "pack"))
        tokens = [create_token(settings, f"Submitter {number}") for number in range(10)]
        with open_database(settings) as database:
            Worker(settings, database).drain()
        if "kills" in options.parts:
            kill_at_random(settings, world, folder, tokens, options.kills)
        if {"cpu", "reads"} & set(options.parts):
            fill(settings, options.rows)
        if "cpu" in options.parts:
            measure_cpu(settings, options.rows)
        if "reads" in options.parts:
            measure_reads(settings, options.rows, options.seconds)
        if "submitters" in options.parts:
            measure_submitters(settings, world, folder, tokens, 2)
        if "scoring" in options.parts:
            (folder / "large").mkdir()
            measure_scoring(folder / "large")
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
