"""--recipe: what it sets, that given flags win, and that a run keeps it."""

import json

import pytest
from running import error_line, in_process

from config.from_file import with_config
from config.recipes import NAMED, recipe
from config.resolve import with_defaults, with_recipe
from config.train_flags import train_parser
from utils.flags import parse


def resolved(*words: str):
    args, given = parse(train_parser(), list(words))
    return with_defaults(with_recipe(args, given))


@pytest.fixture
def data(folder_root):
    return ["--dataset", "folder", "--data-root", str(folder_root)]


def test_paper_is_the_default_and_changes_nothing():
    assert vars(resolved()) == vars(resolved("--recipe", "paper"))
    defaults = with_defaults(train_parser().parse_args([]))
    assert vars(resolved()) == vars(defaults) and not NAMED["paper"].flags


@pytest.mark.parametrize("name", NAMED)
def test_a_recipe_sets_its_flags_and_no_others(name):
    plain, args = vars(resolved("--dataset", "cityscapes")), vars(resolved("--dataset", "cityscapes", "--recipe", name))
    changed = {key: value for key, value in args.items() if value != plain[key]}
    expected = dict(NAMED[name].flags) | ({} if name == "paper" else {"recipe": name})
    if NAMED[name].epoch_share != 1:
        expected["epochs"] = round(NAMED[name].epoch_share * recipe("cityscapes").epochs)
    assert changed == expected and set(changed) <= {action.dest for action in train_parser()._actions}


@pytest.mark.parametrize("name", NAMED)
def test_the_values_of_a_recipe_are_what_their_flags_take(name):
    parser = train_parser()
    for key, value in NAMED[name].flags.items():
        (action,) = (action for action in parser._actions if action.dest == key)
        assert action.nargs == 0 or (action.type or str)(str(value)) == value


def test_given_flags_win():
    args = resolved("--recipe", "fast", "--loss-type", "focal", "--epochs", "9", "--class-uniform", "0")
    assert (args.loss_type, args.epochs, args.class_uniform) == ("focal", 9, 0.0)


def test_another_optimizer_has_its_own_learning_rate_and_decay():
    names = ("lr", "head_lr_factor", "weight_decay")
    plain, strong = resolved("--dataset", "folder"), ("--dataset", "folder", "--recipe", "strong")
    sgd, same = resolved(*strong, "--optimizer", "sgd"), resolved(*strong, "--optimizer", "adamw")
    assert sgd.loss_type == NAMED["strong"].flags["loss_type"]
    for name in names:
        assert getattr(sgd, name) == getattr(plain, name) and getattr(same, name) == NAMED["strong"].flags[name]


def test_a_flag_has_the_default_of_its_dataset():
    for dataset in ("pascal", "demo"):
        args, block = resolved("--dataset", dataset), recipe(dataset)
        assert (args.loss_type, args.class_uniform) == (block.loss_type, block.class_uniform)
    assert resolved("--dataset", "demo", "--loss-type", "ce").class_uniform == recipe("demo").class_uniform > 0


def test_a_config_older_than_a_flag_has_what_its_version_did(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"dataset": "demo", "backbone": "mobilenet", "loss_type": "ce", "commands": []}))
    args, given = parse(train_parser(), ["--config", str(file)])
    args = with_defaults(with_recipe(*with_config(args, given, train_parser())))
    assert (args.loss_type, args.class_uniform, args.optimizer, args.recipe) == ("ce", 0.0, "sgd", "paper")


def test_the_run_says_and_keeps_its_recipe(data, tmp_path, capsys):
    flags = ["--recipe", "strong", "--class-uniform", "0.25", "--no-val"]
    status, folder = in_process(data, tmp_path, *flags, "--epochs", "2", "--max-steps", "1")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("recipe "))
    strong = dict(NAMED["strong"].flags) | {"class_uniform": 0.25, "lr": 0.01}  # the latter by FAST
    assert status == 0 and line.startswith("recipe strong, ") and "--class-uniform 0.25" in line
    config = json.loads((folder / "config.json").read_text())
    assert {key: config[key] for key in strong} == strong and config["recipe"] == "strong"
    assert in_process(data, tmp_path, "--resume", "auto", "--no-val")[0] == 0
    assert line in capsys.readouterr().out
    assert in_process(data, tmp_path, "--resume", "auto", "--recipe", "paper")[0] == 2
    assert "--recipe paper contradicts the checkpoint's strong" in error_line(capsys.readouterr().err)


def test_another_run_takes_the_flags_of_a_recipe_from_its_config(data, tmp_path, capsys):
    _, folder = in_process(data, tmp_path, "--recipe", "fast", "--epochs", "1", "--max-steps", "1", "--no-val")
    other = in_process(data, tmp_path / "other", "--config", str(folder), "--max-steps", "1", "--no-val")[1]
    one, two = (json.loads((each / "config.json").read_text()) for each in (folder, other))
    names = ["recipe", "epochs", *NAMED["fast"].flags]
    assert {name: one[name] for name in names} == {name: two[name] for name in names}
