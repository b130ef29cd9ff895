"""Write a report: PNGs, the table as Markdown, LaTeX and JSON, and one HTML page that holds it all."""

from __future__ import annotations

import base64
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
    """The page, made of ``page.html`` beside this file; images are embedded, nothing is loaded from anywhere.

    Raises ``ImportError`` without Jinja2, which escapes whatever it puts in.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise ImportError("a report needs Jinja2: pip install 'fairseq-adv[report]'") from error
    loader = PackageLoader("fairseq_adv", "report")
    templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    seeds, probed = len({run.seed for run in runs}), probe_rows(runs)
    scores = [run.score[key] for run in runs for key in ("bleu_signature", "chrf_signature") if key in run.score]
    return templates.get_template("page.html").render(
        title=title,
        lead=f"{len(runs)} runs, {len(rows)} methods, {seeds} seed{'s' if seeds > 1 else ''}.",
        results=text_grid(rows),
        note=_note(runs),
        signatures=sorted(set(map(str, scores))),
        probed=rows_as_grid(probed) if probed else None,
        figures=[
            {"title": spec.title, "caption": spec.caption, "png": base64.b64encode(png).decode("ascii")}
            for spec, png in images
        ],
        runs=[
            {"name": run.name, "fact": _fact(run), "folder": str(run.folder), "options": _options(run)} for run in runs
        ],
    )


def _note(runs: Sequence[Run]) -> str:
    chosen = "; ".join(sorted({run.selection.text() for run in runs}))
    return (
        f"Valid nll in bits per token at the best checkpoint ({chosen}). At the "
        "baseline's time: the best value on the validation set by then; minutes to its best: when it was as good. "
        "Mean ± standard deviation where there are several seeds."
    )


def _fact(run: Run) -> str:
    best = run.best_validation
    nll = (best or {}).get("nll_loss", math.nan)
    fact = f"validation nll {nll:.3f} in epoch {best['epoch']:.0f}, the best" if best else "no validation"
    return f"{fact} ({run.selection.text()}), {_minutes(run.wall_seconds)}"


def _options(run: Run) -> str:
    """The criterion's, as on the command line."""
    given = run.log.options.get("criterion", {}).items()
    shown = [(name, value) for name, value in given if not name.startswith("_") and value is not None and value != ""]
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in shown)


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
