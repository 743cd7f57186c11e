"""Downloads and weights by name, from a server on this machine."""

import dataclasses
import hashlib
import io
import re
import socket
import tarfile
from pathlib import Path

import pytest
import torch
import torchvision
from serving import serving
from tensorflow_data import tensorflow_variables, write_tf_checkpoint

import train
from modeling import BACKBONES, build_model
from modeling.pretrained import zoo
from modeling.weights import load_weights
from utils import download
from utils.download import fetch, unpack
from utils.errors import UserError


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(download, "CHUNK", 1000)
    with serving() as running:
        yield running


CONTENT = bytes(range(256)) * 40


def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub" / "checkpoints"


def test_a_file_is_downloaded_once_into_the_folder_of_torch_hub(server, tmp_path):
    server.files["net.bin"] = CONTENT
    path = fetch(server.url("net.bin"))
    assert path == cache(tmp_path) / "net.bin" and path.read_bytes() == CONTENT
    assert fetch(server.url("net.bin")) == path and len(server.requests) == 1
    assert not list(path.parent.glob("*.part"))


def test_a_broken_download_continues_where_it_broke_off(server):
    server.files["net.bin"], server.cuts = CONTENT, [3000, 2000]
    assert fetch(server.url("net.bin")).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=3000-", "bytes=5000-"]


def test_the_next_call_continues_a_broken_download(server, tmp_path, monkeypatch):
    server.files["net.bin"], server.cuts = CONTENT, [3000]
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    with pytest.raises(UserError, match=r"cannot download http://127.*the received part is kept"):
        fetch(server.url("net.bin"))
    assert not (cache(tmp_path) / "net.bin").exists()
    assert fetch(server.url("net.bin")).read_bytes() == CONTENT
    assert server.requests[1] == "bytes=3000-"


def test_a_server_without_ranges_sends_the_whole_file(server):
    server.files["net.bin"], server.cuts, server.ranges = CONTENT, [3000], False
    assert fetch(server.url("net.bin")).read_bytes() == CONTENT


def test_a_partial_file_longer_than_the_file_is_discarded(server, tmp_path):
    server.files["net.bin"] = CONTENT
    cache(tmp_path).mkdir(parents=True)
    (cache(tmp_path) / "net.bin.part").write_bytes(CONTENT * 2)
    assert fetch(server.url("net.bin")).read_bytes() == CONTENT


def test_a_complete_partial_file_is_not_downloaded_again(server, tmp_path):
    """A process that is killed between the last byte and the rename leaves one."""
    server.files["net.bin"] = CONTENT
    cache(tmp_path).mkdir(parents=True)
    (cache(tmp_path) / "net.bin.part").write_bytes(CONTENT)
    assert fetch(server.url("net.bin")).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT)}-"]


def test_a_hash_in_the_name_is_checked(server, tmp_path):
    digest = hashlib.sha256(CONTENT).hexdigest()[:8]
    server.files[f"net-{digest}.pth"] = CONTENT
    assert fetch(server.url(f"net-{digest}.pth")).read_bytes() == CONTENT
    server.files["net-01234567.pth"] = CONTENT
    with pytest.raises(UserError, match=rf"came with SHA-256 {digest}.*not 01234567"):
        fetch(server.url("net-01234567.pth"))
    assert not list(cache(tmp_path).glob("net-01234567.pth*[!k]"))


def test_the_hash_of_the_first_download_is_recorded_and_compared(server, tmp_path):
    server.files["net.tar.gz"] = CONTENT
    path = fetch(server.url("net.tar.gz"))
    assert path.with_name("net.tar.gz.sha256").read_text().strip() == hashlib.sha256(CONTENT).hexdigest()
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"net\.tar\.gz has SHA-256 .* at its first download it had .*delete it"):
        fetch(server.url("net.tar.gz"))
    path.unlink()
    server.files["net.tar.gz"] = CONTENT[1:]  # the file was replaced at its address
    with pytest.raises(UserError, match="at its first download"):
        fetch(server.url("net.tar.gz"))


