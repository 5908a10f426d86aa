#!/bin/sh
# The CUDA toolkit that `make cuda` builds with. Prints its folder: the one that holds bin/nvcc.
#
#   toolkit.sh find      one that is there: $CUDA_HOME, nvcc on PATH, /usr/local/cuda, build/cuda-toolkit; exit code 1: none
#   toolkit.sh compiler  the same, and build/cuda-toolkit is made from toolkit_requirements.txt where there is none
#   toolkit.sh all       the same with cuBLASLt, for a machine that the plug-in is to run on
#
# build/cuda-toolkit without cuBLASLt has a stand-in for it in lib/stubs: a shared library that is linked with it asks for
# the real libcublasLt.so.13 when it is loaded. The declarations are then those of tests/cuda/cublaslt.
# Instant when all is there; what is half made or outdated is made anew.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$here/../.." && pwd)/build
made=$build/cuda-toolkit
least=1209 # 12.9, the first that knows compute capability 12.1

# $1: a toolkit's folder. Is it one, and new enough?
usable() {
    [ -x "$1/bin/nvcc" ] || return 1
    release=$("$1/bin/nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    [ -n "$release" ] || return 1
    [ "$(echo "$release" | awk '{ print $1 * 100 + $2 }')" -ge "$least" ]
}

has_cublas() {
    for header in "$1/include/cublasLt.h" "$1"/targets/*/include/cublasLt.h; do
        [ ! -e "$header" ] || return 0
    done
    return 1
}

# The first that is usable, and has cuBLASLt if $1 is all.
find_toolkit() {
    on_path=$(command -v nvcc || true)
    [ -z "$on_path" ] || on_path=$(dirname "$(dirname "$(readlink -f "$on_path")")")
    for folder in "${CUDA_HOME:-}" "$on_path" /usr/local/cuda "$made"; do
        [ -n "$folder" ] || continue
        usable "$folder" || continue
        [ "$1" != all ] || has_cublas "$folder" || continue
        echo "$folder"
        return 0
    done
    return 1
}

# $1: a requirements file. Lays its packages into $made.
add_packages() {
    new=$made.new
    rm -rf "$new"
    mkdir -p "$new"
    python3 -m venv "$new/venv" || {
        echo "toolkit.sh: cannot make a virtual environment: install the Debian package python3-venv" >&2
        exit 1
    }
    "$new/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --no-compile \
        --only-binary=:all: --target "$new/packages" -r "$1" || {
        echo "toolkit.sh: pip could not install $1: is the package index reachable? Or install CUDA 13 and set CUDA_HOME" >&2
        exit 1
    }
    cp -al "$new/packages/nvidia/cu13/." "$made/"
    rm -rf "$new"
}

stamp_of() { echo "$made/.$(basename "$1" .txt)-$(sha256sum "$1" | cut -c1-16)"; }

make_toolkit() {
    mkdir -p "$build"
    exec 9>"$build/.cuda-toolkit.lock"
    flock 9 # two at once: the second waits, then finds the stamp

    compiler=$here/toolkit_requirements.txt cublas=$here/cublas_requirements.txt
    if [ ! -e "$(stamp_of "$compiler")" ]; then
        echo "toolkit.sh: fetching the CUDA compiler (130 MB)" >&2
        rm -rf "$made"
        mkdir -p "$made"
        add_packages "$compiler"
        # nvcc looks into lib64, as the toolkit of the installer has it
        ln -sf lib "$made/lib64"
        ln -sf libcudart.so.13 "$made/lib/libcudart.so"
        touch "$(stamp_of "$compiler")"
    fi
    if [ "$1" = compiler ] && [ ! -e "$made/lib/libcublasLt.so" ]; then
        # all functions of it that the sources call
        mkdir -p "$made/lib/stubs"
        grep -oh 'cublasLt[A-Z][A-Za-z]*(' "$here"/../../infer/cuda/*.cu | sort -u | sed 's/($/(void) {}/; s/^/void /' |
            ${CC:-gcc} -shared -nostdlib -fPIC -w -fno-builtin -Wl,-soname,libcublasLt.so.13 -x c - -o "$made/lib/stubs/libcublasLt.so"
    fi
    if [ "$1" = all ] && [ ! -e "$(stamp_of "$cublas")" ]; then
        echo "toolkit.sh: fetching cuBLAS (400 MB)" >&2
        add_packages "$cublas"
        rm -f "$made/lib/stubs/libcublasLt.so"
        ln -sf libcublasLt.so.13 "$made/lib/libcublasLt.so"
        touch "$(stamp_of "$cublas")"
    fi
}

case ${1:-} in
find) find_toolkit compiler ;;
compiler | all)
    find_toolkit "$1" && exit 0
    make_toolkit "$1"
    usable "$made" || {
        echo "toolkit.sh: $made/bin/nvcc does not run here" >&2
        exit 1
    }
    echo "$made"
    ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
