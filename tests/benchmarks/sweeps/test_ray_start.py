"""Which Ray a sweep takes, and to whom one that it starts itself listens."""

from types import SimpleNamespace
from typing import Any

import pytest

from cl_adapters.benchmarks.sweeps import engine_ray
from cl_adapters.errors import InputError


class Ray:
    """Notes how it is started; joins a cluster where there is one."""

    def __init__(self, *, has_cluster: bool) -> None:
        self.has_cluster = has_cluster
        self.started: list[dict[str, Any]] = []

    def init(self, **options: Any) -> None:
        if options["address"] != "local" and not self.has_cluster:
            raise ConnectionError("no cluster")
        self.started.append(options)


@pytest.fixture
def constants(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(ENABLE_RAY_CLUSTER=True)
    monkeypatch.setattr(engine_ray, "import_module", lambda _: found)
    for name in ("RAY_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "")
    return found


@pytest.mark.parametrize("address", [None, "local"])
def test_what_a_sweep_starts_listens_to_this_machine_alone(
    address: str | None, constants: SimpleNamespace
) -> None:
    ray = Ray(has_cluster=address == "local")
    engine_ray._connect(ray, address)
    (started,) = ray.started
    assert started["address"] == "local"
    assert started["_node_ip_address"] == "127.0.0.1"
    assert not started["include_dashboard"]
    assert constants.ENABLE_RAY_CLUSTER is False


@pytest.mark.parametrize("address", [None, "auto"])
def test_a_cluster_that_is_there_is_joined_as_it_is(
    address: str | None, constants: SimpleNamespace
) -> None:
    ray = Ray(has_cluster=True)
    engine_ray._connect(ray, address)
    (started,) = ray.started
    assert started["address"] == "auto"
    assert "_node_ip_address" not in started
    assert constants.ENABLE_RAY_CLUSTER is True


def test_a_cluster_that_was_named_and_is_not_there_is_refused(constants: SimpleNamespace) -> None:
    with pytest.raises(InputError, match="--ray-address must be"):
        engine_ray._connect(Ray(has_cluster=False), "auto")
    assert constants.ENABLE_RAY_CLUSTER is True
