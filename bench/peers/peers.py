# SPDX-License-Identifier: Apache-2.0
"""Who is compared with whom. One contestant is one row of CONTESTANTS; one comparison is one row of SECTIONS."""
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Contestant:
    title: str
    kind: str  # "nncoord", "python" (a runner of runners.py) or "program" (a yardstick of bench/)
    environment: str = ""  # python: the virtual environment that setup.sh makes
    runner: str = ""       # python: function of runners.py; program: name below build/bench/
    arguments: tuple = ()  # program: before the folder; nncoord: of `nncoord pack`, when packed
    packed: bool = False   # nncoord: reads shards that `nncoord pack` made of the folder
    finished: bool = False  # nncoord: the packed images are of the final size, so that loaders only copy
    store: dict = field(default_factory=dict)  # ffcv: how the images are stored
    note: str = ""


CONTESTANTS = {
    "nncoord": Contestant("nncoord", "nncoord"),
    "nncoord-lossless": Contestant("nncoord, restart-indexed shards, lossless", "nncoord", packed=True,
                                   note="every coefficient of the original files"),
    "nncoord-400-q90": Contestant("nncoord, shards, longest side 400, quality 90", "nncoord", packed=True,
                                  arguments=("--max-side", "400", "--quality", "90")),
    "nncoord-400-raw": Contestant("nncoord, shards, longest side 400, raw pixels", "nncoord", packed=True,
                                  arguments=("--kind", "raw", "--max-side", "400")),
    "nncoord-copy": Contestant("nncoord, loaders that only copy", "nncoord", packed=True, finished=True,
                               arguments=("--kind", "raw"),
                               note="samples of 224 x 224 pixels that need no decoding, from memory"),
    "torchvision-pil": Contestant("torchvision, PIL", "python", "main", "torchvision_pil",
                                  note="ImageFolder and DataLoader"),
    "torchvision-v2": Contestant("torchvision, decode_image, transforms v2", "python", "main", "torchvision_v2",
                                 note="the same DataLoader, tensors instead of PIL images"),
    "dali": Contestant("DALI on CPU", "python", "dali", "dali",
                       note="training: image_random_crop decodes only the crop; evaluation: full decode; both resize "
                            "with antialiasing"),
    "spdl": Contestant("SPDL", "python", "dali", "spdl",
                       note="FFmpeg decodes the whole image; its bilinear scaling is not PIL's"),
    "ffcv-original": Contestant("FFCV, original size, quality 90", "python", "ffcv", "ffcv",
                                store={"write_mode": "jpg", "jpeg_quality": 90},
                                note="decodes images that it has encoded again at quality 90, with a loss; resizes "
                                     "with INTER_AREA"),
    "ffcv-400-q90": Contestant("FFCV, longest side 400, quality 90", "python", "ffcv", "ffcv",
                               store={"write_mode": "jpg", "max_resolution": 400, "jpeg_quality": 90}),
    "ffcv-400-raw": Contestant("FFCV, longest side 400, raw pixels", "python", "ffcv", "ffcv",
                               store={"write_mode": "raw", "max_resolution": 400}),
    "jpeg-full": Contestant("limit: libjpeg-turbo, full decode alone", "program", runner="bench_jpeg",
                            arguments=("full",), note="no resize, files in memory"),
    "jpeg-crop": Contestant("limit: libjpeg-turbo, crop decode alone", "program", runner="bench_jpeg",
                            arguments=("crop",), note="decodes what the random crop needs; no resize, files in memory"),
    "memcpy": Contestant("limit: memcpy into shared memory", "program", runner="bench_memcpy",
                         note="finished samples, no files, no decode"),
}


@dataclass(frozen=True)
class Section:
    title: str
    data: str     # which folder: "images" or "small"
    recipe: str   # "train": RandomResizedCrop and flip; "eval": resize and centre crop
    size: int
    batch: int
    matches: tuple  # of (nncoord's contestant or None, the other), run in turn
    resize: int = 0


SECTIONS = {
    "folder": Section("Folder of photographs, RandomResizedCrop 224, flip", "images", "train", 224, 50,
                      (("nncoord", "torchvision-pil"), ("nncoord", "torchvision-v2"), ("nncoord", "dali"),
                       ("nncoord", "spdl"))),
    "eval": Section("Folder of photographs, shorter side 256, centre crop 224", "images", "eval", 224, 50,
                    (("nncoord", "torchvision-pil"), ("nncoord", "torchvision-v2"), ("nncoord", "dali"),
                     ("nncoord", "spdl")), resize=256),
    "small": Section("Folder of small images, RandomResizedCrop 32, flip", "small", "train", 32, 128,
                     (("nncoord", "torchvision-pil"), ("nncoord", "torchvision-v2"), ("nncoord", "dali"))),
    "shards": Section("Prepared files of the same photographs, RandomResizedCrop 224, flip", "images", "train", 224, 50,
                      (("nncoord-lossless", "dali"), ("nncoord-lossless", "ffcv-original"),
                       ("nncoord-400-q90", "ffcv-400-q90"), ("nncoord-400-raw", "ffcv-400-raw"))),
    "limits": Section("What the parts allow, RandomResizedCrop 224", "images", "train", 224, 50,
                      (("nncoord", "jpeg-full"), ("nncoord", "jpeg-crop"), ("nncoord-copy", "memcpy"))),
}
