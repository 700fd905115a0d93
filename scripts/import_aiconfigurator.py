#!/usr/bin/env python3
"""Turns the kernel tables of the Python package `aiconfigurator-core` into CSV for `drydock db import`.

    import_aiconfigurator.py --systems-json models/data/systems --out DIR [--package DIR] [--system S]...

Needs pyarrow and pandas. One file per system and backend is written, DIR/<system>.<backend>.csv. Only the tables under
systems/data are opened. Of each table the newest version that has at least half the rows of the largest is taken.
Rows faster than the roofline are wrong and dropped; so are MoE rows more than half again slower than a row of the same
model that has more to do (a fallback kernel), and GEMM tables that timed the host. Counts go to stderr.
"""
import argparse
import functools
import glob
import json
import os
import re
import sys

import numpy as np
import pandas as pd

HEADER = "system,backend,version,gpu,driver,clocks,kernel,date,source,op,latency_us,spread_us,samples"
BACKENDS = ("trtllm", "vllm", "sglang", "nccl")
SKIPPED_SYSTEMS = {"b60"}  # not an NVIDIA GPU
DTYPES = {"bfloat16": "bf16", "half": "bf16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4",
          "int4_wo": "int4", "sq": "int8"}
# Bytes per element of weights and of activations, scales included: core/dtype.cpp.
WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1 + 4 / 16384, "int8": 1.0, "int4": 0.5625, "nvfp4": 0.5625,
                "mxfp4": 0.53125}
ACTIVATION_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1 + 4 / 128, "int8": 1.0, "int4": 2.0, "nvfp4": 0.5625,
                    "mxfp4": 1.0}
# The expert load that the tables call power_law_1.01 is the mildest skew every table has; real routing is skewed.
DISTRIBUTIONS = ("power_law_1.01", "power_law_1.2", "balanced")
HOST_BOUND_US = 20.0  # a table whose fastest GEMM takes longer timed the launching thread: it is dropped whole
MLA_QK, MLA_V, MLA_LATENT, MLA_ROPE, MLA_NOPE = 192, 128, 512, 64, 128  # DeepSeek-V3


class Machine:
    """Rates of one system, as core::Hardware has them."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            facts = json.load(file)
        self.flops = facts["flops_per_s"]
        self.memory = facts["memory_bytes_per_s"]
        self.blackwell = facts["architecture"] == "blackwell"
        self.nvlink = facts.get("nvlink_bytes_per_s", 0)
        self.domain = facts.get("nvlink_domain", 1)
        self.pcie = facts["pcie_bytes_per_s"]

    def peak(self, dtype):
        order = {"nvfp4": ("nvfp4", "fp8", "bf16"), "fp8": ("fp8", "bf16"), "fp8_block": ("fp8", "bf16"),
                 "int8": ("int8", "bf16"), "mxfp4": ("fp8", "bf16") if "mxfp4" in self.flops else ("bf16",)}
        return next(self.flops[d] for d in order.get(dtype, ("bf16",)) if self.flops.get(d))

    def roofline_us(self, dtype, flops, moved):
        return np.maximum(moved / self.memory, flops / self.peak(dtype)) * 1e6

    def link(self, gpus):
        return np.where((self.nvlink > 0) & (gpus <= self.domain), self.nvlink, self.pcie)


def version_key(version):
    return [(0, int(part)) if part.isdigit() else (-1, 0) if part in ("rc", "dev") else (1, 0)
            for part in re.findall(r"\d+|[a-z]+", version)]


def newest(folder, backend, table):
    """Path and version of the newest version of a table that is not a mere supplement."""
    found = []
    for path in glob.glob(os.path.join(folder, "*", backend, "*", table + ".parquet")):
        version = path.split(os.sep)[-2]
        found.append((version_key(version), version, path, os.path.getsize(path)))
    if not found:
        return None
    largest = max(size for *_, size in found)
    chosen = max(entry for entry in found if entry[3] * 2 >= largest)
    return chosen[2], chosen[1]


def columns(frame, *names):
    return [frame[name].to_numpy(float) for name in names]


def keyed(kind, dtype, kv_dtype, extents):
    """Op keys as core::key writes them."""
    head = f"{kind}/{dtype}" + (f"+{kv_dtype}" if kv_dtype != dtype else "") + "/"
    names = list(extents)
    rows = zip(*(np.asarray(extents[name]).astype(np.int64).tolist() for name in names))
    return [head + ",".join(f"{n}={v}" for n, v in zip(names, row)) for row in rows]


def part(kind, dtype, kv_dtype, extents, latency_us, roofline_us, kernel):
    return pd.DataFrame({"kind": kind, "op": keyed(kind, dtype, kv_dtype, extents), "us": latency_us,
                         "roofline": roofline_us, "kernel": kernel})


def quantization_us(rows, backend, tables):
    """Time of finding the scale of the activations and applying it, which the fp8 rows of two engines include: with
    static scales, as published checkpoints have them, both go into the kernel before. SGLang's rows include neither."""
    if backend == "sglang":
        return 0.0
    total = 0.0
    for name in ("computescale_perf", "scale_matrix_perf"):
        found = tables(name)
        if found is not None:
            table = found[found.quant_dtype == "fp8"].groupby(["m", "k"]).latency.min()
            total = total + table.reindex(pd.MultiIndex.from_frame(rows[["m", "k"]])).fillna(0).to_numpy() * 1e3
    return total


