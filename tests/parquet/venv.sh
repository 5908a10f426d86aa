#!/bin/sh
# Makes the Python environments build/pyarrow (requirements.txt) and, where Python is old enough for it, build/pyarrow-2023
# (requirements-2023.txt). Instant when they are there; half-made or outdated ones are made anew. PYTHON names another
# interpreter than python3.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$here/../.." && pwd)/build
python=${PYTHON:-python3}

environment() { # NAME REQUIREMENTS
    venv=$build/$1
    stamp=$venv/.requirements-$(sha256sum "$here/$2" | cut -c1-16)
    if [ -e "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null; then
        return
    fi
    "$python" -m venv --clear "$venv" || {
        echo "venv.sh: cannot make $venv: install the Debian package python3-venv" >&2
        exit 1
    }
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$here/$2" || {
        echo "venv.sh: pip could not install tests/parquet/$2: is the package index reachable?" >&2
        exit 1
    }
    touch "$stamp"
}

mkdir -p "$build"
exec 9>"$build/.pyarrow.lock"
flock 9 # two test runs at once: the second waits, then finds the stamps
environment pyarrow requirements.txt
# the last release of Python that this pyarrow was built for
if "$python" -c 'import sys; sys.exit(sys.version_info > (3, 12))'; then
    environment pyarrow-2023 requirements-2023.txt
fi
