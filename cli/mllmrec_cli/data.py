"""Make a dataset: the verb prepare."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mllmrec_cli import console
from mllmrec_cli.interrupts import resumable
from mllmrec_cli.options import Json, Quiet


class Format(StrEnum):
    """List the forms that a shop's data may have."""

    auto = "auto"
    tables = "tables"
    amazon = "amazon"
    mmrec = "mmrec"
    catalogue = "catalogue"


class SplitRule(StrEnum):
    """List the rules by which interactions are held out."""

    auto = "auto"
    random = "random"
    user_time = "user-time"
    leave_one_out = "leave-one-out"
    global_time = "global-time"
    cold_items = "cold-items"
    given = "given"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="prepare", rich_help_panel=console.DATA)(_prepare)


def _prepare(
    source: Annotated[Path, typer.Argument(metavar="SHOP", help="Folder with the shop's files.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DATASET", help="Dataset folder to make.")],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            metavar="FORM",
            help="Format of the files in SHOP: tables, amazon (review dumps), mmrec, auto (detect it); catalogue: "
            "first generate a shop in SHOP.",
        ),
    ] = Format.auto,
    split: Annotated[
        SplitRule,
        typer.Option(
            metavar="RULE",
            help="Rule that holds interactions out: random, user-time, leave-one-out, global-time, cold-items, given; "
            "auto: given, or random.",
        ),
    ] = SplitRule.auto,
    cold_share: Annotated[
        float,
        typer.Option(
            min=0.001, max=0.499, help="Share of the items that cold-items hides for the test; as many for validation."
        ),
    ] = 0.1,
    split_column: Annotated[str, typer.Option(metavar="COLUMN", help="Column that holds a given split.")] = "",
    k_core: Annotated[
        int | None, typer.Option(min=0, help="Minimum number of interactions per user and per item.", show_default="5")
    ] = None,
    min_rating: Annotated[float | None, typer.Option(help="Drop interactions with a lower rating.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=COLUMN",
            help="Name a column: user=customer, or items.item=id for one table; brand= leaves a role out. "
            "May be repeated.",
        ),
    ] = None,
    interactions: Annotated[
        str,
        typer.Option(
            metavar="PATTERN",
            help="Files of interactions in SHOP, such as 'orders.*.csv'; several are read as one.",
            show_default="by their usual names",
        ),
    ] = "",
    items: Annotated[
        str, typer.Option(metavar="FILE", help="Item table in SHOP.", show_default="by its usual names")
    ] = "",
    category: Annotated[str, typer.Option(metavar="TEXT", help="What the shop sells, for the prompts.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of a split that draws, and of a generated catalogue.")] = 999,
    download_images: Annotated[
        bool, typer.Option("--download-images", help="Download the pictures that items name by address.")
    ] = False,
    images_per_item: Annotated[int, typer.Option(min=1, help="Pictures to download per item.")] = 1,
    image_folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of downloaded pictures.",
            show_default="$MLLMREC_IMAGES, or the user's cache",
        ),
    ] = None,
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="Share of each file's rows that may be unreadable.")
    ] = 0.05,
    max_unpacked: Annotated[
        float | None,
        typer.Option(
            metavar="GIB",
            min=0.001,
            help="Limit of a packed file's unpacked size.",
            show_default="100 times the file, at least 0.25",
        ),
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Limit of a file's rows.")] = 500_000_000,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing dataset.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a shop's files into a dataset: read, clean, k-core, split.

    Example: mllmrec prepare shop --out dataset --split leave-one-out
    """
    from dataclasses import asdict

    from mllmrec import dataset as data
    from mllmrec.dataset.summary import WITHOUT_PICTURE
    from mllmrec.dataset.synthetic_shop import ensure_catalogue

    if form is Format.catalogue:
        ensure_catalogue(source, seed=seed)
    options = data.PrepareOptions(
        format="tables" if form is Format.catalogue else form.value,
        k_core=k_core,
        min_rating=min_rating,
        split=split.value,
        split_column=split_column or None,
        seed=seed,
        cold_share=cold_share,
        columns=data.parse_columns(column or []),
        category=category,
        max_rejected=max_rejected,
        interactions=interactions,
        items=items,
        max_unpacked=max_unpacked,
        max_rows=max_rows,
    )
    downloader = None
    if download_images:
        limits = data.DownloadLimits(images_per_item=images_per_item)
        downloader = data.ImageDownloader(image_folder, limits)
    with resumable(), console.progress(quiet=quiet or json) as hook:
        dataset = data.prepare(source, out, options, downloader=downloader, force=force, progress=hook)
    statistics = data.statistics(dataset)
    for warning in dataset.manifest["warnings"]:
        console.warn(warning)
    if downloader and statistics.steps[WITHOUT_PICTURE]:
        console.err.print(console.plain(f"reasons: {downloader.failures}"), soft_wrap=True)
    if json:
        console.print_json(asdict(statistics))
    elif not quiet:
        console.out.print(
            console.table("read", ("file", "columns", "rows", "left out"), statistics.read_rows(), words=2)
        )
        for line in statistics.notes:
            console.say(line)
        console.out.print(console.table(f"{dataset.name} -> {out}", ("of the dataset", "number"), statistics.rows()))
