"""Rewrites of attention: who looks at whom, and how a position is told."""

from __future__ import annotations

from controller.edits import set_knobs
from tests.rewrites.rewriting import redefined, replaced, with_knobs


def grouped_query_attention(source: str) -> str:
    """More and smaller heads for queries, two of which share their keys and values."""
    source = redefined(
        with_knobs(set_knobs(source, {"HEAD_DIM": 16}), "KV_HEADS = 2  # heads of keys and values"),
        Attention__forward="""
            def forward(self, x: Tensor, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
                heads, shared = (*x.shape[:2], NUM_HEADS, HEAD_DIM), (*x.shape[:2], KV_HEADS, HEAD_DIM)
                q, k, v = self.query(x).view(heads), self.key(x).view(shared), self.value(x).view(shared)
                if self.values is not None:
                    v = v + (self.gate * self.values(tokens).view(shared)).type_as(v)
                q, k = (norm(rotate(t, cos, sin)).type_as(v) for t in (q, k))
                k, v = (t.repeat_interleave(NUM_HEADS // KV_HEADS, dim=2) for t in (k, v))
                return self.out(self.kernel(q, k, v, self.window).reshape(x.shape))
        """,
    )
    return replaced(
        source,
        {
            "NUM_HEADS = MODEL_DIM // HEAD_DIM": """
                NUM_HEADS = MODEL_DIM // HEAD_DIM
                assert NUM_HEADS % KV_HEADS == 0, "heads of keys and values serve equally many heads of queries"
            """,
            "self.key = nn.Linear(MODEL_DIM, MODEL_DIM,": "self.key = nn.Linear(MODEL_DIM, KV_HEADS * HEAD_DIM,",
            "self.value = nn.Linear(MODEL_DIM, MODEL_DIM,": "self.value = nn.Linear(MODEL_DIM, KV_HEADS * HEAD_DIM,",
            "torch.ones(NUM_HEADS, 1)": "torch.ones(KV_HEADS, 1)",
            "nn.Embedding(vocab_size, MODEL_DIM) if": "nn.Embedding(vocab_size, KV_HEADS * HEAD_DIM) if",
        },
    )


def alibi(source: str) -> str:
    """No rotary embedding and no windows: scores of attention fall with the distance, in each head at another rate."""
    source = redefined(
        source,
        rotation='''
            def distances(length: int, device: str) -> Tensor:
                """What ALiBi (arXiv 2108.12409) adds to the scores of attention, [NUM_HEADS, length, length]."""
                slope = 2.0 ** (-8 * torch.arange(1, NUM_HEADS + 1, device=device) / NUM_HEADS)
                position = torch.arange(length, device=device)
                back = position[:, None] - position
                return (-slope[:, None, None] * back).masked_fill(back < 0, -torch.inf)
        ''',
        rotate="",
        Attention__forward="""
            def forward(self, x: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
                heads = (*x.shape[:2], NUM_HEADS, HEAD_DIM)
                q, k, v = norm(self.query(x).view(heads)), norm(self.key(x).view(heads)), self.value(x).view(heads)
                if self.values is not None:
                    v = v + (self.gate * self.values(tokens).view(heads)).type_as(v)
                q, k, v = (t.type_as(v).transpose(1, 2) for t in (q, k, v))
                seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.type_as(v))
                return self.out(seen.transpose(1, 2).reshape(x.shape))
        """,
    )
    return replaced(
        source,
        {
            "cos, sin = rotation(max_length, device)": "bias = distances(max_length, device)",
            'self.register_buffer("cos", cos,': 'self.register_buffer("bias", bias,',
            '        self.register_buffer("sin", sin, persistent=False)\n': "",
            "cos, sin = self.cos[: tokens.size(1)], self.sin[: tokens.size(1)]": (
                "bias = self.bias[:, : tokens.size(1), : tokens.size(1)]"
            ),
            "attention(norm(x), tokens, cos, sin)": "attention(norm(x), tokens, bias)",
        },
    )


def convolution_before_attention(source: str) -> str:
    """Each channel mixes in its last few positions by a short causal convolution before attention looks at them."""
    return replaced(
        with_knobs(source, "TAPS = 4  # positions that a convolution before attention sees"),
        {
            "self.values = values": """
                self.values = values
                self.mix = nn.Conv1d(MODEL_DIM, MODEL_DIM, TAPS, groups=MODEL_DIM, bias=False)
            """,
            "heads = (*x.shape[:2], NUM_HEADS, HEAD_DIM)": """
                x = x + self.mix(F.pad(x.mT, (TAPS - 1, 0))).mT
                heads = (*x.shape[:2], NUM_HEADS, HEAD_DIM)
            """,
            "attention.out.weight.zero_()": """
                attention.out.weight.zero_()
                attention.mix.weight.zero_()
            """,
            "embeddings = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]": """
                embeddings = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
                convolutions = [attention.mix.weight for attention in model.attentions]
            """,
            "[model.residual, *gates]": "[model.residual, *gates, *convolutions]",
        },
    )
