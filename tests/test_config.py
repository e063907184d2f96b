import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiopipe.config import RunConfig
from audiopipe.errors import ConfigError

REQUIRED = {"catalog": "videos.parquet", "output": "out"}


def test_two_parameters_are_enough() -> None:
    config = RunConfig.of(**REQUIRED)
    assert (config.sample_rate, config.audio_format, config.languages) == (16_000, "flac", None)


def test_an_unknown_parameter_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="unknown parameter 'windows_s': did you mean 'window_s'"):
        RunConfig.of(**REQUIRED, windows_s=3)


def test_an_unknown_parameter_without_a_near_match_says_where_all_are() -> None:
    with pytest.raises(ConfigError, match="`audiopipe explain` lists them"):
        RunConfig.of(**REQUIRED, zzz=3)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"output": "out"}, "parameter 'catalog' is required"),
        ({**REQUIRED, "window_s": "five"}, "parameter 'window_s' 'five': input should be a valid number"),
        ({**REQUIRED, "window_s": 0.1}, "parameter 'window_s' 0.1: input should be greater than or equal to 0.4"),
        ({**REQUIRED, "audio_format": "wma"}, "'flac', 'wav', 'opus' or 'mp3'"),
        ({**REQUIRED, "min_snr_db": float("nan")}, "parameter 'min_snr_db' nan: input should be a finite number"),
        ({**REQUIRED, "partition_index": 4, "partition_count": 4}, "partition_index must be below partition_count"),
        ({**REQUIRED, "min_segment_s": 40.0}, "min_segment_s must be below max_segment_s"),
        ({**REQUIRED, "window_s": 40.0}, "window_s must not exceed max_segment_s"),
        ({**REQUIRED, "audio_format": "opus", "sample_rate": 22_050}, "sample_rate must be 8000, 12000"),
        ({**REQUIRED, "language": "en,../x"}, "parameter 'language' 'en,../x': must be 'all' or names"),
        ({**REQUIRED, "run_id": "a/b"}, "parameter 'run_id' 'a/b': must be 1 to 64"),
        ({**REQUIRED, "catalog": " "}, "parameter 'catalog' ' ': is empty"),
    ],
)
def test_an_impossible_value_is_refused_by_name_with_what_is_allowed(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        RunConfig.of(**parameters)
    assert message in str(error.value)


def test_all_wrong_parameters_are_reported_at_once() -> None:
    with pytest.raises(ConfigError, match=r"'window_s'.*'retries'"):
        RunConfig.of(**REQUIRED, window_s="x", retries=-1)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as error:
        RunConfig.of(catalog="videos.parquet", output="s3://key:canary@bucket/out")
    assert "canary" not in str(error.value)
    assert "environment" in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig.of(**REQUIRED).window_s = 3.0  # type: ignore[misc]


def test_the_digest_covers_exactly_what_the_output_depends_on() -> None:
    digest = RunConfig.of(**REQUIRED).digest
    run_parameters = {
        "catalog": "b.parquet",
        "output": "c",
        "workers": 3,
        "retries": 0,
        "decoders": 1,
        "partition_count": 5,
    }
    assert RunConfig.of(**run_parameters).digest == digest
    for name, value in {"window_s": 4.0, "min_snr_db": None, "sample_rate": 8_000, "batch_segments": 64}.items():
        assert RunConfig.of(**REQUIRED, **{name: value}).digest != digest, name


def test_every_field_is_a_flat_scalar_with_a_description() -> None:
    for name, info in RunConfig.model_fields.items():
        assert info.description, name
        if not info.is_required():
            assert isinstance(info.default, (str, int, float, type(None))), name


@given(st.text(min_size=1, max_size=50))
def test_a_language_is_either_refused_or_safe_as_a_folder(name: str) -> None:
    try:
        languages = RunConfig.of(**REQUIRED, language=name).languages
    except ConfigError:
        return
    for language in languages or ():
        assert language.replace("-", "").replace("_", "").isalnum()
        assert language != "reports"
        assert not language.startswith(("_", "-"))
