"""facenet.compat.facenet_pytorch beside facenet-pytorch 2.6.0: the same calls, and what comes back compared.

Both detectors have MTCNN's real weights, both networks a made checkpoint. Boxes and landmarks agree within 0.05 px, scores within
1e-4: two engines sum in different orders. Where the reference raises what docs/compat.md calls its fault, ours must not.
"""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import facenet_pytorch as theirs
import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from python_package import BUILT, PACKAGE, needs_package, said

SAMPLES = ROOT / ".deps/samples"
pytestmark = [
    needs_package,
    pytest.mark.skipif(not (SAMPLES / "sample1.jpg").exists(), reason=f"{SAMPLES} is not there: run tools/bootstrap.sh"),
]
if BUILT:
    import facenet
    from facenet.compat import facenet_pytorch as ours
    from facenet.compat.facenet_pytorch.models import _state, inception_resnet_v1

BOX, SCORE = 0.05, 1e-4
QUICK = {"one", "blank", "list", "some without", "tensor"}  # the rest only with --all: the quick suite spends 10 s here


def some(names, quick=frozenset()):
    """Parameters of which only those in `quick` are for the quick suite."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


CROP = 1e-6  # face crops are the same bytes


@pytest.fixture(autouse=True)
def detector_file(monkeypatch, mtcnn_file):
    monkeypatch.setenv("FACENET_DETECTOR", str(mtcnn_file))


def group() -> Image.Image:
    """Half a photograph of several faces: three, found in a quarter of the time."""
    with Image.open(SAMPLES / "sample1.jpg") as image:
        image = image.convert("RGB")
        return image.resize((image.width // 2, image.height // 2), Image.BILINEAR)


def portrait() -> Image.Image:
    with Image.open(SAMPLES / "astronaut.png") as image:
        return image.convert("RGB").crop((120, 20, 360, 240))


@pytest.fixture(scope="module")
def pictures() -> dict:
    many, one = group(), portrait()
    blank = Image.new("RGB", many.size)
    dark = Image.fromarray((np.asarray(many) * 0.6).astype(np.uint8))
    return {
        "many": many, "one": one, "blank": blank,
        "array": np.asarray(many), "reversed": np.asarray(many)[:, ::-1], "int64": np.asarray(one).astype(np.int64),
        "tensor": torch.tensor(np.asarray(one)).float(), "uint8 tensor": torch.tensor(np.asarray(one)),
        "list": [one], "two": [many, many], "different": [many, dark], "tuple": (one, one),
        "some without": [many, blank, dark], "all without": [blank, blank],
        "4-d array": np.stack([np.asarray(one)] * 2), "4-d tensor": torch.tensor(np.stack([np.asarray(one)] * 2)).float(),
        "list of arrays": [np.asarray(one), np.asarray(one)],
    }  # fmt: skip


_made: dict = {}


def pair(**options):
    """Ours and the reference's with the same arguments: made once."""
    key = repr(sorted(options.items()))
    if key not in _made:
        _made[key] = ours.MTCNN(**options), theirs.MTCNN(**options)
    return _made[key]


def same(got, want, tolerance: float) -> None:
    """The same type, dtype, shape, and values within the tolerance; None where None is."""
    assert type(got) is type(want), (got, want)
    if isinstance(want, (list, tuple)):
        assert len(got) == len(want)
        for g, w in zip(got, want):
            same(g, w, tolerance)
    elif isinstance(want, np.ndarray):
        assert got.dtype == want.dtype and got.shape == want.shape, (got, want)
        if want.dtype == object:
            for g, w in zip(got.ravel(), want.ravel()):
                same(g, w, tolerance)
        else:
            assert np.abs(got - want).max(initial=0) <= tolerance
    elif isinstance(want, torch.Tensor):
        assert got.dtype == want.dtype and got.shape == want.shape and got.device == want.device
        assert not got.numel() or (got.double() - want.double()).abs().max() <= tolerance
    elif want is not None:
        assert abs(got - want) <= tolerance


def same_detections(got, want) -> None:
    assert len(got) == len(want)
    for g, w, tolerance in zip(got, want, (BOX, SCORE, BOX)):
        same(g, w, tolerance)


