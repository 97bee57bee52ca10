"""One page engine: self-contained HTML of a run, of several runs, of an audit; no network, no script, under 5 MB."""

from mllmrec.report.pages import write_report

__all__ = ["write_report"]
