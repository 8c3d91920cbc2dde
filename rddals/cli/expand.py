"""Options of commands, declared once as fields of dataclasses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Any, get_type_hints

from rddals.cli.failures import exit_codes


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is a dataclass by an option for each of its fields.

    Typer reads the fields' annotations and defaults. The command receives instances, whose
    ``__post_init__`` may reject values. Errors become a line on stderr and an exit code.
    """
    parameters: list[Parameter] = []
    common: list[Parameter] = []  # shown last by --help
    groups: dict[str, tuple[type, list[str]]] = {}
    # Python 3.10's get_type_hints would wrap the annotation of a default None in Optional.
    for name, parameter in signature(command, eval_str=True).parameters.items():
        kind = parameter.annotation
        if is_dataclass(kind) and isinstance(kind, type):
            field_hints = get_type_hints(kind, include_extras=True)
            groups[name] = kind, [field.name for field in fields(kind)]
            (common if name == "common" else parameters).extend(
                Parameter(
                    field.name,
                    Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=field_hints[field.name],
                )
                for field in fields(kind)
            )
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**values: Any) -> None:
        with exit_codes(bool(values.get("verbose"))):
            for name, (kind, options) in groups.items():
                values[name] = kind(**{option: values.pop(option) for option in options})
            command(**values)

    parameters += common
    run.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
