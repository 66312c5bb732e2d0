"""Frozen backbones by name: the embedded one, timm tags, and local weight files.

A name is `architecture.tag` as in timm, because one architecture has many checkpoints and timm has
changed which of them the bare name means (`vit_base_patch16_224` was `augreg_in21k_ft_in1k` before
timm 0.9.8 and is `augreg2_in21k_ft_in1k` since). A bare name is resolved to an explicit tag and the
caller is told. Every set of weights has a digest over its tensors, which goes into the run record.
"""

import copy
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

import timm
import torch
from timm.models import _registry, get_pretrained_cfg, split_model_name_tag
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from cl_adapters.errors import InputError, unknown_name
from cl_adapters.finiteness import refuse_odd_weights
from cl_adapters.paths import user_path
from cl_adapters.plugins.registry import Registry, check_call
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.embedded import EMBEDDED, check_embedded_file
from cl_adapters.vit.emoe import Experts
from cl_adapters.vit.weight_files import load_weights

__all__ = [
    "BACKBONE_NAMES",
    "RANDOM_WEIGHTS",
    "PretrainedViT",
    "are_weights_cached",
    "check_weights_are_there",
    "frozen_backbone",
    "license_of",
    "load_backbone",
    "state_digest",
]

RANDOM_WEIGHTS: Final = "random"
_WEIGHT_FILES: Final = ("model.safetensors", "pytorch_model.bin")  # of timm's hub
# timm's own table, for which it has no public name.
_OLD_NAMES: Final[Mapping[str, str]] = getattr(_registry, "_deprecated_models", {})


@dataclass(frozen=True)
class PretrainedViT:
    """A frozen backbone and where it came from.

    Attributes:
        model: The network.
        name: Architecture and explicit tag.
        weights: `embedded`, `random`, `timm`, or the path of the file.
        digest: SHA-256 over all tensors, first 16 hex digits (`state_digest`), and over the experts
            if its MLPs have any.
        mean: Channel means that the weights expect, for pixels in [0, 1].
        std: Channel standard deviations that the weights expect.
        notices: Sentences that the user should read, such as how a bare name was resolved.
    """

    model: AdaptedViT
    name: str
    weights: str
    digest: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    notices: tuple[str, ...] = ()


def state_digest(module: nn.Module) -> str:
    """Returns the first 16 hex digits of the SHA-256 over a module's tensors, by sorted name.

    The digest does not depend on the file format that the weights came from.
    """
    sha = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        sha.update(plain.view(torch.uint8).numpy().data if plain.ndim else plain.numpy().tobytes())
    return sha.hexdigest()[:16]


def frozen_backbone(
    vit: nn.Module,
    name: str,
    *,
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
    std: tuple[float, float, float] = (0.5, 0.5, 0.5),
) -> PretrainedViT:
    """Returns a timm `VisionTransformer` of one's own, with its weights, as a frozen backbone.

    Args:
        vit: The network, without a classifier (`num_classes=0`).
        name: What it is called in records.
        mean: Channel means that the weights expect, for pixels in [0, 1].
        std: Channel standard deviations that the weights expect.

    Raises:
        InputError: If the network is not a `VisionTransformer` of plain pre-norm blocks, or a
            weight is not finite.
    """
    model = AdaptedViT(vit)
    numbers = {name: each for name, each in vit.state_dict().items() if each.is_floating_point()}
    refuse_odd_weights(numbers, f"weights of {name!r}")
    vit.float()
    return PretrainedViT(model, name, name, state_digest(vit), mean, std)


def _accept(value: object) -> Callable[..., PretrainedViT]:
    check_call(value, image_size=None)
    return cast("Callable[..., PretrainedViT]", value)


BACKBONE_NAMES: Final = Registry[Callable[..., PretrainedViT]](
    "backbone", "cl_adapters.backbones", {}, _accept
)


