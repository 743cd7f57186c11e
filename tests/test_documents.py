"""README.md and docs/ agree with the tree: links, commands and their flags, files, released names."""

import functools
import importlib
import re
from pathlib import Path

import pytest

from config.train_flags import REMOVED_FLAGS
from modeling.pretrained import zoo

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
PACKAGES = ("benchmarks", "config", "dataloaders", "modeling", "utils")
COMMANDS = ("train", "evaluate", "predict", "export", "modeling.cost", "modeling.weights", "modeling.publish")
COMMANDS += ("modeling.average", "benchmarks.ablation", "benchmarks.train_step", "benchmarks.memory")
COMMANDS += ("dataloaders.check", "dataloaders.prepare", "dataloaders.convert", "dataloaders.show")
COMMANDS += ("utils.run.compare",)
COMMANDS += ("benchmarks.input", "benchmarks.inference", "benchmarks.kill_resume", "benchmarks.predict")
COMMANDS += ("benchmarks.startup", "benchmarks.cache")
COMMANDS += ("benchmarks.coco",)
COMMANDS += ("benchmarks.scoring", "benchmarks.save")
COMMANDS += ("benchmarks.large_images",)
FOREIGN_FLAGS = {"--nproc-per-node", "--max-restarts", "--rdzv-endpoint"}  # of torchrun


def spans(page: str) -> list[str]:
    """Inline code."""
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", PAGES[page]))


def anchors(page: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", PAGES[page]), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_resolve(page):
    for target in re.findall(r"\]\(([^)]+)\)", FENCED.sub("", PAGES[page])):
        if not target.startswith(("http://", "https://")):
            file, _, anchor = target.partition("#")
            path = ((ROOT / page).parent / file).resolve() if file else ROOT / page
            assert path.exists(), target
            assert not anchor or anchor in anchors(path.relative_to(ROOT).as_posix()), target


def commands(page: str) -> list[tuple[str, str]]:
    """(name of the script or module, its arguments) of each command in the blocks and the inline code."""
    found = []
    for text in [text for language, text in FENCED.findall(PAGES[page]) if language == "bash"] + spans(page):
        text = re.sub(r"\s#.*", "", text.replace("\\\n", " "))
        for name, value in re.findall(r'^(\w+)="(.*?)"$', text, re.M | re.S):
            text = text.replace(f"${name}", value.replace("\n", " "))
        launcher = r"python -m (?!torch)|python (?=\w)|bash |torchrun .*?|sbatch .*?"
        found += re.findall(rf"(?:^|\s)(?:{launcher})([\w./]+\.py|[\w./]+\.sh|(?<=-m )[\w.]+)(?=\s|$)(.*)", text, re.M)
    return found


@functools.cache
def flags(command: str) -> set[str]:
    """Of the usage that `--help` prints."""
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("argparse.ArgumentParser._print_message", lambda _, text, file=None: printed.append(text))
        with pytest.raises(SystemExit):
            importlib.import_module(command).main(["--help"])
    return set(re.findall(r"--[a-z][a-z-]*", printed[0].split("\n\n")[0])) | {"--help"}


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_and_have_the_flags(page):
    for name, arguments in commands(page):
        if name in ("pytest", "timeit"):
            assert all((ROOT / file).exists() for file in re.findall(r"tests/\w+\.py", arguments)), arguments
            continue
        file = name if name.endswith((".py", ".sh")) else f"{name.replace('.', '/')}.py"
        assert (ROOT / file).is_file(), name
        if file == "run_tests.sh":
            known = {"--all"}
        else:
            known = flags("train" if file.endswith(".sh") else name.removesuffix(".py"))
        if name == "benchmarks.ablation":  # in quotes: flags of train.py
            known = known | flags("train")
        assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", arguments)) <= known, (name, arguments)


@pytest.mark.parametrize("page", PAGES)
def test_flags_and_files_in_the_text_exist(page):
    known = set().union(*map(flags, COMMANDS)) | REMOVED_FLAGS.keys() | FOREIGN_FLAGS | {"--all"}
    for span in spans(page):
        if span.startswith("--"):
            assert set(re.findall(r"(?<!\S)--[\w-]+", span)) <= known, span
        elif re.fullmatch(rf"(docs|tests|scripts|{'|'.join(PACKAGES)})/[\w/.]*", span):
            assert (ROOT / span).exists(), span


def names_in_the_tree(text: str) -> list[str]:
    """Paths in the tree of docs/layout.md. A line: a folder that ends with /, or files; two spaces; a comment."""
    folders, paths = {-1: ""}, []
    for line in text.splitlines():
        indent, names = len(line) - len(line.lstrip()), re.split(r"\s{2,}", line.strip())[0].split()
        folders = {place: folder for place, folder in folders.items() if place < indent}
        paths += [folders[max(folders)] + name for name in names]
        folders[indent] = paths[-1]
    return paths


def test_the_layout_names_every_file():
    named = names_in_the_tree(next(text for _, text in FENCED.findall(PAGES["docs/layout.md"]) if "train.py" in text))
    assert [name for name in named if not (ROOT / name).exists()] == []
    files = [*ROOT.glob("*.py"), *ROOT.glob("*.sh")]
    files += [file for folder in PACKAGES for file in (ROOT / folder).rglob("*.py") if file.name != "__init__.py"]
    assert sorted({file.relative_to(ROOT).as_posix() for file in files} - set(named)) == []


def test_the_readme_is_short():
    assert len(PAGES["README.md"].split()) <= 1300


def test_the_documents_list_every_released_network():
    for name in (*zoo.SEGMENTATION, *zoo.BACKBONE_WEIGHTS):
        assert f"`{name}`" in PAGES["docs/weights.md"], name
