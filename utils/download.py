"""Files from the network: interrupted downloads continue. Weights are kept in torch.hub's folder, with their hashes."""

import hashlib
import http.client
import re
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

from utils.cache import locked
from utils.distributed import print_main
from utils.errors import UserError, writing
from utils.progress import progress
from utils.run.files import write_atomically

ATTEMPTS = 5
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 20  # bytes
FIX = "set TORCH_HOME to another folder"
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")  # how torchvision and DRN publish the first digits of the SHA-256


def fetch(url: str) -> Path:
    """The file at `url`, downloaded if torch.hub's folder does not have it.

    Its SHA-256 must start with the digits in its name. Without digits in the name, the hash of the first download is
    stored beside the file, and every later one must equal it. Raises UserError with the address and what to do without
    a network.
    """
    import torch  # for its folder alone: a command that asks for names of weights does without

    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    with writing(target, FIX), locked(target, fix=FIX):
        if not target.is_file():
            download(url, target, fix=f"put the file at {target}, or give a FILE of weights")
        check_recorded_hash(target, url)
    return target


def download(url: str, target: Path, *, fix: str) -> None:
    """Write `target` in several attempts. Raises UserError, with `fix` for a user without a network, if all fail.

    Also if the SHA-256 does not start with the digits in the name, where the name has digits.
    """
    part = target.with_name(f"{target.name}.part")
    print_main(f"downloading {url} to {target}")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            continue_download(url, part)
            break
        except (URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            is_final = isinstance(error, HTTPError) and error.code < 500
            if attempt == ATTEMPTS or is_final or isinstance(getattr(error, "reason", None), OSError):
                raise UserError(
                    f"cannot download {url} ({getattr(error, 'reason', None) or error}): {fix}; the received part is "
                    "kept, and the next attempt continues it"
                ) from error
    published = HASH_IN_NAME.search(target.name)
    if published and not (digest := sha256(part)).startswith(published[1]):
        part.unlink()
        raise UserError(f"{url} came with SHA-256 {digest[:16]}..., not {published[1]}...: it was removed; try again")
    part.replace(target)


def continue_download(url: str, part: Path) -> None:
    """Append the missing rest of the file at `url` to `part`. A server without ranges sends the file from the start."""
    size = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={size}-"} if size else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{size}":
            return  # complete: the process ended before it was renamed
        part.unlink()  # not a part of this file: it is at least as long
        return continue_download(url, part)
    with response:
        first = size if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        total = first + int(response.headers.get("Content-Length", 0))
        with open(part, "r+b" if first else "wb") as file, progress(part.stem, first, total, unit="B") as bar:
            file.seek(first)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if part.stat().st_size < total:
            raise http.client.IncompleteRead(b"", total - part.stat().st_size)


def check_recorded_hash(path: Path, url: str) -> None:
    """Store the SHA-256 of a file without one in its name. Raises UserError if another one is stored."""
    if HASH_IN_NAME.search(path.name):
        return
    record, digest = path.with_name(f"{path.name}.sha256"), sha256(path)
    if not record.is_file():
        write_atomically(record, f"{digest}\n".encode())
    elif record.read_text().strip() != digest:
        raise UserError(
            f"{path} has SHA-256 {digest[:16]}..., at its first download it had {record.read_text()[:16]}...: delete "
            f"it to download {url} again, or delete {record.name} to accept it"
        )


def sha256(path: Path) -> str:
    return file_digest(path, "sha256")


def file_digest(path: Path, algorithm: str, count: Callable[[int], object] = lambda _: None) -> str:
    """The digest as hexadecimal digits. `count` is called with the bytes of each chunk."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            count(len(chunk))
    return digest.hexdigest()


def unpack(archive: Path, pattern: re.Pattern) -> Path:
    """The folder beside `archive` that holds its regular files whose names match `pattern`, without inner folders.

    Unpacks once. Raises UserError for a damaged archive.
    """
    folder = archive.with_name(archive.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz"))
    done = folder / ".done"
    with writing(folder, FIX), locked(folder, fix=FIX):
        if done.is_file():
            return folder
        folder.mkdir(exist_ok=True)
        try:
            with tarfile.open(archive) as members:
                for member in members:
                    name = Path(member.name).name
                    if member.isfile() and pattern.search(name):
                        # Only the bare name is used, so no member can be written outside the folder
                        (folder / name).write_bytes(members.extractfile(member).read())
        except (tarfile.TarError, EOFError, OSError) as error:
            raise UserError(
                f"{archive} cannot be unpacked ({str(error).splitlines()[0]}): delete it and try again"
            ) from error
        done.touch()
    return folder
