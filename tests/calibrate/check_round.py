#!/usr/bin/env python3
"""Calibrated rounding of single weights against an independent implementation in float64. Prints TAP.

    check_round.py ROUND [--quick] [--seed N]

ROUND is tests/calibrate/round.c compiled. The reference is GPTQ as its paper has it: the inverse of the damped Gram
matrix, its Cholesky factor, and columns that are brought up to date after each that is rounded; scales by trying all
exponents. One code that falls the other way at a tie changes all that follow in its row, so decisions are compared one by
one: what would the reference do, had it made the same choices before?
"""
import argparse
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

GRID = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
LEVELS = {"portable": 0, "avx2": 2, "avx512": 3}
DAMPING = 0.01


def run(program, case, jobs=2, pull=0, cpu="portable", window=512, damping=DAMPING):
    x, token_weights, w, *lacks = case
    rows, columns = w.shape
    with tempfile.TemporaryDirectory() as folder:
        source, result = os.path.join(folder, "in"), os.path.join(folder, "out")
        with open(source, "wb") as out:
            out.write(struct.pack("<8Id", rows, columns, len(x), jobs, LEVELS[cpu], window, pull, 0, damping))
            for part in (x, token_weights, w, *lacks):
                out.write(np.ascontiguousarray(part, np.float32).tobytes())
        subprocess.run([program, source, result], check=True)
        data = open(result, "rb").read()
    at = 1 + 4 * columns
    order = np.frombuffer(data[1:at], np.uint32)[::-1].astype(int)  # the first to be rounded first
    packed = np.frombuffer(data[at:at + rows * columns // 2], np.uint8).reshape(rows, -1)
    at += rows * columns // 2
    exponents = np.frombuffer(data[at:at + rows * columns // 32], np.uint8).reshape(rows, -1)
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(rows, columns)
    scales = np.repeat(np.exp2(exponents.astype(float) - 127), 32, 1)
    q = GRID[codes & 7] * np.where(codes & 8, -1.0, 1.0) * scales
    return {"usable": data[0], "order": order, "q": q, "scales": scales, "exponents": exponents, "bytes": data}


def gram(case, damping=DAMPING):
    x = case[0].astype(float) * case[1].astype(float)[:, None]
    h = x.T @ x
    mean = np.diag(h).mean()
    return h, h + np.eye(len(h)) * (damping * mean if mean > 0 else 1)


def nearest(x, scales):
    """The distance to the nearest value of the grid."""
    x = np.abs(x)
    return np.abs(x - scales * GRID[np.searchsorted((GRID[1:] + GRID[:-1]) / 2, x / scales)])


def scale_costs(w, exponents):
    """What each block costs with its exponent, and the best of all exponents, the largest one on ties, and its cost.

    An exponent more than 12 below that of the largest weight loses that weight; one 4 above rounds all to zero, as do those
    beyond.
    """
    blocks = w.astype(float).reshape(len(w), -1, 32)

    def cost(e):
        return (nearest(blocks, np.broadcast_to(np.exp2(e - 127.0)[..., None], blocks.shape)) ** 2).sum(-1)

    top = np.frexp(np.abs(blocks).max(-1))[1] + 127
    best, chosen = np.full(top.shape, np.inf), np.zeros(top.shape, int)
    for step in range(-12, 5):
        e = np.clip(top + step, 0, 254)
        costs = cost(e)
        chosen, best = np.where(costs <= best, e, chosen), np.minimum(best, costs)
    return cost(np.asarray(exponents)), chosen, best


def scales_wrong(case, result):
    """Blocks whose scale costs more than the best of all exponents."""
    own, _, best = scale_costs(case[2], result["exponents"])
    return int((own > best * (1 + 1e-4) + 1e-30).sum())


def gptq(case, order):
    """GPTQ with its own scales."""
    _, exponents, _ = scale_costs(case[2], np.zeros((len(case[2]), case[2].shape[1] // 32)))
    return rounded(case, {"order": order, "scales": np.repeat(np.exp2(exponents - 127.0), 32, 1)}, False)[0]


def moved(case, pull):
    """The case with the weight that its lacks ask for: least squares in float64, damped as the Gram matrix; a row moves by no
    more than half of its length."""
    x, token_weights, w, lacks = (part.astype(float) for part in case)
    x, lacks = x * token_weights[:, None], lacks * token_weights[:, None]
    right = lacks.T @ x if pull == 1 else w @ (lacks.T @ x)
    move = np.linalg.solve(gram(case)[1], right.T).T
    length = np.linalg.norm(move, axis=1)
    most = np.linalg.norm(w, axis=1) / 2
    moves = np.minimum(1, np.divide(most, length, out=np.ones_like(most), where=length > 0))
    return (case[0], case[1], w + moves[:, None] * move), int((moves < 1).sum())


def rounded(case, result, follow):
    """GPTQ with the order and the scales of `result`: the codes and how far each is from the nearest value there is.

    follow: its codes are taken instead of the nearest, so that each decision can be looked at by itself.
    """
    order = result["order"]
    h = gram(case)[1][np.ix_(order, order)]
    factor = np.linalg.cholesky(np.linalg.inv(h)).T
    x, scales = case[2].astype(float)[:, order], result["scales"][:, order]
    q, wrong = np.zeros_like(x), np.zeros(x.shape, bool)
    grid = np.concatenate([-GRID[::-1], GRID])
    for c in range(x.shape[1]):
        near = (grid * scales[:, c, None])[np.arange(len(x)), np.abs(x[:, c, None] - grid * scales[:, c, None]).argmin(1)]
        q[:, c] = result["q"][:, order[c]] if follow else near
        spread = np.abs(x[:, c]) + scales[:, c]
        wrong[:, c] = np.abs(x[:, c] - q[:, c]) - np.abs(x[:, c] - near) > 1e-3 * spread
        x[:, c + 1:] -= np.outer((x[:, c] - q[:, c]) / factor[c, c], factor[c, c + 1:])
    back = np.empty_like(q)
    back[:, order] = q
    return back, int(wrong.sum())


def distance(w, q):
    """Of each row from the source's, in lengths of that."""
    w = w.astype(float)
    return np.linalg.norm(w - q, axis=1) / np.maximum(np.linalg.norm(w, axis=1), 1e-300)


def far(case, result, wanted):
    """Rows that GPTQ, `wanted`, takes far from the source; a tie that fell the other way can do so, too: then they are nearest."""
    share, w = distance(case[2], wanted), case[2].astype(float)
    return (share > 0.65) | (share > 0.15) & np.isclose(np.abs(w - result["q"]), nearest(w, result["scales"]), atol=0).all(1)


def rows_of(case, result, rows):
    return (*case[:2], case[2][rows]), {**result, **{name: result[name][rows] for name in ("q", "scales", "exponents")}}


def loss(case, q):
    error = case[2].astype(float) - q
    return float(np.einsum("rc,cd,rd->", error, gram(case)[1], error))


def bf16(values):
    return (np.asarray(values, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def make(rng, rows, columns, tokens, kind="correlated"):
    mixing = rng.normal(size=(columns, columns)) * rng.exponential(size=columns) / np.sqrt(columns)
    x = rng.normal(size=(tokens, columns)) @ mixing + rng.normal(size=columns) * 0.3
    w = rng.normal(size=(rows, columns)) * np.exp(rng.normal(size=(rows, 1)))
    token_weights = np.exp(rng.normal(size=tokens))
    if kind == "massive":
        x[0] *= 3000
        x[:, columns // 3] *= 100
    if kind == "dead":
        x[:, ::3] = 0
        x[:, :32] = 0
    if kind == "none":
        x[:] = 0
    if kind == "outliers":
        w[rng.random(w.shape) < 0.002] *= 300
        w[0] = 0
        w[-1, :64] = 0
    if kind == "small":
        w *= 2.0 ** -110
    if kind == "bent":  # what one column loses is a lot to ask of the others
        x = np.outer(rng.normal(size=tokens), np.where(np.arange(columns) == 5, 300, 1)) + x * 1e-2
        w = rng.normal(size=(rows, columns))
    if kind == "one direction":  # all else is lost in its roundings
        x = np.outer(rng.normal(size=tokens), rng.normal(size=columns)) * 1e4 + x * 1e-2
    return np.float32(x), np.float32(token_weights), bf16(w)


CASES = [  # rows, columns, tokens, kind
    (128, 128, 512, "correlated"), (1, 32, 40, "correlated"), (7, 96, 300, "correlated"), (130, 160, 700, "correlated"),
    (300, 576, 1500, "correlated"), (96, 1536, 2500, "correlated"), (64, 640, 200, "correlated"),
    (100, 256, 900, "massive"), (100, 288, 900, "dead"), (64, 128, 50, "none"), (200, 320, 1200, "outliers"),
    (40, 128, 400, "small"), (50, 320, 1024, "one direction"),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--quick", action="store_true", help="the smaller ones only")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("QSTREAM_TEST_SEED", "1")))
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    flags = open("/proc/cpuinfo").read() if os.path.exists("/proc/cpuinfo") else ""
    levels = ["portable"] + ["avx2"] * (" avx2" in flags) + ["avx512"] * (" avx512vbmi" in flags)
    number = failed = 0

    def check(fine, text, note=""):
        nonlocal number, failed
        number += 1
        failed += not fine
        print(f"{'ok' if fine else 'not ok'} {number} - {text}{'' if fine else '  # ' + note}", flush=True)

    for rows, columns, tokens, kind in CASES:
        if arguments.quick and rows * columns > 40000:
            continue
        case = make(rng, rows, columns, tokens, kind)
        name = f"{kind} inputs, {rows} x {columns}, {tokens} tokens"
        result = run(arguments.program, case)
        first = gram(tuple(part[:512] for part in case[:2]))[0].diagonal()[result["order"]]
        check(result["usable"] == 1 and (first[1:] <= first[:-1] * (1 + 1e-5)).all(),
              f"{name}: the columns with the strongest inputs are rounded first", "another order")
        wrong = scales_wrong(case, result)
        check(wrong == 0, f"{name}: no exponent costs less", f"{wrong} blocks")
        wanted = gptq(case, result["order"])
        near = ~far(case, result, wanted)
        check(near.mean() > 0.95, f"{name}: GPTQ takes few rows far from the source", f"{near.mean()}")
        kept, kept_result = rows_of(case, result, near)
        own, reference = loss(kept, kept_result["q"]), loss(kept, wanted[near])
        check(own <= 1.03 * reference + 1e-30, f"{name}: the loss is that of GPTQ", f"{own}, not {reference}")
        if kind != "one direction":
            wrong = rounded(kept, kept_result, True)[1]
            check(wrong == 0, f"{name}: each code is the one that GPTQ takes, but for ties", f"{wrong} codes")
        others = [run(arguments.program, case, jobs=jobs) for jobs in (1, 3, 7)]
        check(all(other["bytes"] == result["bytes"] for other in others), f"{name}: the same for 1, 2, 3 and 7 threads")
        for level in levels[1:]:
            _, other = rows_of(case, run(arguments.program, case, cpu=level), near)
            wrong = 0 if kind == "one direction" else rounded(kept, other, True)[1]
            check(wrong == 0 and loss(kept, other["q"]) <= 1.03 * reference + 1e-30, f"{name}, {level}: as good", f"{wrong} codes")

    for rows, columns, tokens, pull, size in ((96, 160, 700, 1, 0.1), (300, 576, 1500, 1, 0.1), (130, 160, 700, 2, 0.1), (256, 576, 1500, 2, 0.1),
                                              (7, 96, 300, 2, 0.1), (100, 96, 300, 1, 1.0)):
        case = make(rng, rows, columns, tokens)
        mixing = case[2] if pull == 1 else np.eye(columns)
        lacks = case[0] @ (mixing + rng.normal(size=mixing.shape) * np.abs(mixing).mean()).T
        case += (np.float32(size * lacks),)
        name = f"lacks of {'outputs' if pull == 1 else 'inputs'}, {rows} x {columns}, {tokens} tokens"
        target, stopped = moved(case, pull)
        check(stopped > rows / 2 if size > 0.3 else stopped < rows / 4, f"{name}: {'most' if size > 0.3 else 'few'} rows are stopped at half their length", f"{stopped}")
        check(loss(target, case[2].astype(float)) > 1e-3 * loss(target, 0 * target[2]), f"{name}: the weight moves", "too little to tell")
        for level in levels:
            result = run(arguments.program, case, pull=pull, cpu=level)
            share = distance(case[2], gptq(target, result["order"]))
            check((distance(case[2], result["q"]) <= 0.7).all() and (share < 0.65).mean() > 0.6,
                  f"{name}, {level}: no row ends farther away than 0.7 of its length", f"{share}")
            kept, kept_result = rows_of(target, result, share < 0.65)
            scales, codes = scales_wrong(kept, kept_result), rounded(kept, kept_result, True)[1]
            own, reference = loss(kept, kept_result["q"]), loss(kept, rounded(kept, kept_result, False)[0])
            check(scales == 0 and codes == 0, f"{name}, {level}: what is rounded is the least squares weight", f"{scales} scales, {codes} codes")
            check(own <= 1.03 * reference, f"{name}, {level}: the loss is that of GPTQ", f"{own}, not {reference}")
        others = [run(arguments.program, case, jobs=jobs, pull=pull, cpu=levels[-1]) for jobs in (1, 7)]
        check(all(other["bytes"] == result["bytes"] for other in others), f"{name}: the same for 1, 2 and 7 threads")

    case = make(rng, 200, 96, 300, "bent")
    for level in levels:
        result = run(arguments.program, case, cpu=level)
        share = distance(case[2], gptq(case, result["order"]))
        check((share > 0.75).any() and (share < 0.65).any(), f"bent rows, {level}: GPTQ loses some and some it does not", f"{share}")
        lost, lost_result = rows_of(case, result, share > 0.75)
        near = np.allclose(np.abs(lost[2] - lost_result["q"]), nearest(lost[2].astype(float), lost_result["scales"]))
        wrong = scales_wrong(lost, lost_result)
        check(near and wrong == 0, f"bent rows, {level}: those are rounded to nearest, with the scales of least error", f"{wrong} blocks")
        kept = rows_of(case, result, share < 0.65)
        wrong = rounded(*kept, True)[1] + scales_wrong(*kept)
        check(wrong == 0, f"bent rows, {level}: the others by GPTQ", f"{wrong} codes and blocks")
        check((distance(case[2], result["q"]) <= 0.7).all(), f"bent rows, {level}: none ends farther away than 0.7 of its length")

    for value in (np.nan, np.inf, 1e30):
        case = make(rng, 40, 160, 100)
        case[0][5, 7] = value
        result = run(arguments.program, case)
        wrong = scales_wrong(case, result)
        check(result["usable"] == 0 and wrong == 0 and np.allclose(np.abs(case[2] - result["q"]), nearest(case[2], result["scales"])),
              f"an input of {value}: to nearest, with the scales of least error", f"{result['usable']}, {wrong} blocks")
    print(f"1..{number}")
    sys.exit(failed > 0)


main()