# ---- detect ----------------------------------------------------------------------------------------------------------

DETECTED = ["many", "one", "blank", "array", "reversed", "int64", "tensor", "uint8 tensor", "list", "two", "different", "tuple",
            "some without", "all without", "4-d array", "4-d tensor", "list of arrays"]  # fmt: skip


@pytest.mark.parametrize("name", some(DETECTED, QUICK))
def test_detect(pictures, name):
    got, want = pair(keep_all=True)
    same_detections(got.detect(pictures[name], landmarks=True), want.detect(pictures[name], landmarks=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one", "blank", "some without"])
def test_detect_without_landmarks(pictures, name):
    got, want = pair(keep_all=True)
    same_detections(got.detect(pictures[name]), want.detect(pictures[name]))


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    {"select_largest": False}, {"min_face_size": 40}, {"thresholds": [0.5, 0.8, 0.9]}, {"thresholds": [0.9, 0.5, 0.5]}, {"factor": 0.8},
    {"min_face_size": 60, "factor": 0.6},
], ids=repr)  # fmt: skip
def test_options_of_the_detector(pictures, options):
    got, want = pair(keep_all=True, **options)
    same_detections(got.detect(pictures["many"], landmarks=True), want.detect(pictures["many"], landmarks=True))


@pytest.mark.slow
@pytest.mark.parametrize(("attribute", "value"), [("min_face_size", 50), ("thresholds", [0.8, 0.8, 0.95]), ("factor", 0.6), ("select_largest", False)])
def test_attributes_that_are_set_later(pictures, attribute, value):
    got, want = ours.MTCNN(), theirs.MTCNN()
    setattr(got, attribute, value)
    setattr(want, attribute, value)
    same_detections(got.detect(pictures["many"], landmarks=True), want.detect(pictures["many"], landmarks=True))


# ---- the faces cut out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_all", [False, True])
@pytest.mark.parametrize("name", some(["many", "one", "blank", "tensor", "list", "two", "tuple", "all without"], QUICK))
def test_call(pictures, name, keep_all):
    got, want = pair(keep_all=keep_all)
    got, want = got(pictures[name], return_prob=True), want(pictures[name], return_prob=True)
    same(got[0], want[0], CROP)
    same(got[1], want[1], SCORE)


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    {"image_size": 112}, {"image_size": 48, "margin": 10}, {"margin": 20}, {"margin": 14, "image_size": 240}, {"post_process": False},
    {"select_largest": False}, {"selection_method": "probability"}, {"selection_method": "largest"},
    {"selection_method": "largest_over_threshold"}, {"selection_method": "center_weighted_size"},
], ids=repr)  # fmt: skip
def test_options_of_the_crop(pictures, options):
    got, want = pair(**options)
    same(got(pictures["many"]), want(pictures["many"]), CROP)


def test_positional_arguments(pictures):
    got, want = ours.MTCNN(112, 10, 30), theirs.MTCNN(112, 10, 30)
    same(got(pictures["one"]), want(pictures["one"]), CROP)


@pytest.mark.parametrize("name", ["image_size", "margin", "min_face_size", "thresholds", "factor", "post_process", "select_largest",
                                  "selection_method", "keep_all", "device", "training"])  # fmt: skip
def test_attributes(name):
    got, want = pair()
    assert getattr(got, name) == getattr(want, name)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["largest", "probability", "center_weighted_size"])
@pytest.mark.parametrize("name", ["many", "two"])
def test_select_boxes(pictures, name, method):
    got, want = pair(keep_all=True)
    found = want.detect(pictures[name], landmarks=True)
    same_detections(got.select_boxes(*found, pictures[name], method=method), want.select_boxes(*found, pictures[name], method=method))


@pytest.mark.slow
@pytest.mark.parametrize(("keep_all", "margin", "name"), [(False, 0, "many"), (True, 0, "many"), (True, 20, "two"), (False, 0, "list")])
def test_files_that_are_saved(tmp_path, pictures, keep_all, margin, name):
    written = []
    for folder, mtcnn in zip(("got/new", "want/new"), pair(keep_all=keep_all, margin=margin)):
        (tmp_path / folder).parent.mkdir()
        path = f"{tmp_path}/{folder}/a.png"
        mtcnn(pictures[name], save_path=[path, path.replace("a.png", "b.png")] if name == "two" else path)
        written.append({file.name: np.asarray(Image.open(file)) for file in sorted((tmp_path / folder).iterdir())})
    got, want = written
    assert list(got) == list(want) and len(got) == (1 if not keep_all else 3 * (1 + (name == "two")))
    assert all(np.array_equal(got[file], want[file]) for file in want)


