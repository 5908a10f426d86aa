#!/bin/sh
# Makes build/venv, the Python environment of the tests, from requirements.txt. Instant when it is already there;
# a half-made or outdated one is made anew. PYTHON names another interpreter than python3.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$here/../.." && pwd)/build
venv=$build/venv
stamp=$venv/.requirements-$(sha256sum "$here/requirements.txt" | cut -c1-16)

mkdir -p "$build"
exec 9>"$build/.venv.lock"
flock 9 # two test runs at once: the second waits, then finds the stamp

if [ -e "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

[ ! -L "$venv" ] || rm "$venv" # a link to another checkout's, whose files --clear would remove
"${PYTHON:-python3}" -m venv --clear "$venv" || {
    echo "venv.sh: cannot make $venv: install the Debian package python3-venv" >&2
    exit 1
}
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt" || {
    echo "venv.sh: pip could not install tests/models/requirements.txt: is the package index reachable?" >&2
    exit 1
}
touch "$stamp"
