# SPDX-License-Identifier: Apache-2.0
"""One run of one peer, in a fresh process of the peer's own virtual environment.

    PYTHON runners.py RUNNER TASK        TASK: the fields of peers.Task as JSON

Started by compare_input.py, never by hand. A runner returns an endless iterator of batch sizes; stream() takes
batches from it and never looks at a pixel. It says on standard output when a part begins, so that measure.py can
read CPU time and memory of the whole process tree from outside:

    phase timed      warm: every library is loaded and compiled, every worker has worked
    phase memory     the timed part is over; the work goes on while memory is looked at
    phase end
    {"images": ..., "seconds": ..., "version": ...}

The stream does not stop between epochs: nobody pays for emptying and refilling its queues, and an epoch of few images
measures the same as one of many. Memory is looked at after the timed part because reading it costs the peer time.
"""
import importlib.metadata
import json
import os
import random
import sys
import threading
import time

# More images than any run can take, where a library wants to know how many there will be.
ENDLESS = 10_000_000
MEMORY_SECONDS = 1.5


def stream(batches, task, version, say):
    begin, count = time.perf_counter(), 0
    while count < task["warm_images"] or time.perf_counter() - begin < task["warm_seconds"]:
        count += next(batches)
    say("phase timed")
    begin, images, seconds = time.perf_counter(), 0, 0.0
    while seconds < task["seconds"]:
        images += next(batches)
        seconds = time.perf_counter() - begin
    say("phase memory")
    begin = time.perf_counter()
    while time.perf_counter() - begin < MEMORY_SECONDS:
        next(batches)
    say("phase end")
    say(json.dumps({"images": images, "seconds": seconds, "version": version}))


def version_of(*packages):
    return ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages)


# ---- torchvision ----


def torch_loader(data, task):
    """Two worker processes for the whole run; a sampler of many epochs, each a permutation of its own."""
    import torch
    torch.set_num_threads(1)
    sampler = torch.utils.data.RandomSampler(data, num_samples=ENDLESS)
    loader = torch.utils.data.DataLoader(data, task["batch"], sampler=sampler, num_workers=task["workers"],
                                         prefetch_factor=4, persistent_workers=True)
    for _, labels in loader:
        yield len(labels)


def torch_recipe(transforms, recipe, size, resize):
    if recipe == "eval":
        return [transforms.Resize(resize, antialias=True), transforms.CenterCrop(size)]
    return [transforms.RandomResizedCrop(size, antialias=True), transforms.RandomHorizontalFlip()]


def torchvision_pil(task):
    import torchvision
    from torchvision import transforms
    steps = torch_recipe(transforms, task["recipe"], task["size"], task["resize"])
    data = torchvision.datasets.ImageFolder(task["folder"], transforms.Compose([*steps, transforms.PILToTensor()]))
    return torch_loader(data, task), version_of("torchvision", "pillow")


def torchvision_v2(task):
    import torchvision
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2
    steps = torch_recipe(v2, task["recipe"], task["size"], task["resize"])
    data = torchvision.datasets.ImageFolder(task["folder"], v2.Compose(steps),
                                            loader=lambda path: decode_image(path, ImageReadMode.RGB))
    return torch_loader(data, task), version_of("torchvision")


# ---- DALI ----


def dali_views(jpegs, task):
    from nvidia.dali import fn, types
    size = task["size"]
    if task["recipe"] == "eval":
        images = fn.decoders.image(jpegs, device="cpu", output_type=types.RGB)
        images = fn.resize(images, resize_shorter=task["resize"], interp_type=types.INTERP_LINEAR, antialias=True)
        return fn.crop(images, crop=(size, size))
    images = fn.decoders.image_random_crop(jpegs, device="cpu", output_type=types.RGB,
                                           random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3])
    images = fn.resize(images, size=[size, size], interp_type=types.INTERP_LINEAR, antialias=True)
    return fn.flip(images, horizontal=fn.random.coin_flip())


def dali(task):
    from nvidia.dali import fn, pipeline_def

    @pipeline_def(batch_size=task["batch"], num_threads=task["workers"], device_id=None, prefetch_queue_depth=4)
    def pipeline():
        jpegs, labels = fn.readers.file(file_root=task["folder"], random_shuffle=True, name="files")
        return dali_views(jpegs, task), labels

    def batches():
        pipe = pipeline()
        pipe.build()
        while True:
            images, _ = pipe.run()
            yield len(images)
    return batches(), version_of("nvidia-dali-cuda130")


