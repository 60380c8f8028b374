#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Input pipelines side by side: nncoord's loaders, torchvision, DALI, FFCV, SPDL and what the parts allow.

    bench/peers/setup.sh                                     makes the peers' virtual environments
    bench/peers/compare_input.py build/nncoord --images DIR --small DIR [--quick]

DIR holds class folders of JPEGs: photographs (--images), small images such as CIFAR-10's (--small). Both are read only.
Runs on any Python 3.11 without packages. Who is compared is said in peers.py, how a run is measured in measure.py and
runners.py, and what the figures mean in bench/README.md. Writes input.md, input.json and input.svg below --out.
"""
import argparse
import datetime
import json
import math
import os
import signal
import subprocess
import sys
import tempfile

import measure
import report
from peers import CONTESTANTS, SECTIONS

HERE = os.path.dirname(os.path.abspath(__file__))
SETUP = os.path.join(HERE, "setup.sh")
FINISHED = 400  # images for loaders that only copy


class Skip(Exception):
    """A contestant that cannot take part; the text is the sentence that says why."""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Bench:
    """One comparison: where things are, and what has been prepared so far."""

    def __init__(self, args, work):
        self.args, self.work = args, work
        self.nncoord = os.path.abspath(args.nncoord)
        self.prepared = {}
        options = self.help("bench", "input")
        self.split = "--bench-split" if "--bench-split" in options else "--split"
        self.has_epochs = "--bench-epochs" in options
        self.environment = {"XDG_CACHE_HOME": work, "NUMBA_CACHE_DIR": work, "OMP_NUM_THREADS": "1",
                            "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def help(self, *verb):
        done = subprocess.run([self.nncoord, *verb, "--help"], capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else ""

    def python(self, environment):
        path = os.path.join(self.args.venvs, environment, "bin", "python")
        if not os.path.exists(path):
            raise Skip(f"there is no {path}; {os.path.relpath(SETUP)} makes it")
        return path

    def source(self, section):
        return self.args.images if section.data == "images" else self.args.small

    # ---- one run of one contestant ----

    def nncoord_command(self, section, data, epochs, finished=False):
        command = [self.nncoord, "bench", "input", data, "--workers", str(self.args.workers), "--batch-size",
                   str(section.batch), "--json"]
        if self.has_epochs:
            command += ["--bench-epochs", str(epochs)]
        if section.recipe == "eval":
            return command + [self.split, "val", "--val-resize-size", str(section.resize), "--val-crop-size",
                              str(section.size)]
        if finished:
            command += ["--train-transform", "padded-crop", "--crop-padding", "0", "--hflip-prob", "0", "--io", "null"]
        return command + ["--train-crop-size", str(section.size)]

    def run_nncoord(self, section, data, epochs, finished=False):
        # The pass that warms up is not among the images timed, but CPU time was spent on it.
        return measure.run_whole(self.nncoord_command(section, data, epochs, finished), self.environment, self.errors(),
                                 lambda result: result["images"] + result.get("warm_images", 0))

    def run_python(self, name, section):
        task = self.task(section)
        if CONTESTANTS[name].store:
            task["prepared"] = self.prepared[name]
        command = [self.python(CONTESTANTS[name].environment), os.path.join(HERE, "runners.py"),
                   CONTESTANTS[name].runner, json.dumps(task)]
        return measure.run_phases(command, self.environment, self.errors())

    def program(self, row):
        return os.path.join(os.path.dirname(self.nncoord), "bench", row.runner)

    def run_program(self, name, section):
        row = CONTESTANTS[name]
        data = [self.source(section)] if row.arguments else []
        command = [self.program(row), *row.arguments, *data, str(self.args.workers), str(self.args.seconds)]
        result = measure.run_whole(command, self.environment, self.errors(), lambda result: result["images"])
        # It holds every file in memory, and warms up: its own account is of the timed part.
        own = result["reported"]["cpu_s_per_1000"]
        return {**result, "cpu_s_per_1000": own, "cpus_used": own * result["images_per_s"] / 1000,
                "peak_memory_bytes": None}

    def run(self, name, section):
        kind = CONTESTANTS[name].kind
        if kind == "nncoord":
            return self.run_nncoord(section, *self.prepared[name, section.title])
        return self.run_python(name, section) if kind == "python" else self.run_program(name, section)

    def task(self, section):
        folder = self.source(section)
        images = count_files(folder)
        return {"folder": folder, "recipe": section.recipe, "size": section.size, "resize": section.resize,
                "batch": section.batch, "workers": self.args.workers, "images": images,
                "warm_images": min(images, self.args.warm_images), "warm_seconds": self.args.warm_seconds,
                "seconds": self.args.seconds}

    def errors(self):
        return tempfile.TemporaryFile(dir=self.work)

    # ---- preparation ----

    def prepare(self, name, section):
        """Make what the contestant reads. Returns its size relative to the original files, None where it reads
        those."""
        row = CONTESTANTS[name]
        if row.kind == "nncoord":
            return self.prepare_nncoord(name, section)
        if row.kind == "program" and not os.path.exists(self.program(row)):
            raise Skip(f"build {row.runner} first: ninja -C build")
        if row.kind == "python":
            self.python(row.environment)
        if not row.store:
            return None
        if name not in self.prepared:
            to = os.path.join(self.work, name + ".beton")
            task = {**self.task(section), "store": row.store, "prepared": to}
            self.must([self.python(row.environment), os.path.join(HERE, "runners.py"), "ffcv_prepare",
                       json.dumps(task)])
            self.prepared[name] = to
        return tree_bytes(self.prepared[name]) / tree_bytes(self.source(section))

    def prepare_nncoord(self, name, section):
        """Pack if need be, write the index, and find out how many epochs take --seconds."""
        row = CONTESTANTS[name]
        data, share = self.source(section), None
        if row.packed:
            if not self.help("pack"):
                raise Skip("this nncoord has no verb `pack`")
            source = self.finished_images(section) if row.finished else self.source(section)
            data = os.path.join(self.work, name)
            self.must([self.nncoord, "pack", source, data, *row.arguments])
            share = None if row.finished else tree_bytes(data) / tree_bytes(source)
        self.run_nncoord(section, data, 1, row.finished)
        run = self.run_nncoord(section, data, 1, row.finished)
        epochs = math.ceil(run["images_per_s"] * self.args.seconds / run["reported"]["images"])
        self.prepared[name, section.title] = (data, epochs, row.finished)
        return share

    def finished_images(self, section):
        """A folder of images that need neither decoding nor resizing."""
        folder = os.path.join(self.work, "finished")
        os.makedirs(os.path.join(folder, "one"), exist_ok=True)
        for number in range(FINISHED):
            with open(os.path.join(folder, "one", f"{number:04}.ppm"), "wb") as file:
                file.write(f"P6\n{section.size} {section.size}\n255\n".encode())
                file.write(bytes([number % 256]) * (3 * section.size * section.size))
        return folder

    def must(self, command):
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **self.environment})
        if done.returncode != 0:
            raise Skip(f"preparation failed: {last_line(done.stderr)}")


def last_line(text):
    return (text.strip().splitlines() or ["no message"])[-1]


def count_files(path):
    return sum(len(names) for _, _, names in os.walk(path))


def tree_bytes(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def read_all(path):
    """Into the page cache: storage is not compared."""
    for folder, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                while file.read(1 << 20):
                    pass


def prepare_all(bench, section):
    """Returns ({contestant: share of the original bytes or None}, {contestant: why it is skipped})."""
    stored, skipped = {}, {}
    for name in dict.fromkeys(name for match in section.matches for name in match if name):
        try:
            stored[name] = bench.prepare(name, section)
        except (Skip, measure.Failed) as why:
            skipped[name] = last_line(str(why))
            say(f"  {CONTESTANTS[name].title}: skipped, {why}")
    return stored, skipped


def run_match(bench, section, names, skipped):
    """The two of a match, one straight after the other. Returns {contestant: result}; who fails is skipped from
    then on."""
    results = {}
    for name in names:
        try:
            results[name] = bench.run(name, section)
        except measure.Failed as why:
            skipped[name] = f"a run failed: {last_line(str(why))}"
            say(f"  {CONTESTANTS[name].title}: {why}")
            continue
        say(f"  {CONTESTANTS[name].title:55} {results[name]['images_per_s']:10,.0f} images/s, "
            f"{results[name]['cpus_used']:.2f} CPUs")
    return results


def run_section(bench, name):
    section = SECTIONS[name]
    if not bench.source(section):
        say(f"{name}: skipped, --{section.data} is not given")
        return None
    say(f"{name}: {section.title}")
    read_all(bench.source(section))
    stored, skipped = prepare_all(bench, section)
    pairs = {match: [] for match in section.matches}
    for round_number in range(bench.args.runs):
        for match in section.matches:
            if match[1] in skipped:
                continue
            names = [name for name in match if name and name not in skipped]
            # Whoever runs second finds the machine warmer: they take turns.
            names = names[::-1] if round_number % 2 == 0 else names
            pairs[match].append(run_match(bench, section, names, skipped))
    return report.summarise(name, pairs, stored, skipped, bench.task(section))


def parse():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    parser = argparse.ArgumentParser(description="Compare input pipelines; see the head of this file.")
    parser.add_argument("nncoord", help="the program, in its build directory")
    parser.add_argument("--images", help="class folders of photographs")
    parser.add_argument("--small", help="class folders of small images")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="comma-separated, default: %(default)s")
    parser.add_argument("--venvs", default=os.path.join(cache, "nncoord", "peers"), help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=5, help="of each pair, default: %(default)s")
    parser.add_argument("--seconds", type=float, default=6.0, help="timed part of a run, default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="processes or threads, default: %(default)s")
    parser.add_argument("--out", default="runs/peers", help="folder of the results, default: %(default)s")
    parser.add_argument("--work", help="where temporary files go, ten times the size of --images (default: the "
                                       "system's temporary folder)")
    parser.add_argument("--quick", action="store_true",
                        help="one run of 1 s each: shows that everything works, its figures mean nothing")
    args = parser.parse_args()
    args.warm_images, args.warm_seconds = 5000, 2.0
    if args.quick:
        args.runs, args.seconds, args.warm_images, args.warm_seconds = 1, 1.0, 500, 0.5
    unknown = [name for name in args.sections.split(",") if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    for folder in (args.images, args.small):
        if folder and not os.path.isdir(folder):
            parser.error(f"{folder}: no such folder")
    return args


def main():
    args = parse()
    # As an exception, so that the process under measurement and the temporary files are removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    os.makedirs(args.out, exist_ok=True)
    results = {"date": datetime.date.today().isoformat(), "machine": report.machine(), "quick": args.quick,
               "nncoord": subprocess.run([args.nncoord, "--version"], capture_output=True, text=True,
                                         check=True).stdout.strip(),
               "runs": args.runs, "seconds": args.seconds, "workers": args.workers, "sections": []}
    with tempfile.TemporaryDirectory(prefix="nncoord-peers-", dir=args.work) as work:
        bench = Bench(args, work)
        for name in args.sections.split(","):
            section = run_section(bench, name)
            if section is not None:
                results["sections"].append(section)
                report.write(results, args.out)
    print(report.markdown(results))
    say(f"written: {os.path.join(args.out, 'input.{md,json,svg}')}")


if __name__ == "__main__":
    main()
