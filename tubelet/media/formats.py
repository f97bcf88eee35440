"""Formats that are read, and why a file is not."""

from tubelet.media import sniff
from tubelet.media.bytes import open_bytes, stat
from tubelet.media.errors import MediaError
from tubelet.media.truncation import is_cut

_OLD_VIDEO_SUFFIXES = {".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".flv", ".wmv", ".asf", ".ogv", ".gif"}
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm"} | _OLD_VIDEO_SUFFIXES)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
SOUND_SUFFIXES = frozenset({".wav", ".aif", ".aiff", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".wma"})
MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES | SOUND_SUFFIXES
MAX_PIXELS = 8192 * 8192
FETCH_AGAIN = "The copy or download was probably cut short: fetch it again"
COPY_AGAIN = "Copy the file again or leave it out"
CHECK_FILE = "Check that it is the file you mean"

# FFmpeg's names. Playlists and scripts, which open other files, are not among the containers.
IMAGE_CONTAINERS = {"image2", "png_pipe", "jpeg_pipe", "bmp_pipe", "webp_pipe", "tiff_pipe", "ppm_pipe", "pgm_pipe"}
SOUND_CONTAINERS = {"wav", "aiff", "flac", "ogg", "mp3", "aac"}
VIDEO_CONTAINERS = {"mov", "mp4", "matroska", "webm", "avi", "flv", "asf", "gif", "h264", "hevc"}
MPEG_CONTAINERS = {"mpegts", "mpeg", "mpegvideo"}
IMAGE_CODECS = {"gif", "png", "bmp", "webp", "tiff", "ppm", "pgm", "mjpeg", "ffv1", "huffyuv", "rawvideo"}
SOUND_CODECS = {"aac", "mp3", "ac3", "eac3", "opus", "vorbis", "flac", "alac"}
OLD_SOUND_CODECS = {"mp2", "wmav1", "wmav2", "amr_nb", "amr_wb"}
VIDEO_CODECS = {"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "theora", "prores", "dnxhd"}
OLD_VIDEO_CODECS = {"msmpeg4v2", "msmpeg4v3", "h263", "flv1", "wmv1", "wmv2", "wmv3", "vc1"}
MPEG_CODECS = {"mpeg1video", "mpeg2video"}

CONTAINERS = frozenset(IMAGE_CONTAINERS | SOUND_CONTAINERS | VIDEO_CONTAINERS | MPEG_CONTAINERS)
CODECS = frozenset(IMAGE_CODECS | SOUND_CODECS | OLD_SOUND_CODECS | VIDEO_CODECS | OLD_VIDEO_CODECS | MPEG_CODECS)
TELLS_REFERENCES = frozenset({"h264"})  # HEVC too, but its layers in time may refer to what it calls unreferenced
SEEKS_LATE = frozenset(MPEG_CONTAINERS | MPEG_CODECS)


def regular_file(path: str) -> tuple[int, int]:
    """Returns size and time of the last change; anything but a file with something in it is refused unopened.

    Raises: MediaError: as `bytes.stat`, or empty.
    """
    found = stat(path)
    if found.size == 0:
        raise MediaError(path, "empty", "the file is empty", "Copy or download it again")
    return found.size, found.changed


def why_not_opened(path: str, error: Exception, *, refused: bool) -> MediaError:
    """Explains, from its bytes, a file that the decoder did not open; `refused`: for its container."""
    head, reason = _look_into(path)
    if reason:
        return reason
    if refused and head[:16].strip(b"\0"):
        problem = "it is a rare format, which is not read as it may be unsafe"
        return MediaError(path, "blocked", problem, "Convert it, to MP4 or Matroska for instance")
    if sniff.is_mp4(head):
        problem = f"its table of contents (moov) is damaged ({type(error).__name__})"
        return MediaError(path, "damaged", problem, COPY_AGAIN)
    if sniff.starts_like_media(head):
        problem = "it starts like a media file, but a needed part is missing or damaged"
        return MediaError(path, "truncated", problem, FETCH_AGAIN)
    problem = f"its content is no video, image or sound that can be read ({type(error).__name__})"
    return MediaError(path, "not-video", problem, CHECK_FILE)


def why_no_stream(path: str, code: str, problem: str) -> MediaError:
    """Explains a file that was opened and does not hold what is wanted: its bytes may know a better reason."""
    return _look_into(path)[1] or MediaError(path, code, problem, CHECK_FILE)


def why_no_frames(path: str, *, is_picture: bool) -> MediaError:
    """Explains a file in which not one picture can be decoded; `is_picture`: its suffix says it is one."""
    head, reason = _look_into(path)
    if head[8:12] == b"WEBP" and b"ANIM" in head[:64]:
        return MediaError(path, "no-decoder", "animated WebP is not read", "Convert it, to GIF or MP4 for instance")
    height, width = sniff.stated_size(head)
    if height * width > MAX_PIXELS:
        return too_big(path, height, width)
    if reason:
        return reason
    if is_picture and not head.startswith(sniff.PICTURES):
        return MediaError(path, "not-video", "its content is no picture", CHECK_FILE)
    for name, start in (("BMP", b"BM"), ("TIFF", (b"II", b"MM"))):  # of many kinds, not all of which are read
        if head.startswith(start):
            return unread_picture(path, f"this {name}, which is damaged or of a rare kind,")
    return MediaError(path, "no-frames", "not one picture can be decoded", COPY_AGAIN, stage="list")


def why_no_decoder(path: str, codec: str, *, better: str) -> MediaError:
    """Explains a file whose codec is not on the list; `better`: one that is."""
    with open_bytes(path) as file:
        picture = sniff.unread_picture(file)
    if picture:
        return unread_picture(path, picture)
    return MediaError(path, "no-decoder", f"the codec {codec} is not read", f"Convert it, to {better} for instance")


def unread_picture(path: str, name: str) -> MediaError:
    return MediaError(path, "no-decoder", f"{name} is not read", "Convert it, to PNG for instance")


def too_big(path: str, height: int, width: int) -> MediaError:
    problem = f"its pictures have {width}x{height} pixels, more than {MAX_PIXELS} in all"
    return MediaError(path, "too-big", problem, "Scale it down first")


def _look_into(path: str) -> tuple[bytes, MediaError | None]:
    """(its first bytes, the reason if its bytes alone tell it)."""
    try:
        with open_bytes(path) as file:
            head, without_moov = file.read(sniff.HEAD_BYTES), sniff.lacks_moov(file)
            picture = sniff.unread_picture(file)
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
        return b"", MediaError(path, "unreadable", problem, "Check the permissions")
    if picture:
        return head, unread_picture(path, picture)
    if sniff.is_playlist(head):
        problem = "it is a playlist or a script, which are not read as they may open other files"
        remedy = "Pass the video itself, as MP4 or Matroska for instance"
        return head, MediaError(path, "blocked", problem, remedy)
    if sniff.is_text(head):
        return head, MediaError(path, "not-video", "its content is no video but text", CHECK_FILE)
    if without_moov:
        problem = "its table of contents (moov) is missing: the recording or the download is incomplete"
        return head, MediaError(path, "no-moov", problem, "Download it again, or repair the recording")
    if is_cut(path):
        return head, MediaError(path, "truncated", "it ends before its first picture", FETCH_AGAIN, stage="list")
    return head, None
