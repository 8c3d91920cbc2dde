"""``python -m rddals app.py ARGS...``: run an unmodified script that uses MLlib's ALS.

Imports from ``pyspark.mllib.recommendation`` give the classes of rddals. In every other respect the
script runs as with ``python app.py ARGS...``.
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

Run a script with the classes of rddals in place of pyspark.mllib.recommendation.
(The command-line interface is a separate program: rddals --help, or python -m rddals.cli --help.)
"""


def main(arguments: list[str]) -> None:
    """Run the script named by the first argument with the remaining arguments."""
    if not arguments or arguments[0] in ("-h", "--help"):
        (sys.stdout if arguments else sys.stderr).write(USAGE)
        sys.exit(0 if arguments else 2)
    script = os.path.abspath(arguments[0])
    try:
        with io.open_code(script) as file:
            source = file.read()
    except OSError as error:
        remedy = "" if script.endswith(".py") else "; the command line is python -m rddals.cli"
        sys.stderr.write(
            f"python -m rddals: {arguments[0]!r} cannot be read: {error.strerror}{remedy}\n"
        )
        sys.exit(2)
    install()
    sys.argv = arguments
    if not getattr(sys.flags, "safe_path", False):  # since Python 3.11
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    sys.excepthook = partial(_script_excepthook, sys.excepthook, script)
    module = ModuleType("__main__")
    vars(module).update(
        __file__=script,
        __cached__=None,
        __loader__=SourceFileLoader("__main__", script),
        __builtins__=__builtins__,
    )
    sys.modules["__main__"] = module
    exec(compile(source, script, "exec", dont_inherit=True), vars(module))


def _script_excepthook(
    hook: Any,
    script: str,
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
) -> None:
    """Report an uncaught error without the frames outside the script."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename != script:
        traceback = traceback.tb_next
    hook(kind, error.with_traceback(traceback), traceback)


if __name__ == "__main__":
    main(sys.argv[1:])
