"""What a run of the federation came to: report.json for programs, report.html for people, a table for the terminal."""

import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

Report = Mapping[str, Any]

_INK = "#1d3557"
_RED = "#c8553d"
_GREY = "#9aa5b1"
_VOICES = ("popularity", "personal_frequency", "local", "federated", "central", "local_fused", "served")


def write(report: Report, directory: Path) -> Path:
    """Write report.json and report.html; returns the path of the page."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    page = directory / "report.html"
    page.write_text(_page(report), "utf-8")
    return page


def print_table(report: Report, console: Console) -> None:
    """The same figures as rows."""
    quality = Table(title=f"{report['dataset']}: {report['sites']} sites, next basket, whole catalogue", title_style="")
    for heading in ("", "NDCG@10", "Recall@10", "95 % CI of NDCG@10"):
        quality.add_column(heading, justify="left" if not heading else "right")
    for voice in _VOICES:
        row = report["quality"][voice]
        low, high = row["ndcg@10_ci95"]
        quality.add_row(voice, f"{row['ndcg@10']:.4f}", f"{row['recall@10']:.4f}", f"{low:.4f} - {high:.4f}")
    console.print(quality)
    for line in verdicts(report):
        console.print(line)
    console.print(_figures(report))


def verdicts(report: Report) -> list[str]:
    """Does it hold? In plain words, whichever way it went."""
    ndcg = {voice: report["quality"][voice]["ndcg@10"] for voice in _VOICES}
    return [
        _verdict("served", "personal_frequency", ndcg),
        _verdict("served", "local", ndcg),
        _verdict("served", "local_fused", ndcg),
        _verdict("federated", "local", ndcg),
        _verdict("federated", "central", ndcg),
    ]


def _verdict(ours: str, other: str, ndcg: Mapping[str, float]) -> str:
    change = ndcg[ours] / ndcg[other] - 1 if ndcg[other] else float("inf")
    word = "beats" if change > 0 else "does not beat"
    return f"{ours} {word} {other.replace('_', ' ')}: {100 * change:+.1f} % NDCG@10"


def _figures(report: Report) -> Table:
    release, sync, serving, drill = report["release"], report["sync"], report["serving"], report["drill"]
    rows = {
        "rounds": f"{len(report['rounds'])} in {sum(r['seconds'] for r in report['rounds']):.0f} s, "
        f"{report['rounds'][-1]['upload_bytes'] / 1e6:.1f} MB up from all edges in the last",
        "release": f"{release['version']}, sha256 {release['sha256'][:16]}, {release['served_bytes'] / 1e6:.1f} MB"
        f" (fp32 {release['fp32_bytes'] / 1e6:.1f} MB), top-10 overlap {release['top10_overlap']:.4f}",
        "sync": f"{sync['bytes'] / 1e6:.1f} MB to {sync['edges']} edges; all answered from it "
        f"{sync['seconds']:.1f} s after the last stage was signed",
        "bad release": f"{drill['version']} stopped at {len(drill['canaries'])} canaries and taken back by "
        f"{drill['successor']} within {drill['seconds']:.0f} s; {len(drill['others'])} sites never saw it",
        "answers": f"p50 {serving['p50_ms']:.2f} ms, p99 {serving['p99_ms']:.2f} ms over {serving['requests']} requests"
        f"; bare session.run {serving['bare_session_run_ms']:.2f} ms",
        "API": f"{serving['tour']['operations']} operations, each asked on one edge and looked at",
        "serving process": f"{serving['rss_mb']:.0f} MB, first answer {serving['start_seconds']:.1f} s after its start",
    }
    table = Table(show_header=False)
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def _page(report: Report) -> str:
    quality = "".join(
        f"<tr><td>{voice.replace('_', ' ')}</td><td>{report['quality'][voice]['ndcg@10']:.4f}</td>"
        f"<td>{report['quality'][voice]['recall@10']:.4f}</td></tr>"
        for voice in _VOICES
    )
    said = "".join(f"<li>{html.escape(line)}</li>" for line in verdicts(report))
    figures = "".join(f"<figure>{svg}</figure>" for svg in _plots(report))
    release, serving, drill = report["release"], report["serving"], report["drill"]
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Hanse: {html.escape(report["dataset"])}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse }} td, th {{ padding: .3rem 1rem .3rem 0; text-align: left }}
td + td, th + th {{ text-align: right; font-variant-numeric: tabular-nums }}
.story td {{ text-align: left; vertical-align: top }}
.story td:nth-child(-n+2) {{ white-space: nowrap }}
figure {{ margin: 1.5rem 0 }} svg {{ max-width: 100%; height: auto }}
</style>
<h1>{report["sites"]} sites learnt together</h1>
<p>{html.escape(report["dataset"])}; every site saw its own baskets only. Next basket of each
household at each site, ranked over the whole catalogue. Local, federated and central are networks alone; served and
local fused are networks fused with each household's own habits, the federation's and the site's own.</p>
<table><tr><th></th><th>NDCG@10</th><th>Recall@10</th></tr>{quality}</table>
<ul>{said}</ul>
{figures}
<p>Release {release["version"]}, sha256 <code>{release["sha256"]}</code>: {release["served_bytes"] / 1e6:.1f} MB
instead of {release["fp32_bytes"] / 1e6:.1f} MB in full precision, top-10 overlap {release["top10_overlap"]:.4f}.
All {report["sync"]["edges"]} edges answered from it {report["sync"]["seconds"]:.1f} s after the last stage was signed.
Answers took {serving["p50_ms"]:.2f} ms (p50) and {serving["p99_ms"]:.2f} ms (p99);
the bare model takes {serving["bare_session_run_ms"]:.2f} ms.</p>
<h2>Release {release["version"]} is promoted</h2>
<p>Every site measured the candidate on its own newest baskets, beside what it served; the center saw the sum. Then the
canaries took it, tried it beside the one before, and said how it went, again as a sum.</p>
{_story(release["rollout"])}
<h2>Release {drill["version"]} is not</h2>
<p>A drill: untrained weights, sent past the gate. Canaries: {html.escape(", ".join(drill["canaries"]))}. From what
they told, as a sum, the center took the release back {drill["seconds"]:.0f} s after it was signed, by release
{drill["successor"]} with the files of release {release["version"]}: {html.escape(drill["why"])}.
{html.escape(", ".join(drill["others"]))} never saw it.</p>
{_story(drill["rollout"])}
</html>
"""


