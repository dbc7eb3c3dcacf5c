"""UnlabelledECGs: the records of any stores, without labels, for pre-training; folds that judge stay out of it."""

from collections.abc import Sequence

from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.labelled_blocks import NoLabels
from ecg_lightning.data.labels import SPLITS
from ecg_lightning.data.residency import Residency
from ecg_lightning.data.sampler import SHUFFLE_RECORDS
from ecg_lightning.data.trained_on import PTBXL, source_name
from ecg_lightning.errors import UsageError, joined


class UnlabelledECGs(PTBXLDataModule):
    """The records of one store or of several, labels unread: all sources need is one signal.

    Args:
        stores: files that `ecg-lightning prepare` wrote for the backbone, or globs. Each entry is a source.
        batch_size: records of a global batch, split over the processes.
        train_folds: values of strat_fold to train on.
        val_folds: to judge the loss, and the linear probe, on; never trained on.
        test_folds: left alone; `[]` for an archive that nothing is tested on.
        with_test_fold: train on PTB-XL's fold 10, which every published result is tested on. The weights are then
            worthless for such a test, and say so.
        weights: of the entries of ``stores`` in training: how often their records are drawn, whatever their number.
        shuffle_records: records that are mixed at a time; a data set up to this size is shuffled as a whole.
        num_workers: threads that read ahead, so that no step waits; 0 reads in the one that trains.
        residency: where the signals lie in a fit: memmap, memory or device (see `PTBXLDataModule`).
        seed: of the order and the random windows (linked from seed_everything on the command line).
    """

    def __init__(
        self,
        stores: list[str] | str,
        *,
        batch_size: int = 256,
        train_folds: Sequence[int] = (1, 2, 3, 4, 5, 6, 7, 8),
        val_folds: Sequence[int] = (9,),
        test_folds: Sequence[int] = (10,),
        with_test_fold: bool = False,
        weights: Sequence[float] | None = None,
        shuffle_records: int = SHUFFLE_RECORDS,
        num_workers: int = 2,
        residency: Residency = "memmap",
        seed: int = 42,
    ) -> None:
        self.with_test_fold = with_test_fold
        super().__init__(
            stores,
            "none",
            batch_size=batch_size,
            train_folds=train_folds,
            val_folds=val_folds,
            test_folds=test_folds,
            weights=weights,
            shuffle_records=shuffle_records,
            keep="all",
            num_workers=num_workers,
            residency=residency,
            seed=seed,
        )

    def _labels(self) -> NoLabels:
        return NoLabels(self.stores)

    def _check(self) -> None:
        super()._check()
        seen = sorted({*self.folds["train"]} & {*SPLITS["test"]})
        ptbxl = [str(one.path) for one in self.stores.stores if source_name(one.attributes) == PTBXL]
        if seen and ptbxl and not self.with_test_fold:
            raise UsageError(
                f"data.train_folds holds fold {seen[0]}, on which PTB-XL's published results are tested, and "
                f"{joined(ptbxl)} is of PTB-XL: take it out, or say --data.with_test_fold true and never test on it"
            )
