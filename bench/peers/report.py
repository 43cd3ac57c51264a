"""Turns the recorded rounds into one table: JSON, Markdown and a plot. Needs numpy and matplotlib of .venv-peers."""

from __future__ import annotations

import json
import pathlib
import platform

import numpy as np

from peers.measure import MIN_PEAK_RATIO, RECORDED, Config
from peers.setup import INT8_PEERS, OURS, PEERS

TITLES = {
    "facenet": "facenet", "facenet-half": "facenet (fp16 weights)", "facenet-int8": "facenet int8",
    "openvino-int8": "OpenVINO int8", "onnxruntime-int8": "ONNX Runtime int8", "ncnn-int8": "ncnn int8", "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO", "ncnn": "ncnn", "mnn": "MNN", "opencv": "OpenCV DNN",
    "torch-channels-last": "PyTorch channels_last", "torch": "PyTorch eager",
}
RESAMPLES = 10_000
DISTURBED = 0.1  # of a CPU taken by other processes; an idle machine shows 0.01-0.03
# Ours over the fastest peer at most.
TARGETS = {"1x1": {"facenet": 0.80, "facenet-half": 0.75}, "1x2": {"facenet": 0.78, "facenet-half": 0.72},
           "8x1": {"facenet": 0.88}, "8x2": {"facenet": 0.88}}
INT8_TARGETS = {config: {"facenet-int8": 0.90} for config in TARGETS}
INT8_GAINS = {"1x1": 3.0, "1x2": 2.5}  # how many times as fast as our own float


def median_interval(values: np.ndarray) -> tuple[float, float, float]:
    """The median and its 95% bootstrap interval (percentile method, seeded)."""
    random = np.random.default_rng(1)
    picks = random.integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(np.median(values[picks], axis=1), [2.5, 97.5])
    return float(np.median(values)), float(low), float(high)


