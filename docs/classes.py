"""The Python client's methods and errors, as Markdown, from their docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from dualprocess import errors


def methods(client: type) -> str:
    """A class's docstring, how it is made, and each public method with what it does."""
    return "\n".join([_told(client), "", *_methods(client)])


def error_tree() -> str:
    """Every exception, with what it means, as its module draws it."""
    tree = (inspect.getdoc(errors) or "").partition("::\n\n")[2]
    return f"```\n{inspect.cleandoc(tree)}\n```"


class _AsWritten(str):
    """An annotation as the source has it, shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _methods(client: type) -> Iterator[str]:
    yield f"- `{client.__name__}{_arguments(inspect.signature(client))}`"
    for name, member in vars(client).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            signature = inspect.signature(member)
            _self, *parameters = signature.parameters.values()
            arguments = _arguments(signature.replace(parameters=parameters))
            yield f"- `{name}{arguments}`: {_told(member)}"


def _arguments(signature: inspect.Signature) -> str:
    parameters = [
        parameter.replace(annotation=_AsWritten(parameter.annotation))
        for parameter in signature.parameters.values()
    ]
    shown = signature.replace(
        parameters=parameters, return_annotation=_AsWritten(signature.return_annotation)
    )
    return str(shown).removesuffix(" -> None")


def _told(documented: object) -> str:
    text = inspect.getdoc(documented)
    assert text, f"{documented} has no docstring"
    return " ".join(text.split()).replace("``", "`")
