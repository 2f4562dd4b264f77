"""A Slurm of two nodes on this machine, in namespaces of its own: no port clashes, and nothing is left behind.

``python -m support.slurm_cluster FOLDER COMMAND...``, in namespaces of `slurm`, starts the daemons, waits until both
nodes are idle, and runs the command.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

NODES = {"n1": "10.99.0.1", "n2": "10.99.0.2"}
CONFIG = """\
ClusterName=test
SlurmctldHost=n1
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
JobRequeue=1
KillWait=5
MinJobAge=600
ReturnToService=2
SlurmdParameters=config_overrides
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname=n1 NodeAddr={address} Port={port} CPUs=1 Boards=1 SocketsPerBoard=1 "
    "CoresPerSocket=1 ThreadsPerCore=1 RealMemory=4000\n"
)
CGROUP = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainCores=no\nConstrainRAMSpace=no\n"
NAMESPACES = ["unshare", "-n", "-p", "-u", "-f", "--mount-proc", "--kill-child"]


def slurm(folder: Path, seconds: int) -> list[str]:
    """The prefix of a command that runs next to a Slurm, for so many seconds at most."""
    addresses = "; ".join(f"ip addr add {address}/32 dev lo" for address in NODES.values())
    script = f'hostname n1; ip link set lo up; {addresses}; {sys.executable} -m support.slurm_cluster "$@"; exit $?'
    return ["timeout", "-s", "KILL", str(seconds), *NAMESPACES, "bash", "-c", script, "bash", str(folder)]


def start(folder: Path) -> None:
    """Start the daemons; they end with their namespace."""
    for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    (folder / "munge").chmod(0o755)  # munged refuses others
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in NODES.items()))
    subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o400)
    nodes = [NODE.format(name=name, address=at, port=17001 + n) for n, (name, at) in enumerate(NODES.items())]
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder) + "".join(nodes))
    (folder / "cgroup.conf").write_text(CGROUP)
    munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    words = [f"--{option}={folder}/munge/{name}" for option, name in munge.items()]
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    for command in (["munged", "--force", *words], ["slurmctld", "-c"], *(["slurmd", "-N", node] for node in NODES)):
        subprocess.run(command, check=True)
    words = ["sinfo", "-h", "-t", "idle", "-o", "%D"]
    while subprocess.run(words, capture_output=True, text=True, check=False).stdout.split() != [str(len(NODES))]:
        time.sleep(0.2)


if __name__ == "__main__":
    start(Path(sys.argv[1]))
    sys.exit(subprocess.run(sys.argv[2:], check=False).returncode)
