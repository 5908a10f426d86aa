#!/bin/sh
# Makes build/readers, the Python environment with the real vLLM that tests/readers compares `qstream audit` with, from
# requirements.txt, and build/readers-transformers, the same one with the newest transformers and compressed-tensors in
# front of it (vLLM pins older ones), from transformers_requirements.txt. Some gigabytes; instant when they are already
# there, and a half-made or outdated one is made anew. PYTHON names another interpreter than python3 (3.11 to 3.14).
# No GPU is needed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$here/../.." && pwd)/build
python=${PYTHON:-python3}

fail() {
    echo "venv.sh: $1" >&2
    exit 1
}

# Whether the environment $1 was made from $2 and still runs.
made() {
    [ -e "$build/$1/.requirements-$(sha256sum "$2" | cut -c1-16)" ] && "$build/$1/bin/python" -c '' 2>/dev/null
}

make_venv() {
    "$python" -m venv --clear "$build/$1" || fail "cannot make $build/$1: install the Debian package python3-venv"
}

install() {
    "$build/$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$2" ||
        fail "pip could not install $2: is the package index reachable?"
    touch "$build/$1/.requirements-$(sha256sum "$2" | cut -c1-16)"
}

mkdir -p "$build"
exec 9>"$build/.readers.lock"
flock 9 # two runs at once: the second waits, then finds the stamps

if ! made readers "$here/requirements.txt"; then
    rm -rf "$build/readers-transformers"
    make_venv readers
    install readers "$here/requirements.txt"
fi

newer=$here/transformers_requirements.txt
if [ -e "$newer" ] && ! made readers-transformers "$newer"; then
    make_venv readers-transformers
    site=$("$build/readers-transformers/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$build/readers/bin/python" -c 'import site; print(site.getsitepackages()[0])' >"$site/readers.pth"
    install readers-transformers "$newer"
fi
