"""Checkpoints as people have them, of a network a sixteenth as wide: read to the same bits, or answered in a sentence that is true."""

from __future__ import annotations

import argparse
import collections
import copy
import hashlib
import importlib
import io
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from conftest import TOOLS, assert_one_error, run_tool
from safetensors.torch import save_file
from torch import nn

from facenet_tools import checkpoint, pickled, sources
from facenet_tools.cli import ToolError

DIM, WIDTH = 64, 1 / 16


@pytest.fixture(scope="session")
def network() -> nn.Module:
    torch.manual_seed(0)
    model = checkpoint.build_model(DIM, width=WIDTH)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif "bn." in name and value.is_floating_point():
            value.uniform_(0.1, 1)
    return model


@pytest.fixture(scope="session")
def small(network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.fixture(scope="session")
def live(small) -> dict[str, torch.Tensor]:
    """The same with statistics near its layers': embeddings of two pictures are 0.2 apart. Of `small` hardly more than the biases reach the end."""
    random = torch.Generator().manual_seed(0)
    state = {name: value.clone() for name, value in small.items()}
    for name, value in state.items():
        if name.endswith(("running_var", "running_mean")):
            value.uniform_(*((0.005, 0.02) if name.endswith("var") else (-0.1, 0.1)), generator=random)
    return state


def other(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same network with other numbers."""
    return {name: value * 2 if value.is_floating_point() else value for name, value in state.items()}


def prefixed(state: dict, prefix: str) -> collections.OrderedDict:
    return collections.OrderedDict((prefix + name, value) for name, value in state.items())


def assert_reads(path: pathlib.Path, state: dict[str, torch.Tensor], **options) -> sources.Source:
    source = sources.read(str(path), **options)
    wanted = {name: value for name, value in state.items() if "num_batches" not in name and not name.startswith("logits.")}
    assert source.state.keys() == wanted.keys() and (source.dim, source.width) == (DIM, WIDTH)
    for name, value in wanted.items():
        assert torch.equal(source.state[name].double(), value.double()), name
    return source


def refused(path: pathlib.Path, *parts: str, **options) -> str:
    with pytest.raises(ToolError) as error:
        sources.read(str(path), **options)
    text = str(error.value)
    assert path.name in text and all(part in text for part in parts), text
    assert text.count("\n") <= 20
    return text


# ---- Names and nesting -----------------------------------------------------------------------------------------------------------

PREFIXES = ("module.", "_orig_mod.", "module._orig_mod.", "model.", "net.", "backbone.", "encoder.0.face_net.")
NESTED = {
    "state_dict": lambda s: {"state_dict": prefixed(s, "model."), "epoch": 3, "pytorch-lightning_version": "2.0"},
    "model": lambda s: {"model": s, "epoch": 5, "loss": 0.25, "lr_scheduler": {"last_lr": [1e-3]}},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {0: {"exp_avg": s["last_bn.bias"]}}}, "loss": 0.1},
    "net": lambda s: {"net": prefixed(s, "module."), "acc": 99.5, "amp": None, "best": float("inf")},
    "with_args": lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1, path=pathlib.Path("/data")), "best": np.float64(0.99)},
    "deep": lambda s: {"checkpoint": {"learner": {"network": s}}, "rng": [torch.get_rng_state(), np.arange(3)]},
    "in_a_list": lambda s: [3, {"optim": {}}, s],
    "beside_numbers": lambda s: {**s, "epoch": 3, "loss": 0.5, "name": "mine"},
    "other_heads": lambda s: {"state_dict": {**prefixed(s, "model."), "arcface.weight": torch.zeros(9, DIM), "n_averaged": torch.tensor(3)}},
    "classifier": lambda s: {**s, "logits.weight": torch.zeros(10, DIM), "logits.bias": torch.zeros(10)},
    "parameters": lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
    "siamese": lambda s: {**prefixed(s, "anchor."), **prefixed(s, "positive.")},
    "untouched_optimiser": lambda s: {"model": s, "optimiser": {"lr": 0.1}},
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "stream"])
def test_any_prefix_and_any_nesting(small, tmp_path, legacy):
    cases = {f"prefix {p}": prefixed(small, p) for p in PREFIXES} | {name: make(small) for name, make in NESTED.items()}
    for name, content in list(cases.items())[:: 4 if legacy else 1]:
        path = tmp_path / f"{name.replace(' ', '_')}.pt"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        assert_reads(path, small)
        path.unlink()


def test_a_prefixed_safetensors_file(small, tmp_path):
    save_file(prefixed(small, "backbone."), tmp_path / "model.safetensors")
    assert_reads(tmp_path / "model.safetensors", small)
    assert_reads(tmp_path, small)  # a folder as Hugging Face's hub has it


def test_half_a_prefix_is_no_prefix(small, tmp_path):
    """One without a dot, and one before some of the names only."""
    torch.save(prefixed(small, "x"), tmp_path / "glued.pt")
    refused(tmp_path / "glued.pt", "602 keys are missing, 602 unexpected")
    mixed = {(f"net.{name}" if i % 3 == 0 else name): value for i, (name, value) in enumerate(small.items())}
    torch.save(mixed, tmp_path / "mixed.pt")
    refused(tmp_path / "mixed.pt", "keys are missing", "unexpected: net.")


def test_averaged_weights_are_named_and_chosen(small, tmp_path, capsys):
    for plain, averaged in (("state_dict", "state_dict_ema"), ("model", "model_ema"), ("net", "ema"), ("params", "EMAModel")):
        torch.save({plain: small, averaged: other(small), "epoch": 1}, tmp_path / "both.pt")
        assert_reads(tmp_path / "both.pt", small)
        assert f"holds averaged weights too, at {averaged}; the others are taken, --ema takes these" in capsys.readouterr().err
        assert_reads(tmp_path / "both.pt", other(small), averaged=True)
    torch.save({"online_model." + k: v for k, v in small.items()} | {"ema_model." + k: v for k, v in other(small).items()}, tmp_path / "two.pt")
    assert_reads(tmp_path / "two.pt", small)
    assert_reads(tmp_path / "two.pt", other(small), averaged=True)
    torch.save(small, tmp_path / "none.pt")
    refused(tmp_path / "none.pt", "no averaged weights", "leave out --ema", averaged=True)
    torch.save({"state_dict_ema": small}, tmp_path / "only.pt")
    assert_reads(tmp_path / "only.pt", small)
    assert "its averaged weights, state_dict_ema, are taken" in capsys.readouterr().err


def test_two_networks_are_a_question(small, tmp_path):
    torch.save({"last": small, "best": other(small)}, tmp_path / "two.pt")
    refused(tmp_path / "two.pt", "holds the network 2 times, with other numbers; choose with --entry: last, best")
    assert_reads(tmp_path / "two.pt", other(small), entry="best")
    refused(tmp_path / "two.pt", "at worst; there are: last, best", entry="worst")


def test_foreign_and_renamed_weights_are_five_of_each(small, tmp_path):
    torch.save({f"layer{i}.weight": torch.zeros(1) for i in range(1205)}, tmp_path / "foreign.pt")
    text = refused(tmp_path / "foreign.pt", "602 keys are missing, 1205 unexpected", "missing: ... and 597 more", "unexpected: ... and 1200 more")
    assert text.count("missing: ") == 6 and text.count("unexpected: ") == 6
    torch.save({k.replace("running_var", "running_variance"): v for k, v in small.items()}, tmp_path / "renamed.pt")
    refused(tmp_path / "renamed.pt", "(112 keys are missing, 112 unexpected", "unexpected: conv2d_1a.bn.running_variance")


# ---- Types, strides, order of bytes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "stream"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_type(small, tmp_path, dtype, legacy):
    cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in small.items()}
    torch.save(cast, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    assert_reads(tmp_path / "x.pt", cast)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "stream"])
def test_strides_and_shared_storages(small, tmp_path, legacy):
    """Transposed, channels last, a slice of a larger tensor, expanded, and all biases in one storage."""
    state = dict(small)
    state["last_linear.weight"] = small["last_linear.weight"].T.contiguous().T
    state["conv2d_2a.conv.weight"] = small["conv2d_2a.conv.weight"].contiguous(memory_format=torch.channels_last)
    state["conv2d_2b.conv.weight"] = torch.cat([torch.ones(3, *small["conv2d_2b.conv.weight"].shape[1:]), small["conv2d_2b.conv.weight"]])[3:]
    state["conv2d_1a.bn.bias"] = torch.full((1,), 0.25).expand(2)
    names = [name for name in small if name.endswith("bn.bias") and name != "conv2d_1a.bn.bias"]
    state |= dict(zip(names, torch.cat([small[name] for name in names]).split([len(small[name]) for name in names])))
    assert not state["last_linear.weight"].is_contiguous() and state[names[1]].storage_offset() > 0
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    assert_reads(tmp_path / "x.pt", state)


def repacked(path: pathlib.Path, change, compression: int = zipfile.ZIP_STORED) -> None:
    """Writes a .pt again with each part changed; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in contents.items():
            changed = change(name, data)
            if changed is not None:
                archive.writestr(name, changed)


def test_the_other_order_of_bytes(small, tmp_path):
    state = {name: value.float() for name, value in small.items()}
    torch.save(state, tmp_path / "x.pt")
    repacked(tmp_path / "x.pt", lambda name, data: np.frombuffer(data, "<f4").astype(">f4").tobytes() if "/data/" in name else data)
    with zipfile.ZipFile(tmp_path / "x.pt", "a") as archive:
        archive.writestr("x/byteorder", "big")
    if "archive/data.pkl" in zipfile.ZipFile(tmp_path / "x.pt").namelist():
        repacked(tmp_path / "x.pt", lambda name, data: data)
        with zipfile.ZipFile(tmp_path / "x.pt", "a") as archive:
            archive.writestr("archive/byteorder", "big")
    assert_reads(tmp_path / "x.pt", small)


def test_a_deflated_archive(small, tmp_path):
    torch.save(small, tmp_path / "x.pt")
    repacked(tmp_path / "x.pt", lambda name, data: data, zipfile.ZIP_DEFLATED)
    assert_reads(tmp_path / "x.pt", small)


def test_newer_torch_writes_untyped_storages_and_dtypes(small, tmp_path):
    """torch 2's _rebuild_tensor_v3, as torch/_tensor.py calls it; 1.13 lacks it, so the pickle is written here."""
    raw = {}

    class Rebuilt:
        def __init__(self, value: torch.Tensor) -> None:
            self.value = value

        def __reduce__(self):
            raw[str(len(raw))] = self.value.contiguous().numpy().tobytes()
            shape, strides = tuple(self.value.shape), tuple(self.value.contiguous().stride())
            arguments = (Stored(str(len(raw) - 1), len(raw[str(len(raw) - 1)])), 0, shape, strides, False, collections.OrderedDict(), torch.float32)
            return torch._utils._rebuild_tensor_v2, arguments  # renamed below

    class Stored:
        def __init__(self, key: str, size: int) -> None:
            self.key, self.size = key, size

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, value.key, "cpu", value.size) if isinstance(value, Stored) else None

    state = {name: value for name, value in small.items() if value.is_floating_point()}
    text = io.BytesIO()
    Pickler(text, 2).dump({name: Rebuilt(value) for name, value in state.items()})
    data = text.getvalue().replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v3").replace(b"ctorch\nFloatStorage\n", b"ctorch.storage\nUntypedStorage\n")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        for name, content in {"data.pkl": data, "version": b"3\n", **{f"data/{key}": value for key, value in raw.items()}}.items():
            archive.writestr(f"x/{name}", content)
    assert_reads(tmp_path / "x.pt", state)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_numpy_arrays(small, tmp_path, protocol):
    arrays = {name: value.numpy() for name, value in small.items()}
    arrays["last_linear.weight"] = np.asfortranarray(arrays["last_linear.weight"])
    arrays["last_bn.bias"] = arrays["last_bn.bias"].astype(">f8")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"state_dict": arrays}, protocol))
    assert_reads(tmp_path / "x.pkl", small)


