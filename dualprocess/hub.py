"""Puts a folder with a LoRA and its model card on a Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dualprocess.errors import PushFailed


def push(files: Sequence[Path], repository: str, *, private: bool, message: str) -> str:
    """Uploads ``files`` in one commit to ``repository`` (``owner/name``), and returns its address.

    A new repository is ``private`` or public; one that exists stays as it is. The token and the hub
    are those of huggingface_hub: ``HF_TOKEN``, else what ``hf auth login`` stored; ``HF_ENDPOINT``.
    Raises ``PushFailed``.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import (  # type: ignore[attr-defined]
            HfHubHTTPError,
            HFValidationError,
            HTTPError,
        )
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
    except ImportError as error:
        raise PushFailed("push needs huggingface_hub: pip install 'dualprocess[hub]'") from error
    disable_progress_bars()
    api = HfApi()
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        added = [CommitOperationAdd(path.name, path) for path in files]
        api.create_commit(made.repo_id, added, commit_message=message)
    except HFValidationError as error:
        raise PushFailed(f"{repository!r} is no repository's name; write owner/name") from error
    except HfHubHTTPError as error:
        remedy = f"; {_REMEDY}" if error.response.status_code in (401, 403) else ""
        raise PushFailed(f"the hub at {api.endpoint} refused it: {error}{remedy}") from error
    except HTTPError as error:
        raise PushFailed(f"the hub at {api.endpoint} can't be reached: {error}") from error
    except ValueError as error:
        raise PushFailed(f"the hub at {api.endpoint} did not take it: {error}") from error
    return str(made)


_REMEDY = "set HF_TOKEN to one that may write there"