# ---- FFCV ----


def ffcv_prepare(task):
    """Write the folder as one .beton file; what is stored is decided by task["store"]."""
    import torchvision
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    data = torchvision.datasets.ImageFolder(task["folder"])
    fields = {"image": RGBImageField(**task["store"]), "label": IntField()}
    DatasetWriter(task["prepared"], fields, num_workers=task["workers"]).from_indexed_dataset(data)
    print(json.dumps({"bytes": os.path.getsize(task["prepared"]), "images": len(data)}))


def ffcv(task):
    """Decoder, flip, tensor: nothing that compiles follows something that does not, or the loader would never
    finish its construction."""
    import cv2
    import numpy as np
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, ToTensor
    cv2.setNumThreads(1)
    pipelines = {"image": [RandomResizedCropRGBImageDecoder((task["size"], task["size"])), RandomHorizontalFlip(),
                           ToTensor()],
                 "label": [IntDecoder(), ToTensor()]}
    indices = np.tile(np.arange(task["images"]), 1 + 1_000_000 // task["images"])
    loader = Loader(task["prepared"], batch_size=task["batch"], num_workers=task["workers"], order=OrderOption.RANDOM,
                    os_cache=True, indices=indices, pipelines=pipelines)

    def batches():
        for images, _ in loader:
            yield len(images)
    return batches(), version_of("ffcv")


# ---- SPDL ----


def crop_box(width, height, rng):
    """torchvision's RandomResizedCrop.get_params."""
    import math
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return w, h, rng.randint(0, width - w), rng.randint(0, height - h)
    side = min(width, height)
    return side, side, (width - side) // 2, (height - side) // 2


def spdl_graph(width, height, task, rng):
    size = task["size"]
    if task["recipe"] == "eval":
        return (f"scale={task['resize']}:{task['resize']}:flags=bilinear:force_original_aspect_ratio=increase,"
                f"crop={size}:{size},format=pix_fmts=rgb24")
    w, h, x, y = crop_box(width, height, rng)
    flip = ",hflip" if rng.random() < 0.5 else ""
    return f"crop={w}:{h}:{x}:{y},scale={size}:{size}:flags=bilinear{flip},format=pix_fmts=rgb24"


def spdl(task):
    """FFmpeg decodes each image whole; crop, scale and flip are a filter graph made anew for each image."""
    import spdl.io
    from spdl.pipeline import PipelineBuilder
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(task["folder"]) for name in names]
    own = threading.local()

    def order():
        rng = random.Random(1)
        while True:
            yield from rng.sample(paths, len(paths))

    def load(path):
        if not hasattr(own, "rng"):
            own.rng = random.Random(threading.get_ident())
        with open(path, "rb") as file:
            packets = spdl.io.demux_image(file.read())
        codec = packets.codec
        return spdl.io.decode_packets(packets, filter_desc=spdl_graph(codec.width, codec.height, task, own.rng))

    def stack(frames):
        return spdl.io.to_numpy(spdl.io.convert_frames(frames))

    builder = PipelineBuilder().add_source(order()).pipe(load, concurrency=task["workers"])
    builder = builder.aggregate(task["batch"]).pipe(stack).add_sink(4)

    def batches():
        pipeline = builder.build(num_threads=task["workers"])
        with pipeline.auto_stop():
            for images in pipeline:
                yield len(images)
    return batches(), version_of("spdl")


RUNNERS = {"torchvision_pil": torchvision_pil, "torchvision_v2": torchvision_v2, "dali": dali, "ffcv": ffcv,
           "spdl": spdl}


def main():
    name, task = sys.argv[1], json.loads(sys.argv[2])
    if name == "ffcv_prepare":
        ffcv_prepare(task)
        return
    # Libraries print to standard output; what measure.py reads must be ours alone.
    ours = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(line):
        print(line, file=ours, flush=True)

    batches, version = RUNNERS[name](task)
    stream(batches, task, version, say)


if __name__ == "__main__":
    main()
