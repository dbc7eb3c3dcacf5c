import pytest
from lightning.pytorch import Callback
from tiny import BATCHES, of_lightning, plan, tiny_classifier, tiny_data, tiny_trainer, train

from ecg_lightning.progress import Position, next_position

pytestmark = of_lightning


class Watch(Callback):
    """Notes the position that a checkpoint written in each hook would have."""

    def __init__(self):
        self.seen = {}

    def note(self, trainer, hook, batch=None):
        state = trainer.fit_loop.state_dict()
        self.seen[(hook, trainer.current_epoch, batch)] = next_position(state)

    def on_train_start(self, trainer, pl_module):
        self.note(trainer, "train_start")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.note(trainer, "batch_end", batch_idx)

    def on_validation_end(self, trainer, pl_module):
        self.note(trainer, "validation_end")

    def on_train_epoch_end(self, trainer, pl_module):
        self.note(trainer, "epoch_end")


@pytest.fixture(scope="module")
def seen(tiny_store, tmp_path_factory):
    watch = Watch()
    trainer, _ = train(tmp_path_factory.mktemp("run"), tiny_store, plan(1, 1), watch)
    return {**watch.seen, "behind": next_position(trainer.fit_loop.state_dict())}


def test_a_fresh_run_starts_at_the_first_batch(seen):
    assert seen[("train_start", 0, None)] == Position(0, 0)


@pytest.mark.parametrize("epoch", [0, 1])
def test_inside_an_epoch_the_next_batch_comes_next(seen, epoch):
    assert [seen[("batch_end", epoch, batch)] for batch in range(BATCHES - 1)] == [
        Position(epoch, batch + 1) for batch in range(BATCHES - 1)
    ]


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize(("hook", "batch"), [("batch_end", BATCHES - 1), ("validation_end", None), ("epoch_end", None)])
def test_behind_the_last_batch_the_next_epoch_comes_next(seen, epoch, hook, batch):
    assert seen[(hook, epoch, batch)] == Position(epoch + 1, 0)


def test_a_finished_run_stands_behind_its_last_epoch(seen):
    assert seen["behind"] == Position(2, 0)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize("limit", [2, 3])
def test_a_run_stopped_by_max_steps_stands_at_the_batch_behind_them(tiny_store, tmp_path, limit):
    trainer = tiny_trainer(tmp_path, plan(0, 2), max_epochs=2, max_steps=BATCHES + limit)
    trainer.fit(tiny_classifier(), tiny_data(tiny_store))
    assert next_position(trainer.fit_loop.state_dict()) == Position(1, limit)


def test_fewer_batches_by_the_trainers_limit_end_the_epoch_as_well(tiny_store, tmp_path):
    watch = Watch()
    train(tmp_path, tiny_store, plan(0, 1), watch, limit_train_batches=2)
    assert watch.seen[("batch_end", 0, 0)] == Position(0, 1)
    assert watch.seen[("batch_end", 0, 1)] == Position(1, 0)
