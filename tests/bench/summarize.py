#!/usr/bin/env python3
"""Turns the samples of bench.sh into tables, or one JSON object: median, smallest and largest of each."""
import argparse
import json
import statistics
import sys


def read(path):
    notes, runs, rates, kernels = {}, {}, [], {}
    with open(path) as file:
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if fields[0] == "#":
                notes[fields[1]] = fields[2]
            elif fields[0] == "rate":
                rates.append(float(fields[2]))
            elif fields[0] == "kernel":
                kernels.setdefault((fields[1], fields[2]), []).append(float(fields[3]))
            else:
                runs.setdefault(fields[0], []).append([float(x) for x in fields[1:]])
    return notes, runs, rates, kernels


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(values, scale=1.0, digits=2):
    return "{:.{d}f} ({:.{d}f}..{:.{d}f})".format(*(values[k] / scale for k in ("median", "min", "max")), d=digits)


def collect(notes, runs, rates, kernels):
    cores, elements = int(notes["cores"]), int(notes["mlp_elements"])
    result = {"schema": "qstream.bench-layer/1", "cores": cores, "cpu": notes["cpu"], "repeats": int(notes["repeat"]),
              "mlp_elements": elements, "memory": [], "disk": None, "verify": [], "inspect": [], "memcpy": None, "kernels": [], "sha256": None}
    if rates:
        result["memcpy"] = {"bytes_touched_per_second": spread(rates)}
    for label, samples in runs.items():
        kind, *rest = label.split("|")
        if kind != "tmpfs":
            continue
        layout, rule = rest
        walls = [s[0] for s in samples]
        touched = int(notes["source_bytes " + layout]) + int(notes["output_bytes " + layout])
        entry = {"layout": layout, "rule": rule, "seconds": spread(walls),
                 "elements_per_second": spread([elements / w for w in walls]),
                 "elements_per_second_per_core": spread([elements / w / cores for w in walls]),
                 "processor_seconds": spread([s[1] for s in samples]),
                 "peak_bytes": max(s[2] for s in samples) * 1024,
                 "bytes_touched": touched, "bytes_touched_per_second": spread([touched / w for w in walls])}
        if rates:
            entry["of_memcpy"] = entry["bytes_touched_per_second"]["median"] / statistics.median(rates)
        result["memory"].append(entry)
    disk = {label.split("|")[1]: [s[0] for s in samples] for label, samples in runs.items()
            if label.startswith("disk|")}
    if disk:
        ours = {name.split()[1]: statistics.median(walls) for name, walls in disk.items() if name.startswith("quantize ")}
        layout = "fp8-tensor"
        result["disk"] = {
            "source_bytes": int(notes["source_bytes " + layout]),
            "output_bytes": int(notes["output_bytes " + layout]),
            "peak_bytes": max(s[2] for label, samples in runs.items() for s in samples
                              if label.startswith("disk|quantize ")) * 1024,
            "commands": [{"name": name, "seconds": spread(walls),
                          "quantize_takes": {rule: wall / statistics.median(walls) for rule, wall in ours.items()}}
                         for name, walls in disk.items()]}
    verify = {label: samples for label, samples in runs.items() if label.startswith("verify|")}
    for label, samples in verify.items():
        _, state, what = label.split("|")
        if what == "read":
            continue
        walls, reading = [s[0] for s in samples], [s[0] for s in verify[f"verify|{state}|read"]]
        touched = int(notes["source_bytes fp8-tensor"]) + int(notes["output_bytes fp8-tensor"])
        result["verify"].append({
            "from": state, "hash": what == "hash", "seconds": spread(walls), "bytes_read": touched,
            "elements_per_second": spread([elements / w for w in walls]),
            "bytes_per_second": spread([touched / w for w in walls]),
            "processor_seconds": spread([s[1] for s in samples]), "peak_bytes": max(s[2] for s in samples) * 1024,
            "reading_seconds": spread(reading), "of_reading": statistics.median(walls) / statistics.median(reading)})
    for what in ("source", "output"):
        samples = runs.get(f"inspect|{what}|stats")
        if samples:
            walls, reading = [s[0] for s in samples], [s[0] for s in runs[f"inspect|{what}|read"]]
            size = int(notes[f"{what}_bytes fp8-tensor"])
            result["inspect"].append({
                "of": what, "seconds": spread(walls), "bytes_read": size, "bytes_per_second": spread([size / w for w in walls]),
                "processor_seconds": spread([s[1] for s in samples]), "peak_bytes": max(s[2] for s in samples) * 1024,
                "reading_seconds": spread(reading), "of_reading": statistics.median(walls) / statistics.median(reading)})
    for (name, level), values in kernels.items():
        if name == "sha256":
            result["sha256"] = {"bytes_per_second": spread(values)}
        else:
            result["kernels"].append({"name": name, "level": level, "elements_per_second": spread(values)})
    return result


def table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(row, widths))).rstrip())
    print()


