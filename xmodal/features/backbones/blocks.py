"""Division of a network in front of its last blocks (torch).

The *blocks* of a network are the members of that list or sequence of modules in it which has the
most parameters, and whose members are computed once each, one after the other: the layers of a
transformer, the stages of a convolutional network. Members without parameters do not count. The
*states* are the input of a block.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from xmodal.device import full_float32
from xmodal.errors import ModelError

TOLERANCE = 1e-4
"""Largest difference of features of the divided network, as a share of the largest feature."""
Inputs = Sequence[torch.Tensor]


def shared_copy(network: nn.Module) -> nn.Module:
    """Return a copy of the modules of a network that shares its tensors."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def with_tensors(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return a copy of a network with other parameters of these names; it shares all others.

    Raises ModelError for a name that is no parameter, and for a tensor of another shape.
    """
    changed = shared_copy(network)
    known = dict(changed.named_parameters())
    for name, tensor in tensors.items():
        if name not in known or known[name].shape != tensor.shape:
            found = "nothing" if name not in known else f"{tuple(known[name].shape)}"
            raise ModelError(
                f"the changed weights have {name} {tuple(tensor.shape)}, its backbone has {found} "
                "there: restore the versions of the libraries of the training"
            )
        _set_parameter(changed, name, tensor.to(known[name]), trained=False)
    return changed


def find_blocks(spec: str, network: nn.Module, inputs: Inputs) -> list[str]:
    """Return the names of the blocks of a network in order; ``inputs``: a sample.

    ``spec``: name of the backbone for the error. Raises ModelError for a network without blocks.
    """
    calls = list(_computed(network, inputs))
    best: list[str] = []
    most = 0
    for name, module in network.named_modules():
        if not isinstance(module, nn.Sequential | nn.ModuleList):
            continue
        sizes = {
            f"{name}.{child}": sum(one.numel() for one in part.parameters())
            for child, part in module.named_children()
        }
        blocks = [member for member, size in sizes.items() if size]
        called = [one for one, _ in calls if sizes.get(one)]
        if called == blocks and sum(sizes.values()) > most:
            best, most = blocks, sum(sizes.values())
    if not best:
        raise ModelError(
            f"the backbone {spec!r} has no blocks that can be trained, expected layers that are "
            "computed one after the other: leave it out of --fine-tune"
        )
    return best


def states_before(network: nn.Module, block: str, inputs: Inputs) -> torch.Tensor:
    """Return the input of a block for inputs of the network."""
    found: list[torch.Tensor] = []

    def reached(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(args[0] if args else kwargs[_first_tensor(kwargs)])
        raise _Reached

    hook = network.get_submodule(block).register_forward_pre_hook(reached, with_kwargs=True)
    try:
        with torch.inference_mode(), full_float32():
            network(*inputs)
    except _Reached:
        return found[0]
    finally:
        hook.remove()
    raise AssertionError(f"{block} was not computed")


class LastBlocks(nn.Module):
    """The last blocks of a network and what follows them, as a network of their states.

    Its parameters are those of the blocks, and copies; all other tensors are shared with the
    network. Modules in front of the blocks are not computed, as far as the features of a sample
    stay equal without them.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self._states: torch.Tensor | None = None
        for name in names:
            for parameter, value in list(network.get_submodule(name).named_parameters()):
                _set_parameter(network, f"{name}.{parameter}", value, trained=True)
        self.blocks = nn.ModuleList(network.get_submodule(name) for name in names)
        first = network.get_submodule(names[0])
        first.register_forward_pre_hook(self._with_states, with_kwargs=True)
        self._whole = (network,)  # in a tuple it is no part of this module

    @classmethod
    def of(cls, spec: str, network: nn.Module, names: Sequence[str], sample: Inputs) -> LastBlocks:
        """Divide a network; ``sample``: inputs, of at least two items.

        ``spec``: name of the backbone for the error. Raises ModelError for a network whose last
        blocks need more than the states.
        """
        with torch.inference_mode(), full_float32():
            expected = network(*sample).flatten(1)
        states = states_before(network, names[0], sample)
        before = _computed_before(network, names[0], sample)
        siblings = {
            name: kind for name, kind in before.items() if _parent(name) == _parent(names[0])
        }
        for left_out in (before, siblings):
            divided = cls(_without(network, left_out), names)
            if divided._gives(expected, states, sample):
                return divided
        raise ModelError(
            f"the backbone {spec!r} cannot be divided in front of its last {len(names)} blocks, "
            "which read more than the output of the block before: leave it out of --fine-tune"
        )

    def forward(self, states: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        """States (b, ...) and inputs of the network -> features (b, dim)."""
        self._states = states
        with full_float32():
            out: torch.Tensor = self._whole[0](*inputs)
        self._states = None
        return out.flatten(1)

    def train(self, mode: bool = True) -> LastBlocks:
        """Stay in evaluation mode: no dropout, and normalisations with their stored statistics."""
        super().train(False)
        return self

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return copies of the parameters by their names in the network."""
        return {
            f"{name}.{parameter}": value.detach().cpu().clone()
            for name, block in zip(self.names, self.blocks, strict=True)
            for parameter, value in block.named_parameters()
        }

    def _with_states(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (self._states, *args[1:]), kwargs
        return args, kwargs | {_first_tensor(kwargs): self._states}

    @torch.no_grad()
    def _gives(self, expected: torch.Tensor, states: torch.Tensor, sample: Inputs) -> bool:
        """Whether the features of a sample are those of the whole network."""
        try:
            found = self(states, *sample)
        except Exception:  # code of the model, on results that are left out, raises any type
            return False
        if found.shape != expected.shape:
            return False
        largest = float(expected.abs().max())
        return float((found - expected).abs().max()) <= TOLERANCE * max(largest, 1e-12)


class _Reached(Exception):
    """Ends a forward pass in front of a block."""


class _LeftOut(nn.Module):
    """In place of a module that is not computed: returns its input, in a tuple if it did so."""

    def __init__(self, *, in_tuple: bool) -> None:
        super().__init__()
        self.in_tuple = in_tuple

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first argument."""
        first = args[0] if args else kwargs[_first_tensor(kwargs)]
        return (first,) if self.in_tuple else first


def _without(network: nn.Module, left_out: Mapping[str, bool]) -> nn.Module:
    """Return a copy that shares tensors; ``left_out``: modules, and whether they return tuples."""
    changed = shared_copy(network)
    for name, in_tuple in left_out.items():
        setattr(
            changed.get_submodule(_parent(name)),
            name.rpartition(".")[2],
            _LeftOut(in_tuple=in_tuple),
        )
    return changed


def _computed(network: nn.Module, inputs: Inputs) -> list[tuple[str, Any]]:
    """Return names and results of the modules of a network in the order of their computation.

    A block that raises ``_Reached`` ends the computation.
    """
    calls: list[tuple[str, Any]] = []
    with ExitStack() as hooks, torch.inference_mode():
        for name, module in network.named_modules():

            def computed(_: nn.Module, args: Any, out: Any, name: str = name) -> None:
                calls.append((name, out))

            hooks.callback(module.register_forward_hook(computed).remove)
        try:
            network(*inputs)
        except _Reached:
            pass
    return calls


def _computed_before(network: nn.Module, block: str, inputs: Inputs) -> dict[str, bool]:
    """Return the outermost modules that are computed before a block: whether they give tuples."""

    def reached(*_: Any) -> None:
        raise _Reached

    hook = network.get_submodule(block).register_forward_pre_hook(reached)
    try:
        calls = dict(_computed(network, inputs))
    finally:
        hook.remove()
    return {
        name: isinstance(out, tuple)
        for name, out in calls.items()
        if not any(name.startswith(f"{other}.") for other in calls)
    }


def _set_parameter(network: nn.Module, name: str, value: torch.Tensor, *, trained: bool) -> None:
    """Replace a parameter by a copy of ``value``."""
    module, _, last = name.rpartition(".")
    copied = nn.Parameter(value.detach().clone(), requires_grad=trained)
    setattr(network.get_submodule(module), last, copied)


def _first_tensor(kwargs: Mapping[str, Any]) -> str:
    """Return the name of the first tensor among named arguments, which are the states."""
    return next(name for name, value in kwargs.items() if isinstance(value, torch.Tensor))


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
