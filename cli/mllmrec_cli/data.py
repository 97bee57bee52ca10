"""The verbs of data: prepare, update, export."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mllmrec_cli import console
from mllmrec_cli.console import resumable
from mllmrec_cli.options import Dataset, Json, Out, Quiet

if TYPE_CHECKING:
    from mllmrec.dataset.summary import Statistics


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
    """Add the verbs."""
    app.command(name="prepare", rich_help_panel=console.DATA)(_prepare)
    app.command(name="update", rich_help_panel=console.DATA)(_update)
    app.command(name="export", rich_help_panel=console.DATA)(_export)


_Columns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ROLE=COLUMN",
        help="Name a column: user=customer, or items.item=id for one table; brand= leaves a role out. May be repeated.",
    ),
]
_MaxRejected = Annotated[float, typer.Option(min=0, max=1, help="Share of each file's rows that may be unreadable.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace an existing dataset.")]
_Form = Annotated[
    Format,
    typer.Option(
        "--format",
        metavar="FORM",
        help="Format of the files in SHOP: tables, amazon (review dumps), mmrec, auto (detect it); catalogue: "
        "first generate a shop in SHOP.",
    ),
]
_Split = Annotated[
    SplitRule,
    typer.Option(
        metavar="RULE",
        help="Rule that holds interactions out: random, user-time, leave-one-out, global-time, cold-items, given; "
        "auto: given, or random.",
    ),
]
_ColdShare = Annotated[
    float,
    typer.Option(
        min=0.001, max=0.499, help="Share of the items that cold-items hides for the test; as many for validation."
    ),
]
_KCore = Annotated[
    int | None, typer.Option(min=0, help="Minimum number of interactions per user and per item.", show_default="5")
]
_Pattern = Annotated[
    str,
    typer.Option(
        metavar="PATTERN",
        help="Files of interactions in SHOP, such as 'orders.*.csv'; several are read as one.",
        show_default="by their usual names",
    ),
]
_ItemTable = Annotated[str, typer.Option(metavar="FILE", help="Item table in SHOP.", show_default="by its usual names")]
_DownloadImages = Annotated[
    bool, typer.Option("--download-images", help="Download the pictures that items name by address.")
]
_ImageFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Folder of downloaded pictures.", show_default="$MLLMREC_IMAGES, or the user's cache"
    ),
]
_MaxUnpacked = Annotated[
    float | None,
    typer.Option(
        metavar="GIB",
        min=0.001,
        help="Limit of a packed file's unpacked size.",
        show_default="100 times the file, at least 0.25",
    ),
]


def _prepare(
    source: Annotated[Path, typer.Argument(metavar="SHOP", help="Folder with the shop's files.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DATASET", help="Dataset folder to make.")],
    form: _Form = Format.auto,
    split: _Split = SplitRule.auto,
    cold_share: _ColdShare = 0.1,
    split_column: Annotated[str, typer.Option(metavar="COLUMN", help="Column that holds a given split.")] = "",
    k_core: _KCore = None,
    min_rating: Annotated[float | None, typer.Option(help="Drop interactions with a lower rating.")] = None,
    column: _Columns = None,
    interactions: _Pattern = "",
    items: _ItemTable = "",
    category: Annotated[str, typer.Option(metavar="TEXT", help="What the shop sells, for the prompts.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of a split that draws, and of a generated catalogue.")] = 999,
    download_images: _DownloadImages = False,
    images_per_item: Annotated[int, typer.Option(min=1, help="Pictures to download per item.")] = 1,
    image_folder: _ImageFolder = None,
    max_rejected: _MaxRejected = 0.05,
    max_unpacked: _MaxUnpacked = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Limit of a file's rows.")] = 500_000_000,
    force: _Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a shop's files into a dataset: read, clean, k-core, split.

    Example: mllmrec prepare shop --out dataset --split leave-one-out
    """
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
        downloader = data.ImageDownloader(image_folder, data.DownloadLimits(images_per_item=images_per_item))
    with resumable(), console.progress(quiet=quiet or json) as hook:
        dataset = data.prepare(source, out, options, downloader=downloader, force=force, progress=hook)
    statistics = data.statistics(dataset)
    for warning in dataset.manifest["warnings"]:
        console.warn(warning)
    if downloader and statistics.steps[WITHOUT_PICTURE]:
        console.err.print(console.plain(f"reasons: {downloader.failures}"), soft_wrap=True)
    if not (quiet or json):
        read = console.table("read", ("file", "columns", "rows", "left out"), statistics.read_rows(), words=2)
        console.out.print(read)
        for line in statistics.notes:
            console.say(line)
    _print(statistics, f"{dataset.name} -> {out}", json=json, quiet=quiet)


def _print(statistics: Statistics, title: str, *, json: bool, quiet: bool) -> None:
    if json:
        console.print_json(asdict(statistics))
    elif not quiet:
        console.out.print(console.table(title, ("of the dataset", "number"), statistics.rows()))


def _update(
    dataset: Dataset,
    files: Annotated[
        list[Path],
        typer.Option("--with", metavar="FILE", help="New interactions or items; a folder of them. May be repeated."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DATASET", help="Dataset folder to make.")],
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=COLUMN", help="Name a column, as in prepare. May be repeated."),
    ] = None,
    max_rejected: _MaxRejected = 0.05,
    force: _Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add new interactions and items to a dataset: ids stay, the splits grow.

    New interactions go to training; validation and test stay as they are.
    Go on with: mllmrec run NEW --out RUN2 --from RUN

    Example: mllmrec update dataset --with monday --out dataset2
    """
    from mllmrec import dataset as data

    before = data.load(dataset)
    with resumable(), console.progress(quiet=quiet or json) as hook:
        new = data.update(
            before,
            files,
            out,
            columns=data.parse_columns(column or []),
            max_rejected=max_rejected,
            force=force,
            progress=hook,
        )
    for warning in new.manifest["warnings"][len(before.manifest["warnings"]) :]:
        console.warn(warning)
    _print(data.statistics(new), f"{new.name} -> {out}", json=json, quiet=quiet)


class ExportFormat(StrEnum):
    """Forms that a dataset or a run can be written in."""

    mmrec = "mmrec"
    vectors = "vectors"
    card = "card"


def _export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|DATASET", help="A run folder; for mmrec a dataset folder will do.")
    ],
    out: Out,
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            metavar="FORM",
            help="mmrec: a dataset for the MMRec toolbox. vectors: user and item vectors with ids, to serve from. "
            "card: a model card, README.md.",
        ),
    ] = ExportFormat.mmrec,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="mmrec: write this run's item vectors as well.")
    ] = None,
    spreadsheet: Annotated[
        bool, typer.Option("--spreadsheet", help="mmrec: an apostrophe before ids that begin like a formula.")
    ] = False,
    rank: Annotated[
        int,
        typer.Option(
            min=1, help="vectors: columns that item-item weights become; more are nearer to the lists of recommend."
        ),
    ] = 256,
    json: Json = False,
) -> None:
    """Write a dataset, or what a run made of it, for others to load.

    Models of the kinds mllmrec, ials, bpr, vbpr, lightgcn and freedom have vectors.
    ensemble, ridge, ease and item-knn score by item-item weights: their vectors are
    near, and the manifest says how near.

    Example: mllmrec export run --format vectors --out vectors
    """
    from mllmrec.export import write

    with console.progress(quiet=json) as hook:
        written = write(source, out, form.value, run=run, spreadsheet=spreadsheet, rank=rank, progress=hook)
    if json:
        console.print_json({"files": [str(path) for path in written]})
        return
    for path in written:
        console.say(str(path))
