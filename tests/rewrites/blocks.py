"""Rewrites of what the model is made of, attention apart."""

from __future__ import annotations

from controller.edits import set_knobs
from tests.rewrites.rewriting import replaced, with_definition, with_knobs


def mixture_of_experts(source: str) -> str:
    """Each token goes through the two small MLPs, of four, that a router picks for it."""
    experts = '''
        class Experts(nn.Module):
            """Several MLPs, of which each token uses the best few; a bias evens out their load (arXiv 2408.15664)."""

            def __init__(self) -> None:
                super().__init__()
                self.router = nn.Linear(MODEL_DIM, EXPERTS, bias=False)
                self.experts = nn.ModuleList(MLP() for _ in range(EXPERTS))
                self.register_buffer("bias", torch.zeros(EXPERTS))

            def forward(self, x: Tensor) -> Tensor:
                flat = x.flatten(0, 1)
                scores = self.router(flat).float().sigmoid()
                chosen = (scores + self.bias).topk(EXPERTS_PER_TOKEN).indices
                if self.training:
                    load = (chosen[..., None] == torch.arange(EXPERTS, device=x.device)).sum((0, 1)).float()
                    self.bias += EXPERT_BALANCE * (load.mean() - load).sign()
                out = torch.zeros_like(flat)
                for i, expert in enumerate(self.experts):
                    rows = (chosen == i).any(-1).nonzero().flatten()
                    out = out.index_add(0, rows, (scores[rows, i, None] * expert(flat[rows])).type_as(out))
                return out.view_as(x)
    '''
    knobs = """
        EXPERTS = 4  # MLPs of a block
        EXPERTS_PER_TOKEN = 2  # MLPs that a token goes through
        EXPERT_BALANCE = 0.001  # how fast the router's bias evens out the load of the experts
    """
    source = with_definition(with_knobs(set_knobs(source, {"MLP_RATIO": 2}), knobs), "GPT", experts)
    return replaced(
        source,
        {
            "self.mlps.append(MLP())": "self.mlps.append(Experts())",
            "mlp.down.weight.zero_()": """
                for expert in mlp.experts:
                    expert.down.weight.zero_()
            """,
        },
    )


def gradient_of_its_own(source: str) -> str:
    """The squared ReLU is an autograd function, which keeps one tensor for the way back where torch keeps two."""
    function = '''
        class SquaredReLU(torch.autograd.Function):
            """relu(x) squared."""

            @staticmethod
            def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
                kept = F.relu(x)
                ctx.save_for_backward(kept)
                return kept.square()

            @staticmethod
            def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
                (kept,) = ctx.saved_tensors
                return 2 * kept * gradient
    '''
    return replaced(
        with_definition(source, "MLP", function),
        {"F.relu(self.up(x)).square()": "SquaredReLU.apply(self.up(x))"},
    )


def depth_drawn_for_each_batch(source: str) -> str:
    """The blocks are gone through once or twice, which each training batch draws anew; twice in evaluation."""
    loop = "enumerate(zip(self.attentions, self.mlps, strict=True))"
    return replaced(
        with_knobs(source, "ROUNDS = 2  # how often, at most, the blocks are gone through"),
        {
            f"for i, (attention, mlp) in {loop}:": f"""
                rounds = int(torch.randint(1, ROUNDS + 1, ())) if self.training else ROUNDS
                for i, (attention, mlp) in [*{loop}] * rounds:
            """,
        },
    )


def dropout(source: str) -> str:
    """A little of the embedding and of every hidden layer is dropped while training."""
    return replaced(
        with_knobs(source, "DROPOUT = 0.1  # share of the activations that is dropped while training"),
        {
            "self.down = nn.Linear(MLP_RATIO * MODEL_DIM, MODEL_DIM, bias=False)": """
                self.down = nn.Linear(MLP_RATIO * MODEL_DIM, MODEL_DIM, bias=False)
                self.dropout = nn.Dropout(DROPOUT)
            """,
            "F.relu(self.up(x)).square()": "self.dropout(F.relu(self.up(x)).square())",
            "self.embedding = nn.Embedding(vocab_size, MODEL_DIM)": """
                self.embedding = nn.Embedding(vocab_size, MODEL_DIM)
                self.dropout = nn.Dropout(DROPOUT)
            """,
            "x = norm(self.embedding(tokens))": "x = self.dropout(norm(self.embedding(tokens)))",
        },
    )


def tied_embeddings(source: str) -> str:
    """The output layer is the embedding itself."""
    return replaced(
        with_knobs(source, "TIED_STD = 0.02  # initial standard deviation of the embedding, the output layer too"),
        {
            "self.head = nn.Linear(MODEL_DIM, vocab_size, bias=False)": """
                self.head = nn.Linear(MODEL_DIM, vocab_size, bias=False)
                self.head.weight = self.embedding.weight
            """,
            "self.head.weight.normal_(std=UNEMBEDDING_STD)": "self.head.weight.normal_(std=TIED_STD)",
            "for m in model.modules() if isinstance(m, nn.Embedding)]": (
                "for m in model.modules() if isinstance(m, nn.Embedding) and m is not model.embedding]"
            ),
        },
    )
