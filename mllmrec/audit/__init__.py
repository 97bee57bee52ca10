"""Measure whether a run can be trusted: generic profiles, a graph in pieces, a leak. Numbers only, no pages.

Finished artefacts are read, none is changed. Held-out interactions are read here, to measure by; nothing that is
computed here goes back into a run.
"""

from mllmrec.audit.graph import GraphHealth, examine_graph, neighbors
from mllmrec.audit.leak import LeakAudit, audit_leak
from mllmrec.audit.profiles import ProfileFinding, ProfileWords, measure_words, profile_warning
from mllmrec.audit.quality import ProfileQuality, measure_quality

__all__ = [
    "GraphHealth",
    "LeakAudit",
    "ProfileFinding",
    "ProfileQuality",
    "ProfileWords",
    "audit_leak",
    "examine_graph",
    "measure_quality",
    "measure_words",
    "neighbors",
    "profile_warning",
]
