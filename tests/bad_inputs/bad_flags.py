"""Every command with flags that are wrong, and trees that the rest of the commands cannot use."""

from bad_row import Here, Row, file

from ecg_lightning.cli import COMMANDS

GRID = "experiment grid.yaml --output runs FIT --data.store STORE"
DOWNLOAD = "download --output there --url http://127.0.0.1:9/"


def grid(text: str | bytes) -> object:
    return file("grid.yaml", text)


def folder(here: Here) -> None:
    (here.path / "there").mkdir()


def of_another_version(here: Here) -> None:
    here.write("there/ptbxl_database.csv", "ecg_id\n1\n")
    here.write("there/SHA256SUMS.txt", "0" * 64 + "  ../../escaped\n")


ROWS = (
    *(
        Row("an unknown flag", f"{command} --colour red", ("colour", f"ecg-lightning {command} --help"), code=2)
        for command in COMMANDS
        if command not in ("fit", "validate", "test", "experiment")
    ),
    Row("an unknown flag", "fit FIT --data.store STORE --run run --colour red", ("colour", "ecg-lightning fit --help"), code=2),
    Row("no command", "train", ("unknown command 'train'", "known are demo, download"), code=2, process=True),
    Row("a rate that is none", "download --output there --rate 250", ("rate", "100"), code=2),
    Row("no connection", f"{DOWNLOAD} --connections 0", ("connections 0", "--connections 1 to 32"), code=2),
    Row("a timeout of none", f"{DOWNLOAD} --timeout -1", ("--timeout more than 0",), code=2),
    Row("an address that is none", "download --output there --url ftp://nowhere/", ("ftp://nowhere/", "--url"), code=2),
    Row("a file of another server", "download --output there --url file:///etc/", ("file:///etc/", "--url"), code=2),
    Row("an output that is a file", DOWNLOAD, ("there", "--output"), file("there", "text")),
    Row("no records", "synthesize --output new --records 0", ("--records", "0"), code=2),
    Row("records below zero", "synthesize --output new --records -5", ("--records", "-5"), code=2, process=True),
    Row("a seed below zero", "synthesize --output new --records 5 --seed -1", ("--seed", "-1"), code=2),
    Row("an output that is there", "synthesize --output there --records 5", ("there", "--output"), folder),
    Row("an output below a file", "synthesize --output file/new --records 5", ("file/new", "--output"), file("file", "x")),
    Row("nothing to look at", "inspect", ("STORE, RUN or --backbone NAME",), code=2),
    Row("two things to look at", "inspect STORE --backbone vit", ("one thing to look at",), code=2),
    Row("an unknown backbone", "inspect --backbone vitt", ("'vitt'", "known are")),
    Row("an ECG that is not there", "inspect STORE --plot 999", ("999", "store.h5")),
    Row("an ECG that is a word", "inspect STORE --plot seven", ("seven",)),
    Row("a picture of another kind", "inspect STORE --plot 3 --output a.xlsx", ("a.xlsx", ".png"), code=2),
    Row("a page that is there", "inspect STORE --html page.html", ("page.html", "--overwrite"), file("page.html", "x")),
    Row("no network", "embed --store STORE --output out.npz", ("--run RUN or --backbone NAME",), code=2),
    Row("features of another kind", "embed --backbone vit --store STORE --output out.csv", ("out.csv", ".npz"), code=2),
    Row("features below a file", "embed --backbone vit --sizes SIZES --store STORE --output file/out.npz", ("file/out.npz", "--output", "it would have to be a folder"), file("file", "x")),
    Row("a demo of no epochs", "demo --output new --probe_epochs 0", ("--probe_epochs is 0", "set 1 or more"), code=2),
    Row("a demo into a file", "demo --output file", ("--output file is a file", "choose another name"), file("file", "x"), code=2),
    Row("no grid", "experiment none.yaml --output runs", ("none.yaml", "shipped are"), code=2, process=True),
    Row("a grid that is a list", GRID, ("grid.yaml", "mapping"), grid("[1]"), code=2),
    Row("a grid that is empty", GRID, ("grid.yaml",), grid(""), code=2),
    Row("a grid that is no yaml", GRID, ("grid.yaml",), grid("a: [1"), code=2),
    Row("a grid of bytes", GRID, ("grid.yaml",), grid(b"\xff\xfe\x00"), code=2),
    Row("a grid that runs code", GRID, ("grid.yaml",), grid("axes: !!python/object/apply:os.system ['touch ran_code']"), code=2),
    Row("a grid of an alias of itself", GRID, ("grid.yaml",), grid("axes: &a {seed: *a}"), code=2),
    Row("a grid with an unknown key", GRID, ("grid.yaml", "colour"), grid("colour: red\naxes: {seed: {flag: seed_everything, values: [1]}}"), code=2),
    Row("no run at once", f"{GRID} --parallel 0", ("--parallel is 0", "1 or more"), grid("axes: {seed: {flag: seed_everything, values: [1]}}"), code=2),
)  # fmt: skip
