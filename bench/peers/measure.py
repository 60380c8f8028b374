# SPDX-License-Identifier: Apache-2.0
"""CPU time and memory of a program and all its children, read from outside: the same way for every contestant.

CPU: user + system time. Memory: anonymous and shared memory, summed over the process tree in proportion (PSS), so that
what several processes share (a ring, pages since a fork) counts once; the largest of the samples taken. Pages of files,
be they libraries or mapped data sets, are left out: the kernel can drop them, and whoever reads files instead of
mapping them uses the same page cache.
"""
import json
import os
import resource
import signal
import subprocess
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")
SAMPLE_S = 0.1
EXIT_S = 10
COUNTED = ("Pss_Anon:", "Pss_Shmem:")  # fields of smaps_rollup


class Failed(Exception):
    """A run that ended without a result; the text is the end of its standard error."""


def process_tree(pid):
    """The process and all its descendants that live now."""
    found, waiting = [], [pid]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children") as file:
                    waiting += [int(child) for child in file.read().split()]
        except OSError:
            continue  # it has ended meanwhile
    return found


def tree_cpu_seconds(pid):
    """Of all living processes, with what they have inherited from children that they have waited for."""
    ticks = 0
    for member in process_tree(pid):
        try:
            with open(f"/proc/{member}/stat") as file:
                # The name in brackets may contain anything; the fields behind it start with the third.
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS


def tree_memory_bytes(pid):
    """A process that the kernel does not let us look into counts as 0."""
    total = 0
    for member in process_tree(pid):
        try:
            with open(f"/proc/{member}/smaps_rollup") as file:
                total += sum(1024 * int(line.split()[1]) for line in file if line.startswith(COUNTED))
        except OSError:
            continue
    return total


class MemoryWatch:
    """Looks at the memory of a tree every SAMPLE_S seconds until stopped."""

    def __init__(self, pid):
        self.pid, self.peak, self.over = pid, 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.over.is_set():
            self.peak = max(self.peak, tree_memory_bytes(self.pid))
            self.over.wait(SAMPLE_S)

    def stop(self):
        self.over.set()
        self.thread.join()
        return self.peak


def start(command, environment, errors):
    """In a session of its own, so that whatever it leaves behind can be ended."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
                            env={**os.environ, **environment})


def finish(process, watch, patience_s=EXIT_S):
    """Wait a little for the end, then see to it; returns the peak of the watch."""
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    return watch.stop() if watch else 0


def tail(errors):
    errors.seek(0)
    return errors.read().decode(errors="replace").strip()[-2000:]


def run_phases(command, environment, errors):
    """A program that says when its parts begin (runners.py). CPU is that of the timed part, memory that of the part
    behind it."""
    process = start(command, environment, errors)
    cpu, memory, watch, result = [], 0, None, None
    try:
        for line in process.stdout:
            if line.strip() in ("phase timed", "phase memory"):
                cpu.append(tree_cpu_seconds(process.pid))
            if line.strip() == "phase memory":
                watch = MemoryWatch(process.pid)
            elif line.strip() == "phase end":
                memory = watch.stop()
            elif line.startswith("{"):
                result = json.loads(line)
                break
    except BaseException:
        finish(process, watch, 0)
        raise
    finish(process, watch)
    if result is None:
        raise Failed(tail(errors))
    return {**rates(result, cpu[1] - cpu[0], result["images"]), "peak_memory_bytes": memory,
            "version": result["version"]}


def run_whole(command, environment, errors, delivered):
    """A program that ends by itself and prints one JSON object with images and seconds. CPU and memory are those of
    its whole life. delivered(result) says how many images it made in that life, warm-up included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = start(command, environment, errors)
    watch = MemoryWatch(process.pid)
    try:
        output = process.stdout.read()
    except BaseException:
        finish(process, watch, 0)
        raise
    memory = finish(process, watch)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        raise Failed(tail(errors))
    result = json.loads(output)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {**rates(result, cpu, delivered(result)), "peak_memory_bytes": memory, "reported": result}


def rates(result, cpu_seconds, cpu_images):
    """cpus_used: how many CPUs worked on average. Fewer than usual says that the machine had other work."""
    rate, cost = result["images"] / result["seconds"], cpu_seconds / cpu_images
    return {"images": result["images"], "seconds": result["seconds"], "images_per_s": rate,
            "cpu_s_per_1000": 1000 * cost, "cpus_used": rate * cost}
