"""The training loop: one step, one epoch, and everything that must survive a kill."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import pathlib
import sys
import tarfile

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from facenet_tools import checkpoint, cli
from facenet_tools.cli import ToolError
from facenet_tools.training import curves, data, losses, parallel, protocol

STEP_COLUMNS = ("step", "epoch", "rate", "loss", "active", "genuine", "impostor")
EPOCH_COLUMNS = ("step", "epoch", "accuracy", "deviation", "auc", "eer", "tar", "threshold")
PAIRS_PER_FOLD = 60
EVALUATION_BATCH = 32
NORM_BATCHES = 16  # from which batch norms' statistics are taken: a thousand pictures of the default batch


class Collapsed(Exception):
    """Training has ended in a state it does not come out of; the text says what to do."""


OVERFLOW = "numbers have overflowed: there are infinities or NaN. Lower --rate (a third), or use more --warmup."
CAUSES = (
    "All faces have become (nearly) one point, and there the gradient is nothing. Usual causes: batch_hard mining from random "
    "weights (begin with semi_hard, batch_all or --loss softmax, and go on from that checkpoint), too high a --rate, too few "
    "--people in a batch, wrong labels."
)
FORMAT = 3  # of last.pt
MEASURED = "facenet-trained"  # the format of best.json


@dataclasses.dataclass(frozen=True)
class Options:
    """All that decides the result; a run goes on only with what it began with."""

    dim: int
    width: float
    data: str  # the digest of the pictures trained on and held out
    start: str  # the SHA-256 of the checkpoint it starts from, or ""
    freeze: str
    loss: str
    mining: str
    margin: float
    scale: float
    centre_weight: float
    people: int
    pictures: int
    epochs: int
    steps: int  # of an epoch
    rate: float
    schedule: str
    warmup: int
    decay: float
    decay_all: bool
    optimiser: str
    dropout: float
    augment: float
    keep: str
    precision: str
    seed: int

    @property
    def batch(self) -> int:
        return self.people * self.pictures

    @property
    def last(self) -> int:
        return self.epochs * self.steps


def rate_at(step: int, options: Options) -> float:
    """The learning rate of a step, from 0: up in a line during the warm-up; then half a cosine to 0, or two falls to a
    tenth, after 60 % and 85 % of the steps that follow the warm-up."""
    if step < options.warmup:
        return options.rate * (step + 1) / options.warmup
    done = (step - options.warmup) / max(1, options.last - options.warmup)
    if options.schedule == "cosine":
        return options.rate * (1 + math.cos(math.pi * done)) / 2
    return options.rate * 0.1 ** ((done >= 0.6) + (done >= 0.85))


@dataclasses.dataclass
class CollapseWatch:
    """Sees when all embeddings become one point, from which no triplet has a gradient that pulls them apart.

    Unit vectors of strangers are 1.4 apart when nothing is learned, and about 1 to 1.4 afterwards. In a run that collapses
    they jump about between 0.04 and 0.3, so their moving mean is watched.
    """

    margin: float | None  # of a triplet loss
    apart: float = 1.4  # moving mean of the distances of strangers
    STEPS, NEAR = 30, 0.4
    EQUAL = 1e-5  # float32's rounding over the last layers; embeddings of a random network differ by 1e-3

    def see(self, loss: float, impostor: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(impostor)):  # mining drops triplets with NaN, and the loss is 0 then
            raise Collapsed(OVERFLOW)
        self.apart += (impostor - self.apart) / self.STEPS
        if self.apart >= self.NEAR:
            return
        where = f"; the loss is {loss:.4f}, and the margin {self.margin:g} is what equal embeddings cost" if self.margin else ""
        raise Collapsed(
            f"embeddings have collapsed: over some {self.STEPS} steps faces of different people have been {self.apart:.3f} apart "
            f"on average, where unit vectors could be 1.4{where}. {CAUSES}"
        )

    def see_held_out(self, embeddings: np.ndarray) -> None:
        """Those of evaluation, which uses running statistics: they can be equal where those of a batch are not."""
        if not np.isfinite(embeddings).all():
            raise Collapsed(OVERFLOW)
        if np.ptp(embeddings, axis=0).max() <= self.EQUAL:
            raise Collapsed(f"embeddings have collapsed: those of all people held out are equal. {CAUSES}")


def freeze_up_to(model: nn.Module, stage: str) -> list[nn.Module]:
    """Stops training of all stages up to `stage`: their weights stay, and so do their batch norms' statistics."""
    children = dict(model.named_children())
    stages = [name for name, child in children.items() if any(True for _ in child.parameters())]
    if stage not in stages:
        raise ToolError(f"--freeze {stage}: the stages of this network are {', '.join(stages)}.")
    frozen = list(children.values())[: list(children).index(stage) + 1]
    for child in frozen:
        child.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ToolError(f"--freeze {stage}: leaves nothing to train.")
    return frozen


