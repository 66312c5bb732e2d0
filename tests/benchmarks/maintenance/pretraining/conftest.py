"""Cheap steps: what is tested here does not depend on how well Muon makes matrices orthogonal."""

from collections.abc import Iterator
from functools import wraps

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def _one_iteration_of_muon() -> Iterator[None]:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("only maintainers train the embedded backbone, and with a newer torch")
    whole = torch.optim.Muon.__init__

    @wraps(whole)
    def cheap(self: "torch.optim.Muon", *args: object, **settings: object) -> None:
        whole(self, *args, **{"ns_steps": 1, **settings})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Muon, "__init__", cheap)
        yield
