#!/bin/sh
# forgetbench, with the database's password from a file, so that it stands in no compose file and in no image.
set -eu

if [ -n "${FORGETBENCH_DATABASE_PASSWORD_FILE:-}" ]; then
    PGPASSWORD=$(cat "$FORGETBENCH_DATABASE_PASSWORD_FILE") # libpq reads it from here
    export PGPASSWORD
fi
exec forgetbench "$@"
