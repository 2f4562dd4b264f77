"""The environment of a run, for its manifest: versions, hardware and commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
PACKAGES = ("forgetbench", "numpy", "scikit-learn", "scipy", "timm", "torch", "torchvision")


def cores() -> int:
    """Number of cores that this process may use, which a scheduler may restrict."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(device: str = "cpu") -> dict[str, str]:
    """Versions of Python and packages, operating system, processor, GPU, and the commit of a source checkout."""
    found = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "bfloat16": bfloat16_unit(),
        "device": device,
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if device.startswith("cuda"):
        import torch

        with suppress(RuntimeError, AssertionError):  # the GPU is that of a worker on another machine
            found["gpu"] = torch.cuda.get_device_name(device)
    commit = _commit()
    if commit:
        found["commit"] = commit
    return found


def bfloat16_unit() -> str:
    """The instructions that multiply bfloat16 on this processor: amx, avx512, arm, or none that are known.

    Virtual machines may hide them, so that the processor's name does not tell.
    """
    flags = {flag for name in ("flags", "Features") for flag in _cpu_fact(name).split()}
    units = {"amx_bf16": "amx", "avx512_bf16": "avx512", "bf16": "arm"}
    return next((unit for flag, unit in units.items() if flag in flags), "none")


def processor() -> str:
    """The name of the processor."""
    return _cpu_fact("model name") or platform.processor() or "unknown"


def _cpu_fact(name: str) -> str:
    """The first value of a name in /proc/cpuinfo; "" if it has no such name."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def _commit() -> str | None:
    """The commit of the checkout that contains this file; None for an installed package."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
