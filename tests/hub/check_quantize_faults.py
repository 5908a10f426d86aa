#!/usr/bin/env python3
"""Proves `qstream quantize hf://...` against a Hub, a network, a disk and an end of the process that come at the wrong moment:
the result is right or there is none, and what was done is not done again. Prints TAP.

    check_quantize_faults.py [WORD ...]      only cases with one of the words in their names

QSTREAM names another binary than build/qstream.
"""

import json
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import quantizing
from harness import StandIn
from quantizing import (BAD_INPUT, HEADER_MOST, INTERRUPTED, IO, MIB, NOTED, UNDER_WAY, DiskWatch, command, companion_place,
                        needs, per_tensor_recipe, quantize, reference, require_refused, require_same, require_sent_once, sent,
                        shards_of, source, stand_in, with_shim)  # fmt: skip
from tap import case, require, require_equal, run_cases

SLOW = 12_000_000  # bytes a second
GAMMA = ("--rule", "qstream", "--gamma", "layernorm")


def size_of(name: str) -> int:
    return sum(path.stat().st_size for path in shards_of(name).values())


def work_folder(hub: StandIn) -> Path:
    return hub.work / "out" / ".qstream"


# ---- the network ----


@case
def drops() -> None:
    """connections that drop at random places: nothing is downloaded twice, the result is right"""
    for seed in range(3):
        with stand_in("norms apart") as hub:
            hub.fault(do="drop", where="cdn", after=[0, 2 * MIB], seed=seed, times=14, reset=seed == 2)
            require_same(hub, quantize(hub, "norms apart", *GAMMA), reference("norms apart", *GAMMA))
            require(hub.hits()[0] > 8, hub.hits())
            require_sent_once(hub, "norms apart", more=14 * UNDER_WAY if seed == 2 else 0)


@case
def server_errors() -> None:
    """servers that are busy, addresses that expire"""
    with stand_in("norms apart") as hub:
        hub.fault(do="status", status=503, where="cdn", skip=5, times=3, headers={"Retry-After": "0"})
        hub.fault(do="status", status=429, where="hub", path="/resolve/.*safetensors", skip=3, times=2, headers={"Retry-After": "0"})
        hub.fault(do="expire", where="cdn", skip=9, times=2)
        require_same(hub, quantize(hub, "norms apart", *GAMMA), reference("norms apart", *GAMMA))
        require_equal(hub.hits(), [3, 2, 2])


@case
def given_up() -> None:
    """a shard that does not come: exit code 4 names it, everything before it is kept, and the same command goes on"""
    third = sorted(shards_of("plain"))[2]
    with stand_in("plain") as hub:
        hub.fault(do="status", status=404, where="cdn", path=hub.repository("org/m")["main"]["files"][third]["sha256"], skip=1)
        require_refused(hub, quantize(hub, "plain"), IO, third, "same command")
        hub.no_faults()
        require_same(hub, quantize(hub, "plain"), reference("plain"))
        require_sent_once(hub, "plain", more=HEADER_MOST)


@case
def wrong_hash() -> None:
    """a shard whose bytes are wrong twice: the error names it, nothing of it is kept or was used; later it goes on"""
    second = sorted(shards_of("plain"))[1]
    with stand_in("plain") as hub:
        oid = hub.repository("org/m")["main"]["files"][second]["sha256"]
        hub.fault(do="flip", where="cdn", path=oid, at=shards_of("plain")[second].stat().st_size - 5)
        require_refused(hub, quantize(hub, "plain"), IO, second, "hash")
        require(not list((work_folder(hub) / "source").glob(second + "*")), "something of it was kept")
        hub.no_faults()
        hub.clear_log()
        require_same(hub, quantize(hub, "plain"), reference("plain"))
        first = sorted(shards_of("plain"))[0]
        require(sent(hub, "plain", first) <= HEADER_MOST, "the shard before it was downloaded again")
    with stand_in("plain") as hub:  # wrong once only
        hub.fault(do="flip", where="cdn", path=hub.repository("org/m")["main"]["files"][second]["sha256"], times=2)
        require_same(hub, quantize(hub, "plain"), reference("plain"))


