#include "generators/bench_script.h"

namespace drydock::generators {

// Names of fields: vllm/benchmarks/serve.py, sglang/benchmark/serving.py and tensorrt_llm/serve/scripts/
// benchmark_serving.py write mean_ttft_ms, mean_tpot_ms, request_throughput and completed alike; the mean latency is
// mean_e2el_ms of the first and the last and mean_e2e_latency_ms of SGLang, which writes a JSON object a line.
const std::string_view kToCsv =
    R"py("""Turns results of the serving benchmark into a CSV for `drydock validate --points`.

usage: python3 to_csv.py RESULT.json [RESULT.json ...] > measured.csv
"""
import csv
import json
import pathlib
import sys


def results(path):
    """One result, or one a line."""
    text = pathlib.Path(path).read_text(encoding="utf-8")
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def number(result, path, *names):
    for name in names:
        value = result.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    sys.exit(f"{path}: no number in field {' or '.join(names)}; is it a result of the benchmark?")


def row(result, path, deployment):
    out = dict(deployment["columns"])
    if number(result, path, "completed") < 1:
        sys.exit(f"{path}: no request was completed")
    rate = number(result, path, "request_throughput")
    ttft, tpot = number(result, path, "mean_ttft_ms"), number(result, path, "mean_tpot_ms")
    in_flight = deployment["concurrency"]
    if in_flight is None:  # Little's law: what a rate keeps in flight
        in_flight = max(1, round(rate * number(result, path, "mean_e2el_ms", "mean_e2e_latency_ms") / 1000))
    if out["mode"] == "agg":
        out["concurrency"] = in_flight
        if deployment["replicas"] > 1:
            ranks = deployment["replicas"] * int(out["attention_dp_size"])
            out["batch_size"] = max(1, round(in_flight / ranks))
    out.update(ttft_ms=round(ttft, 4), tpot_ms=round(tpot, 4), requests_per_s=round(rate, 6))
    return out


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    deployment = json.loads((pathlib.Path(__file__).parent / "deployment.json").read_text(encoding="utf-8"))
    found = [(result, path) for path in sys.argv[1:] for result in results(path)]
    for result, path in found:
        if not isinstance(result, dict):
            sys.exit(f"{path}: holds no JSON object; want a result of the benchmark")
    rows = [row(result, path, deployment) for result, path in found]
    if not rows:
        sys.exit("no result in " + ", ".join(sys.argv[1:]))
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main()
)py";

}  // namespace drydock::generators
