# SPDX-License-Identifier: Apache-2.0
"""Horizontal bars of images per second as SVG, one group a section, each group with its own scale.

    bench/peers/chart.py input.json >input.svg      draws a stored result again

Text stays text. Colours follow the reader's light or dark mode, the background is the page's.
"""
import json
import sys
from html import escape

WIDTH, LABEL, VALUE = 880, 350, 150  # all, left of the bars, right of the longest bar
BAR, STEP, HEAD, GAP = 16, 24, 30, 14

STYLE = """
  text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
  .head { font-weight: 600; } .value { font-variant-numeric: tabular-nums; } .quiet { fill: #59636e; }
  .ours { fill: #0969da; } .other { fill: #afb8c1; } .limit { fill: none; stroke: #8c959f; stroke-dasharray: 4 3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .quiet { fill: #9198a1; }
    .ours { fill: #4493f8; } .other { fill: #59636e; } .limit { stroke: #7d8590; }
  }
"""


def kind(entry):
    if entry["name"].startswith("nncoord"):
        return "ours"
    return "limit" if entry["title"].startswith("limit") else "other"


def bar(entry, y, scale):
    length = max(1.0, entry["images_per_s"] * scale)
    value = f"{entry['images_per_s']:,.0f}"
    if entry["ratio"] is not None:
        value += f" <tspan class='quiet'>({entry['ratio']:.2f} x)</tspan>"
    weight = " class='head'" if kind(entry) == "ours" else ""
    return [f"<text x='{LABEL - 10}' y='{y + 13}' text-anchor='end'{weight}>{escape(entry['title'])}</text>",
            f"<rect x='{LABEL}' y='{y}' width='{length:.1f}' height='{BAR}' rx='2' class='{kind(entry)}'/>",
            f"<text x='{LABEL + length + 8:.1f}' y='{y + 13}' class='value'>{value}</text>"]


def group(section, y):
    """Returns the lines and where the next group begins. memcpy is left out: beside it nothing else could be seen."""
    entries = [entry for entry in section["rows"] if entry["images_per_s"] and entry["name"] != "memcpy"]
    if not entries:
        return [], y
    scale = (WIDTH - LABEL - VALUE) / max(entry["images_per_s"] for entry in entries)
    lines = [f"<text x='0' y='{y + 16}' class='head'>{escape(section['title'])}</text>"]
    y += HEAD
    for entry in entries:
        lines += bar(entry, y, scale)
        y += STEP
    return lines, y + GAP


def draw(results):
    lines, y = [], 0
    for section in results["sections"]:
        more, y = group(section, y)
        lines += more
    foot = ["images/s, longer is better. (n x): nncoord runs n times as fast as this row, median of runs in turn.",
            f"{results['workers']} workers or threads each, {results['runs']} runs. {results['machine']['cpu']}, "
            f"{results['machine']['cpus']} CPUs, {results['date']}."]
    if results["quick"]:
        foot.append("A quick run: shows that everything works, and its figures mean nothing.")
    for line in foot:
        lines.append(f"<text x='0' y='{y + 12}' class='quiet'>{escape(line)}</text>")
        y += 18
    title = "Images per second of input pipelines"
    return "\n".join([
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='-4 0 {WIDTH} {y + 4}' role='img' aria-label='{title}'>",
        f"<title>{title}</title>", f"<style>{STYLE}</style>", *lines, "</svg>", ""])


if __name__ == "__main__":
    with open(sys.argv[1]) as stored:
        sys.stdout.write(draw(json.load(stored)))
