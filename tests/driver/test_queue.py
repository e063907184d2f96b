from factories import shard_of

from audiopipe.driver.queue import ShardQueue


def test_returned_shards_come_first_and_postponed_ones_last() -> None:
    a, b, c, d = (shard_of([], index=index) for index in range(4))
    queue = ShardQueue(iter([a, b, c, d]), 4)
    assert queue.take() is a
    assert queue.take() is b
    queue.postpone(a)
    queue.return_all([b])
    assert len(queue) == 4
    assert queue.take(d.name) is None, "only a shard that was taken before can be asked for by name"
    assert queue.take(a.name) is a
    assert list(queue.take_all()) == [b, c, d]
    assert not queue
    assert queue.take() is None


def test_a_planned_shard_is_created_when_it_is_taken() -> None:
    created = []

    def create():
        for index in range(3):
            created.append(index)
            yield shard_of([], index=index)

    queue = ShardQueue(create(), 3)
    assert (len(queue), created) == (3, [])
    queue.take()
    assert created == [0]
