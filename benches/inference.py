#!/usr/bin/env python3
"""Inference of each network that ships, against ONNX Runtime on the same network and weights, one thread each, in turns (A B A B).

    python3 -m venv venv && venv/bin/pip install numpy onnx onnxruntime
    cargo build --release --workspace --bench forward
    venv/bin/python benches/inference.py

The networks are exported here, from the safetensors files, as one would export them; each is checked against the gateway's outputs on the
same inputs before anything is timed. The gateway's side is `RowModel::forward` as its workers call it (models/benches/forward.rs); the other
is `InferenceSession.run`, and its run alone with inputs and outputs bound beforehand (`bound`), which leaves out what Python adds.
`text-triage`: both sides begin from bags of n-grams.

BIN: the built bench (newest of target/release/deps/forward-*), ROUNDS (15), MS a turn (40), MODELS (all), BATCHES ("1 64").
"""
import glob
import json
import os
import statistics
import struct
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WEIGHTS = os.path.join(ROOT, "models", "weights")
ENV = os.environ.get
ROUNDS, TURN_S = int(ENV("ROUNDS", "15")), float(ENV("MS", "40")) / 1000
BATCHES = [int(rows) for rows in ENV("BATCHES", "1 64").split()]
TEXTS = ["water leaks from the ceiling of the station again and nobody has come", "patient short of breath since noon, oxygen falling",
         "street lamp flickers at the corner of the park", "路口的红绿灯坏了，车辆堵得很长", "slept well, ate breakfast, no pain"]


