"""Writes a batch script for Slurm that runs a command on several machines, with a Ray cluster inside the allocation."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import forgetbench
from forgetbench.errors import UsageError

_TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}|UNLIMITED", re.IGNORECASE)
_RESTARTS = 20
_RAY_SECONDS = 300
"""Time that each part of Ray waits for another one."""
_RAY_ATTEMPTS = 3
"""Number of times that a node of Ray is started, and the check is made."""
_RESERVED = {
    "array",
    "cpus-per-task",
    "gpus-per-node",
    "nodes",
    "no-kill",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "requeue",
    "signal",
    "time",
}
"""Options of sbatch that the script depends on."""
_OWN_OPTIONS = {"nodes": "--nodes", "cpus-per-task": "--cpus-per-node", "gpus-per-node": "--gpus-per-node"} | {
    "time": "--time",
    "array": "--array",
}
"""Options of sbatch -> the options of this command that set them."""

_HEAD = """\
#!/bin/bash
# A batch script for Slurm, written by ForgetBench {version}. Submit it with: sbatch FILE
#
# Submit it again to continue: finished work is in the store (FORGETBENCH_HOME below), and only the rest is computed.
"""

_RAY = """\
# A Ray cluster of this job's machines: the head on the first, where this script runs, and one node on each other one.
# The token keeps other users of the network from running code in the cluster.
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \\n')
export RAY_AUTH_TOKEN
# A busy machine is slow to start: Ray's own settings of how long its parts wait, in seconds or attempts.
export RAY_raylet_start_wait_time_s={wait} RAY_gcs_server_port_wait_time_s={wait} RAY_NUM_REDIS_GET_RETRIES={wait}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# This machine's address, as another one sees it.
host=$(srun --nodes=1 --ntasks=1 --nodelist="${{nodes[1]}}" printenv SLURM_LAUNCH_NODE_IPADDR)
port=$((20000 + SLURM_JOB_ID % 10000))  # jobs that share a machine have different ports
# A node that fails to start, or loses the head while that starts again, is started again.
start='
    trap "rm -rf \\$folder" EXIT
    trap "stop=yes; kill \\$node" TERM
    for attempt in {attempts}; do
        folder=$(mktemp -d /tmp/forgetbench-XXXXXX) || exit 1  # a short name: Ray has sockets in it
        ray start --block --temp-dir="$folder/ray" --num-cpus={cpus} --num-gpus={gpus} \\
            --object-store-memory=100000000 "$@" &
        node=$!
        while kill -0 $node 2>/dev/null; do wait $node; done
        [ -z "$stop" ] || exit 0
        echo "Ray has ended on $(hostname), attempt $attempt." >&2
        rm -rf "$folder"
        sleep 5
    done
    exit 1'
