"""The sequence encoder: a causal transformer over the vectors of past items.

Source: Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018 (https://arxiv.org/abs/1808.09781), with
normalisation in front of each sublayer. Positions are counted from the end, so that a shorter history is exact without
padding. An item's vector is its id embedding, if it has one, plus the mean of its token embeddings. What was had before
is wanted again: an item's score is ``h . v + b + repeat * log(1 + c)``, c how often the history holds it. The last term
lets the state spend itself on what is new; an edge that knows the whole past of a user replaces it by that.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from protocol.models.weights import Weights


class Block(nn.Module):
    """Attention and a feed-forward network, each around a residual."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(size)
        self.qkv = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)
        self.norm2 = nn.LayerNorm(size)
        self.up = nn.Linear(size, 4 * size)
        self.down = nn.Linear(4 * size, size)

    def forward(self, x: Tensor, allowed: Tensor, *, dropout: float) -> Tensor:
        """One step.

        Args:
            x: float32[batch, time, d].
            allowed: bool[batch, 1, time, time], which positions each may look at.

        Returns:
            float32[batch, time, d].
        """
        batch, time, size = x.shape
        q, k, v = (
            part.view(batch, time, self.heads, size // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(size, dim=-1)
        )
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        x = x + functional.dropout(self.out(seen.transpose(1, 2).reshape(batch, time, size)), dropout, self.training)
        inner = functional.relu(self.up(self.norm2(x)))
        return x + functional.dropout(self.down(inner), dropout, self.training)


class SasRec(nn.Module):
    """The model whose weights travel; parameter names are those of `SequenceConfig.shapes`."""

    tokens: Tensor
    id_of: Tensor

    def __init__(self, weights: Weights, tokens: NDArray[np.int32]) -> None:
        """Build the model around weights.

        Args:
            tokens: int32[n + 1, t] from `content.token_table` of the shared catalogue.

        Raises:
            ValueError: the tokens are of another catalogue.
        """
        super().__init__()
        config = weights.config
        if len(tokens) != config.items + 1:
            raise ValueError(f"tokens of {len(tokens) - 1} items for a model of {config.items}")
        self.config = config
        d = config.embedding_size
        self.id = nn.Embedding(len(weights.id_rows), d)
        self.id_bias = nn.Parameter(torch.zeros(len(weights.id_rows)))
        self.token = nn.Embedding(len(weights.tensors["token.weight"]), d)
        self.position = nn.Parameter(torch.zeros(config.history_length, d))
        self.repeat = nn.Parameter(torch.ones(1))
        self.blocks = nn.ModuleList(Block(d, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(d)
        id_of = np.full(config.items + 1, -1, dtype=np.int64)
        id_of[weights.id_rows] = np.arange(len(weights.id_rows))
        self.register_buffer("id_of", torch.from_numpy(id_of), persistent=False)
        self.register_buffer("tokens", torch.from_numpy(tokens.astype(np.int64)), persistent=False)
        self.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.tensors.items()})

    def vectors(self, rows: Tensor) -> Tensor:
        """float32[..., d], what the items of these catalogue rows look like; row 0 is zero."""
        tokens = self.tokens[rows]
        there = (tokens > 0).unsqueeze(-1)
        words: Tensor = self.token((tokens - 1).clamp(min=0)) * there
        content = words.sum(-2) / there.sum(-2).clamp(min=1)
        number = self.id_of[rows]
        known = (number >= 0).unsqueeze(-1)
        return content + self.id(number.clamp(min=0)) * known if len(self.id_bias) else content

    def bias(self, rows: Tensor) -> Tensor:
        """float32[...], how likely these items are whatever the history."""
        number = self.id_of[rows]
        if not len(self.id_bias):
            return torch.zeros(rows.shape)
        return self.id_bias[number.clamp(min=0)] * (number >= 0)

    def forward(self, inputs: Tensor, padding: Tensor, *, dropout: float = 0.0) -> Tensor:
        """Read histories.

        Args:
            inputs: float32[batch, time, d], item vectors, oldest first, padding in front.
            padding: bool[batch, time], true where there is no item.

        Returns:
            float32[batch, time, d], the state after each position.
        """
        time = inputs.shape[1]
        positions = self.position[self.config.history_length - time :]
        x = functional.dropout(inputs + positions, dropout, self.training)
        causal = torch.ones(time, time, dtype=torch.bool).tril()
        # A padded position looks at itself, lest its softmax be over nothing.
        allowed = (causal & ~padding[:, None, :]) | torch.eye(time, dtype=torch.bool)
        for block in self.blocks:
            x = block(x, allowed[:, None], dropout=dropout)
        state: Tensor = self.norm(x)
        return state
