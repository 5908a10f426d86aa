#!/usr/bin/env bats
# What 'qstream version' tells: the version, and what was compiled in and found on this machine.

load helper

setup_file() { prepare; }

line() { grep "^$1: " <<<"$output" | sed 's/^[^:]*: //'; }

@test "given version, --version or -V, then the first line is the version of common/version.h, the package and the manual" {
    local version
    version=$(sed -n 's/.*define QSTREAM_VERSION "\(.*\)"/\1/p' "$ROOT/common/version.h")
    [[ -n $version ]]
    run "$QSTREAM" version
    exits 0
    [[ ${lines[0]} == "qstream $version" ]]
    expected=$output
    for option in --version -V; do
        run "$QSTREAM" "$option"
        exits 0
        [[ $output == "$expected" ]]
    done
    [[ $(head -n 1 "$ROOT/debian/changelog") == "qstream ($version) "* ]]
    grep -qx '\.TH QSTREAM 1 "" "qstream '"$version"'" .*' "$ROOT/docs/qstream.1"
}

@test "given this machine, then its instruction sets are those that /proc/cpuinfo lists" {
    local expected=portable
    run "$QSTREAM" version
    if [[ $(uname -m) == x86_64 ]]; then
        grep -qw avx2 /proc/cpuinfo && expected+=" avx2"
        grep -qw avx512_\\?vbmi /proc/cpuinfo && expected+=" avx512"
        [[ "$expected$(grep '^not on this machine' <<<"$output")" == *avx512* ]]
    else
        expected+=" neon"
    fi
    [[ $(line "instruction set") == "${expected##* } (variants: $expected)" ]]
}

@test "given the libraries of ./setup, then each is found, with its version" {
    run "$QSTREAM" version
    if [[ $(uname -m) == x86_64 ]]; then
        [[ $(line "matrix products") =~ ^oneDNN\ 2\.[0-9]+\.[0-9]+,\ with(out)?\ bf16$ ]]
    else
        [[ $(line "matrix products") == OpenBLAS* ]]
    fi
    [[ $(line network) =~ ^libcurl\ [78]\.[0-9.]+,\ .+/ ]]
    [[ $(line "Parquet files") == "gzip snappy zstd" ]]
}

@test "given the program alone in a folder, or beside a plug-in that is none, then the CUDA plug-in's line says so" {
    cp "$QSTREAM" "$BATS_TEST_TMPDIR/qstream"
    run "$BATS_TEST_TMPDIR/qstream" version
    exits 0
    [[ $(line "CUDA plug-in") == none ]]
    echo "not a library" >"$BATS_TEST_TMPDIR/libqstream_cuda.so"
    run "$BATS_TEST_TMPDIR/qstream" version
    exits 0
    [[ $(line "CUDA plug-in") == "none, the plug-in cannot be loaded: $BATS_TEST_TMPDIR/libqstream_cuda.so"* ]]
}

@test "given libraries that cannot be loaded, then the version says which, and of which package" {
    local libraries=$BATS_TEST_TMPDIR/libraries file
    mkdir "$libraries"
    for file in libcurl.so.4 libdnnl.so.2 libsnappy.so.1 libzstd.so.1; do
        echo "not a library" >"$libraries/$file"
    done
    run env LD_LIBRARY_PATH="$libraries" "$QSTREAM" version
    exits 0
    [[ $(line network) == "none, "*libcurl.so.4*libcurl4* ]]
    [[ $(line "Parquet files") == "gzip; no snappy, "*libsnappy1v5*"; no zstd, "*libzstd1* ]]
    [[ $(uname -m) != x86_64 || $(line "matrix products") == "none, "*libdnnl.so.2*libdnnl2* ]]
}

@test "given an output that takes nothing, then the version's exit code says so" {
    run bash -c '"$1" --version >/dev/full' version "$QSTREAM"
    exits 4
}
