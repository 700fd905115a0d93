#!/usr/bin/env python3
"""Fit the few physical figures of simulator/data/calibration.json to measured serving points.

usage: calibrate.py --drydock build/cpu/bin/drydock --points train.csv [--out calibration.json] [--leave-out model|system]

Only rows with spec_doubt = 0 and mode = agg are used. Minimises a soft-L1 loss of ln(predicted / measured) of TTFT and TPOT, with a
weak pull towards the starting figures. SHARED figures are one number for all backends, OWN ones are one a backend.
--leave-out fits once per model (or system) without its rows and scores those: the error to expect on what was never
measured. Needs numpy and scipy.
"""
import argparse, copy, csv, json, math, os, subprocess, sys, tempfile

import numpy as np
from scipy.optimize import least_squares

# name: (start, width of the pull towards it in ln); positive figures, fitted in ln. Factors start from the tables as they
# are; overheads from what a well-made engine needs.
SHARED = {"gemm": (1.0, 0.1), "attention": (1.0, 0.2), "moe": (1.0, 0.1), "request_ms_per_concurrent": (0.1, 1.0), "host_us_per_sequence": (1.0, 1.0)}
OWN = {"prompt_us": (1000.0, 1.0), "layer_us": (1.0, 1.0), "host_us": (300.0, 1.0), "request_ms": (10.0, 1.0), "communication": (1.0, 0.2)}
BACKENDS = ("trtllm", "vllm", "sglang")
PULL = 1.0  # cost of a figure that is one width off: half the square of this, beside soft-L1 costs of the rows
SOFT = 0.1   # ln error from which on a row counts by its size, not its square


def names():
    return [(None, n) for n in SHARED] + [(b, n) for b in BACKENDS for n in OWN]


def start():
    return np.array([math.log((SHARED if b is None else OWN)[n][0]) for b, n in names()])


def widths():
    return np.array([(SHARED if b is None else OWN)[n][1] for b, n in names()])


def document(base, x):
    out = copy.deepcopy(base)
    for (backend, name), value in zip(names(), x):
        for b in BACKENDS if backend is None else (backend,):
            out[b][name] = float(f"{math.exp(value):.4g}")
    return out


class Runner:
    """Predictions of `rows` under a calibration, by the program itself."""

    def __init__(self, drydock, rows):
        self.drydock, self.rows, self.dir = drydock, rows, tempfile.mkdtemp()
        self.points = os.path.join(self.dir, "points.csv")
        with open(self.points, "w", newline="") as f:
            writer = csv.DictWriter(f, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)

    def predict(self, calibration):
        path, out = os.path.join(self.dir, "c.json"), os.path.join(self.dir, "p.csv")
        json.dump(calibration, open(path, "w"))
        subprocess.run([self.drydock, "estimate", "--points", self.points, "--calibration", path, "--out", out], check=True, stdout=subprocess.DEVNULL)
        return [(float(r["predicted_ttft_ms"]), float(r["predicted_tpot_ms"]), r) for r in csv.DictReader(open(out, newline=""))]


def log_errors(runner, calibration):
    out = []
    for (ttft, tpot, _), row in zip(runner.predict(calibration), runner.rows):
        out += [math.log(ttft / float(row["ttft_ms"])), math.log(tpot / float(row["tpot_ms"]))]
    return np.array(out)


def fit(drydock, rows, base, label):
    runner = Runner(drydock, rows)
    x0, width = start(), widths()

    # In units of the pull's width, and around 1 so that relative steps are steps. Rows are softened here, not by the
    # solver, which would soften the pull too and let figures stick to their start.
    def residuals(z):
        r = log_errors(runner, document(base, x0 + width * (z - 1))) / SOFT
        soft = SOFT * np.sign(r) * np.sqrt(2 * (np.sqrt(1 + r * r) - 1))
        return np.concatenate([soft, PULL * (z - 1)])

    ones = np.ones(len(x0))
    got = least_squares(residuals, ones, bounds=(ones - 4, ones + 4), diff_step=0.03, max_nfev=14)
    print(f"{label}: {len(rows)} rows, loss {got.cost:.2f}", file=sys.stderr)
    return x0 + width * (got.x - 1)


def score(pairs):
    """Of (predicted, measured) pairs: MAPE and median absolute error, percent."""
    e = [abs(p / t - 1) * 100 for p, t in pairs]
    return f"{np.mean(e):.1f} / {np.median(e):.1f}" if e else "-"


def band(pairs):
    """80 % of |ln(predicted / measured)| is below this: the half-width of a band that holds four in five."""
    return f"{np.quantile([abs(math.log(p / t)) for p, t in pairs], 0.8):.2f}" if pairs else "-"


def report(title, held):
    print(f"| {title} | rows | TTFT MAPE / median | TPOT MAPE / median | 80 % of ln TTFT, TPOT |\n|---|---|---|---|---|")
    for name, preds in list(held.items()) + [("all", [p for v in held.values() for p in v])]:
        ttft, tpot = [(a, float(r["ttft_ms"])) for a, _, r in preds], [(b, float(r["tpot_ms"])) for _, b, r in preds]
        print(f"| {name} | {len(preds)} | {score(ttft)} | {score(tpot)} | {band(ttft)}, {band(tpot)} |")


def family(row, key):
    """Variants of one model are left out together."""
    value = row[key].split("/")[-1]
    for tail in ("-Instruct-FP8", "-Instruct", "-NVFP4", "-FP8"):
        value = value.removesuffix(tail)
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drydock", required=True)
    parser.add_argument("--points", required=True)
    parser.add_argument("--base", default="simulator/data/calibration.json", help="the figures that are not fitted")
    parser.add_argument("--out")
    parser.add_argument("--leave-out", choices=("model", "system"))
    args = parser.parse_args()
    base = json.load(open(args.base))
    rows = [r for r in csv.DictReader(open(args.points, newline="")) if r["spec_doubt"] == "0" and r["mode"] == "agg"]
    if args.leave_out:
        held = {}
        for name in sorted({family(r, args.leave_out) for r in rows}):
            rest, out = [r for r in rows if family(r, args.leave_out) != name], [r for r in rows if family(r, args.leave_out) == name]
            calibration = document(base, fit(args.drydock, rest, base, "without " + name))
            held[name] = Runner(args.drydock, out).predict(calibration)
        report("left out " + args.leave_out, held)
        return
    calibration = document(base, fit(args.drydock, rows, base, "all"))
    report("fitted rows", {"all rows": Runner(args.drydock, rows).predict(calibration)})
    if args.out:
        with open(args.out, "w") as f:
            f.write(json.dumps(calibration, indent=2) + "\n")


if __name__ == "__main__":
    main()
