"""Packs weights of half precision as the package ships them, beside the file they come from.

python -m cl_adapters.benchmarks.maintenance.pack_weights WEIGHTS.safetensors
"""

from pathlib import Path

import typer

from cl_adapters.vit.packing import pack_halves, unpack_halves

__all__ = ["pack_file"]


def pack_file(path: Path) -> Path:
    """Writes `path` packed, with the ending `.halves`, and returns the new path."""
    data = path.read_bytes()
    packed = pack_halves(data)
    if unpack_halves(packed) != data:
        raise RuntimeError(f"{path} must come back from its packed form as it was, and does not")
    target = path.with_suffix(".halves")
    target.write_bytes(packed)
    return target


def main(path: Path) -> None:
    """Packs a file and says where."""
    typer.echo(pack_file(path))


if __name__ == "__main__":
    typer.run(main)
