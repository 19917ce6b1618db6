"""The process that deletes the private folder of a server when the server has ended, however it did."""

from __future__ import annotations

import os
import shutil
import signal
import sys


def main() -> None:
    """Wait until standard input ends, which the server holds open, then delete the folder `sys.argv[1]`."""
    os.setpgrp()  # out of reach of Ctrl-C in the terminal of the server
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.buffer.read()
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
