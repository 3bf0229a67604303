"""The optimizer ``adamw``: torch's own, in one kernel for all weights on a GPU."""

# No postponed annotations here: fairseq makes flags of the types of the fields.

import ast
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II
from torch import Tensor, nn

from fbk_xattn.errors import InputError


@dataclass
class AdamWConfig(FairseqDataclass):
    """Flags, named as those of fairseq's ``adam``; the learning rate is fairseq's ``--lr``."""

    adam_betas: Any = field(
        default=(0.9, 0.98), metadata={"help": "decay of the means of gradients and their squares"}
    )
    adam_eps: float = field(default=1e-8, metadata={"help": "added to the denominator"})
    weight_decay: float = field(
        default=0.0, metadata={"help": "share of a weight, times the learning rate, taken off it"}
    )
    lr: list[float] = II("optimization.lr")  # noqa: RUF009 - fairseq resolves it
    bf16: bool = II("common.bf16")
    seed: int = II("common.seed")


@register_optimizer("adamw", dataclass=AdamWConfig)
class AdamW(FairseqOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), through torch.

    fairseq's ``adam`` has the same rule and takes ten kernels for each weight; in bf16, which
    fairseq keeps as one tensor a weight, these cost as much as a batch. In half precision a
    training begun with ``adam`` goes on with ``adamw``; in fp32 fairseq asks for the same
    optimizer or ``--reset-optimizer``.

    With ``--bf16`` fairseq updates float32 copies of weights that bf16 has rounded already, and
    rounds them again after each update. As copies all lie on bf16's grid, the small steps of a
    warm-up would show in none of them until many have added up. Here the copies of matrices get
    random low bits, which round to the same weights: of a step of a tenth of the grid, a tenth of
    the weights show it at once, as if the copies had been made before rounding.
    """

    def __init__(self, cfg: AdamWConfig, params: Iterable[nn.Parameter]) -> None:
        """Create the optimizer.

        Raises:
            InputError: ``--adam-betas`` are not two numbers from 0 to 1, or another setting is
                negative or no number.
        """
        super().__init__(cfg)
        for flag in ("lr", "adam_eps", "weight_decay"):
            value = cfg.lr[0] if flag == "lr" else getattr(cfg, flag)
            if not 0 <= value < math.inf:
                raise InputError(f"--{flag.replace('_', '-')} {value}: expected 0 or more")
        params = list(params)
        if cfg.bf16:
            _add_low_bits(params, cfg.seed)
        on_gpu = all(parameter.is_cuda for parameter in params)
        self._optimizer = torch.optim.AdamW(params, fused=on_gpu, **self.optimizer_config)

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """Return the settings that replace those of a checkpoint."""
        return {
            "lr": self.cfg.lr[0],
            "betas": _betas(self.cfg.adam_betas),
            "eps": self.cfg.adam_eps,
            "weight_decay": self.cfg.weight_decay,
        }

    @property
    def supports_flat_params(self) -> bool:
        """Tell that weights may come as one tensor, as fairseq has them in fp16."""
        return True

    def load_state_dict(
        self, state_dict: dict[str, Any], optimizer_overrides: dict[str, Any] | None = None
    ) -> None:
        """Take over the state of this optimizer or of fairseq's ``adam``."""
        state = {
            number: {**values, "step": torch.as_tensor(values["step"], dtype=torch.float32)}
            for number, values in state_dict["state"].items()
        }
        # Groups of `adam` lack what torch has more; as a checkpoint's, they would replace ours.
        ours = {k: v for k, v in self.param_groups[0].items() if k != "params"}
        groups = [{**ours, **group, "fused": ours["fused"]} for group in state_dict["param_groups"]]
        super().load_state_dict({"state": state, "param_groups": groups}, optimizer_overrides)

    def clip_grad_norm(
        self, max_norm: float, aggregate_norm_fn: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Scale gradients down to a norm of ``max_norm`` (0: leave them); return the norm."""
        gradients = [p.grad for p in self.params if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if aggregate_norm_fn is not None:
            norm = aggregate_norm_fn(norm)
        if max_norm > 0:
            nn.utils.clip_grads_with_norm_(self.params, max_norm, norm)
        return norm


@torch.no_grad()
def _add_low_bits(copies: list[nn.Parameter], seed: int) -> None:
    """Move float32 copies of bf16 matrices to random places that round to the same weights.

    Zeros stay, as the embedding of padding has to. Vectors do too: gains and biases begin with
    values that no rounding made.
    """
    # On the CPU, where every process draws the same, whatever its GPU.
    generator = torch.Generator().manual_seed(seed)
    for copy in copies:
        if copy.dtype == torch.float32 and copy.dim() > 1:
            # Of 32 bits bf16 keeps the upper 16, and rounds to the nearest.
            low = torch.randint(-0x7FFF, 0x8000, copy.shape, dtype=torch.int32, generator=generator)
            copy.view(torch.int32).add_(low.to(copy.device) * (copy != 0))


def _betas(betas: Any) -> tuple[float, float]:
    """Read two decay rates, which a command line has as text."""
    try:
        first, second = ast.literal_eval(betas) if isinstance(betas, str) else betas
        if 0 <= first < 1 and 0 <= second < 1:
            return float(first), float(second)
    except (ValueError, SyntaxError, TypeError):
        pass
    raise InputError(
        f"--adam-betas {betas}: expected two numbers from 0 to below 1, such as '(0.9, 0.98)'"
    )
