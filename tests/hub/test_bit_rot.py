"""A bit that flips on the disk is noticed or does no harm; ten thousand are tried by `python -m tests.bit_rot`."""

from tests.bit_rot import rot


async def test_a_flipped_bit_anywhere_is_told_or_harmless() -> None:
    counted, bad = await rot(400, seed=1)
    assert bad == []
    assert counted.total() == 400
    for kind in ("snapshots", "spool", "updates", "journal.sqlite"):
        assert counted[kind, "told"] > 10
    assert counted["spool", "harmless"] == counted["updates", "harmless"] == 0
