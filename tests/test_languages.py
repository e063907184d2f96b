import pytest

from audiopipe.languages import is_language, languages_match, rank_distance, same_language

MATCHES = [
    ("de", "ger"),
    ("de", "deu"),
    ("de-AT", "de"),
    ("en", "en-GB"),
    ("pt-BR", "pt"),
    ("pt-PT", "pt-BR"),
    ("es", "es-419"),
    ("zh-Hans", "zh-CN"),
    ("zh_Hans", "cmn"),
    ("zh", "zh-TW"),
    ("no", "nb"),
    ("no", "nn"),
    ("he", "iw"),
    ("fil", "tl"),
    ("ar", "arz"),
    ("sr", "sr-Latn"),
]
OTHERS = [
    ("sr", "hr"),
    ("sh", "hr"),
    ("da", "nb"),
    ("nb", "nn"),
    ("zh", "yue"),
    ("zh-Hans", "zh-TW"),
    ("zh-CN", "zh-HK"),
    ("sr-Cyrl", "sr-Latn"),
    ("id", "ms"),
    ("de", "gsw"),
    ("und", "en"),
    ("und", "und"),
    ("lang1", "lang1"),
]


@pytest.mark.parametrize(("tag", "other"), MATCHES)
def test_tags_of_one_language_match(tag, other):
    assert languages_match(tag, other)
    assert languages_match(other, tag)


@pytest.mark.parametrize(("tag", "other"), OTHERS)
def test_tags_of_different_languages_do_not_match(tag, other):
    assert not languages_match(tag, other)
    assert not languages_match(other, tag)


def test_scripts_are_one_spoken_language():
    assert same_language("zh-Hans", "zh-TW")
    assert not same_language("zh", "yue")


@pytest.mark.parametrize("tag", ["und", "mul", "zxx", "mis", "qaa", "lang1", "english", "xx", "title", ""])
def test_a_tag_that_names_no_language_is_unknown(tag):
    assert not is_language(tag)


def test_the_nearest_region_has_the_smallest_distance():
    assert sorted(["pt-PT", "pt-BR", "pt"], key=lambda tag: rank_distance("pt-BR", tag))[0] == "pt-BR"
    assert min(["zh-TW", "zh-CN"], key=lambda tag: rank_distance("zh", tag)) == "zh-CN"
