"""The module without Emscripten and without a browser: wasmtime runs the WASI build against the native command."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np
import pytest

wasmtime = pytest.importorskip("wasmtime")

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = pathlib.Path(os.environ.get("FACENET_FIXTURES", ROOT / "build/web/fixtures"))
MODULES = ROOT / "build/wasi/examples/web"


class Engine:
    """The module's C interface: what examples/web/facenet/index.js does, in Python."""

    def __init__(self, build: str = "simd", deterministic: bool = False) -> None:
        config = wasmtime.Config()
        config.wasm_relaxed_simd = True
        config.wasm_relaxed_simd_deterministic = deterministic
        engine = wasmtime.Engine(config)
        self.store = wasmtime.Store(engine)
        self.store.set_wasi(wasmtime.WasiConfig())
        linker = wasmtime.Linker(engine)
        linker.define_wasi()
        limits = wasmtime.Limits(16 << 4, 1 << 14)  # pages: 16 MB to 1 GB
        self.memory = wasmtime.Memory(self.store, wasmtime.MemoryType(limits))
        linker.define(self.store, "env", "memory", self.memory)
        folder = MODULES if build.endswith("simd") else pathlib.Path(str(MODULES).replace("build/wasi", "build/wasi-relaxed"))
        module = wasmtime.Module.from_file(engine, str(folder / f"facenet-{build}.wasm"))
        self.exports = linker.instantiate(self.store, module).exports(self.store)
        self("__wasm_call_ctors")

    def __call__(self, name: str, *arguments: float) -> int | float:
        return self.exports[name](self.store, *arguments)

    def write(self, pointer: int, data: bytes) -> None:
        self.memory.write(self.store, data, pointer & 0xFFFFFFFF)

    def floats(self, pointer: int, count: int) -> np.ndarray:
        pointer &= 0xFFFFFFFF
        return np.frombuffer(bytes(self.memory.read(self.store, pointer, pointer + 4 * count)), np.float32)

    def text(self) -> str:
        pointer = self("facenet_text") & 0xFFFFFFFF
        return bytes(self.memory.read(self.store, pointer, pointer + 512)).split(b"\0")[0].decode()

    def load(self, data: bytes, integers: int = 0) -> int:
        self.write(self("facenet_reserve", len(data)), data)
        self.write(self("facenet_text"), b"\0")
        return self("facenet_load", len(data), 1, integers)

    def picture(self, rgb: bytes, width: int, height: int) -> None:
        rgba = np.full((width * height, 4), 255, np.uint8)
        rgba[:, :3] = np.frombuffer(rgb, np.uint8).reshape(-1, 3)
        self.write(self("facenet_picture", float(width), float(height)), rgba.tobytes())
        self("facenet_opaque")


def test_sizes_that_are_no_pictures_are_refused_before_anything_is_reserved() -> None:
    """As JavaScript hands them over: an int would make 5 of 2 ** 32 + 5, and 0 of NaN."""
    engine = Engine()
    before = engine.memory.data_len(engine.store)
    for width, height in ((1.5, 4.0), (4.0, 2.0**32 + 5), (float("nan"), 4.0), (float("inf"), 1.0), (-1.0, 4.0), (0.0, 4.0),
                          (16384.0, 16384.0), (16385.0, 1.0), (1e300, 1e300)):
        assert engine("facenet_picture", width, height) == 0
        assert engine.text()
    assert engine.memory.data_len(engine.store) == before
    assert engine("facenet_face", 0) == 0
    assert engine("facenet_load", 5, 1, 0) == -1 and "reserved" in engine.text()


def test_embeddings_and_faces_are_the_native_commands() -> None:
    expected = json.loads((FIXTURES / "expected.json").read_text())["pictures"]
    engine = Engine()
    assert engine.load((FIXTURES / "weights/facenet_i8.safetensors").read_bytes()) == 0, engine.text()
    engine("facenet_release")
    for name, want in expected.items():
        engine.picture((FIXTURES / f"{name}_crop.rgb").read_bytes(), 160, 160)
        embedding = engine.floats(engine("facenet_embed", 1), len(want["crop"]))
        # 3e-6 from float64 is either side's allowance (docs/parity.md); 1e-5 leaves room for both.
        assert np.abs(embedding - np.float32(want["crop"])).max() <= 1e-5

        engine.picture((FIXTURES / f"{name}.rgb").read_bytes(), want["width"], want["height"])
        assert engine("facenet_detect", 20, 0) == len(want["faces"])
        for i, face in enumerate(want["faces"]):
            found = engine.floats(engine("facenet_face", i), 15)
            # A hundredth of a pixel: twenty float32 roundings at 1024 pixels are 1e-3.
            assert np.abs(found[:4] - np.float32(face["box"])).max() <= 0.01


def test_embeddings_in_integers_have_the_native_commands_bits() -> None:
    expected = json.loads((FIXTURES / "expected.json").read_text())["integers"]
    crops = np.fromfile(FIXTURES / "integers.rgb", np.uint8).reshape(-1, 160, 160, 3)
    weights = (FIXTURES / "weights/integers.safetensors").read_bytes()
    engine, floats = Engine("int8-simd"), Engine()
    assert engine.load(weights, 1) == 0, engine.text()
    assert floats.load(weights) == 0, floats.text()
    assert len(crops) == len(expected) == 20
    for crop, want in zip(crops, expected):
        bits = []
        for module in (engine, floats):
            module.picture(crop.tobytes(), 160, 160)
            bits.append(module.floats(module("facenet_embed", 1), 128).tobytes().hex())
        assert bits[0] == want != bits[1]


# x86 multiplies unsigned bytes; told to be deterministic, wasmtime multiplies signed ones, as ARM does.
@pytest.mark.parametrize("signed", [False, True])
def test_integers_of_relaxed_simd_have_the_native_commands_bits(signed: bool) -> None:
    expected = json.loads((FIXTURES / "expected.json").read_text())["integers"]
    crops = np.fromfile(FIXTURES / "integers.rgb", np.uint8).reshape(-1, 160, 160, 3)
    engine = Engine("int8-relaxed", deterministic=signed)
    assert engine.load((FIXTURES / "weights/integers.safetensors").read_bytes(), 1) == 0, engine.text()
    for crop, want in zip(crops, expected, strict=True):
        engine.picture(crop.tobytes(), 160, 160)
        assert engine.floats(engine("facenet_embed", 1), 128).tobytes().hex() == want


def test_integers_need_their_module_and_their_file() -> None:
    engine = Engine()
    assert engine.load((FIXTURES / "weights/integers.safetensors").read_bytes(), 1) == -1
    assert "FACENET_NO_INTEGER" in engine.text()
    engine = Engine("int8-simd")
    assert engine.load((FIXTURES / "weights/facenet_i8.safetensors").read_bytes(), 1) == -1
    assert engine.text()


def test_a_damaged_file_is_an_error_and_no_trap() -> None:
    data = bytearray((FIXTURES / "weights/small.safetensors").read_bytes())
    engine = Engine()
    assert engine.load(bytes(data[:-1])) == -1
    assert engine.text()
    data[-9] ^= 1
    assert engine.load(bytes(data)) == -1
    assert "XXH64" in engine.text()
