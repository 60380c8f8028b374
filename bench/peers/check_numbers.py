# SPDX-License-Identifier: Apache-2.0
"""Same weights, same images: nncoord against PyTorch.

    PYTHON bench/peers/check_numbers.py build/nncoord [model ...]

For each model: (1) logits of `nncoord predict` against PyTorch's in evaluation mode, relative to the largest
logit; (2) weights after three steps of SGD (lr 0.0001, momentum 0.9, Nesterov, weight decay 1e-4) from the same
start over the same batches, the order taken from nncoord's --audit file: norm of the difference of all weights
relative to their norm. Images are PNGs of exactly the network's size, so that decoding and resizing play no part.

Single tensors that start at zero (biases of batch norm) hold nothing but three small gradients, and at the start of
training ReLUs near zero make those of float32 differ from those of float64 in the second digit, in PyTorch alone as
well. The columns float32/64 show PyTorch in float32 against PyTorch in float64, over all weights and for the worst
single tensor. Exit status 1 when a bound (1e-4 logits, 1e-3 weights) is exceeded.
"""
import copy
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from models import MODELS

CLASSES, STEPS = 4, 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_images(root, channels, side, count):
    """Class folders of noise over gradients; returns {relative path: uint8 array}."""
    rng = np.random.default_rng(7)
    images = {}
    for i in range(count):
        name = f"train/c{i % CLASSES}/{i:03d}.png"
        ramp = np.linspace(0, 200, side)[None, :, None] * rng.uniform(0.2, 1, (1, 1, channels))
        pixels = (ramp + rng.uniform(0, 55, (side, side, channels))).astype(np.uint8)
        os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
        Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(os.path.join(root, name))
        images[name] = pixels
    return images


def to_tensor(pixels):
    channels = pixels.shape[2]
    x = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)
    mean = torch.tensor(MEAN[:channels])[:, None, None]
    return (x - mean) / torch.tensor(STD[:channels])[:, None, None]


def difference(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12))


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def common(name, channels, side, extra, weights):
    arguments = f"num_classes={CLASSES}" + ("," + extra if extra else "")
    return ["--model", name, "--model-args", arguments, "--weights", weights, "--channels", str(channels),
            "--val-crop-size", str(side), "--val-resize-size", str(side)]


def check_logits(nncoord, root, images, model, options):
    model.eval()
    names = sorted(images)[:8]
    lines = run([nncoord, "predict", *[os.path.join(root, n) for n in names], "--json", "--logits",
                 "--batch-size", "4", *options]).splitlines()
    ours = torch.tensor([json.loads(line)["logits"] for line in lines])
    with torch.no_grad():
        theirs = model(torch.stack([to_tensor(images[n]) for n in names]))
    return difference(ours, theirs)


def check_steps(nncoord, root, images, model, options, side, batch):
    audit, out = os.path.join(root, "audit"), os.path.join(root, "run")
    run([nncoord, "train", root, *options, "--train-crop-size", str(side), "--batch-size", str(batch),
         "--epochs", "1", "--lr", "0.0001", "--lr-scheduler", "constant", "--momentum", "0.9", "--nesterov",
         "--weight-decay", "1e-4", "--train-transform", "eval", "--hflip-prob", "0", "--audit", audit, "--output-dir", out,
         "--quiet"])
    order = sorted((line.split() for line in open(audit) if line.startswith("train")),
                   key=lambda f: (int(f[2]), int(f[4])))
    names = sorted(images, key=lambda n: n.encode())
    steps = [[names[int(f[5])] for f in order if int(f[2]) == step] for step in range(STEPS)]
    exact = train(copy.deepcopy(model).double(), images, steps)
    theirs = train(model, images, steps)
    newest = sorted(d for d in os.listdir(out) if d.startswith("ckpt-") and "." not in d)[-1]
    ours = load_file(os.path.join(out, newest, "model.safetensors"))
    tensors = [n for n in theirs if "num_batches" not in n]
    norm = sum(float(theirs[n].double().square().sum()) for n in tensors) ** 0.5
    apart = sum(float((ours[n].double() - theirs[n]).square().sum()) for n in tensors) ** 0.5
    own = sum(float((exact[n] - theirs[n].double()).square().sum()) for n in tensors) ** 0.5
    worst = max(difference(ours[n].double(), theirs[n].double()) for n in tensors)
    noise = max(difference(theirs[n].double(), exact[n]) for n in tensors)
    return apart / norm, own / norm, worst, noise


def calm(model):
    """Weaken the residual branches, as zero-init-residual recipes do: an untrained deep ResNet is so chaotic
    that float32 and float64 part within three steps, and nothing could be compared."""
    for block in model.modules():
        if hasattr(block, "downsample"):
            last = block.bn3 if hasattr(block, "bn3") else block.bn2
            torch.nn.init.constant_(last.weight, 0.2)
    return model


def train(model, images, steps):
    model.train()
    kind = next(model.parameters()).dtype
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0001, momentum=0.9, nesterov=True,
                                weight_decay=1e-4)
    for rows in steps:
        x = torch.stack([to_tensor(images[n]) for n in rows]).to(kind)
        y = torch.tensor([int(n.split("/")[1][1:]) for n in rows])
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.state_dict()


def main():
    nncoord, wanted = sys.argv[1], sys.argv[2:] or list(MODELS)
    failed = False
    print(f"{'model':10} {'logits':>10} {'3 steps':>10} {'float32/64':>11} {'worst tensor':>13} {'float32/64':>11}")
    for name in wanted:
        create, channels, side, extra = MODELS[name]
        batch = 16
        torch.manual_seed(1)
        model = calm(create(CLASSES))
        with tempfile.TemporaryDirectory() as root:
            images = make_images(root, channels, side, STEPS * batch)
            weights = os.path.join(root, "start.safetensors")
            save_file(model.state_dict(), weights)
            options = common(name, channels, side, extra, weights)
            logits = check_logits(nncoord, root, images, model, options)
            steps, own, worst, noise = check_steps(nncoord, root, images, model, options, side, batch)
        bad = logits > 1e-4 or steps > 1e-3
        failed |= bad
        print(f"{name:10} {logits:10.2e} {steps:10.2e} {own:11.2e} {worst:13.2e} {noise:11.2e}"
              f"{'  EXCEEDED' if bad else ''}", flush=True)
    sys.exit(1 if failed else 0)


main()