def _plugged_in(name: str, weights: str | Path | None, image_size: int | None) -> PretrainedViT:
    if weights is not None:
        raise InputError(f"weights of backbone {name!r} are its own, got {str(weights)!r}")
    loaded = BACKBONE_NAMES.find(name)(image_size=image_size)
    if not isinstance(loaded, PretrainedViT):
        raise InputError(f"backbone {name!r} must return a PretrainedViT, got {loaded!r}")
    return loaded


def load_backbone(
    name: str,
    *,
    weights: str | Path | None = None,
    image_size: int | None = None,
    seed: int = 0,
    emoe: str | None = None,
) -> PretrainedViT:
    """Builds a frozen backbone with its weights.

    Args:
        name: timm architecture with tag, such as `vit_tiny_patch16_224.augreg_in21k_ft_in1k`, or
            the embedded `vit_pico_patch4_32`, or a function of one's own that takes
            `image_size` (`file.py:name`, or of an installed package). A bare architecture takes
            timm's default tag.
        weights: Path of a `.safetensors`, `.npz`, `.pt`, `.pth` or `.bin` file; `random` for
            untrained weights drawn with `seed`; None for the weights that the name stands for
            (embedded in the package, else from timm's hub, which needs the network).
        image_size: Side of the square input in pixels; None takes the size of the pretraining.
            Position embeddings are resampled.
        seed: Seed of random weights. Torch's global state is left as it was.
        emoe: Experts that its MLPs choose among, as `cl_adapters.vit.emoe` reads them.

    Raises:
        InputError: If the name is unknown, the file is missing, cannot be read safely or does not
            fit, the size does not fit the patches, or the experts do not fit the network.
    """
    if emoe is not None:
        experts = Experts.parse(emoe)
        plain = load_backbone(name, weights=weights, image_size=image_size, seed=seed)
        return _with_experts(plain, experts)
    if name in BACKBONE_NAMES:
        return _plugged_in(name, weights, image_size)
    architecture, tag, notices = _resolve(name)
    full_name = f"{architecture}.{tag}" if tag else architecture
    config = get_pretrained_cfg(full_name)
    source = _source(full_name, weights)
    if source == "timm":  # refused, if it is to be, before anything is fetched
        AdaptedViT(_create(full_name, image_size, pretrained=False))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vit = _create(full_name, image_size, pretrained=source in {"embedded", "timm"})
    model = AdaptedViT(vit)
    if source not in {"embedded", "timm", RANDOM_WEIGHTS}:
        notices += load_weights(vit, user_path(source))
    elif source == "timm":
        refuse_odd_weights(vit.state_dict(), f"weights of {full_name!r}")
    vit.float()
    return PretrainedViT(
        model, full_name, source, state_digest(vit), tuple(config.mean), tuple(config.std), notices
    )


def _with_experts(backbone: PretrainedViT, experts: Experts) -> PretrainedViT:
    # The digest tells clusters too: on another machine rounding may make others of equal weights.
    sha = hashlib.sha256(f"{backbone.digest} {experts}".encode())
    vit = copy.deepcopy(backbone.model.vit)  # a plug-in may give one network to several runs
    for clusters in experts.install(vit):
        sha.update(clusters.numpy().tobytes())
    return replace(backbone, model=AdaptedViT(vit), digest=sha.hexdigest()[:16])


def check_weights_are_there(weights: str | None, owner: str) -> None:
    """Refuses a file of weights that is no longer where something had it.

    Args:
        weights: Its path; `random` and None name no file.
        owner: What had it, for the message.

    Raises:
        InputError: If there is none; says how to name another place.
    """
    if weights not in (None, RANDOM_WEIGHTS) and not user_path(str(weights)).exists():
        raise InputError(
            f"backbone of {owner} must find its weights, {weights!r}, but there is no such file "
            "any more; `--weights` (`weights=`) names where it is now"
        )


