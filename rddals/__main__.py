"""``python -m rddals app.py ARGS...``: run a script written for MLlib, unmodified.

What the script imports from ``pyspark.mllib.recommendation`` is ours. For the rest it runs as
``python app.py ARGS...`` would run it.
"""

from __future__ import annotations

import io
import os
import sys
from functools import partial
from importlib.machinery import SourceFileLoader
from types import ModuleType, TracebackType
from typing import Any

from rddals.drop_in import install

USAGE = """\
usage: python -m rddals SCRIPT [ARGS...]

Runs a script in which pyspark.mllib.recommendation gives rddals.
(The command line is another program: rddals --help.)
"""


def main(arguments: list[str]) -> None:
    """Run the script that the first argument names; the others are its own."""
    if not arguments or arguments[0] in ("-h", "--help"):
        (sys.stdout if arguments else sys.stderr).write(USAGE)
        sys.exit(0 if arguments else 2)
    script = os.path.abspath(arguments[0])
    try:
        with io.open_code(script) as file:
            source = file.read()
    except OSError as error:
        sys.stderr.write(f"python -m rddals: {arguments[0]!r} cannot be read: {error.strerror}\n")
        sys.exit(2)
    install()
    sys.argv = arguments
    if not getattr(sys.flags, "safe_path", False):  # since Python 3.11
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    sys.excepthook = partial(_from_the_script_on, sys.excepthook, script)
    module = ModuleType("__main__")
    vars(module).update(
        __file__=script,
        __cached__=None,
        __loader__=SourceFileLoader("__main__", script),
        __builtins__=__builtins__,
    )
    sys.modules["__main__"] = module
    exec(compile(source, script, "exec", dont_inherit=True), vars(module))


def _from_the_script_on(
    hook: Any,
    script: str,
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
) -> None:
    """Show an uncaught error without the frames that led to the script."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename != script:
        traceback = traceback.tb_next
    hook(kind, error.with_traceback(traceback), traceback)


if __name__ == "__main__":
    main(sys.argv[1:])
