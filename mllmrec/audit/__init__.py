"""Is a run to be trusted: generic profiles, a graph that falls apart, profiles that know too much.

Looks at finished artefacts and changes none. Held-out interactions are read here, to judge by; nothing that is
computed here goes back into a run.
"""

from mllmrec.audit.graph import GraphHealth, examine_graph, neighbours
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
    "neighbours",
    "profile_warning",
]