def gemm(frame, machine, backend, tables):
    for quant, rows in frame.groupby("gemm_dtype"):
        dtype = DTYPES.get(quant)
        if dtype is None:
            continue
        m, n, k = columns(rows, "m", "n", "k")
        moved = m * k * ACTIVATION_BYTES[dtype] + n * k * WEIGHT_BYTES[dtype] + m * n * 2
        roofline = machine.roofline_us(dtype, 2 * m * n * k, moved)
        us = rows.latency.to_numpy() * 1e3
        if dtype == "fp8":  # what is left must still be a kernel: the subtrahend was measured apart and is noisy
            us = np.maximum(us - quantization_us(rows, backend, tables), np.maximum(np.minimum(us, 1.2 * roofline), us / 4))
        table = part("gemm", dtype, dtype, {"m": m, "n": n, "k": k}, us, roofline, rows.kernel_source)
        table["fallback"] = us.min() > HOST_BOUND_US
        yield table


def attention_groups(frame):
    if "window_size" not in frame:  # the oldest tables know full attention only
        frame = frame.assign(window_size=0)
    for (arithmetic, cache), rows in frame.groupby(["attn_dtype", "kv_cache_dtype"]):
        yield DTYPES[arithmetic], DTYPES[cache], rows


def prefill_attention(frame, machine):
    for dtype, kv, rows in attention_groups(frame[frame.step == 0]):
        b, s, h, g, d, w = columns(rows, "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim",
                                   "window_size")
        ramp = np.where(w > 0, np.minimum(w, s), s)
        pairs = ramp * (ramp + 1) / 2 + (s - ramp) * w
        moved = b * (4 * s * h * d + 2 * s * g * d * WEIGHT_BYTES[kv])
        extents = {"batch": b, "new_tokens": s, "cached_tokens": 0 * s, "heads": h, "kv_heads": g, "head_dim": d,
                   "window": w}
        yield part("prefill_attention", dtype, kv, extents, rows.latency * 1e3,
                   machine.roofline_us(dtype, 4 * b * pairs * h * d, moved), rows.kernel_source)


def decode_attention(frame, machine):
    for dtype, kv, rows in attention_groups(frame):
        b, s, t, h, g, d, w = columns(rows, "batch_size", "isl", "step", "num_heads", "num_key_value_heads",
                                      "head_dim", "window_size")
        context = s + t
        seen = np.where(w > 0, np.minimum(w, context), context)
        moved = b * (4 * h * d + 2 * seen * g * d * WEIGHT_BYTES[kv])
        extents = {"batch": b, "context": context, "heads": h, "kv_heads": g, "head_dim": d, "window": w}
        yield part("decode_attention", dtype, kv, extents, rows.latency * 1e3,
                   machine.roofline_us(dtype, 4 * b * seen * h * d, moved), rows.kernel_source)


def mla_prefill(frame, machine):
    for (arithmetic, cache), rows in frame[frame.step == 0].groupby(["mla_dtype", "kv_cache_dtype"]):
        b, s, h = columns(rows, "batch_size", "isl", "num_heads")
        flops = 2 * b * s * (s + 1) / 2 * h * (MLA_QK + MLA_V)
        extents = {"batch": b, "new_tokens": s, "cached_tokens": 0 * s, "heads": h, "qk_dim": 0 * s + MLA_QK,
                   "v_dim": 0 * s + MLA_V}
        yield part("mla_prefill", DTYPES[arithmetic], DTYPES[cache], extents, rows.latency * 1e3,
                   machine.roofline_us("bf16", flops, b * h * s * 4 * (MLA_QK + MLA_V)), rows.kernel_source)


