#!/usr/bin/env python3
"""One engine in a process of its own, driven by JSON lines over stdin and stdout.

An engine keeps its thread pool, its allocator and its libraries to itself, so that no peer inherits another's.
compare_peers.py starts one worker an engine and configuration and tells it when to run.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import pathlib
import sys
import time
import types

import numpy as np



class Engine:
    """load() up to the first result, run() once for all images, output() float32 [batch, dim] outside the timing."""

    settings = ""  # disclosed in the report
    rounded = False  # to int8: the report then says what that does to cosines and distances

    def prepare(self, job: dict) -> str:
        """Imports the library (counted as process start, not as load) and returns its version."""
        raise NotImplementedError

    def load(self, job: dict, images: np.ndarray) -> None:
        """images: float32 [batch, 3, side, side], C-contiguous."""
        raise NotImplementedError

    def run(self) -> None:
        raise NotImplementedError

    def output(self) -> np.ndarray:
        raise NotImplementedError

    def show(self, images: np.ndarray) -> None:
        """Other pictures for the next run(): for those engines that keep what load() got in self.images."""
        self.images[...] = images


class OnnxRuntime(Engine):
    model = "onnx"
    settings = "intra_op threads as stated, inter_op 1, all graph optimisations, spinning as by default (on)"

    def prepare(self, job):
        import onnxruntime

        self.lib = onnxruntime
        return onnxruntime.__version__

    def load(self, job, images):
        options = self.lib.SessionOptions()
        options.intra_op_num_threads = job["threads"]
        options.inter_op_num_threads = 1
        options.add_free_dimension_override_by_name("batch", job["batch"])
        self.session = self.lib.InferenceSession(job["models"][self.model], options, providers=["CPUExecutionProvider"])
        self.images = images
        self.feed = {"input": images}

    def run(self):
        self.result = self.session.run(None, self.feed)

    def output(self):
        return self.result[0]


class OnnxRuntimeInt8(OnnxRuntime):
    model, rounded = "onnxruntime_int8", True
    settings = "as ONNX Runtime; static quantisation, QDQ, weights int8 a channel, activations uint8 by the largest values"


class OpenVino(Engine):
    model = "onnx"
    settings = "latency hint, 1 stream, INFERENCE_PRECISION_HINT f32, static shape, TBB and pinning as by default"

    def prepare(self, job):
        import openvino

        self.lib = openvino
        return openvino.__version__.split("-")[0]

    def load(self, job, images):
        core = self.lib.Core()
        model = core.read_model(job["models"][self.model])
        model.reshape(images.shape)
        compiled = core.compile_model(model, "CPU", {
            "INFERENCE_NUM_THREADS": job["threads"],
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        })
        self.request = compiled.create_infer_request()
        self.images = images
        self.request.set_input_tensor(self.lib.Tensor(images, shared_memory=True))

    def run(self):
        self.request.infer()

    def output(self):
        return np.array(self.request.get_output_tensor().data)


class OpenVinoInt8(OpenVino):
    model, rounded = "openvino_int8", True
    settings = "as OpenVINO; NNCF's post-training quantisation, its default preset (the fastest) and bias correction"


class Ncnn(Engine):
    model = "ncnn"
    settings = "fp16 and bf16 storage and arithmetic off, Winograd and packing as by default; no batch: one image after another"

    def prepare(self, job):
        import ncnn

        self.lib = ncnn
        return ncnn.__version__

    def load(self, job, images):
        self.net = self.lib.Net()
        options = self.net.opt
        options.num_threads = job["threads"]
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        options.use_bf16_storage = False
        if self.net.load_param(job["models"][f"{self.model}_param"]) or self.net.load_model(job["models"][f"{self.model}_bin"]):
            raise RuntimeError("ncnn cannot load the converted model")
        self.show(images)

    def show(self, images):
        self.images = [self.lib.Mat(image).clone() for image in images]

    def run(self):
        self.results = []
        for image in self.images:
            extractor = self.net.create_extractor()
            extractor.input("in0", image)
            status, result = extractor.extract("out0")
            if status:
                raise RuntimeError(f"ncnn returned {status}")
            self.results.append(result)

    def output(self):
        return np.stack([np.array(result) for result in self.results])


class NcnnInt8(Ncnn):
    model, rounded = "ncnn_int8", True
    settings = "as ncnn; weights int8 a channel, activations int8 by the largest values, requantised between convolutions"


class Mnn(Engine):
    settings = 'precision "high" (fp32; the default gives the same time and error), CPU back end, session API'

    def prepare(self, job):
        import MNN

        self.lib = MNN
        return MNN.version()

    def load(self, job, images):
        lib = self.lib
        shape = images.shape
        self.interpreter = lib.Interpreter(job["models"]["mnn"])
        self.session = self.interpreter.createSession(
            {"numThread": job["threads"], "precision": "high", "backend": "CPU"})
        self.input = self.interpreter.getSessionInput(self.session)
        self.interpreter.resizeTensor(self.input, shape)
        self.interpreter.resizeSession(self.session)
        self.host = lib.Tensor(shape, lib.Halide_Type_Float, images, lib.Tensor_DimensionType_Caffe)
        self.device_result = self.interpreter.getSessionOutput(self.session)
        self.shape = tuple(self.device_result.getShape())
        self.result = lib.Tensor(self.shape, lib.Halide_Type_Float, np.zeros(self.shape, np.float32),
                                 lib.Tensor_DimensionType_Caffe)

    def run(self):
        self.input.copyFrom(self.host)
        self.interpreter.runSession(self.session)
        self.device_result.copyToHostTensor(self.result)

    def output(self):
        return np.array(self.result.getData(), dtype=np.float32).reshape(self.shape)


class OpenCv(Engine):
    settings = "engine AUTO, CPU target; reads ONNX with the batch fixed"

    def prepare(self, job):
        import cv2

        self.lib = cv2
        return cv2.__version__

    def load(self, job, images):
        self.lib.setNumThreads(job["threads"])
        self.net = self.lib.dnn.readNetFromONNX(job["models"][f"onnx_{job['batch']}"])
        self.images = images

    def run(self):
        self.net.setInput(self.images)
        self.result = self.net.forward()

    def output(self):
        return self.result


class Torch(Engine):
    channels_last = False
    settings = "inference_mode, contiguous NCHW"

    def prepare(self, job):
        import torch

        self.lib = torch
        torch.set_num_threads(job["threads"])
        torch.set_num_interop_threads(1)
        # Only the model's file is wanted: the package's own __init__ would import torchvision as well.
        package = types.ModuleType("facenet_pytorch")
        package.__path__ = importlib.util.find_spec("facenet_pytorch").submodule_search_locations
        sys.modules["facenet_pytorch"] = package
        self.model_class = importlib.import_module("facenet_pytorch.models.inception_resnet_v1").InceptionResnetV1
        version = torch.__version__.split("+")[0]
        return version + (" (Debian)" if job["debian_torch"] else "")

    def load(self, job, images):
        torch = self.lib
        self.no_grad = torch.inference_mode()
        self.no_grad.__enter__()
        self.model = self.build(job)
        self.images = torch.from_numpy(images)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)

    def build(self, job):
        torch = self.lib
        if job["architecture"] != "inception_resnet_v1":  # whose class is in no package
            self.settings += ", as TorchScript"
            return torch.jit.load(job["models"]["torchscript"], map_location="cpu").eval()
        model = self.model_class(pretrained=None, classify=False)
        if job["dim"] != model.last_linear.out_features:
            model.last_linear = torch.nn.Linear(model.last_linear.in_features, job["dim"], bias=False)
            model.last_bn = torch.nn.BatchNorm1d(job["dim"], eps=model.last_bn.eps)
        model.load_state_dict(torch.load(job["models"]["state"], map_location="cpu"))
        return model.eval()

    def run(self):
        self.result = self.model(self.images)

    def output(self):
        return self.result.numpy()


class TorchChannelsLast(Torch):
    channels_last = True
    settings = "inference_mode, model and input in channels_last"


class Facenet(Engine):
    model, half, integers = "safetensors", 0, 0
    settings = "NHWC input; one team of threads an inference"

    def prepare(self, job):
        self.lib = open_peer_api(job["library"])
        return self.lib.fnb_version().decode()

    def pixels(self, images):
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1))

    def load(self, job, images):
        self.images = self.pixels(images)
        self.batch = job["batch"]
        self.result = np.zeros((self.batch, job["dim"]), np.float32)
        self.handle = self.lib.fnb_open(os.fsencode(job["models"][self.model]), job["threads"], self.batch, self.half,
                                        self.integers)
        if not self.handle:
            raise RuntimeError(self.lib.fnb_error().decode())
        self.pointers = tuple(a.ctypes.data_as(ctypes.c_void_p) for a in (self.images, self.result))

    def run(self):
        if self.lib.fnb_run(self.handle, self.pointers[0], self.batch, self.pointers[1]):
            raise RuntimeError(self.lib.fnb_error().decode())

    def output(self):
        return self.result


class FacenetHalf(Facenet):
    half = 1
    settings = "as facenet, weights kept in half precision"


class FacenetInt8(Facenet):
    model, integers, rounded = "facenet_int8", 1, True
    settings = "as facenet, the pictures' bytes as input, convolutions in integers (convert_weights.py --dtype i8 --calibrate default)"

    def pixels(self, images):
        return np.rint(super().pixels(images) * 128 + 127.5).astype(np.uint8)

    def show(self, images):
        super().show(self.pixels(images))


class Machine:
    """Not an engine: measures what the CPU can do."""

    def __init__(self, job: dict) -> None:
        self.lib = open_peer_api(job["library"])

    def peak(self, threads: int) -> float:
        return self.lib.fnb_peak_gflops(threads)

    def bandwidth(self, threads: int) -> float:
        return self.lib.fnb_bandwidth_gbs(threads)


ENGINES = {
    "facenet": Facenet, "facenet-half": FacenetHalf, "facenet-int8": FacenetInt8, "onnxruntime": OnnxRuntime,
    "onnxruntime-int8": OnnxRuntimeInt8, "openvino": OpenVino, "openvino-int8": OpenVinoInt8, "ncnn": Ncnn,
    "ncnn-int8": NcnnInt8,
    "mnn": Mnn, "opencv": OpenCv, "torch-channels-last": TorchChannelsLast, "torch": Torch,
}


def open_peer_api(path: str) -> ctypes.CDLL:
    lib = ctypes.CDLL(path)
    lib.fnb_version.restype = lib.fnb_error.restype = ctypes.c_char_p
    lib.fnb_open.restype, lib.fnb_open.argtypes = ctypes.c_void_p, [ctypes.c_char_p] + [ctypes.c_int] * 4
    lib.fnb_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    lib.fnb_macs.restype, lib.fnb_macs.argtypes = ctypes.c_double, [ctypes.c_char_p]
    lib.fnb_close.restype, lib.fnb_close.argtypes = None, [ctypes.c_void_p]
    for measure in (lib.fnb_peak_gflops, lib.fnb_bandwidth_gbs):
        measure.restype, measure.argtypes = ctypes.c_double, [ctypes.c_int]
    return lib


def peak_memory() -> int:
    """Bytes of the largest resident set so far."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def rounding(engine: Engine, job: dict) -> dict[str, float]:
    """What int8 does to embeddings of the faces of calibration: the worst cosine to float64, the worst change of a distance."""
    truth, batch = np.load(job["models"]["faces_reference"]), job["batch"]
    images = np.load(job["models"]["faces"])[:len(truth)]  # after them their mirror images
    made = []
    for first in range(0, len(images), batch):
        engine.show(images.take(range(first, first + batch), axis=0, mode="wrap"))
        engine.run()
        made.append(engine.output().astype(np.float64).reshape(batch, -1))
    engine.show(np.load(job["models"]["images"])[:batch])  # those that are timed
    made = np.concatenate(made)[:len(images)]
    cosines = np.sum(made * truth, 1) / np.linalg.norm(made, axis=1) / np.linalg.norm(truth, axis=1)
    one, other = np.triu_indices(len(images), 1)
    before, after = (np.linalg.norm(e[one] - e[other], axis=1) for e in (truth, made))
    return {"cosine": float(cosines.min()), "distance": float(np.abs(after - before).max())}


