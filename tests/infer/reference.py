"""A forward pass in float64 with NumPy, written down plainly: what the engine is compared with.

Reads a checkpoint folder by itself: header, numbers, scales, config. Shares nothing with the engine but the formulas.
"""
import json
import math
import struct
from pathlib import Path

import numpy as np


def bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def round_bf16(values):
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return bf16((bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16)).astype(np.float64)


def e4m3(codes):
    sign, exponent, fraction = codes >> 7, (codes >> 3 & 15).astype(int), (codes & 7).astype(float)
    value = np.where(exponent == 0, fraction / 8 * 2.0**-6, (1 + fraction / 8) * 2.0 ** (exponent - 7))
    return np.where(codes & 127 == 127, np.nan, np.where(sign, -value, value))


E4M3_VALUES = np.sort(e4m3(np.arange(127, dtype=np.uint8)))


def to_e4m3(values):
    """To the nearest value of e4m3, ties to even, at most 448."""
    magnitude = np.minimum(np.abs(values), 448.0)
    exponent = np.floor(np.log2(np.maximum(magnitude, 2.0**-6)))
    step = 2.0 ** (exponent - 3)
    return np.copysign(np.rint(magnitude / step) * step, values)


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


class Checkpoint:
    def __init__(self, folder):
        self.config = json.loads((Path(folder) / "config.json").read_text())
        self.tensors = {}
        for path in sorted(Path(folder).glob("*.safetensors")):
            data = path.read_bytes()
            length = struct.unpack("<Q", data[:8])[0]
            for name, entry in json.loads(data[8 : 8 + length]).items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    self.tensors[name] = (entry["dtype"], entry["shape"], data[8 + length + begin : 8 + length + end])

    def codes(self, name):
        """dtype and the numbers as they are stored."""
        dtype, shape, data = self.tensors[name]
        kind = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "F8_E4M3": np.uint8, "U8": np.uint8}[dtype]
        return dtype, np.frombuffer(data, kind).reshape(shape)

    def floats(self, name):
        dtype, codes = self.codes(name)
        return (bf16(codes) if dtype == "BF16" else codes).astype(np.float64)

    def first(self, *names):
        return next((name for name in names if name in self.tensors), None)

    def weight(self, module):
        """[rows, columns] of a module in whatever format it is stored."""
        if module + ".weight_packed" in self.tensors:
            packed = self.codes(module + ".weight_packed")[1]
            values = E2M1[np.stack([packed & 15, packed >> 4], axis=-1)].reshape(len(packed), -1)
        else:
            dtype, codes = self.codes(module + ".weight")
            if dtype != "F8_E4M3":
                return self.floats(module + ".weight")
            values = e4m3(codes)
        scale_name = self.first(module + ".weight_scale", module + ".weight_scale_inv")
        dtype, scale = self.codes(scale_name)
        if dtype == "U8":
            return values * np.repeat(2.0 ** (scale.astype(float) - 127), 32, axis=1)
        scale = self.floats(scale_name)
        if scale.size == 1:
            return values * scale.reshape(())
        if scale.shape[1] == 1 and scale.shape[0] == len(values):
            return values * scale
        return values * np.kron(scale, np.ones((128, 128)))[: values.shape[0], : values.shape[1]]

    def static_scale(self, module):
        name = self.first(module + ".activation_scale", module + ".input_scale")
        return float(self.floats(name).reshape(())) if name else None


def round_activations(x, mode, static):
    """x [tokens, columns] as served: mode float, static (where there is a scale), token, group (of 128) or mx (of 32, powers of two)."""
    if mode == "float" or (mode == "static" and static is None):
        return x
    if mode == "mx":
        parts = x.reshape(len(x), -1, 32)
        fraction, exponent = np.frexp(np.float32(np.abs(parts).max(axis=-1, keepdims=True)))
        scale = 2.0 ** (exponent - 1 + (fraction >= 0.875) - 8)
        return (to_e4m3(parts / scale) * scale).reshape(x.shape)
    if mode == "static":
        scale = np.float64(static)
    else:
        parts = x if mode == "token" else x.reshape(len(x), -1, 128)
        scale = np.abs(parts).max(axis=-1, keepdims=True) / 448
        scale = np.float32(scale).astype(np.float64)
        if mode == "group":
            return (to_e4m3(np.divide(parts, scale, where=scale > 0, out=np.zeros_like(parts))) * scale).reshape(x.shape)
    return to_e4m3(np.divide(x, scale, where=scale > 0, out=np.zeros_like(x))) * scale


def rope_values(config):
    """As transformers finds them."""
    rope = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    if not rope and config.get("rope_parameters") is None and config["model_type"] == "ministral3":
        rope = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384,
                "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}
    if rope.get("rope_type", rope.get("type")) in ("yarn", "llama3") and "original_max_position_embeddings" in config:
        rope["original_max_position_embeddings"] = config["original_max_position_embeddings"]
    return rope


