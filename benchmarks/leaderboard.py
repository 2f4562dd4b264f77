"""Load test of the leaderboard over loopback: a board of 10,000 rows, reads, many submitters, kills, and scoring.

Run ``python benchmarks/leaderboard.py``. It starts servers in a temporary folder and prints its results. The load comes
from this process, on the same cores as the server, so that the results are a lower bound.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
from leaderboard_kills import kill_at_random
from leaderboard_processes import free_port, start_server
from leaderboard_world import COUNTS, TASK, World, fill

from forgetbench.leaderboard.admin import create_token, install_bundle
from forgetbench.leaderboard.client.submit import submit
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.worker.worker import Worker

CIFAR = {"forget": 5_000, "retain": 10_000, "validation": 5_000, "test": 10_000}
"""Rows of a submission of CIFAR-10 size."""


async def load(
    base: str, server: psutil.Process, paths: list[str], rate: float, seconds: float
) -> dict[str, list[float]]:
    """Send requests at a steady rate, however long answers take; return latencies in milliseconds by path."""
    results: dict[str, list[float]] = {}
    statuses: Counter[int] = Counter()
    async with httpx2.AsyncClient(
        base_url=base, limits=httpx2.Limits(max_connections=64, keepalive_expiry=2), timeout=30
    ) as client:

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
    each = (sum(server.cpu_times()[:2]) - used) / sum(statuses.values()) * 1000
    print(f"  {rate:g} requests a second for {seconds:g} s: statuses {dict(statuses)}, {each:.1f} ms of work each")
    return results


def show(results: dict[str, list[float]]) -> None:
    for path, times in results.items():
        ordered = sorted(times)
        p95 = ordered[int(0.95 * len(ordered))]
        print(f"    {path[:70]:<70} median {statistics.median(ordered):6.1f} ms  p95 {p95:6.1f} ms  of {len(ordered)}")


def submitters(world: World, folder: Path, base: str, tokens: list[str], each: int) -> None:
    """Several people submit at once; check that every run is listed exactly once afterwards."""
    runs = [world.write_run(folder / f"run-{number}", number) for number in range(len(tokens) * each)]

    def send(number: int) -> str:
        return str(submit(runs[number], base, tokens[number % len(tokens)], wait_seconds=0).document.id)

    started = time.monotonic()
    with ThreadPoolExecutor(len(tokens)) as pool:
        ids = list(pool.map(send, range(len(runs))))
    received = time.monotonic() - started
    while True:
        results = [httpx2.get(f"{base}/api/v1/submissions/{identity}") for identity in ids]
        if all(answer.status_code == 200 for answer in results):
            break
        time.sleep(0.5)
    once = all([event["after"] for event in answer.json()["history"]].count("listed") == 1 for answer in results)
    listed = time.monotonic() - started
    print(f"{len(runs)} submissions by {len(tokens)} people at once:")
    print(f"  received in {received:.1f} s, listed in {listed:.1f} s, each exactly once: {once}")


def scoring(folder: Path) -> None:
    """Measure how long the worker needs for one submission of CIFAR-10 size."""
    world = World(CIFAR)
    settings = Settings(server_folder=folder / "server")
    install_bundle(settings, world.write_pack(folder / "pack"))
    token = create_token(settings, "Ada")
    database = Database(settings.database)
    worker = Worker(settings, database)
    started = time.monotonic()
    worker.drain()
    print(f"scoring, 10 seeds, {CIFAR}, 10 classes:")
    print(f"  bands and both reference rows, once per board: {time.monotonic() - started:.1f} s")
    run = world.write_run(folder / "run", 0)
    port = free_port()
    process = start_server(settings, port)
    try:
        started = time.monotonic()
        submit(run, f"http://127.0.0.1:{port}", token, wait_seconds=0)
        print(
            f"  upload of {sum(path.stat().st_size for path in run.iterdir()) / 2**20:.0f} MiB, and its checks: "
            f"{time.monotonic() - started:.1f} s"
        )
        print(f"  web process after it: {psutil.Process(process.pid).memory_info().rss / 2**20:.0f} MiB")
    finally:
        process.terminate()
        process.wait()
    started, used = time.monotonic(), time.process_time()
    worker.work_once()
    print(f"  its score: {time.monotonic() - started:.1f} s, {time.process_time() - used:.1f} s of work")
    worker.drain()
    print(f"  worker process: {psutil.Process().memory_info().rss / 2**20:.0f} MiB")
    database.close()


def reads(settings: Settings, rows: int, seconds: float) -> None:
    """Measure reads of one board of many rows."""
    port = free_port()
    base, process = f"http://127.0.0.1:{port}", start_server(settings, port)
    server = psutil.Process(process.pid)
    try:
        board, json_of = f"/boards/{TASK}", f"/api/v1/boards/{TASK}"
        print(f"a board of {rows} rows, the same views repeatedly:")
        show(asyncio.run(load(base, server, ["/health", board, json_of], 50, min(seconds, 20))))
        print("views that are not cached:")
        uncached = [f"{board}?page={page}&sort=-lira.forget" for page in range(1, 1 + rows // 100)]
        times = asyncio.run(
            load(base, server, uncached + [f"{json_of}?q=method-{n}&sort=cost" for n in range(100)], 20, 10)
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
        show(asyncio.run(load(base, server, mixed, 200, seconds)))
        print(f"web process: {server.memory_info().rss / 2**20:.0f} MiB")
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["reads", "submitters", "kills", "scoring"])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--database", default="", help="SQLAlchemy URL of an empty database; SQLite otherwise")
    chosen = parser.parse_args()
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="forgetbench-load-") as name:
        folder = Path(name)
        settings = Settings(server_folder=folder / "server", database_url=chosen.database)
        world = World(COUNTS)
        install_bundle(settings, world.write_pack(folder / "pack"))
        tokens = [create_token(settings, f"Submitter {number}", ["submit"]) for number in range(10)]
        database = Database(settings.database)
        Worker(settings, database).drain()
        database.close()
        if "kills" in chosen.parts:
            kill_at_random(settings, world, folder, tokens, chosen.kills)
        if "reads" in chosen.parts:
            fill(settings, chosen.rows)
            reads(settings, chosen.rows, chosen.seconds)
        if "submitters" in chosen.parts:
            port = free_port()
            process = start_server(settings, port, worker=True)
            try:
                submitters(world, folder, f"http://127.0.0.1:{port}", tokens, 2)
            finally:
                process.terminate()
                process.wait()
        if "scoring" in chosen.parts:
            (folder / "large").mkdir()
            scoring(folder / "large")
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