def are_weights_cached(name: str) -> bool:
    """Says whether timm's weights of a name lie on this machine already; nothing is fetched.

    Args:
        name: timm architecture with tag.
    """
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - comes with timm

    config = get_pretrained_cfg(name)
    repository, _, revision = (config.hf_hub_id or "").partition("@")
    files = [config.hf_hub_filename] if config.hf_hub_filename else _WEIGHT_FILES
    if repository and any(
        isinstance(try_to_load_from_cache(repository, file, revision=revision or None), str)
        for file in files
    ):
        return True
    file = (config.url or "").rpartition("/")[2]
    return bool(file) and (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file()


def license_of(name: str) -> str | None:
    """Returns the licence of the weights that a name stands for, as far as it is known.

    Example:
        >>> license_of("vit_tiny_patch16_224.augreg_in21k_ft_in1k")
        'apache-2.0'
    """
    if name.partition(".")[0] == EMBEDDED:
        return "apache-2.0"  # docs/model_card.md
    try:
        known = get_pretrained_cfg(name)
    except RuntimeError:  # no name of timm's
        return None
    found: str | None = getattr(known, "license", None)
    return found


def _resolve(name: str) -> tuple[str, str, tuple[str, ...]]:
    # Old names of timm's, which it still makes, without the weights' mean and spread.
    now = _OLD_NAMES.get(name, name)
    if now != name:
        architecture, tag = split_model_name_tag(now)
        return (
            architecture,
            tag,
            (f"backbone {name!r} is called {now!r} by timm now, and taken so",),
        )
    architecture, tag = split_model_name_tag(name)
    if not timm.is_model(architecture):
        raise unknown_name(
            "backbone", name, [EMBEDDED, *timm.list_models("*vit_*", pretrained=True)]
        )
    tags = [full.partition(".")[2] for full in timm.models.get_arch_pretrained_cfgs(architecture)]
    if tag:
        if tag not in tags:
            raise unknown_name(f"tag of {architecture}", tag, tags)
        return architecture, tag, ()
    tag = tags[0] if tags else ""
    if len(tags) < 2:
        return architecture, tag, ()
    notice = (
        f"backbone {name!r} names {len(tags)} sets of weights; taken as {architecture}.{tag}, "
        f"the default of timm {timm.__version__} (other versions may mean another)"
    )
    return architecture, tag, (notice,)


def _source(full_name: str, weights: str | Path | None) -> str:
    if weights is None:
        embedded = full_name.partition(".")[0] == EMBEDDED
        if embedded:
            check_embedded_file()
        return "embedded" if embedded else "timm"
    if str(weights) == RANDOM_WEIGHTS:
        return RANDOM_WEIGHTS
    if not user_path(weights).is_file():
        raise InputError(f"weights must be 'random' or an existing file, got {str(weights)!r}")
    return str(weights)


def _create(full_name: str, image_size: int | None, *, pretrained: bool) -> nn.Module:
    size = {} if image_size is None else {"img_size": image_size}
    try:
        with _quiet_hub():
            vit: nn.Module = timm.create_model(
                full_name, pretrained=pretrained, num_classes=0, **size
            )
    except TypeError as error:  # an architecture without `img_size` is not a ViT
        raise InputError(
            f"backbone {full_name!r} must be a timm VisionTransformer: {error}"
        ) from error
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"weights of {full_name!r} must be given as a local file where timm's hub cannot be "
            f"reached; the hub said: {reason}"
        ) from error
    if isinstance(vit, VisionTransformer) and image_size is not None:
        patch = vit.patch_embed.patch_size[0]
        if image_size % patch:
            raise InputError(
                f"`image_size` must be a multiple of the patch size {patch}, got {image_size}"
            )
    return vit


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Drops what timm's hub says at each of its retries: where all fail, one sentence follows."""
    hub = logging.getLogger("huggingface_hub")
    before = hub.level
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        hub.setLevel(before)
