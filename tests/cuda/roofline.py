"""The figures of docs/cuda.md: what bandwidth, arithmetic and disks allow for the reference model. Prints Markdown tables."""

# Mistral-Medium-3.5-128B, its language model
LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MLP, VOCABULARY = 88, 12288, 96, 8, 128, 28672, 131072
ATTENTION = LAYERS * (2 * HIDDEN * HEADS * HEAD_DIM + 2 * HIDDEN * KV_HEADS * HEAD_DIM)
MLPS = LAYERS * 3 * HIDDEN * MLP
HEAD = VOCABULARY * HIDDEN
BITS = {"MXFP4 + FP8": (4.25, 8, 16), "FP8 source": (8, 8, 16)}  # of MLP, attention, head
FOLDER = {"MXFP4 + FP8": 90.0e9, "FP8 source": 133.6e9}  # files, vision tower and embedding included

# Data sheets. Memory as sold; bandwidth in bytes per second.
MACHINES = {"GB10 (DGX Spark)": (128e9, 273e9), "RTX PRO 6000 Blackwell": (96e9, 1.792e12), "H100 SXM": (80e9, 3.35e12),
            "H200": (141e9, 4.8e12)}
# GB10, dense: a quarter and a half of the sheet's 1 PFLOP/s of FP4 with sparsity, halved for sparsity
GB10_BF16, GB10_FP8, GB10_BANDWIDTH = 125e12, 250e12, 273e9
WINDOWS, WINDOW, STRIDE = 5, 2048, 512


def read(kind):
    """Bytes of weights that a token needs: all but the embedding, of which it takes one row."""
    mlp, attention, head = BITS[kind]
    return MLPS * mlp / 8 + ATTENTION * attention / 8 + HEAD * head / 8


def cache(value_bytes):
    """Bytes of keys and values of a position."""
    return LAYERS * 2 * KV_HEADS * HEAD_DIM * value_bytes


print(f"weights: attention {ATTENTION / 1e9:.2f}, MLP {MLPS / 1e9:.2f}, head {HEAD / 1e9:.2f} billion")
print("\n| | MLP | attention | head | a token reads |\n| --- | --- | --- | --- | --- |")
for kind, (mlp, attention, head) in BITS.items():
    print(f"| {kind} | {MLPS * mlp / 8e9:.1f} GB | {ATTENTION * attention / 8e9:.1f} GB | {HEAD * head / 8e9:.1f} GB | "
          f"{read(kind) / 1e9:.1f} GB |")
print("\n| keys and values as | 1000 positions | 8000 | 32,000 |\n| --- | --- | --- | --- |")
for name, size in ("FP8", 1), ("BF16", 2), ("F32", 4):
    print(f"| {name} | {cache(size) * 1e3 / 1e9:.2f} GB | {cache(size) * 8e3 / 1e9:.2f} GB | {cache(size) * 32e3 / 1e9:.2f} GB |")
for kind in BITS:
    print(f"\n{kind}:\n\n| card | memory | left beside {read(kind) / 1e9:.1f} GB | at most, empty cache | at 85 % | at 85 %, "
          "8000 positions in BF16 |\n| --- | --- | --- | --- | --- | --- |")
    for name, (memory, bandwidth) in MACHINES.items():
        left = memory - read(kind)
        fits = left > 0
        ceiling = bandwidth / read(kind)
        filled = bandwidth * 0.85 / (read(kind) + cache(2) * 8000)
        print(f"| {name} | {memory / 1e9:.0f} GB, {bandwidth / 1e9:,.0f} GB/s | " +
              (f"{left / 1e9:.1f} GB | {ceiling:.2f} tokens/s | {0.85 * ceiling:.2f} | {filled:.2f} |" if fits
               else f"does not fit ({-left / 1e9:.1f} GB too little) | | | |"))

tokens = WINDOWS * WINDOW
scored = WINDOW - 1 + (WINDOWS - 1) * STRIDE
layers = 2 * (ATTENTION + MLPS) * tokens
head = 2 * HEAD * scored
# queries by keys and shares by values, half of the square
scores = WINDOWS * LAYERS * 2 * 2 * HEADS * HEAD_DIM * WINDOW * WINDOW / 2
work = layers + head + scores
print(f"\npass: {tokens} tokens, {scored} scored; {layers / 1e15:.3f} PFLOP of layers, {head / 1e15:.3f} of the head, "
      f"{scores / 1e15:.3f} of attention: {work / 1e15:.2f} PFLOP")
print("\n| what bounds it | MXFP4 + FP8 | FP8 source |\n| --- | --- | --- |")
rows = [(f"disk at {rate} GB/s", [FOLDER[k] / (rate * 1e9) for k in BITS]) for rate in (2.5, 5, 10)]
rows += [("copy to the device, one read and one write of each byte at 273 GB/s", [2 * FOLDER[k] / GB10_BANDWIDTH for k in BITS])]
unpacked = 2 * (ATTENTION + MLPS + HEAD)
rows += [("unpacking to BF16: codes read, values written, values read at 273 GB/s",
          [(read(k) + 2 * unpacked) / GB10_BANDWIDTH for k in BITS])]
rows += [("arithmetic, BF16 at 125 TFLOP/s", [work / GB10_BF16] * 2),
         ("arithmetic, BF16 at half of that", [2 * work / GB10_BF16] * 2),
         ("arithmetic, FP8 layers at 250 TFLOP/s, the rest BF16", [layers / GB10_FP8 + (head + scores) / GB10_BF16] * 2)]
for name, seconds in rows:
    print(f"| {name} | " + " | ".join(f"{s:.1f} s" for s in seconds) + " |")
for k in BITS:
    print(f"{k}: between {max(FOLDER[k] / 10e9, work / GB10_BF16):.0f} s (10 GB/s, full rate, all at a time) and "
          f"{FOLDER[k] / 5e9 + 2 * FOLDER[k] / GB10_BANDWIDTH + (read(k) + 2 * unpacked) / GB10_BANDWIDTH + 2 * work / GB10_BF16:.0f} s "
          "(5 GB/s, half rate, one after another)")
