"""What every command shares: the service's address, JSON output, errors as sentences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, NoReturn

import httpx
import typer
from pydantic import BaseModel
from rich.console import Console

from dualprocess import printable
from dualprocess.client import Client
from dualprocess.errors import (
    ApiError,
    Conflict,
    ConnectionFailed,
    DualProcessError,
    InvalidRequest,
    InvalidSetup,
    JobNotReady,
    NotFound,
    RateLimited,
    ServiceUnavailable,
    Unauthorized,
)

#: Exit codes, for scripts; `dualprocess --help` tells them.
JOB_ENDED_BADLY = 1
BAD_INPUT = 2
#: Or the service asks to try again later.
UNREACHABLE = 3

Url = Annotated[
    str, typer.Option("--url", envvar="DUALPROCESS_URL", help="Address of the service.")
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", envvar="DUALPROCESS_API_KEY", help="API key, if the service asks for one."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for programs.")]

stdout = Console()
stderr = Console(stderr=True)


@contextlib.contextmanager
def connected(url: str, api_key: str | None) -> Iterator[Client]:
    """A client. Each of its errors becomes a message and an exit code."""
    try:
        with Client(url, api_key) as client:
            yield client
    except (ConnectionFailed, RateLimited, ServiceUnavailable) as error:
        fail(str(error), UNREACHABLE)
    except JobNotReady as error:
        fail(f"{error}; `dualprocess show {error.job.id}` shows its result later", UNREACHABLE)
    except (InvalidRequest, InvalidSetup, NotFound, Conflict, Unauthorized) as error:
        fail(str(error), BAD_INPUT)
    except (ApiError, DualProcessError) as error:
        fail(str(error), JOB_ENDED_BADLY)
    except (httpx.InvalidURL, UnicodeEncodeError):
        fail("the job's id, or a key, has characters that can't be sent", BAD_INPUT)
    except BrokenPipeError:
        # The reader of the output closed it; typer ends the command.
        raise
    except OSError as error:
        fail(str(error), BAD_INPUT)


def fail(message: str, code: int) -> NoReturn:
    """Ends the command with a message and an exit code."""
    said = printable.lines(message)
    stderr.print(said, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def tell(text: str) -> None:
    """Prints text that may come from others, of one or several lines."""
    typer.echo(printable.lines(text))


def note(message: str) -> None:
    """Prints a remark on standard error; the command goes on."""
    stderr.print(printable.lines(message), markup=False, highlight=False, soft_wrap=True)


def print_json(*models: BaseModel, many: bool = False) -> None:
    listed = [model.model_dump(mode="json") for model in models]
    tell_json(listed if many else listed[0])


def tell_json(value: object) -> None:
    """Prints any other value as JSON."""
    typer.echo(printable.as_json(value))
