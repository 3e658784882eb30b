"""Texts of a report without the folders of the machine that wrote it: reports are passed on."""

import re
from pathlib import Path

_FOLDERS = re.compile(r"""(?<![\w./\\-])(?:/(?:[^\s/'"`,;:()\[\]<>|]+/)+|[A-Za-z]:\\(?:[^\s\\'"`,;:<>|]+\\)+)""")
"""The folders of an absolute path, up to its last separator."""


def without_machine_paths(text: str) -> str:
    """The text with the folders of absolute paths replaced by "…/"; paths below the working folder become relative."""
    home, here = str(Path.home()), str(Path.cwd())
    for known, shown in ((here, ""), (home, "…/")):
        if len(known) > 1:
            text = text.replace(f"{known}/", shown)
    return _FOLDERS.sub("…/", text)
