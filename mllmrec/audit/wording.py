"""How much a set of texts repeats itself: distinct-n and self-BLEU, over texts given as words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

_ORDERS = (1, 2, 3, 4)


def ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each n-gram stands in a text.

    >>> ngrams(["a", "b", "a", "b"], 2)
    Counter({('a', 'b'): 2, ('b', 'a'): 1})
    """
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Distinct-n (Li et al. 2016): different n-grams over all n-grams of all texts; 0 where there is none.

    It falls with the number of texts: compare only between sets of one size.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for words in texts:
        counts.update(ngrams(words, n))
    return len(counts) / counts.total() if counts else 0.0


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """Self-BLEU-4 (Zhu et al. 2018): the mean BLEU of each text with all the others as its references.

    1 where all are the same, near 0 where none share words; NaN for fewer than two texts. An n-gram order with no
    match counts half a match (NIST smoothing), so that short texts are not all 0. O(total n-grams).
    """
    counted = [[ngrams(words, n) for n in _ORDERS] for words in texts]
    best = [_two_highest([text[order] for text in counted]) for order in range(len(_ORDERS))]
    lengths = Counter(len(words) for words in texts)
    if len(texts) < 2:
        return math.nan
    return sum(_bleu(text, len(words), best, lengths) for text, words in zip(counted, texts, strict=True)) / len(texts)


Highest = dict[tuple[str, ...], tuple[int, int]]


def _two_highest(counts: Sequence[Counter[tuple[str, ...]]]) -> Highest:
    """Each n-gram's highest count in any text and the second highest: what is left when that text is taken out."""
    best: Highest = {}
    for text in counts:
        for gram, count in text.items():
            first, second = best.get(gram, (0, 0))
            best[gram] = (count, first) if count > first else (first, max(second, count))
    return best


def _bleu(
    counts: Sequence[Counter[tuple[str, ...]]], length: int, best: Sequence[Highest], lengths: Counter[int]
) -> float:
    logs = []
    for text, highest in zip(counts, best, strict=True):
        total = text.total()
        if total == 0:
            continue
        # Where this text itself has the highest count, the references have the second highest.
        clipped = sum(
            min(count, second if count == first else first)
            for count, (first, second) in ((count, highest[gram]) for gram, count in text.items())
        )
        logs.append(math.log((clipped or 0.5) / total))
    if not logs:
        return 0.0
    others = lengths - Counter({length: 1})
    closest = min(others, key=lambda other: (abs(other - length), other))
    brevity = min(0.0, 1 - closest / length)
    return math.exp(brevity + sum(logs) / len(logs))