def rope_frequencies(config, head_dim):
    """Radians per position of each pair, and the factor of cosine and sine."""
    rope = rope_values(config)
    theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    plain = theta ** -(np.arange(0, head_dim, 2) / head_dim)
    factor = rope.get("factor", 1.0)
    context = rope.get("original_max_position_embeddings", config.get("max_position_embeddings"))
    factor = config["max_position_embeddings"] / context if factor is None else factor
    if kind == "linear":
        return plain / factor, 1.0
    if kind == "llama3":
        low, high = context / rope["low_freq_factor"], context / rope["high_freq_factor"]
        result = []
        for frequency in plain:
            length = 2 * math.pi / frequency
            if length < high:
                result.append(frequency)
            elif length > low:
                result.append(frequency / factor)
            else:
                smooth = (context / length - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
                result.append((1 - smooth) * frequency / factor + smooth * frequency)
        return np.array(result), 1.0
    if kind == "yarn":
        def dimension(turns):
            return head_dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))
        low, high = dimension(rope.get("beta_fast") or 32), dimension(rope.get("beta_slow") or 1)
        if rope.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_dim - 1)
        ramp = np.clip((np.arange(head_dim // 2) - low) / (high - low if high != low else 0.001), 0, 1)

        def mscale(weight):
            return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1
        if rope.get("attention_factor") is not None:
            scale = rope["attention_factor"]
        elif rope.get("mscale") and rope.get("mscale_all_dim"):
            scale = mscale(rope["mscale"]) / mscale(rope["mscale_all_dim"])
        else:
            scale = mscale(1)
        return ramp * plain / factor + (1 - ramp) * plain, scale
    return plain, 1.0


def forward(checkpoint, ids, activations="float", rope_bf16=False):
    """Logits [tokens, vocabulary], and the hidden states behind the embedding and each layer."""
    config = checkpoint.config.get("text_config", checkpoint.config)
    inside = "text_config" in checkpoint.config
    prefix = "model.language_model." if inside else "model."
    heads, kv_heads = config["num_attention_heads"], config.get("num_key_value_heads", config["num_attention_heads"])
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    epsilon, tokens = config["rms_norm_eps"], len(ids)
    rope = rope_values(config)

    def norm(x, name):
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * checkpoint.floats(name + ".weight")

    def linear(x, module):
        x = round_activations(x, activations, checkpoint.static_scale(module))
        y = x @ checkpoint.weight(module).T
        biased = config["model_type"] == "llama" and config.get("mlp_bias" if ".mlp." in module else "attention_bias")
        return y + checkpoint.floats(module + ".bias") if biased and module + ".bias" in checkpoint.tensors else y

    frequencies, factor = rope_frequencies(config, head_dim)
    if rope_bf16:
        frequencies = round_bf16(frequencies)
    # positions times frequencies are float32 numbers in every implementation: this much is part of the model
    angles = (np.arange(tokens, dtype=np.float32)[:, None] * frequencies.astype(np.float32)).astype(np.float64)
    cosine, sine = np.cos(angles) * factor, np.sin(angles) * factor

    def rotate(x):  # [heads, tokens, head_dim]
        a, b = x[..., : head_dim // 2], x[..., head_dim // 2 :]
        return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)

    x = checkpoint.floats(prefix + "embed_tokens.weight")[ids]
    states = [x]
    mask = np.triu(np.full((tokens, tokens), -np.inf), 1)
    for layer in range(config["num_hidden_layers"]):
        name = "%slayers.%d." % (prefix, layer)
        y = norm(x, name + "input_layernorm")
        q, k, v = (linear(y, name + "self_attn.%s_proj" % part).reshape(tokens, -1, head_dim).swapaxes(0, 1)
                   for part in "qkv")
        q, k = rotate(q), rotate(k)
        if config["model_type"] == "ministral3" and rope.get("llama_4_scaling_beta"):
            q = q * (1 + rope["llama_4_scaling_beta"] * np.log(
                1 + np.floor(np.arange(tokens) / rope["original_max_position_embeddings"])))[:, None]
        k, v = (np.repeat(part, heads // kv_heads, axis=0) for part in (k, v))
        scores = q @ k.swapaxes(1, 2) / math.sqrt(head_dim) + mask
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        x = x + linear((shares @ v).swapaxes(0, 1).reshape(tokens, -1), name + "self_attn.o_proj")
        y = norm(x, name + "post_attention_layernorm")
        gate, up = linear(y, name + "mlp.gate_proj"), linear(y, name + "mlp.up_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * up, name + "mlp.down_proj")
        states.append(x)
    y = norm(x, prefix + "norm")
    head = checkpoint.first("lm_head.weight", "language_model.lm_head.weight")
    if head and checkpoint.tensors[head][0] == "F8_E4M3":
        return linear(y, head[: -len(".weight")]), states
    return y @ checkpoint.floats(head or prefix + "embed_tokens.weight").T, states


def log_shares(logits):
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def perplexity(checkpoint, ids, window, stride, activations="float", rope_bf16=False, baseline=None):
    """The scored tokens in order: dict of nll; with a baseline also kl, agrees, and per layer error and cosine."""
    begin = scored_to = 0
    result = {"position": [], "nll": [], "kl": [], "agrees": [], "baseline_nll": []}
    distances = []
    while scored_to < len(ids):
        end = min(begin + window, len(ids))
        part = ids[begin:end]
        first = max(scored_to, begin + 1)
        logits, states = forward(checkpoint, part, activations, rope_bf16)
        model = log_shares(logits[first - begin - 1 : end - begin - 1])
        rows = np.arange(end - first)
        result["position"] += list(range(first, end))
        result["nll"] += list(-model[rows, part[first - begin :]])
        if baseline is not None:
            logits, other_states = forward(baseline, part)
            other = log_shares(logits[first - begin - 1 : end - begin - 1])
            result["baseline_nll"] += list(-other[rows, part[first - begin :]])
            result["kl"] += list((np.exp(other) * (other - model)).sum(axis=-1))
            result["agrees"] += list(model.argmax(axis=-1) == other.argmax(axis=-1))
            distances.append([(np.linalg.norm(a - b, axis=-1) / np.linalg.norm(b, axis=-1),
                               (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))
                              for a, b in zip(states, other_states)])
        scored_to = end
        begin += stride
    result = {key: np.array(value) for key, value in result.items()}
    if distances:
        result["layers"] = [(np.concatenate([window[layer][0] for window in distances]).mean(),
                             np.concatenate([window[layer][1] for window in distances]).mean())
                            for layer in range(len(distances[0]))]
    return result