def decayed(parameters: list[nn.Parameter], decay: float, every: bool) -> list[dict]:
    """Groups for an optimiser. Decay is for the weights of layers. Batch norms' scales and shifts, and biases, all that is one
    number a channel, have none unless `every`: a scale's pull to 0 is no regularisation, the next layer undoes it."""
    plain = [] if every else [p for p in parameters if p.dim() < 2]
    weights = parameters if every else [p for p in parameters if p.dim() >= 2]
    groups = [{"params": weights, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class Trainer:
    def __init__(
        self, options: Options, state: checkpoint.StateDict | None, train: data.Faces, held_out: data.Faces | None,
        folder: pathlib.Path, group: parallel.Group, device: str, tensorboard: bool = False,
    ) -> None:  # fmt: skip
        self.options, self.group, self.device, self.folder = options, group, device, folder
        self.dtype = torch.float64 if options.precision == "double" else torch.float32
        torch.manual_seed(options.seed)
        model = checkpoint.build_model(options.dim, width=options.width)
        if state is not None:
            model.load_state_dict(state, strict=False)  # checked before; counters may be missing
        model.requires_grad_(True).dropout.p = options.dropout
        self.frozen = freeze_up_to(model, options.freeze) if options.freeze else []
        parallel.share_batch_norms(model, group)
        self.model = model.to(device, self.dtype)
        self.head = None
        if options.loss != "triplet":
            head = losses.Head(
                options.loss, options.dim, len(train.people), options.margin, options.scale, options.centre_weight
            )
            self.head = head.to(device, self.dtype)
        self.parameters = [p for module in (self.model, self.head) if module for p in module.parameters() if p.requires_grad]
        groups = decayed(self.parameters, options.decay, options.decay_all)
        if options.optimiser == "sgd":
            self.optimiser = torch.optim.SGD(groups, options.rate, momentum=0.9)
        else:
            self.optimiser = torch.optim.AdamW(groups, options.rate)
        self.mixed = options.precision == "mixed"
        self.scaler = torch.cuda.amp.GradScaler(enabled=self.mixed and device == "cuda")
        self.watch = CollapseWatch(options.margin if options.loss == "triplet" else None)
        self.loader = data.Loader(train, self.dtype)
        self.passes = data.Passes(train.labels, options.people, options.pictures, options.seed)
        self.held_out, self.best = held_out, None
        self.pairs = None if held_out is None else protocol.make_pairs(held_out.labels, PAIRS_PER_FOLD, options.seed)
        self.held_out_loader = None if held_out is None else data.Loader(held_out, self.dtype)
        self.step = 0
        self.writer = _tensorboard(folder) if tensorboard and group.rank == 0 else None

    # ---- One step ------------------------------------------------------------------------------------------------------

    def plan(self, step: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Which pictures a step's batch has, and the key of all else that is random in it."""
        return self.passes.batch(step), (self.options.seed, step)

    def train_step(self) -> dict[str, float]:
        o, rows = self.options, self.group.rows(self.options.batch)
        pixels, labels = self.loader.batch(self.plan, self.step, rows, o.augment)
        labels = torch.from_numpy(labels).to(self.device)
        torch.manual_seed(hash((o.seed, self.step, self.group.rank)) % 2**63)  # dropout; hashes of integers are the same always
        self.model.train()
        for module in self.frozen:
            module.eval()
        rate = rate_at(self.step, o)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        half = torch.float16 if self.device == "cuda" else torch.bfloat16
        with torch.autocast(self.device, half, enabled=self.mixed):
            embeddings = self.model(pixels.to(self.device))
        embeddings = embeddings.to(self.dtype)
        gathered = self.group.gather(embeddings)
        if self.head is None:
            found = losses.triplet(gathered, labels, o.mining, o.margin)
        else:
            loss, wrong = self.head(embeddings, labels[rows.start : rows.stop], o.batch)
            share = self.group.sum(torch.stack([loss.detach(), wrong.to(self.dtype) / o.batch]))
            found = losses.BatchLoss(loss, share[0], float(share[1]))
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(found.backward).backward()  # where mining found nothing it is 0; momentum and decay go on
        self.group.sum_gradients(self.parameters)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        genuine, impostor = mean_distances(gathered.detach(), labels)
        self.step += 1
        value = float(found.value)
        self.watch.see(value, impostor)
        epoch = (self.step - 1) // o.steps + 1
        return dict(zip(STEP_COLUMNS, (self.step, epoch, rate, value, found.active, genuine, impostor)))

    # ---- Validation ------------------------------------------------------------------------------------------------------

    def embed(self, loader: data.Loader) -> np.ndarray:
        self.model.eval()
        every = np.arange(len(loader.faces.paths))
        batches = [every[start : start + EVALUATION_BATCH] for start in range(0, len(every), EVALUATION_BATCH)]
        with torch.no_grad():
            return torch.cat([self.model(batch.to(self.device)).cpu() for batch in loader.plain(batches)]).numpy()

    def settle_norms(self) -> None:
        """Takes the running statistics anew, with the weights as they are now, from some batches of the last pass without
        augmentation and dropout ("precise batch norm"; Wu and Johnson, "Rethinking Batch in BatchNorm", 2021). The moving
        averages of training lag behind weights that change, and begin with a variance of 1: after 100 steps 1 % of it is left,
        after 16 steps 19 %. Training steps do not read them. Frozen stages keep theirs. Every process takes its rows."""
        frozen = {id(norm) for stage in self.frozen for norm in stage.modules()}
        norms = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and id(m) not in frozen]
        first = (self.step - 1) // self.passes.steps * self.passes.steps
        rows = self.group.rows(self.options.batch)
        batches = [self.passes.batch(step)[rows.start : rows.stop] for step in range(first, first + min(NORM_BATCHES, self.passes.steps))]
        kept = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
        sums = [torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms]  # means, their squares, variances
        self.model.eval()
        for norm in norms:
            norm.train()
            norm.momentum = 1.0  # running statistics are then the batch's
        with torch.no_grad():
            for batch in self.loader.plain(batches):
                self.model(batch.to(self.device))
                for norm, total in zip(norms, sums):
                    mean = norm.running_mean.double().cpu()
                    total += torch.stack([mean, mean.square(), norm.running_var.double().cpu()])
            for norm, total, (momentum, counter) in zip(norms, sums, kept):
                mean, square, variance = total / len(batches)
                norm.running_mean.copy_(mean)
                norm.running_var.copy_(variance + (square - mean.square()).clamp_min(0))  # within batches, and between them
                norm.num_batches_tracked.copy_(counter)
                norm.momentum = momentum

    def validate(self) -> protocol.Score:
        embeddings = self.embed(self.held_out_loader)
        self.watch.see_held_out(embeddings)
        return protocol.evaluate(embeddings, self.pairs)

    def baselines(self) -> dict[str, protocol.Score]:
        """What needs no training: grey pixels at a fifth of the size, each picture's mean and deviation taken out, and the
        network as it begins. A set on which these do well says little about a network. Their thresholds are of their own
        distances: a random network's are below the protocol's step of 0.01, and would all be accepted."""
        loader = self.held_out_loader
        small = [np.asarray(Image.fromarray(loader.picture(i)).convert("L").reduce(5), np.float64) for i in range(len(loader.faces.paths))]
        vectors = np.stack([(grey - grey.mean()) / max(float(grey.std()), 1e-9) for grey in small]).reshape(len(small), -1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
        embeddings = self.embed(loader)
        return {name: protocol.evaluate(each, self.pairs, own_thresholds=True)
                for name, each in (("raw pixels", vectors), ("before training", embeddings))}  # fmt: skip

    # ---- What survives ---------------------------------------------------------------------------------------------------

    def save(self) -> None:
        best = None if self.best is None else {
            **dataclasses.asdict(self.best), "fpr": self.best.fpr.tolist(), "tpr": self.best.tpr.tolist()
        }  # fmt: skip
        # Read with weights_only, so that no file runs code; that takes tensors, integers and texts, but no floats.
        numbers = {"options": dataclasses.asdict(self.options), "scaler": self.scaler.state_dict(), "apart": self.watch.apart, "best": best}
        state = {
            "format": FORMAT, "step": self.step, "numbers": json.dumps(numbers), "model": self.model.state_dict(),
            "head": self.head.state_dict() if self.head else {}, "optimiser": self.optimiser.state_dict()["state"],
        }  # fmt: skip
        _check_finite(state["model"], state["head"])
        _write(self.folder / "last.pt", state)

    def resume(self) -> None:
        """Takes up FOLDER/last.pt, and cuts the logs back to it."""
        path = self.folder / "last.pt"
        try:
            if tarfile.is_tarfile(path):  # where weights_only does not protect; torch wrote those before 0.1.10
                raise ValueError("a tar archive")
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # torch raises anything on a damaged file
            raise ToolError(f"{path}: cannot be read ({str(error).splitlines()[0]}); remove it to begin anew.") from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise ToolError(f"{path}: is not what this train.py writes; remove it to begin anew, or choose another folder.")
        numbers = json.loads(state["numbers"])
        ours, theirs = dataclasses.asdict(self.options), numbers["options"]
        other = [f"{name} {theirs.get(name)}, now {value}" for name, value in ours.items() if theirs.get(name) != value]
        if theirs["data"] != self.options.data:
            raise ToolError(
                f"{path}: that run was begun with other pictures or people, trained on or held out; put them back, or choose "
                "another folder."
            )
        if other:
            raise ToolError(f"{path}: that run was begun with {'; '.join(other)}; give the same options, or another folder.")
        self.model.load_state_dict(state["model"])
        if self.head is not None:
            self.head.load_state_dict(state["head"])
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state["optimiser"]})
        if numbers["scaler"]:  # empty where that device needed none
            self.scaler.load_state_dict(numbers["scaler"])
        self.step, self.watch.apart, best = state["step"], numbers["apart"], numbers["best"]
        if best is not None:
            self.best = protocol.Score(**{**best, "fpr": np.array(best["fpr"]), "tpr": np.array(best["tpr"])})

    # ---- The whole run ---------------------------------------------------------------------------------------------------

    def run(self, save_every: int) -> None:
        o, first = self.options, self.group.rank == 0
        logs = [_Log(self.folder / name, columns, self.step) for name, columns in
                (("steps.csv", STEP_COLUMNS), ("epochs.csv", EPOCH_COLUMNS))] if first else []  # fmt: skip
        bar = tqdm(total=o.last, initial=self.step, unit="step", disable=None if first else True)
        try:
            self._steps(save_every, logs, bar)
        finally:  # also of a run that has collapsed: the curves show how
            bar.close()
            if first:
                for log in logs:
                    log.flush()
                curves.draw(self.folder, o.margin if o.loss == "triplet" else None, self.best)

    def _steps(self, save_every: int, logs: list[_Log], bar: tqdm) -> None:
        o, first = self.options, self.group.rank == 0
        while self.step < o.last:
            row = self.train_step()
            bar.update()
            bar.set_postfix(loss=f"{row['loss']:.4f}", impostor=f"{row['impostor']:.2f}")
            if first:
                logs[0].add(row)
                self._board(row, "train")
            ended = self.step % o.steps == 0
            if ended:
                self.settle_norms()
            if ended and self.pairs is not None:
                if first:
                    self._validated(self.validate(), logs[1], bar)
                self.group.wait()
            if ended or self.step % save_every == 0:
                if first:
                    for log in logs:
                        log.flush()
                    if ended and self.pairs is None:
                        self.keep()
                    self.save()
                self.group.wait()

    def _validated(self, score: protocol.Score, log: _Log, bar: tqdm) -> None:
        epoch = self.step // self.options.steps
        row = {"step": self.step, "epoch": epoch, **{name: getattr(score, name) for name in EPOCH_COLUMNS[2:]}}
        log.add(row)
        self._board(row, "held out")
        bar.write(f"epoch {epoch}: {score.line()}", file=sys.stderr)
        # AUC still tells epochs apart where accuracies are equal.
        if self.options.keep == "last" or self.best is None or score.accuracy + score.auc > self.best.accuracy + self.best.auc:
            self.best = score
            self.keep()
            columns = io.StringIO()
            csv.writer(columns).writerows([("fpr", "tpr"), *zip(score.fpr.tolist(), score.tpr.tolist())])
            cli.write_atomically(str(self.folder / "roc.csv"), [columns.getvalue().encode()])

    def keep(self) -> None:
        """FOLDER/best.pt: a plain state_dict with facenet-pytorch's names, for tools/convert_weights.py."""
        state = {name: value.float().cpu() if value.is_floating_point() else value.cpu() for name, value in self.model.state_dict().items()}
        _check_finite(state)
        digest = _write(self.folder / "best.pt", state)
        if self.best is not None:
            self.keep_threshold(digest)

    def keep_threshold(self, digest: str) -> None:
        """FOLDER/best.json: the threshold that validation measured, which tools/convert_weights.py carries over for the
        checkpoint of that SHA-256. A state_dict has no place for it."""
        count, people = len(self.pairs.same), len(self.held_out.people)
        row = {
            "format": MEASURED, "version": 1, "checkpoint_sha256": digest, "step": self.step, "threshold": self.best.threshold,
            "threshold_source": f"train.py on {count} pairs of {people} people held out, accuracy {self.best.accuracy:.4f}",
            "accuracy": self.best.accuracy, "deviation": self.best.deviation, "auc": self.best.auc,
        }  # fmt: skip
        cli.write_atomically(str(self.folder / "best.json"), [f"{json.dumps(row)}\n".encode()])

    def _board(self, row: dict, what: str) -> None:
        if self.writer is not None:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    self.writer.add_scalar(f"{what}/{name}", value, row["step"])
            self.writer.flush()


class _Log:
    """A CSV file of rows with a step: what follows `step` was written after the last checkpoint, and goes."""

    def __init__(self, path: pathlib.Path, columns: tuple[str, ...], step: int) -> None:
        kept = []
        if step > 0 and path.exists():
            held = cli.decoded(path.read_bytes(), path, "remove it, and --resume goes on without what it held.")
            rows = csv.reader(io.StringIO(held, newline=""))
            kept = [row for row in rows if len(row) == len(columns) and row[0].isdecimal() and int(row[0]) <= step]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *kept])
        cli.write_atomically(str(path), [text.getvalue().encode()])
        self._file = open(path, "a", newline="")  # noqa: SIM115 (open as long as the run)
        self._writer = csv.DictWriter(self._file, columns, lineterminator="\n")

    def add(self, row: dict) -> None:
        self._writer.writerow(row)

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def mean_distances(embeddings: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean Euclidean distance of pairs of one person, and of pairs of two."""
    distances = losses.squared_distances(embeddings).sqrt()
    same = labels[:, None] == labels[None]
    other = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return float(distances[same & other].mean()), float(distances[~same].mean())


def _check_finite(*states: checkpoint.StateDict) -> None:
    if not all(torch.isfinite(value).all() for state in states for value in state.values()):
        raise Collapsed(OVERFLOW)


def _write(path: pathlib.Path, state: dict) -> str:
    """Returns the file's SHA-256."""
    file = io.BytesIO()
    torch.save(state, file)
    cli.write_atomically(str(path), [file.getvalue()])
    return hashlib.sha256(file.getvalue()).hexdigest()


def _tensorboard(folder: pathlib.Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ToolError(f"--tensorboard: {error}; install it: .venv/bin/python -m pip install tensorboard.") from error
    return SummaryWriter(str(folder / "tensorboard"))


def write_pairs(path: pathlib.Path, pairs: protocol.Pairs, faces: data.Faces) -> bool:
    """LFW's pairs.txt, for `facenet evaluate`. False where pictures are not called NAME/NAME_0001.png, as that wants, or
    a number is there twice (.png and .jpg)."""
    numbers = []
    for face, label in zip(faces.paths, faces.labels):
        name, _, number = face.stem.rpartition("_")
        if name != faces.people[label] or len(number) != 4 or not number.isdigit() or any(c.isspace() for c in name):
            return False
        numbers.append(int(number))
    if len(set(zip(faces.labels.tolist(), numbers))) < len(numbers):
        return False
    lines = [f"{protocol.FOLDS}\t{len(pairs.same) // (2 * protocol.FOLDS)}"]
    for a, b, same in zip(pairs.first, pairs.second, pairs.same):
        one, other = faces.people[faces.labels[a]], faces.people[faces.labels[b]]
        lines.append("\t".join([one, str(numbers[a]), *([] if same else [other]), str(numbers[b])]))
    cli.write_atomically(str(path), [os.fsencode("".join(f"{line}\n" for line in lines))])
    return True