class Table:
    """The rows of a record; a row is a dict, as it goes into the JSON."""

    def __init__(self, events: list[dict], engines: list[str], configs: list[Config], model: dict, wanted: int,
                 failed_setup: dict[str, str], installed: dict[str, int | None], int8: bool = False) -> None:
        self.int8 = int8
        self.ours = ("facenet-int8",) if int8 else tuple(e for e in OURS if e != "facenet-int8")  # compared with the others
        self.peers = INT8_PEERS if int8 else PEERS
        self.model, self.engines, self.configs, self.wanted = model, engines, configs, wanted
        self.events = events
        self.rows = [self._row(engine, config, failed_setup.get(engine), installed.get(engine))
                     for config in configs for engine in engines]
        self._compare()
        place = {engine: i for i, engine in enumerate(engines)}
        order = {f"{c.batch}x{c.threads}": i for i, c in enumerate(configs)}
        self.rows.sort(key=lambda r: (order[r["config"]], r.get("median_ms", float("inf")), place[r["engine"]]))

    def rounds(self, config: str, kept: bool = True) -> list[dict]:
        return [e for e in self.events if e["kind"] == "round" and e["config"] == config and e["kept"] == kept]

    def _row(self, engine: str, config: Config, failure: str | None, installed: int | None) -> dict:
        name = f"{config.batch}x{config.threads}"
        row = {"engine": engine, "title": TITLES[engine], "config": name, "batch": config.batch,
               "threads": config.threads, "installed_bytes": installed}
        mine = [e for e in self.events if e.get("engine") == engine and e.get("config") == name]
        loads = [e for e in mine if e["kind"] == "load"]
        if failure is None and mine and mine[-1]["kind"] == "failed":
            failure = mine[-1]["why"]
        rounds = [r for r in self.rounds(name) if engine in r["seconds"]]
        if loads:
            row.update({k: loads[-1][k] for k in RECORDED if k in loads[-1] and k != "peak_bytes"})
            row["load_seconds"] = float(np.median([s for e in loads for s in e["seconds"]]))
        if failure is None and not rounds:
            failure = "no round of this configuration was kept"
        if failure is not None:
            return {**row, "failed": failure}
        each = np.array([np.median(r["seconds"][engine]) for r in rounds]) / config.batch
        everything = np.concatenate([r["seconds"][engine] for r in rounds]) / config.batch
        peak = np.array([np.median([m["peak"][str(config.threads)] for m in r["machine"]]) for r in rounds])
        flops = 2 * self.model["macs"]
        return {**row, "runs": len(everything), "rounds": len(rounds), "round_ids": [id(r) for r in rounds],
                "each": each, "median_ms": float(np.median(everything)) * 1e3, "min_ms": float(everything.min()) * 1e3,
                "gflops": float(np.median(flops / each)) * 1e-9,
                "percent_of_peak": float(np.median(flops / each * 1e-9 / peak)) * 100,
                "peak_bytes": max(r["peak_bytes"][engine] for r in rounds),
                "spin_seconds": float(np.median([r["settle"][engine] for r in rounds]))}

    def _compare(self) -> None:
        """Adds the ratio of ours to every row: per round, over the rounds in which both ran."""
        for config in {r["config"] for r in self.rows}:
            rows = {r["engine"]: r for r in self.rows if r["config"] == config and "failed" not in r}
            for ours in self.ours:
                if ours not in rows:
                    continue
                mine = dict(zip(rows[ours]["round_ids"], rows[ours]["each"]))
                for row in rows.values():
                    pairs = [mine[i] / t for i, t in zip(row["round_ids"], row["each"]) if i in mine]
                    if pairs:
                        value, low, high = median_interval(np.array(pairs))
                        row[f"ratio_of_{ours}"] = {"median": value, "low": low, "high": high, "pairs": len(pairs)}
        for row in self.rows:
            row.pop("each", None)
            row.pop("round_ids", None)

    def machine(self) -> dict:
        kept = [r for r in self.events if r["kind"] == "round" and r["kept"]]
        samples = [m for r in kept for m in r["machine"]]
        result = {"cpu": cpu_name(), "system": f"{platform.system()} {platform.machine()}", "peak_gflops": {},
                  "bandwidth_gbs": {}}
        for key, field in (("peak_gflops", "peak"), ("bandwidth_gbs", "bandwidth")):
            for threads in sorted({t for m in samples for t in m[field]}, key=int):
                values = [m[field][threads] for m in samples if threads in m[field]]
                result[key][threads] = {"median": float(np.median(values)), "max": float(np.max(values))}
        result["others_cpu"] = float(np.median([r["others_cpu"] for r in kept])) if kept else None
        return result

    def summary(self) -> list[dict]:
        """For each configuration the fastest peer, and ours over it."""
        lines = []
        for config in self.configs:
            name = f"{config.batch}x{config.threads}"
            rows = [r for r in self.rows if r["config"] == name and "failed" not in r]
            peers = [r for r in rows if r["engine"] not in OURS]
            line = {"config": name, "batch": config.batch, "threads": config.threads,
                    "absent": len(self.peers) - len(peers), "rounds": len(self.rounds(name)),
                    "discarded": len(self.rounds(name, kept=False))}
            if peers:
                fastest = min(peers, key=lambda r: r["median_ms"])
                line.update(fastest=fastest["title"], fastest_ms=fastest["median_ms"])
                # the targets are FaceNet's
                targets = (INT8_TARGETS if self.int8 else TARGETS).get(name, {})
                if self.model["architecture"] != "inception_resnet_v1":
                    targets = {}
                for ours in self.ours:
                    row = next((r for r in rows if r["engine"] == ours), None)
                    if row and f"ratio_of_{ours}" in fastest:
                        line[ours] = {"median_ms": row["median_ms"], "paired": fastest[f"ratio_of_{ours}"],
                                      "ratio_of_medians": row["median_ms"] / fastest["median_ms"], "target": targets.get(ours)}
            lines.append(line)
        return lines

    def as_json(self) -> dict:
        return {"started": self.events[0]["time"], "machine": self.machine(), "checkpoint": {
            "name": self.model["name"], "sha256": self.model["sha256"], "dim": self.model["dim"],
            "architecture": self.model["architecture"], "macs": self.model["macs"]}, "summary": self.summary(), "rows": self.rows}


def cpu_name() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown CPU"


# ---- Markdown

def megabytes(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:,.0f}" if value >= 1e7 else f"{value / 1e6:.1f}"


def ratio_text(ratio: dict | None) -> str:
    if not ratio:
        return "–"
    if ratio["low"] == ratio["high"] == 1:  # over itself
        return "1"
    return f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def grid(header: list[str], rows: list[list[str]], numbers_from: int = 1) -> list[str]:
    rule = ["---" if i < numbers_from else "---:" for i in range(len(header))]
    return ["| " + " | ".join(line) + " |" for line in (header, rule, *rows)]


def summary_lines(table: Table) -> list[str]:
    rows = []
    for line in table.summary():
        for ours in table.ours:
            mine = line.get(ours)
            if not mine:
                continue
            target = mine["target"]
            verdict = "–"
            if target is not None:
                verdict = f"{target:.2f} " + ("met" if mine["ratio_of_medians"] <= target else "missed")
                if line["absent"]:  # the fastest of some peers may not be the fastest
                    verdict += f" ({line['absent']} of {len(table.peers)} peers absent)"
            rows.append([TITLES[ours], str(line["batch"]), str(line["threads"]), f"{mine['median_ms']:.2f}",
                         f"{line['fastest']} {line['fastest_ms']:.2f}", f"{mine['ratio_of_medians']:.3f}",
                         ratio_text(mine["paired"]), verdict])
        if not any(ours in line for ours in table.ours):
            rows.append(["not timed", str(line["batch"]), str(line["threads"]), "–",
                         f"{line['fastest']} {line['fastest_ms']:.2f}" if "fastest" in line else "–", "–", "–", "–"])
    return grid(["ours", "batch", "threads", "ms/image", "fastest peer, ms/image", "ratio of medians",
                 "paired ratio [95%]", "target"], rows)


