"""Write a report: PNGs, the table as Markdown, LaTeX and JSON, and one HTML page that holds it all."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from fairseq_adv.report.figures import FIGURES, FigureSpec
from fairseq_adv.report.probe_figures import PROBE_FIGURES
from fairseq_adv.report.probe_table import probe_rows, rows_as_grid, rows_as_markdown
from fairseq_adv.report.runs import Run
from fairseq_adv.report.style import RC
from fairseq_adv.report.table import Row, result_rows, text_grid, to_json, to_latex, to_markdown
from fairseq_adv.whole_files import write_bytes

CSS = """
body { margin: 0; background: #f6f7f9; color: #1f2328; font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 0 0 .25rem; }
.lead, figcaption, .note { color: #59636e; margin: 0 0 1rem; }
section { background: #fff; border: 1px solid #e1e4e8; border-radius: 10px; padding: 1.25rem 1.5rem; }
section { margin-top: 1.25rem; }
figure { margin: 0; }
img { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, td { text-align: right; padding: .45rem .45rem; border-bottom: 1px solid #e8eaed; white-space: nowrap; }
th { color: #59636e; font-weight: 600; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; font-weight: 600; }
code { font: .85em ui-monospace, monospace; background: #f1f3f5; border-radius: 4px; padding: .1em .3em; }
code { overflow-wrap: anywhere; }
details { margin-top: .75rem; }
summary { cursor: pointer; color: #0969da; }
"""


def render_figures(runs: Sequence[Run]) -> List[Tuple[FigureSpec, bytes]]:
    """The PNG of every figure for which something was logged. Raises ``ImportError`` without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg", force=False)
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("a report needs matplotlib: pip install 'fairseq-adv[report]'") from error
    images = []
    for spec in (*FIGURES, *PROBE_FIGURES):
        with pyplot.rc_context(RC):
            figure = spec.draw(runs)
            if figure is None:
                continue
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", metadata={"Software": None})
            pyplot.close(figure)
        images.append((spec, buffer.getvalue()))
    return images


def html_page(title: str, runs: Sequence[Run], rows: Sequence[Row], images: Sequence[Tuple[FigureSpec, bytes]]) -> str:
    """The page; images are embedded, nothing is loaded from anywhere."""
    sections = [f"<section><h2>Results</h2>{_html_table(text_grid(rows))}{_signatures(runs)}</section>"]
    probed = probe_rows(runs)
    if probed:
        sections.append(f"<section><h2>Robustness and geometry</h2>{_html_table(rows_as_grid(probed))}</section>")
    for spec, png in images:
        source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        sections.append(
            f"<section><figure><h2>{html.escape(spec.title)}</h2><figcaption>{html.escape(spec.caption)}</figcaption>"
            f'<img alt="{html.escape(spec.title)}" src="{source}"></figure></section>'
        )
    sections.append(f"<section><h2>Runs</h2>{_run_details(runs)}</section>")
    seeds = len({run.seed for run in runs})
    lead = f"{len(runs)} runs, {len(rows)} methods, {seeds} seed{'s' if seeds > 1 else ''}."
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{CSS}</style></head><body><main>"
        f"<h1>{html.escape(title)}</h1><p class=lead>{lead}</p>{''.join(sections)}</main></body></html>\n"
    )


def _html_table(grid: Sequence[Sequence[str]]) -> str:
    head, *body = grid
    heading = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in body)
    return f"<div class=scroll><table><thead><tr>{heading}</tr></thead><tbody>{lines}</tbody></table></div>"


def _signatures(runs: Sequence[Run]) -> str:
    found = {str(run.score[key]) for run in runs for key in ("bleu_signature", "chrf_signature") if key in run.score}
    chosen = "; ".join(sorted({run.selection.text() for run in runs}))
    note = (
        f"Valid nll in bits per token at the best checkpoint ({html.escape(chosen)}). At the "
        "baseline's time: the best value on the validation set by then; minutes to its best: when it was as good. "
        "Mean ± standard deviation where there are several seeds."
    )
    lines = "".join(f"<br><code>{html.escape(signature)}</code>" for signature in sorted(found))
    return f'<p class=note style="margin-top:1rem">{note}{lines}</p>'


def _run_details(runs: Sequence[Run]) -> str:
    blocks = []
    for run in runs:
        best = run.best_validation
        nll = (best or {}).get("nll_loss", math.nan)
        fact = f"validation nll {nll:.3f} in epoch {best['epoch']:.0f}, the best" if best else "no validation"
        options = " ".join(
            f"--{name.replace('_', '-')} {value}"
            for name, value in run.log.options.get("criterion", {}).items()
            if not name.startswith("_") and value is not None and value != ""
        )
        fact += f" ({run.selection.text()})"
        blocks.append(
            f"<details><summary>{html.escape(run.name)}</summary><p>{html.escape(fact)}, "
            f"{_minutes(run.wall_seconds)}, <code>{html.escape(str(run.folder))}</code></p>"
            f"<p><code>{html.escape(options)}</code></p></details>"
        )
    return "".join(blocks)


def _minutes(seconds: float) -> str:
    return "duration unknown" if math.isnan(seconds) else f"{seconds / 60:.1f} minutes"


def write_report(runs: Sequence[Run], output: Path, title: str = "Training report") -> List[Path]:
    """Write the report into the folder *output* and return its files, the page first.

    Every file is written under another name and then renamed, so a page that is there is whole.
    """
    rows = result_rows(runs)
    images = render_figures(runs)
    files: Dict[str, bytes] = {
        "index.html": html_page(title, runs, rows, images).encode("utf-8"),
        "table.md": to_markdown(rows).encode("utf-8"),
        "table.tex": to_latex(rows).encode("utf-8"),
        "results.json": (json.dumps(to_json(rows), indent=2) + "\n").encode("utf-8"),
        **({"probe.md": rows_as_markdown(probe_rows(runs)).encode("utf-8")} if probe_rows(runs) else {}),
        **{f"{spec.name}.png": png for spec, png in images},
    }
    output.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_bytes(output / name, content)
    return [output / name for name in files]
