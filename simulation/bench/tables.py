"""What a benchmark came to, for people: progress while it runs, and tables in the end."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from simulation.bench.growth import Advance


@contextmanager
def progress(console: Console, total: int) -> Iterator[Advance]:
    """Shows what is being measured; call it with what comes next."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, completed=-1)

        def advance(what: str) -> None:
            bar.update(task, advance=1, description=what)
            if not console.is_terminal:
                console.print(what)

        yield advance


def print_secure_sum(report: Mapping[str, Any]) -> None:
    """Figures beside their goals, then how the cost grows."""
    console = Console()
    details = report["details"]
    table = Table("what", "measured", "goal", title="secure sum", title_style="")
    for row in _rows(report, details):
        table.add_row(*row)
    console.print(table)
    console.print(_growth_table(details["growth"]["by_sites"], "by number of sites"))
    console.print(_growth_table(details["growth"]["by_parameters"], "by number of parameters"))


def _rows(report: Mapping[str, Any], details: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    mask, opened, around, upload = details["mask"], details["unmask"], details["round"], details["upload"]
    openssl = details["expansion"]["ratio_vs_openssl"]
    return [
        (
            f"quantise + mask, {mask['parameters']:,} parameters, {mask['peers']} peers, against Flower",
            f"{report['mask_ratio_vs_flower']:.1f}x",
            ">= 8x",
        ),
        (
            "mask expansion" + (f" ({openssl:.2f} of openssl speed)" if openssl else ""),
            f"{report['mask_gb_per_s']:.1f} GB/s",
            ">= 4 GB/s",
        ),
        (
            f"Shamir {details['shamir']['threshold']} of {details['shamir']['shares']}, against Flower",
            f"{report['shamir_ratio_vs_flower']:.0f}x",
            ">= 50x",
        ),
        (
            "upload, bytes a parameter (words of "
            + ", ".join(f"{bits} bits: {length:.2f}" for bits, length in upload["bytes_per_parameter"].items())
            + ")",
            f"{report['upload_bytes_per_parameter']:.3f}",
            "<= 4.05",
        ),
        (
            f"unmask {opened['parameters']:,} parameters, {opened['sites']} sites, {opened['dropped']} dropped",
            f"{report['unmask_seconds']:.2f} s",
            "<= 3 s",
        ),
        (
            (
                f"round over SuperLink, {around['sites']} sites, {around['dropped']} dropped, "
                f"{around['training_seconds']:g} s of training, against FedAvg"
            ),
            f"{report['round_ratio_vs_fedavg']:.3f}x",
            "<= 1.10x",
        ),
        ("extra memory at the edge, in vectors", f"{report['edge_memory_ratio']:.2f}x", "<= 2.5x"),
    ]


def _growth_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    table = Table(title=title, title_style="")
    for heading in (
        "sites",
        "parameters",
        "edge: mask s",
        "edge: upload MB",
        "dropped",
        "masks left",
        "center: unmask s",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row["sites"]),
            f"{row['parameters']:,}",
            f"{row['mask_seconds']:.3f}",
            f"{row['upload_bytes'] / 1e6:.2f}",
            str(row["dropped"]),
            f"{row['masks_removed']:,}",
            f"{row['unmask_seconds']:.3f}",
        )
    return table


def print_sync(report: Mapping[str, Any]) -> None:
    """Figures beside their goals, then what they were made from."""
    console = Console()
    details = report["details"]
    table = Table("what", "measured", "goal", title="releases", title_style="")
    for row in _sync_rows(report, details):
        table.add_row(*row)
    console.print(table)
    for name in ("fanout", "late_joiner"):
        for side in ("hanse", "bare"):
            told = ", ".join(f"{seconds:.3f}" for seconds in details[name][f"{side}_seconds"])
            console.print(f"{name.replace('_', ' ')}, {side}, seconds: {told}")


def _sync_rows(report: Mapping[str, Any], details: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    fanout, lossy, swap = details["fanout"], details["lossy"], details["swap"]
    size = f"{fanout['bytes'] / 2**20:.0f} MiB"
    return [
        (
            f"release of {size} to {fanout['edges']} edges, until all have verified it, against bare paho",
            f"{report['fanout_ratio']:.2f}x",
            "<= 1.3x",
        ),
        ("late joiner, center down, against bare paho", f"{report['late_joiner_ratio']:.2f}x", "<= 1.5x"),
        (
            f"bytes at {lossy['share']:.0%} message loss, of the release",
            f"{report['lossy_bytes_ratio']:.3f}x",
            "<= 1.05x",
        ),
        (
            "bytes of a second release of which 3 of 4 submodels are unchanged, of the release",
            f"{report['delta_bytes_ratio']:.3f}x",
            "<= 0.30x",
        ),
        (
            f"rollback of {details['rollback']['edges']} edges, until the last answers from the older model",
            f"{report['rollback_seconds']:.1f} s",
            "<= 10 s",
        ),
        (
            (
                f"requests failed ({swap['failed']}) or slower than 2x p99 ({swap['slow']}) during a swap, of "
                f"{swap['requests']:,} (slow without a release: {swap['slow_without_a_release']} of "
                f"{swap['requests_without_a_release']:,})"
            ),
            f"{report['swap_failed_requests']}",
            "0",
        ),
        ("broker's memory for the fan-out, of the release", f"{report['broker_memory_ratio']:.2f}x", "<= 2.5x"),
    ]


def print_word_bits(report: Mapping[str, Any]) -> None:
    """One row a width; "error" is how far the first sum is from that of floats, as a share of its norm."""
    console = Console()
    title = f"{report['sites']} sites, {report['parameters']:,} parameters, {sum(report['examples']):,} examples"
    table = Table(title=title, title_style="")
    for heading in ("bits", "coordinate clip", "bytes a parameter", "error", "clipped", "NDCG@10", "95 % CI"):
        table.add_column(heading, justify="right")
    for row in report["widths"]:
        low, high = row["ndcg@10_ci95"]
        table.add_row(
            str(row["bits"] or "float"),
            f"{row['coordinate_clip'] or '-'}",
            f"{row['bytes_per_parameter']:.2f}",
            f"{row['relative_error'][0]:.2g}",
            f"{row['clipped_coordinates']:,}",
            f"{row['ndcg@10'][-1]:.4f}",
            f"{low:.4f} - {high:.4f}",
        )
    console.print(table)
    for name, sizes in report["coordinates"].items():
        told = ", ".join(f"{quantile}: {size:.2g}" for quantile, size in sizes.items())
        console.print(f"quantiles of the coordinates' sizes, {name}: {told}")
