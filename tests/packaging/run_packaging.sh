#!/bin/bash
# shellcheck disable=SC2317 # functions that check calls
# The Debian package: built by 'make deb', free of lintian's errors and warnings, installed by apt into a minimal Debian
# of this machine's release, used there as a user would, and removed. Prints TAP.
#
# The minimal Debian comes from the mirror of apt's own sources, by debootstrap, and is kept as build/packaging/RELEASE.tar.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

work=build/packaging
root=$PWD/$work/root
number=0
log=$work/log
mkdir -p "$work"

# check NAME COMMAND...: one test. What the command says is shown when it fails.
check() {
    local name=$1
    shift
    number=$((number + 1))
    if "$@" >"$log" 2>&1; then
        echo "ok $number - $name"
    else
        echo "not ok $number - $name"
        tail -n 30 "$log" | sed 's/^/# /'
    fi
}

end() {
    rm -rf "$root"
    echo "1..$number"
    exit 0
}

end_without_debian() {
    number=$((number + 1))
    echo "ok $number - given a minimal Debian, then the package installs, works and goes # SKIP $1"
    end
}

inside() { DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" "$@"; }

# "URI SUITE" of this release, as apt has it.
mirror_find() {
    # shellcheck disable=SC2016 # for apt, not for this shell
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v release="$1" '$2 == release && $3 == "main" { print $1; exit }'
}

debian_unpack() {
    local release mirror tarball proxy
    release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    tarball=$work/$release-$(dpkg --print-architecture).tar
    if [[ ! -e $tarball ]]; then
        mirror=$(mirror_find "$release")
        [[ -n $mirror ]] || { echo "apt's sources have no '$release main'" && return 1; }
        proxy=$(apt-config shell proxy Acquire::http::Proxy)
        eval "$proxy"
        [[ -z ${proxy:-} ]] || export http_proxy=$proxy
        rm -rf "$root"
        debootstrap --variant=minbase "$release" "$root" "$mirror" || return
        tar -C "$root" -cf "$tarball.new" . && mv "$tarball.new" "$tarball"
    else
        rm -rf "$root"
        mkdir -p "$root"
        tar -C "$root" -xf "$tarball"
    fi || return
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    inside apt-get -qq update
}

# --- the package ---

version=$(sed -n 's/.*define QSTREAM_VERSION "\(.*\)"/\1/p' common/version.h)
package=build/qstream_${version}_$(dpkg --print-architecture).deb

rm -f "$package"
builds() { make deb && [[ -s $package ]]; }
check "given the sources, when 'make deb' runs, then the package is build/qstream_VERSION_ARCHITECTURE.deb" builds
[[ -s $package ]] || end_without_debian "there is no package"
check "given the package, then lintian finds no error and no warning" \
    lintian --allow-root --fail-on error,warning "${package%.deb}.changes"
lacks_plugin() { dpkg-deb -c "$package" >"$work/files" && ! grep libqstream_cuda "$work/files"; }
check "given the package, then it has no CUDA plug-in" lacks_plugin

# --- in a minimal Debian ---

[[ $(id -u) = 0 ]] || end_without_debian "chroot and debootstrap need root"
debian_unpack >"$log" 2>&1 || end_without_debian "no minimal Debian could be made: $(tail -n 1 "$log")"
mkdir "$root/test"
cp "$package" "$root/test/package.deb"
build/venv/bin/python tests/models/make_checkpoint.py --out "$root/test/model" --arch llama --hidden 64 --mlp 128 --layers 1 \
    --heads 2 --kv-heads 1 --head-dim 32 --vocab 64 || exit 1
list() { find "$root" -xdev -path "$root/test" -prune -o -path "$root/var" -prune -o -print | sort; }
list >"$work/before"

installs() { inside apt-get install -y -q --no-install-recommends /test/package.deb && list >"$work/after"; }
check "given a minimal Debian, when the package is installed without what it recommends, then apt finds what it depends on" installs

names_missing() {
    local said
    said=$(inside qstream --version) && echo "$said" && grep -qx "qstream $version" <<<"$said" || return
    grep -q '^network: none, .*libcurl4' <<<"$said" && grep -q '^CUDA plug-in: none$' <<<"$said" &&
        { [[ $(uname -m) != x86_64 ]] || grep -q '^matrix products: none, .*libdnnl2' <<<"$said"; }
}
check "given no libcurl and no oneDNN, when the version is asked for, then it says so and names their packages" names_missing

works() {
    inside qstream quantize /test/model /test/output --recipe llama-mxfp4 --quiet && inside qstream verify /test/model /test/output
}
check "given a model, when it is quantized there by a recipe of the package, then the verification passes" works
helps() { inside qstream --help | grep quantize; }
check "given --help, then the commands are listed" helps
check "given the manual page and the completions, then they are where man, bash and zsh look" \
    ls "$root/usr/share/man/man1/qstream.1.gz" "$root/usr/share/bash-completion/completions/qstream" \
    "$root/usr/share/zsh/vendor-completions/_qstream"

links_lead() {
    local page target links=0 dead=0
    while read -r page; do
        while read -r target; do
            links=$((links + 1))
            [[ -e ${page%/*}/$target ]] || { echo "$page: $target leads nowhere" && dead=1; }
        done < <(grep -o '](\([^)]*\))' "$page" | sed 's/^](//; s/)$//; s/#.*//' | grep -v -e ':' -e '^$')
    done < <(find "$root/usr/share/doc/qstream" -name '*.md')
    [[ $links -gt 50 && $dead = 0 ]] || { echo "$links links" && return 1; }
}
check "given the installed documentation, then each link from a page leads to a file that is installed" links_lead

recommended() {
    local said packages
    # shellcheck disable=SC2016 # for dpkg-query, not for this shell; of alternatives the first
    packages=$(inside dpkg-query -W -f '${Recommends}' qstream | sed 's/,/\n/g' | sed 's/|.*//')
    # shellcheck disable=SC2086
    inside apt-get install -y -q --no-install-recommends $packages || return
    said=$(inside qstream --version) && echo "$said" && ! grep -q 'none, ' <<<"$said" &&
        grep -q '^network: libcurl' <<<"$said" && grep -q '^Parquet files: gzip snappy zstd$' <<<"$said" &&
        grep -Eq '^matrix products: (oneDNN|OpenBLAS)' <<<"$said"
}
check "given what the package recommends, then the version finds all of it" recommended

multiplies() {
    seq -s, 0 63 | sed 's/.*/[&]/' >"$root/test/ids.json"
    inside qstream ppl /test/output --tokens /test/ids.json --window 32 --stride 16 --baseline /test/model
}
check "given what the package recommends, when perplexities are measured, then there are some" multiplies

removed() {
    inside apt-get purge -y -q qstream || return
    # its own files and folders: those that came with it and are no other package's
    comm -13 "$work/before" "$work/after" | grep -i qstream >"$work/own"
    [[ -s $work/own ]] || { echo "nothing of the package was found before" && return 1; }
    while read -r path; do
        [[ ! -e $path ]] || { echo "left: $path" && return 1; }
    done <"$work/own"
    ! find "$root" -xdev -path "$root/test" -prune -o -iname '*qstream*' -print | grep .
}
check "when the package is purged, then nothing of it is left" removed
end