def gain_lines(table: Table) -> list[str]:
    """int8 over our own float."""
    rows = []
    for config in table.configs:
        name = f"{config.batch}x{config.threads}"
        row = {r["engine"]: r for r in table.rows if r["config"] == name}
        paired = row.get("facenet", {}).get("ratio_of_facenet-int8")
        if paired is None:
            continue
        gain, least = 1 / paired["median"], INT8_GAINS.get(name)
        verdict = f"{least} {'met' if gain >= least else 'missed'}" if least else "–"
        rows.append([str(config.batch), str(config.threads), f"{row['facenet-int8']['median_ms']:.2f}",
                     f"{row['facenet']['median_ms']:.2f}", ratio_text(paired), f"{gain:.2f}", verdict])
    return grid(["batch", "threads", "int8 ms/image", "float ms/image", "paired ratio [95%]", "times as fast", "target"], rows, 0)


def error_text(row: dict) -> str:
    if "cosine" in row:
        return f"cosine {row['cosine']:.5f}, distance {row['distance']:.4f}"
    return f"{row['error']:.1e}"


def table_lines(table: Table) -> list[str]:
    header = ["engine", "version", "threads", "batch", "median ms/image", "minimum", f"{'our int8' if table.int8 else 'ours'} / it [95%]",
              "error vs float64", "load ms", "peak RSS MB", "installed MB", "GFLOP/s", "% of peak"]
    rows = []
    for r in table.rows:
        start = [r["title"], r.get("version", "–"), str(r["threads"]), str(r["batch"])]
        if "failed" in r:
            rows.append([*start, f"**failed**: {cell(r['failed'])}", *["–"] * 8])
            continue
        rows.append([*start, f"{r['median_ms']:.2f}", f"{r['min_ms']:.2f}", ratio_text(r.get(f"ratio_of_{table.ours[0]}")),
                     error_text(r), f"{r['load_seconds'] * 1e3:.0f}", megabytes(r["peak_bytes"]),
                     megabytes(r["installed_bytes"]), f"{r['gflops']:.0f}", f"{r['percent_of_peak']:.0f}"])
    return grid(header, rows, 2)


def note_lines(table: Table) -> list[str]:
    machine = table.machine()
    limit = {t: 2 * table.model["macs"] / v["median"] * 1e-6 for t, v in machine["peak_gflops"].items()}
    peaks = ", ".join(f"{v['median']:.0f} GFLOP/s on {t} (direct convolution: {limit[t]:.2f} ms an image)"
                      for t, v in machine["peak_gflops"].items())
    bandwidth = ", ".join(f"{v['median']:.0f} GB/s on {t}" for t, v in machine["bandwidth_gbs"].items())
    library = next((r["version"] for r in table.rows if r["engine"] in OURS and "version" in r), None)
    rounds = "; ".join(f"{s['config']}: {s['rounds']} kept of {table.wanted}, {s['discarded']} discarded"
                       for s in table.summary())
    settings = {TITLES[e]: r["settings"] for e in table.engines for r in table.rows
                if r["engine"] == e and "settings" in r}
    spins: dict[str, float] = {}
    for r in table.rows:
        if "spin_seconds" in r:
            spins[r["title"]] = max(spins.get(r["title"], 0.0), r["spin_seconds"] * 1e3)
    imports = ", ".join(f"{title} {megabytes(size)}" for title, size in
                        {r["title"]: r["import_bytes"] for r in table.rows if "import_bytes" in r}.items())
    disturbed = machine["others_cpu"] or 0.0
    lines = [
        f"- Machine: {machine['cpu']}, {machine['system']}. FMA peak by threads: {peaks}. Read bandwidth: {bandwidth}. "
        f"Other processes took {disturbed:.2f} of a CPU (median of the rounds)"
        + ("; **the machine was not idle: repeat this**." if disturbed > DISTURBED else "."),
        f"- Model: {table.model['architecture']}, `{table.model['name']}`, sha256 `{table.model['sha256'][:16]}…`, {table.model['dim']}-d, fp32, "
        f"ONNX opset {table.model['opset']}. Same pixels for all, standardised before the clock starts: float NCHW for "
        "the peers, float NHWC for ours" + (", whose int8 gets the bytes" if table.int8 else "") + "." + (f" Ours is {library}." if library else ""),
        "- A round lets every engine run twice, in the order A B C … C B A; each engine has a process of its own, and the "
        "next one starts when its threads sleep. A visit begins with one run that is not counted. The median and the minimum are "
        "over all runs of all kept rounds; a paired ratio is the median over rounds of (ours / it), with a 95% bootstrap "
        f"interval. Rounds: {rounds}; with two threads those whose peak ratio fell below {MIN_PEAK_RATIO} are discarded.",
        "- Error: largest absolute difference of an embedding from PyTorch in float64"
        + ("; of int8, over the faces of calibration, the worst cosine to it and the worst change of a distance" if table.int8 else "") + ". Load: from the imported library to "
        "the first result, median of the loads, file cache warm. Peak RSS: of the process, with the Python interpreter, "
        f"numpy and the imported library; before the model was loaded it was {imports} MB. Installed: the package and what "
        "it requires, without numpy and Python (ours: the headers and the timing library). GFLOP/s count direct convolution's operations, so Winograd can pass 100% of peak.",
        *(f"- {title}: {text}." for title, text in settings.items()),
        "- Spinning: " + "; ".join(f"{title} {ms:.0f} ms" for title, ms in spins.items())
        + " until all its threads sleep after a visit (two checks 2 ms apart, so about 4 is at once). Each process has "
        "OMP_NUM_THREADS at the stated threads; no other spin or affinity setting is changed.",
    ]
    return lines


