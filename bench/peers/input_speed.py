# SPDX-License-Identifier: Apache-2.0
"""Input pipeline: nncoord's loaders against torchvision's DataLoader on the same folder, alternating runs.

    PYTHON bench/peers/input_speed.py build/nncoord DIR [--size 224] [--workers 2] [--runs 5]

DIR holds class folders of images. Recipe: RandomResizedCrop(size), horizontal flip, uint8. The folder is read
once before timing (page cache); each run counts one epoch after the workers have started.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time


def torchvision_images_per_s(root, size, workers, batch):
    import torch
    import torchvision
    from torchvision import transforms as T
    recipe = T.Compose([T.RandomResizedCrop(size), T.RandomHorizontalFlip(), T.PILToTensor()])
    data = torchvision.datasets.ImageFolder(root, recipe)
    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(data, batch, shuffle=True, num_workers=workers,
                                         persistent_workers=True, prefetch_factor=4)
    for _ in loader:
        pass
    begin = time.perf_counter()
    count = sum(len(labels) for _, labels in loader)
    return count / (time.perf_counter() - begin)


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        root, size, workers, batch = sys.argv[2:]
        print(torchvision_images_per_s(root, int(size), int(workers), int(batch)))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("nncoord")
    parser.add_argument("root")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    theirs, ours = [], []
    for _ in range(args.runs):
        command = [sys.executable, __file__, "--worker", args.root, str(args.size), str(args.workers),
                   str(args.batch)]
        theirs.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        command = [args.nncoord, "bench", "input", args.root, "--workers", str(args.workers), "--batch-size",
                   str(args.batch), "--train-crop-size", str(args.size), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        ours.append(json.loads(done.stdout)["images_per_s"])
    ratios = [o / t for o, t in zip(ours, theirs)]
    print(f"torchvision {statistics.median(theirs):.0f}/s  nncoord {statistics.median(ours):.0f}/s  "
          f"ratio {statistics.median(ratios):.2f}  (all: {' '.join(f'{r:.2f}' for r in ratios)})")


main()
