import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiopipe.dataset.sample_order import FIRST_SAMPLES, SampleOrder


def order_of(samples, names="abc"):
    order = SampleOrder(list(names))
    written = [ready for number, present in enumerate(samples) for ready in order.add(number, present)]
    waiting = len(samples) - len(written)
    return [*written, *order.finish()], waiting


@pytest.mark.parametrize(
    ("samples", "expected", "waiting"),
    [
        (["abc", "a", ""], [0, 1, 2], 0),
        (["a", "a", "a", "abc", "a"], [3, 0, 1, 2, 4], 0),
        (["a", "a", "b", "a", "c", "abc"], [0, 2, 4, 1, 3, 5], 0),
        (["", "", "", "", "", "", "a"], [6, 0, 1, 2, 3, 4, 5], 7),  # b and c never come
        (["", ""], [0, 1], 2),
        ([], [], 0),
    ],
)
def test_first_samples_have_all_metrics_between_them(samples, expected, waiting):
    assert order_of(samples) == (expected, waiting)


@given(st.lists(st.sets(st.sampled_from("abcd"))))
def test_no_sample_is_lost_and_few_are_moved(samples):
    order, _ = order_of(samples, "abcd")
    assert sorted(order) == list(range(len(samples)))
    assert set().union(*(samples[number] for number in order[:FIRST_SAMPLES])) == set().union(*samples)
    rest = [number for number in order if number not in order[:FIRST_SAMPLES]]
    assert rest == sorted(rest)