@pytest.mark.parametrize("box", [(30, 40, 90, 120), (-20.7, -3.2, 70.9, 80.1), (100, 90, 500, 700), [30.99, 40.01, 31.99, 41.99]], ids=repr)
@pytest.mark.parametrize("options", [{}, {"image_size": 80, "margin": 16}], ids=repr)
@pytest.mark.parametrize("name", ["one", "tensor"])
def test_extract_face(pictures, name, box, options):
    box = np.array(box, np.float32)
    same(ours.extract_face(pictures[name], box, **options), theirs.extract_face(pictures[name], box, **options), 0)


def test_extract_face_saves(tmp_path, pictures):
    for package in (ours, theirs):
        package.extract_face(pictures["one"], [10, 10, 90, 90], 50, 4, str(tmp_path / f"{package is ours}.png"))
    assert np.array_equal(*(np.asarray(Image.open(tmp_path / f"{name}.png")) for name in (True, False)))


# ---- what both refuse ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [
    lambda p: p.MTCNN().detect([Image.new("RGB", (40, 40)), Image.new("RGB", (50, 40))]),
    lambda p: p.MTCNN().detect(np.zeros((40, 40), np.uint8)),
    lambda p: p.MTCNN().detect(np.zeros((3, 40, 50), np.uint8)),
    lambda p: p.extract_face(Image.new("RGB", (40, 40)), [60, 5, 70, 9]),
    lambda p: p.extract_face(Image.new("RGB", (40, 40)), [30, 5, 20, 9]),
    lambda p: p.InceptionResnetV1(classify=True),
    pytest.param(lambda p: p.InceptionResnetV1().eval()(torch.zeros(3, 160, 160)), marks=pytest.mark.slow),
    pytest.param(lambda p: p.InceptionResnetV1().eval()(torch.zeros(1, 1, 160, 160)), marks=pytest.mark.slow),
    pytest.param(lambda p: p.InceptionResnetV1().eval()(torch.zeros(1, 160, 160, 3)), marks=pytest.mark.slow),
    pytest.param(lambda p: p.InceptionResnetV1().eval()(torch.zeros((1, 3, 160, 160), dtype=torch.uint8)), marks=pytest.mark.slow),
    pytest.param(lambda p: p.InceptionResnetV1().load_state_dict({"z": torch.zeros(1)}), marks=pytest.mark.slow),
    pytest.param(lambda p: p.InceptionResnetV1().load_state_dict({"last_bn.bias": torch.zeros(1)}, strict=False), marks=pytest.mark.slow),
], ids=["sizes", "grey", "CHW", "outside", "inside out", "no classes", "3-d", "one channel", "NHWC", "uint8", "names", "shape"])  # fmt: skip
def test_refusals_are_of_the_same_kind(call):
    with pytest.raises(Exception) as want:
        call(theirs)
    with pytest.raises(want.type) as got:
        call(ours)
    if want.type is Exception:
        assert str(got.value) == str(want.value)
    assert str(got.value).strip()


# ---- the reference's faults ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_batch_of_which_some_have_no_face(pictures):
    """np.array() of a ragged list is a ValueError in the reference."""
    got, want = pair()
    with pytest.raises(ValueError, match="inhomogeneous"):
        want(pictures["some without"])
    faces, probs = got(pictures["some without"], return_prob=True)
    assert faces[1] is None and probs.dtype == object and probs.shape == (3, 1) and probs[1, 0] is None
    same([faces[0], faces[2]], [want(pictures["many"]), want(pictures["different"][1])], CROP)


