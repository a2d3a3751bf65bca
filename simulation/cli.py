"""`hanse-sim`: parses, makes one call, and turns an error into one line and exit code 1."""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import click
import typer

from protocol.errors import FederationError

_INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The real center and the real edges on one machine.",
)


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
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
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
