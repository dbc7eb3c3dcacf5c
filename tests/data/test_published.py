import shutil
import subprocess

import pytest
import requests
from made_up_ptbxl import REFERENCES, read_rows, write_table
from ptbxl_server import LIST, RECORD, STATEMENTS, TABLE, digests, of_rate, run, serving, status, write_list

from ecg_lightning.data import published
from ecg_lightning.data import server as server_module
from ecg_lightning.data.inventory import NAME
from ecg_lightning.errors import InputError


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f"{'0' * 64} ../outside.txt", r"the path '\.\./outside\.txt' leads out of the folder"),
        (f"{'0' * 64} records100/../../outside.txt", "leads out of the folder"),
        (f"{'0' * 64}  /tmp/outside.txt", "the path '/tmp/outside.txt' leads out"),
        (f"{'0' * 64} *C:\\outside.txt", "leads out of the folder or is no plain path"),
        (f"{'0' * 64} {NAME}", "no plain path"),
        (f"{'0' * 64} {RECORD}.partial", "no plain path"),
        (f"{'0' * 64} {RECORD}", f"{RECORD} stands there twice, with two hashes"),
        (f"{'0' * 63} short.txt", "it must be a SHA-256 and a path"),
        ("<html>Log in to the network</html>", r"line 85 is '<html>.*a portal or proxy may also have answered"),
    ],
)
def test_a_list_that_cannot_be_trusted_is_refused_before_anything_else_is_fetched(tree, server, output, line, told):
    with (tree / LIST).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=told):
        run(server, output)
    assert server.paths == [LIST]
    assert not output.exists()
    assert not (output.parent / "outside.txt").exists()


def test_a_list_in_the_other_usual_form_is_read(tree, server, output):
    lines = (tree / LIST).read_text().splitlines()
    (tree / LIST).write_text("".join(f"{line[:64].upper()} *./{line[65:]}\r\n" for line in lines))
    run(server, output)
    assert digests(output) == of_rate(tree)


def test_another_version_of_the_data_set_is_refused(tree, server, output):
    write_table(tree, read_rows(tree)[:-1])
    write_list(tree)
    with pytest.raises(InputError, match=rf"sha256 of {TABLE} is {digests(tree)[TABLE]}, of PTB-XL 1\.0\.3 it is"):
        run(server, output)
    assert server.paths == [LIST]


def test_the_hashes_that_are_known_are_those_of_the_published_tables():
    known = published.known_hashes()
    assert known[STATEMENTS] == digests(REFERENCES)[STATEMENTS]
    assert known[TABLE] == "7600de9c1b27d181d850b3c6038a35d7c3ddb6bb33b702e3a20252a6859d216b"


def test_a_list_that_lacks_files_of_a_record_is_refused_before_the_records_are_fetched(tree, server, output):
    lines = (tree / LIST).read_text().splitlines(keepends=True)
    (tree / LIST).write_text("".join(line for line in lines if RECORD not in line))
    with pytest.raises(InputError, match=rf"SHA256SUMS\.txt is not whole: {RECORD} is not in it"):
        run(server, output)
    assert server.paths == [LIST, TABLE]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_to_another_scheme_is_not_followed(server, output, target):
    server.faults[LIST] = [status(302, Location=target)]
    with pytest.raises(InputError, match=rf"sends on to '{target}', from http to .* which is not followed"):
        run(server, output)
    assert not output.exists()


def test_a_redirect_from_https_to_http_is_not_followed_the_other_way_it_is():
    answer = requests.Response()
    answer.status_code = 302
    for before, after in (("https", "http"), ("http", "https")):
        answer.url = f"{before}://physionet.org/files/ptb-xl/1.0.3/{LIST}"
        answer.headers["location"] = f"{after}://physionet.org/{LIST}"
        with server_module._Session() as session:
            if before == "http":
                assert session.get_redirect_target(answer) == answer.headers["location"]
            else:
                with pytest.raises(InputError, match="from https to http, which is not followed"):
                    session.get_redirect_target(answer)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_certificate_of_ones_own_house_is_refused_until_it_is_named(tree, output, tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + certificate.read_text())
    with serving(tree, certificate=both) as server:
        with pytest.raises(InputError, match=r"certificate of https://.* cannot be verified .*REQUESTS_CA_BUNDLE=FILE"):
            run(server, output)
        assert (server.asked, output.exists()) == ([], False)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        run(server, output)
    assert digests(output) == of_rate(tree)


def test_a_redirect_within_http_is_followed(tree, server, output):
    expected = of_rate(tree)
    (tree / "elsewhere").mkdir()
    shutil.copy(tree / RECORD, tree / "elsewhere" / "record.dat")
    server.faults[RECORD] = [status(302, Location="/elsewhere/record.dat")]
    run(server, output)
    assert digests(output) == expected


def test_a_folder_of_another_version_is_not_made_a_mixture(tree, server, output):
    output.mkdir()
    (output / TABLE).write_text("ecg_id,of,another,version\n")
    with pytest.raises(InputError, match=r"is there already and is not that of PTB-XL 1\.0\.3 .*name another --output"):
        run(server, output)
    assert (output / TABLE).read_text() == "ecg_id,of,another,version\n"
    assert server.paths == [LIST]
