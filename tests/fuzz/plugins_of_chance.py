"""Hypothesis strategies for plug-in files as people might write them, most of them wrong."""

from textwrap import indent
from typing import Any, Final

from hypothesis import strategies as st

__all__ = ["plugins", "source_of"]

_FAULTS: Final = (
    "raise KeyError('x')", "raise ValueError('two\\nlines')", "raise RuntimeError",
    "raise Exception('\\x1b[31mred')", "raise StopIteration", "raise MemoryError",
    "raise AssertionError", "raise UnicodeDecodeError('utf-8', b'\\xff', 0, 1, 'odd')",
    "raise OSError(28, 'No space left on device')", "raise NotImplementedError", "raise Odd()",
    "raise Mute()", "raise SystemExit", "raise SystemExit(0)", "raise SystemExit('bye')",
    "raise Base('x')", "raise KeyboardInterrupt", "raise InputError('mine')",
    "raise RunError('mine [/red]')", "raise Exception('[/red]')", "1 / 0", "return deep()",
    "import no_such_module", "nonsense", "warnings.warn('odd')", "print('\\x1b[31m')",
    "return None", "return 1", "return 'text'", "return []", "return ()", "return object()",
    "return iter(())", "return float('nan')", "return torch.tensor(float('nan'))",
    "return torch.zeros(3, 4)", "return torch.tensor(1)", "return torch.tensor(1j)",
    "return torch.zeros(0)", "return torch.full((8, 2), torch.inf)", "return {}",
    "return {'x': torch.ones(2)}", "return (yield)", "torch.manual_seed(3)", "random.random()",
    "return lambda *a: a", "torch.set_grad_enabled(False)", "return torch.zeros(2).to('meta')",
)  # fmt: skip
# What is overridden, by kind of plug-in; `build_model` is a class method.
_PLACES: Final = {
    "strategy": (
        "__init__", "check_experience", "add_classes", "begin_experience", "build_optimizer",
        "phases", "begin_epoch", "batch_loss", "before_step", "after_step", "end_experience",
        "frozen_features", "query_features", "generators", "rebuild", "build_model",
        "learned_state", "__init_subclass__", "__getattr__", "train", "eval", "restore",
    ),
    "detector": ("__init__", "fit", "check", "reset", "state_dict", "load_state_dict"),
    "adapter": ("__init__", "forward", "parameters", "state_dict"),
    "stream": ("__call__",),
}  # fmt: skip
_HEAD: Final = """\
import random
import warnings

import torch
from cl_adapters.errors import InputError, RunError
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.shift.ks import KolmogorovSmirnov
from cl_adapters.strategies.finetune import Finetune


class Odd(Exception):
    def __str__(self):
        raise ValueError("no text")


class Mute(Exception):
    def __str__(self):
        return None


class Base(BaseException):
    pass


def deep():
    return deep()

"""
_BASES: Final = {
    "strategy": "Finetune",
    "detector": "KolmogorovSmirnov",
    "adapter": "Bottleneck",
    "stream": "object",
}
# Whole files in place of a class.
_FILES: Final = (
    "", "def", "\t x", "\x00", "Mine = 3", "Mine = None", "Mine = lambda: 1", "class Mine: pass",
    "from nowhere import Mine", "import sys; sys.exit(0)", "import sys; sys.exit('bye')",
    "raise KeyboardInterrupt", "class Mine(Finetune):\n    config_class = 3",
    "class Mine(Finetune):\n    config_class = None", "Mine = Finetune", "Mine = Finetune.__new__",
    "class Mine(Finetune):\n    '''Mine.'''\n    learns_by_gradient = None",
    "class Mine(Finetune):\n    '''Mine.'''\n    resumes_inside = 'yes'",
    "class Mine(Finetune):\n    '''Mine.'''\n    role = 3",
    "class Meta(type):\n    def __subclasscheck__(cls, other):\n        raise ValueError\nclass Mine(metaclass=Meta):\n    pass",
    "class Mine(Finetune):\n    __doc__ = 3",
    "class Config(Finetune.config_class):\n    lr: int\nclass Mine(Finetune):\n    config_class = Config",
    "class Config(Finetune.config_class):\n    lr: object = object()\nclass Mine(Finetune):\n    config_class = Config",
    "def __getattr__(name):\n    raise SystemExit(0)", "def __dir__():\n    raise ValueError",
    "async def Mine(): pass", "def Mine(*a, **k):\n    yield 1", "def Mine(): return 1",
    "raise Odd", "raise Mute", "raise Base", "deep()", "# -*- coding: klingon -*-",
)  # fmt: skip

plugins = st.sampled_from(sorted(_PLACES)).flatmap(
    lambda kind: st.fixed_dictionaries(
        {
            "kind": st.just(kind),
            "file": st.none() | st.none() | st.sampled_from(_FILES),
            "faults": st.dictionaries(
                st.sampled_from(_PLACES[kind]), st.sampled_from(_FAULTS), min_size=1, max_size=2
            ),
        }
    )
)


def source_of(plugin: dict[str, Any]) -> str:
    """Returns the text of a plug-in's file, in which `Mine` is meant to stand."""
    if plugin["file"] is not None:
        return _HEAD + str(plugin["file"]) + "\n"
    kind, methods = plugin["kind"], []
    for place, fault in plugin["faults"].items():
        decorator = "@classmethod\n" if place in ("build_model", "__init_subclass__") else ""
        methods.append(f"{decorator}def {place}(self, *given, **named):\n    {fault}\n")
    body = indent("\n".join(methods), "    ")
    made = "\n\nMine = Mine()\n" if kind == "stream" else ""
    return f'{_HEAD}\nclass Mine({_BASES[kind]}):\n    """Mine."""\n\n{body}{made}'
