#!/usr/bin/env python3
"""Proves `qstream quantize hf://...` against the stand-in Hub: the result is that of a local run to the byte, each shard is
downloaded once, and no more of the source is on the disk than may be. Prints TAP.

    check_quantize.py [WORD ...]      only cases with one of the words in their names

QSTREAM names another binary than build/qstream.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import quantizing
from harness import QSTREAM, REPO, model
from quantizing import (HEADER_MOST, IO, MIB, USAGE, DiskWatch, command, needs, per_tensor_recipe, quantize, reference, require_refused,
                        require_same, require_sent_once, sent, shards_of, source, stand_in)  # fmt: skip
from tap import case, require, require_equal, run_cases

SLOW = 12_000_000  # bytes a second


def same_as_local(name: str, *options: str | Path, **stand: bool) -> None:
    with stand_in(name, **stand) as hub:
        require_same(hub, quantize(hub, name, *options), reference(name, *options))
        require_sent_once(hub, name)


@case
def plain() -> None:
    """plain weights: the bytes of a local run, each shard downloaded once, nothing left"""
    same_as_local("plain")


@case
def by_tls() -> None:
    """the same over TLS and HTTP/2"""
    same_as_local("plain", tls=True)


@case
def mistral() -> None:
    """FP8 as Mistral publishes it, scales in other shards than their weights"""
    same_as_local("mistral")


@case
def norms() -> None:
    """errors weighed by norms that lie in another shard, scales in a third"""
    for gamma in ("layernorm", "original"):
        same_as_local("norms apart", "--rule", "qstream", "--gamma", gamma)


@case
def mx_scales() -> None:
    """scales of several KB each in other shards"""
    same_as_local("mxfp8")


@case
def experts() -> None:
    """stacked experts, in both orientations"""
    same_as_local("experts")
    same_as_local("expert rows")


@case
def one_shard() -> None:
    """a checkpoint of one shard"""
    same_as_local("one shard")


@case
def other_shards() -> None:
    """output shards cut otherwise than the source's, and tensors in any shard"""
    same_as_local("plain", "--shard-size", "3MB")
    same_as_local("norms apart", "--shard-size", "5MB", "--hash-source")
    same_as_local("shuffled", "--shard-size", "6MB")
    same_as_local("shuffled")


@case
def read_twice() -> None:
    """weights that are read twice are downloaded once"""
    same_as_local("plain", "--recipe", per_tensor_recipe())
    same_as_local("shuffled", "--recipe", per_tensor_recipe(), "--shard-size", "4MB")


@case
def scales_only() -> None:
    """a shard of nothing but scales is downloaded whole, checked, and gone before the others come"""
    same_as_local("scales apart")
    with stand_in("scales apart") as hub:
        least = needs(hub, "scales apart")["disk_least"]
        require_same(hub, quantize(hub, "scales apart", "--disk", str(least)), reference("scales apart"))
        last = hub.requests(hub.repository("org/m")["main"]["files"][max(shards_of("scales apart"))]["sha256"], range=None)
        require(last[0]["end"] < min(request["begin"] for request in hub.requests(where="cdn", range=None) if request not in last))


@case
def small_files() -> None:
    """files that go along come once, with --keep-source, too"""
    for options in ([], ["--keep-source"]):
        with stand_in("plain") as hub:
            require_same(hub, quantize(hub, "plain", *options), reference("plain"))
            require_equal(len(hub.requests("/tokenizer.json$", method="GET", status=200)), 1, f"times that tokenizer.json came {options}")


# ---- disk ----


