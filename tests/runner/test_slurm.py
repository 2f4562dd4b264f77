"""Batch scripts for Slurm, and a Ray cluster inside a real Slurm of two nodes on this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import skip
from support.engine_board import WORDS, assert_equal_bits
from support.slurm_cluster import NAMESPACES, slurm

from forgetbench import cli
from forgetbench.cli import main, make_app
from forgetbench.cli.options import RunOptions
from forgetbench.errors import UsageError
from forgetbench.runner.slurm_script import SlurmJob, write_script


def script(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The script that the command prints."""
    with pytest.raises(SystemExit) as exited:
        main(["slurm-script", *words])
    output = capsys.readouterr()
    assert exited.value.code == 0, output.err
    checked = subprocess.run(["bash", "-n"], input=output.out, text=True, capture_output=True, check=False)
    assert checked.stderr == ""
    return output.out


def run_options(text: str) -> dict[str, Any]:
    """The arguments of `forgetbench run` in a script, as the command itself reads them."""
    [line] = [line for line in text.splitlines() if line.startswith("forgetbench run")]
    _, bound, _ = make_app().parse_args(shlex.split(line.removesuffix(" &"))[1:], exit_on_error=False)
    return {"task": bound.args, **bound.kwargs}


def test_slurm_script_runs_the_same_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    method = "from dataclasses import dataclass\nfrom forgetbench.methods import Method\n@dataclass(frozen=True)\n"
    Path("mine.py").write_text(
        method + "class Mine(Method):\n    def unlearn(self, model, request):\n        return model\n"
    )
    words = ["digits/cnn/class", "--method", "ssd:alpha=5", "--method-file", "mine.py:Mine", "--seeds", "3"]
    words += [
        "--keep-models",
        "--time-limit",
        "1h30m",
        "--root",
        "images",
        "--store",
        "s3://b/p",
        "--sbatch",
        "partition=a100",
    ]
    text = script(capsys, *words, "--nodes", "4", "--cpus-per-node", "16", "--time", "2-00")
    found = run_options(text)
    assert found["task"] == ("digits/cnn/class",)
    assert found["methods"].method == ["ssd:alpha=5"]
    assert found["methods"].method_file == [f"{tmp_path}/mine.py:Mine"]
    assert (found["board"].seeds, found["board"].keep_models, found["board"].selector) == (3, True, "oracle-free")
    expected = RunOptions(
        root=tmp_path / "images", store="s3://b/p", time_limit="1h30m", device="cpu", engine="ray:$host:$port"
    )
    assert found["options"] == expected
    lines = text.splitlines()
    for line in ("nodes=4", "cpus-per-task=16", "time=2-00", "partition=a100", "requeue", "signal=B:USR1@120"):
        assert f"#SBATCH --{line}" in lines
    assert "--num-cpus=16 --num-gpus=0" in text
    assert "--store s3://b/p" in next(line for line in lines if "engine check" in line)
    assert f"export FORGETBENCH_HOME={own_home}" in lines


def test_slurm_script_array_on_gpus_of_one_machine(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["digits/cnn/r*", "digits/cnn/class", "--nodes", "1", "--gpus-per-node", "4", "--array"]
    text = script(capsys, *words, "--jobs-per-gpu", "2", "--method", "ssd")
    assert "ray start" not in text
    assert "--engine" not in text
    assert {"#SBATCH --array=0-1", "#SBATCH --gpus-per-node=4"} < set(text.splitlines())
    assert "tasks=(\n    digits/cnn/random-10\n    digits/cnn/class\n)" in text
    assert run_options(text)["task"] == ("$task",)
    assert run_options(text)["options"] == RunOptions(device="cuda", jobs_per_gpu=2)
    assert run_options(script(capsys, "digits/cnn/class", "--nodes", "1"))["options"].workers == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits/cnn/clas"], "Unknown task 'digits/cnn/clas'"),
        (["digits/cnn/class", "--method", "sdd"], "Unknown method 'sdd'"),
        (["digits/cnn/class", "--engine", "local"], "slurm-script sets --engine, --device and --workers itself"),
        (["digits/cnn/class", "--jobs-per-gpu", "2"], "--jobs-per-gpu needs GPUs"),
        (["digits/cnn/class", "--sbatch", "nodes=3"], "is set by the script itself. Use --nodes."),
        (["digits/cnn/class", "--sbatch", "p gpu"], "Write its long form, such as partition=gpu"),
        (["digits/cnn/class", "--nodes", "0"], "--nodes is 0. Give 1 or more."),
        (["digits/cnn/class", "--time", "one day"], "Write MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS"),
    ],
)
def test_slurm_script_wrong_call_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["slurm-script", *words])
    assert exited.value.code == 2
    output = capsys.readouterr()
    assert message in " ".join(output.err.split())
    assert output.out == ""


def test_slurm_job_option_with_a_line_break_is_refused() -> None:
    with pytest.raises(UsageError, match="is no option of sbatch"):
        SlurmJob(options=("comment=a\nrm -rf /",))


