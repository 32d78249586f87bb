"""The Hugging Face Hub: hf://OWNER/NAME is fetched when a user names it, and files are pushed as one commit."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from facedistill.errors import UsageError, UserError

PREFIX = re.compile(r"hf:/{1,2}")  # a Path has one slash of the two
CLASSIFIER_FILES = ("classifier.safetensors", "classes.txt")
FILES = ("config.json", "README.md", "model.safetensors", "model.onnx", *CLASSIFIER_FILES)  # no other file is fetched


def is_hub_address(path: str | Path) -> bool:
    """Whether `path` is hf://OWNER/NAME, with or without @REVISION."""
    return PREFIX.match(str(path)) is not None


def fetch(address: str | Path, classifier: bool = True) -> Path:
    """Return the folder, in the hub's own cache, of the model at hf://OWNER/NAME[@REVISION].

    Only the files of a model folder are fetched, and those that the cache holds are not fetched again. Without a
    network the cache serves. A line on stderr says which commit it is.

    Args:
        classifier: fetch W too, if there is one (it may be gigabytes).

    Raises:
        UsageError: not such an address. UserError: no such repository or revision, no network, or no model in it.
    """
    repository, revision = parse_address(str(address))
    name = f"hf://{repository}" + (f"@{revision}" if revision else "")
    hub = import_hub()
    wanted = [file for file in FILES if classifier or file not in CLASSIFIER_FILES]
    with _explained(name):
        folder = Path(hub.snapshot_download(repository, revision=revision, allow_patterns=wanted))
    if not (folder / "config.json").exists():
        raise UserError(f"{name}: not a model folder (no config.json); expected one that `facedistill push` wrote")
    print(f"{name}: commit {folder.name}", file=sys.stderr)
    return folder


def upload(files: Mapping[str, Path | bytes], repository: str, public: bool) -> str:
    """Make the model files of the repository be `files`, in one commit; return its id.

    The repository is made where there is none. Files that no model has are left alone.

    Raises:
        UserError: no token, no network, no right to write, or the repository is public and `public` is False.
    """
    name = f"hf://{repository}"
    hub = import_hub()
    if hub.get_token() is None:
        raise UserError("push: no token of the Hugging Face Hub; run `hf auth login`, or set HF_TOKEN")
    api = hub.HfApi()
    with _explained(name):
        api.create_repo(repository, private=not public, exist_ok=True)
        there = api.model_info(repository)
    if not public and not there.private:
        raise UserError(f"{name}: the repository is public; nothing was uploaded: add --public if that is meant")
    stale = {file.rfilename for file in there.siblings or []} & set(FILES) - files.keys()
    changes: list[Any] = [
        hub.CommitOperationAdd(file, content if isinstance(content, bytes) else str(content))
        for file, content in files.items()
    ]
    changes += [hub.CommitOperationDelete(file) for file in sorted(stale)]
    with _explained(name):
        return str(api.create_commit(repository, changes, commit_message="Upload a model of facedistill").oid)


def parse_address(address: str) -> tuple[str, str | None]:
    """Return (OWNER/NAME, revision or None) of hf://OWNER/NAME[@REVISION], or of OWNER/NAME[@REVISION]."""
    repository, at, revision = PREFIX.sub("", address, count=1).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or (at and not revision):
        raise UsageError(
            f"{PREFIX.sub('hf://', address, count=1)}: not a name on the Hugging Face Hub; expected OWNER/NAME, such "
            "as ada/student, or OWNER/NAME@REVISION"
        )
    return repository, revision or None


def import_hub() -> Any:
    """Return the module huggingface_hub. Raises UserError with the command that installs it."""
    try:
        import huggingface_hub
    except ImportError as e:
        raise UserError(f"the Hugging Face Hub needs the package '{e.name}': pip install 'facedistill[hub]'") from e
    return huggingface_hub


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what the hub's client raises into one line."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as e:
        raise UserError(f"{name}: its owner grants access one by one; ask there, then `hf auth login`") from e
    except errors.RepositoryNotFoundError as e:
        raise UserError(
            f"{name}: no such repository, or it is private and you have no access; `hf auth whoami` says who you are"
        ) from e
    except errors.RevisionNotFoundError as e:
        raise UserError(f"{name}: the repository has no such branch, tag or commit") from e
    except errors.LocalEntryNotFoundError as e:
        raise UserError(f"{name}: the hub cannot be reached, and the cache does not hold it; try again online") from e
    except errors.HFValidationError as e:
        raise UsageError(f"{name}: {e}") from e
    except errors.HfHubHTTPError as e:
        code = e.response.status_code
        why = {
            401: "your token is not valid; run `hf auth login`",
            403: "your token may not write there",
        }
        raise UserError(f"{name}: the hub refuses ({code}): {why.get(code, str(e))}") from e
    except Exception as e:  # full disks, and what the HTTP client of the day raises without a network
        raise UserError(f"{name}: {str(e) or type(e).__name__}; is there a network, and space on the disk?") from e
