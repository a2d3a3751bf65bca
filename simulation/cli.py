"""`hanse-sim`: parses, makes one call, and turns an error into one line and exit code 1."""

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from protocol.errors import FederationError

if TYPE_CHECKING:
    from rich.console import Console

_INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The real center and the real edges on one machine.",
)
bench = typer.Typer(no_args_is_help=True, help="Measure what this code claims.")
app.add_typer(bench, name="bench")

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@app.callback()
def about() -> None:
    """The real center and the real edges on one machine."""


@app.command()
def demo(
    sites: Annotated[int, typer.Option(min=3, max=457, help="Private sites the stores are cut into.")] = 5,
    rounds: Annotated[int, typer.Option(min=1, help="Training rounds.")] = 8,
    directory: Annotated[Path, typer.Option("--dir", help="Emptied first.")] = Path("runs/demo"),
    fraction: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of the households, for a quick look.")
    ] = 1.0,
    embedded_broker: Annotated[bool, typer.Option(help="Do without Mosquitto even where it is installed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring up a federation, train on real baskets, release, serve, and report."""
    from rich.console import Console

    from simulation import demo as walk
    from simulation import report as reporting

    console = Console(stderr=as_json)
    plan = walk.Plan(
        sites=sites, rounds=rounds, directory=directory, fraction=fraction, embedded_broker=embedded_broker
    )
    report = walk.run(plan, console=console)
    page = reporting.write(report, directory)
    if as_json:
        print(json.dumps(report))
    else:
        reporting.print_table(report, console)
        console.print(f"report: {page.resolve().as_uri()}", soft_wrap=True)


@bench.command("secure-sum")
def secure_sum(
    as_json: AsJson = False,
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything: a look in less than a minute.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw how the cost grows; PNG or SVG by its ending.")] = None,
) -> None:
    """Time the secure sum against Flower's, against OpenSSL, and against plain averaging over the real SuperLink."""
    from simulation.bench import plot as drawing
    from simulation.bench import secure_sum as measured
    from simulation.bench import tables

    console = _console()
    size = measured.QUICK if quick else measured.FULL
    with tables.progress(console, measured.steps(size)) as advance:
        report = measured.run(size, advance=advance)
    if plot is not None:
        drawing.draw_growth(report["details"]["growth"], plot)
    if as_json:
        print(json.dumps(report))
    else:
        tables.print_secure_sum(report)


@bench.command("sync")
def sync(
    as_json: AsJson = False,
    quick: Annotated[bool, typer.Option("--quick", help="Few edges and bytes: a look in a minute or two.")] = False,
) -> None:
    """Time the road of releases against bare MQTT, and count what customers notice of it."""
    from simulation.bench import sync as measured
    from simulation.bench import tables

    console = _console()
    size = measured.QUICK if quick else measured.FULL
    with tables.progress(console, measured.steps(size)) as advance:
        report = measured.run(size, advance=advance)
    if as_json:
        print(json.dumps(report))
    else:
        tables.print_sync(report)


@bench.command("serving")
def serving(
    as_json: AsJson = False,
    quick: Annotated[bool, typer.Option("--quick", help="A tiny shop: a look in a minute or two.")] = False,
) -> None:
    """Time an edge's query service against its own parts: the model, tantivy, SQLite, raw ASGI."""
    from simulation.bench import tables as progress
    from simulation.bench.serving import run as measured
    from simulation.bench.serving import tables

    console = _console()
    plan = measured.QUICK if quick else measured.FULL
    with progress.progress(console, measured.steps(plan)) as advance:
        report = measured.run(plan, advance=advance)
    if as_json:
        print(json.dumps(report))
    else:
        tables.print_report(report)


@bench.command("word-bits")
def word_bits(
    as_json: AsJson = False,
    fraction: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of the households.")] = 0.15,
    rounds: Annotated[int, typer.Option(min=1, help="Training rounds.")] = 3,
) -> None:
    """Train with updates in words of fewer and fewer bits, and see what it costs in quality."""
    from center.settings import ModelSettings
    from simulation.bench import tables
    from simulation.bench import word_bits as measured

    console = _console()
    plan = measured.Plan(fraction=fraction, rounds=rounds)
    with tables.progress(console, measured.steps(plan)) as advance:
        report = measured.run(plan, model=ModelSettings(), advance=advance)
    if as_json:
        print(json.dumps(report))
    else:
        tables.print_word_bits(report)


def _console() -> "Console":
    """Progress on standard error, and of our own log only what went wrong: dropouts are part of what is measured."""
    import logging

    import structlog
    from rich.console import Console

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # whatever it is at the time
    )
    return Console(stderr=True)


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, 1 after an error that is one line on standard error, or 130 after Ctrl-C.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has switched Ctrl-C off
        signal.signal(number, signal.default_int_handler)
    try:
        result = app(args=argv, prog_name="hanse-sim", standalone_mode=False)
    except FederationError as error:
        print(f"sim: {error.line()}", file=sys.stderr)
        return 1
    except click.ClickException as error:
        print(f"sim: {error.format_message()} (hanse-sim --help)", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        result = _INTERRUPTED
    except OSError as error:
        print(f"sim: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 1
    if result == _INTERRUPTED:  # typer turns Ctrl-C into this result
        print("sim: interrupted; every child process was ended", file=sys.stderr)
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