@pytest.mark.parametrize("core", ["core", "_core"])
def test_checkpoints_of_numpy_arrays(small, tmp_path, core):
    """In torch.save's containers, with numpy's numbers between, and as numpy 2 calls its functions. Protocol 2 spells names in lines."""
    arrays = {name: value.numpy() for name, value in small.items()}
    arrays["last_bn.weight"] = arrays["last_bn.weight"].astype(np.float64)
    values = {"model": arrays, "epoch": np.int64(3), "best": np.float64(0.99), "at": np.datetime64(0, "s"), "who": np.str_("me")}
    for legacy in (False, True):
        torch.save(values, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
        renamed = lambda name, data: data.replace(b"cnumpy.core.", b"cnumpy.%s." % core.encode())  # noqa: E731
        if legacy:
            (tmp_path / "x.pt").write_bytes(renamed("", (tmp_path / "x.pt").read_bytes()))
        else:
            repacked(tmp_path / "x.pt", renamed)
        assert_reads(tmp_path / "x.pt", small)
    (tmp_path / "x.pkl").write_bytes(renamed("", pickle.dumps({**arrays, "last_bn.bias": np.float32(1)}, 2)))
    refused(tmp_path / "x.pkl", "last_bn.bias is float, not a tensor; save model.state_dict()")


@pytest.mark.parametrize("name", ["longdouble", "complex256", "object", "uint16", "uint64", "datetime64[s]", "U3", "V4", "f4,f4"])
def test_arrays_of_what_is_no_number_are_named(small, tmp_path, name):
    """With --unsafe too, where PyTorch loads them."""
    array = np.zeros(DIM, name)
    for values in ({**small, "last_bn.bias": array}, {**small, "last_bn.bias": array, "extra": Call(getattr, 3, "real")}):
        torch.save(values, tmp_path / "x.pt")
        code = "extra" in values
        text = refused(tmp_path / "x.pt", "last_bn.bias is ", "" if code else "a plain tensor of numbers; save it as float32", unsafe=code)
        assert code or array.dtype.name.split("[")[0] in text
    torch.save(array, tmp_path / "y.pt")
    refused(tmp_path / "y.pt", "holds an array, not a state_dict; save model.state_dict()")


def test_unsafe_takes_arrays_too(small, tmp_path):
    arrays = {name: value.numpy() for name, value in small.items()}
    arrays["last_bn.bias"] = np.ma.masked_array(arrays["last_bn.bias"].astype(">f4"))
    torch.save(arrays, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "holds Python objects (numpy.ma.core._mareconstruct)", "--unsafe")
    assert_reads(tmp_path / "x.pt", small, unsafe=True)


def test_float8(small, tmp_path):
    """torch 1.13 has none; its bytes are those of an 8-bit storage."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    exact = {n: v.numpy().astype(ml_dtypes.float8_e5m2) for n, v in small.items() if v.is_floating_point()}
    torch.save({name: torch.from_numpy(value.view(np.uint8)) for name, value in exact.items()}, tmp_path / "x.pt")
    repacked(tmp_path / "x.pt", lambda name, data: data.replace(b"ctorch\nByteStorage\n", b"ctorch\nfloat8_e5m2Storage\n"))
    assert_reads(tmp_path / "x.pt", {name: torch.from_numpy(value.astype(np.float32)) for name, value in exact.items()})


def test_plain_pickles_of_tensors(small, tmp_path):
    """Each storage is a stream of torch.save in itself."""
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(small))
    assert_reads(tmp_path / "x.pkl", small)


def test_reading_needs_no_torch(small, tmp_path):
    torch.save({"model": small, "loss": 0.5}, tmp_path / "x.pt")
    program = (
        "import sys, importlib.util, types; sys.modules['torch'] = None\n"
        f"package = types.ModuleType('facenet_tools'); package.__path__ = [{str(TOOLS / 'facenet_tools')!r}]; sys.modules['facenet_tools'] = package\n"
        "from facenet_tools import pickled\n"
        f"print(pickled.load({str(tmp_path / 'x.pt')!r})['model']['last_bn.bias'].array().sum())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(float(small["last_bn.bias"].sum()), rel=1e-6)


# ---- Objects, programs, attacks --------------------------------------------------------------------------------------------------


def test_a_whole_module_is_read_without_running_its_class(network, small, tmp_path):
    torch.save(network, tmp_path / "whole.pt")
    assert_reads(tmp_path / "whole.pt", small)
    torch.save({"epoch": 3, "model": nn.DataParallel(network)}, tmp_path / "parallel.pt", _use_new_zipfile_serialization=False)
    assert_reads(tmp_path / "parallel.pt", small)


def test_torchscript_only_with_unsafe(network, small, tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 160, 160), check_trace=False), path)
    refused(path, "is TorchScript, whose weights lie inside a program", "save model.state_dict(), or add --unsafe")
    assert_reads(path, small, unsafe=True)


class Call:
    """Pickled, a call of a function by its name."""

    def __init__(self, function, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, exec, subprocess.check_output, getattr, __import__, print, open])
def test_no_call_in_a_pickle_is_made(small, tmp_path, monkeypatch, function):
    monkeypatch.chdir(tmp_path)
    argument = {eval: "open('ran', 'w')", exec: "open('ran', 'w')", os.mkdir: "ran", __import__: "this"}.get(function, "touch ran")
    hostile = {"state_dict": small, "extra": Call(function, argument)}
    for legacy in (False, True):
        torch.save(hostile, tmp_path / "hostile.pt", _use_new_zipfile_serialization=not legacy)
        refused(tmp_path / "hostile.pt", "holds Python objects", "reading those may run any code", "--unsafe")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(hostile["extra"]))
    refused(tmp_path / "plain.pkl", "holds Python objects")
    assert not (tmp_path / "ran").exists()


def test_an_object_in_the_place_of_weights_is_named(small, tmp_path):
    torch.save({**small, "last_bn.bias": argparse.Namespace()}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "holds Python objects (argparse.Namespace)")
    torch.save({**small, "last_bn.bias": [1.0]}, tmp_path / "y.pt")
    refused(tmp_path / "y.pt", "last_bn.bias is list, not a tensor")


def bomb(opcodes: bytes) -> bytes:
    return b"\x80\x02" + opcodes + b"."


BOMBS = {
    "nested list": b"]" * 100_000 + b"a" * 99_999,
    "nested tuple as a key": b"}" + b")" + b"\x85" * 100_000 + b"K\x01s",
    "memo index": b"K\x01r\xff\xff\xff\xff",
    "string of 2^62 bytes": b"\x8d" + struct.pack("<Q", 1 << 62),
    "bytes of 2^62 bytes": b"\x8e" + struct.pack("<Q", 1 << 62),
    "text of 2^31 bytes": b"X\xff\xff\xff\x7f",
    "bytearray(10^12)": b"c__builtin__\nbytearray\nK\x01\x8a\x06\x00\x10\xa5\xd4\xe8\x00\x86R",
    "stack of marks": b"(" * 100_000,
    "empty stack": b"0",
    "append to a number": b"K\x01K\x02a",
    "a class of the memo that is not there": b"h\x07",
    "an extension": b"\x82\x01",
    "a billion laughs": b"]" + b"q\x00" + b"".join(b"]q%c" % i + b"(" + b"h%c" % (i - 1) * 10 + b"e" for i in range(1, 40)),
    "build on a name": b"ccollections\nOrderedDict\n}X\x01\x00\x00\x00xK\x01sb",
    "a dictionary in itself": b"}q\x00X\x01\x00\x00\x00ah\x00s",
    "a list in itself": b"]q\x00h\x00a",
    "a module in itself": b"ctorch.nn\nModule\n)\x81q\x00}(X\x0b\x00\x00\x00_parametersX\x08\x00\x00\x00_buffersX\x08\x00\x00\x00_modulesu."[:-1],
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_hostile_pickles_are_a_sentence(tmp_path, name):
    import resource

    path, began = tmp_path / "bomb.pt", time.monotonic()
    path.write_bytes(bomb(BOMBS[name]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", bomb(BOMBS[name]))
        archive.writestr("x/version", "3\n")
    refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB
    assert time.monotonic() - began < 20


def test_hostile_archives_are_a_sentence(small, tmp_path):
    def archive(parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> pathlib.Path:
        with zipfile.ZipFile(tmp_path / "x.pt", "w", compression) as file:
            for name, data in parts.items():
                file.writestr(name, data)
        return tmp_path / "x.pt"

    torch.save({"last_linear.weight": torch.zeros(4, 4)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as file:
        good = {name: file.read(name) for name in file.namelist()}
    root = next(name for name in good if name.endswith("data.pkl")).removesuffix("data.pkl")
    refused(archive({**good, f"{root}data/0": b"\0" * (200 << 20)}, zipfile.ZIP_DEFLATED), "unpacks to much more than its size")
    refused(archive({name: data for name, data in good.items() if "/data/" not in name}), "without data/0")
    refused(archive({**good, f"{root}data/0": b"\0" * 60}), "data/0 has 60 bytes, 64 are described")
    refused(archive({**good, "other/data.pkl": b"N."}), "several data.pkl")
    refused(archive({f"{root}code/x.py": b"", **good}), "is TorchScript")
    damaged = bytearray(archive(good).read_bytes())
    damaged[damaged.index(b"\0" * 64)] = 1
    (tmp_path / "x.pt").write_bytes(damaged)
    refused(tmp_path / "x.pt", "data/0: Bad CRC-32")
    # A view that reaches beyond its storage reads no foreign memory.
    beyond = good[f"{root}data.pkl"].replace(b"K\x04K\x04\x86", b"K\x04K\xf0\x86", 1)
    assert beyond != good[f"{root}data.pkl"]
    refused(archive({**good, f"{root}data.pkl": beyond}), "beyond its storage")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "stream"])
def test_every_cut_is_a_sentence(small, tmp_path, legacy):
    torch.save(small, tmp_path / "whole.pt", _use_new_zipfile_serialization=not legacy)
    whole = (tmp_path / "whole.pt").read_bytes()
    for kept in (1, 4, 64, 1000, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        (tmp_path / "cut.pt").write_bytes(whole[:kept])
        refused(tmp_path / "cut.pt", "not a readable PyTorch checkpoint")


def test_values_stay_writable_and_apart_from_the_file(small, tmp_path):
    torch.save(small, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    before = (tmp_path / "x.pt").read_bytes()
    checkpoint.read(str(tmp_path / "x.pt"))["last_bn.bias"].zero_()
    assert (tmp_path / "x.pt").read_bytes() == before


def test_odd_tensors_are_named(small, tmp_path):
    torch.save({**small, "last_bn.bias": torch.quantize_per_tensor(torch.zeros(DIM), 0.1, 0, torch.qint8)}, tmp_path / "q.pt")
    refused(tmp_path / "q.pt", "last_bn.bias is quantised, not a plain tensor")


# ---- What is no checkpoint -------------------------------------------------------------------------------------------------------


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file.getvalue()


STRANGERS = {
    "x.npz": (npz(), "numpy's .npz", "save_file"),
    "x.tflite": (b"\x1c\0\0\0TFL3" + b"\0" * 40, "TensorFlow Lite"),
    "x.keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "Keras 3", "save_weights"),
    "20180402-114759.zip": (zipped("20180402-114759/", "20180402-114759/20180402-114759.pb"), "a zip archive with 20180402-114759/20180402-114759.pb", "unpack"),
    "x.zip": (zipped("a.txt"), "a zip archive without weights"),
    "x.pt2": (zipped("x/models/model.json", "x/data/weights/0"), "torch.export"),
    "html.pt": (b"<!DOCTYPE html><html>quota exceeded</html>", "a web page (HTML)", "download it again"),
    "spaces.pt": (b"\xef\xbb\xbf\n  <HTML>", "a web page (HTML)"),
    "s3.pt": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML file"),
    "lfs.pt": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a pointer of Git LFS", "git lfs pull"),
    "x.json": (b'{"message": "Not Found"}', "a JSON file"),
    "x.ort": (b"\x1c\0\0\0ORTM" + b"\0" * 40, "ONNX Runtime"),
    "x.gguf": (b"GGUF\x03\0\0\0", "GGUF"),
    "x.npy": (b"\x93NUMPY\x01\0v\0", "one array of numpy"),
    "x.7z": (b"7z\xbc\xaf\x27\x1c\0\x04", "7z archive; unpack it"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGERS)
def test_other_files_are_recognised_by_content(tmp_path, name):
    content, *parts = STRANGERS[name]
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, *parts)


FOLDERS = {
    "saved model": (("saved_model.pb", "variables/variables.index"), "TensorFlow SavedModel"),
    "sharded": (("config.json", "model.safetensors.index.json"), "in several parts"),
    "without weights": (("config.json", "README.md"), "Hugging Face without its weights"),
    "distributed": ((".metadata", "__0_0.distcp"), "torch.distributed"),
    "unpacked": (("data.pkl", "data/0", "version"), "an unpacked .pt"),
    "tfjs": (("model.json", "group1-shard1of1.bin"), "TensorFlow.js"),
    "several": (("a.pt", "b.pt"), "give one of its files (a.pt, b.pt)"),
    "empty": ((), "holds no TensorFlow checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_are_recognised_by_content(tmp_path, name):
    names, part = FOLDERS[name]
    folder = tmp_path / "in"
    folder.mkdir()
    for inside in names:
        (folder / inside).parent.mkdir(exist_ok=True)
        (folder / inside).write_bytes(b"x")
    refused(folder, part)


def test_a_header_that_looks_like_a_magic_number(small, tmp_path):
    """The length of a safetensors header is its first bytes: 0x5a4d is "MZ"."""
    path = tmp_path / "x.safetensors"
    save_file(small, path)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    wanted = next(n for n in range(length, length + (1 << 17)) if n & 0xFFFF == 0x5A4D)
    path.write_bytes(wanted.to_bytes(8, "little") + raw[8 : 8 + length].ljust(wanted) + raw[8 + length :])
    assert path.read_bytes()[:2] == b"MZ"
    assert_reads(path, small)


# ---- What comes out --------------------------------------------------------------------------------------------------------------


def convert(state: dict, tmp_path: pathlib.Path, *options: str):
    torch.save(state, tmp_path / "in.pt")
    return run_tool("convert_weights.py", tmp_path / "in.pt", "-o", tmp_path / "out.safetensors", *options), tmp_path / "out.safetensors"


def metadata(path: pathlib.Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return file.metadata()


def test_a_dead_network_is_not_written(small, tmp_path):
    """Zero, too short to normalise, and too large for float32 half-way."""
    dead = {**small, "last_bn.weight": torch.zeros(DIM), "last_bn.bias": torch.zeros(DIM)}
    short = {**small, "last_bn.weight": small["last_bn.weight"] * 1e-16, "last_bn.bias": small["last_bn.bias"] * 1e-16}
    large = {name: value * 1e20 if name.startswith("conv2d_") and name.endswith("bn.weight") else value for name, value in small.items()}
    for state, dtype, part in ((dead, "f32", "in.pt: its embedding of a picture is zero"), (short, "i8", "in.pt: its embedding of a picture is zero"),
                               (large, "f32", "in.pt: overflows: the output of conv2d_2b is too large for float32")):  # fmt: skip
        result, output = convert(state, tmp_path, "--dtype", dtype)
        assert_one_error(result, part)
        assert [p.name for p in tmp_path.iterdir()] == ["in.pt"]


def test_a_constant_network_is_not_written(live, tmp_path):
    """Only biases reach its end, so that all pictures have one embedding, which has length 1 and is no fault to the engine."""
    dead = {
        "conv2d_1a": {"conv2d_1a.conv.weight": 0, "conv2d_1a.bn.bias": 1},
        "last_linear": {"last_linear.weight": 0},
        "normalise": {"last_bn.weight": 1e-9},  # not equal: nearer than float32 tells
    }
    for place, factors in dead.items():
        state = {name: value * factors.get(name, 1) for name, value in live.items()}
        for dtype in ("f32", "i8"):
            result, output = convert(state, tmp_path, "--dtype", dtype)
            last = "last_linear" if place == "normalise" else place
            assert_one_error(result._replace(stdout=""), "in.pt: gives two different pictures embeddings", f"check the weights from {last} on.")
            assert [p.name for p in tmp_path.iterdir()] == ["in.pt"]


def test_a_written_file_is_read_again(small, tmp_path):
    """What the engine would refuse does not get its name."""
    from facenet_tools import safetensors_writer

    torch.save(small, tmp_path / "in.pt")
    source = sources.read(str(tmp_path / "in.pt"))
    import convert_weights

    details = convert_weights.metadata(source)
    good = {"a.weight": np.ones((2, 3), np.float32), "a.weight_scale": np.ones(2, np.float32), "selftest.embedding": np.array([0.6, 0.8], np.float32)}
    path = str(tmp_path / "out.safetensors")
    safetensors_writer.write(path, good, details, hashes=True)
    bad = [
        ({**good, "a.weight": np.full((2, 3), np.nan, np.float32)}, details, "a.weight has values that are NaN or infinite"),
        ({**good, "a.weight": np.full((2, 3), np.inf, np.float16)}, details, "NaN or infinite"),
        ({**good, "a.weight_scale": np.zeros(2, np.float32)}, details, "a scale that is not above 0"),
        ({**good, "selftest.embedding": np.zeros(2, np.float32)}, details, "has the length 0"),
        ({**good, "selftest.embedding": np.array([1e-3, 0], np.float32)}, details, "has the length 0.001"),
        ({**good, "a" * 129: np.ones(2, np.float32)}, details, "a shape or a name that is not read"),
        ({**good, "b": np.zeros((0, 3), np.float32)}, details, "a shape or a name"),
        (good, {**details, "licence": "x" * 4097}, "licence is empty or longer than 4096"),
        (good, {**details, "threshold": "1.1"}, "belong together"),
        (good, {**details, "threshold": "2.5", "threshold_source": "x"}, "threshold 2.5"),
        (good, {**details, "threshold": "nan", "threshold_source": "x"}, "threshold nan"),
        ({str(i): np.ones(1, np.float32) for i in range(4097)}, details, "4097 tensors"),
    ]
    before = (tmp_path / "out.safetensors").read_bytes()
    for tensors, said, part in bad:
        with pytest.raises(ToolError, match=f"is not written, since the engine would refuse it: .*{part}"):
            safetensors_writer.write(path, tensors, said, hashes=True)
    assert (tmp_path / "out.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pt", "out.safetensors"]


def test_a_measured_threshold_goes_along(small, live, tmp_path):
    measured = {"threshold": "0.829999999", "threshold_source": "validation: 12 people"}
    result, output = convert({**live, **measured}, tmp_path)
    assert result.returncode == 0, result.stderr
    assert {key: metadata(output)[key] for key in measured} == measured
    def said(content: dict) -> dict[str, str]:
        torch.save(content, tmp_path / "x.pt")
        return {key: value for key, value in sources.read(str(tmp_path / "x.pt")).metadata.items() if key in measured}

    assert said({"state_dict": small, **measured}) == measured
    save_file(small, tmp_path / "x.safetensors", metadata=measured)
    assert sources.read(str(tmp_path / "x.safetensors")).metadata["threshold"] == "0.829999999"
    for strange in ({"threshold": 0.5}, {"threshold": "0.5"}, {"threshold": 0.5, "threshold_source": "x"}):  # another program's
        assert said({"state_dict": small, **strange}) == {}
    for value in ("nan", "-1", "1e-3", "", "1" * 20):
        with pytest.raises(ToolError, match="metadata says threshold = "):
            said({"state_dict": small, "threshold": value, "threshold_source": "x"})


def test_pickled_is_bounded_by_instructions(tmp_path, monkeypatch):
    monkeypatch.setattr(pickled, "MOST_INSTRUCTIONS", 1000)
    (tmp_path / "x.pt").write_bytes(bomb(b"N0" * 600 + b"}"))
    refused(tmp_path / "x.pt", "too many instructions")


def test_keras_files_of_any_declared_size_are_bounded(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["layer_names"] = [b"Bottleneck"]
        group = file.create_group("Bottleneck")
        group.attrs["weight_names"] = [b"kernel:0"]
        group.create_dataset("kernel:0", (1 << 16, 1 << 20), "f4", chunks=(1, 1 << 20))  # 256 GiB, in 3 KB
    refused(tmp_path / "x.h5", "declares arrays much larger than the file")


# ---- ONNX ------------------------------------------------------------------------------------------------------------------------


def export(model: nn.Module, path: pathlib.Path, batch: int = 1, side: int = 160, **options) -> pathlib.Path:
    torch.onnx.export(model, torch.zeros(batch, 3, side, side), str(path), **options)
    return path


@pytest.fixture(scope="session")
def onnx():
    pytest.importorskip("onnx.reference", reason="no onnx: tools/bootstrap.sh installs it")
    return importlib.import_module("onnx")


@pytest.fixture(scope="session")
def opset9(onnx, network, tmp_path_factory) -> pathlib.Path:
    """Nothing folded, as the exporter of 2019 left it where it was told to keep training possible."""
    options = {"opset_version": 9, "do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}
    return export(network, tmp_path_factory.mktemp("onnx") / "opset9.onnx", **options)


@pytest.mark.parametrize("opset", [9, 18, *(pytest.param(opset, marks=pytest.mark.slow) for opset in (11, 13, 16))])
def test_onnx_of_every_opset(onnx, opset9, small, tmp_path, opset):
    """The package's evaluator normalises with the picture's own statistics in opsets 9 to 13."""
    model = onnx.load(opset9)
    onnx.save(model if opset == 9 else onnx.version_converter.convert_version(model, opset), tmp_path / "x.onnx")
    assert_reads(tmp_path / "x.onnx", small)


def test_onnx_with_its_tensors_beside_it(onnx, opset9, small, tmp_path):
    onnx.save_model(onnx.load(opset9), tmp_path / "x.onnx", save_as_external_data=True, location="x.onnx.data", size_threshold=64)
    source = assert_reads(tmp_path / "x.onnx", small)
    data = (tmp_path / "x.onnx.data").read_bytes()
    assert source.digest == hashlib.sha256((tmp_path / "x.onnx").read_bytes() + data).hexdigest()
    (tmp_path / "x.onnx.data").write_bytes(data[:-100])
    refused(tmp_path / "x.onnx", "x.onnx.data ends before")
    (tmp_path / "x.onnx.data").unlink()
    refused(tmp_path / "x.onnx", "its weights are in x.onnx.data, not beside it; copy that too")
    for place in ("../x.onnx.data", "/etc/passwd", "a/b", "..", ""):
        model = onnx.load(opset9)
        tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        onnx.external_data_helper.set_external_data(tensor, place)
        tensor.ClearField("raw_data")
        (tmp_path / "far.onnx").write_bytes(model.SerializeToString())
        refused(tmp_path / "far.onnx", "not one beside it")


def test_onnx_in_half_precision(onnx, opset9, small, tmp_path):
    """Weights are what they were rounded to; the comparison runs in float32."""
    model, half = onnx.load(opset9), onnx.TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.data_type == onnx.TensorProto.FLOAT:
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(attribute.t).astype(np.float16)))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.type.tensor_type.elem_type = half
    onnx.save(model, tmp_path / "half.onnx")
    assert_reads(tmp_path / "half.onnx", {name: value.half() if value.is_floating_point() else value for name, value in small.items()})


def test_onnx_looked_at_before_it_is_run(onnx, opset9, tmp_path):
    def changed(change) -> pathlib.Path:
        model = onnx.load(opset9)
        change(model.graph)
        onnx.save(model, tmp_path / "x.onnx")
        return tmp_path / "x.onnx"

    def shape(*sides: int):
        def change(graph) -> None:
            for dim, side in zip(next(i for i in graph.input if i.name not in {t.name for t in graph.initializer}).type.tensor_type.shape.dim, sides):
                dim.dim_value = side
        return change

    refused(changed(shape(1, 3, 112, 112)), "takes pictures of 3 x 112 x 112, FaceNet's have 3 x 160 x 160; export it with torch.zeros(1, 3, 160, 160)")
    refused(changed(shape(1, 160, 160, 3)), "rows x columns x 3")
    refused(changed(shape(1, 1, 160, 160)), "takes pictures of 1 x 160 x 160")
    refused(changed(shape(1000, 3, 160, 160)), "takes 1000 pictures at once")
    refused(changed(lambda graph: graph.node.append(onnx.helper.make_node("Loop", ["a"], ["b"]))), "operators that FaceNet does not need (Loop)")

    def train(graph) -> None:
        next(n for n in graph.node if n.op_type == "BatchNormalization").output.extend(["m", "v"])

    refused(changed(train), "in training mode; call model.eval()")


@pytest.mark.slow
@pytest.mark.parametrize("opset", [9, 11, 13, 16])
def test_onnx_as_the_exporter_writes_it(onnx, network, small, tmp_path, opset):
    """Folded, so batch norms come back as ones that only add: the embedding is compared, by the reader itself."""
    source = sources.read(str(export(network, tmp_path / "x.onnx", opset_version=opset)))
    assert source.state.keys() == {name for name in small if "num_batches" not in name and "logits" not in name}


@pytest.mark.slow
def test_onnx_of_any_batch_and_head(onnx, network, small, tmp_path, capsys):
    axes = {"x": {0: "n", 2: "h", 3: "w"}}
    sources.read(str(export(network, tmp_path / "dynamic.onnx", input_names=["x"], dynamic_axes=axes)))
    sources.read(str(export(network, tmp_path / "four.onnx", batch=4, opset_version=11)))
    assert capsys.readouterr().err == ""
    network = copy.deepcopy(network)
    network.classify, network.logits = True, nn.Linear(DIM, 10)
    kept = {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}
    assert_reads(export(network, tmp_path / "classifier.onnx", opset_version=11, **kept), small)
    network.logits = nn.Identity()
    assert_reads(export(network, tmp_path / "raw.onnx", **kept), small)
    assert "ends before embeddings are normalised" in capsys.readouterr().err
    network.logits = nn.ReLU()
    refused(export(network, tmp_path / "other.onnx"), "computes something else")
