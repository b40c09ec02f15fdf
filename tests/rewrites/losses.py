"""Rewrites of what is minimised."""

from __future__ import annotations

from tests.rewrites.rewriting import replaced, with_definition, with_knobs

LOSS = "return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())"


def two_tokens_ahead(source: str) -> str:
    """A second output layer, which only training uses, predicts the token after the next from the same features."""
    squash = '''
        def squash(logits: Tensor) -> Tensor:
            """Logits made to lie in (-SOFTCAP, SOFTCAP)."""
            return SOFTCAP * torch.tanh(logits / SOFTCAP)
    '''
    source = with_knobs(source, "FURTHER_WEIGHT = 0.2  # weight in the loss of predicting the token after the next")
    source = replaced(
        source,
        {
            "self.head = nn.Linear(MODEL_DIM, vocab_size, bias=False)": """
                self.head = nn.Linear(MODEL_DIM, vocab_size, bias=False)
                self.further = nn.Linear(MODEL_DIM, vocab_size, bias=False)
            """,
            "self.head.weight.normal_(std=UNEMBEDDING_STD)": """
                self.head.weight.normal_(std=UNEMBEDDING_STD)
                self.further.weight.normal_(std=UNEMBEDDING_STD)
            """,
            "def forward(self, tokens: Tensor) -> Tensor:": (
                "def forward(self, tokens: Tensor, further: bool = False) -> Tensor | tuple[Tensor, Tensor]:"
            ),
            "logits = self.head(norm(x)).float()": """
                features = norm(x)
                logits = self.head(features).float()
                if further:
                    return squash(logits), squash(self.further(features).float())
            """,
            "return SOFTCAP * torch.tanh(logits / SOFTCAP)": "return squash(logits)",
            "isinstance(m, nn.Linear) and m is not model.head]": (
                "isinstance(m, nn.Linear) and m not in (model.head, model.further)]"
            ),
            '{"params": [model.head.weight],': '{"params": [model.head.weight, model.further.weight],',
            LOSS: """
                near, far = model(inputs, further=True)
                further = F.cross_entropy(far[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
                return F.cross_entropy(near.flatten(0, 1), targets.flatten()) + FURTHER_WEIGHT * further
            """,
        },
    )
    return with_definition(source, "GPT", squash)


def label_smoothing(source: str) -> str:
    """A little of the target goes to every token, and large normalisers cost something (z-loss, arXiv 2204.02311)."""
    knobs = """
        LABEL_SMOOTHING = 0.02  # share of the target that is spread over all tokens
        Z_LOSS = 1e-4  # what the square of the logits' normaliser costs
    """
    return replaced(
        with_knobs(source, knobs),
        {
            LOSS: """
                logits = model(inputs).flatten(0, 1)
                smoothed = F.cross_entropy(logits, targets.flatten(), label_smoothing=LABEL_SMOOTHING)
                return smoothed + Z_LOSS * logits.logsumexp(-1).square().mean()
            """,
        },
    )