def tables(result):
    print(f"{result['cores']} processors; {result['cpu']} {result['repeats']} rounds; "
          f"every figure is median (smallest..largest)\n")
    if result["memory"]:
        print("Page cache to tmpfs, one layer. G elem/s: MLP elements by wall time of the whole command (attention\n"
              "weights and the rest are made in it, too); per core: by processors; CPU s: of all threads; of memcpy:\n"
              "(bytes of the source + bytes of the output) by wall time, against the memory copy below.")
        rows = [("layout, rule", "wall s", "G elem/s", "per core", "CPU s", "peak RSS MB", "GB/s touched", "of memcpy")]
        for e in result["memory"]:
            share = e.get("of_memcpy")
            rows.append((f"{e['layout']}, {e['rule']}", show(e["seconds"]), show(e["elements_per_second"], 1e9),
                         show(e["elements_per_second_per_core"], 1e9, 3), show(e["processor_seconds"]),
                         f"{e['peak_bytes'] / 1e6:.0f}", show(e["bytes_touched_per_second"], 1e9),
                         f"{100 * share:.0f} %" if share else "-"))
        table(rows)
    if result["disk"]:
        disk = result["disk"]
        print(f"To the disk of build/; the source ({disk['source_bytes'] / 1e9:.2f} GB) is in the page cache, the output "
              f"has {disk['output_bytes'] / 1e9:.2f} GB.\n"
              "  quantize RULE            qstream quantize: ends with its data hashed and synced\n"
              "  cp                       cp -r SOURCE COPY, not synced\n"
              "  cp, sync                 the same, then sync -d on the copies\n"
              "  cp in and out            cp -r SOURCE COPY, then cp -r OUTPUT COPY2: input bytes plus output bytes, not synced\n"
              "  cp in and out, sync      the same, then sync -d on the copies\n"
              "  read, cp out, sync       cat SOURCE > /dev/null, then cp -r OUTPUT COPY, then sync -d: what quantize reads and\n"
              "                           writes, without arithmetic\n"
              "The columns of rules: quantize's time by that command's time; below 1 we are faster. Before each command\n"
              "the file system is synced.")
        rules = list(disk["commands"][0]["quantize_takes"])
        rows = [("command", "wall s", *rules)]
        for c in disk["commands"]:
            ours = c["name"].startswith("quantize")
            rows.append((c["name"], show(c["seconds"]),
                         *("" if ours else f"{c['quantize_takes'][rule]:.2f} x" for rule in rules)))
        table(rows)
    if result["verify"]:
        print("Verifying the layer: source and output are read and compared. G elem/s: MLP elements by wall time; to reading:\n"
              "by the time of 'cat SOURCE/* OUTPUT/* > /dev/null' from the same place, which is one process. disk: both\n"
              "folders were dropped from the page cache before.")
        rows = [("from", "wall s", "G elem/s", "GB/s read", "CPU s", "peak RSS MB", "cat: wall s", "to reading")]
        for e in result["verify"]:
            rows.append((("page cache" if e["from"] == "cached" else "disk") + (", --hash" if e["hash"] else ""), show(e["seconds"]),
                         show(e["elements_per_second"], 1e9), show(e["bytes_per_second"], 1e9), show(e["processor_seconds"]),
                         f"{e['peak_bytes'] / 1e6:.0f}", show(e["reading_seconds"]), f"{e['of_reading']:.2f} x"))
        table(rows)
    if result["inspect"]:
        print("inspect --stats of the layer, which reads every value, from the page cache; to reading: by the time of\n"
              "'cat FOLDER/* > /dev/null', which is one process.")
        rows = [("of", "wall s", "GB/s read", "CPU s", "peak RSS MB", "cat: wall s", "to reading")]
        for e in result["inspect"]:
            rows.append((e["of"], show(e["seconds"]), show(e["bytes_per_second"], 1e9), show(e["processor_seconds"]),
                         f"{e['peak_bytes'] / 1e6:.0f}", show(e["reading_seconds"]), f"{e['of_reading']:.2f} x"))
        table(rows)
    if result["memcpy"]:
        print("Memory copy, a thread per processor, a copied byte counts as two (read, written):")
        table([("GB/s", show(result["memcpy"]["bytes_touched_per_second"], 1e9))])
    if result["kernels"]:
        print("Kernels on one core, data in L2, G elements/s:")
        rows = [("kernel", "level", "G elem/s")]
        for k in result["kernels"]:
            rows.append((k["name"], k["level"], show(k["elements_per_second"], 1e9, 3)))
        table(rows)
    if result["sha256"]:
        print("SHA-256 on one core. Every output byte is hashed, those of one shard by one core at a time:")
        table([("GB/s", show(result["sha256"]["bytes_per_second"], 1e9))])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("samples")
    arguments = parser.parse_args()
    result = collect(*read(arguments.samples))
    if arguments.json:
        json.dump(result, sys.stdout, indent=2)
        print()
    else:
        tables(result)


if __name__ == "__main__":
    main()
