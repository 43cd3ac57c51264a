#!/usr/bin/env python3
"""Draws a roofline of the benchmarks: what each layer does a second against the FMA peak and the read bandwidth.

Reads what bench_conv, bench_gemm and bench_network write with --benchmark_out. Every file carries the limits that were
measured when it was made; with several files the highest ones are drawn.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES = """\
examples:
  build/release/bench/bench_conv --benchmark_out=conv.json && bench/roofline.py conv.json
  bench/roofline.py conv.json network.json -o roofline.png --filter 'cold|network'

exit status: 0 the plot is written, 2 error
"""


class InputError(Exception):
    pass


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("files", nargs="+", type=pathlib.Path, metavar="FILE", help="JSON of --benchmark_out")
    add("-o", "--output", type=pathlib.Path, default=ROOT / "build/bench/roofline.png", metavar="PNG",
        help="the picture (build/bench/roofline.png)")
    add("--filter", default="", metavar="REGEX", help="only benchmarks whose name matches")
    return parser.parse_args()


def enter_venv() -> None:
    """Goes on in a virtual environment of the project that has matplotlib: .venv, or the peers' one."""
    try:
        import matplotlib  # noqa: F401
        return
    except ImportError:
        pass
    tried = os.environ.get("FACENET_ROOFLINE_TRIED", "").split(":")
    for name in (".venv", ".venv-peers"):
        python = ROOT / name / "bin/python"
        if name not in tried and python.exists():
            environment = os.environ | {"FACENET_ROOFLINE_TRIED": ":".join([*tried, name])}
            os.execve(python, [str(python), *sys.argv], environment)
    raise InputError("matplotlib is not installed: .venv/bin/pip install matplotlib")


def read(path: pathlib.Path) -> tuple[dict, list[dict]]:
    try:
        report = json.loads(path.read_text())
        return report["context"], report["benchmarks"]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a report of Google Benchmark (--benchmark_out=FILE)") from error


def collect(paths: list[pathlib.Path], pattern: str) -> tuple[dict[int, list[float]], dict[str, dict[str, float]]]:
    """Limits by threads, as [flop/s, bytes/s], and each benchmark's median over its repetitions."""
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--filter: {error}") from error
    limits: dict[int, list[float]] = {}
    runs = collections.defaultdict(list)
    for path in paths:
        context, benchmarks = read(path)
        for threads in (1, 2):
            if f"peak_gflops_{threads}" not in context:
                continue
            have = limits.setdefault(threads, [0.0, 0.0])
            have[0] = max(have[0], float(context[f"peak_gflops_{threads}"]) * 1e9)
            have[1] = max(have[1], float(context[f"read_bytes_per_s_{threads}"]))
        for b in benchmarks:
            if b.get("run_type", "iteration") == "iteration" and "gflops_executed" in b and wanted.search(b["run_name"]):
                runs[b["run_name"].removesuffix("/real_time")].append(b)
    if not limits:
        raise InputError("no file has the machine's limits in its context: these are not reports of bench_*")
    if not runs:
        raise InputError("there is nothing to draw: no benchmark with flops matches")
    keys = ("gflops_executed", "flop_per_byte")
    return limits, {name: {k: statistics.median(b[k] for b in all_of_it) for k in keys}
                    for name, all_of_it in runs.items()}


def group(name: str) -> tuple[str, str, str, bool]:
    """Legend, colour, marker and whether the marker is filled."""
    filled = not name.endswith("/warm")
    weights = "" if not name.endswith(("/warm", "/cold")) else ", cold weights" if filled else ", warm weights"
    if name.startswith("network/"):
        return ("network, 1 thread", "tab:red", "*", True) if "/threads:1/" in name else \
            ("network, 2 threads", "tab:purple", "*", True)
    if name.startswith("tile/"):
        return "register tile in cache", "tab:grey", ".", True
    if name.startswith("gemm/"):
        return "merged 1x1" + weights, "tab:green", "s", filled
    if "/F4" in name:
        return "Winograd" + weights, "tab:orange", "^", filled
    return "direct" + weights, "tab:blue", "o", filled


def draw(limits: dict[int, list[float]], points: dict[str, dict[str, float]], output: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(11, 7))
    x_values = [p["flop_per_byte"] for p in points.values()]
    low, high = min(x_values) / 2, max(x_values) * 2
    for threads, (peak, bandwidth) in sorted(limits.items()):
        ridge = peak / bandwidth
        xs = sorted({low, min(max(ridge, low), high), high})
        axes.plot(xs, [min(peak, x * bandwidth) / 1e9 for x in xs], color="black",
                  linestyle="-" if threads == 1 else "--", linewidth=1,
                  label=f"{threads} thread{'s' if threads > 1 else ''}: {peak / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.0f} GB/s")
    series = collections.defaultdict(list)
    for name, p in points.items():
        series[group(name)].append(p)
    for (label, colour, marker, filled), of_it in sorted(series.items()):
        x, y = [p["flop_per_byte"] for p in of_it], [p["gflops_executed"] for p in of_it]
        axes.scatter(x, y, s=110 if marker == "*" else 28, marker=marker, label=label, zorder=3,
                     edgecolors=colour, facecolors=colour if filled else "none", linewidths=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
    axes.set_xlabel("executed flop / byte of weights")
    axes.set_ylabel("executed GFLOP/s")
    axes.grid(True, which="both", linewidth=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)


def main() -> None:
    options = parse_arguments()
    try:
        limits, points = collect(options.files, options.filter)
        enter_venv()
        draw(limits, points, options.output)
    except InputError as error:
        print(f"roofline: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"roofline: {error.filename or options.output}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    print(f"wrote {os.path.relpath(options.output)}")


if __name__ == "__main__":
    main()
