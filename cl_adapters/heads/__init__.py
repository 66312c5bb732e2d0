"""Classifiers and statistics of classes; they know no network.

`linear` and `cosine` are trained by gradient descent; `prototypes`, `discriminant` and `ridge` are
set in closed form; `registry` finds them by name. `least_squares` is what `ridge` and `truncated`
share. `gaussians` keeps what is left of images that are gone, `alignment` trains a head on it,
`unaligned` puts a head back. `class_to_task` says which experience a class belongs to.
"""

from typing import TYPE_CHECKING

from cl_adapters.earlier_names import names_of

if not TYPE_CHECKING:  # to a type checker, names that moved are gone
    __getattr__ = names_of(__name__)
