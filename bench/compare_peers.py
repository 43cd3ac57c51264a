#!/usr/bin/env python3
"""Times FaceNet in every CPU runtime and in ours, interleaved in one run, and writes one table.

The first run installs the peers into .venv-peers (6 GB, most of it PyTorch's) and converts the checkpoint for each;
later runs find both. An interrupted run goes on where it stopped. A peer that cannot be installed, converted or run
has a row that says why.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shutil
import sys

from peers import setup
from peers.setup import BUILD, INT8_PEERS, OURS, PEERS, PYTHON, ROOT, SetupError, say

EXAMPLES = """\
examples:
  bench/compare_peers.py                                       everything: about 15 minutes after the set-up
  bench/compare_peers.py --peers onnxruntime,mnn --configs 1x1 --rounds 10
  bench/compare_peers.py --setup-only                          install and convert, time nothing
  bench/compare_peers.py --checkpoint my_model.pt --write-docs
  bench/compare_peers.py --checkpoint .deps/face-api --output build/peers/dlib     dlib's network instead
  bench/compare_peers.py --int8                                integers and floats of the three fastest engines

exit status: 0 the table is written (a failed peer is a row of it), 2 error, 130 interrupted (run it again to go on)
"""


def parse_configs(text: str) -> list[tuple[int, int]]:
    configs = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)x(\d+)", part.strip())
        if not match or not int(match[1]) or not int(match[2]):
            raise argparse.ArgumentTypeError(f"'{part}' is not batch x threads, such as 8x2")
        configs.append((int(match[1]), int(match[2])))
    return list(dict.fromkeys(configs))


def parse_peers(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = list(dict.fromkeys([*PEERS, *INT8_PEERS]))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return list(dict.fromkeys(names))


def positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return int(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peers", type=parse_peers, metavar="A,B", help=f"which peers (all: {','.join(PEERS)}; with --int8: {','.join(INT8_PEERS)})")
    add("--int8", action="store_true",
        help="time engines in integers too: ours and the peers' own quantisation, from the same faces")
    add("--configs", type=parse_configs, default=parse_configs("1x1,1x2,8x1,8x2"), metavar="BxT,…",
        help="batch x threads (1x1,1x2,8x1,8x2)")
    add("--rounds", type=positive, default=30, metavar="N", help="rounds to keep in each configuration (30)")
    add("--visit-ms", type=positive, default=150, metavar="MS", help="how long an engine runs when it is its turn (150)")
    add("--loads", type=positive, default=3, metavar="N", help="how often each engine is loaded, for the load time (3)")
    add("--checkpoint", metavar="FILE", help="a state_dict of either Inception-ResNet, or face-api's folder (weights/test512.pt, made when missing)")
    add("--torch", choices=("auto", "pypi", "debian"), default="auto",
        help="PyPI's PyTorch (a CUDA build, 5.4 GB) or Debian's 1.13; auto: PyPI's unless the disk or the network refuses")
    add("--library", metavar="FILE", help="a built libfacenet_peer_api (built in build/release by default)")
    add("--output", type=pathlib.Path, default=BUILD, metavar="DIR", help="where the results go (build/peers)")
    add("--fresh", action="store_true", help="start anew instead of going on with an interrupted run")
    add("--no-ours", action="store_true", help="time the peers only")
    add("--write-docs", action="store_true", help="also copy the table and the plot (not that of --int8) to bench/results")
    add("--setup-only", action="store_true", help="install and convert, then stop")
    options = parser.parse_args()
    if options.peers is None:
        options.peers = list(INT8_PEERS if options.int8 else PEERS)
    if not options.int8 and any(peer.endswith("-int8") for peer in options.peers):
        parser.error("a peer in int8 needs --int8")
    if options.int8 and options.checkpoint and pathlib.Path(options.checkpoint).is_dir():
        parser.error("--int8 is for the Inception-ResNets: dlib's network scales its bytes otherwise than the peers get them")
    return options


def enter_venv() -> None:
    """Goes on in .venv-peers, which has numpy and matplotlib."""
    setup.make_venv()
    problem = setup.install("report")
    if problem:
        raise SetupError(f"{problem}; without numpy and matplotlib there is no report (see build/peers/log/).")
    if pathlib.Path(sys.prefix).resolve() != setup.VENV.resolve():
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
        os.execve(PYTHON, [str(PYTHON), *sys.argv], environment)


def run(options: argparse.Namespace) -> None:
    if sys.platform != "linux":
        raise SetupError("this needs Linux: it reads /proc to see that idle engines sleep.")
    cpus = len(os.sched_getaffinity(0))
    most = max(threads for _, threads in options.configs)
    if most > cpus:
        raise SetupError(f"--configs asks for {most} threads and this process may use {cpus} CPUs; leave those out.")
    BUILD.mkdir(parents=True, exist_ok=True)
    enter_venv()
    from peers import measure, report, worker  # need the venv

    ours = [engine for engine in OURS if engine != ("facenet-half" if options.int8 else "facenet-int8")]
    engines = ([] if options.no_ours else ours) + options.peers
    failed, debian_torch = setup.install_peers(options.peers, options.torch)
    setup.ensure_tools_venv()
    configs = [measure.Config(*c) for c in options.configs]
    checkpoint = setup.find_checkpoint(options.checkpoint)
    # 1 and 8 are always there: runs of fewer configurations then share one cache of 500 MB.
    model = setup.convert(checkpoint, engines, sorted({1, 8} | {c.batch for c in configs}), failed)
    library = setup.build_library(options.library)
    model["macs"] = int(worker.open_peer_api(str(library)).fnb_macs(os.fsencode(model["paths"]["safetensors"])))
    for engine, why in failed.items():
        say(f"{engine} cannot run: {why}")
    if options.setup_only:
        return

    timed = [engine for engine in engines if engine not in failed]
    fingerprint = {"engines": timed, "configs": [f"{c.batch}x{c.threads}" for c in configs], "rounds": options.rounds,
                   "visit_ms": options.visit_ms, "loads": options.loads, "checkpoint": model["sha256"],
                   "library": setup.sha256(library), "debian_torch": debian_torch, "cpu": report.cpu_name(),
                   "versions": setup.installed_versions(), **({"quantised": setup.quantisers()} if options.int8 else {})}
    options.output.mkdir(parents=True, exist_ok=True)
    record = measure.Record(options.output / ("run_int8.jsonl" if options.int8 else "run.jsonl"), fingerprint, options.fresh)
    if record.resumed:
        say("going on with the interrupted run (--fresh starts anew)")
    load = os.getloadavg()[0]
    if load > 0.5:
        say(f"the machine is busy (load {load:.1f}); times will be worse and noisier")
    left = sum(max(0, options.rounds - len(record.rounds(f"{c.batch}x{c.threads}"))) for c in configs)
    bench = measure.Bench(timed, model, library, debian_torch, record, options.visit_ms / 1e3, options.loads,
                          measure.Progress(left, sys.stderr))
    try:
        for config in configs:
            bench.run_config(config, options.rounds)
    finally:
        bench.close()
    record.add({"kind": "end"})

    installed = {engine: setup.installed_bytes(engine, debian_torch, library) for engine in engines}
    table = report.Table(record.events, engines, configs, model, options.rounds, failed, installed, options.int8)
    paths = report.write(table, options.output)
    if options.write_docs:
        docs = ROOT / "bench" / "results"
        docs.mkdir(exist_ok=True)
        paths += [shutil.copy(path, docs / path.name) for path in paths[1:2 if options.int8 else 3]]
    print(paths[1].read_text(), end="")
    for path in paths:
        say(f"wrote {os.path.relpath(path)}")


def main() -> None:
    options = parse_arguments()
    try:
        run(options)
    except SetupError as error:
        print(f"compare_peers: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"compare_peers: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ncompare_peers: interrupted; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
