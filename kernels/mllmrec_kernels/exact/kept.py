"""Keep what block after block of users needs of the same items: plans of the product, and quantized items."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mllmrec_kernels.exact.plan import RotationPlan, unrotated_plan

if TYPE_CHECKING:
    from mllmrec_kernels.exact.item_blocks import ItemBlocks
    from mllmrec_kernels.exact.problem import TopKProblem
    from mllmrec_kernels.exact.quantized import QuantizedRows


@dataclass(slots=True)
class KeptLists:
    """Plan and quantized items of lists of one length.

    Attributes:
        k: entries per list; 0 before the first search.
        plan: of the product; None where the float32 product is cheaper.
        columns: all items, if the memory of a search holds them; written once.
    """

    k: int = 0
    plan: RotationPlan | None = None
    columns: QuantizedRows | None = None

    def plan_for(self, problem: TopKProblem) -> RotationPlan | None:
        """Return the plan as it serves other queries of the same items.

        Coordinates on the plan's own axes may be clipped, which is counted. Without axes two bytes per coordinate
        must not be: their sums would leave int32. Rows searched among themselves keep one scale for both sides.
        """
        if self.plan is None or self.plan.axes is not None or problem.queries is problem.items:
            return self.plan
        return replace(self.plan, left_scale=unrotated_plan(problem, two_bytes=self.plan.two_bytes).left_scale)


@dataclass(slots=True)
class KeptItems:
    """Hold what lists and ranks need of the items again.

    Attributes:
        lists: of the last length of lists.
        blocks: of ranks, by whether there are two bytes per coordinate and whether there is a limit.
    """

    lists: KeptLists = field(default_factory=KeptLists)
    blocks: dict[tuple[bool, bool], ItemBlocks] = field(default_factory=dict)
