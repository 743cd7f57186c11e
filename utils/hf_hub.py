"""Weights on the Hugging Face Hub, by `hf://owner/name[@revision]`. huggingface_hub is not a requirement."""

import re
from pathlib import Path
from types import ModuleType

from utils.errors import UserError
from utils.run.weights_file import DESCRIPTION, WEIGHTS

PREFIX = "hf://"
INSTALL = "pip install huggingface_hub"
NAME = re.compile(r"[\w.-]+/[\w.-]+")  # of a repository
ADDRESS = re.compile(rf"hf:/{{1,2}}({NAME.pattern})(?:@(.+))?")  # Path("hf://a/b") has one slash


def is_address(source: str | Path) -> bool:
    return str(source).startswith("hf:/")


def find_weights(source: str | Path) -> Path:
    """The file that `source` stands for: of an address the downloaded one, of a folder its `model.safetensors`.

    Any other path is returned as it is. Raises UserError for an address without such a file.
    """
    path = download(str(source)) if is_address(source) else Path(source).expanduser()
    return path / WEIGHTS if (path / WEIGHTS).is_file() else path


def download(address: str) -> Path:
    """The local folder with the weights of a repository and their description, downloaded if they are not there."""
    parts = ADDRESS.fullmatch(address)
    if parts is None:
        raise UserError(f"{address} is no repository: give hf://owner/name, or hf://owner/name@revision")
    hub = library(address)
    try:
        folder = hub.snapshot_download(parts[1], revision=parts[2], allow_patterns=[WEIGHTS, DESCRIPTION])
    except Exception as error:  # its own, those of HTTP and of the disk have no common class
        raise UserError(
            f"cannot download {address} ({reason(error)}): check name, revision and network; a private repository "
            "needs a token (hf auth login)"
        ) from error
    if not (Path(folder) / WEIGHTS).is_file():
        raise UserError(f"{address} has no {WEIGHTS}: give a repository that modeling.publish wrote")
    return Path(folder)


def require_pushable(name: str) -> None:
    """Raise UserError if nothing can be pushed to the repository `name`, as far as can be told without the network."""
    if not NAME.fullmatch(name):
        raise UserError(f"`push` {name} is no repository: give owner/name")
    library("`push`")


def push(folder: Path, name: str) -> None:
    """Upload the files of `folder` to the repository `name`, which is made if it does not exist."""
    hub = library("`push`")
    try:
        hub.create_repo(name, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Weights of DeepLabV3+")
    except Exception as error:  # as in `download`
        raise UserError(
            f"{folder} is written, but cannot be pushed to {name} ({reason(error)}): check name, network and token "
            "(hf auth login), and run the command again"
        ) from error


def library(user: str) -> ModuleType:
    """huggingface_hub. Raises UserError where it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"{user} needs huggingface_hub: {INSTALL}") from error
    return huggingface_hub


def reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
