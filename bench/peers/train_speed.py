# SPDX-License-Identifier: Apache-2.0
"""Training speed on synthetic input, nncoord against PyTorch in alternating runs.

    PYTHON bench/peers/train_speed.py build/nncoord [--threads 2] [--runs 5] [model:batch ...]

Each round runs PyTorch (better of contiguous and channels_last, chosen in a first round) and `nncoord bench
train` in turn, each in a fresh process; the table shows medians and the median of the ratios pair by pair.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

DEFAULT = ["resnet50:32", "alexnet:64", "cnn:128"]


def torch_images_per_s(name, batch, threads, layout, steps):
    import torch

    from models import MODELS
    torch.set_num_threads(threads)
    create, channels, side, _ = MODELS[name]
    model = create(10 if side < 224 else 1000)
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    model = model.to(memory_format=form)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    x = torch.randn(batch, channels, side, side).to(memory_format=form)
    y = torch.randint(0, 10, (batch,))
    best = 0.0
    for i in range(steps + 2):
        begin = time.perf_counter()
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
        if i >= 2:
            best += time.perf_counter() - begin
    return steps * batch / best


def run_torch(name, batch, threads, layout, steps):
    command = [sys.executable, __file__, "--worker", name, str(batch), str(threads), layout, str(steps)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def run_ours(nncoord, name, batch, threads, steps):
    command = [nncoord, "bench", "train", "--model", name, "--batch-size", str(batch), "--threads",
               str(threads), "--bench-steps", str(steps), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["images_per_s"]


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        name, batch, threads, layout, steps = sys.argv[2:]
        print(torch_images_per_s(name, int(batch), int(threads), layout, int(steps)))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("nncoord")
    parser.add_argument("models", nargs="*", default=DEFAULT)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_intermixed_args()
    print(f"{'model':10} {'batch':>5} {'torch':>9} {'nncoord':>9} {'ratio':>6}   layout, all ratios")
    for item in args.models or DEFAULT:
        name, batch = item.split(":")[0], int(item.split(":")[1])
        steps = {"resnet50": 3, "vgg16": 3, "resnet18": 5, "alexnet": 8}.get(name, 100)
        layouts = ["contiguous", "channels_last"]
        first = {l: run_torch(name, batch, args.threads, l, steps) for l in layouts}
        layout = max(first, key=first.get)
        theirs, ours = [], []
        for _ in range(args.runs):
            theirs.append(run_torch(name, batch, args.threads, layout, steps))
            ours.append(run_ours(args.nncoord, name, batch, args.threads, steps))
        ratios = [o / t for o, t in zip(ours, theirs)]
        print(f"{name:10} {batch:5} {statistics.median(theirs):9.1f} {statistics.median(ours):9.1f} "
              f"{statistics.median(ratios):6.2f}   {layout} " + " ".join(f"{r:.2f}" for r in ratios),
              flush=True)


main()