def mla_decode(frame, machine):
    for (arithmetic, cache), rows in frame.groupby(["mla_dtype", "kv_cache_dtype"]):
        b, s, t, h = columns(rows, "batch_size", "isl", "step", "num_heads")
        context = s + t
        moved = b * (h * (2 * MLA_LATENT + MLA_ROPE) * 2 + context * (MLA_LATENT + MLA_ROPE) * WEIGHT_BYTES[DTYPES[cache]])
        extents = {"batch": b, "context": context, "heads": h, "latent": 0 * s + MLA_LATENT, "rope_dim": 0 * s + MLA_ROPE}
        yield part("mla_decode", DTYPES[arithmetic], DTYPES[cache], extents, rows.latency * 1e3,
                   machine.roofline_us("bf16", 2 * b * context * h * (2 * MLA_LATENT + MLA_ROPE), moved),
                   rows.kernel_source)


def batched_gemm(frame, machine):
    for (quant, stage), rows in frame.groupby(["bmm_dtype", "op_name"]):
        dtype = DTYPES[quant]
        n, k = (MLA_LATENT, MLA_NOPE) if stage.endswith("pre") else (MLA_V, MLA_LATENT)
        m, h = columns(rows, "num_tokens", "num_heads")
        moved = h * (m * k * ACTIVATION_BYTES[dtype] + n * k * WEIGHT_BYTES[dtype] + m * n * 2)
        yield part("batched_gemm", dtype, dtype, {"m": m, "n": 0 * m + n, "k": 0 * m + k, "heads": h},
                   rows.latency * 1e3, machine.roofline_us(dtype, 2 * m * n * k * h, moved), rows.kernel_source)


def moe_dtype(quant, machine):
    """MXFP4 experts run with fp8 activations where the tensor cores take them, if a kernel does, else with bf16 ones."""
    if quant == "w4a8_mxfp4_mxfp8":
        return "mxfp4" if machine.blackwell else None
    return "mxfp4" if quant == "w4a16_mxfp4" else DTYPES.get(quant)


def fallback_kernels(rows):
    """Marks rows slower than 1.5 x a row with as many or more tokens, as few or fewer ranks and as wide or wider experts."""
    slow = np.zeros(len(rows), bool)
    keys = ["hidden_size", "topk", "num_experts"]
    for _, index in rows.reset_index(drop=True).groupby(keys).indices.items():
        group = rows.iloc[index]
        inter = group.inter_size // group.moe_tp_size
        axes = [np.unique(v, return_inverse=True) for v in (group.num_tokens, -group.moe_ep_size, inter)]
        best = np.full([len(values) for values, _ in axes], np.inf)
        place = tuple(inverse for _, inverse in axes)
        np.minimum.at(best, place, group.latency.to_numpy())
        for axis in range(3):
            best = np.flip(np.minimum.accumulate(np.flip(best, axis), axis), axis)
        slow[index] = group.latency.to_numpy() > 1.5 * best[place]
    return slow


def moe(frame, machine):
    frame = frame[~frame.kernel_source.str.contains("nongated")]  # up and down only: not core::OpKind::moe
    for quant, rows in frame.groupby("moe_dtype"):
        dtype = moe_dtype(quant, machine)
        if dtype is None:
            continue
        loads = set(rows.distribution.unique())
        rows = rows[rows.distribution == next(d for d in DISTRIBUTIONS if d in loads)]
        rows = rows[rows.inter_size % rows.moe_tp_size == 0]
        t, h, full, k, e, tp, ep = columns(rows, "num_tokens", "hidden_size", "inter_size", "topk", "num_experts",
                                           "moe_tp_size", "moe_ep_size")
        inter = full / tp
        touched = e / ep * -np.expm1(t * np.log1p(-np.minimum(k / e, 1 - 1e-12)))
        moved = touched * 3 * h * inter * WEIGHT_BYTES[dtype] + t * k / ep * (h * (ACTIVATION_BYTES[dtype] + 2) + 4 * inter)
        extents = {"tokens": t, "hidden": h, "inter": inter, "experts": e, "top_k": k, "ep": ep}
        table = part("moe", dtype, dtype, extents, rows.latency * 1e3,
                     machine.roofline_us(dtype, 6 * t * k / ep * h * inter, moved), rows.kernel_source)
        table["fallback"] = fallback_kernels(rows)
        yield table