def serve(job: dict, reply) -> None:
    if job["engine"] == "machine":
        machine = Machine(job)
        reply({"version": machine.lib.fnb_version().decode()})
        for line in sys.stdin:
            order = json.loads(line)
            reply({"value": getattr(machine, order["measure"])(order["threads"])})
        return
    engine = ENGINES[job["engine"]]()
    version = engine.prepare(job)
    images = np.ascontiguousarray(np.load(job["models"]["images"])[:job["batch"]])
    before = peak_memory()
    start = time.perf_counter()
    engine.load(job, images)
    engine.run()
    load_seconds = time.perf_counter() - start
    peak = peak_memory()
    truth = np.load(job["models"]["reference"])[:job["batch"]]
    error = float(np.abs(engine.output().astype(np.float64).reshape(truth.shape) - truth).max())
    changed = rounding(engine, job) if engine.rounded else {}
    reply({"version": version, "load_seconds": load_seconds, "error": error, **changed, "settings": engine.settings,
           "import_bytes": before, "peak_bytes": peak})
    clock = time.perf_counter
    for line in sys.stdin:
        order = json.loads(line)
        engine.run()  # wakes the threads; not counted
        seconds = []
        for _ in range(order["count"]):
            start = clock()
            engine.run()
            seconds.append(clock() - start)
        reply({"seconds": seconds, "peak_bytes": peak_memory()})


def main() -> None:
    # Libraries print to stdout what they please: replies go to a copy of it, and stdout joins stderr (a log).
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def reply(message: dict) -> None:
        channel.write(json.dumps(message) + "\n")

    try:
        serve(json.loads(sys.stdin.readline()), reply)
    except Exception as error:  # whatever a peer throws is a line of the table
        kind = "" if type(error) is RuntimeError else f"{type(error).__name__}: "
        reply({"failed": f"{kind}{error}"})
        raise


if __name__ == "__main__":
    main()