def _story(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{step['seconds']:.1f} s</td><td>{html.escape(step['what'])}</td>"
        f"<td>{html.escape(_facts(step['facts']))}</td></tr>"
        for step in steps
    )
    return f'<table class="story">{rows}</table>'


def _facts(facts: Mapping[str, Any]) -> str:
    """Facts in one line; numbers short, and of parts of a whole only how good the new one is beside the old one."""
    told = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in facts.items()}
    segments = facts.get("segments", {})
    told |= {
        name: f"NDCG@10 {part['ndcg']:.4f} against {part['base_ndcg']:.4f} on {part['events']:.0f} events"
        for name, part in segments.items()
    }
    told.pop("segments", None)
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items() if value)


def _plots(report: Report) -> Sequence[str]:
    return [_quality_by_round(report), _sites(report), _latency(report)]


def _quality_by_round(report: Report) -> str:
    figure, axes = _figure("Quality by round (test baskets of all sites)", "round", "NDCG@10")
    rounds = [row["round"] for row in report["rounds"]]
    axes.plot(rounds, [row["ndcg@10"] for row in report["rounds"]], color=_INK, marker="o", label="federated")
    for voice, color in (("local", _RED), ("central", _GREY), ("personal_frequency", "#6a994e")):
        value = report["quality"][voice]["ndcg@10"]
        axes.axhline(value, color=color, linestyle="--", label=voice.replace("_", " "))
    axes.set_xticks(rounds)
    axes.legend(frameon=False)
    return _svg(figure)


def _sites(report: Report) -> str:
    figure, axes = _figure("Federated against local, by site", "site", "NDCG@10")
    rows = report["sites_detail"]
    for shift, voice, color in ((-0.27, "local", _RED), (0.0, "federated", _INK), (0.27, "served", _GREY)):
        places = [index + shift for index in range(len(rows))]
        axes.bar(places, [row[voice]["ndcg@10"] for row in rows], width=0.25, color=color, label=voice)
    axes.set_xticks(range(len(rows)), [row["site"] for row in rows], rotation=45 if len(rows) > 8 else 0)  # noqa: PLR2004 - what fits
    axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    return _svg(figure)


def _latency(report: Report) -> str:
    figure, axes = _figure("Time to answer, as the shop sees it", "milliseconds", "requests")
    axes.hist(report["serving"]["sample_ms"], bins=60, color=_INK)
    axes.axvline(report["serving"]["p50_ms"], color=_RED, linestyle="--", label="p50")
    axes.axvline(report["serving"]["p99_ms"], color=_GREY, linestyle="--", label="p99")
    axes.legend(frameon=False)
    return _svg(figure)


def _figure(title: str, across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "hanse", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
