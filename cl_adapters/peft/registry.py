"""Kinds of PEFT modules, by name."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import SLOTS, AdapterSet, Slot, Slots, slots_of
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.peft.site import SiteOf
from cl_adapters.plugins.registry import Registry
from cl_adapters.plugins.tables import load

__all__ = ["PARALLEL", "PEFTS", "PEFT_NAMES", "Peft", "as_peft", "build_adapters", "find_peft"]


@dataclass(frozen=True)
class Peft:
    """A kind of PEFT module.

    Attributes:
        slot: Where it goes; a tuple where one module fills several slots.
        default_size: Width, rank or length.
        make: From `embed_dim`, size and a generator of initial weights to a module; with the
            keyword `sites`, a `Site` by slot, where the kind asks for it, and with its options.
        options: Names of what `make` takes besides.
        takes_sites: Whether it asks where in the network it stands.
        source: Where it was published, in a few words.
        make_all: From `embed_dim`, size, generator and `blocks`, a number, to the modules of all of
            these blocks, which share weights; None for a kind whose blocks share none.
        only_plain: Why no stack, bank or router can hold modules of this kind, the end of a
            sentence; empty where they can.
        fits_one_set: Whether a stack can hold them all the same that begins once and never anew.
    """

    slot: Slots
    default_size: int
    make: Callable[..., nn.Module]
    options: tuple[str, ...] = ()
    takes_sites: bool = False
    source: str = ""
    make_all: Callable[..., list[nn.Module]] | None = None
    only_plain: str = ""
    fits_one_set: bool = False

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The slots that one module fills."""
        return slots_of(self.slot)

    @property
    def takes_tokens(self) -> bool:
        """Whether a module is called with the tokens of the stream, and with nothing else."""
        return self.slot in {"attention", "key_value", "mlp"}

    def build_all(
        self,
        embed_dim: int,
        size: int | None,
        generator: torch.Generator,
        *,
        blocks: Sequence[int],
        site_of: SiteOf | None = None,
    ) -> list[nn.Module]:
        """Returns a new module for each of some blocks.

        Args:
            embed_dim: D, width of the stream.
            size: Width, rank or length; None takes the kind's own.
            generator: Source of the initial weights.
            blocks: The blocks.
            site_of: What says where slots of a network stand.

        Raises:
            InputError: As `build`.
        """
        if self.make_all is not None:
            width = self.default_size if size is None else size
            return self.make_all(embed_dim, width, blocks=len(blocks), generator=generator)
        places = [None if site_of is None else (site_of, block) for block in blocks]
        return [self.build(embed_dim, size, generator, place=each) for each in places]

    def check_holder(self, holder: str, *, begins_once: bool = False) -> None:
        """Raises `InputError` if modules cannot stand where sets are stored or mixed.

        Args:
            holder: What wants to hold them, as it is called in a sentence.
            begins_once: Whether it is a stack that begins once and never anew.
        """
        if self.only_plain and not (begins_once and self.fits_one_set):
            raise InputError(f"{holder} must hold another kind of PEFT module: {self.only_plain}")

    def build(
        self,
        embed_dim: int,
        size: int | None,
        generator: torch.Generator,
        *,
        place: tuple[SiteOf, int] | None = None,
        **options: object,
    ) -> nn.Module:
        """Returns a new module.

        Args:
            embed_dim: D, width of the stream.
            size: Width, rank or length; None takes the kind's own.
            generator: Source of the initial weights.
            place: What says where slots of a network stand, and the block.
            **options: Those that the kind does not take are left out.

        Raises:
            InputError: If the size is not positive, or the kind asks for its place and none is
                given.
        """
        taken = {name: value for name, value in options.items() if name in self.options}
        if self.takes_sites:
            if place is None:
                raise InputError("a PEFT module that asks for its site must get one, got none")
            site_of, block = place
            taken["sites"] = {slot: site_of(slot, block) for slot in self.slots}
        return self.make(embed_dim, self.default_size if size is None else size, generator, **taken)


def _parallel(
    dim: int, size: int, generator: torch.Generator, *, scale: float = 1.0, dropout: float = 0.0
) -> Bottleneck:
    return Bottleneck(
        dim, size, activation="relu", scale=scale, dropout=dropout, generator=generator
    )


def _at(place: str, **options: object) -> Callable[..., nn.Module]:
    """Returns what makes a module that `file:Name` here names, imported when it is first made."""

    def make(dim: int, size: int, rng: torch.Generator, **others: object) -> nn.Module:
        made: nn.Module = load(f"cl_adapters.peft.{place}")(
            dim, size, generator=rng, **options, **others
        )
        return made

    return make


