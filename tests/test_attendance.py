"""Who is blamed when several processes cannot go on: from signs alone."""

from typing import Any

from ecg_lightning.attendance import DONE, FOLLOWED, Sign, Verdict, judged


def sign(rank: int, **said: Any) -> Sign:
    """Of a process that trains."""
    given = {"host": "node", "space": "", "pid": 100 + rank, "beat": 9, "passed": 50, "still": 1.0}
    given |= {"at": "epoch 3, batch 7", "place": "net.py:8 in forward", "waits": False}
    return Sign(rank=rank, **{**given, **said})


def verdict_on(
    *signs: Sign, silent: tuple[float, ...] | None = None, dead: tuple[int, ...] = (), patience: float = 60
) -> Verdict | None:
    return judged(signs, silent or (0.0,) * len(signs), dead, patience=patience, silence=20)


def blamed(*signs: Sign, **arguments: Any) -> tuple[int, ...]:
    verdict = verdict_on(*signs, **arguments)
    return () if verdict is None else verdict.ranks


def test_processes_that_go_on_are_not_blamed() -> None:
    assert verdict_on(sign(0), sign(1), sign(2, still=59)) is None


def test_a_dead_process_is_named_with_where_it_was() -> None:
    verdict = verdict_on(sign(0, still=99, waits=True), sign(1), dead=(1,))
    said = "has ended (killed, by somebody or for want of memory); last seen at epoch 3, batch 7"
    assert verdict == ((1,), f"process 1 (pid 101 on node) {said}", False)


def test_an_error_of_one_process_is_passed_on() -> None:
    verdict = verdict_on(sign(0), sign(1, ended="OutOfMemoryError: 80 GB"))
    assert verdict is not None
    assert verdict.ranks == (1,)
    assert "has ended with OutOfMemoryError: 80 GB" in verdict.reason


def test_processes_that_ended_in_peace_are_not_blamed() -> None:
    signs = (sign(0), sign(1, ended=DONE), sign(2, ended=FOLLOWED))
    assert verdict_on(*signs, silent=(0, 99, 99), dead=(1, 2)) is None


def test_a_silent_process_is_gone_or_stopped_before_the_others_are_taken_to_hang() -> None:
    verdict = verdict_on(sign(0, still=99, waits=True), sign(1), silent=(0, 21))
    assert verdict is not None
    assert verdict.ranks == (1,)
    assert verdict.lives
    assert "gave no sign for 21 s" in verdict.reason


def test_the_process_that_the_others_wait_for_hangs() -> None:
    waiting = {"still": 70.0, "waits": True}
    assert blamed(sign(0, **waiting), sign(1, still=70), sign(2, **waiting)) == (1,)


def test_where_no_wait_is_seen_the_process_that_is_behind_hangs() -> None:
    """On a GPU a thread waits in whatever reads a number from the device."""
    assert blamed(sign(0, still=70, passed=51), sign(1, still=70)) == (1,)


def test_the_place_of_a_hanging_process_is_told() -> None:
    verdict = verdict_on(sign(0, still=67, waits=True), sign(1, still=66))
    assert verdict is not None
    assert (
        "has stood still for 66 s while the others wait, at epoch 3, batch 7, in net.py:8 in forward" in verdict.reason
    )


def test_a_process_that_others_wait_for_is_slow_as_long_as_it_passes_points() -> None:
    """It validates another batch, and another, while the one with fewer waits."""
    assert verdict_on(sign(0, still=400, waits=True), sign(1, still=5, passed=70), patience=600) is None
    assert blamed(sign(0, still=700, waits=True), sign(1, still=5, passed=70), patience=600) == ()


def test_where_all_wait_for_all_none_is_singled_out() -> None:
    verdict = verdict_on(sign(0, still=70, waits=True), sign(1, still=70, waits=True))
    assert verdict is not None
    assert verdict.ranks == (0, 1)
    assert verdict.reason.startswith("all 2 processes have stood still for 70 s")


def test_a_sign_survives_its_way_through_the_store() -> None:
    assert Sign.loaded(sign(1).dumped().encode()) == sign(1)
