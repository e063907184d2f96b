import pytest

from audiopipe.segment.text import parse_markup


@pytest.mark.parametrize(
    ("markup", "text", "speaker", "sound_event"),
    [
        ("Hello &amp; <i>bye</i>", "Hello & bye", None, False),
        ("<v Mary Ann>Hello", "Hello", "Mary Ann", False),
        ("<v A>one</v> <v B>two</v>", "one two", None, False),
        (">> Hello.", "Hello.", None, False),
        ("&gt;&gt; JOHN: Hello.", "Hello.", "JOHN", False),
        (">> John Smith: Hello.", "Hello.", "John Smith", False),
        ("DR. SMITH: Hello.", "Hello.", "DR. SMITH", False),
        ("Note: hello", "Note: hello", None, False),
        ("THE RULE IS: WAIT", "THE RULE IS: WAIT", None, False),
        ("It is 12:30 now", "It is 12:30 now", None, False),
        ("- Hi.\n- Hello.", "Hi. Hello.", None, False),
        ("-Oui.\n-Non.", "Oui. Non.", None, False),
        ("-5 degrees", "-5 degrees", None, False),
        ("- Hi.\n- JOHN: what", "Hi. what", None, False),
        ("[Music]", None, None, True),
        ("[Музыка] да", "да", None, True),
        ("(wind blows)", None, None, True),
        ("so (or so) it was", "so (or so) it was", None, False),
        ("thank you (applause) all", "thank you all", None, True),
        ("（拍手）", None, None, True),
        ("♪ la la ♪", "la la", None, True),
        ("what the [ __ ] is it", "what the [ __ ] is it", None, False),
        ("2 * 3 * 4 = 24", "2 * 3 * 4 = 24", None, False),
    ],
)
def test_markup_becomes_text_speaker_and_flag(markup, text, speaker, sound_event):
    assert parse_markup(markup) == (text, speaker, sound_event)


def test_json_text_keeps_words_in_angle_brackets():
    assert parse_markup("a <b>bold</b> <unk> &#39;x&#39;", has_tags=False).text == "a bold <unk> 'x'"
