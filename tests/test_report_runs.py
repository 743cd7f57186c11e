"""report.html of real runs: written by each validation, complete after a resume, and never the end of a run."""

import json
import re

import torch
from running import in_process, log

import evaluate
from config.defaults import changed_flags
from config.resolve import with_defaults
from config.train_flags import train_parser
from utils.run.recorder import note_failure  # before conftest replaces it


def steps(page: str) -> set[str]:
    """Those of the curves' points."""
    return set(re.findall(r'data-step="(\d+)"', page))


def test_a_resumed_run_shows_its_whole_history(folder_root, tmp_path):
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    status, folder = in_process(data, tmp_path, "--epochs", "2", "--max-steps", "3")
    first = (folder / "report.html").read_text()
    assert status == 0 and steps(first) == {"3"}
    assert in_process(data, tmp_path, "--epochs", "2", "--max-steps", "6", "--resume", "auto")[0] == 0
    page = (folder / "report.html").read_text()
    assert steps(page) == {"3", "6"} == {str(row["step"]) for row in log(folder)}
    assert page.count("<pre>") == 2 and "--max-steps 6" in page and "http:" not in page and "https:" not in page
    assert re.findall(r'class="sample" data-view="prediction" data-key="([^"]*)"', page)[:2] == ["v.0", "v.1"]
    miou = json.loads((folder / "metrics.json").read_text())["miou"]
    assert f"<dt>last mIoU</dt><dd>{100 * miou:.1f} %" in page
    changed = re.search(r'aria-label="Changed flags">(.*?)</div>', page)[1]
    assert "--crop-size" in changed and "--momentum" not in changed


def test_a_page_that_cannot_be_made_ends_no_run(folder_root, tmp_path, monkeypatch, capsys):
    def fail(report):
        raise KeyError("a class")

    monkeypatch.setattr("utils.run.recorder.note_failure", note_failure)
    monkeypatch.setattr("utils.run.recorder.render_report", fail)
    status, folder = in_process(
        ["--dataset", "folder", "--data-root", str(folder_root)], tmp_path, "--epochs", "2", "--max-steps", "4"
    )
    assert status == 0 and len(log(folder)) == 2 and not (folder / "report.html").exists()
    note = f"note: {folder / 'report.html'} could not be made (KeyError: 'a class'); the run continues without it"
    assert capsys.readouterr().out.splitlines().count(note) == 2


def test_evaluate_writes_the_page_of_a_score(folder_network, tmp_path):
    out = tmp_path / "out"
    assert evaluate.main(["--checkpoint", str(folder_network), "--workers", "0", "--out", str(out)]) == 0
    page = (out / "report.html").read_text()
    metrics = json.loads((out / "metrics.json").read_text())
    assert f"<dt>mIoU</dt><dd>{100 * metrics['miou']:.1f} %" in page and "<h2>Curves" not in page
    assert f"python evaluate.py --checkpoint {folder_network} --workers 0 --out {out}" in page
    counts = json.loads(re.search(r'id="counts">(.*?)</script>', page)[1])["counts"]
    assert torch.tensor(counts).sum() == sum(row["pixels"] for row in metrics["per_class"].values())


def test_changed_flags_are_those_that_the_dataset_and_backbone_do_not_give():
    args = train_parser().parse_args(["--dataset", "demo", "--lr", "0.3"])
    assert changed_flags(with_defaults(args)) == ["dataset", "lr"]
    args = train_parser().parse_args(["--dataset", "demo", "--backbone", "drn"])
    assert changed_flags(with_defaults(args)) == ["backbone", "dataset"]
