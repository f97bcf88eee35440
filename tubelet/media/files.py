"""Which files are read, and the one exception for those that cannot be."""

import os
import stat

_OLD_VIDEO_SUFFIXES = {".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".flv", ".wmv", ".asf", ".ogv", ".gif"}
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm"} | _OLD_VIDEO_SUFFIXES)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
SOUND_SUFFIXES = frozenset({".wav", ".aif", ".aiff", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".wma"})
MAX_PIXELS = 8192 * 8192

# FFmpeg's names. Playlists and scripts, which open other files, are not among the containers.
IMAGE_CONTAINERS = {"image2", "png_pipe", "jpeg_pipe", "bmp_pipe", "webp_pipe", "tiff_pipe", "ppm_pipe", "pgm_pipe"}
SOUND_CONTAINERS = {"wav", "aiff", "flac", "ogg", "mp3", "aac"}
VIDEO_CONTAINERS = {"mov", "mp4", "matroska", "webm", "avi", "flv", "asf", "gif", "h264", "hevc"}
MPEG_CONTAINERS = {"mpegts", "mpeg", "mpegvideo"}
IMAGE_CODECS = {"gif", "png", "bmp", "webp", "tiff", "ppm", "pgm", "mjpeg", "ffv1", "huffyuv", "rawvideo"}
SOUND_CODECS = {
    "aac",
    "mp2",
    "mp3",
    "ac3",
    "eac3",
    "opus",
    "vorbis",
    "flac",
    "alac",
    "wmav1",
    "wmav2",
    "amr_nb",
    "amr_wb",
}
VIDEO_CODECS = {"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "theora", "prores", "dnxhd"}
OLD_VIDEO_CODECS = {"msmpeg4v2", "msmpeg4v3", "h263", "flv1", "wmv1", "wmv2", "wmv3", "vc1"}
MPEG_CODECS = {"mpeg1video", "mpeg2video"}

CONTAINERS = frozenset(IMAGE_CONTAINERS | SOUND_CONTAINERS | VIDEO_CONTAINERS | MPEG_CONTAINERS)
CODECS = frozenset(IMAGE_CODECS | SOUND_CODECS | VIDEO_CODECS | OLD_VIDEO_CODECS | MPEG_CODECS)
TELLS_REFERENCES = frozenset({"h264"})  # HEVC too, but its layers in time may refer to what it calls unreferenced
SEEKS_LATE = frozenset(MPEG_CONTAINERS | MPEG_CODECS)

_SIGNATURES = (b"\x1aE\xdf\xa3", b"RIFF", b"FORM", b"OggS", b"fLaC", b"FLV", b"ID3", b"GIF8", b"\x89PNG")


class MediaError(ValueError):
    """A file that cannot be read as asked: "PATH: what is wrong. What to do."

    `code` is stable: missing, not-a-file, unreadable, empty, blocked, truncated, not-video, no-picture, no-sound,
    too-big, no-frames, damaged.
    """

    def __init__(self, path: str, code: str, problem: str, remedy: str) -> None:
        super().__init__(path, code, problem, remedy)
        self.path, self.code, self.problem, self.remedy = path, code, problem, remedy

    def __str__(self) -> str:
        path = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in self.path)
        return f"{path}: {self.problem}. {self.remedy}."


def regular_file(path: str) -> tuple[int, int]:
    """Returns size and time of the last change in ns; anything but a file with something in it is refused unopened.

    Raises:
        MediaError: missing, not-a-file (opening a pipe would wait for ever), unreadable or empty.
    """
    try:
        status = os.stat(path)
    except PermissionError as error:
        raise MediaError(path, "unreadable", "you may not look into its folder", "Check the permissions") from error
    except (OSError, ValueError) as error:
        raise MediaError(path, "missing", f"it cannot be found ({error})", "Check the path") from error
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(path, "not-a-file", "it is a folder, a pipe or a device, not a file", "Pass a media file")
    if status.st_size == 0:
        raise MediaError(path, "empty", "the file is empty", "Copy or download it again")
    return status.st_size, status.st_mtime_ns


def why_not_opened(path: str, error: Exception, *, refused: bool) -> MediaError:
    """Explains, from its first bytes, a file that the decoder did not open; `refused`: for its container."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as reason:
        return MediaError(path, "unreadable", f"it cannot be read ({reason.strerror})", "Check the permissions")
    if refused or head.startswith((b"#EXTM3U", b"ffconcat")):
        problem = "it is a playlist, a script or a rare format, which are not read as they may open other files"
        return MediaError(path, "blocked", problem, "Pass the video itself, as MP4 or Matroska for instance")
    if head.startswith((*_SIGNATURES, b"\xff\xd8\xff")) or head[4:8] in (b"ftyp", b"moov", b"mdat"):
        problem = "it starts like a media file, but a needed part is missing or damaged"
        return MediaError(path, "truncated", problem, "The copy or download was probably cut short: fetch it again")
    problem = f"its content is no video, image or sound that can be read ({type(error).__name__})"
    return MediaError(path, "not-video", problem, "Check that it is the file you mean")
