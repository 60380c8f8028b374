# SPDX-License-Identifier: Apache-2.0
"""Write NAME.params beside this file: names and shapes of torchvision's models, for test_graph.c.

Needs torchvision; run once, the result is committed.
"""
import pathlib

import torchvision

for name in ["alexnet", "vgg16", "resnet18", "resnet50"]:
    model = getattr(torchvision.models, name)(weights=None)
    version = torchvision.__version__.split("+")[0]
    lines = [f"# torchvision {version} {name}().state_dict() without num_batches_tracked: name, shape"]
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            lines.append(f"{key} {'x'.join(map(str, value.shape))}")
    path = pathlib.Path(__file__).with_name(f"{name}.params")
    path.write_text("\n".join(lines) + "\n")
