"""Zip archives as torch writes them, verified before torch reads them: it checks neither checksums nor sizes."""

import zipfile
import zlib
from pathlib import Path

_DIRECTORY = 0x10  # MS-DOS's attribute, by which torch's reader takes a record for a folder


def damage_of_archive(path: Path) -> str:
    """What is wrong with an archive, as the end of a sentence that begins with its path; empty if nothing is.

    torch stores records uncompressed. Compressed or overlapping ones can be larger than the file by any factor, and
    where a flipped bit says that a record is compressed or a folder, torch reads other data than zipfile.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            odd = [record.filename for record in records if record.compress_type or record.external_attr & _DIRECTORY]
            if odd:
                return f"damaged, or not written by torch: its record {odd[0]!r} is compressed or a folder"
            total, size = sum(record.file_size for record in records), path.stat().st_size
            if total > size:
                return f"damaged, or made to fill the memory: {size:,} bytes hold records of {total:,} bytes"
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, OSError, EOFError) as error:
        return f"cut short or damaged ({error!s:.200})"
    return "" if damaged is None else f"damaged: its record {damaged!r} does not match its checksum"
