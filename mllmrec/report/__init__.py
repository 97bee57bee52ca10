"""One self-contained HTML page a run, or several runs compared: no network, no script, under 5 MB."""

from mllmrec.report.report import write_report

__all__ = ["write_report"]
