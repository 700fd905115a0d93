#!/usr/bin/env python3
"""What a few measured points of a deployment are worth: the error on its other points before and after `drydock calibrate`.

usage: few_points.py --drydock build/cpu/bin/drydock --points train.csv [--take 3]

A deployment is a (model, system, backend, version, precision) with at least 6 rows (spec_doubt = 0, aggregated); the points taken are evenly
spaced in the order of isl, osl, concurrency, first and last included. Prints MAPE / median of TTFT and TPOT over the rows that were not taken.
"""
import argparse, collections, csv, os, statistics, subprocess, tempfile


def write(path, rows):
    with open(path, "w", newline="") as f:
        writer = csv.DictWriter(f, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def predicted(drydock, dir, rows, extra):
    points, out = os.path.join(dir, "rest.csv"), os.path.join(dir, "out.csv")
    write(points, rows)
    subprocess.run([drydock, "estimate", "--points", points, "--out", out, *extra], check=True, stdout=subprocess.DEVNULL)
    return list(csv.DictReader(open(out, newline="")))


def errors(rows, figure):
    return [abs(float(r[f"predicted_{figure}_ms"]) / float(r[f"{figure}_ms"]) - 1) * 100 for r in rows if r[f"predicted_{figure}_ms"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drydock", required=True)
    parser.add_argument("--points", required=True)
    parser.add_argument("--take", type=int, default=3)
    args = parser.parse_args()
    groups = collections.defaultdict(list)
    for r in csv.DictReader(open(args.points, newline="")):
        if r["spec_doubt"] == "0" and r["mode"] == "agg":
            groups[tuple(r[c] for c in ("model", "system", "backend", "backend_version", "precision"))].append(r)
    before, after = [], []
    with tempfile.TemporaryDirectory() as dir:
        for rows in groups.values():
            if len(rows) < 6:
                continue
            rows.sort(key=lambda r: (int(r["isl"]), int(r["osl"]), int(r["concurrency"]), int(r["tp_size"])))
            taken = {round(i * (len(rows) - 1) / (args.take - 1)) for i in range(args.take)}
            write(os.path.join(dir, "taken.csv"), [rows[i] for i in sorted(taken)])
            rest = [r for i, r in enumerate(rows) if i not in taken]
            calibration = os.path.join(dir, "c.json")
            subprocess.run([args.drydock, "calibrate", "--leave-out", "none", "--points", os.path.join(dir, "taken.csv"), "--out", calibration],
                           check=True, stdout=subprocess.DEVNULL)
            before += predicted(args.drydock, dir, rest, [])
            after += predicted(args.drydock, dir, rest, ["--calibration", calibration])
    print(f"| {len(before)} rows not taken | TTFT MAPE / median | TPOT MAPE / median |\n|---|---|---|")
    for name, rows in (("shipped figures", before), (f"after {args.take} points of the deployment", after)):
        cells = [f"{statistics.mean(e):.1f} / {statistics.median(e):.1f}" for e in (errors(rows, "ttft"), errors(rows, "tpot"))]
        print(f"| {name} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
