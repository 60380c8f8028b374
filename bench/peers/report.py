# SPDX-License-Identifier: Apache-2.0
"""Results of compare_input.py as a table and as JSON; chart.py draws them."""
import json
import os
import platform
import statistics

import chart
from peers import CONTESTANTS, SECTIONS

FIGURES = ("images_per_s", "cpu_s_per_1000", "cpus_used", "peak_memory_bytes")


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"cpu": model, "cpus": len(os.sched_getaffinity(0)), "memory_bytes":
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "kernel": platform.release(),
            "load_before": os.getloadavg()[0]}


def median_of(results, key):
    values = [result[key] for result in results if result.get(key) is not None]
    return statistics.median(values) if values else None


def row(name, results, ratios, stored, skipped):
    """One contestant of a section. ratios: nncoord's images/s over its, pair by pair. stored: size of what it reads
    relative to the original files."""
    kept = (*FIGURES, "images", "seconds", "reported")
    return {"name": name, "title": CONTESTANTS[name].title, "note": CONTESTANTS[name].note, "skipped": skipped,
            "stored_share": stored, "version": next((r["version"] for r in results if "version" in r), None),
            **{key: median_of(results, key) for key in FIGURES},
            "ratio": statistics.median(ratios) if ratios else None, "ratios": ratios,
            "runs": [{key: result.get(key) for key in kept} for result in results]}


def summarise(name, pairs, stored, skipped, task):
    """pairs: {(ours or None, other): [{contestant: result} of each round]}."""
    rows = []
    for ours in dict.fromkeys(match[0] for match in pairs if match[0]):
        results = [pair[ours] for match, rounds in pairs.items() if match[0] == ours for pair in rounds if
                   ours in pair]
        rows.append(row(ours, results, [], stored.get(ours), skipped.get(ours)))
        rows += [other_row(match, rounds, stored, skipped) for match, rounds in pairs.items() if match[0] == ours]
    rows += [other_row(match, rounds, stored, skipped) for match, rounds in pairs.items() if match[0] is None]
    kept = {key: value for key, value in task.items() if key != "folder"}
    return {"name": name, "title": SECTIONS[name].title, "task": kept, "rows": rows}


def other_row(match, rounds, stored, skipped):
    ours, other = match
    ratios = [pair[ours]["images_per_s"] / pair[other]["images_per_s"] for pair in rounds if ours in pair and
              other in pair]
    return row(other, [pair[other] for pair in rounds if other in pair], ratios, stored.get(other),
               skipped.get(other))


# ---- Markdown ----


def number(value, digits=0):
    return "–" if value is None else f"{value:,.{digits}f}"


def table_line(entry):
    if not entry["runs"]:
        return f"| {entry['title']} | skipped: {entry['skipped'] or 'nobody to run beside'} | | | | | |"
    memory = None if entry["peak_memory_bytes"] is None else entry["peak_memory_bytes"] / 1e6
    ratio = ""
    if entry["ratio"] is not None:
        ratio = f"**{entry['ratio']:.2f}** ({' '.join(f'{value:.2f}' for value in entry['ratios'])})"
    singles = " ".join(number(run["images_per_s"]) for run in entry["runs"])
    return (f"| {entry['title']} | {number(entry['images_per_s'])} | {number(entry['cpu_s_per_1000'], 3)} | "
            f"{number(entry['cpus_used'], 2)} | {number(memory)} | {ratio} | {singles} |")


def section_lines(section):
    yield f"### {section['title']}"
    yield ""
    yield ("| | images/s | CPU s per 1,000 | CPUs used | memory, MB | nncoord is ... times as fast | "
           "all runs, images/s |")
    yield "|---|---:|---:|---:|---:|---|---|"
    for entry in section["rows"]:
        yield table_line(entry)
    yield ""
    for entry in section["rows"]:
        words = [entry["note"]] if entry["note"] else []
        if entry["stored_share"]:
            words.append(f"its files have {100 * entry['stored_share']:.0f} % of the original bytes")
        if words:
            yield f"* {entry['title']}: {'; '.join(words)}."
    yield ""


def markdown(results):
    here = results["machine"]
    versions = dict.fromkeys(entry["version"] for section in results["sections"] for entry in section["rows"] if
                             entry["version"])
    lines = [
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        f"{results['date']}: {here['cpu']}, {here['cpus']} CPUs, {here['memory_bytes'] / 2**30:.0f} GiB, Linux "
        f"{here['kernel']}; load {here['load_before']:.1f} before the first run. {results['nncoord']}; "
        f"{'; '.join(versions)}.",
        "",
        f"{results['workers']} workers or threads each, uint8 samples, data in the page cache; runs of "
        f"{results['seconds']:g} s, {results['runs']} of each pair in turn: medians, and medians of the ratios pair by "
        "pair.",
        ""]
    if results["quick"]:
        lines += ["**A quick run: shows that everything works, and its figures mean nothing.**", ""]
    for section in results["sections"]:
        lines += section_lines(section)
    return "\n".join(lines)


def write(results, out):
    for name, text in (("input.json", json.dumps(results, indent=2) + "\n"), ("input.md", markdown(results)),
                       ("input.svg", chart.draw(results))):
        with open(os.path.join(out, name), "w") as file:
            file.write(text)