def test_modes_of_pil(pictures):
    got, want = pair(keep_all=True)
    grey = pictures["one"].convert("L")
    with pytest.raises(RuntimeError):
        want.detect(grey)
    same_detections(got.detect(grey, landmarks=True), want.detect(grey.convert("RGB"), landmarks=True))
    for mode in ("RGBA", "P", "CMYK"):
        assert got(pictures["one"].convert(mode)).shape == (1, 3, 160, 160)


def test_arrays_are_cut_as_pictures_are(pictures):
    """The reference needs OpenCV for arrays, whose shrinking differs from Pillow's."""
    got, _ = pair(keep_all=True)
    assert torch.equal(got(pictures["array"]), got(pictures["many"]))


def test_pictures_smaller_than_a_face():
    got, want = pair()
    with pytest.raises(RuntimeError):
        want(Image.new("RGB", (10, 10)))
    assert got(Image.new("RGB", (10, 10)), return_prob=True) == (None, None)


def test_largest_over_threshold_gives_the_chosen_faces_probability():
    boxes = np.array([[0, 0, 50, 50], [0, 0, 20, 20]], np.float32)
    probs, points = np.array([0.8, 0.95], np.float32), np.arange(20, dtype=np.float32).reshape(2, 5, 2)
    got, want = pair()
    arguments = (boxes, probs, points, Image.new("RGB", (60, 60)), "largest_over_threshold")
    box, prob, point = got.select_boxes(*arguments)
    assert box.tolist() == [[0, 0, 20, 20]] and prob == probs[1] and np.array_equal(point, points[1:])
    assert want.select_boxes(*arguments)[1] == probs[0]  # of another face
    assert got.select_boxes(boxes, probs, points, None, "largest_over_threshold", threshold=0.99) == (None, None, None)


def test_center_weighted_size_of_an_array(pictures):
    got, want = pair(selection_method="center_weighted_size")
    assert torch.equal(got(pictures["array"]), got(pictures["many"]))
    with pytest.raises((AttributeError, NameError)):
        want(pictures["array"])


