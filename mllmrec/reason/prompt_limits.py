"""Decide how much of a history a prompt holds: by the settings, the model's context, and a budget of seconds."""

from __future__ import annotations

from mllmrec.config import ProfileConfig
from mllmrec.errors import ConfigError
from mllmrec.reason.engines.local_model import TransformersModel
from mllmrec.reason.engines.speed import speed_of
from mllmrec.reason.engines.transformers_model import text_settings
from mllmrec.reason.history_prompts import HistoryLimits
from mllmrec.reason.prompts import Template

_STANDARD, _SMALL = (3000, 128), (128, 12)  # tokens of a history, and of an item
_CHAT_TOKENS = 64  # of the chat template, and of places that are filled
_STEPS = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3000)  # a prompt must not follow each tick of a clock


def history_limits(stage: ProfileConfig, template: Template, model: TransformersModel | None) -> HistoryLimits:
    """Return how much of a history a prompt holds.

    Args:
        stage: settings of the profile stage; a limit of 0 is chosen here.
        template: whose words take tokens too.
        model: the weights of this process; None for a server's, whose context and speed are not known.

    Raises:
        ConfigError: the model's context, or the budget, leaves no room for an item.
    """
    history, item = _SMALL if model and model.is_small else _STANDARD
    tokens, item = stage.max_tokens or history, stage.item_tokens or item
    if model is None:
        return HistoryLimits(tokens, item, stage.recency)
    words = model.measure.count(template.wording) + _CHAT_TOKENS
    context = text_settings(model.settings).get("max_position_embeddings") or tokens + words + stage.max_new_tokens
    room = context - words - stage.max_new_tokens
    if room < min(item, tokens):
        raise ConfigError(
            f"the model reads {context:,} tokens, and {words:,} of the prompt and {stage.max_new_tokens:,} new ones "
            f"leave no room for an item of {item:,}; lower profile.max_new_tokens or profile.item_tokens"
        )
    return HistoryLimits(min(tokens, room, _affordable(stage, words, model) or tokens), item, stage.recency)


def _affordable(stage: ProfileConfig, words: int, model: TransformersModel) -> int | None:
    """Return the tokens of a history that the budget of seconds buys; None if there is no budget to keep."""
    speed = speed_of(model) if stage.seconds else None
    if speed is None:
        return None
    left = stage.seconds - stage.max_new_tokens / speed.answer
    bought = left * speed.prompt - words
    affordable = [step for step in _STEPS if step <= bought]
    if not affordable:
        least = (_STEPS[0] + words) / speed.prompt + stage.max_new_tokens / speed.answer
        raise ConfigError(
            f"profile.seconds={stage.seconds:g} buys no history at {speed.prompt:,.0f} prompt tokens and "
            f"{speed.answer:,.0f} new ones a second; it takes {least:.1f} s, or a lower profile.max_new_tokens"
        )
    return affordable[-1]
