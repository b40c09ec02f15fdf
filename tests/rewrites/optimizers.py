"""Rewrites of how the weights move."""

from __future__ import annotations

from controller.edits import set_knobs
from tests.rewrites.rewriting import READY, redefined, replaced, with_knobs

SCHEDULES = '''
    def set_schedules(optimizers: list[torch.optim.Optimizer], step: int, progress: float) -> None:
        """Learning rates for the coming step; progress in [0, 1] is the budget's."""
        up = min(1.0, progress / WARMUP_RATIO) if WARMUP_RATIO else 1.0
        down = min(1.0, (1 - progress) / WARMDOWN_RATIO) if WARMDOWN_RATIO else 1.0
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * up * (down + (1 - down) * FINAL_LR_FRAC)
'''


def adamw_alone(source: str) -> str:
    """AdamW moves the matrices of the blocks too, in place of Muon."""
    source = redefined(source, orthogonalise="", Muon="", set_schedules=SCHEDULES)
    return replaced(
        set_knobs(source, {"MATRIX_LR": 0.005, "WARMUP_RATIO": 0.1}),
        {
            '{"params": [model.again], "lr": SCALAR_LR, "betas": SCALAR_BETAS},': """
                {"params": [model.again], "lr": SCALAR_LR, "betas": SCALAR_BETAS},
                {"params": matrices, "lr": MATRIX_LR, "betas": ADAM_BETAS, "weight_decay": WEIGHT_DECAY},
            """,
            "optimizers = [Muon(matrices, MATRIX_LR), adamw]": "optimizers = [adamw]",
        },
    )


def lion_and_sgd(source: str) -> str:
    """Lion moves the matrices of the blocks, and plain SGD with momentum everything else."""
    lion = '''
        class Lion(torch.optim.Optimizer):
            """The sign of momentum and gradient together (arXiv 2302.06675)."""

            def __init__(self, matrices: list[nn.Parameter], lr: float) -> None:
                super().__init__(matrices, {"lr": lr, "weight_decay": WEIGHT_DECAY})

            @torch.no_grad()
            def step(self) -> None:
                for group in self.param_groups:
                    for weight in group["params"]:
                        momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                        update = momentum.lerp(weight.grad, 1 - LION_BETAS[0]).sign()
                        momentum.lerp_(weight.grad, 1 - LION_BETAS[1])
                        weight -= group["lr"] * (update + group["weight_decay"] * weight)
    '''
    optimizers = '''
        def make_optimizers(model: GPT) -> list[torch.optim.Optimizer]:
            """Lion for the blocks' matrices, SGD for everything else; each group remembers its peak learning rate."""
            matrices = [m.weight for m in model.modules() if isinstance(m, nn.Linear) and m is not model.head]
            embeddings = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
            gates = [attention.gate for attention in model.attentions if attention.gate is not None]
            groups = [
                {"params": embeddings, "lr": EMBEDDING_LR},
                {"params": [model.head.weight], "lr": UNEMBEDDING_LR},
                {"params": [model.residual, model.again, *gates], "lr": SCALAR_LR},
            ]
            optimizers = [Lion(matrices, MATRIX_LR), torch.optim.SGD(groups, momentum=SGD_MOMENTUM, nesterov=True)]
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["peak_lr"] = group["lr"]
            return optimizers
    '''
    knobs = """
        LION_BETAS = (0.9, 0.99)  # Lion: what the step, and what the momentum, keeps of the momentum
        SGD_MOMENTUM = 0.9  # SGD: decay of the momentum
    """
    source = redefined(source, orthogonalise="", Muon=lion, make_optimizers=optimizers, set_schedules=SCHEDULES)
    rates = {"MATRIX_LR": 0.002, "EMBEDDING_LR": 20.0, "UNEMBEDDING_LR": 0.3, "SCALAR_LR": 0.01}
    return with_knobs(set_knobs(source, rates), knobs)


def average_of_the_weights(source: str) -> str:
    """A moving average of the weights is kept while training, and takes their place before the model is served."""
    return replaced(
        with_knobs(source, "AVERAGE_DECAY = 0.9  # what the average of the weights keeps in a step"),
        {
            READY: f"""
                {READY}
                average = [parameter.detach().clone() for parameter in model.parameters()]
            """,
            "step += 1": """
                step += 1
                for kept, parameter in zip(average, model.parameters(), strict=True):
                    kept.lerp_(parameter.detach(), max(1 - AVERAGE_DECAY, 1 / step))
            """,
            "trial.serve(model, depth=DEPTH)": """
                with torch.no_grad():
                    for kept, parameter in zip(average, model.parameters(), strict=True):
                        parameter.copy_(kept)
                trial.serve(model, depth=DEPTH)
            """,
        },
    )