def markdown(table: Table) -> str:
    title = "int8 and float in one interleaved run" if table.int8 else "every peer in one interleaved run"
    command = "bench/compare_peers.py" + (" --int8" if table.int8 else "")
    gains = ["", "## Our int8 over our float", "", *gain_lines(table)] if table.int8 else []
    lines = [f"# FaceNet on this CPU: {title}", "",
             f"Made by `{command}`. Milliseconds are per image.", "", "## Ours over the fastest peer", "",
             *summary_lines(table), *gains, "", "## All engines", "", *table_lines(table), "", "## How it was measured", "",
             *note_lines(table), ""]
    return "\n".join(lines)


# ---- plot

def plot(table: Table, path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    machine = table.machine()
    columns = min(2, len(table.configs))
    lines = -(-len(table.configs) // columns)
    height = 0.36 * len(table.engines) + 1.3
    figure, axes = pyplot.subplots(lines, columns, figsize=(6.4 * columns, height * lines), squeeze=False)
    for axis in axes.flat[len(table.configs):]:
        axis.set_visible(False)
    for axis, config in zip(axes.flat, table.configs):
        rows = [r for r in table.rows if r["config"] == f"{config.batch}x{config.threads}"][::-1]
        values = [r.get("median_ms", 0.0) for r in rows]
        colours = ["#c0392b" if r["engine"] == "facenet" else "#e08e79" if r["engine"] in OURS else "#5b7f9e"
                   for r in rows]
        bars = axis.barh([r["title"] for r in rows], values, color=colours, height=0.7)
        for bar, r in zip(bars, rows):
            text = f"{r['median_ms']:.1f}" if "median_ms" in r else "failed"
            axis.text(bar.get_width() + max(values) * 0.012, bar.get_y() + bar.get_height() / 2, text, va="center",
                      fontsize=8.5, color="#333333")
        peak = machine["peak_gflops"].get(str(config.threads))
        if peak:
            limit = 2 * table.model["macs"] / peak["median"] * 1e-6
            axis.axvline(limit, color="#333333", linestyle=":", linewidth=1.2)
            axis.text(limit, len(rows) - 0.35, f"FMA peak, direct: {limit:.1f} ms", fontsize=7.5, ha="left", color="#333333")
        plural = "s" if config.threads > 1 else ""
        axis.set_title(f"batch {config.batch}, {config.threads} thread{plural}", fontsize=10.5, loc="left", pad=14)
        axis.set_xlim(0, max(values + [1e-9]) * 1.13)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="y", length=0, labelsize=9)
        axis.set_xlabel("ms per image (median; lower is better)", fontsize=8.5)
    figure.suptitle(f"{table.model['architecture']}, {table.model['side']}×{table.model['side']}, {'int8 and fp32' if table.int8 else 'fp32'}, {machine['cpu']}", fontsize=11.5, x=0.01, ha="left")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def write(table: Table, folder: pathlib.Path) -> list[pathlib.Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"peers{'_int8' if table.int8 else ''}.{kind}" for kind in ("json", "md", "png")]
    paths[0].write_text(json.dumps(table.as_json(), indent=1, ensure_ascii=False) + "\n")
    paths[1].write_text(markdown(table))
    plot(table, paths[2])
    return paths
