"""Hypothesis strategies for recipes, options of methods and command lines, sound and odd."""

import math
import re
from typing import Any, Final

from hypothesis import strategies as st

from cl_adapters.benchmarks.running.recipe import RECIPE_KEYS
from cl_adapters.benchmarks.running.recipe_parts import PART_KEYS, SCENARIOS, TaskFree
from cl_adapters.strategies import STRATEGIES

__all__ = ["command_lines", "means_the_same", "options_of", "recipes"]

# Numbers as people type them, and as slips of the finger make them.
NUMBERS: Final = (
    "0", "1", "2", "3", "7", "-1", "-0", "0.5", "0.1", "1.0", "2.7", "1e-3", "1e3", "1e400", "-1e400",
    "nan", "inf", "-inf", "Infinity", "1_000", "0x10", "0b1", "007", "+3", " 3", "3 ", "3,5", "1/2",
    "50%", "1e", ".5", "5.", "--1", "\uff13", "\u0663", "\u00b2", "9" * 20, "9" * 400, "1e-400", "4294967296",
    "2147483648", "-2147483649", "1e308", "three", "1 2", "1;2", "1\n2", "3j", "true", "none",
)  # fmt: skip
TEXTS: Final = (
    "", " ", "a", "lae", "mos,sema", "simplecil", ",", "=", "none", "None", "null", "true", "False",
    "[red]", "[/red]", "[/]", "\x1b[31mred", "../..", "~", "~nobody/x", "a:b", "a/b:c", "x" * 300,
    "x" * 5000, "cr\u00e8me", "cre\u0300me", "\U0001f41d", "\u202eabc", "a\nb", "a\tb", "b\udcff", "{}", "[]",
    "{'a': 1}", "$HOME", "%s", "{0}", "\\", "'", '"', "-", "--", "-x", "natural", "seeded", "0,1,2",
    "3,0,1,2,4,5", "0,0,1", "cpu", "cuda:99", "meta", "auto", "class", "domain", "blurry", "shift",
    "repetition", "long_tailed", "class_domain", "datasets", "crop", "plain", "pilot", "lae", "imagenet", "ks",
    "mmd", "adwin", "adapter", "lora", "prefix", "digits", "digits-shift", "fp32", "bf16", "random",
    "official", "mine.py:Mine", "nowhere.py:Mine", "nowhere.module:X", "avalanche:Nothing",
)  # fmt: skip
_OTHERS: Final = st.sampled_from(
    [None, True, False, [], [1], ["a"], {}, {"a": 1}, 1.5, 2.0, 0.0, -0.0, 2**31, 2**64, 1e300]
)
values = (
    st.integers(-2, 9)
    | st.sampled_from(NUMBERS)
    | st.sampled_from(TEXTS)
    | _OTHERS
    | st.floats(0, 1, allow_subnormal=False)
)

# Most of each recipe is sound, so that what is odd in it is met by all that comes later.
_SOUND: Final[dict[str, tuple[Any, ...]]] = {
    "increment": (1, 2, 3, "2"),
    "first": (0, 1, 2),
    "blur": (0.0, 0.25),
    "seed": (0, 7, 2**32 - 1),
    "image_size": (16, 24, "16"),
    "emoe": ("4,2,0", "3,3,1,2"),
    "precision": ("fp32", "bf16"),
    "augment": ("none", "crop"),
    "crop_scale": (0.3, 1, 1.0),
    "fixed_views": (1, 2),
    "num_experiences": (2, 4),
    "changes": (0, 1),
    "recurring": (0, 1),
    "severity": (0.0, 0.5, 1),
    "class_order": ("natural", "seeded", "5,4,3,2,1,0"),
    "input_range": ("timm", "imagenet"),
    "validation": (0.2, 0.5),
    "max_classes": (3, "6"),
    "max_images_per_class": (2, 5),
    "fidelity": ("default", "official"),
    "threads": (1, 2),
}
# What would fetch, compile or fill the memory when it is sound.
_COSTLY: Final = ("compile", "backbone", "weights", "data", "stream", "strategy", "protocol")
_KEYS: Final = tuple(key for key in RECIPE_KEYS if key not in (*_COSTLY, "options", "plugins"))
_NAMED: Final = st.sampled_from(TEXTS + NUMBERS)


def _odd(name: str) -> st.SearchStrategy[Any]:
    return values.filter(_is_small) if name in ("image_size", "num_experiences") else values


