"""moto's S3 server: a real endpoint over HTTP on this machine.

moto needs older versions of packages than ForgetBench has, so uv keeps it in an environment of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from support import skip

MOTO = "moto[server,s3]==5.2.5"
BUCKET = "bucket"


def install() -> str:
    """The Python of an environment with moto, fetched once for each machine; skips the test if that is not possible."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        skip("uv is not installed")
    command = [str(uv), "tool", "run", "--from", MOTO, "python", "-c", "import moto, sys; print(sys.executable)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        skip(f"moto cannot be installed: {done.stderr[-300:]}")
    return done.stdout.strip()


@contextmanager
def serve(python: str, port: int) -> Iterator[dict[str, str]]:
    """A server with an empty bucket; gives the environment of its clients."""
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            try:
                urlopen(Request(f"{url}/{BUCKET}", method="PUT"), timeout=60).close()  # noqa: S310 - this machine
                break
            except HTTPError:  # an earlier request has made the bucket, and its answer was late
                break
            except OSError:
                assert server.poll() is None, "the server ended"
                time.sleep(0.1)
        yield {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }
    finally:
        server.terminate()
        server.wait()