def measured(name: str, *options: str | Path, least: bool) -> None:
    with stand_in(name) as hub:
        told = needs(hub, name, *options)
        limit = told["disk_least"] if least else told["disk_usual"]
        hub.clear_log()
        hub.fault(do="slow", where="cdn", rate=SLOW)
        disk = ["--disk", str(limit)] if least else []
        watch = DiskWatch(hub.work / "out" / ".qstream" / "source")
        done = watch.run(hub.start(command(name, hub.work / "out", *options, *disk)))
        require_same(hub, done, reference(name, *options))
        require_sent_once(hub, name)
        largest = max(path.stat().st_size for path in shards_of(name).values())
        require(watch.looks > 100, f"only {watch.looks} looks")
        require(watch.most <= limit, f"{watch.most} bytes were on the disk, {limit} are allowed")
        require(watch.most > largest // 2, f"only {watch.most} bytes were seen of shards of {largest}")


@case
def disk_least() -> None:
    """with the least --disk no more is ever on the disk, and the run comes to its end"""
    measured("plain", least=True)
    measured("norms apart", "--rule", "qstream", "--gamma", "layernorm", least=True)


@case
def disk_least_otherwise() -> None:
    """the same with output shards of several source shards, and with weights that are read twice"""
    measured("plain", "--shard-size", "6MB", least=True)
    measured("shuffled", "--recipe", per_tensor_recipe(), "--shard-size", "3MB", least=True)


@case
def disk_usual() -> None:
    """without --disk one shard more is there at most"""
    measured("plain", least=False)


@case
def next_one_comes() -> None:
    """without --disk the next shard comes before the one that is read is gone; with the least it does not"""
    for least in (False, True):
        with stand_in("plain") as hub:
            told = needs(hub, "plain")
            require_equal(told["shards"], 4)
            largest = max(path.stat().st_size for path in shards_of("plain").values())
            require(largest <= told["disk_least"] <= largest + MIB // 2, told)
            require(2 * largest - MIB <= told["disk_usual"] <= 2 * largest + MIB, told)
            hub.fault(do="slow", where="cdn", rate=SLOW)
            watch = DiskWatch(hub.work / "out" / ".qstream" / "source")
            disk = ["--disk", str(told["disk_least"])] if least else []
            require_same(hub, watch.run(hub.start(command("plain", hub.work / "out", *disk))), reference("plain"))
            require_equal(max(map(len, watch.at_once)), 1 if least else 2, f"shards at once {watch.at_once}")


@case
def disk_too_small() -> None:
    """a byte less than the least is refused before anything is written, and the message says how much it takes"""
    for name, options in (("plain", []), ("norms apart", ["--rule", "qstream", "--gamma", "layernorm"]),
                          ("plain", ["--shard-size", "6MB"]), ("plain", ["--part", "1/2"])):  # fmt: skip
        with stand_in(name) as hub:
            least = needs(hub, name, *options)["disk_least"]
            for extra in ([], ["--dry-run"]):
                done = quantize(hub, name, "--disk", str(least - 1), *options, *extra)
                require_refused(hub, done, USAGE, "--disk", str(least))
                require(not (hub.work / "out").exists(), "DST was made")


@case
def full_disk() -> None:
    """no room for output and source together: told before anything is downloaded; less room than usual: less is used"""
    with stand_in("plain") as hub:
        told = needs(hub, "plain")
        output = sum(path.stat().st_size for path in reference("plain").iterdir())
        script = 'mount -t tmpfs -o size="$1" none "$2" || exit 77; shift 2; "$@"; code=$?; cp -r "$COPY" "$HOME"; exit $code'
        place = hub.work / "disk"
        place.mkdir()
        for room, enough in ((output + told["disk_least"] - MIB, False), (output + told["disk_least"] + MIB // 2, True)):
            hub.clear_log()
            done = hub.run(["unshare", "-rm", "sh", "-c", script, "sh", room // 4096 * 4096, place,
                            *command("plain", place / "out")], COPY=str(place / "out"))  # fmt: skip
            if done.returncode == 77 or "unshare" in done.stderr:
                return "no file system can be mounted here"
            if enough:
                require_equal(done.returncode, 0, done.stderr)
                made, wanted = quantizing.all_files(hub.home / "out"), quantizing.all_files(reference("plain"))
                require(all(made[path] == wanted[path] for path in wanted if path not in quantizing.MADE_OTHERWISE))
            else:
                require_equal(done.returncode, IO, done.stderr)
                require("free" in done.stderr, done.stderr)
                require(not hub.requests("xet-bridge", where="cdn", range=None), "something was downloaded")
        return None


# ---- where the source goes ----


def hub_python(hub, code: str) -> str:
    done = hub.run([sys.executable, "-c", code], HF_HUB_OFFLINE="1")
    require_equal(done.returncode, 0, done.stderr)
    return done.stdout.strip()


@case
def keep_source() -> None:
    """--keep-source: the cache has the whole model then, as huggingface_hub finds it; another run downloads nothing"""
    for name in ("plain", "scales apart"):
        with stand_in(name) as hub:
            require_same(hub, quantize(hub, name, "--keep-source"), reference(name))
            require_sent_once(hub, name)
            found = Path(hub_python(hub, "import huggingface_hub as h; print(h.snapshot_download('org/m', local_files_only=True))"))
            kept = quantizing.all_files(found)
            for path, data in quantizing.all_files(source(name)).items():
                require(kept[path] == data, f"{path} is not in the cache as it is in the repository")
            require(all(path.is_symlink() for path in found.iterdir() if path.is_file()), "no links to blobs")
            left = [path.name for path in hub.cache.rglob("*.partial")]
            require(not left, left)
            hub.clear_log()
            require_equal(quantize(hub, name, "--dry-run").returncode, 0)
            require_equal(hub.run(command(name, hub.work / "again")).returncode, 0)
            require(not hub.requests("safetensors"), "a shard was asked for again")
            offline = hub.run(command(name, hub.work / "offline"), HF_HUB_OFFLINE="1")
            require_equal(offline.returncode, 0, offline.stderr)


@case
def cached_shards() -> None:
    """shards that the cache has are read there, count for nothing, and stay; the others come and go"""
    with stand_in("norms apart") as hub:
        there, options = sorted(shards_of("norms apart"))[1], ["--rule", "qstream", "--gamma", "layernorm"]
        code = f"import huggingface_hub as h; print(h.hf_hub_download('org/m', {there!r}))"
        done = hub.run([sys.executable, "-c", code])
        require_equal(done.returncode, 0, done.stderr)
        cached = Path(done.stdout.strip())
        hub.clear_log()
        require_equal(needs(hub, "norms apart", *options)["shards"], len(shards_of("norms apart")) - 1)
        require_same(hub, quantize(hub, "norms apart", *options), reference("norms apart", *options))
        require_equal(sent(hub, "norms apart", there), 0, "bytes of the cached shard that were sent")
        require(cached.read_bytes() == shards_of("norms apart")[there].read_bytes(), "the cached shard is not what it was")
        blobs = [path for path in (hub.cache / "models--org--m" / "blobs").iterdir()]
        require_equal(len(blobs), 1, "blobs in the cache")


@case
def offline() -> None:
    """offline, with nothing in the cache: an error that says so"""
    with stand_in("plain") as hub:
        require_refused(hub, quantize(hub, "plain", HF_HUB_OFFLINE="1"), IO, "HF_HUB_OFFLINE", "org/m")
        require(not hub.requests(), "the Hub was asked")


@case
def parts() -> None:
    """parts download what their own shards need, --finish downloads none, and the folder is that of a whole run"""
    name, options = "norms apart", ["--rule", "qstream", "--gamma", "layernorm"]
    with stand_in(name) as hub:
        large = {shard: path for shard, path in shards_of(name).items() if path.stat().st_size > MIB}
        came: dict[str, list[int]] = {shard: [] for shard in large}
        for part in (1, 0, 2):
            hub.clear_log()
            require_equal(quantize(hub, name, *options, "--part", f"{part}/3").returncode, 0)
            require(not list((hub.work / "out" / ".qstream").glob("source*")), "what a part downloaded is left")
            for shard, path in large.items():
                if sent(hub, name, shard) >= path.stat().st_size:
                    came[shard].append(part)
        for shard, by in came.items():
            require_equal(len(by), 1, f"times that {shard} was downloaded")
        hub.clear_log()
        require_same(hub, quantize(hub, name, *options, "--finish"), reference(name, *options))
        for shard in large:
            require(sent(hub, name, shard) <= HEADER_MOST, f"--finish downloaded {shard}")


@case
def part_scales() -> None:
    """parts of a model with a shard of scales only, at the same time"""
    with stand_in("scales apart") as hub:
        runs = [hub.start(command("scales apart", hub.work / "out", "--part", f"{part}/2", "--jobs", "1")) for part in (0, 1)]
        for run in runs:
            _, error = run.communicate(timeout=120)
            require_equal(run.returncode, 0, error)
        require_same(hub, quantize(hub, "scales apart", "--finish"), reference("scales apart"))


# ---- what is told ----


@case
def told() -> None:
    """--json, the summary and --dry-run tell what is downloaded, and it is what came"""
    with stand_in("mistral") as hub:
        planned = needs(hub, "mistral")
        hub.clear_log()
        done = hub.run([QSTREAM, "quantize", "hf://org/m", hub.work / "out", "--recipe", quantizing.recipe_of("mistral"), "--json"])
        require_equal(done.returncode, 0, done.stderr)
        said = json.loads(done.stdout)
        require_equal(said["state"], "finished")
        require_equal({**said["download"], "fetched_bytes": 0}, planned)
        require_equal(planned["fetched_bytes"], 0)
        require_equal(said["download"]["fetched_bytes"], planned["bytes"])
        schema = json.loads((REPO / "docs" / "schemas" / "qstream.quantize-1.schema.json").read_text())
        import jsonschema

        jsonschema.validate(said, schema)
        manifest = json.loads((hub.work / "out" / "qstream.json").read_text())
        commit = hub.repository("org/m")["main"]["commit"]
        require_equal(manifest["source"]["name"], f"hf://org/m@{commit}")
        text = hub.run([QSTREAM, "quantize", "hf://org/m", hub.work / "other", "--recipe", quantizing.recipe_of("mistral")])
        require("downloaded" in text.stdout and "finished" in text.stdout, text.stdout)
        dry = hub.run([QSTREAM, "quantize", "hf://org/m", hub.work / "x", "--recipe", quantizing.recipe_of("mistral"), "--dry-run"])
        require(f"at least {planned['disk_least']} bytes" in dry.stdout, dry.stdout)
        again = quantize(hub, "mistral")
        require_equal((again.returncode, again.stderr), (0, ""))


@case
def usage() -> None:
    """--disk and --keep-source: only of the Hub, and not both"""
    with stand_in("plain") as hub:
        local = str(source("plain"))
        require_refused(hub, quantize(hub, "plain", "--disk", "1GB", at=local), USAGE, "--disk", "hf://")
        require_refused(hub, quantize(hub, "plain", "--keep-source", at=local), USAGE, "--keep-source", "hf://")
        require_refused(hub, quantize(hub, "plain", "--keep-source", "--disk", "1GB"), USAGE, "--keep-source", "--disk")
        require_refused(hub, quantize(hub, "plain", "--disk", "much"), USAGE, "--disk", "much")
        require(not hub.requests(), "the Hub was asked")


@case
def other_source() -> None:
    """a branch that has moved since the run began is another source; its old commit goes on"""
    with stand_in("plain") as hub:
        hub.fault(do="slow", where="cdn", rate=SLOW)
        require(hub.kill_after(hub.start(command("plain", hub.work / "out")), 9 * MIB), "it was not killed")
        hub.no_faults()
        before = hub.repository("org/m")["main"]["commit"]
        changed = hub.work / "changed"
        subprocess.run(["cp", "-r", source("plain"), changed], check=True)
        (changed / "README.md").write_text("# Changed\n")
        hub.add(model("org/m", source("plain"), changed))
        after = hub.repository("org/m")["main"]["commit"]
        require(before != after, "the branch did not move")
        require_refused(hub, quantize(hub, "plain"), quantizing.BAD_INPUT, before, after, "go on")
        require_refused(hub, quantize(hub, "plain", "--finish"), quantizing.BAD_INPUT, before, after)
        require_same(hub, quantize(hub, "plain", at=f"hf://org/m@{before}"), reference("plain"))


@case
def memory() -> None:
    """what a run takes of memory stays below --memory"""
    with stand_in("plain") as hub:
        refused = quantize(hub, "plain", "--memory", "1MiB")
        require_refused(hub, refused, USAGE, "--memory", r"at least \d+MiB")
        least = int(refused.stderr.split("at least ")[1].split("MiB")[0])
        done = hub.run(["/usr/bin/time", "-f", "peak %M", *command("plain", hub.work / "out", "--memory", f"{least}MiB")])
        require_equal(done.returncode, 0, done.stderr)
        peak = int(done.stderr.split("peak ")[1]) // 1024
        require(peak < least or "asan" in QSTREAM, f"a peak of {peak} MiB with --memory {least}MiB")


def main() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(prefix="qstream-quantize-") as place:
        quantizing.WORK = Path(place)
        for name in quantizing.MAKERS:
            source(name)
        return run_cases(threads=2)


if __name__ == "__main__":
    sys.exit(main() > 0)
