"""Files from the network, kept in torch hub's folder: resumed where they broke off, checked, unpacked nowhere else."""

import hashlib
import http.client
import re
import tarfile
import urllib.request
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

import torch

from utils.cache import locked
from utils.distributed import print_main
from utils.errors import UserError
from utils.progress import progress
from utils.run.files import write_atomically

ATTEMPTS = 5
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 20
FIX = "set TORCH_HOME to another folder"
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")  # torchvision's and DRN's way to publish one


def fetch(url: str) -> Path:
    """The file at `url`, from the cache or, the first time, the network.

    Its SHA-256 must begin as the file's name says; where the name says nothing, the one seen first is recorded beside
    it and must be seen again ever after. Raises UserError with the address, and what to do without a network.
    """
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    try:
        with locked(target, fix=FIX):
            if not target.is_file():
                download(url, target)
            compare_with_record(target, url)
    except OSError as error:
        raise UserError(f"cannot write {target} ({error.strerror or error}): {FIX}") from error
    return target


def download(url: str, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    print_main(f"downloading {url} to {target}")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            read_on(url, part)
            break
        except (URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            is_final = isinstance(error, HTTPError) and error.code < 500
            if attempt == ATTEMPTS or is_final or isinstance(getattr(error, "reason", None), OSError):
                raise UserError(
                    f"cannot download {url} ({getattr(error, 'reason', None) or error}): put the file at {target}, or "
                    "give a FILE of weights; what has come is kept, and the next try goes on from there"
                ) from error
    published = HASH_IN_NAME.search(target.name)
    if published and not (digest := sha256(part)).startswith(published[1]):
        part.unlink()
        raise UserError(f"{url} came with SHA-256 {digest[:16]}..., not {published[1]}...: it was removed; try again")
    part.replace(target)


def read_on(url: str, part: Path) -> None:
    """Append to `part` what is missing of the file at `url`. A server that knows no ranges sends it from the start."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        part.unlink()  # longer than the file: not a part of it
        return read_on(url, part)
    with response:
        first = have if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        total = first + int(response.headers.get("Content-Length", 0))
        with open(part, "r+b" if first else "wb") as file, progress(part.stem, first, total, unit="B") as bar:
            file.seek(first)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if part.stat().st_size < total:
            raise http.client.IncompleteRead(b"", total - part.stat().st_size)


def compare_with_record(path: Path, url: str) -> None:
    """Raise UserError where `path` is not what it was when it was first seen."""
    if HASH_IN_NAME.search(path.name):
        return
    record, digest = path.with_name(f"{path.name}.sha256"), sha256(path)
    if not record.is_file():
        write_atomically(record, f"{digest}\n".encode())
    elif record.read_text().strip() != digest:
        raise UserError(
            f"{path} has SHA-256 {digest[:16]}..., at its first download it had {record.read_text()[:16]}...: delete "
            f"it to download {url} anew, or {record.name} to accept it"
        )


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def unpack(archive: Path, endings: re.Pattern) -> Path:
    """The folder beside `archive` with those of its plain files whose names match, whatever folders it has inside."""
    folder = archive.with_name(archive.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz"))
    done = folder / ".done"
    with locked(folder, fix=FIX):
        if done.is_file():
            return folder
        folder.mkdir(exist_ok=True)
        try:
            with tarfile.open(archive) as members:
                for member in members:
                    name = Path(member.name).name
                    if member.isfile() and endings.search(name):
                        # Only names without a folder are written, so nothing can leave this one
                        (folder / name).write_bytes(members.extractfile(member).read())
        except (tarfile.TarError, EOFError, OSError) as error:
            raise UserError(
                f"{archive} cannot be unpacked ({str(error).splitlines()[0]}): delete it and try again"
            ) from error
        done.touch()
    return folder
