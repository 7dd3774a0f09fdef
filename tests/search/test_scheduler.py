from __future__ import annotations

from bvae_tune.search.scheduler import failure_in_words


def test_failures_are_told_in_one_line() -> None:
    lost = "The actor died unexpectedly before finishing this task.\n\tclass_name: BetaVAETrainable\n\tpid: 3\n"
    raised = "ray::step() (pid=3)\n  File ...\nOSError: [Errno 5] Input/output error: 'x'\n"
    file = f"Failure # 1 (occurred at now)\n{lost}Failure # 2 (occurred at now)\n{raised}"
    assert failure_in_words(file) == "OSError: [Errno 5] Input/output error: 'x'"
    assert failure_in_words(file[: file.index("Failure # 2")]).startswith("the worker was lost: The actor died")
    assert failure_in_words("") == "the worker failed without a word"
