"""Kinds of photographs, drawings and films that are not read, and what turns them into images that are.

Imports no tensor library.
"""

from collections import Counter
from collections.abc import Container, Iterable
from pathlib import Path

from retinanet.errors import one_line

_FILMS = ("mp4", "m4v", "mov", "avi", "mkv", "webm", "wmv", "mpg", "mpeg", "mts", "m2ts", "3gp", "flv")
_RAW = ("cr2", "cr3", "nef", "arw", "dng", "orf", "rw2", "raf", "pef", "srw", "raw")
_CONVERT = "magick mogrify -format jpg"

_KINDS = {
    **dict.fromkeys(_FILMS, ("a film", "")),
    **dict.fromkeys(_RAW, ("a camera's raw file", "export it as JPEG or TIFF with the camera's program")),
    "heic": ("a HEIC image", f"convert it to JPEG, for example with ImageMagick: {_CONVERT} {{}}"),
    "heif": ("a HEIF image", f"convert it to JPEG, for example with ImageMagick: {_CONVERT} {{}}"),
    "avif": ("an AVIF image", "this Pillow cannot read it: update it (pip install -U pillow)"),
    "jxl": ("a JPEG XL image", "convert it to PNG with libjxl: djxl {} {stem}.png"),
    "svg": ("a drawing (SVG)", "draw it as PNG, for example with librsvg: rsvg-convert {} -o {stem}.png"),
    "psd": ("a Photoshop file", "export it as PNG or JPEG"),
    "pdf": ("a PDF document", "draw its pages as PNG, for example with poppler: pdftoppm -png {} page"),
    "npy": ("a NumPy array", "write it as PNG: PIL.Image.fromarray(numpy.load('{}')).save('{stem}.png')"),
    "nii": ("a volume (NIfTI)", "write its slices as 16-bit PNG, and see data.depth_range"),
    "exr": ("an OpenEXR image", "convert it to 16-bit PNG, and see data.depth_range"),
    "ico": ("an icon", "convert it to PNG, for example with ImageMagick: magick {} {stem}.png"),
    "dcm": ("a DICOM image", "export it as 16-bit PNG with a DICOM viewer, and see data.depth_range"),
}
"""Suffix -> what it is, and the remedy; `{}` stands for the file."""

_STARTS = (
    (4, b"ftypheic", "heic"), (4, b"ftypheix", "heic"), (4, b"ftypmif1", "heif"), (4, b"ftypmsf1", "heif"),
    (4, b"ftypavif", "avif"), (4, b"ftyp", "mp4"), (4, b"moov", "mov"), (0, b"\x1aE\xdf\xa3", "mkv"),
    (8, b"AVI ", "avi"), (0, b"\x00\x00\x00\x0cJXL ", "jxl"), (0, b"\xff\x0a", "jxl"), (0, b"<svg", "svg"),
    (0, b"8BPS", "psd"), (0, b"%PDF", "pdf"), (0, b"\x93NUMPY", "npy"), (0, b"\x00\x00\x01\x00", "ico"),
)  # fmt: skip
"""Offset and bytes at the start of a file that give its kind, whatever its name."""


def unread_remedy(path: Path, start: bytes = b"") -> str:
    """What a file of a kind that is not read is, and what to do; empty for any other file.

    start: its first 16 bytes, which count more than its name; empty where only the name is known.
    """
    suffix = next((kind for at, mark, kind in _STARTS if start[at : at + len(mark)] == mark), path.suffix.lower()[1:])
    if suffix not in _KINDS:
        return ""
    what, remedy = _KINDS[suffix]
    name = _quoted(str(path))
    if what == "a film":
        folder = path.with_suffix("")
        frames, pattern = _quoted(str(folder)), _quoted(f"{folder}/%06d.jpg")
        return (
            f"a film, not an image; cut it into frames, for example 2 a second: mkdir -p {frames} && "
            f"ffmpeg -i {name} -vf fps=2 {pattern}"
        )
    return f"{what}, which is not read; " + remedy.format(name, stem=_quoted(str(path.with_suffix("")))).strip()


def passed_over(files: Iterable[Path], read: Container[str]) -> str:
    """A sentence on files of a folder that are left out because of their kind, with the remedies; empty without any.

    read: the suffixes of files that are not left out, as of `find_images.image_suffixes`.
    """
    first: dict[str, Path] = {}
    counts = Counter[str]()
    for path in files:
        suffix = path.suffix.lower()[1:]
        if suffix in _KINDS and path.suffix.lower() not in read:
            first.setdefault(suffix, path)
            counts[suffix] += 1
    if not counts:
        return ""
    total = counts.total()
    kinds = ", ".join(f"{count} {suffix.upper()}" for suffix, count in counts.most_common())
    lines = [f"{total} file{'' if total == 1 else 's'} in formats that are not read ({kinds}):"]
    lines += [f"  {one_line(str(path))}: {one_line(unread_remedy(path))}" for path in first.values()]
    return "\n".join(lines)


def _quoted(name: str) -> str:
    return f"'{name}'" if any(one in name for one in " '()&;%") and "'" not in name else name
