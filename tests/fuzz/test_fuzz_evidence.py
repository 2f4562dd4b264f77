"""Damaged files of evidence, weights and records, and damaged requests: refused in words, never with a traceback.

Every case is drawn from a fixed seed. A message names the file that is damaged and says what to do.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from safetensors.torch import save
from support.leaderboard import TASK, ZIP, Site, World, zip_of
from support.mutations import mutate
from support.training import make_spec

from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.arrays import read_arrays
from forgetbench.evidence.reference import AUDIT, PACK, AuditFitness, check_run, read_pack, with_fitness
from forgetbench.evidence.run import MANIFEST, read_run
from forgetbench.importers.arrays import score_arrays
from forgetbench.importers.logits import import_logits
from forgetbench.importers.npz import read_npz
from forgetbench.leaderboard.admin import create_token, install_bundle
from forgetbench.leaderboard.client.http import LeaderboardClient
from forgetbench.leaderboard.client.submit import pull_bundle, validate_run
from forgetbench.leaderboard.render.schemas import EntryDocument, SubmissionDocument, TokenDocument
from forgetbench.leaderboard.settings import Settings
from forgetbench.networks.pretrained import match_state, read_state
from forgetbench.runner.results import Results
from forgetbench.scoring.scorer import Scorer
from forgetbench.store import digest

pytestmark = pytest.mark.slow

FIX = re.compile(
    r"\b(add|build|check|choose|copy|correct|download|fetch|give|install|leave|make|remove|repeat|run|save|submit|upload|"
    r"use|write)\b",
    re.IGNORECASE,
)
"""Words of which every message has one: they say what to do."""
LONGEST = 4000
"""Characters of a message."""
Read = Callable[[Path], object]


def check(read: Read, path: Path, content: bytes, count: int, seed: int, named: str = "") -> None:
    """Damage a file in many ways; each is read, or refused in words.

    Args:
        read: Reads the file in every way in which it is read.
        path: The file.
        content: Its intact content.
        count: Number of damaged files.
        seed: Seed of the damage.
        named: What messages call the file; its name by default.
    """
    path.write_bytes(content)
    read(path)
    refused = 0
    for number in range(count):
        damage, damaged = mutate(content, np.random.default_rng([seed, number]))
        path.write_bytes(damaged)
        try:
            read(path)
        except ForgetBenchError as error:
            refused += 1
            message = str(error)
            assert re.search(named or re.escape(path.name), message), (number, damage, message)
            assert FIX.search(message.replace(str(path.parent), "")), (number, damage, message)
            assert len(message) < LONGEST, (number, damage, message[:LONGEST])
        except Exception as error:
            raise AssertionError(
                f"damage {number} ({damage}) of seed {seed}: {type(error).__name__}: {error}"
            ) from error
    assert refused > count / 3
    path.write_bytes(content)


@pytest.fixture(scope="module")
def world() -> World:
    """A small task."""
    return World(counts={"forget": 12, "retain": 16, "validation": 8, "test": 18}, seeds=2)


@pytest.fixture
def pack(world: World, tmp_path: Path) -> Path:
    """Its reference bundle, with the fitness of an audit."""
    folder = world.write_pack(tmp_path / "pack", recalibrated=True)
    bundle = read_pack(folder)
    fitness = AuditFitness(
        task=TASK, task_key=bundle.card.task_key, pack=bundle.digest, code=digest("code"), unfit={"js": "too wide"}
    )
    with_fitness(bundle, fitness)
    return folder


def npz(compressed: bool) -> bytes:
    stream, rng = io.BytesIO(), np.random.default_rng(0)
    arrays = {name: rng.normal(size=(2, 9, 4)).astype(np.float32) for name in ("forget", "retain", "test")}
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_fuzz_npz_of_users(tmp_path: Path, compressed: bool) -> None:
    labels = dict.fromkeys(("forget", "retain", "test"), np.arange(9) % 4)
    intact = npz(compressed)
    (tmp_path / "oracle.npz").write_bytes(intact)
    oracle = read_npz(tmp_path / "oracle.npz")

    def read(path: Path) -> None:
        arrays = read_npz(path)
        if set(arrays) == set(oracle) and all(one.shape == (2, 9, 4) for one in arrays.values()):
            return  # other faults are those of the argument, not of the file
        try:
            score_arrays(arrays, oracle, labels)
        except ForgetBenchError as error:
            raise ForgetBenchError(f"{path.name}: {error} Correct it.") from error

    check(read, tmp_path / "unlearned.npz", intact, 500, 1 + compressed)


def test_fuzz_evidence_files(world: World, pack: Path, tmp_path: Path) -> None:
    run = world.write_run(tmp_path / "run", after=1.0)
    bundle = read_pack(pack)

    def read(path: Path) -> None:
        problems = check_run(read_run(run), bundle)
        if problems:
            raise ForgetBenchError("; ".join(problems))
        read_arrays(path)
        validate_run(run)

    check(read, run / "d0-s1.npz", (run / "d0-s1.npz").read_bytes(), 500, 3)


def test_fuzz_evidence_files_alone(world: World, tmp_path: Path) -> None:
    """Without a manifest, whose hashes would find most damage; and as the client checks a run before an upload."""
    run = world.write_run(tmp_path / "run")
    content = (run / "d0-s1.npz").read_bytes()
    shutil.copytree(run, tmp_path / "other")
    check(read_arrays, run / "d0-s1.npz", content, 300, 4)
    check(lambda path: validate_run(path.parent), tmp_path / "other" / "d0-s1.npz", content, 200, 5)


def test_fuzz_logits_folder(world: World, pack: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logits"
    folder.mkdir()
    for seed in range(2):
        np.savez(
            folder / f"d0-s{seed}.npz", **{name: one.astype(np.float32) for name, one in world.model(seed).items()}
        )
    (folder / "method.toml").write_text('name = "mine"\ntitle = "Mine"\n[parameters]\nlr = 0.1\n[cost]\nflops = 1e9\n')
    bundle = read_pack(pack)

    def read(_: Path) -> None:
        import_logits(folder, bundle, tmp_path / "made")

    check(read, folder / "d0-s1.npz", (folder / "d0-s1.npz").read_bytes(), 300, 6)
    check(read, folder / "method.toml", (folder / "method.toml").read_bytes(), 300, 7)


@pytest.mark.parametrize("kind", ["safetensors", "torch", "legacy"])
def test_fuzz_weights(tmp_path: Path, kind: str) -> None:
    network = make_spec("cnn", 8, width=2).build(0)
    stream = io.BytesIO()
    torch.save({"model_state_dict": network.state_dict()}, stream, _use_new_zipfile_serialization=kind == "torch")
    content = save(network.state_dict()) if kind == "safetensors" else stream.getvalue()
    path = tmp_path / "weights.pt"
    check(lambda file: match_state(network, read_state(file), file), path, content, 500, 8 + len(kind))


def test_fuzz_manifest(world: World, tmp_path: Path) -> None:
    run = world.write_run(tmp_path / "run", after=1.0)
    check(lambda path: read_run(path.parent), run / MANIFEST, (run / MANIFEST).read_bytes(), 400, 20)
    named = f"{MANIFEST}|d0-s\\d.npz"  # a manifest may also be damaged where it describes a file
    check(lambda path: validate_run(path.parent), run / MANIFEST, (run / MANIFEST).read_bytes(), 200, 21, named)


def test_fuzz_reference_bundle(pack: Path) -> None:
    def read(path: Path) -> None:
        bundle = read_pack(path.parent, verify=False)
        assert bundle.labels
        assert bundle.excluded_metrics
        assert bundle.shapes(0)
        read_pack(path.parent)

    check(read, pack / PACK, (pack / PACK).read_bytes(), 300, 22, f"{PACK}|{AUDIT}|npz|{pack.name}")
    check(read, pack / AUDIT, (pack / AUDIT).read_bytes(), 150, 23)
    check(read, pack / "labels-d0.npz", (pack / "labels-d0.npz").read_bytes(), 150, 24)


def test_fuzz_audit_fitness(pack: Path, tmp_path: Path) -> None:
    results = Results(tmp_path / "home")
    manifest = read_pack(pack).card
    place = (manifest.task, manifest.task_key, manifest.draws, manifest.seeds)
    path = results.fitness_file(*place)
    path.parent.mkdir(parents=True)
    check(lambda _: results.fitness(*place), path, (pack / AUDIT).read_bytes(), 150, 25)


def test_fuzz_cached_scores_are_computed_again(world: World, pack: Path, tmp_path: Path) -> None:
    """A cache is never a reason to fail: what is damaged is computed again."""
    scorer = Scorer(read_pack(pack), tmp_path / "bands", tmp_path / "scores")
    run = read_run(world.write_run(tmp_path / "run", after=1.0))
    card = scorer.score(run)
    for place, count in (("bands", 5), ("scores", 40)):
        [path] = (tmp_path / place).iterdir() if place == "bands" else [max((tmp_path / place).iterdir())]
        content = path.read_bytes()
        for number in range(count):
            path.write_bytes(mutate(content, np.random.default_rng([26, number]))[1])
            again = Scorer(read_pack(pack), tmp_path / "bands", tmp_path / "scores")
            assert again.score(run).name == card.name
            assert again.bands.seeds == scorer.bands.seeds


def test_fuzz_answers_of_servers(tmp_path: Path, world: World) -> None:
    token = TokenDocument(name="Ada", scopes=["submit"], expires_at=None).model_dump_json().encode()
    problem = b'{"title": "x", "status": 422, "detail": "No.", "errors": [{"field": "a", "message": "Correct it."}]}'

    def ask(path: Path) -> None:
        for status in (200, 422, 503):
            content = path.read_bytes()
            transport = httpx2.MockTransport(
                lambda _, status=status, content=content: httpx2.Response(status, content=content)
            )
            with LeaderboardClient("https://board.example.org", "fb_x", transport=transport) as client:
                try:
                    for model in (TokenDocument, SubmissionDocument, EntryDocument):
                        client.get("/api/v1/whoami", model)
                except ForgetBenchError as error:
                    failure = error
        raise failure

    for number, content in enumerate((token, problem)):
        for case in range(150):
            path = tmp_path / "answer"
            path.write_bytes(mutate(content, np.random.default_rng([27 + number, case]))[1])
            with pytest.raises(ForgetBenchError, match=r"https://board\.example\.org"):
                ask(path)


def test_fuzz_bundle_from_a_server(pack: Path, tmp_path: Path) -> None:
    public = tmp_path / "public"
    shutil.copytree(pack / "originals", public / "originals")
    shutil.copyfile(pack / PACK, public / PACK)
    content = zip_of(public)
    target = tmp_path / "pulled"

    def pull(path: Path) -> None:
        transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=path.read_bytes()))
        try:
            read_pack(pull_bundle(TASK, "https://board.example.org", target, transport=transport), verify=False)
        finally:
            shutil.rmtree(target, ignore_errors=True)

    check(pull, tmp_path / "pack.zip", content, 200, 29, "board.example.org|pack|npz")


@pytest.fixture
def site(world: World, pack: Path, tmp_path: Path) -> Iterator[Site]:
    """A server with the task's board."""
    settings = Settings(server_folder=tmp_path / "server", reads_per_minute=10**6, writes_per_minute=10**6)
    install_bundle(settings, pack)
    site = Site(settings, world)
    with site.client:
        yield site
    site.database.close()


