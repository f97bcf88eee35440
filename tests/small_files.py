"""Small media files of many codecs and containers, as bytes, each made once: what the broken ones are broken from."""

import struct
import tempfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from media_files import numbered_frames, write_numbered

from tubelet.media.reader import av

FRAMES, HEIGHT_PX, WIDTH_PX = 12, 48, 64
_X265 = {"preset": "ultrafast", "x265-params": "keyint=6:pools=1:frame-threads=1:log-level=none"}
_VPX = {"g": "6", "deadline": "good", "cpu-used": "5", "threads": "1"}  # not realtime: that depends on the clock
_GOP = {"g": "6", "bf": "2", "threads": "1"}
_FRONT, _FRAGMENTS = {"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}
_UNLISTED = {"strict": "-2"}
_ALONE = {"threads": "1"}  # or the bytes depend on the machine
_REPEATABLE = {"fflags": "+bitexact"}  # no random numbers of streams, no versions

# Name -> encoder, its options, those of the container. The part after the last dot names the container.
VIDEOS: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "h264.mp4": ("libx264", _GOP, {}),
    "front.mp4": ("libx264", _GOP, _FRONT),
    "fragments.mp4": ("libx264", _GOP, _FRAGMENTS),
    **{f"h264.{suffix}": ("libx264", _GOP, {}) for suffix in ("mov", "m4v", "3gp", "mkv", "avi", "flv", "ts", "h264")},
    "front.mov": ("libx264", _GOP, _FRONT),
    "hevc.mp4": ("libx265", _X265, _FRONT),
    "hevc.mkv": ("libx265", _X265, {}),
    "vp8.webm": ("libvpx", _VPX, {}),
    "vp9.webm": ("libvpx-vp9", _VPX, {}),
    "vp9.mp4": ("libvpx-vp9", _VPX, _FRONT),
    "mpeg4.avi": ("mpeg4", _GOP, {}),
    "mpeg4.mp4": ("mpeg4", _GOP, _FRONT),
    "msmpeg4.avi": ("msmpeg4v3", {"g": "6"}, {}),
    "mpeg1.mpg": ("mpeg1video", _GOP, {}),
    "mpeg2.mpg": ("mpeg2video", _GOP, {}),
    "mpeg2.ts": ("mpeg2video", _GOP, {}),
    "flv1.flv": ("flv", {"g": "6"}, {}),
    "wmv2.wmv": ("wmv2", {"g": "6"}, {}),
    "mjpeg.avi": ("mjpeg", _ALONE, {}),
    "mjpeg.mov": ("mjpeg", _ALONE, _FRONT),
    "prores.mov": ("prores", {}, _FRONT),
    "ffv1.mkv": ("ffv1", {}, {}),
    "huffyuv.avi": ("huffyuv", {}, {}),
    "plain.gif": ("gif", {}, {}),
    "snow.mkv": ("snow", _UNLISTED, {}),
    "utvideo.avi": ("utvideo", {}, {}),
    "qtrle.mov": ("qtrle", {}, {}),
    "cinepak.avi": ("cinepak", {}, {}),
    "jpeg2000.mkv": ("jpeg2000", {}, {}),
    "rare.nut": ("mpeg4", _GOP, {}),
    "rare.mxf": ("mpeg2video", {}, {}),
    "rare.ivf": ("libvpx", _VPX, {}),
    "rare.apng": ("apng", {}, {}),
    "rare.swf": ("flv", {}, {}),
}
PICTURES = {
    "png.png": ("png", "rgb24"),
    "jpeg.jpg": ("mjpeg", "yuvj420p"),
    "bmp.bmp": ("bmp", "bgr24"),
    "webp.webp": ("libwebp", "yuv420p"),
    "tiff.tif": ("tiff", "rgb24"),
    "ppm.ppm": ("ppm", "rgb24"),
    "grey16.png": ("png", "gray16be"),
    "clear.png": ("png", "rgba"),
    "targa.tga": ("targa", "bgr24"),
}
SOUNDS = {
    "pcm.wav": "pcm_s16le",
    "mp3.mp3": "libmp3lame",
    "flac.flac": "flac",
    "opus.ogg": "libopus",
    "aac.m4a": "aac",
    "aac.mp4": "aac",
    "aac.aac": "aac",
    "alac.m4a": "alac",
    "wma.wma": "wmav2",
    "ac3.mkv": "ac3",
    "rare.au": "pcm_s16be",
}


@cache
def small_file(name: str) -> bytes:
    """The content of the file of that name in the tables above."""
    if name in VIDEOS:
        codec, codec_options, container_options = VIDEOS[name]
        return video(name, codec, codec_options, container_options=container_options)
    return picture(name, *PICTURES[name]) if name in PICTURES else sound(name, SOUNDS[name])


def video(
    name: str, codec: str = "libx264", codec_options: dict[str, str] | None = None, *, frames: int = FRAMES, **how
) -> bytes:
    how = {"height": HEIGHT_PX, "width": WIDTH_PX} | how
    how["container_options"] = _REPEATABLE | how.get("container_options", {})
    options = _GOP if codec_options is None else codec_options
    with tempfile.TemporaryDirectory() as folder:
        return write_numbered(Path(folder, name), frames, codec=codec, codec_options=options, **how).read_bytes()


def picture(name: str, codec: str, pixel_format: str, size: tuple[int, int] = (HEIGHT_PX, WIDTH_PX)) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
            stream = container.add_stream(codec, rate=1)
            stream.height, stream.width = size
            stream.pix_fmt, stream.codec_context.thread_count = pixel_format, 1
            frame = av.VideoFrame.from_ndarray(numbered_frames(1, *size, first=77)[0]).reformat(format=pixel_format)
            container.mux([*stream.encode(frame), *stream.encode()])
        return path.read_bytes()


def sound(name: str, codec: str, *, seconds: float = 1.5, cover: bool = False, words: dict[str, str] | None = None):
    """A tone; `cover` adds the picture of an album, `words` the metadata."""
    rate = 48000 if codec == "libopus" else 16000
    rate = 44100 if codec in ("libmp3lame", "wmav2", "ac3") else rate
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        with av.open(str(path), "w", container_options=_REPEATABLE) as container:
            container.metadata.update(words or {})
            tone = container.add_stream(codec, rate=rate, layout="mono")
            tone.bit_rate = 64000
            if cover:
                front = container.add_stream("png", rate=1)
                front.width, front.height, front.pix_fmt = WIDTH_PX, HEIGHT_PX, "rgb24"
                front.disposition = av.stream.Disposition.attached_pic
                container.mux(front.encode(av.VideoFrame.from_ndarray(numbered_frames(1, HEIGHT_PX, WIDTH_PX)[0])))
            samples = np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate) / 2
            frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = rate
            resampler = av.AudioResampler(format=tone.format.name, layout="mono", rate=rate)
            for piece in resampler.resample(frame):
                container.mux(tone.encode(piece))
            container.mux(tone.encode())
        return path.read_bytes()


def png_of_one_colour(side_px: int) -> bytes:
    """A picture of any size in a few kilobytes: one bit a pixel."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + (side_px + 7) // 8) * side_px), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
