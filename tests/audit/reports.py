"""Exit statuses, options, and the reports in other formats: SARIF, JUnit, HTML."""

import json
import re
import xml.etree.ElementTree as xml
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from audits import audit
from checkpoints import REPO, Checkpoint
from edits import REMOVED, Edit, drop, ignore, poke, quant, relabel, reshape, targets

LEVELS = {"error", "warning", "note"}

STATUS_GONE = quant("quantization_status", REMOVED)  # vLLM does not read it
CHECKPOINT_NAMES = targets(0, "re:model\\.language_model\\.layers\\.\\d+\\.mlp\\..*")  # transformers' are the same
SCALAR = reshape("*o_proj.weight_scale")  # vLLM takes [] for [1]


def broken(good: Checkpoint, folder: Path, *edits: Edit) -> Path:
    checkpoint = good.copy()
    for edit in edits:
        edit.apply(checkpoint)
    checkpoint.write(folder)
    return folder


def report_tests(kind: str, goods: dict[str, Checkpoint], work: Path) -> Iterator[tuple[str, list[str]]]:
    tests = {"exit-status": status_tests, "options": option_tests, "reports": format_tests}
    yield from tests[kind](goods, work)


def docs_problems(folder: Path, report: Path) -> list[str]:
    """Whether docs/audit.md lists every finding that there is, and no other."""
    audit(folder, "--sarif", report)
    ids = {rule["id"] for rule in json.loads(report.read_text())["runs"][0]["tool"]["driver"]["rules"]}
    listed = set(re.findall(r"^\| `([a-z-]+)` \| (?:error|warning|note)", (REPO / "docs" / "audit.md").read_text(), re.M))
    return [f"not in the docs: {sorted(ids - listed)}; only there: {sorted(listed - ids)}"] if ids != listed else []


def status_tests(goods: dict[str, Checkpoint], work: Path) -> Iterator[tuple[str, list[str]]]:
    """Calls that cannot be answered."""
    good = goods["mistral3"]

    def expect(status: int, *arguments: str | Path) -> list[str]:
        result = audit(*arguments, json_output=False)
        problems = [] if result.status == status else [f"exit {result.status}, expected {status}: {result.errors}"]
        return problems + ([] if result.errors.strip() else ["nothing on standard error"])

    yield "docs/audit.md lists every finding", docs_problems(good.folder, work / "docs.sarif")
    yield "an unknown option is a usage error", expect(2, good.folder, "--frobnicate")
    yield "an unknown severity is a usage error", expect(2, good.folder, "--fail-on", "fatal")
    yield "an unknown loader is a usage error", expect(2, good.folder, "--loaders", "vllm,llama.cpp")
    yield "--fix without a folder is a usage error", expect(2, good.folder, "--fix")
    yield "--fix into the checkpoint itself is a usage error", expect(2, good.folder, "--fix", good.folder)
    yield "a folder that is not there", expect(3, work / "nowhere")
    empty = work / "empty"
    empty.mkdir(exist_ok=True)
    yield "a folder without a checkpoint", expect(3, empty)
    folder = broken(good, work / "no-config")
    (folder / "config.json").unlink()
    yield "no config.json", expect(3, folder)
    (folder / "config.json").write_text('{"architectures": [')
    yield "a config.json that is no JSON", expect(3, folder)
    (folder / "config.json").write_text("[1, 2]")
    yield "a config.json that is no object", expect(3, folder)
    broken(goods["fp8-block"], folder)
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    yield "no tensors", expect(3, folder)
    fixed = work / "clean.fix"
    result = audit(good.folder, "--fix", fixed)
    written = sorted(file.name for file in fixed.iterdir()) if fixed.exists() else []
    yield "--fix writes nothing for a clean checkpoint", [f"exit {result.status}, {written}"] if written else []
    result = audit(good.folder, "--sarif", work / "nowhere" / "report.sarif")
    yield "a report that cannot be written", [] if result.status == 4 else [f"exit {result.status}, expected 4"]


