# SPDX-License-Identifier: Apache-2.0
"""Writes reference.txt: what PyTorch computes, in float64, for test_reference_golden.c.

Run by hand when a network is added there:  python3 reference.py > reference.txt
Each line is: case, quantity, count, values. Weights, images and labels follow the formulas below,
which the C test has too, so that only results need to be stored.
"""
import math
import sys

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
MEAN, STD = [0.5, 0.4, 0.45], [0.25, 0.3, 0.2]


def conv(k, r, s, sh, sw, ph, pw, bias, back=0):
    return dict(kind="conv", k=k, window=(r, s, sh, sw, ph, pw), bias=bias, back=back)


def square(k, kernel, stride, pad, bias, back=0):
    return conv(k, kernel, kernel, stride, stride, pad, pad, bias, back)


def row(kind, *args, **named):
    return dict(kind=kind, args=args, back=named.get("back", 0))


CASES = {
    "residual": dict(
        input=(3, 9, 8), batch=4, loss="ce", smoothing=0.1, unlabelled=False,
        lr=0.1, momentum=0.9, nesterov=True, decay=(0.01, 0.0, 0.002),
        rows=[square(3, 3, 1, 1, False), row("bn"), row("relu"), row("max", 3, 3, 2, 2, 1, 1),
              square(3, 3, 1, 1, False), row("bn"), row("relu"),
              square(4, 3, 2, 1, False), row("bn"),
              square(4, 1, 2, 0, False, back=5), row("bn"), row("add", 2), row("relu"),
              row("adaptive", 1, 1), row("flatten"), dict(kind="linear", k=6, bias=True, back=0)]),
    "sigmoid squares": dict(
        input=(1, 5, 4), batch=5, loss="mse", smoothing=0.0, unlabelled=True,
        lr=0.05, momentum=0.9, nesterov=False, decay=(0.0, 0.1, 0.0),
        rows=[row("flatten"), dict(kind="linear", k=7, bias=True, back=0), row("sigmoid"),
              dict(kind="linear", k=7, bias=False, back=0), row("tanh"),
              dict(kind="linear", k=5, bias=True, back=0)]),
    "pools": dict(
        input=(1, 11, 10), batch=1, loss="ce", smoothing=0.0, unlabelled=False,
        lr=0.1, momentum=0.0, nesterov=False, decay=(0.0, 0.0, 0.0),
        rows=[conv(4, 2, 3, 1, 2, 0, 1, True), row("tanh"), row("avg", 3, 2, 2, 1, 1, 1),
              row("adaptive", 3, 4), row("max", 2, 3, 1, 1, 1, 0),
              dict(kind="linear", k=3, bias=True, back=0)]),
    "unlabelled and smoothed": dict(
        input=(3, 4, 4), batch=3, loss="ce", smoothing=0.3, unlabelled=True,
        lr=0.1, momentum=0.5, nesterov=False, decay=(0.1, 0.1, 0.0),
        rows=[square(2, 3, 1, 1, True), row("relu"), dict(kind="linear", k=7, bias=True, back=0)]),
}


def draw(param, place):
    """In [-0.5, 0.5), rounded to float: the C test's formula."""
    return (param * 7919 + place * 104729 + 13) % 1009 / 1009.0 - 0.5