FAKES = {
    "scontrol": "printf 'n1\\nn2\\n'",
    "srun": """
        case "$*" in *printenv*) echo 127.0.0.1; exit;; esac
        echo $$ > $T/step
        while [ "$1" != bash ]; do shift; done
        exec "$@" """,
    "scancel": "kill -TERM $(cat $T/step)",
    "sleep": "exec /bin/sleep 0.1",
    "ray": """
        case "$*" in *--head*) kind=head;; *) kind=node;; esac
        echo "$kind $(grep -c $kind $T/log) $RAY_NUM_REDIS_GET_RETRIES" >> $T/log
        [ $(grep -c $kind $T/log) -gt 1 ] || exit 1  # the first start of each node fails
        [ $kind = node ] || exec {python} -Sc "import socket, time
with socket.create_server(('127.0.0.1', int('$port')), reuse_port=True): time.sleep(60)"
        exec /bin/sleep 60""",
    "forgetbench": """
        echo "$1 $2" >> $T/log
        case "$*" in *check*) [ $(grep -c check $T/log) -gt 1 ] || exit 134;; esac
        [ "$1" != run ] || until [ $(grep -c node $T/log) = 2 ]; do /bin/sleep 0.1; done""",
}
"""Commands that take the place of those of Slurm and Ray."""


def test_slurm_script_starts_again_what_failed_to_start(tmp_path: Path) -> None:
    """Ray's nodes and the check fail at first, as on a busy machine; in the end all of them are stopped."""
    for name, text in FAKES.items():
        path = tmp_path / name
        path.write_text("#!/bin/bash\n" + text.replace("{python}", sys.executable) + "\n")
        path.chmod(0o755)
    (tmp_path / "log").touch()
    text = write_script(SlurmJob(), ["digits/cnn/class"], [], [], tmp_path, array=False)
    own = f"export PATH={Path(sys.executable).parent}:"
    assert own in text
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = text.replace(own, f"export PATH={tmp_path}:").replace("$((20000 + SLURM_JOB_ID % 10000))", str(port))
    environment = {**os.environ, "T": str(tmp_path), "SLURM_JOB_ID": "1", "port": str(port)}
    done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line for line in lines if line.startswith("head")] == ["head 0 300", "head 1 300"]
    assert [line for line in lines if line.startswith("node")] == ["node 0 300", "node 1 300"]
    assert [line.split()[0] for line in lines if not line.startswith(("head", "node"))] == ["engine", "engine", "run"]
    assert done.stderr.count("Ray has ended on") == 2


def test_sigterm_ends_a_command_like_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, ended = signal.getsignal(signal.SIGTERM), []

    def command(_: object) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            ended.append("cleaned up")
        return 0

    monkeypatch.setattr(cli, "_exit_status", command)
    with pytest.raises(SystemExit) as exited:
        main([])
    assert (exited.value.code, ended) == (128 + signal.SIGTERM, ["cleaned up"])
    assert "the same command resumes" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


DRIVE = """
cd {folder}
sbatch {folder}/job.sbatch
until [ -n "$(find {home}/store -name weights.safetensors 2>/dev/null)" ]; do sleep 0.1; done
scancel --signal=USR1 --batch 1  # what Slurm does before the time limit
while [ -n "$(squeue -h -t PD,R,CG)" ]; do sleep 1; done
scontrol show job 1 > {folder}/job.txt
sleep 1
ps -eo args > {folder}/processes.txt
"""


@pytest.mark.system
def test_slurm_requeued_job_gives_equal_bits(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ray on two nodes of a real Slurm; the job is put back into the queue after its first models, and goes on."""
    if shutil.which("sbatch") is None or shutil.which("munged") is None:
        skip("Slurm is not installed")
    if subprocess.run([*NAMESPACES, "true"], check=False).returncode:
        skip("namespaces need root")
    home = tmp_path / "home"
    environment = {
        **os.environ,
        "FORGETBENCH_HOME": str(home),
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    words = [sys.executable, "-m", "forgetbench", "slurm-script", *WORDS, "--cpus-per-node", "1", "--nodes", "2"]
    with (tmp_path / "job.sbatch").open("w") as file:
        subprocess.run([*words, "--time", "60"], env=environment, stdout=file, check=True)
    drive = DRIVE.format(folder=tmp_path, home=home)
    done = subprocess.run(
        [*slurm(tmp_path / "slurm", 2400), "bash", "-c", drive],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    log = "\n".join(path.read_text(errors="replace") for path in tmp_path.glob("forgetbench-*.out"))
    assert (tmp_path / "job.txt").is_file(), done.stdout + done.stderr + log
    job = (tmp_path / "job.txt").read_text()
    assert "JobState=COMPLETED" in job, log
    assert "Restarts=1" in job, log
    assert "Interrupted. Finished work is kept" in log
    assert log.count("Two jobs came back") == 2
    assert "machines take part" not in log  # none was missing
    processes = (tmp_path / "processes.txt").read_text()
    assert "slurmctld" in processes
    assert not [line for line in processes.splitlines() if "ray" in line or "forgetbench run" in line]
    assert_equal_bits(home, tmp_path_factory)