@case
def no_ranges() -> None:
    """a server that ignores ranges"""
    with stand_in("mistral") as hub:
        hub.fault(do="ignore_range", where="cdn")
        require_same(hub, quantize(hub, "mistral"), reference("mistral"))


# ---- companions ----


def tampering(name: str, oid: str, offset: int, *options: str) -> dict[str, object]:
    """The fault by which a byte of a companion comes wrong, but not when its shard comes whole."""
    with stand_in(name) as hub:
        require_equal(quantize(hub, name, *options).returncode, 0)
        asked = [request for request in hub.requests(oid, where="cdn") if request["range"]]
        header = asked[0]["range"].startswith("bytes=0-")  # else the file is so small that all of it was read
        own = [request for request in asked if request["sent"] < HEADER_MOST // 2]
        require(own, "no companion is asked for by range")
        return {"do": "flip", "where": "cdn", "path": oid, "at": offset, "range": True, "skip": int(header), "times": len(own)}


def tampered(tensor: str, name: str, *options: str, later: bool) -> None:
    """A companion comes with a wrong byte. `later`: its shard is the last to come, so that output was made with it."""
    shard, offset = companion_place(name, tensor)
    with stand_in(name) as hub:
        least = needs(hub, name, *options)["disk_least"]
        oid = hub.repository("org/m")["main"]["files"][shard]["sha256"]
        limited = (*options, "--disk", str(least), "--jobs", "1")
        hub.clear_log()
        hub.fault(**tampering(name, oid, offset, *options))
        done = quantize(hub, name, *limited)
        require_refused(hub, done, IO, re.escape(tensor), re.escape(shard), "starts anew")
        require(not (work_folder(hub) / "journal").exists(), "the journal is still there")
        require(not (work_folder(hub) / "source" / "companions").exists(), "the companions are still there")
        if later:
            first = min(shards_of(name))
            require(sent(hub, name, first) >= shards_of(name)[first].stat().st_size, "nothing had been made of it")
        hub.no_faults()
        require_same(hub, quantize(hub, name, *limited), reference(name, *options))


@case
def tampered_norm() -> None:
    """a norm that was fetched by itself is not what its shard holds: the error names both, and nothing made of it is kept"""
    tampered("model.layers.2.post_attention_layernorm.weight", "norms apart", *GAMMA, later=True)


@case
def tampered_scale() -> None:
    """the same of a scale, whose shard comes before and after the weight's"""
    tampered("model.layers.3.self_attn.q_proj.weight_scale_inv", "norms apart", *GAMMA, later=False)
    tampered("model.layers.0.mlp.up_proj.weight_scale_inv", "norms apart", *GAMMA, later=True)


@case
def tampered_header() -> None:
    """a header that was read by itself, and has two tensors change places, is not what its shard holds"""
    for name, options, number in (("plain", (), 2), ("scales apart", (), -1), ("norms apart", GAMMA, 0)):
        shard = sorted(shards_of(name))[number]
        original = shards_of(name)[shard].read_bytes()
        length = int.from_bytes(original[:8], "little")
        header = json.loads(original[8 : 8 + length])
        same = [(a, b) for a in header for b in header if a < b and a != "__metadata__" != b and header[a]["shape"] == header[b]["shape"]
                and header[a]["dtype"] == header[b]["dtype"]]  # fmt: skip
        one, other = same[0]
        header[one], header[other] = header[other], header[one]
        text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
        require_equal(len(text), length)
        with stand_in(name) as hub:
            altered = hub.work / "altered"
            altered.write_bytes(original[:8] + text + original[8 + length :])
            oid = hub.repository("org/m")["main"]["files"][shard]["sha256"]
            hub.fault(do="body", file=str(altered), where="cdn", path=oid, times=1)
            done = quantize(hub, name, *options)
            require_refused(hub, done, IO, "header", re.escape(shard), "starts anew")
            require(not (work_folder(hub) / "journal").exists(), "the journal is still there")
            require_same(hub, quantize(hub, name, *options), reference(name, *options))


@case
def tampered_and_killed() -> None:
    """the same when the process is killed at any moment of finding it out: nothing made of it is ever published"""
    name, tensor = "norms apart", "model.layers.0.mlp.up_proj.weight_scale_inv"
    shard, offset = companion_place(name, tensor)
    with stand_in(name) as hub:
        fault = tampering(name, hub.repository("org/m")["main"]["files"][shard]["sha256"], offset, *GAMMA)
    for seed in range(6):
        with stand_in(name) as hub:
            hub.fault(**fault)
            count = hub.work / "count"
            done = quantize(hub, name, *GAMMA, **with_shim(hub, COUNT=count))
            require_refused(hub, done, IO, re.escape(tensor))
            operations = int(re.search(r"operations (\d+)", count.read_text())[1])
            shutil.rmtree(hub.work / "out")
            hub.no_faults()
            hub.fault(**fault)
            place = operations - random.Random(seed).randint(0, 12)
            done = quantize(hub, name, *GAMMA, **with_shim(hub, KILL=place))
            require(done.returncode in (IO, -signal.SIGKILL), done.stderr)
            hub.no_faults()
            for _ in range(3):
                done = quantize(hub, name, *GAMMA)
                if done.returncode == 0:
                    break
                require_refused(hub, done, IO, re.escape(tensor))
            require_same(hub, done, reference(name, *GAMMA))


@case
def damaged_companions() -> None:
    """companions that were lost or damaged after output was made with them: refused, not fetched anew in silence"""
    for damage in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x")):
        with stand_in("norms apart") as hub:
            hub.fault(do="slow", where="cdn", rate=SLOW)
            least = needs(hub, "norms apart", *GAMMA)["disk_least"]
            run = hub.start(command("norms apart", hub.work / "out", *GAMMA, "--disk", str(least)))
            require(hub.kill_after(run, size_of("norms apart") * 2 // 3), "it was not killed")
            hub.no_faults()
            damage(work_folder(hub) / "source" / "companions")
            require_refused(hub, quantize(hub, "norms apart", *GAMMA), BAD_INPUT, "companions", "start anew")


# ---- the end of the process ----


def resumed(hub: StandIn, name: str, kills: int, *options: str | Path) -> None:
    """The result is right, and what was sent of each shard is its size and what kills may lose."""
    require_same(hub, quantize(hub, name, *options), reference(name, *options))
    require_sent_once(hub, name, more=kills * (HEADER_MOST + 8 * (NOTED + UNDER_WAY)))


def kill_again_and_again(name: str, *options: str | Path, least: bool, seed: int) -> None:
    with stand_in(name) as hub:
        told = needs(hub, name, *options)
        disk = ("--disk", str(told["disk_least"])) if least else ()
        hub.clear_log()
        hub.fault(do="slow", where="cdn", rate=SLOW)
        chance, kills, whole, size = random.Random(seed), 0, set(), size_of(name)
        while hub.kill_after(hub.start(command(name, hub.work / "out", *options, *disk)),
                             chance.randint(size // 8, size // 3)):  # fmt: skip
            kills += 1
            require(kills < 60, "it does not get on")
            require(not (hub.work / "out" / "config.json").exists(), "it was published before its end")
            # A shard that was there whole, or was gone, is never asked for whole again.
            for shard in whole:
                require(sent(hub, name, shard) <= shards_of(name)[shard].stat().st_size + (kills + 1) * (HEADER_MOST + UNDER_WAY),
                        f"{shard} came twice")  # fmt: skip
            whole |= {path.name for path in (work_folder(hub) / "source").glob("*.safetensors")}
        hub.no_faults()
        require(kills > 2, f"killed only {kills} times")
        require_same(hub, quantize(hub, name, *options), reference(name, *options))
        lost = sum(sent(hub, name, shard) for shard in shards_of(name)) - size
        allowed = kills * (len(shards_of(name)) * HEADER_MOST + 2 * (NOTED + UNDER_WAY)) + len(shards_of(name)) * 2 * HEADER_MOST
        require(lost <= allowed, f"{kills} kills cost {lost} bytes")


@case
def killed() -> None:
    """killed again and again at random moments: each run goes on where the one before stopped, and no shard comes twice"""
    kill_again_and_again("plain", least=False, seed=1)
    kill_again_and_again("plain", least=True, seed=2)


@case
def killed_otherwise() -> None:
    """the same with companions, with output shards cut otherwise, and with weights that are read twice"""
    kill_again_and_again("norms apart", *GAMMA, least=True, seed=3)
    kill_again_and_again("shuffled", "--recipe", per_tensor_recipe(), "--shard-size", "3MB", least=False, seed=4)


def accidents(setting: str, rounds: int) -> None:
    """Runs of a small model that end at a random change of DST, each followed by one that is left alone."""
    for name, options in (("mistral", GAMMA), ("scales apart", ())):
        with stand_in(name) as hub:
            if name == "mistral":  # a commit for each shard
                options = (*options, "--disk", str(needs(hub, name, *options)["disk_least"]))
            count = hub.work / "count"
            expected = reference(name, *options[:4])
            require_same(hub, quantize(hub, name, *options, **with_shim(hub, COUNT=count)), expected)
            operations = int(re.search(r"operations (\d+)", count.read_text())[1])
            require(operations > 50, f"{operations} operations")
            for seed in range(rounds):
                shutil.rmtree(hub.work / "out")
                hub.clear_log()
                chance = random.Random(seed)
                ends = 0
                for _ in range(chance.randint(1, 3)):
                    settings = with_shim(hub, **{setting: chance.randint(1, operations), "POWER_SEED": seed})
                    done = quantize(hub, name, *options, **settings)
                    if done.returncode != 0:
                        require_equal(done.returncode, -signal.SIGKILL, done.stderr)
                    ends += done.returncode != 0
                require_same(hub, quantize(hub, name, *options), expected)
                if setting == "SHIM_KILL":
                    require_sent_once(hub, name, more=ends * (HEADER_MOST + NOTED + UNDER_WAY))


@case
def killed_between() -> None:
    """killed before any change of DST: the next run completes it"""
    accidents("KILL", 12)


@case
def power_lost() -> None:
    """the power fails at any change of DST: no shard was removed that is still needed, the next run completes it"""
    accidents("POWER", 12)


@case
def cache_changes() -> None:
    """the cache changes from one run to the next: kept shards, fetched shards, a cache that is gone"""
    name = "norms apart"
    for kinds in (["--keep-source", ""], ["", "--keep-source"], ["--keep-source", "gone", ""], ["", "fetched", "--keep-source"]):
        with stand_in(name) as hub:
            hub.fault(do="slow", where="cdn", rate=SLOW)
            for number, kind in enumerate(kinds):
                if kind == "gone":
                    shutil.rmtree(hub.cache)
                elif kind == "fetched":
                    done = hub.run([quantizing.QSTREAM, "fetch", "org/m", "--include", sorted(shards_of(name))[-2], "--quiet"])
                    require_equal(done.returncode, 0, done.stderr)
                elif number + 1 < len(kinds):
                    run = hub.start(command(name, hub.work / "out", *GAMMA, *([kind] if kind else [])))
                    require(hub.kill_after(run, size_of(name) * 2 // 3), "it was not killed")
            hub.no_faults()
            kind = [kinds[-1]] if kinds[-1] else []
            require_same(hub, quantize(hub, name, *GAMMA, *kind), reference(name, *GAMMA))


@case
def tampered_and_cached() -> None:
    """a companion that came wrong is found out where its shard comes to be in the cache"""
    name, tensor = "norms apart", "model.layers.2.post_attention_layernorm.weight"
    shard, offset = companion_place(name, tensor)
    with stand_in(name) as hub:
        hub.fault(**tampering(name, hub.repository("org/m")["main"]["files"][shard]["sha256"], offset, *GAMMA))
        hub.fault(do="slow", where="cdn", rate=SLOW)
        require(hub.kill_after(hub.start(command(name, hub.work / "out", *GAMMA)), size_of(name) * 2 // 3), "it was not killed")
        hub.no_faults()
        done = hub.run([quantizing.QSTREAM, "fetch", "org/m", "--include", shard, "--quiet"])
        require_equal(done.returncode, 0, done.stderr)
        require_refused(hub, quantize(hub, name, *GAMMA), IO, re.escape(tensor), re.escape(shard), "starts anew")
        require_same(hub, quantize(hub, name, *GAMMA), reference(name, *GAMMA))


@case
def interrupted() -> None:
    """SIGINT and SIGTERM end it with 130, also while a shard is waited for; the next run goes on"""
    for number in (signal.SIGINT, signal.SIGTERM):
        with stand_in("plain") as hub:
            hub.fault(do="stall", where="cdn", after=2 * MIB, range=False, skip=1)
            hub.fault(do="stall", where="cdn", after=2 * MIB, range=True, skip=6)
            run = hub.start(command("plain", hub.work / "out"))
            hub.wait_hits(1)
            run.send_signal(number)
            out, error = run.communicate(timeout=60)
            require_equal((run.returncode, out), (INTERRUPTED, ""), error)
            hub.no_faults()
            resumed(hub, "plain", 1)


# ---- the disk ----


@case
def failing_disk() -> None:
    """a disk that fills up or fails on the way: exit code 4; the same command goes on"""
    with stand_in("mistral") as hub:
        for fault in ("pwrite:5+:ENOSPC", "pwrite:30+:ENOSPC", "pwrite:60:EIO", "fsync:2:EIO", "fsync:5:EIO", "rename:3:EIO",
                      "open:9:ENOSPC", "unlink:1:EIO", "fdatasync:1:EIO"):  # fmt: skip
            done = quantize(hub, "mistral", *GAMMA, **with_shim(hub, FAIL=fault))
            if done.returncode:
                require_refused(hub, done, IO)
            require_same(hub, quantize(hub, "mistral", *GAMMA), reference("mistral", *GAMMA))
            shutil.rmtree(hub.work / "out")


@case
def less_disk() -> None:
    """a run that goes on with a smaller --disk removes what is too much, and stays below it"""
    with stand_in("plain") as hub:
        told = needs(hub, "plain")
        hub.fault(do="slow", where="cdn", rate=SLOW)
        require(hub.kill_after(hub.start(command("plain", hub.work / "out")), 2 * MIB), "it was not killed")
        for shard, path in shards_of("plain").items():  # as a run with more disk would have left them
            (work_folder(hub) / "source" / f"{shard}.partial").unlink(missing_ok=True)
            shutil.copy(path, work_folder(hub) / "source" / shard)
        shards = sorted(shards_of("plain"))
        run = hub.start(command("plain", hub.work / "out", "--disk", str(told["disk_least"])))
        watch = DiskWatch(work_folder(hub) / "source")
        while run.poll() is None and (watch.look() or watch.most > told["disk_least"]):  # until it has tidied up
            watch.most = 0
        require_same(hub, watch.run(run), reference("plain"))
        require(0 < watch.most <= told["disk_least"], f"{watch.most} bytes with --disk {told['disk_least']}")
        require(sent(hub, "plain", shards[0]) <= 2 * MIB + HEADER_MOST * 3 + UNDER_WAY, "the first shard was not used")


@case
def bad_weight() -> None:
    """a weight that cannot be quantized ends the run at once, though a download is under way"""
    broken = quantizing.WORK / "broken"
    first = sorted(shards_of("plain"))[0]
    if not broken.exists():
        subprocess.run(["cp", "-r", source("plain"), broken], check=True)
        _, offset = companion_place("plain", "model.layers.0.mlp.up_proj.weight")
        with (broken / first).open("r+b") as stream:
            stream.seek(offset)
            stream.write(b"\xff\x7f" * 8)
    from harness import model

    with StandIn(model("org/m", broken)) as hub:
        hub.fault(do="slow", where="cdn", rate=300_000, skip=7)
        done = quantize(hub, "plain")
        require_refused(hub, done, BAD_INPUT, "NaN", re.escape("model.layers.0.mlp.up_proj.weight"))


@case
def two_at_once() -> None:
    """a second run on the same DST is refused, and harms nothing"""
    with stand_in("plain") as hub:
        hub.fault(do="slow", where="cdn", rate=SLOW)
        run = hub.start(command("plain", hub.work / "out"))
        hub.wait_sent(4 * MIB)
        done = quantize(hub, "plain")
        require_equal(done.returncode, 2, done.stderr)
        require("another qstream" in done.stderr, done.stderr)
        out, error = run.communicate(timeout=120)
        require_same(hub, subprocess.CompletedProcess([], run.returncode, out, error), reference("plain"))


def main() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(prefix="qstream-quantize-") as place:
        quantizing.WORK = Path(place)
        for name in ("plain", "fp8", "mistral", "norms apart", "scales apart", "shuffled"):
            source(name)
        return run_cases(threads=2)


if __name__ == "__main__":
    sys.exit(main() > 0)
