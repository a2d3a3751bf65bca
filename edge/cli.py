"""`hanse-edge`: parses, makes one call, and turns an error into one line and exit code 1."""

import gc
import json
import logging
import os
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import click
import structlog
import typer

from edge import cli_keys
from protocol.errors import BadInputError, FederationError

_INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The agent daemon of one private site: joins, imports, serves, learns.",
)

app.add_typer(cli_keys.app, name="key")

Directory = Annotated[Path, typer.Option("--dir", help="The edge's own folder.", envvar="HANSE_EDGE_DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_HERE = Path("edge-data")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The site's name: small letters, digits, hyphens.")],
    directory: Directory = _HERE,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the query service.")] = 8080,
    as_json: AsJson = False,
) -> None:
    """Set up a shop by itself; it may join a federation later."""
    from edge import joining

    joining.open_alone(name, directory=directory, serving_port=port)
    key = cli_keys.operators(directory)
    _say(
        {"site": name, "directory": str(directory), "api_key": key},
        as_json=as_json,
        text=f"{name} is set up in {directory}.\nAPI key of the query service, shown once: {key}\n"
        f"Next: hanse-edge import items FILE --dir {directory}, then hanse-edge serve --dir {directory}",
    )


@app.command()
def join(
    token: Annotated[str, typer.Argument(help="The line that hanse-center enroll printed.")],
    directory: Directory = _HERE,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the query service.")] = 8080,
    min_cohort: Annotated[int, typer.Option(min=3, help="Smallest cohort this site is summed with.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Join a federation: makes this site's keys and redeems the token."""
    from edge import joining

    joined = joining.join(token, directory=directory, serving_port=port, min_cohort=min_cohort)
    key = cli_keys.operators(directory)
    _say(
        {"site": joined.site, "federation": joined.federation, "directory": str(directory), "api_key": key},
        as_json=as_json,
        text=f"{joined.site} has joined {joined.federation}; it takes part once the operator admits it.\n"
        f"API key of the query service, shown once: {key}\nNext: hanse-edge serve --dir {directory}",
    )


@app.command(name="import")
def import_(
    what: Annotated[str, typer.Argument(help="events or items")],
    file: Annotated[Path, typer.Argument(help=".csv, .jsonl or .parquet")],
    directory: Directory = _HERE,
    rejects: Annotated[Path | None, typer.Option(help="Where refused rows go; beside the store by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Import this site's items or events; running it twice changes nothing."""
    from edge.records import ingest

    if what not in {"events", "items"}:
        raise BadInputError(f"{what!r} cannot be imported", advice="say events or items")
    outcome = ingest.run(what, file, directory=directory, rejects=rejects, quiet=as_json)
    text = (
        f"{outcome['rows']} rows: {outcome['added']} added, {outcome['duplicates']} known already, "
        f"{outcome['rejected']} refused"
    )
    if outcome["rejected"]:
        text += f"; why, line by line: {outcome['rejects']}"
    _say(outcome, as_json=as_json, text=text)


@app.command()
def serve(directory: Directory = _HERE) -> None:
    """Serve queries, listen for releases, take part in rounds. Ctrl-C ends all of it."""
    gc.disable()  # nothing of what is loaded now is garbage: looking for some takes a tenth of the start
    try:
        from edge import agent, settings

        agent.serve(directory, settings.load(directory))
    finally:
        gc.enable()  # as the agent does when it serves; it may not have come so far


@app.command()
def rebuild(
    what: Annotated[str, typer.Argument(help="books: what goes with what, what is trending")],
    directory: Directory = _HERE,
    as_json: AsJson = False,
) -> None:
    """Make derived books anew from the events; a running edge answers from the old ones meanwhile."""
    from edge.neighbours import rebuilding

    if what != "books":
        raise BadInputError(f"{what!r} cannot be made anew", advice="say books")
    outcome = rebuilding.run(directory, quiet=as_json)
    _say(outcome, as_json=as_json, text=f"{outcome['events']} events counted anew in {outcome['seconds']} s")


@app.command()
def storefront(
    directory: Directory = _HERE,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="Default: storefront.port.")] = None,
    child: Annotated[bool, typer.Option("--child", hidden=True)] = False,
) -> None:
    """A page to look at what the running edge answers, at this machine only. Ctrl-C ends it."""
    from edge import settings
    from edge.storefront import starting

    loaded = settings.load(directory)
    starting.serve(directory, loaded, port=port or loaded.storefront.port, child=child)


@app.command(hidden=True)
def learn(directory: Directory = _HERE) -> None:
    """Answer rounds until there are none for a while. Started by serve, at low priority."""
    from edge import settings
    from edge.rounds import learner

    learner.learn(directory, settings.load(directory))


@app.command(hidden=True)
def fit(directory: Directory = _HERE) -> None:
    """Fit this site's fusion weights for the committed release. Started by serve, at low priority."""
    from edge import settings, tuning
    from edge.children import end_with_parent

    end_with_parent()
    tuning.fit(directory, settings.load(directory))


@app.command(hidden=True)
def rehearse(which: Annotated[str, typer.Argument(help="trial or candidate")], directory: Directory = _HERE) -> None:
    """Load what is on trial, or the candidate, for the first time. Started by serve, at low priority."""
    from edge import settings
    from edge.releases import rehearsal

    rehearsal.rehearse(directory, settings.load(directory), which)


@app.command()
def trace(
    rec_id: Annotated[str, typer.Argument(help="The field rec_id of an answer of this edge.")],
    directory: Directory = _HERE,
    as_json: AsJson = False,
) -> None:
    """From an answer to the release that gave it: its bundle, the rounds it was learnt in, what became of it here."""
    from edge import audit, settings, tracing
    from protocol.audit import check_chain

    settings.load(directory)
    entries = audit.read(directory)
    check_chain(entries)
    found = tracing.trace(rec_id, entries)
    _say(found.to_json(), as_json=as_json, text=found.to_text())


@app.command(name="audit")
def audit_(directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """List this edge's audit log and check that nothing in it was changed, removed or put in."""
    from edge import audit, settings
    from protocol.audit import check_chain

    settings.load(directory)
    entries = audit.read(directory)
    head = check_chain(entries)
    lines = [
        f"{entry.seq:6} {datetime.fromtimestamp(entry.time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} {entry.kind}  "
        + " ".join(f"{name}={value}" for name, value in entry.facts.items())
        for entry in entries
    ]
    _say(
        {"head": head, "entries": [audit.as_json(entry) for entry in entries]},
        as_json=as_json,
        text="\n".join([*lines, f"{len(entries)} entries, none changed; the last one's digest is {head}"]),
    )


@app.command()
def query(
    user: Annotated[str, typer.Argument(help="A user of this site; an unknown one gets what is popular.")],
    directory: Directory = _HERE,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 10,
    as_json: AsJson = False,
) -> None:
    """Ask the running edge what it would recommend to a user."""
    from edge import asking, settings

    answer = asking.recommend(user, limit=limit, directory=directory, settings=settings.load(directory))
    _say(answer, as_json=as_json, text=asking.as_text(answer))


@app.command()
def experiments(directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """The A/B tests of the running edge, and what came of them."""
    from rich.console import Console
    from rich.table import Table

    from edge import asking, settings
    from edge.experiments import telling

    found = asking.experiments(directory=directory, settings=settings.load(directory))
    if as_json:
        print(json.dumps(found))
        return
    console = Console()
    for report in found:
        table = Table(*telling.HEADINGS, title=telling.heading(report), title_justify="left")
        for row in telling.rows(report):
            table.add_row(*row)
        console.print(table)
    if not found:
        console.print("no experiments")


@app.command()
def erase(
    session: Annotated[bool, typer.Option(help="The line names the session of an anonymous visitor.")] = False,
    directory: Directory = _HERE,
    as_json: AsJson = False,
) -> None:
    """Delete a user and all that is theirs; reads the user's id from standard input, where no process list shows it."""
    from edge import erasing, settings

    outcome = erasing.erase_here(directory, settings.load(directory), name=sys.stdin.readline(), is_session=session)
    text = f"Deleted, with {outcome['events']} events" if outcome["known"] else "There is nobody of that name"
    if not outcome["clean"]:
        text += "; a copy of the name may be left in unused space of the file until it is rewritten"
    _say(outcome, as_json=as_json, text=text)


@app.command()
def status(directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """What the running edge serves from."""
    from edge import asking, settings

    answer = asking.health(settings.load(directory))
    _say(answer, as_json=as_json, text="\n".join(f"{name}: {value}" for name, value in answer.items()))


@app.command()
def privacy(directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """What the users of this site have spent in rounds under differential privacy, and what they may spend."""
    from edge import settings
    from edge.rounds.spending import Spending

    loaded = settings.load(directory)
    with closing(
        Spending(directory / "spending.db", loaded.privacy, rounds_per_day=loaded.policy.rounds_per_day)
    ) as books:
        spent = {purpose: books.spent(purpose) for purpose in loaded.policy.purposes}
        total = books.total()
    budget, delta = loaded.privacy.epsilon, loaded.privacy.delta
    _say(
        {"spent": spent, "total": total, "budget": budget, "delta": delta},
        as_json=as_json,
        text="\n".join(
            [f"{purpose}: epsilon {epsilon:.3g}" for purpose, epsilon in spent.items()]
            + [f"all together: epsilon {total:.3g} at delta {delta:g}; the budget is {budget}"]
        ),
    )


@app.command()
def renew(directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """Get this site's next client certificate now; serve does it by itself in time."""
    from edge import settings
    from edge.releases import renewal

    until = renewal.renew(directory, settings.load(directory)).not_valid_after_utc
    _say({"until": until.isoformat()}, as_json=as_json, text=f"The new client certificate lasts until {until:%Y-%m-%d}")


@app.command()
def doctor(directory: Directory = _HERE, as_json: AsJson = False) -> None:
    """Look for what is wrong, and say what mends it."""
    from rich.console import Console
    from rich.table import Table

    from edge import doctor as examination
    from edge import settings

    findings = list(examination.examine(directory, settings.load(directory), now=datetime.now(UTC)))
    if as_json:
        print(json.dumps([{"check": f.check, "problem": f.problem, "fix": f.fix} for f in findings]))
    else:
        table = Table("check", "problem", "fix")
        for finding in findings:
            table.add_row(finding.check, finding.problem or "none", finding.fix)
        Console().print(table)
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)


@app.callback()
def about() -> None:
    """The agent of one private site."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # whatever it is at the time
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            # The default one prints local variables, and with them who asked for what.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
    )


def _say(value: Any, *, as_json: bool, text: str) -> None:
    print(json.dumps(value) if as_json else text)


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 1 after an error that is one line on standard error.
    """
    # Products as small as ours gain nothing from threads, which spin for a while after each. Read when numpy is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        result = app(args=argv, prog_name="hanse-edge", standalone_mode=False)
    except FederationError as error:
        print(f"edge: {error.line()}", file=sys.stderr)
        return 1
    except click.ClickException as error:
        print(f"edge: {error.format_message()} (hanse-edge --help)", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        result = _INTERRUPTED
    except sqlite3.Error as error:
        print(f"edge: a database cannot be used: {error} (hanse-edge doctor)", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"edge: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 1
    if result == _INTERRUPTED:  # typer turns Ctrl-C into this result
        print("edge: interrupted", file=sys.stderr)
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