bash -c "$start" bash --head --node-ip-address="$host" --port="$port" --include-dashboard=false &
head=$!
until (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; do
    kill -0 "$head" || {{ echo "Ray did not start on ${{nodes[0]}}." >&2; exit 1; }}
    sleep 1
done
for node in "${{nodes[@]:1}}"; do  # one step for each machine: one that fails does not end the others
    srun --nodes=1 --ntasks=1 --cpus-per-task={cpus} --nodelist="$node" --no-kill \\
        bash -c "$start" bash --address="$host:$port" &
done

# Compare the machines' code, devices and stores before anything is computed. The status is 1 if they do not fit; with
# any other one, the cluster has not started yet.
for attempt in {attempts}; do
    forgetbench engine check --engine "ray:$host:$port" --machines {nodes}{check} --device {device}
    status=$?
    [ "$status" -gt 1 ] && kill -0 "$head" || break
done
[ "$status" -eq 0 ] || exit 1
"""

_RUN = """\
# Slurm signals this script (not the command) before the time limit and when it takes the machines away.
{command} &
run=$!
requeue=
trap 'kill -TERM "$run"' TERM
trap 'requeue=yes; kill -TERM "$run"' USR1
wait "$run"
status=$?
while kill -0 "$run" 2>/dev/null; do  # a signal ends wait, but not the command
    wait "$run"
    status=$?
done
trap '' TERM USR1
"""

_STOP_RAY = """\
scancel --signal=TERM "$SLURM_JOB_ID"  # Ray on the other machines
kill "$head" 2>/dev/null
for _ in $(seq 30); do
    [ -n "$(jobs -r)" ] || break
    sleep 1
done
"""

_END = """\
# At the time limit the job goes back into the queue. Not for ever: a single model may take longer than the limit.
if [ -n "$requeue" ] && [ "$status" -ne 0 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


@dataclass(frozen=True, kw_only=True)
class SlurmJob:
    """What a job asks of Slurm.

    Raises:
        UsageError: A value is wrong.
    """

    nodes: int = 2
    """Number of machines."""
    cpus_per_node: int = 8
    """Cores of each machine; a job of ForgetBench takes one."""
    gpus_per_node: int = 0
    """GPUs of each machine."""
    time: str = "24:00:00"
    """Time limit."""
    options: tuple[str, ...] = ()
    """Further options of sbatch, such as ``partition=gpu``."""

    def __post_init__(self) -> None:
        """Check the values."""
        for name, number, least in (
            ("nodes", self.nodes, 1),
            ("cpus-per-node", self.cpus_per_node, 1),
            ("gpus-per-node", self.gpus_per_node, 0),
        ):
            if number < least:
                raise UsageError(f"--{name} is {number}. Give {least} or more.")
        if not _TIME.fullmatch(self.time):
            raise UsageError(
                f"--time {self.time!r} is no time limit. Write MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS."
            )
        for option in self.options:
            name = option.partition("=")[0].lstrip("-")
            if not re.fullmatch(r"-*[a-z][a-z-]*(=[^\n]+)?", option):
                raise UsageError(
                    f"--sbatch {option!r} is no option of sbatch. Write its long form, such as partition=gpu."
                )
            if name in _RESERVED:
                own = _OWN_OPTIONS.get(name)
                raise UsageError(
                    f"--sbatch {option} is set by the script itself. " + (f"Use {own}." if own else "Omit it.")
                )


def write_script(
    job: SlurmJob, tasks: Sequence[str], words: Sequence[str], options: Sequence[str], home: Path, *, array: bool
) -> str:
    """A batch script that runs methods on tasks.

    Args:
        job: What it asks of Slurm.
        tasks: Names of tasks, or absolute paths of task files.
        words: What is run: the words of `forgetbench run` after the tasks.
        options: Where it is run: words of `RunOptions` without engine, workers and device.
        home: FORGETBENCH_HOME.
        array: Whether each task is a job of its own in a job array.
    """
    device = "cuda" if job.gpus_per_node else "cpu"
    ray = job.nodes > 1
    engine = '--engine "ray:$host:$port"' if ray else "" if job.gpus_per_node else f"--workers {job.cpus_per_node}"
    names = '"$task"' if array else shlex.join(tasks)
    command = " ".join(
        filter(None, ["forgetbench run", names, shlex.join([*words, *options]), f"--device {device}", engine])
    )
    numbers = {"cpus": job.cpus_per_node, "gpus": job.gpus_per_node, "nodes": job.nodes, "device": device}
    numbers |= {"wait": _RAY_SECONDS, "attempts": " ".join(map(str, range(1, _RAY_ATTEMPTS + 1)))}
    check = "".join(f" {shlex.quote(word)}" for word in options)
    parts = [
        _HEAD.format(version=forgetbench.__version__),
        _directives(job, len(tasks) if array else 0),
        _environment(home),
        _array(tasks) if array else "",
        _RAY.format(**numbers, check=check) if ray else "",
        _RUN.format(command=command) + (_STOP_RAY if ray else ""),
        _END.format(restarts=_RESTARTS),
    ]
    return "\n".join(filter(None, parts))


def _directives(job: SlurmJob, tasks: int) -> str:
    lines = ["#SBATCH --job-name=forgetbench", f"#SBATCH --nodes={job.nodes}", "#SBATCH --ntasks-per-node=1"]
    lines += ["# Cores of each machine.", f"#SBATCH --cpus-per-task={job.cpus_per_node}"]
    if job.gpus_per_node:
        lines.append(f"#SBATCH --gpus-per-node={job.gpus_per_node}")
    lines += [
        f"#SBATCH --time={job.time}",
        "# Two minutes before the time limit, interrupt the command and put the job back into the queue.",
        "#SBATCH --signal=B:USR1@120",
        "# A job that is preempted, or loses its first machine, starts again. Another machine may be lost: its models",
        "# are trained elsewhere.",
        "#SBATCH --requeue",
        "#SBATCH --no-kill",
        "#SBATCH --open-mode=append",
    ]
    if tasks:
        lines += ["# One job for each task.", f"#SBATCH --array=0-{tasks - 1}"]
    if not any(re.match(r"-*output=", option) for option in job.options):
        lines.append(f"#SBATCH --output=forgetbench-{'%A-%a' if tasks else '%j'}.out")
    return "\n".join([*lines, *(f"#SBATCH --{option.lstrip('-')}" for option in job.options), ""])


def _environment(home: Path) -> str:
    folder = Path(sys.executable).parent
    return (
        "# The environment that this script was written in; all machines must see these folders.\n"
        f"export PATH={shlex.quote(str(folder))}:$PATH\n"
        f"export FORGETBENCH_HOME={shlex.quote(str(home))}\n"
    )


def _array(tasks: Sequence[str]) -> str:
    names = "".join(f"    {shlex.quote(task)}\n" for task in tasks)
    return f"tasks=(\n{names})\ntask=${{tasks[$SLURM_ARRAY_TASK_ID]}}\n"