def _is_small(value: Any) -> bool:
    try:
        return abs(float(value)) < 100 or not math.isfinite(float(value))
    except (TypeError, ValueError):
        return True


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    """The keys of a scenario, sound ones; one or two of them odd, now and then one unknown."""
    scenario = draw(st.sampled_from(sorted(SCENARIOS)))
    others = {
        key for key in PART_KEYS["scenario_keys"] if key not in SCENARIOS[scenario].model_fields
    }
    keys = [key for key in _KEYS if key not in others and key not in TaskFree.model_fields]
    sound = st.sampled_from([key for key in keys if key in _SOUND])
    names = draw(st.lists(sound, max_size=4, unique=True))
    found = {name: draw(st.sampled_from(_SOUND[name])) for name in names}
    found["scenario"] = scenario
    for name in draw(st.lists(st.sampled_from(keys), max_size=2)):
        found[name] = draw(_odd(name))
    if draw(st.integers(0, 9)) == 0:
        strange = [*TaskFree.model_fields, *others, "strategy", "protocol", "stream", "data"]
        found[draw(st.sampled_from(strange) | _NAMED)] = draw(values)
    return found


def options_of(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Options of a strategy: its own names, each with a value as text or as TOML has it."""
    fields = sorted(STRATEGIES[name].config_class.model_fields)
    names = st.sampled_from(fields) | st.sampled_from(fields) | _NAMED
    return st.dictionaries(names, values, max_size=3)


def means_the_same(given: Any, found: Any) -> bool:
    """Says whether a value that was taken is the one that was given, as a person reads it."""
    if isinstance(found, bool):
        return str(given).strip().lower() in _WORDS[found]
    if isinstance(found, int | float):
        number = None if isinstance(given, bool) else _number(given)
        if isinstance(found, float) and number is not None:
            number = float(str(number))  # as near as a float comes to a long whole number
        return number == found
    if isinstance(found, str):
        return isinstance(given, str) and given.strip() == found.strip()
    return bool(given == found)


def _number(given: Any) -> float | None:
    if isinstance(given, str):
        plain = r"\s*[+-]?(\d+(_\d+)*\.?\d*|\.\d+)(e[+-]?\d+)?\s*"
        is_plain = re.fullmatch(plain, given, flags=re.IGNORECASE | re.ASCII)
        if re.fullmatch(r"\s*[+-]?\d+\s*", given, flags=re.ASCII):
            return int(given)  # exact, however many digits it has
        return float(given) if is_plain else None
    return given if isinstance(given, int | float) else None


_WORDS: Final = {
    True: ("true", "1", "yes", "on", "y", "t", "1.0"),
    False: ("false", "0", "no", "off", "n", "f", "0.0", "-0.0"),
}


# What a command takes beside odd words: it neither fetches, measures nor trains for long.
_BASES: Final[dict[str, tuple[str, ...]]] = {
    "run": ("run", "--strategy", "simplecil", "--quiet", "--cache", "off", "--increment", "3"),
    "sweep": ("sweep", "--strategy", "simplecil", "--quiet", "--cache", "off", "--workers", "1"),
    "tune": ("tune", "--strategy", "lae", "--quiet", "--cache", "off", "--trials", "1"),
    "report": ("report",),
    "verify": ("verify",),
    "list": ("list",),
    "check": ("check",),
    "new": ("new",),
    "data": ("data", "inspect"),
    "doctor": ("doctor", "--weights"),
    "bench": ("bench",),
}
_WORDS_OF_COMMANDS: Final = (
    "--help", "--nonsense", "-h", "--", "strategies", "runs", "backbones", "detectors", "strategy",
    "stream", "detector", "adapter", "router", "odd.toml", "runs", "photos", "nothing.parquet", "w.pt",
)  # fmt: skip
# Whose sound values would fetch, measure or take long.
_COSTLY_OPTIONS: Final = frozenset({"--compile", "--backbone", "--weights", "--engine", "--jobs"})


@st.composite
def command_lines(draw: st.DrawFn, options: dict[str, list[str]]) -> list[str]:
    """A command with some of its options, each with a sound or an odd value, and odd words.

    Args:
        draw: Hypothesis'.
        options: Names of the options of each command.
    """
    command = draw(st.sampled_from(sorted(_BASES)))
    words = list(_BASES[command])
    texts = st.sampled_from(TEXTS + NUMBERS).filter(lambda text: "\0" not in text)
    known = [name for name in options[command] if name not in _COSTLY_OPTIONS]
    for name in draw(st.lists(st.sampled_from(known), max_size=3)) if known else []:
        key = name.removeprefix("--").replace("-", "_")
        sound = st.sampled_from([str(each) for each in _SOUND.get(key, ("1", "odd.toml", "lae"))])
        words += [name, draw(texts.filter(_is_small) | sound)]
    for _ in range(draw(st.integers(0, 2 if command in ("run", "sweep", "tune") else 3))):
        words.append(draw(texts | st.sampled_from(_WORDS_OF_COMMANDS)))
    return words
