"""Run a llama on a CPU over a cache of keys and values that is allocated once.

The library's forward pass appends to its cache by copying it, at every token and for every layer. It also repeats keys
for each group of queries. On a CPU those copies cost more than the products. Here a request has a row of the cache;
prompts are read one by one without padding, and one token of every row is decoded together. The weights are the
library's own, and so are the tokens in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(slots=True)
class KeyValues:
    """Keys and values of a few requests.

    Attributes:
        keys: [layers, rows, heads of keys, positions, width].
        values: of the same shape.
    """

    keys: Tensor
    values: Tensor

    def copy_row(self, source: KeyValues, row: int, to: int, length: int) -> None:
        """Copy the first positions of a row.

        Args:
            source: whose row it is; it may be this one.
            row: of the source.
            to: the row here.
            length: positions.
        """
        self.keys[:, to, :, :length] = source.keys[:, row, :, :length]
        self.values[:, to, :, :length] = source.values[:, row, :, :length]


@dataclass(frozen=True, slots=True)
class _Layer:
    """The weights of a layer; those that read the same input stand in one matrix."""

    before: Tensor
    attention_in: Tensor
    attention_out: Tensor
    between: Tensor
    gate_up: Tensor
    down: Tensor


class LlamaNetwork:
    """The forward pass.

    Args:
        model: a LlamaForCausalLM on the CPU; its weights are regrouped in place, so that none stands there twice.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._width = getattr(config, "head_dim", None) or config.hidden_size // self._heads
        self._epsilon = config.rms_norm_eps
        body = model.model
        self._embedding, self._norm, self._head = body.embed_tokens.weight, body.norm.weight, model.lm_head.weight
        self._layers = [_layer(layer) for layer in body.layers]
        # transformers before 5 keeps it beside the other settings
        theta = config.rope_parameters["rope_theta"] if hasattr(config, "rope_parameters") else config.rope_theta
        steps = torch.arange(0, self._width, 2, dtype=torch.int64).float() / self._width
        angles = torch.outer(torch.arange(config.max_position_embeddings).float(), 1.0 / theta**steps)
        angles = torch.cat((angles, angles), dim=-1)
        self._cos, self._sin = (part.to(self.dtype) for part in (angles.cos(), angles.sin()))

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision of weights and states."""
        dtype: torch.dtype = self._embedding.dtype
        return dtype

    @property
    def weight_bytes(self) -> int:
        """Return the bytes that one decoded token reads: every matrix once, the embedding as the head."""
        matrices = [self._head, *(w for layer in self._layers for w in _matrices(layer))]
        return sum(matrix.numel() * matrix.element_size() for matrix in matrices)

    def allocate(self, rows: int, positions: int) -> KeyValues:
        """Return an empty cache."""
        shape = (len(self._layers), rows, self._kv_heads, positions, self._width)
        return KeyValues(torch.zeros(shape, dtype=self.dtype), torch.zeros(shape, dtype=self.dtype))

    def read(self, tokens: Tensor, cache: KeyValues, row: int, start: int) -> Tensor:
        """Read a prompt into a row of the cache and return the scores of its next token, [vocabulary].

        Args:
            tokens: int64 [T], those after the first `start`, which the row holds already.
            cache: of keys and values; positions start to start + T of the row are written.
            row: of the request.
            start: tokens that the row holds.
        """
        last = self._embedding[:1]
        for states in self._read_layers(tokens, cache, row, start):
            last = states[-1:]
        return self._score(last)[0]

    def read_states(self, tokens: Tensor, cache: KeyValues, start: int, layers: Sequence[int]) -> list[Tensor]:
        """Read a prompt into the first row of the cache and return the states of a few layers, [T, hidden size] each.

        Args:
            tokens: int64 [T], those after the first `start`, which the row holds already.
            cache: of keys and values.
            start: tokens that the row holds.
            layers: 0: the embeddings; n: after the n-th layer; -1 and the last: after the norm that the head reads.
        """
        depth = len(self._layers)
        numbers = [depth if layer == -1 else layer for layer in layers]
        passes = enumerate(self._read_layers(tokens, cache, 0, start))
        states = {layer: each for layer, each in passes if layer in numbers}
        if depth in states:
            states[depth] = self._normal(states[depth], self._norm)
        return [states[layer] for layer in numbers]

    def _read_layers(self, tokens: Tensor, cache: KeyValues, row: int, start: int) -> Iterator[Tensor]:
        """Read a prompt into a row of the cache; yield its embeddings, and its states after each layer."""
        count, end = len(tokens), start + len(tokens)
        group = self._heads // self._kv_heads
        future = torch.full((count, end), float("-inf"), dtype=self.dtype).triu(start + 1)
        mask = future.repeat(group, 1)  # the queries of a group stand below each other
        cos, sin = self._cos[start:end, None], self._sin[start:end, None]  # [T, 1, width]
        states = self._embedding[tokens]
        yield states
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            query, key, value = self._project(layer, states, cos, sin)
            keys[row, :, start:end], values[row, :, start:end] = key.transpose(0, 1), value.transpose(0, 1)
            grouped = query.view(count, self._kv_heads, group, -1).permute(1, 2, 0, 3)
            mixed = functional.scaled_dot_product_attention(
                grouped.reshape(1, self._kv_heads, group * count, -1),
                keys[row : row + 1, :, :end],
                values[row : row + 1, :, :end],
                attn_mask=mask,
            )
            mixed = mixed.view(self._kv_heads, group, count, -1).permute(2, 0, 1, 3).reshape(count, -1)
            states = self._feed(layer, states + functional.linear(mixed, layer.attention_out))
            yield states

    def step(self, tokens: Tensor, cache: KeyValues, positions: Tensor) -> Tensor:
        """Read one token of each of the first rows and return the scores of the next ones, [B, vocabulary].

        Args:
            tokens: int64 [B], one of each of the first B rows.
            cache: of keys and values; one position of each row is written.
            positions: int64 [B], where each token stands in its request.
        """
        count, end = len(tokens), int(positions.max()) + 1
        rows = torch.arange(count)
        later = torch.arange(end) > positions[:, None]
        mask = torch.zeros(count, 1, 1, end, dtype=self.dtype).masked_fill(later[:, None, None], float("-inf"))
        cos, sin = self._cos[positions, None], self._sin[positions, None]  # [B, 1, width]
        states = self._embedding[tokens]
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            query, key, value = self._project(layer, states, cos, sin)
            keys[rows, :, positions], values[rows, :, positions] = key, value
            mixed = functional.scaled_dot_product_attention(
                query.view(count, self._kv_heads, -1, self._width),  # a group's queries as positions of its head
                keys[:count, :, :end],
                values[:count, :, :end],
                attn_mask=mask,
            )
            states = self._feed(layer, states + functional.linear(mixed.reshape(count, -1), layer.attention_out))
        return self._score(states)

    def _project(self, layer: _Layer, states: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, [N, heads, width] each, the first two rotated to their positions."""
        normal = self._normal(states, layer.before)
        projected = functional.linear(normal, layer.attention_in).view(len(states), -1, self._width)
        heads = self._heads
        turned, value = projected[:, : heads + self._kv_heads], projected[:, heads + self._kv_heads :]
        first, second = turned.chunk(2, dim=-1)
        turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
        return turned[:, :heads], turned[:, heads:], value

    def _feed(self, layer: _Layer, states: Tensor) -> Tensor:
        normal = self._normal(states, layer.between)
        gate, up = functional.linear(normal, layer.gate_up).chunk(2, dim=-1)
        return states + functional.linear(functional.silu(gate) * up, layer.down)

    def _score(self, states: Tensor) -> Tensor:
        return functional.linear(self._normal(states, self._norm), self._head)

    def _normal(self, states: Tensor, weights: Tensor) -> Tensor:
        return functional.rms_norm(states, states.shape[-1:], weights, self._epsilon)


def _matrices(layer: _Layer) -> tuple[Tensor, ...]:
    return layer.attention_in, layer.attention_out, layer.gate_up, layer.down


def _layer(layer: Any) -> _Layer:
    attention, inner = layer.self_attn, layer.mlp
    return _Layer(
        layer.input_layernorm.weight.data,
        _joined(attention.q_proj, attention.k_proj, attention.v_proj),
        attention.o_proj.weight.data,
        layer.post_attention_layernorm.weight.data,
        _joined(inner.gate_proj, inner.up_proj),
        inner.down_proj.weight.data,
    )


def _joined(*parts: Any) -> Tensor:
    """Return the rows of a few linear layers in one matrix, which then holds the layers' own weights too."""
    matrix = torch.cat([part.weight.data for part in parts])
    start = 0
    for part in parts:
        count = part.weight.shape[0]
        part.weight.data = matrix[start : start + count]
        start += count
    return matrix
