"""``dualprocess push``: puts a job's LoRA on a Hugging Face hub."""

from __future__ import annotations

import tempfile
from typing import Annotated

import typer

from dualprocess.cli.jobs import JobId
from dualprocess.cli.session import ApiKey, Json, Url, connected, tell, tell_json
from dualprocess.hub import push as push_files
from dualprocess.lora_forms import LoraForm
from dualprocess.protocol import DEFAULT_URL


def register(app: typer.Typer) -> None:
    app.command()(push)


def push(
    job_id: JobId,
    repository: Annotated[
        str, typer.Argument(metavar="REPO", help="On the hub: owner/name. Made if it is missing.")
    ],
    form: Annotated[LoraForm, typer.Option("--as", help="The form of the LoRA.")] = (
        LoraForm.DIFFUSERS
    ),
    public: Annotated[
        bool, typer.Option("--public", help="Make a public repository; without it, a private one.")
    ] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Put a job's LoRA on the Hugging Face hub, with its pictures and a model card.

    The token is HF_TOKEN, or the one that `hf auth login` stored.
    """
    with connected(url, api_key) as client, tempfile.TemporaryDirectory() as folder:
        files = client.pull(job_id, folder, form)
        where = push_files(
            files, repository, private=not public, message=f"LoRA of dualprocess job {job_id}"
        )
    if json:
        tell_json({"id": job_id, "repository": where, "files": [path.name for path in files]})
    else:
        tell(where)
