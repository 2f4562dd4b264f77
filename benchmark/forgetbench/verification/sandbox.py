"""Sandboxes: how a method's process is started so that it sees no network, no other files and no other processes.

`find_sandbox` picks one. All speak the same protocol (`channel`) on standard input and output of
``python -m forgetbench.verification.child``, and differ only in the command that starts it.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import forgetbench
from forgetbench.errors import UsageError
from forgetbench.verification.limits import Limits

PACKAGE = Path(forgetbench.__file__).parent
CHILD = "forgetbench.verification.child"
_UNUSED = ("leaderboard", "reference", "cli", "remote", "reproduction")
"""Parts of the package that a method's process never needs, and that it does not see."""
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime")
_GPU_FILES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
_PROBE_SECONDS = 20.0


class Sandbox(Protocol):
    """A way to start a method's process."""

    @property
    def name(self) -> str:
        """Name in records: ``bubblewrap``, ``container`` or ``none``."""

    @property
    def sees_processes(self) -> bool:
        """Whether the processes of the sandbox are descendants of the started one, so that they can be measured."""

    def command(self, limits: Limits, device: str) -> list[str]:
        """The command that starts a method's process."""

    def environment(self) -> dict[str, str] | None:
        """The environment of the command; None: this process's."""

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a started command; its process group is killed afterwards."""


def child_environment(device: str) -> dict[str, str]:
    """The whole environment of a method's process."""
    threads = "1" if device == "cpu" else str(os.cpu_count() or 1)
    return {
        "FORGETBENCH_HOME": "/tmp/forgetbench",  # noqa: S108 - the sandbox's own folder
        "HOME": "/tmp",  # noqa: S108
        "LANG": "C.UTF-8",
        "MKL_NUM_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONPATH": str(PACKAGE.parent),
        "PYTHONSAFEPATH": "1",
        "TMPDIR": "/tmp",  # noqa: S108
    }


@dataclass(frozen=True)
class Bubblewrap:
    """bubblewrap: new namespaces for everything, a root that is read-only and has only what Python and torch need."""

    program: str
    """Path of ``bwrap``."""
    hidden: tuple[Path, ...] = ()
    """Folders that stay invisible even where a visible folder contains them, such as the server's."""
    name: str = "bubblewrap"
    sees_processes: bool = True

    def command(self, limits: Limits, device: str) -> list[str]:
        """The command that starts a method's process; see `Sandbox`."""
        words = [self.program, "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"]
        words += ["--new-session", "--cap-drop", "ALL", "--hostname", "sandbox", "--clearenv"]
        for name, value in child_environment(device).items():
            words += ["--setenv", name, value]
        words += ["--proc", "/proc", "--dev", "/dev"]
        for folder in ("/dev/shm", "/tmp"):  # noqa: S108 - in the sandbox
            words += ["--size", str(limits.disk), "--tmpfs", folder]
        words += self._visible()
        if device.startswith("cuda"):
            words += self._gpu()
        for path in self._masked():
            words += ["--tmpfs", str(path), "--remount-ro", str(path)] if path.is_dir() else _masked_file(path)
        words += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108
        return [*words, "--", sys.executable, "-P", "-m", CHILD]

    def environment(self) -> dict[str, str]:
        """Nothing: bubblewrap itself needs no environment."""
        return {}

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill bubblewrap, with which its namespace of processes dies."""
        process.kill()

    def _visible(self) -> list[str]:
        words: list[str] = []
        for name in _SYSTEM:
            path = Path(name)
            if path.is_symlink():
                words += ["--symlink", str(path.readlink()), name]
            elif path.is_dir():
                words += ["--ro-bind", name, name]
        for name in _SYSTEM_FILES:
            words += ["--ro-bind-try", name, name]
        for path in _python_folders():
            words += ["--ro-bind", str(path), str(path)]
        return words

    def _masked(self) -> list[Path]:
        """What is hidden within visible folders: unused parts of the package, image sets, and ``hidden``."""
        visible = [*map(Path, _SYSTEM), *_python_folders()]
        masked = [target for name in _UNUSED if (target := (PACKAGE / name)).is_dir()]
        masked += _image_files()
        masked += [path.resolve() for path in self.hidden if path.exists()]
        existing = {path.resolve() for path in masked if path.exists()}
        return sorted(path for path in existing if any(path.is_relative_to(folder) for folder in visible))

    def _gpu(self) -> list[str]:
        words = ["--ro-bind-try", "/sys", "/sys", "--ro-bind-try", "/etc/nvidia", "/etc/nvidia"]
        devices = [path.name for path in Path("/dev").glob("nvidia[0-9]*")]
        for name in (*devices, *_GPU_FILES):
            words += ["--dev-bind-try", f"/dev/{name}", f"/dev/{name}"]
        return words


@dataclass(frozen=True)
class Container:
    """A container of the runner's image, where an operator prefers one: ``docker`` or ``podman``.

    The limits on memory and processes are the engine's. Only the wall time of its processes can be measured from
    outside.
    """

    engine: str
    """Path of ``docker`` or ``podman``."""
    image: str
    """The image; the target ``runner`` of ``docker/Dockerfile``."""
    name: str = "container"
    sees_processes: bool = False

    def command(self, limits: Limits, device: str) -> list[str]:
        """The command that starts a method's process; see `Sandbox`."""
        size = f"rw,nosuid,nodev,size={limits.disk}"
        words = [self.engine, "run", "--rm", "--interactive", "--name", f"forgetbench-{secrets.token_hex(8)}"]
        words += ["--network", "none", "--read-only", "--tmpfs", f"/tmp:{size}", "--workdir", "/tmp"]  # noqa: S108
        words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "65534:65534"]
        words += ["--memory", str(limits.memory), "--memory-swap", str(limits.memory)]
        words += ["--pids-limit", str(limits.processes), "--ulimit", "core=0"]
        for name, value in child_environment(device).items():
            words += ["--env", f"{name}={value}"] if name not in ("PATH", "PYTHONPATH") else []
        if device.startswith("cuda"):
            words += ["--gpus", "all"]
        return [*words, "--entrypoint", "python", self.image, "-P", "-m", CHILD]

    def environment(self) -> None:
        """This process's environment: the engine's client may need it."""

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the container, then the engine's client."""
        arguments = process.args
        if isinstance(arguments, Sequence) and not isinstance(arguments, str | bytes):
            words = [str(word) for word in arguments]
            subprocess.run(  # noqa: S603 - our own arguments
                [self.engine, "kill", words[words.index("--name") + 1]], capture_output=True, check=False, timeout=30
            )
        process.kill()