def gated_delta(frame, machine):
    rows = frame[~frame.kernel_source.str.contains("conv1d")]  # the convolution is an op of its own
    b, s, k, v, dk, dv = columns(rows, "batch_size", "seq_len", "num_k_heads", "num_v_heads", "head_k_dim", "head_v_dim")
    moved = b * (8 * v * dk * dv + s * 2 * (2 * k * dk + 2 * v * dv))
    extents = {"batch": b, "new_tokens": s, "k_heads": k, "v_heads": v, "k_dim": dk, "v_dim": dv}
    yield part("gated_delta", "bf16", "bf16", extents, rows.latency * 1e3, moved / machine.memory * 1e6,
               rows.kernel_source)


def collective(kind, rows, machine):
    size, gpus = columns(rows, "message_size", "num_gpus")
    moved = size * 2 * (gpus - 1) / gpus * (2 if kind == "all_reduce" else 1)
    return part(kind, "bf16", "bf16", {"bytes": size * 2, "gpus": gpus}, rows.latency * 1e3,
                moved / machine.link(gpus) * 1e6, rows.kernel_source)


def nccl(frame, machine):
    frame = frame[frame.nccl_dtype == "half"]
    for name, rows in frame.groupby("op_name"):
        yield collective({"alltoall": "all_to_all"}.get(name, name), rows, machine)


def custom_allreduce(frame, machine):
    yield collective("all_reduce", frame[~frame.kernel_source.str.contains("eager")], machine)


def exchange(kind, dtype, rows, latency_us, kernel, machine, low_latency=False):
    t, h, k, e, ep = columns(rows, "tokens", "hidden_size", "topk", "num_experts", "ep")
    remote = (ep - 1) * -np.expm1(k * np.log1p(-1 / ep))
    moved = t * h * remote * (WEIGHT_BYTES[dtype] if kind == "moe_dispatch" else 2)
    roofline = np.where(ep <= max(machine.domain, 1), moved / machine.link(ep) * 1e6, 0)
    table = part(kind, dtype, dtype, {"tokens": t, "hidden": h, "top_k": k, "experts": e, "ep": ep}, latency_us,
                 roofline, kernel)
    table["low"] = np.broadcast_to(low_latency, len(table))
    return table


def deepep(frame, machine, low_latency):
    rows = frame.rename(columns={"num_token": "tokens", "num_topk": "topk"})
    rows["ep"] = rows.node_num * 8
    for kind, stage, dtype in (("moe_dispatch", "dispatch", "fp8"), ("moe_combine", "combine", "bf16")):
        us = rows[f"{stage}_avg_t_us"] if low_latency else rows[f"{stage}_transmit_us"] + rows[f"{stage}_notify_us"]
        yield exchange(kind, dtype, rows, us, rows.kernel_source, machine, low_latency)


def moe_a2a(frame, machine):
    frame = frame.rename(columns={"num_tokens": "tokens", "ep_size": "ep"})
    for (phase, quant), rows in frame.groupby(["phase", "comm_dtype"]):
        dtype = DTYPES.get(quant, "bf16")
        if phase == "dispatch" or dtype == "bf16":
            yield exchange(f"moe_{phase}", dtype, rows, rows.transmit_us + rows.notify_us, rows.comm_backend, machine,
                           rows.comm_backend.str.endswith("_ll"))


def trtllm_alltoall(frame, machine):
    frame = frame.rename(columns={"num_tokens": "tokens", "moe_ep_size": "ep"})
    keys = ["kernel_source", "moe_dtype", "tokens", "hidden_size", "topk", "num_experts", "ep"]
    wide = frame.pivot_table(index=keys, columns="op_name", values="latency", aggfunc="min").reset_index()
    for quant, rows in wide.groupby("moe_dtype"):
        dtype = DTYPES[quant]
        out = (rows.alltoall_dispatch + rows.alltoall_prepare.fillna(0)) * 1e3
        yield exchange("moe_dispatch", dtype, rows, out, rows.kernel_source, machine)
        if dtype == "bf16":
            yield exchange("moe_combine", dtype, rows, rows.alltoall_combine * 1e3, rows.kernel_source, machine)


TABLES = {
    "gemm_perf": gemm,
    "context_attention_perf": prefill_attention,
    "generation_attention_perf": decode_attention,
    "context_mla_perf": mla_prefill,
    "generation_mla_perf": mla_decode,
    "mla_bmm_perf": batched_gemm,
    "moe_perf": moe,
    "gdn_perf": gated_delta,
    "nccl_perf": nccl,
    "custom_allreduce_perf": custom_allreduce,
    "wideep_deepep_ll_perf": lambda frame, machine: deepep(frame, machine, True),
    "wideep_deepep_normal_perf": lambda frame, machine: deepep(frame, machine, False),
    "moe_a2a_perf": moe_a2a,
    "trtllm_alltoall_perf": trtllm_alltoall,
}