def test_sentences(pictures, tmp_path):
    for call, words in (
        (lambda: ours.MTCNN(selection_method="x")(pictures["one"]), "center_weighted_size"),
        (lambda: ours.MTCNN(min_face_size=20.5), "20.5 is no whole number"),
        (lambda: ours.MTCNN(min_face_size=float("nan")), "min_face_size"),
        (lambda: ours.MTCNN()("a.jpg"), "open files with PIL"),
        (lambda: ours.MTCNN().detect(np.full((40, 40, 3), 300.0)), "0…255"),
        (lambda: ours.MTCNN()(pictures["two"], save_path=[str(tmp_path / "a.png")]), "a path for each"),
        (lambda: ours.InceptionResnetV1(pretrained="imagenet"), "vggface2"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert isinstance(caught.value, facenet.FacenetError) and str(caught.value).endswith(".")


# ---- the network -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks(checkpoint512):
    """Ours and the reference's with the same weights and a classifier of 7; and the reference in float64."""
    state = torch.load(checkpoint512)
    state.pop("facenet_untrained", None)
    torch.manual_seed(1)
    want = theirs.InceptionResnetV1(classify=True, num_classes=7).eval()
    keys = want.load_state_dict({name: value for name, value in state.items() if not name.startswith("logits.")}, strict=False)
    got = ours.InceptionResnetV1(classify=True, num_classes=7).eval()
    same(list(got.load_state_dict(want.state_dict())), [[], []], 0)
    assert keys.missing_keys == ["logits.weight", "logits.bias"]
    exact = theirs.InceptionResnetV1(classify=True, num_classes=7).eval().double()
    exact.load_state_dict(want.state_dict())
    for network in (got, want, exact):
        network.classify = False  # a classifier of ours is another embedder, which takes seconds
    return got, want, exact


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    from facenet_tools import pictures

    random = np.random.default_rng(3)
    return ours.fixed_image_standardization(torch.tensor(np.stack([pictures.structured(random) for _ in range(2)]).transpose(0, 3, 1, 2)).float())


@pytest.mark.parametrize("layout", some(["contiguous", "channels last"], {"channels last"}))
@pytest.mark.parametrize("count", some([1, 2], {2}))
def test_embeddings(networks, crops, count, layout):
    got, want, exact = networks
    x = crops[:count] if layout == "contiguous" else crops[:count].contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        embeddings, reference = got(x), want(x)
        precise = exact(x.double())
    same(embeddings, reference, 5e-6)
    assert (embeddings.double() - precise).abs().max() <= 3e-6
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(count), atol=1e-6)
    assert np.array_equal(got(x.numpy()), embeddings.numpy())


@pytest.fixture
def classifiers(networks, monkeypatch):
    for network in networks:
        monkeypatch.setattr(network, "classify", True)
    return networks


@pytest.mark.slow
def test_logits(classifiers, crops):
    """The length of an embedding comes out of 16 outputs that are 1; logits are at most 6, float32's step there 5e-7, sums of 512."""
    got, want, exact = classifiers
    with torch.no_grad():
        logits, reference, precise = got(crops), want(crops), exact(crops.double())
    same(logits, reference, 5e-5)
    assert (logits.double() - precise).abs().max() <= 1e-5 * precise.abs().max()


def test_state_dict(networks):
    got, want, _ = networks
    ours_, theirs_ = got.state_dict(), want.state_dict()
    assert list(ours_) == list(theirs_)
    for name, value in theirs_.items():
        if not name.endswith("num_batches_tracked"):
            assert ours_[name].dtype == value.dtype and torch.equal(ours_[name], value), name
    assert [name for name, _ in got.named_parameters()] and sum(p.numel() for p in got.parameters()) == sum(p.numel() for p in want.parameters())


def test_state_dict_of_a_part(networks):
    """As PyTorch calls it where the network is a part of another one: destination and prefix; and what it reads back."""
    got, want, _ = networks
    destination = {"before": 1}
    assert got.state_dict(destination=destination, prefix="net.", keep_vars=True) is destination
    assert list(destination) == ["before", *(f"net.{name}" for name in want.state_dict())]
    whole, other = torch.nn.Sequential(got), torch.nn.Sequential(ours.InceptionResnetV1(classify=True, num_classes=7))
    state = whole.state_dict()
    assert list(state) == list(torch.nn.Sequential(want).state_dict())
    assert other.load_state_dict(state) == torch.nn.Sequential(want).load_state_dict(state)
    assert torch.equal(other[0].state_dict()["last_bn.bias"], want.state_dict()["last_bn.bias"])
    del state["0.last_bn.bias"]
    with pytest.raises(RuntimeError, match="0.last_bn.bias"):
        other.load_state_dict(state)


def test_counters_of_batches_are_not_demanded(networks):
    """PyTorch sets them to 0 where a state_dict of no version has none."""
    got, want, _ = networks
    state = {name: value for name, value in want.state_dict().items() if not name.endswith("num_batches_tracked")}
    mine = ours.InceptionResnetV1(classify=True, num_classes=7)
    assert mine.load_state_dict(state) == want.load_state_dict(state)
    assert list(mine.state_dict()) == list(want.state_dict())


@pytest.mark.parametrize("kind", some([torch.float16, torch.bfloat16, torch.float64], {torch.bfloat16}), ids=str)
def test_state_dicts_of_other_floats(kind, networks, tmp_path):
    """In memory, in a .pt and in a safetensors file: as float32, which the engine computes in."""
    import safetensors.torch

    _, want, _ = networks
    state = {name: value.to(kind) if value.is_floating_point() else value for name, value in want.state_dict().items()}
    torch.save(state, tmp_path / "x.pt")
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    mine = ours.InceptionResnetV1(classify=True, num_classes=7)
    mine.load_state_dict(state)
    loaded = {name: value.numpy() for name, value in mine.state_dict().items()}
    for got in (loaded, *(_state.read(str(tmp_path / name)) for name in ("x.pt", "x.safetensors"))):
        for name, value in state.items():
            assert not value.is_floating_point() or (got[name].dtype == np.float32 and np.array_equal(got[name], value.float().numpy())), name


def test_files_that_are_no_weights(tmp_path):
    text = tmp_path / "x.safetensors"
    for content in (b"", b"no weights", (1 << 62).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"[]", (3).to_bytes(8, "little") + b'{"\xff'):
        text.write_bytes(content)
        assert str(text) in said(lambda: _state.read(str(text)))
    assert "none" in said(lambda: _state.read(str(tmp_path / "none.safetensors")), FileNotFoundError)
    (tmp_path / "x.pt").write_text("no weights")
    with pytest.raises(facenet.FacenetError, match="not a readable PyTorch checkpoint"):  # not: there is no room for them
        inception_resnet_v1._converted(str(tmp_path / "x.pt"), "vggface2")


@pytest.mark.slow
def test_a_state_dict_with_other_names(networks):
    got, want, _ = networks
    state = dict(want.state_dict())
    del state["last_bn.bias"]
    state["z"] = torch.zeros(1)
    mine = ours.InceptionResnetV1(classify=True, num_classes=7)
    keys, reference = mine.load_state_dict(state, strict=False), want.load_state_dict(state, strict=False)
    assert type(keys) is type(reference) and keys == reference


def test_gradients_are_refused(networks, crops):
    got, _, _ = networks
    with pytest.raises(RuntimeError, match="no gradient"):
        got(crops[:1].clone().requires_grad_())
    got.train()
    with pytest.raises(RuntimeError, match="cannot be trained"):
        got(crops[:1])
    got.eval()
    with torch.no_grad():
        assert got(crops[:1].clone().requires_grad_()).shape == (1, 512)


def test_methods_that_scripts_chain(networks, crops):
    got, _, _ = networks
    assert got.eval().to("cpu").eval() is got and got.to(torch.device("cpu")) is got and got.requires_grad_(False) is got
    assert isinstance(got, torch.nn.Module) and torch.nn.Sequential(got)(crops[:1]).shape == (1, 512)
    assert ours.MTCNN().eval().to("cpu").detect(Image.new("RGB", (40, 40)))[0] is None


def test_other_sizes_are_refused(networks):
    with pytest.raises(RuntimeError, match="160"):
        networks[0](torch.zeros(1, 3, 112, 112))


@pytest.mark.slow
def test_a_path_as_pretrained(networks, crops, checkpoint512, tmp_path):
    from facenet import _downloads

    got, _, _ = networks
    path = tmp_path / "w.safetensors"
    _downloads.plain(str(checkpoint512), str(path))
    for source in (path, str(checkpoint512)):
        made = ours.InceptionResnetV1(pretrained=source).eval()
        again = pickle.loads(pickle.dumps(made))
        same([made(crops), again(crops)], [got(crops)] * 2, 1e-7)
        assert torch.equal(made.state_dict()["last_bn.bias"], got.state_dict()["last_bn.bias"])


@pytest.mark.slow
def test_pickling_of_what_was_loaded(classifiers, crops):
    got, _, _ = classifiers
    assert torch.equal(pickle.loads(pickle.dumps(got))(crops), got(crops))


def test_pickling(monkeypatch, tmp_path, converted, crops, pictures):
    mtcnn = ours.MTCNN(image_size=80, margin=4, keep_all=True)
    assert torch.equal(pickle.loads(pickle.dumps(mtcnn))(pictures["one"]), mtcnn(pictures["one"]))
    (tmp_path / "w.safetensors").symlink_to(converted["f32"])
    monkeypatch.chdir(tmp_path)
    made = ours.InceptionResnetV1(pretrained="w.safetensors").eval()
    monkeypatch.chdir("/")  # the path is that of then
    assert torch.equal(pickle.loads(pickle.dumps(made))(crops), made(crops))


def test_a_network_that_nobody_trained_is_copied_with_its_weights():
    made = ours.InceptionResnetV1(classify=True, num_classes=3, dropout_prob=0.2).eval()
    again = copy.deepcopy(made)
    assert again.dropout_prob == 0.2 and not again.training
    want, got = made.state_dict(), again.state_dict()
    assert list(want) == list(got) and all(torch.equal(want[name], got[name]) for name in want)


def test_errors_keep_their_class():
    from facenet.compat.facenet_pytorch import _backend

    for kind in (_backend.InputError, _backend.StateError, _backend.TrainingError):
        error = pickle.loads(pickle.dumps(kind("no.", "invalid_argument")))
        assert type(error) is kind and str(error) == "no." and error.code == "invalid_argument"


def test_a_converted_file_is_no_state_dict(converted):
    with pytest.raises(ValueError, match="folded"):
        ours.InceptionResnetV1(pretrained=converted["f32"]).state_dict()


@pytest.mark.slow
def test_pretrained_shares_the_cache(monkeypatch, tmp_path, checkpoint512, crops):
    """The checkpoint lies in PyTorch's cache, the weight file beside it, and the user's default weights are left alone."""
    cache = tmp_path / "torch/checkpoints"
    cache.mkdir(parents=True)
    (cache / "20180408-102900-casia-webface.pt").write_bytes(checkpoint512.read_bytes())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    made = ours.InceptionResnetV1(pretrained="casia-webface").eval()
    assert (cache / "20180408-102900-casia-webface.safetensors").exists() and not (tmp_path / "data").exists()
    assert torch.equal(ours.InceptionResnetV1("casia-webface").eval()(crops), made(crops))


# ---- functions and modules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fixed_image_standardization", "prewhiten"])
@pytest.mark.parametrize("x", [torch.arange(48.0).reshape(3, 4, 4), torch.full((3, 4, 4), 7.0)], ids=["range", "flat"])
def test_functions_of_tensors(name, x):
    same(getattr(ours, name)(x), getattr(theirs, name)(x), 0)
    array = getattr(ours, name)(x.numpy())
    assert array.dtype == np.float32 and np.abs(array - getattr(theirs, name)(x).numpy()).max() <= 1e-6


@pytest.mark.parametrize(("module", "names"), [
    ("models.mtcnn", "MTCNN fixed_image_standardization prewhiten"), ("models.utils.detect_face", "extract_face get_size crop_resize save_img"),
    ("models.inception_resnet_v1", "InceptionResnetV1 get_torch_home load_weights"),
    ("models.utils.training", "collate_pil pass_epoch accuracy Logger BatchTimer"), ("models.utils", "training"),
], ids=lambda v: v if "models" in v else "")  # fmt: skip
def test_deep_imports(module, names):
    import importlib
    import inspect

    got, want = (importlib.import_module(f"{package.__name__}.{module}") for package in (ours, theirs))
    for name in names.split():
        mine, other = getattr(got, name), getattr(want, name)
        if inspect.isfunction(mine) or inspect.isclass(mine):
            assert list(inspect.signature(mine).parameters) == list(inspect.signature(other).parameters)


def test_what_is_absent_is_said():
    with pytest.raises(ImportError, match="no separate layers"):
        from facenet.compat.facenet_pytorch import PNet  # noqa: F401


def test_training_helpers(capsys):
    pairs = [("a", 1), ("b", 2)]
    assert ours.training.collate_pil(pairs) == theirs.training.collate_pil(pairs)
    logits, y = torch.eye(4), torch.tensor([0, 1, 3, 3])
    same(ours.training.accuracy(logits, y), theirs.training.accuracy(logits, y), 0)
    results, shown = [], []
    for package in (ours, theirs):
        torch.manual_seed(3)
        model = torch.nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        loader = [(torch.ones(2, 4), torch.tensor([1, 2])), (torch.zeros(2, 4), torch.tensor([0, 2]))]
        arguments = (model, torch.nn.CrossEntropyLoss(), loader, optimizer)
        metrics = {"acc": package.training.accuracy}
        results.append([package.training.pass_epoch(*arguments, batch_metrics=metrics), package.training.pass_epoch(*arguments, batch_metrics=metrics)])
        shown.append(capsys.readouterr().out)
    same([loss for loss, _ in results[0]], [loss for loss, _ in results[1]], 0)
    assert shown[0] == shown[1] and results[0][1][1].keys() == {"acc"}


# ---- a device that is not there, no PyTorch, and whole scripts ---------------------------------------------------------


def run(code: str, *arguments: object, module: str | None = None) -> subprocess.CompletedProcess[str]:
    call = ["-c", code] if module is None else ["-m", module]
    environment = dict(os.environ, PYTHONPATH=str(PACKAGE))
    return subprocess.run([sys.executable, *call, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=environment, check=False)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["torchvision"] = sys.modules["facenet_pytorch"] = None  # importing them fails
import numpy as np, pickle
from PIL import Image
from facenet.compat.facenet_pytorch import MTCNN, InceptionResnetV1, extract_face, prewhiten, training
picture = Image.open(sys.argv[1]).convert("RGB")
mtcnn = MTCNN(keep_all=True, device="cuda").eval().to("cuda")
faces, probs = mtcnn(picture, return_prob=True)
net = fresh = InceptionResnetV1(pretrained=sys.argv[2], device="cuda:0").eval().cuda()
embeddings = net(faces)
if sys.argv[2].endswith(".pt"):
    fresh = InceptionResnetV1().eval()
    fresh.load_state_dict(net.state_dict(), strict=False)  # a checkpoint has logits too
print(type(faces).__name__, faces.dtype, faces.shape, probs.shape, embeddings.shape, np.allclose(fresh(faces), embeddings, atol=1e-6))
print(pickle.loads(pickle.dumps(net))(faces[:1]).shape, MTCNN()(np.asarray(picture)).shape, "torch" in sys.modules and sys.modules["torch"])
np.save(sys.argv[3], embeddings)
"""


def test_without_torch(tmp_path, converted):
    portrait().save(tmp_path / "a.png")
    done = run(WITHOUT_TORCH, tmp_path / "a.png", converted["f32"], tmp_path / "out.npy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["ndarray float32 (1, 3, 160, 160) (1,) (1, 128) True", "(1, 128) (3, 160, 160) None"]
    assert done.stderr.count("computes nothing here") == 1


@pytest.mark.slow
def test_a_state_dict_without_torch(tmp_path, checkpoint512, networks):
    portrait().save(tmp_path / "a.png")
    done = run(WITHOUT_TORCH, tmp_path / "a.png", checkpoint512, tmp_path / "out.npy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["ndarray float32 (1, 3, 160, 160) (1,) (1, 512) True", "(1, 512) (3, 160, 160) None"]
    same(torch.from_numpy(np.load(tmp_path / "out.npy")), networks[0](ours.MTCNN(keep_all=True)(portrait())), 1e-6)


SCRIPT = """
import sys
from facenet_pytorch import MTCNN, InceptionResnetV1
from facenet_pytorch.models.utils.detect_face import extract_face
import facenet_pytorch.models.mtcnn as deep
from PIL import Image
import torch
if __name__ == "__main__":
    resnet = InceptionResnetV1().eval().to("cpu")
    state = torch.load(sys.argv[2]); state.pop("facenet_untrained", None)
    resnet.load_state_dict(state, strict=False)
    mtcnn = MTCNN(device="cpu")
    face, prob = mtcnn(Image.open(sys.argv[1]).convert("RGB"), return_prob=True)
    print(deep.MTCNN.__module__, prob > 0.99, len(sys.argv), flush=True)
    e = resnet(face.unsqueeze(0)).detach().cpu()[0]
    print(e.tolist())
"""


@pytest.mark.slow
def test_a_script_runs_unchanged(tmp_path, checkpoint512):
    portrait().save(tmp_path / "a.png")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = run("", tmp_path / "script.py", tmp_path / "a.png", checkpoint512, module="facenet.compat")
    assert done.returncode == 0, done.stderr
    where, embedding = done.stdout.splitlines()
    assert where == "facenet.compat.facenet_pytorch.models.mtcnn True 3"
    want = theirs.InceptionResnetV1().eval()
    want.load_state_dict({k: v for k, v in torch.load(checkpoint512).items() if k != "facenet_untrained"}, strict=False)
    with torch.no_grad():
        reference = want(theirs.MTCNN()(portrait()).unsqueeze(0))[0]
    assert (torch.tensor(eval(embedding)) - reference).abs().max() <= 5e-6


@pytest.mark.parametrize(("arguments", "status", "words"), [
    (["--help"], 0, "Usage: facenet-compat"), ([], 2, "give a script"), (["-x"], 2, "no option -x"), (["gone.py"], 2, "no such script"),
], ids=repr)  # fmt: skip
def test_facenet_compat(arguments, status, words, monkeypatch, capsys):
    from facenet.compat.__main__ import main

    monkeypatch.setattr(sys, "argv", ["facenet-compat", *arguments])
    if status:
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == status
    else:
        main()
    out = capsys.readouterr()
    assert words in (out.err if status else out.out)