@dataclass(frozen=True)
class TrustedProcess:
    """No sandbox: a process like any other, for code that the operator trusts. Time and memory are still limited."""

    name: str = "none"
    sees_processes: bool = True

    def command(self, limits: Limits, device: str) -> list[str]:  # noqa: ARG002 - the protocol's signature
        """The command that starts a method's process; see `Sandbox`."""
        return [sys.executable, "-P", "-m", CHILD]

    def environment(self) -> dict[str, str]:
        """The environment of a method's process, without what this process has."""
        return child_environment("cpu") | {"HOME": os.environ.get("HOME", "/")}

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the process."""
        process.kill()


INSTALL = (
    "Install bubblewrap (Debian and Ubuntu: `apt install bubblewrap`, Fedora: `dnf install bubblewrap`), or give the "
    "runner's image with --container IMAGE. --trust-code runs submitted code without a sandbox: only where you trust "
    "every submitter with this machine."
)


def find_sandbox(*, trust_code: bool = False, container: str = "", hidden: Sequence[Path] = ()) -> Sandbox:
    """The sandbox of this machine.

    Args:
        trust_code: Use none, and run submitted code as a process like any other.
        container: Image of a container to use; "" is bubblewrap.
        hidden: Folders that no submitted code may see, such as the server's.

    Raises:
        UsageError: There is none, or it does not work here; the message says how to install one.
    """
    if trust_code:
        return TrustedProcess()
    if container:
        engine = shutil.which("docker") or shutil.which("podman")
        if engine is None:
            raise UsageError("Neither docker nor podman is installed, which --container needs. Install one of them.")
        return Container(engine, container)
    program = shutil.which("bwrap")
    if program is None:
        raise UsageError(f"Submitted code runs in a sandbox only, and there is none here. {INSTALL}")
    sandbox = Bubblewrap(program, tuple(hidden))
    if reason := _why_unusable(sandbox):
        raise UsageError(
            f"bubblewrap is installed, but does not work here: {reason}. The kernel or a container around this process "
            f"may forbid user namespaces. {INSTALL}"
        )
    return sandbox


def _why_unusable(sandbox: Bubblewrap) -> str:
    """Why bubblewrap cannot start a process here; "" if it can."""
    command = sandbox.command(Limits(), "cpu")
    probe = [*command[: command.index("--") + 1], sys.executable, "-P", "-c", "import forgetbench"]
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            probe, env={}, capture_output=True, check=False, timeout=_PROBE_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return (lines[-1] if lines else f"exit status {done.returncode}") if done.returncode else ""


def _python_folders() -> list[Path]:
    """The folders that Python, its libraries and this package need, outside those of the system."""
    paths = sysconfig.get_paths()
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent]
    folders += [Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [PACKAGE, *(link.resolve() for link in PACKAGE.iterdir() if link.is_symlink())]
    system = [Path(name) for name in _SYSTEM]
    outside = {path for path in folders if path.is_dir() and not any(path.is_relative_to(one) for one in system)}
    return sorted(path for path in outside if not any(path != one and path.is_relative_to(one) for one in outside))


def _image_files() -> Iterator[Path]:
    """Image sets that packages contain: test images and labels are not for methods."""
    yield from (PACKAGE / "datasets").resolve().glob("*.npz")
    for library in ("sklearn", "skimage"):
        spec = importlib.util.find_spec(library)
        for place in spec.submodule_search_locations or () if spec else ():
            yield from (Path(place) / part for part in ("datasets/data", "datasets/images", "data"))


def _masked_file(path: Path) -> list[str]:
    return ["--ro-bind", "/dev/null", str(path)]


def start(sandbox: Sandbox, limits: Limits, device: str) -> subprocess.Popen[bytes]:
    """Start a method's process, with pipes to its three streams.

    Raises:
        UsageError: It cannot be started.
    """
    environment: Mapping[str, str] | None = sandbox.environment()
    try:
        return subprocess.Popen(  # noqa: S603 - our own arguments
            sandbox.command(limits, device),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            close_fds=True,
        )
    except OSError as error:
        raise UsageError(f"The sandbox cannot be started: {error}. {INSTALL}") from error
