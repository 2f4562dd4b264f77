"""Seals: which seeds derive from a salt, and what of a salt can be seen."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from forgetbench.errors import UsageError
from forgetbench.tasks.seal import Seal, board_salt, parse_salt
from forgetbench.tasks.task import Task, read_task

SALT = "ab" * 32
NAME = "digits/cnn/class"
ORACLES = ("reference-init", "reference-order", "control-init", "control-order", "third-init")
OTHERS = ("original-init", "original-order", "split", "retain-sample", "method")


def seeds(task: Task, streams: tuple[str, ...]) -> list[int]:
    return [task.stream(name, 0, 3) for name in streams]


def test_public_draws_have_secret_oracles_and_nothing_else() -> None:
    task = read_task(NAME)
    hidden = task.with_hidden_oracles(SALT)
    assert not set(seeds(hidden, ORACLES)) & set(seeds(task, ORACLES))
    assert seeds(hidden, OTHERS) == seeds(task, OTHERS)
    assert (hidden.name, hidden.key) == (task.name, task.key)


def test_sealed_draws_have_no_public_seed() -> None:
    task = read_task(NAME)
    sealed = task.with_sealed_draws(SALT)
    known = {*seeds(task, ORACLES + OTHERS), *seeds(task.with_hidden_oracles(SALT), ORACLES + OTHERS)}
    assert not set(seeds(sealed, ORACLES + OTHERS)) & known
    assert seeds(sealed, OTHERS) != seeds(task.with_sealed_draws("cd" * 32), OTHERS)
    assert sealed.name.startswith(f"{NAME}/sealed-")


def test_seed_is_hmac_of_draws_stream_and_indices() -> None:
    message = b'["sealed","original-init",4]'
    expected = hmac.new(bytes.fromhex(SALT), message, hashlib.sha256).hexdigest()
    assert Seal(salt=SALT, draws="sealed").seed("original-init", 4) == int(expected[:16], 16) >> 1


def test_salt_of_a_round_reveals_no_other_round() -> None:
    key = read_task(NAME).key
    salts = {board_salt(SALT, key, number) for number in (1, 2)} | {board_salt(SALT, "0" * 64, 1)}
    assert len(salts | {SALT}) == 4


@pytest.mark.parametrize("version", ["with_hidden_oracles", "with_sealed_draws"])
def test_salt_is_in_no_public_form_of_a_task(version: str) -> None:
    task = getattr(read_task(NAME), version)(SALT)
    assert SALT not in repr(task) + str(task.public())
    assert SALT in task.model_dump_json()  # jobs in other processes need it
    assert Task.model_validate_json(task.model_dump_json()).stream("control-init", 0, 0) == task.stream(
        "control-init", 0, 0
    )
    assert task.with_counts(seeds=4).stream("control-init", 0, 0) == task.stream("control-init", 0, 0)


def test_development_version_is_read_by_name_and_says_so() -> None:
    task = read_task(f"{NAME}/development")
    assert task == read_task(NAME).development()
    assert task.title.endswith("(development bundle: not the board)")
    assert read_task(NAME).with_hidden_oracles(SALT).development().seal is None


def test_salt_in_wrong_form_names_the_right_one() -> None:
    assert parse_salt(f" {SALT.upper()}\n") == SALT
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        parse_salt("abc")


def test_task_file_with_a_seal_is_refused(tmp_path) -> None:
    path = tmp_path / "task.toml"
    path.write_text(f'name = "a/b"\n[seal]\nsalt = "{SALT}"\ndraws = "sealed"\n')
    with pytest.raises(UsageError, match="only a server adds"):
        read_task(str(path))