def assert_problem(response: Any, case: object) -> None:
    assert response.status_code < 500, (case, response.text)
    if response.status_code >= 400:
        document = response.json()
        messages = [document["detail"], *(error["message"] for error in document["errors"])]
        assert all(messages), (case, document)
        assert len(response.text) < 60_000, case


def test_fuzz_uploads_are_answered(site: Site, world: World, tmp_path: Path) -> None:
    token = create_token(site.settings, "Ada", ["submit", "verify"], daily_submissions=10**6)
    headers = {"Authorization": f"Bearer {token}"}
    run = world.write_run(tmp_path / "run")
    body = zip_of(run)
    assert site.post(body, headers, dry_run=True).status_code == 200
    for number in range(250):
        damage, damaged = mutate(body, np.random.default_rng([30, number]))
        assert_problem(site.post(damaged, headers, dry_run=True), (number, damage))
    manifest = (run / MANIFEST).read_bytes()
    for number in range(150):
        damage, damaged = mutate(manifest, np.random.default_rng([31, number]))
        (run / MANIFEST).write_bytes(damaged)
        assert_problem(site.post(run, headers, dry_run=True), (number, damage))
    assert not list(site.settings.incoming.iterdir())


def test_fuzz_requests_are_answered(site: Site, world: World, tmp_path: Path) -> None:
    token = create_token(site.settings, "Ada", ["submit", "moderate"], daily_submissions=10**6)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    entry = site.post(world.write_run(tmp_path / "run"), headers | ZIP).json()["id"]
    body = b'{"state": "rejected", "reason": "logits are averages of oracles"}'
    path = f"/api/v1/submissions/{entry}/state"
    for number in range(200):
        damage, damaged = mutate(body, np.random.default_rng([32, number]))
        assert_problem(site.client.post(path, content=damaged, headers=headers), (number, damage))
    for number in range(150):
        damage, damaged = mutate(f"Bearer {token}".encode(), np.random.default_rng([33, number]))
        text = damaged.decode("latin-1")
        if all(" " <= sign < "\x7f" for sign in text):
            answer = site.client.get("/api/v1/whoami", headers={"Authorization": text})
            assert answer.status_code in {200, 401}, (number, damage)
