"""Verbs about data: prepare, export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mllmrec_cli import console


class Format(StrEnum):
    """Forms that a shop's data may have."""

    auto = "auto"
    tables = "tables"
    amazon = "amazon"
    mmrec = "mmrec"
    catalogue = "catalogue"


class SplitRule(StrEnum):
    """How interactions are held out."""

    auto = "auto"
    random = "random"
    leave_one_out = "leave-one-out"
    global_time = "global-time"
    given = "given"


class ExportFormat(StrEnum):
    """Forms that a dataset can be written in."""

    mmrec = "mmrec"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(prepare)
    app.command()(export)


def prepare(
    source: Annotated[Path, typer.Argument(help="Folder with the shop's files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Dataset folder to make.")],
    form: Annotated[
        Format, typer.Option("--format", help="What lies in SOURCE; 'catalogue' generates a shop there.")
    ] = Format.auto,
    split: Annotated[
        SplitRule, typer.Option(help="How interactions are held out; auto: as given, or random.")
    ] = SplitRule.auto,
    split_column: Annotated[str, typer.Option(help="Column that holds a given split.")] = "",
    k_core: Annotated[
        int | None, typer.Option(help="Keep users and items with so many interactions.", show_default="5")
    ] = None,
    min_rating: Annotated[float | None, typer.Option(help="Drop interactions rated lower.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Name a column: --column user=customer. May be repeated.")
    ] = None,
    category: Annotated[str, typer.Option(help="What the shop sells, for the prompts.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of a random split, and of a generated catalogue.")] = 999,
    download_images: Annotated[
        bool, typer.Option("--download-images", help="Fetch the pictures that items name by address.")
    ] = False,
    images_per_item: Annotated[int, typer.Option(min=1, help="Fetch so many pictures an item.")] = 1,
    image_folder: Annotated[
        Path | None,
        typer.Option(help="Keep fetched pictures here.", show_default="$MLLMREC_IMAGES, or the user's cache"),
    ] = None,
    max_rejected: Annotated[float, typer.Option(help="Share of unreadable rows that is borne.")] = 0.05,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing dataset.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the statistics as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Turn a shop's files into a dataset: read, clean, k-core, split.

    Example: mllmrec prepare shop --out dataset --split leave-one-out
    """
    from dataclasses import asdict

    from mllmrec import dataset as data
    from mllmrec.dataset.catalogue import ensure_catalogue
    from mllmrec.dataset.download import WITHOUT_PICTURE, default_folder

    if form is Format.catalogue:
        ensure_catalogue(source, seed=seed)
    options = data.PrepareOptions(
        format="tables" if form is Format.catalogue else form.value,
        k_core=k_core,
        min_rating=min_rating,
        split=split.value,
        split_column=split_column or None,
        seed=seed,
        columns=data.parse_columns(column or []),
        category=category,
        max_rejected=max_rejected,
    )
    downloader = None
    if download_images:
        limits = data.DownloadLimits(images_per_item=images_per_item)
        downloader = data.ImageDownloader(image_folder or default_folder(), limits)
    with console.progress(quiet=quiet) as hook:
        made = data.prepare(source, out, options, downloader=downloader, force=force, progress=hook)
    statistics = data.statistics(made)
    if json:
        console.print_json(asdict(statistics))
        return
    for warning in made.manifest["warnings"]:
        console.err.print(f"warning: {warning}", markup=False, style="yellow")
    if downloader and statistics.steps[WITHOUT_PICTURE]:
        console.err.print(f"reasons: {downloader.failures}", markup=False, soft_wrap=True)
    console.out.print(console.table(f"{made.name} -> {out}", ("", ""), statistics.rows()))


def export(
    dataset: Annotated[Path, typer.Argument(help="A prepared dataset.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    form: Annotated[ExportFormat, typer.Option("--format", help="Form to write.")] = ExportFormat.mmrec,
    run: Annotated[
        Path | None, typer.Option(help="A run of this dataset: its item vectors are written as well.")
    ] = None,
    spreadsheet: Annotated[
        bool, typer.Option("--spreadsheet", help="Put an apostrophe before ids that begin like a formula.")
    ] = False,
) -> None:
    """Write a dataset so that another toolbox can load it.

    Example: mllmrec export dataset --format mmrec --run run --out mmrec/shop
    """
    from mllmrec.dataset import load
    from mllmrec.export import export_mmrec
    from mllmrec.views import RunView

    features = {"text_feat": RunView(run).features.items} if run else {}
    written = export_mmrec(load(dataset), out, item_features=features, spreadsheet=spreadsheet)
    for path in written:
        console.out.print(str(path), markup=False)
