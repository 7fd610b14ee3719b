"""A comparison as one self-contained HTML page: table, chart and accuracy by class."""

from __future__ import annotations

import base64
from statistics import fmean

from jinja2 import Environment

from distill.evaluation import table
from distill.evaluation.compare import Comparison, StudentResult

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 75em; margin: 2em auto;
  padding: 0 1em }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
th { border-bottom: 2px solid #888; vertical-align: bottom; overflow-wrap: anywhere }
tr.front td { font-weight: 600; color: #1f5fa8 } tr.teacher td { color: #c2571a }
img { max-width: 100%; width: 60em } .note { color: #555; margin: .2em 0 }
</style>
<h1>{{ title }}</h1>
<div class="wide"><table>
<tr>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for mark, row in rows %}
<tr class="{{ mark }}">{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% for note in notes %}
<p class="note">{{ note }}</p>
{% endfor %}
<p><img alt="Accuracy against multiply-adds" src="data:image/png;base64,{{ png }}"></p>
<h2>Accuracy by class, %</h2>
<p class="note">The classes are sorted by mean accuracy, the weakest class first.</p>
<div class="wide"><table>
<tr><th>class</th>{% for net in nets %}<th>{{ net.name }}</th>{% endfor %}</tr>
{% for name, accuracies in classes %}
<tr><td>{{ name }}</td>
{% for accuracy in accuracies %}
{% if accuracy is none %}
<td>no images</td>
{% else %}
{% set shade = "%.2f" % ((1 - accuracy) * 0.5) %}
<td style="background: rgb(194 87 26 / {{ shade }})">{{ percent(accuracy) }}</td>
{% endif %}
{% endfor %}
</tr>
{% endfor %}
</table></div>
</html>
"""


def page(comparison: Comparison, png: bytes) -> str:
    """Return the HTML page with the PNG of the chart. Text from cards and paths is escaped."""
    heads, rows = table.cells(comparison)
    marks = ["front" if student.pareto else "" for student in comparison.students] + ["teacher"]
    nets = [*comparison.students, *([comparison.teacher] if comparison.teacher else [])]
    environment = Environment(autoescape=True, trim_blocks=True, keep_trailing_newline=True)
    return environment.from_string(PAGE).render(
        title=f"{len(comparison.students)} students on {comparison.labeled}",
        heads=heads,
        rows=list(zip(marks, rows, strict=False)),
        notes=list(table.notes(comparison)),
        png=base64.b64encode(png).decode(),
        nets=nets,
        classes=_classes(nets),
        percent=table.percent,
    )


def _classes(nets: list[StudentResult]) -> list[tuple[str, list[float | None]]]:
    """Return (name, accuracy of each net) for each class, sorted by mean accuracy.

    The weakest class is first; classes without images are last.
    """
    accuracies = {
        name: [net.result.per_class[name] for net in nets] for name in nets[0].result.per_class
    }

    def mean_accuracy(name: str) -> float:
        known = [accuracy for accuracy in accuracies[name] if accuracy is not None]
        return fmean(known) if known else float("inf")

    return [(name, accuracies[name]) for name in sorted(accuracies, key=mean_accuracy)]
