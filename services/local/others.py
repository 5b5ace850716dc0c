"""Teachers that are no model of ours: services that somebody else started, by their addresses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import TypeAdapter, ValidationError

from services.common.addresses import Target
from services.common.presets import PresetError, Presets
from services.local.wishes import WishError

_FLAG = "--teachers"
_TARGET: TypeAdapter[str] = TypeAdapter(Target)


def addressed(text: str, presets: Presets) -> Mapping[str, str]:
    """The gRPC target of each preset: `colour=127.0.0.1:50060,sharp=host:50061`.

    Raises ``WishError`` for a list that can't be read, and ``PresetError`` for a name that is no
    external preset.
    """
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, target = (piece.strip() for piece in part.partition("="))
        if not equals or not name:
            raise WishError(f"{_FLAG}: {part!r}: write a list like colour=127.0.0.1:50060")
        try:
            found[name] = _TARGET.validate_python(target)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise WishError(f"{_FLAG}: the address of {name} {why}") from error
        if not presets.vlm(name).is_external:
            raise PresetError(
                f"{_FLAG}: {name} is a model that --vlm starts; only a preset with `family: "
                "external` has an address"
            )
    return found


def refuse_to_load(vlms: Iterable[str], presets: Presets) -> None:
    """Raises ``WishError`` for a VLM without weights."""
    for name in vlms:
        if presets.vlm(name).is_external:
            raise WishError(
                f"--vlm: {name} is external, so it has no weights to load: start its service, and "
                f"write its address as {_FLAG} {name}=HOST:PORT"
            )
