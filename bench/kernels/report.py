"""What compare_kernels.py has measured, as tables, a roofline and JSON. Standard library only."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import platform
import statistics
import subprocess

GOAL = 0.9   # ours over the fastest of them, in speed
BUSY = 0.1   # of a CPU, taken by other processes; an idle machine shows 0.01-0.03
FULL = 0.85  # of the peak that as many cores should reach
MODES = ("cold", "warm")
TYPES = {0: "float", 1: "int8"}


@dataclasses.dataclass
class Run:
    titles: dict[str, str]   # of the engines that ran
    missing: dict[str, str]  # why others did not
    results: list[dict]
    commit: str
    cpu: str
    rounds: int
    arguments: str
    others: float            # CPUs that other processes took


def commit(root: pathlib.Path) -> str:
    def git(*command: str) -> str:
        return subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, check=False).stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if git("status", "--porcelain", "-uno") else "")


def cpu_name() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor() or "unknown CPU")


# ---- Numbers

def weights(layer: dict) -> int:
    return layer["in"][2] * layer["out"][2] * math.prod(layer["window"])


def moved(layer: dict) -> int:
    """Bytes of weights, input and output, each once."""
    values = weights(layer) + math.prod(layer["in"]) + math.prod(layer["out"])
    return values * (1 if layer["integer"] else 4)


def operations(layer: dict) -> int:
    """Two for each multiply-add of the plain convolution, however it is computed."""
    return 2 * weights(layer) * layer["out"][0] * layer["out"][1]


def compare(seconds: dict[str, list[float]]) -> dict:
    """Medians; the fastest of the others by them; our speed over its, the median of the paired ratios."""
    median = {name: statistics.median(times) for name, times in seconds.items()}
    others = [name for name in median if name != "ours"]
    made: dict = {"median": median, "best": None, "ratio": None}
    if others:
        made["best"] = min(others, key=lambda name: median[name])
        made["ratio"] = statistics.median(theirs / ours for theirs, ours in zip(seconds[made["best"]], seconds["ours"]))
    return made


def peak(run: Run, integer: int, threads: int) -> float:
    """Operations a second."""
    return 1e9 * statistics.median(r["peak"]["bytes" if integer else "floats"] for r in run.results if r["threads"] == threads)


def disturbance(run: Run) -> str:
    """Why the numbers are not to be quoted, or nothing."""
    why = [f"other processes took {run.others:.2f} of a CPU"] if run.others > BUSY else []
    for threads in sorted({r["threads"] for r in run.results} - {1}):
        if 1 in (r["threads"] for r in run.results) and (more := peak(run, 0, threads) / peak(run, 0, 1)) < FULL * threads:
            why.append(f"{threads} threads reach {more:.2f} times the peak of one")
    return f"**The machine was not idle ({', '.join(why)}): these numbers are not to be quoted.** " if why else ""


def results(run: Run, integer: int, threads: int) -> list[dict]:
    return [r for r in run.results if r["threads"] == threads and r["layer"]["integer"] == integer]


def network(rows: list[dict], mode: str) -> float | None:
    """Our speed over the best of them in each layer, all layers of the network together."""
    mine = theirs = 0.0
    for r in rows:
        compared = compare(r["seconds"][mode])
        if compared["ratio"] is None:
            return None
        seconds = compared["median"]["ours"] * r["layer"]["times"]
        mine += seconds
        theirs += seconds * compared["ratio"]
    return theirs / mine if mine else None


def padding_share(layer: dict) -> float:
    """Of the plain convolution's products, those with the padding: a library that skips them can pass the peak."""
    inside = 1.0
    for side in (0, 1):
        taps, size = layer["window"][side], layer["in"][side]
        first = [i * layer["stride"] - layer["pad"][side] for i in range(layer["out"][side])]
        inside *= sum(0 <= at + k < size for at in first for k in range(taps)) / (taps * len(first))
    return 1 - inside


def particular(layer: dict) -> str:
    """What may cost us speed in a layer: facts about it, none of them measured here."""
    found = []
    height, width, channels = layer["out"]
    depth = layer["in"][2] * math.prod(layer["window"])
    if layer["integer"] and layer["residual"] and layer["bytes"]:
        found.append("ours reads and writes the trunk as floats and writes bytes too (9 bytes an output), theirs is bytes (2)")
    if layer["integer"] and layer["in"][2] == 3:
        found.append("a row of the window has 9 bytes, of which ours multiplies 12")
    if (padded := -channels % layer["panel"]) > 0:
        found.append(f"{padded} of {channels + padded} columns of the panels are padding")
    if layer["panel"] < layer["tile"]:
        found.append(f"panels of {layer['panel']} columns, of the tile's {layer['tile']}: about a load for each multiply-add")
    if height * width < 16:
        found.append(f"{height * width} pixels share each weight")
    if (size := weights(layer) * (1 if layer["integer"] else 4)) > 1e6:
        found.append(f"{size / 1e6:.1f} MB of weights")
    if depth <= 128:
        found.append(f"{depth} products an output, so the epilogue counts")
    if layer["how"].startswith("F("):
        found.append("Winograd, whose weights are larger")
    elif (share := padding_share(layer)) > 0.05:
        found.append(f"{share:.0%} of the products are with padding, and ours does them")
    return "; ".join(found) or "nothing"


