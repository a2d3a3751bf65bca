"""How both sides are configured: TOML text to frozen sections, where a misspelt key is an error."""

import tomllib
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from protocol.errors import BadInputError

Port = Annotated[int, Field(ge=1, le=65_535)]


class Section(BaseModel):
    """One table of a settings file; a part is handed the section that it needs, never the whole."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Settings(BaseSettings):
    """A whole settings file; variables of the environment stand above it."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, env_nested_delimiter="__"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @classmethod
    def parse(cls, text: str, *, source: str) -> Self:
        """Read the text of a settings file.

        Args:
            text: TOML.
            source: how an error names it, such as its path.

        Raises:
            BadInputError: no TOML, or a key or value is wrong; the first fault is named.
        """
        try:
            return cls(**tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise BadInputError(f"{source} is no TOML: {error}") from error
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise BadInputError(f"{source}: {where}: {fault['msg']}") from error
        except SettingsError as error:  # only the environment is read this way
            raise BadInputError(f"the environment: {error}", advice="see docs/settings.md") from error
