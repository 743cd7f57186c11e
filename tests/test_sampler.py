"""Batches as a function of seed and epoch, whatever the number of processes and parts."""

import pytest

from dataloaders import ResumableBatchSampler
from utils.errors import UserError


def batches(epoch=0, first=0, **more) -> list[list[tuple[int, int]]]:
    sampler = ResumableBatchSampler(22, 4, **({"seed": 1} | more))
    sampler.set_position(epoch, first)
    result = list(sampler)
    assert len(result) == len(sampler)
    return result


def test_an_epoch_shows_each_picture_once_and_drops_the_rest():
    keys = [key for batch in batches(epoch=2) for key in batch]
    assert len(keys) == len(set(keys)) == 20
    assert all(epoch == 2 and 0 <= index < 22 for epoch, index in keys)


def test_order_depends_on_seed_and_epoch_alone():
    indices = [[index for _, index in batch] for batch in batches(epoch=0)]
    assert batches(epoch=0) == batches(epoch=0)
    assert indices != [[index for _, index in batch] for batch in batches(epoch=1)]
    assert batches(epoch=0) != batches(epoch=0, seed=2)


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 2), (2, 2), (4, 1), (1, 4)])
def test_a_step_has_the_same_pictures_however_it_is_dealt(world, accumulate):
    whole = batches(epoch=1)
    dealt = [batches(epoch=1, rank=rank, world=world, accumulate=accumulate) for rank in range(world)]
    for step, batch in enumerate(whole):
        parts = [part for rank in dealt for part in rank[step * accumulate : (step + 1) * accumulate]]
        assert {len(part) for part in parts} == {4 // (world * accumulate)}
        assert sorted(key for part in parts for key in part) == sorted(batch)


def test_processes_and_parts_are_dealt_the_same_pictures():
    """So that one process can make the very sums of two."""
    parts = batches(epoch=1, accumulate=2)
    for rank in range(2):
        assert batches(epoch=1, world=2, rank=rank) == parts[rank::2]


def test_it_goes_on_in_the_middle_of_an_epoch():
    assert batches(epoch=3, first=2) == batches(epoch=3)[2:]
    assert batches(epoch=3, first=2, accumulate=2) == batches(epoch=3, accumulate=2)[4:]


def test_batches_that_cannot_be_dealt_are_refused():
    with pytest.raises(UserError, match="multiple of 3"):
        ResumableBatchSampler(22, 4, seed=1, world=3)
    with pytest.raises(UserError, match="3 training images are fewer than --batch-size 4"):
        ResumableBatchSampler(3, 4, seed=1)
