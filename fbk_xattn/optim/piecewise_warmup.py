"""The learning-rate schedule ``piecewise_warmup``: two linear pieces, then inverse square root."""

# No postponed annotations here: fairseq makes flags of the types of the fields.

from dataclasses import dataclass, field
from typing import Any

from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer
from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler
from omegaconf import II

from fbk_xattn.errors import InputError


@dataclass
class PiecewiseWarmupConfig(FairseqDataclass):
    """Flags; the peak rate is fairseq's ``--lr``."""

    warmup_updates: int = field(
        default=50_000, metadata={"help": "update at which the learning rate is --lr, its peak"}
    )
    intermediate_warmup_updates: int = field(
        default=25_000, metadata={"help": "update at which it is --intermediate-lr"}
    )
    intermediate_lr: float = field(
        default=2e-5, metadata={"help": "learning rate between the two pieces of the warm-up"}
    )
    warmup_init_lr: float = field(
        default=-1, metadata={"help": "learning rate at the first update (default: 0)"}
    )
    lr: list[float] = II("optimization.lr")  # noqa: RUF009 - fairseq resolves it


@register_lr_scheduler("piecewise_warmup", dataclass=PiecewiseWarmupConfig)
class PiecewiseWarmup(FairseqLRScheduler):
    """Warm-up of large models in two linear pieces, the first one flatter.

    At update ``u``: linear from ``warmup_init_lr`` to ``intermediate_lr`` at
    ``intermediate_warmup_updates``, linear from there to ``lr`` at ``warmup_updates``, and
    ``lr * sqrt(warmup_updates / u)`` beyond.
    """

    def __init__(self, cfg: PiecewiseWarmupConfig, optimizer: FairseqOptimizer) -> None:
        """Check the flags and set the first learning rate.

        Raises:
            InputError: Several learning rates, or updates that are not in order.
        """
        super().__init__(cfg, optimizer)
        if len(cfg.lr) != 1:
            raise InputError(f"--lr {list(cfg.lr)}: expected one value with piecewise_warmup")
        if not 0 < cfg.intermediate_warmup_updates < cfg.warmup_updates:
            raise InputError(
                f"--intermediate-warmup-updates {cfg.intermediate_warmup_updates}: expected more "
                f"than 0 and less than --warmup-updates {cfg.warmup_updates}"
            )
        self.first = max(cfg.warmup_init_lr, 0.0)
        self.optimizer.set_lr(self.first)

    def learning_rate(self, update: int) -> float:
        """Return the learning rate of an update, counted from 0."""
        middle, end = self.cfg.intermediate_warmup_updates, self.cfg.warmup_updates
        peak, between = self.cfg.lr[0], self.cfg.intermediate_lr
        if update < middle:
            return self.first + update * (between - self.first) / middle
        if update < end:
            return between + (update - middle) * (peak - between) / (end - middle)
        return peak * (end / update) ** 0.5

    def step(self, epoch: int, val_loss: Any = None) -> float:
        """Change nothing at the end of an epoch."""
        super().step(epoch, val_loss)
        return self.optimizer.get_lr()

    def step_update(self, num_updates: int) -> float:
        """Set the learning rate of the next update and return it."""
        rate = self.learning_rate(num_updates)
        self.optimizer.set_lr(rate)
        return rate
