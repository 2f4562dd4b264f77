#!/bin/sh
# Run forgetbench with the database password from a file, so that no compose file and no image contains it.
set -eu

if [ -n "${FORGETBENCH_DATABASE_PASSWORD_FILE:-}" ]; then
    PGPASSWORD=$(cat "$FORGETBENCH_DATABASE_PASSWORD_FILE") # libpq reads it from here
    export PGPASSWORD
fi
exec forgetbench "$@"