def safetensors(model):
    """The tensors of a model that ships, as 32-bit floats."""
    with open(os.path.join(WEIGHTS, model, "model.safetensors"), "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8:8 + length]), data[8 + length:]
    kinds = {"F32": np.float32, "F16": np.float16}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            values = np.frombuffer(body[begin:end], kinds[entry["dtype"]]).astype(np.float32)
            tensors[name] = values.reshape(entry["shape"])
    return tensors, header.get("__metadata__", {})


class Graph:
    """An ONNX graph in the making."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, values, kind=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(np.asarray(values, kind)), name))
        return name

    def node(self, kind, *inputs, out=None, **attributes):
        out = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def session(self, inputs, outputs):
        graph = helper.make_graph(self.nodes, "network", inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def floats(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def mlp(model):
    """models/src/mlp.rs."""
    tensors, _ = safetensors(model)
    graph = Graph()
    weight = {name: graph.constant(values) for name, values in tensors.items()}
    hidden = graph.node("Relu", graph.node("Gemm", "x", weight["hidden1.weight"], weight["hidden1.bias"]))
    hidden = graph.node("Relu", graph.node("Gemm", hidden, weight["hidden2.weight"], weight["hidden2.bias"]))
    straight = graph.node("MatMul", "x", weight["skip.weight"])
    output = graph.node("Gemm", hidden, weight["output.weight"], weight["output.bias"])
    graph.node("Add", output, straight, out="y")
    inputs, outputs = tensors["skip.weight"].shape
    return graph.session([floats("x", "n", inputs)], [floats("y", "n", outputs)]), inputs, outputs


def ecg(model):
    """models/src/diagnosis/ecg/network.rs."""
    tensors, _ = safetensors(model)
    (inputs, hidden), classes = tensors["hidden.weight"].shape, tensors["output.prior"].shape[0]
    members = tensors["output.bias"].shape[0] // classes
    graph = Graph()
    centred = graph.node("Sub", "x", graph.constant(tensors["input.mean"]))
    scaled = graph.node("Mul", centred, graph.constant(1.0 / tensors["input.deviation"]))
    scaled = graph.node("Clip", scaled, graph.constant(-4.0), graph.constant(4.0))
    wide = graph.node("Relu", graph.node("Gemm", scaled, graph.constant(tensors["hidden.weight"]), graph.constant(tensors["hidden.bias"])))
    # One product with a block-diagonal matrix: faster here than a batched one with its two transpositions.
    blocks = np.zeros((hidden, members * classes), np.float32)
    for member in range(members):
        rows = slice(member * hidden // members, (member + 1) * hidden // members)
        blocks[rows, member * classes:(member + 1) * classes] = tensors["output.weight"][rows]
    logits = graph.node("Gemm", wide, graph.constant(blocks), graph.constant(tensors["output.bias"]))
    logits = graph.node("Reshape", logits, graph.constant([-1, members, classes], np.int64))
    mean = graph.node("ReduceMean", graph.node("Softmax", logits, axis=2), axes=[1], keepdims=0)
    product = graph.node("Mul", mean, graph.constant(tensors["output.prior"]))
    shares = graph.node("Div", product, graph.node("ReduceSum", product, graph.constant([1], np.int64), keepdims=1))
    # Where a beat cannot be told for supraventricular its share is a normal one's.
    watched = graph.node("Gather", "x", graph.constant([12, 26], np.int64), axis=1)
    beyond = graph.node("Greater", watched, graph.constant(np.float32([5.0 * np.float32(0.15), np.log(np.float32(0.9))])))
    beyond = graph.node("ReduceMax", graph.node("Cast", beyond, to=TensorProto.FLOAT), axes=[1], keepdims=1)
    early = graph.node("Mul", graph.node("Gather", shares, graph.constant([1], np.int64), axis=1), beyond)
    graph.node("Add", shares, graph.node("Mul", early, graph.constant([[1.0, -1.0, 0.0, 0.0]])), out="y")
    return graph.session([floats("x", "n", inputs)], [floats("y", "n", classes)]), inputs, classes


def text(model):
    """models/src/text/classifier.rs, from bags: rows of weights by bucket, times their values, summed."""
    tensors, header = safetensors(model)
    meaning = json.loads(header["text"])
    labels, urgencies = len(meaning["labels"]), len(meaning["urgencies"])
    graph = Graph()
    rows = graph.node("Gather", graph.constant(tensors["bag.weight"]), "buckets", axis=0)
    sums = graph.node("Squeeze", graph.node("MatMul", "values", rows), graph.constant([1], np.int64))
    logits = graph.node("Add", sums, graph.constant(tensors["bag.bias"]))
    parts = graph.constant([labels, urgencies], np.int64)
    graph.nodes.append(helper.make_node("Split", [logits, parts], ["l", "u"], axis=1))
    graph.node("Concat", graph.node("Softmax", "l", axis=1), graph.node("Softmax", "u", axis=1), out="y", axis=1)
    buckets = helper.make_tensor_value_info("buckets", TensorProto.INT64, ("n", "k"))
    return graph.session([buckets, floats("values", "n", 1, "k")], [floats("y", "n", labels + urgencies)])


class Gateway:
    """The gateway's side, a process of its own that answers with the time of a pass."""

    def __init__(self, binary, model, rows, inputs, outputs):
        self.process = subprocess.Popen([binary, model, str(rows), inputs, outputs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def time(self, passes):
        self.process.stdin.write(f"{passes}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline()) / 1000

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


def timed(call, passes):
    """µs a call."""
    begin = time.perf_counter()
    for _ in range(passes):
        call()
    return (time.perf_counter() - begin) * 1e6 / passes


def passes_in_a_turn(measure):
    passes = 1
    while (took := measure(passes) * passes / 1e6) < TURN_S / 4 and passes < 1 << 20:
        passes *= 4
    return max(1, int(passes * TURN_S / max(took, 1e-9)))


def in_turns(ways):
    """The median time of each way, µs, one turn of each after the other."""
    counts = {name: passes_in_a_turn(way) for name, way in ways.items()}
    times = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            times[name].append(way(counts[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def compare(binary, model, rows, folder):
    inputs_file, outputs_file = os.path.join(folder, "inputs"), os.path.join(folder, "outputs")
    if model == "text-triage":
        session = text(model)
        with open(inputs_file, "w") as file:
            file.writelines(f"{TEXTS[n % len(TEXTS)]}\n" for n in range(rows))
    else:
        session, width, outputs = ecg(model) if model == "ecg-rhythm" else mlp(model)
        x = np.random.default_rng(1).normal(0, 1, (rows, width)).astype(np.float32)
        x.tofile(inputs_file)
    gateway = Gateway(binary, model, rows, inputs_file, outputs_file)
    gateway.time(1)
    if model == "text-triage":
        with open(outputs_file) as file:
            lines = [json.loads(line) for line in file]
        longest = max(len(line["bag"]) for line in lines)
        buckets, values = np.zeros((rows, longest), np.int64), np.zeros((rows, 1, longest), np.float32)
        for row, line in enumerate(lines):
            for at, (bucket, value) in enumerate(line["bag"]):
                buckets[row, at], values[row, 0, at] = bucket, value
        feed, ours = {"buckets": buckets, "values": values}, np.array([line["labels"] + line["urgencies"] for line in lines])
    else:
        feed, ours = {"x": x}, np.fromfile(outputs_file, np.float32).reshape(rows, outputs)
    theirs = session.run(None, feed)[0]
    if model == "forecaster":
        theirs = np.sort(theirs, axis=1)  # the gateway's side puts its quantiles in order, and is timed with that
    difference = float(np.abs(ours - theirs).max())
    assert difference < 1e-3 * max(1.0, float(np.abs(theirs).max())), f"{model}: outputs differ by {difference}"
    binding = session.io_binding()
    for name, values in feed.items():
        binding.bind_cpu_input(name, values)
    binding.bind_output("y")
    ways = {
        "nearside": gateway.time,
        "onnxruntime": lambda passes: timed(lambda: session.run(None, feed), passes),
        "bound": lambda passes: timed(lambda: session.run_with_iobinding(binding), passes),
    }
    times = in_turns(ways)
    gateway.close()
    return times, difference


def main():
    built = [path for path in glob.glob(os.path.join(ROOT, "target/release/deps/forward-*")) if not path.endswith(".d")]
    built = sorted((path for path in built if os.access(path, os.X_OK)), key=os.path.getmtime)
    binary = ENV("BIN") or (built and built[-1]) or exit("build the bench first; see the head of this file")
    models = ENV("MODELS", "forecaster multivariate glucose-forecast deterioration activity sleep ecg-rhythm text-triage").split()
    print(f"onnxruntime {onnxruntime.__version__}, one thread each, {ROUNDS} rounds in turns, median us a pass\n")
    print("| model | batch | nearside | onnxruntime | bound | ratio | ratio to bound | largest difference |\n|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            for rows in BATCHES:
                times, difference = compare(binary, model, rows, folder)
                ours, theirs, bound = times["nearside"], times["onnxruntime"], times["bound"]
                print(f"| {model} | {rows} | {ours:.2f} | {theirs:.2f} | {bound:.2f} | {ours / theirs:.2f} | {ours / bound:.2f} | {difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