def test_a_failed_download_names_the_address_and_the_fix(server, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/net.bin", server.url("missing.bin")):
        with pytest.raises(UserError) as caught:
            fetch(url)
        line = str(caught.value)
        assert url in line and f"put the file at {cache(tmp_path)}" in line and "FILE" in line and "\n" not in line


def archive(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return buffer.getvalue()


def test_archives_are_unpacked_only_inside_their_folder(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    evil = {"../../out.index": b"1", str(tmp_path / "absolute.index"): b"2", "a/b/fine.index": b"3", "a/run.sh": b"4",
            "linked/in.index": b"5"}  # fmt: skip
    path = tmp_path / "cache" / "evil.tar.gz"
    path.parent.mkdir()
    path.write_bytes(archive(evil, {"linked": str(victim), "soft.index": "/etc/passwd"}))
    folder = unpack(path, zoo.CHECKPOINT_FILE)
    assert folder == path.with_name("evil")
    assert {file.name for file in folder.glob("*.index")} == {"out.index", "absolute.index", "fine.index", "in.index"}
    assert not any(file.is_symlink() for file in folder.rglob("*"))
    assert not list(victim.iterdir()) and {file.name for file in tmp_path.iterdir()} == {"victim", "cache"}


def test_a_broken_archive_is_named(tmp_path):
    for content in (b"no archive", archive({"a.index": bytes(5000)})[:60]):
        (tmp_path / "net.tar.gz").write_bytes(content)
        with pytest.raises(UserError, match=r"net\.tar\.gz cannot be unpacked .*delete it"):
            unpack(tmp_path / "net.tar.gz", zoo.CHECKPOINT_FILE)


def tf_archive(model, folder: Path) -> bytes:
    write_tf_checkpoint(folder / "model.ckpt", tensorflow_variables(model))
    return archive({f"deeplab/{file.name}": file.read_bytes() for file in folder.iterdir()})


def set_imagenet(monkeypatch, backbone: str, url: str | None) -> None:
    monkeypatch.setitem(BACKBONES, backbone, dataclasses.replace(BACKBONES[backbone], imagenet=url))


def test_imagenet_weights_are_torchvisions_file(server, monkeypatch):
    buffer = io.BytesIO()
    state = torchvision.models.mobilenet_v2(weights=None).state_dict()
    torch.save(state, buffer)
    name = f"mobilenet_v2-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    server.files[name] = buffer.getvalue()
    assert BACKBONES["mobilenet"].imagenet.endswith("/mobilenet_v2-7ebf99e0.pth")
    set_imagenet(monkeypatch, "mobilenet", server.url(name))
    model = build_model("mobilenet", 3, backbone_weights="imagenet")
    assert torch.equal(model.backbone.features[0][0].weight, state["features.0.0.weight"])


def test_imagenet_weights_have_an_address_or_are_refused(monkeypatch):
    """A new backbone may be without them."""
    addresses = [spec.imagenet for spec in BACKBONES.values() if spec.imagenet is not None]
    assert addresses and all(re.fullmatch(r"https?://\S+\.(pth|tar\.gz)", address) for address in addresses)
    set_imagenet(monkeypatch, "drn22", None)
    with pytest.raises(UserError, match=r"`backbone_weights` imagenet .* drn22: give none, or a file"):
        build_model("drn22", 3, backbone_weights="imagenet")


def test_a_backbone_in_an_archive_loads_by_name(server, monkeypatch, tmp_path, capsys):
    source = build_model("mobilenet", 7, head="lite")
    server.files["mnv2.tgz"] = tf_archive(source, tmp_path / "tf")
    monkeypatch.setitem(zoo.BACKBONE_WEIGHTS, "mobilenet_v2_imagenet", server.url("mnv2.tgz"))
    for _ in range(2):  # the second time from the cache
        model = build_model("mobilenet", 3, backbone_weights="mobilenet_v2_imagenet")
        assert torch.equal(model.backbone.features[5].conv[2].weight, source.backbone.features[5].conv[2].weight)
        assert model.preprocessing["padding"] == "same" and model.preprocessing["epsilon"]["backbone"] == 1e-3
        assert model.preprocessing["mean"] == [0.5] * 3
    assert len(server.requests) == 1 and "255 loaded, 0 missing" in capsys.readouterr().out


def test_training_starts_from_a_released_network_by_name(server, monkeypatch, tmp_path, capsys):
    """The name sets backbone, head and width, the schedule is new, and --resume auto continues the run."""
    name = "mobilenetv2_dm05_coco_voc_trainaug"
    source = build_model("mobilenet", 21, head="lite", width=0.5)
    server.files["dm05.tar.gz"] = tf_archive(source, tmp_path / "tf")
    released = dataclasses.replace(zoo.SEGMENTATION[name], url=server.url("dm05.tar.gz"))
    monkeypatch.setitem(zoo.SEGMENTATION, name, released)
    flags = ["--dataset", "demo", "--weights-from", name, "--resume", "auto", "--run-dir", str(tmp_path / "run"),
             "--workers", "0", "--batch-size", "2", "--crop-size", "33", "--epochs", "1", "--no-val",
             "--lr", "1e-9"]  # fmt: skip
    assert train.main([*flags, "--max-steps", "1"]) == 0
    out = capsys.readouterr().out
    assert "270 loaded" in out and "2 mismatched" in out and "mobilenet, lite head" in out
    checkpoint = next((tmp_path / "run").rglob("checkpoint.pth.tar"))
    model = build_model("mobilenet", 8, head="lite", width=0.5)
    load_weights(model, checkpoint)
    torch.testing.assert_close(model.aspp.project[0].weight, source.aspp.project[0].weight, rtol=0, atol=1e-4)
    assert model.preprocessing["padding"] == "same"
    assert train.main([*flags, "--max-steps", "2"]) == 0
    assert "resuming" in capsys.readouterr().out and len(server.requests) == 1
    assert len(list((tmp_path / "run").rglob("checkpoint.pth.tar"))) == 1
