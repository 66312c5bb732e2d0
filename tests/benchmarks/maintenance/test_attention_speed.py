"""Both ways of attention are timed, and they are two."""

from unittest import mock

from cl_adapters.benchmarks.maintenance.attention_speed import seconds
from cl_adapters.vit.attention import WrittenOut


def test_one_of_two_ways_is_written_out() -> None:
    with mock.patch.object(WrittenOut, "apply", side_effect=lambda query, key, value: query) as own:
        times = seconds(32, 1)
    assert min(times) > 0
    assert own.call_count == 7 * 12  # turns, blocks; of the written-out way alone