def option_tests(goods: dict[str, Checkpoint], work: Path) -> Iterator[tuple[str, list[str]]]:
    good, folder = goods["mistral3"], work / "options"

    def ids(*options: str) -> list[str]:
        return sorted(finding["id"] for finding in audit(folder, *options).findings)

    def expect(wanted: list[str], *options: str) -> list[str]:
        got = ids(*options)
        return [] if got == sorted(wanted) else [f"{' '.join(options)}: got {got}, expected {wanted}"]

    broken(good, folder, poke("*.1.self_attn.o_proj.weight_scale", float("nan")))
    yield "--headers-only does not see a NaN", expect([], "--headers-only") + expect(["scale-nan"])
    broken(good, folder, drop("*.1.self_attn.o_proj.weight_scale"))
    yield "--headers-only sees a missing scale", expect(["companion-missing"], "--headers-only")
    broken(good, folder, STATUS_GONE)
    yield "--loaders vllm: quantization_status does not matter", (
        expect([], "--loaders", "vllm") + expect(["quantization-status"], "--loaders", "transformers")
    )
    broken(good, folder, CHECKPOINT_NAMES)
    yield "--loaders transformers: vLLM's names do not matter", (
        expect([], "--loaders", "transformers") + expect(["checkpoint-names-only"], "--loaders", "vllm")
    )
    broken(good, folder, SCALAR)
    yield "--loaders vllm: a scalar does for one element", (
        expect([], "--loaders", "vllm") + expect(["scale-shape"], "--loaders", "vllm,transformers")
    )
    broken(good, folder, relabel("*.0.mlp.down_proj.weight_scale", "F8_E8M0"))
    yield "--loaders: what both get wrong is found for each", (
        expect(["tensor-dtype"], "--loaders", "vllm") + expect(["tensor-dtype"], "--loaders", "transformers")
    )
    yield "--modules tells layers, groups and schemes", module_problems(goods["mistral3"])
    result = audit(good.folder, json_output=False)
    text = [] if result.status == 0 and result.output.strip() else [f"exit {result.status}: {result.output}"]
    yield "without --json it is text for people", text
    again = audit(good.folder).output == audit(good.folder).output
    yield "the same audit twice is the same text", [] if again else ["the outputs differ"]


def module_problems(good: Checkpoint) -> list[str]:
    answer = audit(good.folder, "--modules").json
    modules = {module["name"]: module for module in answer["modules"]}
    linear = {name.rpartition(".")[0] for name, stored in good.tensors.items()
              if name.endswith((".weight", ".weight_packed")) and len(stored.shape) == 2}  # fmt: skip
    problems = [f"not listed: {sorted(linear - modules.keys())[:4]}"] if linear - modules.keys() else []
    text, run_time = "model.language_model.layers.1", "language_model.model.layers.1"
    expected = {
        f"{text}.self_attn.k_proj": (f"{run_time}.self_attn.qkv_proj", "group_1", "CompressedTensorsW8A8Fp8"),
        f"{text}.self_attn.o_proj": (f"{run_time}.self_attn.o_proj", "group_1", "CompressedTensorsW8A8Fp8"),
        f"{text}.mlp.up_proj": (f"{run_time}.mlp.gate_up_proj", "group_0", "CompressedTensorsW4A4Mxfp4"),
    }
    for name, (layer, group, scheme) in expected.items():
        vllm, transformers = modules[name]["vllm"], modules[name]["transformers"]
        got = (vllm["layer"], vllm["group"], vllm["scheme"])
        if got != (layer, group, scheme) or vllm["resolution"] != "scheme" or vllm["outcome"] != "as_meant":
            problems.append(f"{name}: vllm {vllm}")
        if transformers["group"] != group or transformers["outcome"] != "as_meant":
            problems.append(f"{name}: transformers {transformers}")
    plain = modules["model.vision_tower.transformer.layers.0.attention.q_proj"]["vllm"]
    if plain["resolution"] != "unquantized" or plain["scheme"] is not None or plain["group"] is not None:
        problems.append(f"vision: {plain}")
    return problems


