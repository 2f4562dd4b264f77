#!/bin/sh
# Install ForgetBench into a new virtual environment; run it in the repository's root:
#
#     docker/install.sh server FOLDER    without torch, which serving and scoring do not import
#     docker/install.sh runner FOLDER    with all extras
#
# Requires Python and uv. The Dockerfile calls it, and so does a test that needs no Docker engine.
set -eu

target=$1
folder=$2
python3 -m venv --without-pip "$folder"
case $target in
server)
    set -- '.[openid,plot,postgresql]'
    ;;
runner) set -- '.[all]' ;;
*)
    echo "install.sh: server or runner, not $target" >&2
    exit 2
    ;;
esac
uv pip install --quiet --no-cache --compile-bytecode --link-mode copy \
    --python "$folder/bin/python" --constraint constraints.txt "$@"
