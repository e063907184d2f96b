"""Build a model from flat parameters, with checks of single texts: addresses, languages, names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from audiopipe.config.columns import normalize_columns, normalize_kept
from audiopipe.errors import ConfigError
from audiopipe.parameter_messages import describe_invalid, describe_unknown
from audiopipe.redaction import find_address_problem, has_secret

__all__ = [
    "LANGUAGE",
    "CheckedParameters",
    "added_field",
    "is_off",
    "locate_networks",
    "output_field",
    "run_field",
    "split_address",
]

OFF_WORDS = ("none", "null", "off")
ADDRESSES = ("catalog", "output", "source_prefix", "ledger")
LOCALHOST = "127.0.0.1"
MAX_PORT = 65_535
LANGUAGE = re.compile(r"(?!reports$)[A-Za-z0-9][A-Za-z0-9_-]{0,34}")  # `reports` is another folder of the output


def output_field(default: object, description: str, **limits: float) -> Any:
    """Return a field that the bytes of the output depend on; the digest covers it."""
    return Field(default, description=description, json_schema_extra={"digest": True}, **limits)  # type: ignore[call-overload]


def added_field(default: object, description: str, **limits: float) -> Any:
    """Return an output field that is newer than some outputs: the digest covers it unless it has its default."""
    return Field(default, description=description, json_schema_extra={"digest": "added"}, **limits)  # type: ignore[call-overload]


def run_field(default: object, description: str, **limits: float) -> Any:
    """Return a field that changes where and how fast a run works, but not the bytes of its output."""
    return Field(default, description=description, **limits)  # type: ignore[call-overload]


def is_off(value: object, annotation: Any) -> bool:
    """Check whether a value switches off a parameter that may be None.

    The words none, null and off do, in any case; for a number also an empty text, and False, which YAML reads from
    `off`. The command, notebooks, papermill's files and Python share this.
    """
    kinds = get_args(annotation)
    if type(None) not in kinds:
        return False
    is_word = isinstance(value, str) and value.strip().lower() in OFF_WORDS
    return value is None or is_word or (str not in kinds and (value is False or value == ""))


class CheckedParameters(BaseModel):
    """A frozen model of flat parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def of(cls, **parameters: object) -> Self:
        """Validate flat parameters.

        Raises:
            ConfigError: parameters are unknown, missing or invalid; the message names all of them and what is allowed.
        """
        unknown = [name for name in parameters if name not in cls.model_fields]
        if unknown:
            raise ConfigError("; ".join(describe_unknown(name, list(cls.model_fields)) for name in unknown))
        try:
            return cls.model_validate(parameters)
        except ValidationError as error:
            raise ConfigError("; ".join(describe_invalid(item) for item in error.errors())) from None

    def digest_names(self) -> list[str]:
        """Return the names of the fields that the digest covers: output fields, added ones only with other values."""
        marked = {name: info for name, info in type(self).model_fields.items() if info.json_schema_extra}
        return [
            name
            for name, info in marked.items()
            if info.json_schema_extra == {"digest": True} or getattr(self, name) != info.default
        ]

    @field_validator("*", mode="before")
    @classmethod
    def _check_text(cls, value: object, info: ValidationInfo) -> object:
        if info.field_name is not None and is_off(value, cls.model_fields[info.field_name].annotation):
            return None
        if isinstance(value, bool) and info.field_name is not None:
            annotation = cls.model_fields[info.field_name].annotation
            if bool not in (annotation, *get_args(annotation)):
                raise ValueError("must not be true or false")
        is_address = info.field_name in ADDRESSES and isinstance(value, str)
        if isinstance(value, str) and (is_address or has_secret(value)) and (problem := find_address_problem(value)):
            raise ValueError(problem)
        if is_address and not str(value).strip():
            raise ValueError("is empty")
        return value

    @field_validator("language", check_fields=False)
    @classmethod
    def _check_languages(cls, value: str) -> str:
        for name in value.split(","):
            if not LANGUAGE.fullmatch(name.strip()):
                raise ValueError("must be 'all' or names of letters, digits, '-' and '_', separated by commas")
        return ",".join(name.strip() for name in value.split(","))

    @field_validator("columns", mode="before", check_fields=False)
    @classmethod
    def _check_columns(cls, value: object) -> str | None:
        return normalize_columns(value)

    @field_validator("keep_columns", mode="before", check_fields=False)
    @classmethod
    def _check_kept_columns(cls, value: object) -> str | None:
        return normalize_kept(value)

    @field_validator("language_from", check_fields=False)
    @classmethod
    def _check_language_from(cls, value: str | None) -> str | None:
        if value is not None and not LANGUAGE.fullmatch(value):
            raise ValueError("must be 'folder', or the language of all videos, such as 'en' or 'pt-BR'")
        return value

    @field_validator("caption_languages", check_fields=False)
    @classmethod
    def _check_caption_languages(cls, value: str | None) -> str | None:
        names = [] if value is None else [name.strip() for name in value.split(",")]
        for name in names:
            if not LANGUAGE.fullmatch(name):
                raise ValueError("must be language tags such as 'en' or 'pt-BR', separated by commas")
        return ",".join(names) or None

    @field_validator("scorers", check_fields=False)
    @classmethod
    def _locate_networks(cls, value: str) -> str:
        return locate_networks(value)

    @field_validator("metrics_address", check_fields=False)
    @classmethod
    def _check_metrics_address(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value

    @field_validator("run_id", check_fields=False)
    @classmethod
    def _check_run_id(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value):
            raise ValueError("must be 1 to 64 letters, digits, '-', '_' and '.'")
        return value


def locate_networks(scorers: str) -> str:
    """Make the paths of networks in a list of scorers absolute, as workers may have another current folder."""
    names = [name.strip() for name in scorers.split(",")]
    is_path = [name.endswith((".yaml", ".yml")) and "://" not in name for name in names]
    return ",".join(str(Path(name).absolute()) if path else name for name, path in zip(names, is_path, strict=True))


def split_address(address: str) -> tuple[str, int]:
    """Split `port` or `host:port`; a port alone is one of this machine that others do not reach.

    Raises:
        ValueError: the port is missing or not a number from 0 to 65535.
    """
    host, _, port = address.strip().rpartition(":")
    if not port.isdecimal() or int(port) > MAX_PORT:
        raise ValueError("must be a port, such as 9464, or host:port, such as 0.0.0.0:9464")
    return host.strip("[]") or LOCALHOST, int(port)