class Net:
    def __init__(self, case):
        self.case, self.params, self.buffers, self.groups = case, [], {}, []
        self.names = {}
        shape = case["input"]
        shapes = [shape]
        for number, layer in enumerate(case["rows"], 1):
            shape = shapes[number - 1 - layer["back"]]
            if layer["kind"] == "conv":
                self.add(number, "weight", (layer["k"], shape[0]) + layer["window"][:2], 0)
            elif layer["kind"] == "linear":
                self.add(number, "weight", (layer["k"], math.prod(shape)), 0)
            elif layer["kind"] == "bn":
                self.add(number, "weight", shape[:1], 2)
                self.add(number, "bias", shape[:1], 2)
                self.add(number, "running_mean", shape[:1], 3)
                self.add(number, "running_var", shape[:1], 3)
            if layer["kind"] in ("conv", "linear") and layer["bias"]:
                self.add(number, "bias", (layer["k"],), 1)
            with torch.no_grad():
                probe = [torch.zeros((2,) + s) for s in shapes]
                shapes.append(tuple(self.layer(number, layer, probe, False).shape[1:]))

    def add(self, number, suffix, shape, group):
        index = len(self.params)
        count = math.prod(shape)
        values = torch.tensor([draw(index, place) for place in range(count)])
        if suffix == "running_var" or (group == 2 and suffix == "weight"):
            values = values + 1
        values = values.float().double().reshape(shape).requires_grad_(group != 3)
        self.params.append((f"n{number}.{suffix}", values, group))
        self.names[f"n{number}.{suffix}"] = values

    def layer(self, number, layer, values, training):
        x, kind = values[number - 1 - layer["back"]], layer["kind"]
        weight = self.names.get(f"n{number}.weight")
        bias = self.names.get(f"n{number}.bias")
        if kind == "conv":
            w = layer["window"]
            return F.conv2d(x, weight, bias, stride=w[2:4], padding=w[4:6])
        if kind == "linear":
            return F.linear(x.flatten(1), weight, bias)
        if kind == "bn":
            mean, var = self.names[f"n{number}.running_mean"], self.names[f"n{number}.running_var"]
            return F.batch_norm(x, mean, var, weight, bias, training, 0.1, 1e-5)
        if kind == "max":
            w = layer["args"]
            return F.max_pool2d(x, w[0:2], w[2:4], w[4:6])
        if kind == "avg":
            w = layer["args"]
            return F.avg_pool2d(x, w[0:2], w[2:4], w[4:6])
        if kind == "adaptive":
            return F.adaptive_avg_pool2d(x, layer["args"])
        if kind == "add":
            return x + values[number - 1 - layer["args"][0]]
        if kind == "flatten":
            return x.flatten(1)
        return getattr(torch, kind)(x)

    def forward(self, x, training):
        values = [x]
        for number, layer in enumerate(self.case["rows"], 1):
            values.append(self.layer(number, layer, values, training))
        return values[-1]


def samples(case, classes):
    c, h, w = case["input"]
    images = torch.empty(case["batch"], c, h, w)
    for n in range(case["batch"]):
        for place in range(c * h * w):  # in (H,W,C) order
            byte = (n * 131 + place * 89 + place * place * 7) % 256
            y, rest = divmod(place, w * c)
            images[n, rest % c, y, rest // c] = (byte / 255 - MEAN[rest % c]) / STD[rest % c]
    labels = [(3 * n + 1) % classes for n in range(case["batch"])]
    if case["unlabelled"]:
        labels[0] = -1
    return images, torch.tensor(labels)


def loss_of(case, logits, labels):
    """Sum over labelled samples."""
    if case["loss"] == "ce":
        return F.cross_entropy(logits, labels, ignore_index=-1, label_smoothing=case["smoothing"],
                               reduction="sum")
    known = labels >= 0
    onehot = F.one_hot(labels[known], logits.shape[1]).double()
    return ((logits[known] - onehot) ** 2).sum()


def show(case, what, values):
    values = values.detach().flatten().tolist()
    print(case, what, len(values), *(f"{value:.9g}" for value in values), sep="\t")


def run(name, case):
    net = Net(case)
    groups = [dict(params=[p for _, p, g in net.params if g == group],
                   weight_decay=case["decay"][group]) for group in range(3)]
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.SGD(groups, lr=case["lr"], momentum=case["momentum"],
                                nesterov=case["nesterov"])
    classes = case["rows"][-1]["k"]
    images, labels = samples(case, classes)
    for step in range(3):
        optimizer.zero_grad()
        logits = net.forward(images, True)
        loss = loss_of(case, logits, labels)
        (loss / (case["batch"] + 3)).backward()
        show(name, f"step {step} logits", logits)
        show(name, f"step {step} loss", loss)
        if step == 0:
            for param, values, group in net.params:
                gradient = values.grad if group != 3 else torch.zeros_like(values)
                show(name, f"gradient {param}", gradient)
        optimizer.step()
    for param, values, _ in net.params:
        show(name, f"weight {param}", values)
    with torch.no_grad():
        logits = net.forward(images, False)
        show(name, "evaluation logits", logits)
        show(name, "evaluation loss", loss_of(case, logits, labels))


print("SPDX-License-Identifier: Apache-2.0")
print("made by reference.py with PyTorch", torch.__version__.split("+")[0])
for case_name, case_row in CASES.items():
    run(case_name, case_row)
