"""Batches are a function of seed and epoch, for any number of processes and micro-batches."""

import pytest

from dataloaders import ResumableBatchSampler
from dataloaders.sampler import resolve_accumulate
from utils.errors import UserError


def batches(epoch=0, first=0, **more) -> list[list[tuple[int, int]]]:
    sampler = ResumableBatchSampler(22, 4, **({"seed": 1} | more))
    sampler.set_position(epoch, first)
    result = list(sampler)
    assert len(result) == len(sampler)
    return result


def test_an_epoch_has_each_image_at_most_once_and_full_batches_only():
    keys = [key for batch in batches(epoch=2) for key in batch]
    assert len(keys) == len(set(keys)) == 20
    assert all(epoch == 2 and 0 <= index < 22 for epoch, index in keys)


def test_the_order_depends_on_seed_and_epoch_alone():
    indices = [[index for _, index in batch] for batch in batches(epoch=0)]
    assert batches(epoch=0) == batches(epoch=0)
    assert indices != [[index for _, index in batch] for batch in batches(epoch=1)]
    assert batches(epoch=0) != batches(epoch=0, seed=2)


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 2), (2, 2), (4, 1), (1, 4)])
def test_a_step_has_the_same_images_however_it_is_divided(world_size, accumulate):
    whole = batches(epoch=1)
    divided = [batches(epoch=1, rank=r, world_size=world_size, accumulate=accumulate) for r in range(world_size)]
    for step, batch in enumerate(whole):
        parts = [part for rank in divided for part in rank[step * accumulate : (step + 1) * accumulate]]
        assert {len(part) for part in parts} == {4 // (world_size * accumulate)}
        assert sorted(key for part in parts for key in part) == sorted(batch)


def test_processes_and_accumulation_divide_a_batch_alike():
    """So that the sums of one process have the bits of those of two."""
    micro_batches = batches(epoch=1, accumulate=2)
    for rank in range(2):
        assert batches(epoch=1, world_size=2, rank=rank) == micro_batches[rank::2]


def test_it_continues_in_the_middle_of_an_epoch():
    assert batches(epoch=3, first=2) == batches(epoch=3)[2:]
    assert batches(epoch=3, first=2, accumulate=2) == batches(epoch=3, accumulate=2)[4:]


def test_a_batch_that_cannot_be_divided_or_filled_is_an_error():
    with pytest.raises(UserError, match=r"`batch_size` 4 cannot be divided .* multiple of 3"):
        ResumableBatchSampler(22, 4, seed=1, world_size=3)
    with pytest.raises(UserError, match="3 training images are fewer than `batch_size` 4"):
        ResumableBatchSampler(3, 4, seed=1)


@pytest.mark.parametrize(
    ("accumulate", "batch_size", "num_processes", "is_independent", "expected"),
    [(1, 4, 1, True, 2), (1, 3, 1, True, 1), (1, 4, 2, True, 1), (1, 4, 1, False, 1), (4, 4, 1, True, 4)],
)
def test_one_process_divides_an_even_batch_of_independent_images_as_two_do(
    accumulate, batch_size, num_processes, is_independent, expected
):
    number = resolve_accumulate(
        accumulate, batch_size=batch_size, num_processes=num_processes, is_independent=is_independent
    )
    assert number == expected
