"""Kill the server and the worker (SIGKILL) at random moments while people submit, then count what is stored."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
from leaderboard_processes import free_port, start_server, start_worker
from leaderboard_world import World
from sqlalchemy import func, select

from forgetbench.errors import ForgetBenchError
from forgetbench.leaderboard.client.submit import submit
from forgetbench.leaderboard.db.models import Entry, Event, Score
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.settings import Settings


def kill_at_random(settings: Settings, world: World, folder: Path, tokens: list[str], kills: int) -> None:
    """Kill one of the two processes repeatedly, and count what was accepted and what is stored."""
    moments, port = random.Random(5), free_port()  # noqa: S311 - when to kill
    base, over = f"http://127.0.0.1:{port}", threading.Event()
    answers: list[tuple[Path, str]] = []
    refusals: list[str] = []
    refused: set[str] = set()

    def send(number: int) -> None:
        place = 0
        while not over.is_set():
            run = world.write_run(folder / f"kill-{number}-{place}", 1000 * (number + 1) + place)
            place += 1
            time.sleep(0.5)
            while True:  # as a person would: the same run again until the server takes it
                try:
                    answers.append((run, str(submit(run, base, tokens[number], wait_seconds=0).document.id)))
                    break
                except ForgetBenchError as error:
                    if "cannot be reached" not in str(error):
                        refusals.append(str(error))
                        refused.add(str(run))
                        break
                    time.sleep(0.1)

    processes = {"server": start_server(settings, port, quiet=True), "worker": start_worker(settings)}
    started, killed = time.monotonic(), {"server": 0, "worker": 0}
    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(send, number) for number in range(4)]
        for _ in range(kills):
            time.sleep(moments.uniform(0.2, 3.0))
            name = moments.choice(sorted(processes))
            processes[name].kill()
            processes[name].wait()
            killed[name] += 1
            processes[name] = start_server(settings, port, quiet=True) if name == "server" else start_worker(settings)
        over.set()
        for sender in senders:
            sender.result()
    print(
        f"{sum(killed.values())} kills ({killed}) in {time.monotonic() - started:.0f} s, {len(answers)} submissions "
        f"accepted, {len(refusals)} refused {refusals[:2]}"
    )
    ids = {identity for _, identity in answers}
    _wait_for(base, ids)
    for process in processes.values():
        process.terminate()
        process.wait()
    _count(settings, ids)


def _wait_for(base: str, ids: set[str]) -> None:
    until, waiting = time.monotonic() + 900, set(ids)
    while waiting and time.monotonic() < until:
        waiting = {one for one in waiting if httpx2.get(f"{base}/api/v1/submissions/{one}").status_code != 200}
        time.sleep(1)


def _count(settings: Settings, ids: set[str]) -> None:
    database = Database(settings.database)
    with database.read_session() as session:
        states = dict(session.execute(select(Entry.id, Entry.state).where(Entry.tier != "reference")).tuples().all())
        listed = dict(
            session.execute(
                select(Event.entry_id, func.count()).where(Event.after == "listed").group_by(Event.entry_id)
            )
            .tuples()
            .all()
        )
        scored = set(session.scalars(select(Score.entry_id)))
    database.close()
    print(f"  states: {dict(Counter(states.values()))}")
    folders = {path.name for path in settings.evidence.iterdir()}
    print(
        f"  accepted and stored: {len(ids & set(states))} of {len(ids)}; rows without an answer to the client: "
        f"{len(set(states) - ids)}"
    )
    print(
        f"  listed: {sum(states.get(one) == 'listed' for one in ids)}; scored: {len(ids & scored)}; listed exactly "
        f"once: {sum(listed.get(one) == 1 for one in ids)}"
    )
    print(
        f"  evidence without a row: {len(folders - set(states))} folders; uploads left: "
        f"{len(list(settings.incoming.iterdir()))} (a worker removes both when they are six hours old)"
    )