def format_tests(goods: dict[str, Checkpoint], work: Path) -> Iterator[tuple[str, list[str]]]:
    good = goods["mistral3"]
    odd = 're:.*<odd> & "quoted" \\d\u2028\u00fc$'  # to be escaped in every format
    several = broken(good, work / "several", STATUS_GONE, ignore("re:.*self_attn.*"), ignore(odd),
                     poke("*.0.mlp.down_proj.weight_scale", 255))  # fmt: skip
    for title, folder in (("several findings", several), ("a clean checkpoint", good.folder)):
        files = {kind: work / f"report.{kind}" for kind in ("sarif", "junit", "html")}
        options = [part for kind, file in files.items() for part in (f"--{kind}", file)]
        result = audit(folder, *options)
        findings = result.findings
        yield f"SARIF of {title}", sarif_problems(files["sarif"], findings)
        yield f"JUnit of {title}", junit_problems(files["junit"], findings)
        yield f"HTML of {title}", html_problems(files["html"], findings)
    ids = {"quantization-status", "module-ignored", "ignore-unused", "scale-nan"}
    got = {finding["id"] for finding in audit(several).findings}
    yield "four mistakes are four findings", [] if got == ids else [f"got {sorted(got)}"]
    folder = broken(good, work / "warning", ignore(odd))
    audit(folder, "--junit", work / "warning.junit", "--fail-on", "warning")
    yield "JUnit fails what --fail-on fails", junit_problems(work / "warning.junit", audit(folder).findings, "warning")


def sarif_problems(file: Path, findings: list[dict]) -> list[str]:
    report = json.loads(file.read_text())
    if report["version"] != "2.1.0" or "sarif" not in report.get("$schema", "") or len(report["runs"]) != 1:
        return ["not SARIF 2.1.0 with one run"]
    driver, results = report["runs"][0]["tool"]["driver"], report["runs"][0]["results"]
    rules = [rule["id"] for rule in driver["rules"]]
    problems = []
    if not driver["name"].startswith("qstream") or len(set(rules)) != len(rules):
        problems.append(f"driver {driver['name']}, {len(rules)} rules")
    problems += [f"rule {rule['id']} has no text" for rule in driver["rules"] if not rule["shortDescription"]["text"]]
    for result in results:
        text, place = result["message"]["text"], result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        index = result.get("ruleIndex")
        if result["ruleId"] not in rules or (index is not None and rules[index] != result["ruleId"]):
            problems.append(f"{result['ruleId']} is no rule")
        if result["level"] not in LEVELS or not text or not place or place.startswith("/"):
            problems.append(f"{result['ruleId']}: level {result['level']}, text {text!r}, place {place!r}")
    got = Counter((result["ruleId"], result["level"]) for result in results)
    wanted = Counter((finding["id"], finding["severity"]) for finding in findings)
    return problems + ([] if got == wanted else [f"results {dict(got)}, findings {dict(wanted)}"])


def junit_problems(file: Path, findings: list[dict], fail_on: str = "error") -> list[str]:
    root = xml.parse(file).getroot()
    suites = [root] if root.tag == "testsuite" else root.findall("testsuite")
    if not suites:
        return [f"{root.tag} without a testsuite"]
    problems = []
    cases = [case for suite in suites for case in suite.iter("testcase")]
    failures = [failure for case in cases for failure in case.iter("failure")]
    for suite in suites:
        counts = (len(suite.findall("testcase")), len(list(suite.iter("failure"))))
        if (int(suite.get("tests", -1)), int(suite.get("failures", -1))) != counts:
            problems.append(f"the suite says {suite.attrib}, and has {counts}")
    order = ("note", "warning", "error")
    failing = sum(order.index(finding["severity"]) >= order.index(fail_on) for finding in findings)
    if len(failures) != failing or not cases or not all(case.get("name") for case in cases):
        problems.append(f"{len(cases)} cases, {len(failures)} failures, expected {failing}")
    text = xml.tostring(root, encoding="unicode")
    return problems + [f"{finding['id']} is not in it" for finding in findings if finding["id"] not in text]


def html_problems(file: Path, findings: list[dict]) -> list[str]:
    page = file.read_text(encoding="utf-8")
    problems = [] if page.lower().startswith("<!doctype html>") else ["no doctype"]
    problems += [f"loads {each}" for each in ('src="http', 'href="http', "@import", "url(http") if each in page]
    problems += [f"{finding['id']} is not in it" for finding in findings if finding["id"] not in page]
    return problems + (["a name stands there unescaped"] if "<odd>" in page else [])
