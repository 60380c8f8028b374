# SPDX-License-Identifier: Apache-2.0
"""Same crops, same pixels: `nncoord show --npy` against Pillow.

    PYTHON bench/peers/check_pixels.py build/nncoord DIR [--count N] [option of show ...]

DIR holds class folders of images. Runs `nncoord show DIR --npy FILE` in a temporary directory and repeats each line
of FILE.jsonl with Pillow: open, convert, crop the recorded box, resize bilinearly with antialiasing, take the
recorded window (zeros outside), flip. Prints the largest difference in grey levels, and the share of values that
are equal and that are within one level. Exit status 1 when fewer than 99.9 % are within one level.
"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import PIL
from PIL import Image

WITHIN_ONE = 0.999


def expected(root, line, channels):
    """The sample as Pillow makes it, uint8 (H, W, C)."""
    image = Image.open(os.path.join(root, line["path"])).convert("RGB" if channels == 3 else "L")
    if list(image.size) != line["size"]:
        sys.exit(f"{line['path']}: Pillow sees {image.size}, nncoord {line['size']}")
    left, top, width, height = line["crop"]
    image = image.crop((left, top, left + width, top + height))
    image = image.resize(tuple(line["resize"]), Image.BILINEAR)
    left, top, width, height = line["window"]
    image = image.crop((left, top, left + width, top + height))
    if line["flip"]:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    return np.asarray(image, dtype=np.uint8).reshape(height, width, channels)


def show(nncoord, root, options):
    """(array, lines) of nncoord show."""
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "samples.npy")
        done = subprocess.run([nncoord, "show", root, "--npy", path, *options], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr)
        with open(path + ".jsonl") as lines:
            return np.load(path), [json.loads(line) for line in lines]


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    nncoord, root, options = sys.argv[1], sys.argv[2], sys.argv[3:]
    array, lines = show(nncoord, root, options)
    if len(array) != len(lines):
        sys.exit(f"{len(array)} samples, {len(lines)} lines")
    counts = np.zeros(256, dtype=np.int64)
    worst = (0, "")
    compared = 0
    for sample, line in zip(array, lines):
        if line["status"] == "bad":
            continue
        difference = np.abs(sample.astype(np.int16) - expected(root, line, sample.shape[2]))
        counts += np.bincount(difference.ravel(), minlength=256)
        worst = max(worst, (int(difference.max()), line["path"]))
        compared += 1
    if compared == 0:
        sys.exit("no sample to compare")
    total = counts.sum()
    within = counts[:2].sum() / total
    print(f"{compared} samples, {total} values, Pillow {PIL.__version__}: largest difference {worst[0]}"
          f"{' in ' + worst[1] if worst[0] else ''}, equal {100 * counts[0] / total:.4f} %, "
          f"more than 1 level apart {100 * (1 - within):.4f} %")
    sys.exit(0 if within >= WITHIN_ONE else 1)


if __name__ == "__main__":
    main()
