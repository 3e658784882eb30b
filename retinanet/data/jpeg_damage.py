"""Damage within the scan of a JPEG, which decoders pass over: they make up the pixels behind it."""

import os
import re
from pathlib import Path
from tempfile import TemporaryFile

from retinanet.data.images import decode_image
from retinanet.errors import DataError


def jpeg_warning(path: Path) -> str:
    """What libjpeg warns of while it decodes a file, such as "premature end of data segment"; empty: nothing.

    It prints that to the process's stderr, which is redirected meanwhile: call it from one thread.
    """
    with TemporaryFile() as caught:
        before = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            decode_image(path, warn=False)
        except DataError:
            return ""  # reported where it is decoded for its own sake
        finally:
            os.dup2(before, 2)
            os.close(before)
        caught.seek(0)
        found = re.search(rb"Corrupt JPEG data: (.*)", caught.read())
    return found[1].decode("ascii", "replace") if found else ""
