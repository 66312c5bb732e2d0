"""What is shipped is the packed form of a file whose digest the card knows."""

import hashlib
from pathlib import Path

import pytest

from cl_adapters.benchmarks.maintenance.pack_weights import pack_file
from cl_adapters.vit import embedded
from cl_adapters.vit.packing import unpack_halves


def test_the_shipped_file_is_what_packing_its_weights_gives(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(embedded.embedded_weights())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == embedded.embedded_card()["sha256"]
    shipped = Path(embedded.__file__).parent / "weights" / f"{embedded.EMBEDDED}.halves"
    packed = pack_file(path).read_bytes()
    assert unpack_halves(packed) == path.read_bytes()
    # Another build of zlib may find other bytes for the same.
    assert len(packed) == pytest.approx(shipped.stat().st_size, rel=0.01)