# ---- Text

def shape(layer: dict) -> str:
    sizes = ["×".join(map(str, layer[key])) for key in ("in", "out", "window")]
    return f"{sizes[0]} → {sizes[1]}, {sizes[2]}" + (f"/{layer['stride']}" if layer["stride"] > 1 else "") + \
        (" + trunk" if layer["residual"] else "")


def ratio_text(ratio: float | None) -> str:
    return "–" if ratio is None else f"**{ratio:.2f}**" if ratio < GOAL else f"{ratio:.2f}"


def grid(header: list[str], rows: list[list[str]], numbers_from: int) -> list[str]:
    rule = ["---" if i < numbers_from else "---:" for i in range(len(header))]
    return ["| " + " | ".join(line) + " |" for line in (header, rule, *rows)]


def table(run: Run, integer: int, threads: int) -> list[str]:
    rows = results(run, integer, threads)
    limit = peak(run, integer, threads)
    peers = [name for name in run.titles if name != "ours"]
    lines = []
    for r in rows:
        layer = r["layer"]
        compared = {mode: compare(r["seconds"][mode]) for mode in MODES}
        speed = {name: operations(layer) / seconds for name, seconds in compared["cold"]["median"].items()}
        lines.append([layer["name"], shape(layer), layer["how"], str(layer["times"]), f"{speed['ours'] / 1e9:.0f}",
                      *(f"{speed[p] / 1e9:.0f}" if p in speed else "–" for p in peers), f"{100 * speed['ours'] / limit:.0f}",
                      *(ratio_text(compared[mode]["ratio"]) for mode in MODES)])
    lines.append(["all of the network", "", "", str(sum(r["layer"]["times"] for r in rows)), *[""] * (len(peers) + 2),
                  *(ratio_text(network(rows, mode)) for mode in MODES)])
    header = ["layer", "in → out, window", "ours is", "layers", "ours", *(run.titles[p] for p in peers), "% of peak", "ours / best, cold", "warm"]
    return [f"## {TYPES[integer].capitalize()}, {threads} thread{'s' * (threads > 1)}", "",
            f"GOP/s, cold; the measured peak is {limit / 1e9:.0f}.", "", *grid(header, lines, 3)]


def losses(run: Run) -> list[str]:
    """The layers below the goal, the one that costs most first."""
    found = []
    for r in run.results:
        for mode in MODES:
            compared = compare(r["seconds"][mode])
            if compared["ratio"] is not None and compared["ratio"] < GOAL:
                lost = compared["median"]["ours"] * (1 - compared["ratio"]) * r["layer"]["times"]
                found.append((lost, [r["layer"]["name"], TYPES[r["layer"]["integer"]], str(r["threads"]), mode,
                                     run.titles[compared["best"]], f"{compared['ratio']:.2f}", f"{lost * 1e6:.0f}",
                                     particular(r["layer"])]))
    found.sort(key=lambda pair: -pair[0])
    title = [f"## Below {GOAL}", ""]
    if not found:
        return [*title, f"No layer is below {GOAL} of the best of them."]
    return [*title, "What the layer costs an image more than in the best of them, and what is particular to it.", "",
            *grid(["layer", "numbers", "threads", "weights", "best", "ours / best", "µs an image", "particular to it"], [row for _, row in found], 1)]


