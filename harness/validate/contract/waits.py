"""Waits for the device that a method does not declare: reading a value back, or a shape that depends on values.

On a CPU a view of fake tensors stands for one on a device: whatever needs a value of it raises, and sums over plain
tensors of the host go on as they do. On a GPU `torch.cuda.set_sync_debug_mode` says the same of the real view.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from harness.validate.contract.subject import Broken, Call, Subject
from methods.base import View


class _Followed(TorchDispatchMode):
    """Goes on calling a host tensor fake once fake values were written into it.

    Raises DynamicOutputShapeException for writing several values under a mask, which on a device is a wait as well.
    """

    def __init__(self, mode: FakeTensorMode):
        super().__init__()
        self.mode = mode
        self.written: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = tree_map_only(Tensor, lambda x: self.written.get(x, x), args)
        fakes = [x for x in tree_leaves(args) if _is_fake(x)]
        if fakes and operation._schema.is_mutable and isinstance(args[0], Tensor) and not _is_fake(args[0]):
            host, fake = args[0], self.mode.from_tensor(args[0])
            self.written[host] = fake
            args = (fake, *args[1:])
        if operation is torch.ops.aten.index_put_.default:
            masks = [index for index in args[1] if index is not None and index.dtype == torch.bool]
            if masks and args[2].numel() > 1:
                raise DynamicOutputShapeException(operation)
        return operation(*args, **(kwargs or {}))


def _is_fake(value: object) -> bool:
    return isinstance(value, FakeTensor)


def undeclared(subject: Subject) -> str:
    """No hook method waits for the device, unless the class says why in `synchronises`."""
    declared = subject.pruner.synchronises
    calls = list(subject.views())
    waiting = [where for call in calls if (where := wait_of(subject, call))]
    if waiting and not declared:
        raise Broken(f"{waiting[0]}; work with tensors alone, or say why not in `synchronises`")
    return f"declared: {declared}" if declared else f"{len(calls)} decisions wait for nothing"


def wait_of(subject: Subject, call: Call) -> str:
    """Where a decision waits for the device, "" if it does not."""
    if call.view.hidden.is_cuda:
        return _wait_on_gpu(subject, call)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with torch.no_grad(), _Followed(mode):
            getattr(subject.pruner, call.hook)(_faked(call.view, mode))
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        return f"{call.label}: {error} waits for the device"
    except UnsupportedOperatorException:  # an operation that knows no shapes without values: nothing is seen
        return ""
    except RuntimeError as error:
        if "not supported for tensor subclasses" not in str(error):
            raise
        return f"{call.label}: .numpy() waits for the device"
    return ""


def _wait_on_gpu(subject: Subject, call: Call) -> str:
    torch.cuda.set_sync_debug_mode("error")
    try:
        getattr(subject.pruner, call.hook)(call.view)
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return f"{call.label}: {str(error).splitlines()[0]}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


def _faked(view: View, mode: FakeTensorMode) -> View:
    tensors = {f.name: getattr(view, f.name) for f in fields(view) if isinstance(getattr(view, f.name), Tensor)}
    signals = {signal: mode.from_tensor(tensor) for signal, tensor in view.signals.items()}
    return replace(view, signals=signals, **{name: mode.from_tensor(tensor) for name, tensor in tensors.items()})
