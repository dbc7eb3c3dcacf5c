"""Pre-trainings that cannot be, or must not."""

from bad_row import Row

ON = "--data.stores STORE --run run --trainer.accelerator cpu --trainer.enable_progress_bar false"
PRETRAIN = f"pretrain --model.backbone vit --model.backbone.depth 1 --model.backbone.dim 12 {ON}"

ROWS = (
    Row(
        "a network without patches",
        f"pretrain --model.backbone s4 {ON}",
        ("s4", "no grid of patches", "choose vit"),
        code=2,
    ),
    Row("one patch", f"{PRETRAIN} --model.backbone.patch [12,1000]", ("one patch", "model.backbone.patch"), code=2),
    Row("everything masked", f"{PRETRAIN} --model.mask_ratio 1", ("model.mask_ratio is 1", "between 0 and 1"), code=2),
    Row("a decoder of no depth", f"{PRETRAIN} --model.decoder_depth 0", ("decoder_depth is 0", "1 or more")),
    Row("no epochs", f"{PRETRAIN} --pretraining.epochs 0", ("pretraining.epochs is 0", "nothing to train"), code=2),
    Row(
        "a longer rise than there are epochs",
        f"{PRETRAIN} --pretraining.epochs 2 --pretraining.warmup_epochs 3",
        ("warmup_epochs is 3", "above 2"),
        code=2,
    ),
    Row(
        "the test fold",
        f"{PRETRAIN} --data.train_folds [1,10] --data.test_folds [9] --data.val_folds [8]",
        ("fold 10", "--data.with_test_fold true"),
        code=2,
    ),
    Row("one fold to train and to judge", f"{PRETRAIN} --data.train_folds [1,9]", ("[9]", "data.val_folds"), code=2),
    Row(
        "no store",
        "pretrain --model.backbone vit --data.stores gone.h5 --run run",
        ("gone.h5 does not exist", "ecg-lightning prepare"),
    ),
    Row(
        "weights of nothing",
        f"{PRETRAIN} --model.weights gone.safetensors",
        ("gone.safetensors is no file",),
        process=True,
    ),
)
