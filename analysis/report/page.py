"""report.html: one file that works offline, with the numbers first and then the figures."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from plotly.offline import get_plotlyjs

from analysis.figures.panels import Panel
from analysis.report.wording import findings, title_of
from analysis.web import WEB

_STYLE = """
:root { color-scheme: light dark; --body-text-color-subdued: #59606e; --border-color-primary: #c9ced8; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 1180px; margin: 1.5rem auto; padding: 0 1rem; background: #fff;
  color: #1c2130; }
@media (prefers-color-scheme: dark) { body { background: #0b0f19; color: #e6e9f0; }
  :root { --body-text-color-subdued: #a3abba; --border-color-primary: #3a4252; } }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; text-align: left; border-bottom: 1px solid var(--border-color-primary);
  vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
.warning { border-left: 3px solid #e69f00; padding: 0.2rem 0.8rem; }
"""


def report_page(report: dict[str, Any], panels: Sequence[Panel], maps: Sequence[Panel]) -> str:
    """The report of `Analysis.as_dict`, with the figures of `panels` and the maps, as an HTML page."""
    title = escape(title_of(report))
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in findings(report))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}{(WEB / "panels.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<h1>{title}</h1>
<ul>{sentences}</ul>
<h2>Measures</h2>
{measures_table(report)}
<h2>Step by step</h2>
<div class="panels" id="steps"></div>
<h2>Maps of the space</h2>
<p class="warning">Do not measure distances on a map: the gap is in the table. The note below each map says how far you
can trust it.</p>
<div class="panels" id="maps"></div>
<script id="plotly">{get_plotlyjs()}</script>
<script>
{(WEB / "panels.js").read_text(encoding="utf-8")}
const options = {{
  plotly: async () => window.Plotly,
  source: async () => document.getElementById("plotly").textContent,
  dark: () => matchMedia("(prefers-color-scheme: dark)").matches,
}};
drawPanels(document.getElementById("steps"), {_safe_json([panel.as_dict() for panel in panels])}, options);
drawPanels(document.getElementById("maps"), {_safe_json([panel.as_dict() for panel in maps])}, options);
</script>
</body>
</html>
"""


def measures_table(report: dict[str, Any]) -> str:
    """An HTML table of the measures at the text and at v_0, with optional intervals, and how to read each."""
    steps = report["steps"]
    ends = steps if len(steps) == 1 else [steps[0], steps[-1]]
    rows = []
    for name, measure in report["measures"].items():
        cells = "".join(f'<td class="number">{_value(step, name)}</td>' for step in ends)
        rows.append(
            f"<tr><th scope='row'>{escape(measure['title'])}</th>{cells}<td>{escape(measure['reading'])}</td></tr>"
        )
    for name in ("R@1", "R@5", "R@10", "MdR", "MnR"):
        cells = "".join(f'<td class="number">{_metric(step, name)}</td>' for step in ends)
        rows.append(f"<tr><th scope='row'>Text to video {name}</th>{cells}<td></td></tr>")
    heads = "".join(("<th>text t</th>", "<th>aligned v₀</th>")[: len(ends)])
    small = "<p>In small print: the 95 % bootstrap interval over videos.</p>" if "intervals" in ends[0] else ""
    return (
        f'{small}<div class="scroll"><table><thead><tr><th>measure</th>{heads}<th>how to read it</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _value(step: dict[str, Any], name: str) -> str:
    """A measure with its spread over seeds and its interval, if it has them."""
    value = f"{step[name]:.3f}"
    if "spread" in step:
        value += f" ± {step['spread'][name]:.3f}"
    if bounds := step.get("intervals", {}).get(name):
        value += f"<br><small>{bounds[0]:.3f} to {bounds[1]:.3f}</small>"
    return value


def _metric(step: dict[str, Any], name: str) -> str:
    spread = f" ± {step['spread']['t2v'][name]:.1f}" if "spread" in step else ""
    return f"{step['t2v'][name]:.1f}{spread}"


def _safe_json(value: Any) -> str:
    """JSON that is safe in a script element, whatever its captions."""
    return json.dumps(value).replace("<", "\\u003c")
