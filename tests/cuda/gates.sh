#!/bin/sh
# Checks the compiled kernels of a plug-in against tests/cuda/kernels.json, without a GPU. Takes what gates.py takes; by
# default build/libqstream_cuda.so. Makes build/cuda-tools, the tools' Python environment; instant when it is there.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$here/../.." && pwd)/build
venv=$build/cuda-tools
stamp=$venv/.requirements-$(sha256sum "$here/gates_requirements.txt" | cut -c1-16)

mkdir -p "$build"
exec 9>"$build/.cuda-tools.lock"
flock 9
if ! { [ -e "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null; }; then
    "${PYTHON:-python3}" -m venv --clear "$venv" || {
        echo "gates.sh: cannot make $venv: install the Debian package python3-venv" >&2
        exit 1
    }
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$here/gates_requirements.txt" || {
        echo "gates.sh: pip could not install tests/cuda/gates_requirements.txt: is the package index reachable?" >&2
        exit 1
    }
    touch "$stamp"
fi
exec 9>&-
exec "$venv/bin/python" "$here/gates.py" "$@"