def _corda(*, freezes_down: bool) -> Peft:
    return Peft(
        "key_value",
        8,
        _at("corda:CorDA", freezes_down=freezes_down),
        takes_sites=True,
        source="Yang et al., NeurIPS 2024",
        only_plain="CorDA turns its factors after the first experience, which no stored set does",
    )


def _by_gradient(size: int, place: str, source: str, **options: object) -> Peft:
    why = "it sets itself by a gradient of the first experience, which no stored set is shown"
    made = _at(place, **options)
    return Peft(
        "key_value",
        size,
        made,
        takes_sites=True,
        source=source,
        only_plain=why,
        fits_one_set=True,
    )


def _shared(slot: Slot, size: int, place: str, source: str) -> Peft:
    def make_all(dim: int, size: int, **given: object) -> list[nn.Module]:
        made: list[nn.Module] = load(f"cl_adapters.peft.{place}")(dim, size, **given)
        return made

    def make(dim: int, size: int, rng: torch.Generator) -> nn.Module:
        return make_all(dim, size, blocks=1, generator=rng)[0]

    why = "its blocks share their weights"
    return Peft(slot, size, make, source=source, make_all=make_all, only_plain=why)


# SEMA's adapter, and MOS's but for its scale and dropout.
PARALLEL: Final = Peft(
    "mlp", 16, _parallel, options=("scale", "dropout"), source="Wang et al., CVPR 2025 (SEMA)"
)
_LAE: Final = "Gao et al., ICCV 2023 (LAE)"
_MOSA: Final = "Zhang et al., 2023, arXiv:2312.02923"
_SHIRA: Final = "Bhardwaj et al., NeurIPS 2024"
_MISS: Final = "Kang and Yin, 2024, arXiv:2409.15371"
_LORA: Final = "Hu et al., ICLR 2022"
_SERIES: Final = "Hu et al., EMNLP 2023 (LLM-Adapters)"
PEFTS: Final[dict[str, Peft]] = {
    "parallel": PARALLEL,
    "adapter": Peft("attention", 5, _at("bottleneck:Bottleneck"), source=_LAE),
    "lora": Peft("key_value", 5, _at("lora:KeyValueLoRA"), source=_LAE),
    "prefix": Peft("prefix", 10, _at("prefix:Prefix"), source=_LAE),
    "adaptformer": Peft(
        "mlp", 64, _at("adaptformer:adaptformer"), source="Chen et al., NeurIPS 2022"
    ),
    "miss": Peft("key_value", 16, _at("miss:MiSS"), source=_MISS),
    "miss_mini": Peft("key_value", 16, _at("miss:MiSS", repeats=4), source=_MISS),
    "bat": Peft("key_value", 16, _at("miss:Bat"), takes_sites=True, source=_MISS),
    "dylora": Peft("key_value", 8, _at("dylora:DyLoRA"), source="Valipour et al., EACL 2023"),
    "shira": Peft("key_value", 8, _at("shira:SHiRA"), source=_SHIRA),
    "shira_weight": Peft(
        "key_value", 8, _at("shira:SHiRA", mask="weight"), takes_sites=True, source=_SHIRA
    ),
    "shira_gradient": _by_gradient(8, "shira:SHiRA", _SHIRA, mask="gradient"),
    "shira_snip": _by_gradient(8, "shira:SHiRA", _SHIRA, mask="snip"),
    "onebit": Peft("mlp", 32, _at("onebit:OneBit"), source="Jie et al., ICCV 2023"),
    "mosa": Peft("mlp", 64, _at("mosa:MoSA"), source=_MOSA),
    "mosa_hierarchical": Peft("mlp", 64, _at("mosa:MoSA", shares_down=True), source=_MOSA),
    "vida": Peft(("qkv", "proj"), 128, _at("vida:ViDA"), source="Liu et al., ICLR 2024"),
    "compander": Peft(
        "mlp", 16, _at("compander:companded_bottleneck"), source="Cakaj et al., IJCNN 2023"
    ),
    "lora_qv": Peft("qkv", 8, _at("lora:ProjectionLoRA"), source=_LORA),
    "lora_mlp": Peft(
        ("fc1", "fc2"),
        8,
        _at("layer_lora:LayerLoRA", layers=("fc1", "fc2")),
        takes_sites=True,
        source=_LORA,
    ),
    "lora_all": Peft(
        ("qkv", "proj", "fc1", "fc2"),
        8,
        _at("layer_lora:LayerLoRA", layers=("query", "key", "value", "proj", "fc1", "fc2")),
        takes_sites=True,
        source=_LORA,
    ),
    "hydra": Peft(
        ("proj", "fc2"),
        2,
        _at("hydra:Hydra"),
        takes_sites=True,
        source="Kim et al., 2023, arXiv:2309.06922",
    ),
    "series": Peft(("proj", "fc2"), 16, _at("series:Series"), source=_SERIES),
    "series_mlp": Peft("fc2", 16, _at("series:Series", places=("fc2",)), source=_SERIES),
    "corda": _corda(freezes_down=False),
    "corda_frozen": _corda(freezes_down=True),
    "p_adapter": Peft(
        "attention_graph", 96, _at("p_adapter:PAdapter"), source="Wu et al., AAAI 2024"
    ),
    "tleg": _shared("mlp", 16, "tleg:on_a_line", "Xia et al., AAAI 2024"),
    "mos_shards": _shared(
        "key_value", 8, "mos_shards:mixtures_of_shards", "Wang et al., ICLR 2025 (MoS)"
    ),
    "lora_xs": Peft(
        "key_value",
        16,
        _at("lora_xs:LoRAXS"),
        takes_sites=True,
        source="Bałazy et al., 2024, arXiv:2405.17604",
    ),
    "lora_sb": _by_gradient(16, "lora_sb:LoRASB", "Ponkshe et al., 2024, arXiv:2411.19557"),
}


