# SPDX-License-Identifier: MIT
import gc
import itertools
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast.data import Loader, UnpairedDataset
from cyclegan_fast.errors import BadImageError, DataError


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(3)
    for folder, count in (("trainA", 5), ("trainB", 7)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    return UnpairedDataset(tmp_path, load_size=11, crop_size=8, cache_bytes=0, on_bad="fail")


def ours() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("cyclegan_fast.data.Loader")]


@pytest.fixture(autouse=True)
def no_thread_stays():
    assert ours() == []
    yield
    gc.collect()
    deadline = time.monotonic() + 10
    while ours() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ours() == []


def same(one, other) -> bool:
    tensors = all(torch.equal(one[key], other[key]) for key in ("A", "B"))
    return tensors and all(one[key] == other[key] for key in ("A_paths", "B_paths"))


class Scripted:
    """A data set whose batches are their steps; what happens at a step can be scripted."""

    def __init__(self, at=None):
        self.at, self.made = at or {}, []

    def batch(self, step, batch_size):
        self.made.append(step)
        if step in self.at:
            self.at[step]()
        return step

    def files(self, step, batch_size):
        return [f"file of step {step}"]


@pytest.mark.parametrize("threads, prefetch", [(0, 1), (1, 1), (1, 4), (2, 4), (3, 2)])
def test_the_same_batches_with_any_number_of_threads(dataset, threads, prefetch):
    expected = [dataset.batch(step, 2) for step in range(12)]
    with Loader(dataset, 2, threads=threads, prefetch=prefetch) as loader:
        for step, batch in enumerate(itertools.islice(loader, 12)):
            assert same(batch, expected[step]) and loader.step == step + 1


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_it_starts_at_any_step_and_ends_before_any(dataset, threads):
    with Loader(dataset, 3, start_step=5, stop_step=8, threads=threads) as loader:
        batches = list(loader)
        assert loader.step == 8 and next(loader, None) is None
    assert len(batches) == 3
    assert all(same(got, dataset.batch(5 + i, 3)) for i, got in enumerate(batches))
    assert list(Loader(dataset, 3, start_step=8, stop_step=8, threads=threads)) == []


def test_a_run_that_is_stopped_and_resumed_sees_what_it_would_have_seen(dataset):
    with Loader(dataset, 2, threads=2) as loader:
        first = list(itertools.islice(loader, 3))
        stopped_at = loader.step
    with Loader(dataset, 2, start_step=stopped_at, threads=2) as loader:
        first += itertools.islice(loader, 4)
    assert all(same(got, dataset.batch(step, 2)) for step, got in enumerate(first))


def test_order_holds_when_a_later_batch_is_ready_first():
    released = threading.Event()
    made_later = threading.Event()

    def wait():
        assert released.wait(10)

    data = Scripted({0: wait, 3: made_later.set})
    with Loader(data, threads=2, prefetch=4) as loader:
        loader._request()
        assert made_later.wait(10)  # step 3 is ready while step 0 still waits
        released.set()
        assert list(itertools.islice(loader, 4)) == [0, 1, 2, 3]


def test_it_runs_ahead_by_the_prefetch_and_no_further():
    reached = threading.Event()
    data = Scripted({5: reached.set})
    with Loader(data, threads=1, prefetch=3) as loader:
        assert [next(loader) for _ in range(3)] == [0, 1, 2]
        assert reached.wait(10)
        # Steps 3, 4 and 5 have been asked for; nothing asks for step 6.
        time.sleep(0.05)
        assert sorted(data.made) == [0, 1, 2, 3, 4, 5]
    with Loader(Scripted(), threads=0) as loader:
        next(loader)
        assert loader._dataset.made == [0]


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_an_error_arrives_as_itself_at_its_own_step(dataset, threads):
    broken = dataset.files(2)[0]
    with open(broken, "wb") as file:
        file.write(b"not a picture any more")
    before = list(
        itertools.takewhile(lambda step: broken not in dataset.files(step), itertools.count())
    )
    with Loader(dataset, threads=threads) as loader:
        for _ in before:
            next(loader)
        for _ in range(2):  # and it stays at that step
            with pytest.raises(BadImageError) as caught:
                next(loader)
            assert caught.value.path == broken and loader.step == len(before)


def test_a_read_that_hangs_is_named_and_does_not_hang_the_end():
    release = threading.Event()
    data = Scripted({1: lambda: release.wait(60)})
    with Loader(data, threads=1, timeout=0.2) as loader:
        assert next(loader) == 0
        with pytest.raises(DataError, match="no batch for 0.2 seconds at step 1; .*file of step 1"):
            next(loader)
        assert ours()[0].daemon
        started = time.monotonic()
    assert time.monotonic() - started < 30  # it did not wait for the read, which takes 60
    release.set()


def test_a_timeout_of_the_file_system_is_not_taken_for_ours():
    def fail():
        raise TimeoutError("network drive")

    with Loader(Scripted({0: fail}), threads=1) as loader:
        with pytest.raises(TimeoutError, match="network drive"):
            next(loader)


def test_closing_is_clean_final_and_can_be_repeated(dataset):
    loader = Loader(dataset, 2, threads=2)
    next(loader)
    loader.close()
    loader.close()
    assert ours() == []
    with pytest.raises(ValueError, match="it is closed; make a new one with start_step"):
        next(loader)
    Loader(dataset).close()  # without ever having been asked for a batch


def test_a_loader_that_nobody_holds_is_collected_and_its_threads_end(dataset):
    loader = Loader(dataset, 2, threads=2)
    next(loader)
    gone = weakref.ref(loader)
    del loader
    gc.collect()
    assert gone() is None


def test_no_batch_is_kept_alive_by_the_threads():
    class Batch:
        pass

    class Fresh(Scripted):
        def batch(self, step, batch_size):
            return Batch()

    with Loader(Fresh(), stop_step=3, threads=1) as loader:
        alive = [weakref.ref(batch) for batch in loader]
        del loader._dataset
        deadline = time.monotonic() + 10
        while any(ref() is not None for ref in alive) and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        assert [ref() for ref in alive] == [None] * 3


@pytest.mark.parametrize(
    "options, text",
    [
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"start_step": -1}, "start_step must be 0 or more, got -1"),
        ({"threads": -1}, "threads must be 0 or more, got -1"),
        ({"prefetch": 0}, "prefetch must be 1 or more, got 0"),
    ],
)
def test_wrong_options_are_named_and_start_no_thread(options, text):
    with pytest.raises(ValueError, match=text):
        Loader(Scripted(), **options)
