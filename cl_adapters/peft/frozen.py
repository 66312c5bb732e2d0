"""Which parts of a set of adapters are frozen, and their mode.

A module that draws in train mode would feed its noise to whatever reads a frozen pass: detectors,
routers, a cache. So what is frozen is called in eval mode, whatever the network around it does.
"""

from torch import nn

__all__ = ["eval_frozen", "frozen_parts"]


def frozen_parts(module: nn.Module) -> list[nn.Module]:
    """Returns the outermost parts that have parameters of which none requires a gradient.

    Example:
        >>> pair = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        >>> pair[0].requires_grad_(False)
        Linear(in_features=2, out_features=2, bias=True)
        >>> frozen_parts(pair) == [pair[0]]
        True
    """
    trained = [value.requires_grad for value in module.parameters()]
    if trained and not any(trained):
        return [module]
    return [part for child in module.children() for part in frozen_parts(child)]


def eval_frozen(module: nn.Module) -> list[nn.Module]:
    """Puts the frozen parts of a module in eval mode, and returns them.

    To be called after `module.train()`, which puts them in train mode with all others.
    """
    parts = frozen_parts(module)
    for part in parts:
        part.eval()
    return parts