def between_low_latency(rows):
    """Marks slow rows of the high-throughput exchange at token counts that the low-latency one, whose grid is coarser,
    covers: an engine would not use them there, and the mixture would zigzag."""
    exchange_rows = rows[rows.kind.str.startswith("moe_") & (rows.kind != "moe")]
    if exchange_rows.empty:
        return pd.Series(False, index=rows.index)
    keys = exchange_rows.op.str.extract(r"^(?P<head>[^=]*)=(?P<tokens>\d+),(?P<tail>.*)$").assign(low=exchange_rows.low)
    keys["tokens"] = keys.tokens.astype(int)
    most = keys[keys.low].groupby(["head", "tail"]).tokens.max().rename("most")
    keys = keys.join(most, on=["head", "tail"])
    return (~keys.low & (keys.tokens <= keys.most)).reindex(rows.index, fill_value=False)


def convert(folder, system, backend, machine, out, source, totals):
    """Writes DIR/<system>.<backend>.csv; the fastest row wins where several kernels ran one op."""
    def read(name):
        located = newest(folder, backend, name)
        return None if located is None else pd.read_parquet(located[0])

    parts = []
    for table, reader in TABLES.items():
        found = newest(folder, backend, table)
        if found is None:
            continue
        path, version = found
        frame = pd.read_parquet(path)
        if table == "gemm_perf":
            reader = functools.partial(gemm, backend=backend, tables=read)
        gpu = str(frame.device.iloc[0]) if len(frame) else ""
        for rows in reader(frame, machine):
            rows = rows.dropna(subset=["us"])
            parts.append(rows.assign(version=version, gpu=gpu))
    if not parts:
        return
    rows = pd.concat(parts, ignore_index=True)
    for mark in ("fallback", "low"):
        rows[mark] = rows[mark].eq(True) if mark in rows else False
    rows = rows[~between_low_latency(rows)]
    beats = ~(rows.us > rows.roofline)
    for kind, group in rows.assign(beats=beats).groupby("kind"):
        slow = int((group.fallback & ~group.beats).sum())
        print(f"{system} {backend} {kind}: {len(group)} rows, {int(group.beats.sum())} beat the roofline, "
              f"{slow} fallback kernels or host-bound", file=sys.stderr)
        total = totals.setdefault(kind, [0, 0, 0])
        total[0] += len(group)
        total[1] += int(group.beats.sum())
        total[2] += slow
    rows = rows[~beats & ~rows.fallback].sort_values(["op", "us"]).drop_duplicates("op")
    kernel = rows.kernel.astype(str).str.replace(r"[^\w .+-]", "_", regex=True)
    with open(os.path.join(out, f"{system}.{backend}.csv"), "w", encoding="utf-8") as file:
        file.write(HEADER + "\n")
        for version, gpu, kernel_name, op, us in zip(rows.version, rows.gpu, kernel, rows.op, rows.us):
            file.write(f'{system},{backend},{version},{gpu},,,{kernel_name},,{source},"{op}",{us:.6g},0,0\n')


def package_dir():
    import aiconfigurator_core
    return os.path.dirname(aiconfigurator_core.__file__)


def package_version(package):
    for path in glob.glob(os.path.join(os.path.dirname(package), "aiconfigurator_core-*.dist-info")):
        return os.path.basename(path)[len("aiconfigurator_core-"):-len(".dist-info")]
    return "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", help="folder of the installed package; found by import otherwise")
    parser.add_argument("--systems-json", required=True, help="folder with our system files, models/data/systems")
    parser.add_argument("--out", required=True)
    parser.add_argument("--system", action="append", help="only this one; may be repeated")
    args = parser.parse_args()
    package = args.package or package_dir()
    source = "aiconfigurator-core " + package_version(package)
    os.makedirs(args.out, exist_ok=True)
    totals = {}
    for folder in sorted(glob.glob(os.path.join(package, "systems", "data", "*"))):
        system = os.path.basename(folder)
        facts = os.path.join(args.systems_json, system + ".json")
        if system in SKIPPED_SYSTEMS or not os.path.exists(facts) or (args.system and system not in args.system):
            continue
        for backend in BACKENDS:
            convert(folder, system, backend, Machine(facts), args.out, source, totals)
    for kind, (count, beats, slow) in totals.items():
        print(f"total {kind}: {count} rows, {beats} beat the roofline, {slow} fallback kernels or host-bound", file=sys.stderr)


if __name__ == "__main__":
    main()
