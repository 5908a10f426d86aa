#!/usr/bin/env python3
"""Whether transformers, compressed-tensors and vLLM read what qstream makes of the sample model. Prints TAP.

    sample_check.py [--work DIR]

For each of the sample's layouts: transformers loads the quantized folder, with nothing missing, unexpected or initialized
anew; each weight is, to the bit, what the verifier decodes (decode.c); the mean NLL of the first window of a text is that of
'qstream ppl'; and vLLM gives each module the scheme that it was quantized for. Run it with
build/readers-transformers/bin/python (venv.sh); vLLM is asked by build/readers/bin/python.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE, BUILD = ROOT / "tests/readers", ROOT / "build"
QSTREAM = os.environ.get("QSTREAM", str(BUILD / "qstream"))
WIKITEXT = ROOT.parent / "shared/data/wikitext-2-raw/wiki.test.raw"
WINDOW = 2048
NLL_TOLERANCE = 2e-2

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from compressed_tensors.quantization import QuantizationArgs  # noqa: E402
from compressed_tensors.quantization.lifecycle.forward import dequantize  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers_oracle import judge  # noqa: E402

CASES = {  # name: (source, recipe, more options)
    "Mistral3, FP8 to MXFP4 and static FP8": ("smollm2-fp8", "mistral-medium-3.5-mxfp4", ()),
    "Mistral3, FP8, calibrated": ("smollm2-fp8", "mistral-medium-3.5-mxfp4", ("--calibrate", "--calibrate-tokens", "512")),
    "Llama, BF16 to MXFP4 and channel FP8": ("smollm2-bf16", "llama-mxfp4", ()),
}
SCHEMES = {"weight_packed": "CompressedTensorsW4A4Mxfp4", "weight": "CompressedTensorsW8A8Fp8"}

number = failed = 0


def check(fine: bool, text: str, note: object = "") -> None:
    global number, failed
    number += 1
    failed += not fine
    print(f"{'ok' if fine else 'not ok'} {number} - {text}", flush=True)
    for line in str(note).splitlines():
        print(f"# {line}")


def qstream(*words: object) -> str:
    return subprocess.run([QSTREAM, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout


def quantized_modules(folder: Path) -> dict[str, str]:
    """{module: the part that holds its codes}"""
    names = {tensor["name"] for tensor in json.loads(qstream("inspect", folder, "--json"))["tensors"]}
    modules = {name.rpartition(".")[0] for name in names if name.endswith(".weight_scale")}
    return {module: "weight_packed" if f"{module}.weight_packed" in names else "weight" for module in sorted(modules)}


def window_nll(model: torch.nn.Module, ids: list[int]) -> float:
    tokens = torch.tensor([ids])
    with torch.no_grad():
        logits = model(input_ids=tokens).logits[0, :-1].double()
    return float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:]))


def values_differ(model: torch.nn.Module, folder: Path, modules: dict[str, str], decoder: Path) -> tuple[int, int]:
    """Weights compared, and those of them with another bit than the verifier's decoder gives.

    MXFP4 as it is in the model that was loaded; FP8 by compressed-tensors' function on the file's own scale: in a model in
    BF16 the scale itself is rounded.
    """
    differing = 0
    stored = {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}
    with subprocess.Popen([decoder, folder, *modules], stdout=subprocess.PIPE) as decode:
        for module, part in modules.items():
            if part == "weight_packed":
                found = model.get_submodule(module).weight.float()
            else:
                scale = stored[f"{module}.weight_scale"].float()
                strategy = "tensor" if scale.numel() == 1 else "channel"
                found = dequantize(stored[f"{module}.weight"], scale, args=QuantizationArgs(num_bits=8, type="float", strategy=strategy))
            data = decode.stdout.read(4 * found.numel())
            wanted = torch.from_numpy(np.frombuffer(data, np.float32).copy()).reshape(found.shape)
            differing += found.dtype != torch.float32 or not torch.equal(found.view(torch.int32), wanted.view(torch.int32))
        rest = decode.stdout.read()
    if decode.returncode or rest:
        raise SystemExit(f"{decoder} failed")
    return len(modules), differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=BUILD / "readers-sample")
    work = parser.parse_args().work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    text = work / "text"
    text.write_bytes(WIKITEXT.read_bytes() if WIKITEXT.exists() else b"".join(p.read_bytes() for p in sorted((ROOT / "docs").glob("*.md"))))
    decoder = work / "decode"
    subprocess.run(["gcc", "-std=c17", "-D_GNU_SOURCE", f"-I{ROOT}", "-O2", "-o", decoder, HERE / "decode.c", BUILD / "libqstream.a",
                    *"-ljansson -lcrypto -lpcre2-8 -lz -lm -ldl -pthread".split()], check=True)  # fmt: skip
    for name, (source, recipe, options) in CASES.items():
        folder = work / name.replace(" ", "-").replace(",", "")
        options = [word for option in options for word in ((option, text) if option == "--calibrate" else (option,))]
        qstream("quantize", BUILD / "models" / source, folder, "--recipe", ROOT / f"configs/{recipe}.json", "--quiet", *options)

        verdict = judge(folder)
        check(verdict.loads and verdict.forward_ok and not verdict.error, f"{name}: transformers loads and runs it", verdict.error or "")
        check(not (verdict.missing or verdict.unexpected or verdict.mismatched or verdict.wrong_values),
              f"{name}: no tensor is missing, unexpected, initialized anew or of other values", f"missing {verdict.missing[:3]} "
              f"unexpected {verdict.unexpected[:3]} mismatched {verdict.mismatched[:3]} wrong {verdict.wrong_values[:3]}")

        architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
        model = getattr(transformers, architecture).from_pretrained(folder, dtype=torch.bfloat16)
        ids = json.loads(qstream("tokenize", folder, "--text", text))[:WINDOW]
        (work / "ids.json").write_text(json.dumps(ids))
        theirs = window_nll(model, ids)
        measured = json.loads(qstream("ppl", folder, "--tokens", work / "ids.json", "--windows", 1, "--compute", "bf16", "--json", "--quiet"))
        ours = measured["nll"]
        check(abs(ours - theirs) <= NLL_TOLERANCE, f"{name}: the NLL of the first window is that of transformers",
              f"transformers {theirs:.5f}, qstream {ours:.5f} over {len(ids) - 1} tokens")

        modules = quantized_modules(folder)
        count, differing = values_differ(model, folder, modules, decoder)
        check(differing == 0, f"{name}: compressed-tensors decompresses to what the verifier decodes, to the bit",
              f"{count} weights, {differing} differ")

        done = subprocess.run([BUILD / "readers/bin/python", HERE / "vllm_oracle.py", folder], check=True, stdout=subprocess.PIPE)
        answers = json.loads(done.stdout)
        wrong = [f"{module}: {answers.get(module)}" for module, part in modules.items()
                 if not answers.get(module) or answers[module]["scheme"] != SCHEMES[part]]
        wrong += [f"{module}: {answer}" for module, answer in answers.items() if module not in modules and answer and answer["resolution"] != "unquantized"]
        check(not wrong and len(answers) > len(modules), f"{name}: vLLM gives each module its scheme",
              "\n".join(wrong[:5]) or f"{len(modules)} of {len(answers)} modules have one, the others none")
    print(f"1..{number}")
    shutil.rmtree(work)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
