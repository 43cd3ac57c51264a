#!/usr/bin/env python3
"""Trains Inception-ResNet-v1 on face crops: FACES/PERSON/*.png, as `facenet align` writes them.

RUN gets best.pt (a state_dict for tools/convert_weights.py), best.json (the threshold that validation measured, which the
converter writes into the weight file), last.pt (what --resume goes on from), steps.csv, epochs.csv, roc.csv, pairs.txt,
curves.png, findings.txt, the list of pictures that could not be used, and pictures.json, what is known of files that have been
looked at. People held out for validation are never trained on: who has a picture among the trained ones is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import math
import os
import pathlib
import sys

import facenet_tools  # noqa: F401 (first: it picks the Python that has torch)
import torch

from facenet_tools import checkpoint, cli, sources
from facenet_tools.cli import ToolError
from facenet_tools.training import data, loop, losses, parallel

DEFAULT_MARGIN = {"triplet": 0.2, "softmax": 0.0, "arcface": 0.3}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  tools/train.py crops/ -o run/ --width 0.25 --dim 128 --loss arcface\n"
        "  tools/train.py crops/ -o run/ --resume                          go on after a stop, with the same options\n"
        "  tools/train.py mine/ -o tuned/ --from vggface2.pt --freeze repeat_2 --rate 1e-4 --mining semi_hard\n"
        "  .venv/bin/python -m torch.distributed.run --standalone --nproc_per_node 2 tools/train.py crops/ -o run/\n\n"
        "exit status: 0 trained, 1 the embeddings collapsed, 2 error",
    )
    parser.add_argument("faces", metavar="FACES", help="a folder with a folder of 160x160 crops for each person")
    parser.add_argument("-o", "--output", required=True, metavar="RUN", help="the run's folder, made if need be")
    parser.add_argument("--resume", action="store_true", help="go on from RUN/last.pt if it is there")

    model = parser.add_argument_group("network")
    model.add_argument("--width", type=float, default=1.0, help="channels over the published ones, in sixteenths (%(default)s)")
    model.add_argument("--dim", type=int, default=512, help="floats of an embedding (%(default)s)")
    model.add_argument("--from", dest="start", metavar="CHECKPOINT", help="begin with these weights, of any kind that converts")
    model.add_argument("--freeze", metavar="STAGE", default="", help="leave all stages up to this one as they are")
    model.add_argument("--dropout", type=float, default=0.0, help="before the last layer (%(default)s; the ports have 0.6)")

    loss = parser.add_argument_group("loss")
    loss.add_argument("--loss", choices=losses.LOSSES, default="triplet", help="softmax: with centre loss (%(default)s)")
    loss.add_argument("--mining", choices=losses.MININGS, default="semi_hard", help="of triplets (%(default)s)")
    loss.add_argument("--margin", type=float, help="triplet: of squared distances (0.2); arcface: of angles, radians (0.3)")
    loss.add_argument("--scale", type=float, help="of softmax's and arcface's logits (16)")
    loss.add_argument("--centre-weight", type=float, help="of softmax's centre loss (0.1)")

    steps = parser.add_argument_group("steps")
    steps.add_argument("--people", type=int, default=16, metavar="P", help="in a batch (%(default)s)")
    steps.add_argument("--pictures", type=int, default=4, metavar="K", help="of each of them (%(default)s)")
    steps.add_argument("--epochs", type=int, default=20, help="(%(default)s)")
    steps.add_argument("--steps", type=int, help="of an epoch (as many as show every picture)")
    steps.add_argument("--rate", type=float, default=2e-3, help="learning rate (%(default)s)")
    steps.add_argument("--schedule", choices=("cosine", "step"), default="cosine", help="(%(default)s)")
    steps.add_argument("--warmup", type=int, default=30, help="steps in which the rate rises (%(default)s)")
    steps.add_argument("--optimiser", choices=("adamw", "sgd"), default="adamw", help="(%(default)s)")
    steps.add_argument("--decay", type=float, default=5e-4, help="weight decay, of the layers' weights (%(default)s)")
    steps.add_argument("--decay-all", action="store_true", help="also of biases and of batch norms' scales and shifts")
    steps.add_argument("--augment", type=float, default=1.0, help="strength, 0 none (%(default)s)")
    steps.add_argument("--seed", type=int, default=1, help="(%(default)s)")

    held_out = parser.add_argument_group("validation").add_mutually_exclusive_group()
    held_out.add_argument("--validate", metavar="DIR", help="crops of other people")
    held_out.add_argument("--validation-share", type=float, default=0.2, help="of FACES' people; 0: none (%(default)s)")

    parser.add_argument("--keep", choices=("best", "last"), default="best", help="which epoch's weights RUN/best.pt has; last: "
                        "where the score of people held out is to be reported, and so must not choose (%(default)s)")  # fmt: skip

    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    machine.add_argument("--precision", choices=("single", "double", "mixed"), default="single", help="(%(default)s)")
    machine.add_argument("--threads", type=int, default=0, help="of PyTorch (the CPUs, shared by the processes)")
    machine.add_argument("--save-every", type=int, metavar="STEPS", help="also within an epoch")
    machine.add_argument("--tensorboard", action="store_true", help="also log to RUN/tensorboard")
    arguments = parser.parse_args()
    check(parser, arguments)
    return arguments


def check(parser: argparse.ArgumentParser, a: argparse.Namespace) -> None:
    if not checkpoint.is_width(a.width):
        parser.error("--width must be a multiple of 1/16 from 0.0625 to 4, so that every layer has whole channels")
    if a.people < 2 or a.pictures < 2:
        parser.error("a batch needs 2 --people and 2 --pictures of each at least, or there is no triplet")
    if a.output == "":
        parser.error("the name of RUN is empty; give -o RUN")
    if a.freeze and a.start is None:
        parser.error("--freeze would keep random weights; give --from CHECKPOINT too")
    for name, kinds in (("margin", ("triplet", "arcface")), ("scale", ("softmax", "arcface")), ("centre_weight", ("softmax",))):
        if getattr(a, name) is not None and a.loss not in kinds:
            parser.error(f"--{name.replace('_', '-')} is for --loss {' and '.join(kinds)}; --loss {a.loss} has none")
    if a.loss == "arcface" and a.margin is not None and a.margin > math.pi:
        parser.error("--margin of arcface is an angle, and must be from 0 to 3.14")
    if a.validate is not None and pathlib.Path(a.validate).resolve() == pathlib.Path(a.faces).resolve():
        parser.error("--validate is the folder that is trained on; give crops of other people")
    for name, low, high in (
        ("dim", 1, 16384), ("epochs", 1, 10**6), ("steps", 1, 10**9), ("warmup", 0, 10**9), ("seed", 0, 2**32 - 1),
        ("rate", 1e-12, 1e3), ("dropout", 0, 0.99), ("augment", 0, 3), ("validation_share", 0, 0.9), ("margin", 0, 10),
        ("scale", 1e-3, 1e4), ("centre_weight", 0, 1e3), ("decay", 0, 1), ("threads", 0, 256), ("save_every", 1, 10**9),
    ):  # fmt: skip
        value = getattr(a, name)
        if value is not None and not low <= value <= high:  # also NaN
            parser.error(f"--{name.replace('_', '-')} must be from {low:g} to {high:g}")


def starting_state(path: str | None, a: argparse.Namespace) -> tuple[checkpoint.StateDict | None, str]:
    if path is None:
        return None, ""
    source = sources.read(path)
    if source.architecture != checkpoint.V1:
        raise ToolError(f"{path}: holds {source.architecture}; only {checkpoint.V1} is trained here.")
    if (source.dim, source.width) != (a.dim, a.width):
        raise ToolError(f"{path}: has --dim {source.dim} --width {source.width:g}; give these, not {a.dim} and {a.width:g}.")
    if source.metadata["scaling"] != "fixed":
        raise ToolError(f"{path}: was trained on pictures of scaling {source.metadata['scaling']}; here they are (x - 127.5) / 128.")
    if checkpoint.has_folded_norms(source.state, checkpoint.build_model(a.dim, width=a.width)):
        raise ToolError(f"{path}: its batch norms are folded into its weights, and cannot be trained; give the checkpoint it was made from.")
    return source.state, source.digest


def gather(a: argparse.Namespace, say, first: bool) -> tuple[data.Faces, data.Faces | None]:
    """The people to train on and those held out; what is wrong with the data is said, and written to RUN."""
    looks = data.Looks(pathlib.Path(a.output) / "pictures.json")
    faces, findings = data.scan(a.faces, looks)
    lines = [f"{a.faces}: {line}" for line in findings.lines()]
    held_out = None
    if a.validate is not None:
        held_out, others = data.scan(a.validate, looks)
        lines += [f"{a.validate}: {line}" for line in others.lines()]
        both = sorted(set(faces.people) & set(held_out.people))
        lines += [f"{name}: is trained on and in {a.validate}; if it is one person, the validation is worth nothing" for name in map(cli.shown, both)]
        if len(held_out.people) < 2:
            raise ToolError(f"{a.validate}: has {len(held_out.people)} people with {data.PER_PERSON} pictures; there must be 2.")
    elif a.validation_share > 0:
        faces, held_out = data.split(faces, a.validation_share, a.seed, "--validation-share (0: nobody is held out)")
    if held_out is not None:
        held_out, leaks = leave_out_trained(held_out, faces, a)
        lines += leaks
    if len(faces.people) < a.people:
        share = ", lower --validation-share" if a.validate is None and held_out is not None else ""
        raise ToolError(
            f"{a.faces}: {len(faces.people)} people to train on, and a batch wants {a.people}; lower --people{share} or add people."
        )
    if first:
        looks.save()
        text = "".join(f"{line}\n" for line in lines)
        cli.write_atomically(str(pathlib.Path(a.output) / "findings.txt"), [os.fsencode(text)])
    for line in lines[:40]:
        say(line)
    if len(lines) > 40:
        say(f"and {len(lines) - 40} more: {a.output}/findings.txt")
    return faces, held_out


def leave_out_trained(held_out: data.Faces, faces: data.Faces, a: argparse.Namespace) -> tuple[data.Faces, list[str]]:
    """Nobody held out has a picture that is trained on: validation would measure what the network has by heart."""
    where, before = a.validate or a.faces, len(held_out.people)
    held_out, leaks = data.without_trained(held_out, faces)
    lines = [f"{where}: {line}" for line in leaks]
    if leaks:
        gone = before - len(held_out.people)
        lines.append(f"{where}: {len(leaks)} pictures held out are trained on too; the {gone} people whose they are take no part in validation")
    if len(held_out.people) < 2:
        raise ToolError(
            f"{where}: {len(leaks)} pictures held out are trained on too ({', '.join(line.partition(': ')[2] for line in leaks[:5])}), and without their people "
            f"{len(held_out.people)} are left; there must be 2. Hold out people who are not in {a.faces}."
        )
    return held_out, lines


def lock(folder: pathlib.Path):
    """Held as long as the file is open; the system lets go of it when the process ends, however it ends."""
    file = open(folder / ".lock", "w")  # noqa: SIM115 (open as long as the run)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ToolError(f"{folder}: another train.py is at work there; wait for it, or choose another folder.") from error
    for left in folder.glob(".*.tmp"):  # by a run that was killed
        left.unlink()
    return file


def train(a: argparse.Namespace) -> int:
    device = a.device if a.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ToolError("--device cuda: PyTorch finds no such device here; use --device cpu.")
    torch.set_num_threads(a.threads or parallel.share_of_cpus())
    folder = pathlib.Path(a.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(f"{folder}: cannot be made ({error.strerror}); choose a folder that can be.") from error
    if (folder / "last.pt").exists() and not a.resume:
        raise ToolError(f"{folder}: holds a run; add --resume to go on with it, or choose another folder.")
    try:
        with lock(folder) if os.environ.get("RANK", "0") == "0" else contextlib.nullcontext():
            return train_in(folder, a, device)
    except OSError as error:
        raise ToolError(f"{folder}: cannot be written ({error.strerror or error}); make room there, then --resume.") from error


def train_in(folder: pathlib.Path, a: argparse.Namespace, device: str) -> int:
    group = parallel.Group(device)

    def say(text: str) -> None:
        if group.rank == 0:
            print(f"train.py: {text}", file=sys.stderr)

    state, digest = starting_state(a.start, a)
    faces, held_out = gather(a, say, group.rank == 0)
    batch = a.people * a.pictures
    if batch % group.size:
        raise ToolError(f"{batch} faces a batch cannot be shared by {group.size} processes; change --people or --pictures.")
    options = loop.Options(
        dim=a.dim, width=a.width, data="+".join(each.digest() for each in (faces, held_out) if each is not None), start=digest,
        freeze=a.freeze, loss=a.loss, mining=a.mining,
        margin=DEFAULT_MARGIN[a.loss] if a.margin is None else a.margin, scale=16.0 if a.scale is None else a.scale,
        centre_weight=0.1 if a.centre_weight is None else a.centre_weight,
        people=a.people, pictures=a.pictures, epochs=a.epochs,
        steps=a.steps or data.Passes(faces.labels, a.people, a.pictures, a.seed).steps,
        rate=a.rate, schedule=a.schedule, warmup=a.warmup, decay=a.decay, decay_all=a.decay_all, optimiser=a.optimiser, dropout=a.dropout,
        augment=a.augment, keep=a.keep, precision=a.precision, seed=a.seed,
    )  # fmt: skip
    trainer = loop.Trainer(options, state, faces, held_out, folder, group, device, a.tensorboard)
    say(f"{len(faces.paths)} pictures of {len(faces.people)} people, held out: "
        + (f"{len(held_out.paths)} of {len(held_out.people)}, {len(trainer.pairs.same)} pairs" if held_out else "nobody")
        + f"; {options.epochs} epochs of {options.steps} steps of {batch}, every picture in {trainer.passes.steps}")  # fmt: skip
    if group.rank == 0 and trainer.pairs is not None and not loop.write_pairs(folder / "pairs.txt", trainer.pairs, held_out):
        say("no pairs.txt for `facenet evaluate`: that wants pictures called NAME/NAME_0001.png, each number once")
    if a.resume and (folder / "last.pt").exists():
        trainer.resume()
        say(f"going on from step {trainer.step}")
    if trainer.step == 0 and trainer.pairs is not None and group.rank == 0:
        for what, score in trainer.baselines().items():
            say(f"{what}: {score.line()}")
    group.wait()
    try:
        trainer.run(a.save_every or options.steps)
    except loop.Collapsed as error:
        say(str(error))
        return 1
    finally:
        group.close()
    if trainer.best is not None:
        print(f"{a.keep}: {trainer.best.line()}")
    return 0


def main() -> None:
    status = train(parse_arguments())
    if status:
        sys.exit(status)


if __name__ == "__main__":
    cli.run(main)
