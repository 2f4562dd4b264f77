"""Which sandbox is used, and the commands that start it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from forgetbench.errors import UsageError
from forgetbench.verification.limits import Limits
from forgetbench.verification.sandbox import PACKAGE, Bubblewrap, Container, TrustedProcess, find_sandbox


def test_no_sandbox_is_refused_with_how_to_install_one(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match=r"apt install bubblewrap.*--container IMAGE.*--trust-code"):
        find_sandbox()
    with pytest.raises(UsageError, match="Neither docker nor podman"):
        find_sandbox(container="forgetbench-runner")
    assert find_sandbox(trust_code=True) == TrustedProcess()


def test_bubblewrap_that_does_not_work_says_why(monkeypatch, tmp_path):
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(program))
    with pytest.raises(UsageError, match=r"does not work here: bwrap: No permissions to create new namespace\."):
        find_sandbox()


def pairs(command, option):
    """The arguments that follow an option, wherever it stands in a command."""
    return [command[place + 1] for place, word in enumerate(command) if word == option]


def test_bubblewrap_binds_nothing_but_system_and_python(tmp_path):
    command = Bubblewrap("bwrap", (tmp_path,)).command(Limits(disk=2**20), "cpu")
    assert {"--unshare-all", "--die-with-parent", "--new-session", "--clearenv"} <= set(command)
    assert "--bind" not in command
    assert "--dev-bind-try" not in command
    bound = pairs(command, "--ro-bind")
    assert "/" not in bound
    assert "/etc" not in bound
    assert str(Path.home()) not in bound
    assert {command[place - 1] for place, word in enumerate(command) if word == "--tmpfs"} >= {str(2**20)}
    assert str((PACKAGE / "leaderboard").resolve()) in pairs(command, "--tmpfs")
    remounted = pairs(command, "--remount-ro")
    assert remounted[-2:] == ["/dev", "/"]


def test_bubblewrap_hides_the_server_inside_a_visible_folder(tmp_path):
    inside = PACKAGE / "networks"  # a folder that is visible because the package is
    assert str(inside) in pairs(Bubblewrap("bwrap", (inside,)).command(Limits(), "cpu"), "--tmpfs")


def test_container_has_no_network_and_all_limits():
    limits = Limits(memory=2**32, processes=50)
    command = Container("/usr/bin/docker", "forgetbench-runner").command(limits, "cpu")
    assert pairs(command, "--network") == ["none"]
    assert pairs(command, "--memory") == [str(2**32)]
    assert pairs(command, "--pids-limit") == ["50"]
    assert {"--read-only", "no-new-privileges", "forgetbench-runner"} <= set(command)
    assert "--gpus" in Container("/usr/bin/docker", "x").command(limits, "cuda:0")
