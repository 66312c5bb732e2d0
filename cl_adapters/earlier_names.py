"""Names that moved, for one version: an import of the old place works, and says the new one.

Modules that are gone are found by the import system's last finder, `install`; those that are still
there, as packages, ask `names_of` in a line of their own. Nothing is imported until an old name is
used.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

__all__ = ["EARLIER_NAMES", "earlier_method", "install", "look_up", "names_of"]

# Module as it was -> name there -> `module:name` of today.
EARLIER_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "cl_adapters.adapters": {
        "ACTIVATIONS": "cl_adapters.peft.bottleneck:ACTIVATIONS",
        "AdapterSet": "cl_adapters.peft.adapter_set:AdapterSet",
        "Bottleneck": "cl_adapters.peft.bottleneck:Bottleneck",
        "KeyValueLoRA": "cl_adapters.peft.lora:KeyValueLoRA",
        "PARALLEL": "cl_adapters.peft.registry:PARALLEL",
        "PETS": "cl_adapters.peft.registry:PEFTS",
        "PET_NAMES": "cl_adapters.peft.registry:PEFT_NAMES",
        "Pet": "cl_adapters.peft.registry:Peft",
        "Prefix": "cl_adapters.peft.prefix:Prefix",
        "Slot": "cl_adapters.peft.adapter_set:Slot",
        "as_pet": "cl_adapters.peft.registry:as_peft",
        "build_pets": "cl_adapters.peft.registry:build_adapters",
        "find_pet": "cl_adapters.peft.registry:find_peft",
    },
    "cl_adapters.alignment": {
        "Alignment": "cl_adapters.heads.alignment:Alignment",
        "align_head": "cl_adapters.heads.alignment:align_head",
    },
    "cl_adapters.backbone": {
        "AdaptedViT": "cl_adapters.vit.adapted_vit:AdaptedViT",
        "prefix_attention": "cl_adapters.vit.slots:prefix_attention",
    },
    "cl_adapters.bank": {
        "AdapterBank": "cl_adapters.peft.bank:AdapterBank",
        "AdapterStack": "cl_adapters.peft.stack:AdapterStack",
    },
    "cl_adapters.battery": {
        "run_battery": "cl_adapters.plugins.conformance:run_suite",
    },
    "cl_adapters.benchmarks.data.decoding": {
        "FORMATS": "cl_adapters.images.decoding:FORMATS",
        "MAX_RATIO": "cl_adapters.images.decoding:MAX_RATIO",
        "NOTES": "cl_adapters.images.decoding:NOTES",
        "Pixels": "cl_adapters.images.decoding:Pixels",
        "SUFFIXES": "cl_adapters.images.decoding:SUFFIXES",
        "decode": "cl_adapters.images.decoding:decode",
        "decode_image": "cl_adapters.images.decoding:decode_image",
        "decode_picture": "cl_adapters.images.decoding:decode_picture",
        "noted": "cl_adapters.images.decoding:noted",
        "shorter_side": "cl_adapters.images.decoding:shorter_side",
    },
    "cl_adapters.benchmarks.data.stripping": {
        "without_metadata": "cl_adapters.images.stripping:without_metadata",
    },
    "cl_adapters.benchmarks.data.transforms": {
        "INPUT_RANGES": "cl_adapters.images.transforms:INPUT_RANGES",
        "PIPELINES": "cl_adapters.images.transforms:PIPELINES",
        "PIXELS_VERSION": "cl_adapters.images.transforms:PIXELS_VERSION",
        "Preprocess": "cl_adapters.images.transforms:Preprocess",
        "RATIO": "cl_adapters.images.transforms:RATIO",
        "Triple": "cl_adapters.images.transforms:Triple",
        "crop_box": "cl_adapters.images.transforms:crop_box",
        "pipeline_settings": "cl_adapters.images.transforms:pipeline_settings",
    },
    "cl_adapters.checks": {
        "ADAPTER_CHECKS": "cl_adapters.vit.checks:ADAPTER_CHECKS",
        "check_adapter": "cl_adapters.vit.checks:check_adapter",
        "tiny_backbone": "cl_adapters.vit.checks:tiny_backbone",
    },
    "cl_adapters.discriminant": {
        "LinearDiscriminant": "cl_adapters.heads.discriminant:LinearDiscriminant",
    },
    "cl_adapters.embedded": {
        "EMBEDDED": "cl_adapters.vit.names:EMBEDDED",
        "check_embedded_file": "cl_adapters.vit.embedded:check_embedded_file",
        "embedded_card": "cl_adapters.vit.embedded:embedded_card",
        "vit_pico_patch4_32": "cl_adapters.vit.embedded:vit_pico_patch4_32",
    },
    "cl_adapters.expandable": {
        "ExpandableSlot": "cl_adapters.peft.routing:ExpandableSlot",
        "ExpandableViT": "cl_adapters.vit.expandable:ExpandableViT",
        "RouterKind": "cl_adapters.peft.routing:RouterKind",
    },
    "cl_adapters.gaussians": {
        "ClassGaussians": "cl_adapters.heads.gaussians:ClassGaussians",
        "FLOOR": "cl_adapters.heads.fitting:FLOOR",
        "Statistics": "cl_adapters.heads.fitting:Statistics",
    },
    "cl_adapters.growth": {
        "Budget": "cl_adapters.peft.growth:Budget",
        "POLICIES": "cl_adapters.peft.growth:POLICIES",
        "Policy": "cl_adapters.peft.growth:Policy",
        "blocks_to_grow": "cl_adapters.peft.growth:blocks_to_grow",
    },
    "cl_adapters.heads": {
        "AdaptedClassifier": "cl_adapters.vit.classifier:AdaptedClassifier",
        "CosineLinear": "cl_adapters.heads.cosine:CosineLinear",
        "ExperienceHeads": "cl_adapters.heads.linear:ExperienceHeads",
        "UNSEEN_LOGIT": "cl_adapters.heads.linear:UNSEEN_LOGIT",
        "cross_entropy_over": "cl_adapters.heads.linear:cross_entropy_over",
    },
    "cl_adapters.memo": {
        "Memo": "cl_adapters.cache.feature_cache:FeatureCache",
        "open_memo": "cl_adapters.cache.feature_cache:open_cache",
    },
    "cl_adapters.merging": {
        "PAPER_DECAY": "cl_adapters.peft.merging:PAPER_DECAY",
        "PAPER_STEPS": "cl_adapters.peft.merging:PAPER_STEPS",
        "auto_decay": "cl_adapters.peft.merging:auto_decay",
        "ema_update": "cl_adapters.peft.merging:ema_update",
        "merge_": "cl_adapters.peft.merging:merge_",
    },
    "cl_adapters.plugins": {
        "Entry": "cl_adapters.plugins.registry:Entry",
        "Registry": "cl_adapters.plugins.registry:Registry",
        "check_call": "cl_adapters.plugins.references:check_call",
        "is_reference": "cl_adapters.plugins.references:is_reference",
        "label": "cl_adapters.plugins.references:label",
        "source_digest": "cl_adapters.plugins.digests:source_digest",
        "source_digests": "cl_adapters.plugins.digests:source_digests",
    },
    "cl_adapters.pretrained": {
        "BACKBONE_NAMES": "cl_adapters.vit.pretrained:BACKBONE_NAMES",
        "PretrainedViT": "cl_adapters.vit.pretrained:PretrainedViT",
        "RANDOM_WEIGHTS": "cl_adapters.vit.pretrained:RANDOM_WEIGHTS",
        "frozen_backbone": "cl_adapters.vit.pretrained:frozen_backbone",
        "load_backbone": "cl_adapters.vit.pretrained:load_backbone",
        "state_digest": "cl_adapters.vit.pretrained:state_digest",
    },
    "cl_adapters.prototypes": {
        "PrototypeHead": "cl_adapters.heads.prototypes:PrototypeHead",
    },
    "cl_adapters.records": {
        "check_format": "cl_adapters.records.files:check_format",
        "check_seal": "cl_adapters.records.files:has_valid_checksum",
        "check_whole": "cl_adapters.records.run_record:verify_checksum",
        "seal": "cl_adapters.records.files:add_checksum",
    },
    "cl_adapters.retrieval": {
        "Retrieval": "cl_adapters.peft.retrieval:Retrieval",
        "retrieve": "cl_adapters.peft.retrieval:retrieve",
    },
    "cl_adapters.ridge": {
        "RidgeHead": "cl_adapters.heads.ridge:RidgeHead",
        "STRENGTHS": "cl_adapters.heads.ridge:STRENGTHS",
        "choose_strength": "cl_adapters.heads.ridge:choose_strength",
    },
    "cl_adapters.strategies.base": {
        "AdapterStrategy": "cl_adapters.strategies.core.strategy:AdapterStrategy",
        "EXPLODED": "cl_adapters.strategies.core.loss_guard:EXPLODED",
        "Phase": "cl_adapters.strategies.core.output:Phase",
        "TemplateArgs": "cl_adapters.strategies.core.arguments:TemplateArgs",
        "classes_of": "cl_adapters.strategies.core.labels:classes_of",
    },
    "cl_adapters.strategies.checks": {
        "STRATEGY_CHECKS": "cl_adapters.strategies.checks.suite:STRATEGY_CHECKS",
        "check_strategy": "cl_adapters.strategies.checks.suite:check_strategy",
    },
    "cl_adapters.strategies.config": {
        "AnyHeadConfig": "cl_adapters.strategies.core.head_options:AnyHeadConfig",
        "BlockPetConfig": "cl_adapters.strategies.core.config:BlockPeftConfig",
        "ClosedHead": "cl_adapters.heads.registry:ClosedHead",
        "ClosedHeadConfig": "cl_adapters.strategies.core.config:ClosedHeadConfig",
        "PetConfig": "cl_adapters.strategies.core.config:PeftConfig",
        "StrategyConfig": "cl_adapters.strategies.core.config:StrategyConfig",
        "TrainedConfig": "cl_adapters.strategies.core.config:TrainedConfig",
        "TrainedHeadConfig": "cl_adapters.strategies.core.config:TrainedHeadConfig",
    },
    "cl_adapters.strategies.frozen": {
        "Batches": "cl_adapters.strategies.core.batches:Batches",
        "ChosenRows": "cl_adapters.strategies.core.feature_cache:CachedAdapterFeatures",
        "FrozenChoice": "cl_adapters.strategies.core.extractors:AdapterFeatureExtractor",
        "FrozenPart": "cl_adapters.strategies.core.extractors:FeatureExtractor",
        "FrozenRows": "cl_adapters.strategies.core.feature_cache:CachedFeatures",
        "part_digest": "cl_adapters.strategies.core.extractors:extractor_digest",
    },
    "cl_adapters.strategies.probes": {
        "bytes_held": "cl_adapters.strategies.checks.probes:bytes_held",
        "changed": "cl_adapters.strategies.checks.probes:changed",
        "global_settings": "cl_adapters.strategies.checks.probes:global_settings",
        "module_parts": "cl_adapters.strategies.checks.probes:module_parts",
        "same_bits": "cl_adapters.strategies.checks.probes:same_bits",
    },
    "cl_adapters.strategies.resuming": {
        "IndexBatches": "cl_adapters.strategies.core.loaders:IndexBatches",
        "Keeper": "cl_adapters.strategies.core.checkpointing:Checkpointer",
        "MisfitError": "cl_adapters.strategies.core.checkpointing:CheckpointMismatchError",
        "Point": "cl_adapters.strategies.core.checkpointing:TrainerState",
        "ResumablePlugin": "cl_adapters.strategies.core.checkpointing:ResumablePlugin",
        "ShuffledBatches": "cl_adapters.strategies.core.samplers:ResumableBatchSampler",
        "ShuffledParts": "cl_adapters.strategies.core.samplers:ResumableIndexSampler",
        "SkippableBatches": "cl_adapters.strategies.core.samplers:ResumableSampler",
        "load_optimizer": "cl_adapters.strategies.core.checkpointing:load_optimizer",
        "optimizer_tensors": "cl_adapters.strategies.core.checkpointing:optimizer_tensors",
    },
    "cl_adapters.strategies.trial": {
        "EXPERIENCES": "cl_adapters.strategies.checks.trial:EXPERIENCES",
        "Run": "cl_adapters.strategies.checks.trial:Run",
        "TinyStream": "cl_adapters.strategies.checks.trial:TinyStream",
        "Trial": "cl_adapters.strategies.checks.trial:Trial",
        "copied": "cl_adapters.strategies.checks.trial:copied",
    },
    "cl_adapters.strategies.usage": {
        "RouterUsage": "cl_adapters.strategies.core.diagnostics:RouterUsage",
        "Votes": "cl_adapters.strategies.core.diagnostics:Votes",
    },
    "cl_adapters.strategies.views": {
        "FixedViews": "cl_adapters.strategies.core.views:FixedViews",
        "Views": "cl_adapters.strategies.core.views:Views",
    },
    "cl_adapters.toml_text": {
        "toml_lines": "cl_adapters.records.toml:toml_lines",
    },
}


def look_up(module: str, name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """Returns what an old name stands for, and says where it is now.

    Args:
        module: The module as it was.
        name: The name in it.

    Raises:
        AttributeError: If there was no such name.
    """
    place = EARLIER_NAMES.get(module, {}).get(name)
    if place is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    new_module, _, new_name = place.partition(":")
    warnings.warn(
        f"{module}.{name} is now {new_module}.{new_name}", DeprecationWarning, stacklevel=3
    )
    return getattr(importlib.import_module(new_module), new_name)


def names_of(module: str) -> Callable[[str], Any]:
    """Returns the `__getattr__` of a module that is still there but has lost names."""

    def earlier(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
        value = look_up(module, name)
        setattr(sys.modules[module], name, value)  # so that each name is told of once
        return value

    return earlier


class _Finder:
    """Finds the modules that are gone, after everything else has been asked."""

    @staticmethod
    def find_spec(
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG004 - as every finder's
        target: ModuleType | None = None,  # noqa: ARG004
    ) -> ModuleSpec | None:
        if name not in EARLIER_NAMES:
            return None
        return ModuleSpec(name, _Loader())


class _Loader(Loader):
    """Makes a module that knows only where its names are now."""

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Leaves it to the import system to make an empty one."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Gives the module its names."""
        module.__doc__ = "Names that moved; see `cl_adapters.earlier_names`."
        vars(module)["__getattr__"] = names_of(module.__name__)


def install() -> None:
    """Lets the modules of the table be imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def earlier_method(old: str, new: str) -> Callable[..., Any]:
    """Returns a method under its earlier name, which says today's and does the same.

    Example:
        >>> class Head:
        ...     def add_classes(self, count):
        ...         return count + 1
        ...     grow = earlier_method("grow", "add_classes")
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warnings.simplefilter("always")
        ...     Head().grow(2), str(told[0].message)
        (3, 'Head.grow is now add_classes')
    """

    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        message = f"{type(self).__name__}.{old} is now {new}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(self, new)(*arguments, **keywords)

    return call