def markdown(run: Run) -> str:
    pairs = list(dict.fromkeys((r["layer"]["integer"], r["threads"]) for r in run.results))
    summary = []
    for integer, threads in sorted(pairs):
        rows = results(run, integer, threads)
        ratios = {mode: [ratio for r in rows if (ratio := compare(r["seconds"][mode])["ratio"]) is not None] for mode in MODES}
        summary.append([TYPES[integer], str(threads), *(text for mode in MODES for text in (
            ratio_text(network(rows, mode)), f"{sum(ratio >= GOAL for ratio in ratios[mode])} of {len(rows)}"))])
    failures = sorted({f"{run.titles[name]} has no {TYPES[r['layer']['integer']]} {r['layer']['name']}: {why}"
                       for r in run.results for name, why in r["failed"].items()})
    return "\n".join([
        "# Convolutions of Inception-ResNet-v1, beside oneDNN and XNNPACK", "",
        f"{disturbance(run)}Made by `bench/compare_kernels.py{' ' * bool(run.arguments)}{run.arguments}` with the code of {run.commit}, on {run.cpu}.", "",
        *(f"- {name} was left out, {why}" for name, why in run.missing.items()), *[""] * bool(run.missing),
        f"Our speed over that of the best of them in each layer; the goal is {GOAL}.", "",
        *grid(["numbers", "threads", "cold, all of the network", "layers at the goal", "warm", "layers at the goal"], summary, 1), "",
        "![GOP/s of each layer against the machine's limits](kernels.svg)", "",
        *(line for pair in sorted(pairs) for line in [*table(run, *pair), ""]), *losses(run), "",
        "## How it was measured", "",
        "- A layer is a step of our plan, on one image: the 1×1 convolutions of a block that read the same input are one step, and one convolution "
        "for the others. Ours runs with its algorithm, packed weights, chunks and epilogue, on the plan's own arena; as in a plan, a "
        "barrier and not a parallel region of its own ends a run.",
        "- oneDNN chooses algorithm and formats (`convolution_auto`, `any`); weights and activations are in these formats before the clock starts. "
        "XNNPACK packs weights when an operator is made. Bias and ReLU are part of the convolution. The residual is oneDNN's sum post-operation and "
        "XNNPACK's addition.",
        "- int8: bytes times int8 weights with a scale for each channel, to bytes (to floats in the last block). XNNPACK's bytes are signed. Our residual's "
        "trunk stays float, and its sum is written as floats and as bytes; theirs is bytes.",
        "- Cold: each run reads another copy of the weights. All copies together are as large as the network's weights, at most 256: so a layer "
        "meets its weights as in an inference. Warm: always the same copy. Activations are warm.",
        f"- All take turns, forwards and backwards, for {run.rounds} rounds. A visit gives the median of its runs, and numbers are medians of visits. \"Ours / best\" is our speed over that of the fastest "
        "of them, the median of the ratios by rounds. GOP/s count the plain convolution's operations, so Winograd can pass the peak.",
        "- Each result was first compared with the tests' oracle. All ask for huge pages (`glibc.malloc.hugetlb`).",
        f"- Other processes took {run.others:.2f} of a CPU.",
        *(f"- {failure}." for failure in failures)]) + "\n"


# ---- Roofline

def svg(run: Run) -> str:
    """Cold, with the fewest threads: a point for each layer of ours, one for the best of them, and a line between."""
    threads = min(r["threads"] for r in run.results)
    parts, side, low_x, low_y, octave = [], 470, 2.0, 8.0, 44
    kinds = sorted({r["layer"]["integer"] for r in run.results})
    for column, integer in enumerate(kinds):
        rows = results(run, integer, threads)
        limit = peak(run, integer, threads)
        read = 1e9 * statistics.median(r["peak"]["read"] for r in rows)

        def place(intensity: float, speed: float, left: int = column * side) -> tuple[float, float]:
            return left + 50 + octave * math.log2(intensity / low_x), 390 - octave * math.log2(max(speed / 1e9, low_y) / low_y)

        def line(a: tuple[float, float], b: tuple[float, float], colour: str, wide: float = 1) -> None:
            parts.append(f'<path d="M{a[0]:.0f} {a[1]:.0f} L{b[0]:.0f} {b[1]:.0f}" stroke="{colour}" stroke-width="{wide}"/>')

        ends = low_x * 2 ** ((side - 70) / octave)
        for step in range(9):
            line(place(low_x, low_y * 1e9 * 2**step), place(ends, low_y * 1e9 * 2**step), "#ddd")
            parts.append(f'<text x="{column * side + 44}" y="{394 - octave * step}" text-anchor="end">{low_y * 2**step:g}</text>')
        for step in range(0, 9, 2):
            parts.append(f'<text x="{column * side + 50 + octave * step}" y="408" text-anchor="middle">{low_x * 2**step:g}</text>')
        ridge = min(max(limit / read, low_x), ends)
        line(place(low_x, low_x * read), place(ridge, ridge * read), "#222")
        line(place(ridge, limit), place(ends, limit), "#222")
        parts.append(f'<text x="{column * side + 50}" y="16">{TYPES[integer]}, {threads} thread{"s" * (threads > 1)}: {limit / 1e9:.0f} GOP/s, '
                     f'reads {read / 1e9:.0f} GB/s</text>')
        for r in rows:
            layer = r["layer"]
            compared = compare(r["seconds"]["cold"])
            intensity = operations(layer) / moved(layer)
            at = {name: place(min(intensity, ends), operations(layer) / seconds) for name, seconds in compared["median"].items()}
            if compared["best"]:
                x, y = at[compared["best"]]
                line(at["ours"], (x, y), "#999")
                parts.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" fill="#fff" stroke="#c50" stroke-width="1.5"/>')
            x, y = at["ours"]
            parts.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" fill="#15a"><title>{layer["name"]}</title></circle>')
    width = side * len(kinds)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 450" font-family="sans-serif" font-size="12" fill="#222">'
            f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) +
            '\n<text x="50" y="440">operations a byte of weights, input and output; filled: ours, open: the best of oneDNN and XNNPACK; GOP/s, cold weights</text>\n</svg>\n')


def write(run: Run, folder: pathlib.Path) -> list[pathlib.Path]:
    files = {"kernels.md": markdown(run), "kernels.svg": svg(run), "kernels.json": json.dumps(dataclasses.asdict(run), indent=1)}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]
