"""Classes that no training label has: said before the run starts, and an error where class numbers may start at 1."""

from collections.abc import Sequence

from dataloaders.base import SegmentationDataset
from dataloaders.checks.counts import ClassCounts
from dataloaders.checks.layout import first_five
from dataloaders.checks.mend import COMMAND
from utils.distributed import print_main
from utils.errors import UserError


def check_absent(dataset: SegmentationDataset, counts: ClassCounts | None, allowed: Sequence[str] | None) -> None:
    """Print the classes that do not occur in the training labels and are not `allowed`. `counts` None: unknown.

    `allowed`: names or numbers of classes. Raises UserError for one that does not exist, and if class 0 of a user's
    own data does not occur and is not allowed, unless `allowed` is None: a resumed run was started with it.
    """
    permitted = class_numbers(dataset.classes, allowed or [])
    absent = [] if counts is None else [number for number, pixels in enumerate(counts.pixels) if not pixels]
    if 0 in absent and dataset.name == "folder" and allowed is not None and 0 not in permitted:
        raise UserError(
            f"no training label of {dataset.label_folder} has class 0, {dataset.classes[0]!r}: if the class numbers "
            f"start at 1, make a new folder by {COMMAND} with --first-id 1 (and --classes FILE without "
            f"{dataset.classes[0]!r} if that name has no number); if they start at 0, train with --allow-absent 0"
        )
    if unexpected := [number for number in absent if number not in permitted]:
        names = first_five([dataset.classes[number] for number in unexpected])
        print_main(f"note: {len(unexpected)} of {len(dataset.classes)} classes occur in no training label: {names}")


def class_numbers(classes: Sequence[str], given: Sequence[str]) -> set[int]:
    """The numbers of classes `given` by number or name. Raises UserError for one that does not exist."""
    numbers = {text: number for number, name in enumerate(classes) for text in (str(number), name)}
    for text in given:
        if text not in numbers:
            raise UserError(f"--allow-absent {text}: no class has this number or name; {len(classes)} classes: "
                            f"{first_five(classes)}")  # fmt: skip
    return {numbers[text] for text in given}
