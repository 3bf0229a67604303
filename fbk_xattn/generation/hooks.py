"""Hooks before and after the cross-attention of every decoder layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

from fairseq.models import FairseqDecoder
from torch import nn
from torch.utils.hooks import RemovableHandle

from fbk_xattn.errors import InputError


class CrossAttentionHooks(ABC):
    """Context manager that attaches hooks to each layer's ``encoder_attn`` and removes them.

    Subclasses say what the hooks do, in :meth:`before` and :meth:`after`.
    """

    def __init__(self, decoder: FairseqDecoder) -> None:
        """Prepare for ``decoder``, a fairseq Transformer decoder (``decoder.layers``).

        Raises:
            InputError: It is another kind of decoder, or one without cross-attention.
        """
        layers = getattr(decoder, "layers", [])
        self.modules: list[Any] = [getattr(layer, "encoder_attn", None) for layer in layers]
        if not self.modules or None in self.modules:
            raise InputError(
                f"{type(decoder).__name__}: no cross-attention in every layer, expected a "
                "Transformer decoder of fairseq that attends to its encoder"
            )
        self._handles: list[RemovableHandle] = []

    @abstractmethod
    def before(self, module: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments that ``module`` is to be called with instead."""

    @abstractmethod
    def after(self, module: Any, output: Any) -> Any:
        """Return what is to be the output of ``module`` instead."""

    def __enter__(self) -> Self:
        """Attach the hooks."""
        for module in self.modules:
            self._handles.append(module.register_forward_pre_hook(self._before, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._after))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, self.before(module, kwargs)

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:  # noqa: ARG002
        return self.after(module, output)
