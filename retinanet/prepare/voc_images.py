"""The image that each Pascal VOC annotation file describes, wherever the two are in a data set's folder."""

import unicodedata
from pathlib import Path, PurePosixPath

from retinanet.data.file_names import is_other_split, path_parts, split_of_name
from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.prepare.listing import images_below


class ImageFolder:
    """The images of a folder and its subfolders, by path and by name without ending."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError if there is no such folder."""
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of images")
        self.folder = folder
        self.names = {path.relative_to(folder).as_posix() for path in images_below(folder)}
        self._by_path: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        self._by_name: dict[str, list[str]] = {}
        for name in sorted(self.names):
            path = PurePosixPath(name)
            self._by_path.setdefault(path.with_suffix("").as_posix(), []).append(name)
            self._by_stem.setdefault(_folded(path.stem), []).append(name)
            self._by_name.setdefault(_folded(path.name), []).append(name)

    def find(self, label: str, written: str, notes: KindNotes) -> str:
        """The file name of the image that <label>.xml describes; its <filename> is `written`.

        label: path of the file without ending, relative to the folder of annotations. The path decides, as in VOC's own
        folders, then the last name; `written` decides between several images and where no name matches.
        Raises DataError.
        """
        candidates = self._by_path.get(label, [])
        if len(candidates) == 1 or written in candidates or (not candidates and written in self.names):
            return written if written in candidates or not candidates else candidates[0]
        last = (path_parts(written) or [""])[-1]
        if not candidates:
            found = self._by_stem.get(_folded(PurePosixPath(f"{label}.xml").stem)) or self._by_name.get(_folded(last))
            candidates = self._nearest(label, found or [])
        if len(candidates) > 1:
            candidates = [name for name in candidates if PurePosixPath(name).name == last] or candidates
        if len(candidates) > 1:
            raise DataError(f"several images match ({', '.join(candidates)}) and <filename> names none of them")
        if not candidates:
            raise DataError(
                f"no image {label}.* in {self.folder} (<filename> is {written!r}); add the image, or remove the label"
            )
        notes.add("label files are called otherwise than their images", f"{label}.xml is of {candidates[0]}")
        return candidates[0]

    @staticmethod
    def _nearest(label: str, found: list[str]) -> list[str]:
        """Those of the label's own subfolder if there are any, and none of another split."""
        own = PurePosixPath(label).parent
        near = [name for name in found if PurePosixPath(name).parent == own]
        split = next((meant for part in own.parts if (meant := split_of_name(part))), None)
        return near or [name for name in found if not is_other_split(name, split)]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
