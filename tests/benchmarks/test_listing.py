"""The listing of strategies comes from a table that is what the classes say, and loads no torch."""

import json
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
import timm

from cl_adapters.benchmarks.listing import LISTINGS, WORDS, backbones, list_table
from cl_adapters.benchmarks.listing.methods import TABLE, live_methods
from cl_adapters.benchmarks.running.protocols import find_protocol, protocol_names
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.errors import EarlierNameWarning, InputError
from cl_adapters.heads.registry import CLOSED_HEADS, HEADS, TRAINED_HEADS
from cl_adapters.strategies import STRATEGIES
from cl_adapters.strategies.core.pieces import PIECES
from cl_adapters.vit.names import EMBEDDED, GOOD_BACKBONES
from cl_adapters.vit.pretrained import load_backbone


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_table_of_strategies_is_what_the_classes_say() -> None:
    table = json.loads((files("cl_adapters.strategies") / TABLE).read_text("utf-8"))
    live = live_methods()
    live["strategies"].pop("avalanche:GEM", None)  # needs a package that not everyone has
    assert table == live, "run: python docs/generate.py"


def test_listing_strategies_loads_no_torch() -> None:
    code = (
        "import sys\nfrom cl_adapters.cli import app\n"
        "try: app(['list', 'strategies'])\n"
        "except SystemExit: print([m for m in ('torch', 'avalanche') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"
    assert "avalanche:Replay" in result.stdout


def test_strategies_are_listed_with_every_option(tmp_path: Path) -> None:
    rows = list_table("strategies", tmp_path)
    assert set(STRATEGIES) <= {row[0] for row in rows}
    start = next(place for place, row in enumerate(rows) if row[0] == "lae")
    stop = next(place for place in range(start + 1, len(rows)) if rows[place][0])
    options = {row[1]: row[2] for row in rows[start + 1 : stop]}
    fields = STRATEGIES["lae"].config_class.model_fields
    assert options == {name: str(field.default) for name, field in fields.items()}


def test_relatives_are_named_by_what_they_share(tmp_path: Path) -> None:
    header, *rows = list_table("strategies", tmp_path, like="mos")
    assert header == ["strategy", "shares", "of", "meaning"]
    shared = {row[0]: set(row[1].split(", ")) for row in rows}
    own = set(STRATEGIES["mos"].pieces)
    for name in STRATEGIES:
        both = own & set(STRATEGIES[name].pieces)
        assert shared.get(name, set()) == (set() if name == "mos" else both), name
    assert shared["ease"] == {"prototypes", "sets"}
    assert "ranpac" not in shared
    counts = [len(shared[row[0]]) for row in rows]
    assert counts == sorted(counts, reverse=True)


def test_relatives_are_of_strategies_that_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown strategy 'moss'; did you mean 'mos'"):
        list_table("strategies", tmp_path, like="moss")
    with pytest.raises(
        InputError, match="`--like` must go with `list strategies`, got `list heads`"
    ):
        list_table("classifiers", tmp_path, like="mos")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_built_in_strategy_declares_pieces(name: str) -> None:
    assert STRATEGIES[name].pieces
    assert set(STRATEGIES[name].pieces) <= set(PIECES)


@pytest.mark.parametrize(
    ("word", "listing"),
    [
        ("methods", "strategies"),
        ("dataset", "streams"),
        ("setting", "protocols"),
        ("adapters", "peft"),
        ("adapter", "peft"),
        ("classifiers", "heads"),
        ("head", "heads"),
        ("router", "routers"),
        ("detector", "detectors"),
        ("growth", "policies"),
    ],
)
def test_a_listing_is_known_under_every_word(word: str, listing: str, tmp_path: Path) -> None:
    assert list_table(word, tmp_path) == list_table(listing, tmp_path)


def test_words_lead_to_listings_and_hide_none() -> None:
    assert set(WORDS.values()) == set(LISTINGS), "each has other words"
    assert WORDS.keys().isdisjoint(LISTINGS)
    # What `new` and `check` make and test, and their plurals.
    assert {"strategy", "detector", "adapter", "adapters", "router", "stream"} <= WORDS.keys()


def test_the_earlier_name_says_the_one_of_today(tmp_path: Path) -> None:
    with pytest.warns(EarlierNameWarning, match="listing 'pets' is now called 'peft'"):
        assert list_table("pets", tmp_path) == list_table("peft", tmp_path)


@pytest.mark.parametrize(
    ("wrong", "near"), [("strategys", "strategy"), ("adaptrs", "adapters"), ("clasifier", "classifier")]
)  # fmt: skip
def test_an_unknown_listing_is_refused_with_near_names(
    wrong: str, near: str, tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=f"unknown listing '{wrong}'; did you mean '{near}'"
    ) as got:
        list_table(wrong, tmp_path)
    assert str(got.value).endswith(f"Known: {', '.join(sorted(LISTINGS))}")


def test_every_head_is_listed_with_how_it_gets_its_weights(tmp_path: Path) -> None:
    _, *rows = list_table("heads", tmp_path)
    assert {row[0] for row in rows if "gradient" in row[1]} == set(TRAINED_HEADS)
    assert {row[0] for row in rows if "closed" in row[1]} == set(CLOSED_HEADS)
    assert set(HEADS) == {*TRAINED_HEADS, *CLOSED_HEADS}
    assert all(row[2] for row in rows)


# --- networks -----------------------------------------------------------------------------------


def test_networks_have_the_size_that_they_are_built_with(tmp_path: Path) -> None:
    rows = {row[0]: row for row in list_table("backbones", tmp_path)}
    # ViT-B/16 as Dosovitskiy et al. give it: 86 M.
    assert rows["vit_base_patch16_224.augreg_in21k"][1:3] == ["85.8 M", "224"]
    for name in (
        EMBEDDED,
        "vit_tiny_patch16_384.augreg_in21k_ft_in1k",
        "vit_small_patch14_dinov2.lvd142m",
    ):
        loaded = load_backbone(name, weights="random").model
        number = sum(each.numel() for each in loaded.vit.parameters())
        assert rows[name][1:3] == [f"{number / 10**6:.1f} M", str(loaded.input_shape[1])]


def test_the_table_of_networks_holds_all_that_timm_has() -> None:
    table = json.loads(
        (files("cl_adapters.benchmarks.listing") / backbones.TABLE).read_text("utf-8")
    )
    assert table.keys() >= {EMBEDDED, *timm.list_models("vit_*", pretrained=True)}


def test_a_network_that_the_table_has_not_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list_table("backbones", tmp_path)
    monkeypatch.setattr(backbones, "measure", lambda name: (7_000_000, 48))
    monkeypatch.setattr(
        timm, "list_models", lambda *_, **__: [*GOOD_BACKBONES, "vit_new.of_tomorrow"]
    )
    after = list_table("backbones", tmp_path)
    assert after[:4] == before[:4]
    assert after[-1] == ["vit_new.of_tomorrow", "7.0 M", "48", "timm"]


def test_networks_that_no_run_can_stand_on_are_left_out(tmp_path: Path) -> None:
    names = [row[0] for row in list_table("backbones", tmp_path)]
    assert "vit_relpos_small_patch16_224.sw_in1k" not in names
    with pytest.raises(InputError, match="must be a timm VisionTransformer"):
        load_backbone("vit_relpos_small_patch16_224.sw_in1k", weights="random")
    assert backbones.measure("vit_relpos_small_patch16_224.sw_in1k") is None
    assert backbones.measure("vit_tiny_patch16_224.augreg_in21k") == (5_524_416, 224)


def test_good_networks_stand_first_and_say_for_what(tmp_path: Path) -> None:
    _, *rows = list_table("backbones", tmp_path)
    marked = [row[0] for row in rows if "good for" in row[3]]
    assert marked == [row[0] for row in rows[: len(marked)]] == list(GOOD_BACKBONES)
    assert marked[0] == EMBEDDED == RunConfig(strategy="lae").backbone
    named = Counter(find_protocol(each).backbones[0] for each in protocol_names())
    assert named.most_common(1)[0][0] in marked, "that of most published settings"
    assert len(names := [row[0] for row in rows]) == len(set(names))
