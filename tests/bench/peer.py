#!/usr/bin/env python3
"""Runs what a user would pick instead of 'qstream ppl' and 'qstream generate', on the same tokens, and prints JSON.

peer.py transformers-bf16|transformers-f32|llama.cpp MODEL TOKENS.json THREADS WINDOW STRIDE WINDOWS GENERATE

MODEL is the folder, for llama.cpp a GGUF. Loading is not timed. The NLL shows that the same thing was computed.
GENERATE tokens are then generated, greedily, one after another, behind 16 tokens of the text; 0: none.
"""
import json
import sys
import time


def windows_of(ids, window, stride, windows):
    for k in range(windows):
        part = ids[k * stride:k * stride + window]
        yield part, len(part) - 1 if k == 0 else stride


def transformers(kind, model_path, ids, threads, window, stride, windows, generate):
    import torch
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(
        model_path, dtype=torch.bfloat16 if kind.endswith("bf16") else torch.float32).eval()
    total = scored_all = 0
    with torch.inference_mode():
        model(torch.tensor([ids[:64]]))  # warms up
        begin = time.monotonic()
        for part, scored in windows_of(ids, window, stride, windows):
            tokens = torch.tensor([part])
            logits = model(tokens, logits_to_keep=scored + 1).logits[0, :-1]
            total += torch.nn.functional.cross_entropy(logits.float(), tokens[0, -scored:], reduction="sum").item()
            scored_all += scored
        prefill = window * windows / (time.monotonic() - begin)
        rate = None
        if generate:
            begin = time.monotonic()
            model.generate(torch.tensor([ids[:16]]), do_sample=False, min_new_tokens=generate, max_new_tokens=generate)
            rate = generate / (time.monotonic() - begin)
    return {"nll": total / scored_all, "tokens_per_second": prefill, "generated_per_second": rate}


def llama_cpp(model_path, ids, threads, window, stride, windows, generate):
    import numpy as np
    from llama_cpp import Llama
    model = Llama(model_path, n_ctx=window, n_batch=window, n_ubatch=512, n_threads=threads, n_threads_batch=threads,
                  logits_all=True, verbose=False)
    total = scored_all = 0
    begin = time.monotonic()
    for part, scored in windows_of(ids, window, stride, windows):
        model.reset()
        model.eval(part)
        logits = model.scores[len(part) - 1 - scored:len(part) - 1].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        total += (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(scored), part[-scored:]]).sum()
        scored_all += scored
    prefill = window * windows / (time.monotonic() - begin)
    rate = None
    if generate:
        model = Llama(model_path, n_ctx=window, n_threads=threads, verbose=False)
        model.eval(ids[:16])
        begin = time.monotonic()
        for _ in range(generate):
            model.eval([model.sample(temp=0.0)])
        rate = generate / (time.monotonic() - begin)
    return {"nll": total / scored_all, "tokens_per_second": prefill, "generated_per_second": rate}


def main():
    kind, model, tokens = sys.argv[1:4]
    numbers = [int(value) for value in sys.argv[4:]]
    with open(tokens) as file:
        ids = json.load(file)
    result = llama_cpp(model, ids, *numbers) if kind == "llama.cpp" else transformers(kind, model, ids, *numbers)
    print(json.dumps(result))


main()