def as_peft(value: object) -> Peft:
    """Returns what a module class means as a kind of PEFT module.

    Args:
        value: An `nn.Module` class with the class attributes `slot`, or a tuple `slots`, and
            `default_size`, called as `Name(embed_dim, size, generator=generator)`, and with
            `sites`, a `Site` by slot, where its constructor has that keyword; or a `Peft`.

    Raises:
        InputError: If it is neither; the sentence begins with the rule.
    """
    if isinstance(value, Peft):
        return value
    slots, size = getattr(value, "slots", getattr(value, "slot", None)), _default_size(value)
    names = slots if isinstance(slots, tuple) and slots else (slots,)
    is_module = isinstance(value, type) and issubclass(value, nn.Module)
    if not is_module or size is None or any(name not in SLOTS for name in names):
        raise InputError(
            f"must be an nn.Module class with `slot`, one of {', '.join(SLOTS)}, and a "
            f"whole number `default_size`, got {value!r}"
        )
    kind = cast("Callable[..., nn.Module]", value)

    def make(dim: int, size: int, rng: torch.Generator, **sites: object) -> nn.Module:
        return kind(dim, size, generator=rng, **sites)

    takes_sites = "sites" in inspect.signature(kind).parameters
    return Peft(cast("Slots", slots), size, make, takes_sites=takes_sites)


def _default_size(value: object) -> int | None:
    size = getattr(value, "default_size", None)
    return size if isinstance(size, int) else None


PEFT_NAMES: Final = Registry("peft", "cl_adapters.adapters", PEFTS, as_peft)


def find_peft(name: str) -> Peft:
    """Returns the kind of a name: built in, `file.py:Name`, or of an installed package.

    `as_peft` says what a module class of one's own must be.

    Raises:
        InputError: If there is none; near names are suggested.
    """
    return PEFT_NAMES.find(name)


def build_adapters(
    name: str,
    *,
    embed_dim: int,
    blocks: Sequence[int],
    size: int | None = None,
    generator: torch.Generator,
    sites: SiteOf | None = None,
) -> AdapterSet:
    """Builds LAE's modules: one of the named kind in each block (methods of LAE, section 4.1).

    Args:
        name: `adapter` (beside attention, GELU), `lora` (on K and V), `prefix`, `parallel` (beside
            the MLP, ReLU), another of `PEFTS`, or one of the user's, see `find_peft`.
        embed_dim: D, width of the stream.
        blocks: The blocks that get one; LAE uses the first five.
        size: Width, rank or length; None takes the kind's own.
        generator: Source of the initial weights.
        sites: The network's `site`, for kinds that ask where they stand.

    Raises:
        InputError: If the name is unknown or the size is not positive.
    """
    peft = find_peft(name)
    modules = peft.build_all(embed_dim, size, generator, blocks=blocks, site_of=sites)
    return AdapterSet(
        {(peft.slot, block): each for block, each in zip(blocks, modules, strict=True)}
    )
