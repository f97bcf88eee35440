"""Named files that are broken, odd or none, and what each of them is: written down from how it is made, not from what
the reader happens to say of it.

Every row: name of the file -> its bytes, what reading frames gives, and where they differ reading sound and the health.
"ok", or a code of MediaError; "a|b" where either is right.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import odd_places
from edits import (
    at_odd_times,
    cut,
    flv_with_size,
    put,
    random_bytes,
    several_streams,
    swapped,
    tagged_with,
    two_sizes,
    within,
    without_packets,
    without_pixels,
    zeroed,
)
from small_files import PICTURES, SOUNDS, VIDEOS, picture, png_of_one_colour, small_file, sound, video


class Row(NamedTuple):
    """`make` gives the content, or writes to the path itself where the file is no plain one."""

    make: Callable[[], bytes] | Callable[[Path], None]
    frames: str
    sound: str = ""
    health: str = ""

    @property
    def expected_sound(self) -> str:
        """Where the file opens and holds no sound, that may be said first."""
        opens = set(self.frames.split("|")) & {"ok", "no-frames", "too-big", "no-decoder", "damaged", "truncated"}
        return self.sound or (f"{self.frames}|no-sound".removeprefix("ok|") if opens else self.frames)

    @property
    def expected_health(self) -> str:
        return self.health or self.frames


def sound_under(name: str) -> str:
    """The health of sound in order: where the suffix promises a video, it lacks one."""
    return "no-picture" if name.endswith((".mp4", ".mkv")) else "ok"


# ---- contents

_HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/hostname\n#EXT-X-ENDLIST\n"
_CONCAT = b"ffconcat version 1.0\nfile h264.mp4\n"
_SDP = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n"
_DASH = b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>\n'
_HTML = b"<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1></body></html>\n" * 20
_JSON = json.dumps({"error": "quota exceeded", "retry": [1, 2, 3] * 50}).encode()
_TEXT = b"not a video\n" * 60

NO_MEDIA: dict[str, Row] = {
    **{f"empty.{suffix}": Row(bytes, "empty") for suffix in ("mp4", "webm", "png", "wav")},
    **{f"eight.{suffix}": Row(lambda: bytes(8), "not-video") for suffix in ("mp4", "mkv", "ts")},
    **{f"zeros.{suffix}": Row(lambda: bytes(50_000), "not-video") for suffix in ("mp4", "avi", "mpg")},
    **{
        f"random.{suffix}": Row(lambda: random_bytes(20_000), "not-video")
        for suffix in ("mp4", "mkv", "avi", "ts", "mpg", "gif", "mp3", "wav", "h264", "")
    },
    **{f"text.{s}": Row(lambda: _TEXT, "not-video") for s in ("mp4", "ts", "mpg", "nfo", "txt", "mp3", "h264")},
    **{f"json.{suffix}": Row(lambda: _JSON, "not-video") for suffix in ("mp4", "json")},
    **{f"page.{suffix}": Row(lambda: _HTML, "not-video") for suffix in ("mp4", "webm", "html")},
    "random.jpg": Row(lambda: random_bytes(20_000), "not-video", "not-video|no-sound"),
    "text.png": Row(lambda: _TEXT, "not-video", "not-video|no-sound"),
    "subtitles.mp4": Row(lambda: b"1\n00:00:00,000 --> 00:00:01,000\nhello\n\n" * 9, "not-video"),
    "archive.mp4": Row(lambda: b"PK\3\4\x14\0\0\0\x08\0" + random_bytes(3000), "not-video"),
    "wide.mp4": Row(lambda: "kein Video\n".encode("utf-16") * 60, "not-video"),
    "._clip.mp4": Row(lambda: b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(4000), "not-video"),
    "one-letter.mp4": Row(lambda: b"x", "not-video"),
}
PLAYLISTS: dict[str, Row] = {
    **{f"hls.{suffix}": Row(lambda: _HLS, "blocked") for suffix in ("mp4", "ts", "m3u8", "m3u", "mp3")},
    **{f"concat.{suffix}": Row(lambda: _CONCAT, "blocked") for suffix in ("mp4", "ffconcat", "txt")},
    **{f"session.{suffix}": Row(lambda: _SDP, "blocked") for suffix in ("mp4", "sdp")},
    **{f"dash.{suffix}": Row(lambda: _DASH, "blocked") for suffix in ("mp4", "mpd")},
    "hls.png": Row(lambda: _HLS, "blocked", "blocked|no-sound"),
    "marked.m3u8": Row(lambda: b"\xef\xbb\xbf" + _HLS, "blocked"),
    "stations.pls": Row(lambda: b"[playlist]\nFile1=http://127.0.0.1/a.mp3\n", "blocked"),
    "redirect.wmv": Row(lambda: b"[Reference]\r\nRef1=http://127.0.0.1/a.wmv\r\n", "blocked"),
    **{
        name: Row(lambda name=name: small_file(name), "blocked")
        for name in ("rare.nut", "rare.mxf", "rare.ivf", "rare.apng", "rare.swf", "rare.au")
    },
}
CUT: dict[str, Row] = {
    **{f"half.{s}": Row(lambda s=s: cut(f"h264.{s}", 0.5), "no-moov") for s in ("mp4", "mov", "m4v", "3gp")},
    "table.mp4": Row(lambda: small_file("h264.mp4").replace(b"moov", b"mooo"), "no-moov"),
    "quarter.mp4": Row(lambda: cut("h264.mp4", 0.25), "no-moov"),
    "half.m4a": Row(lambda: cut("aac.m4a", 0.5), "no-moov"),
    "only-ftyp.mp4": Row(lambda: small_file("h264.mp4")[:32], "no-moov"),
    "segment.mp4": Row(lambda: small_file("fragments.mp4")[len(without_packets("fragments.mp4")) :], "no-moov"),
    "in-moov.mp4": Row(lambda: within("front.mp4", b"moov", 300), "truncated"),
    "in-moov-at-end.mov": Row(lambda: within("h264.mov", b"moov", 200), "truncated"),
    "before-frames.mp4": Row(lambda: within("front.mp4", b"mdat"), "truncated"),
    "before-frames.mov": Row(lambda: within("mjpeg.mov", b"mdat", 20), "truncated"),
    **{
        f"90-{name}": Row(lambda name=name: cut(name, 0.9), "ok", health="truncated")
        for name in ("front.mp4", "front.mov", "mpeg4.mp4", "mjpeg.mov", "vp9.mp4")
    },
    **{  # through the last frame, which is there in part
        f"98-{name}": Row(lambda name=name: cut(name, 0.98), "ok", health="truncated|damaged")
        for name in ("front.mp4", "front.mov", "hevc.mp4", "mpeg4.mp4", "vp9.mp4", "prores.mov")
    },
    "95-mjpeg.mov": Row(lambda: cut("mjpeg.mov", 0.95), "ok", health="truncated|damaged"),  # then comes its padding
    **{
        f"80-{name}": Row(lambda name=name: cut(name, 0.8), "ok", health="truncated")
        for name in ("fragments.mp4", "h264.mkv", "ffv1.mkv", "vp8.webm", "mjpeg.avi", "plain.gif")
    },
    "half-packet.wmv": Row(lambda: cut("wmv2.wmv", 0.8), "ok", health="ok|truncated"),  # what is lost is stuffing
    **{  # they have no length written in their head: what is lost at the end leaves no trace but for half a packet
        f"90-{name}": Row(lambda name=name: cut(name, 0.9), "ok", health="ok|truncated|damaged")
        for name in ("h264.ts", "mpeg2.ts", "mpeg2.mpg", "h264.h264", "h264.flv")
    },
    **{f"50-{name}": Row(lambda name=name: cut(name, 0.5), "truncated") for name in ("jpeg.jpg", "webp.webp")},
    "50-png.png": Row(lambda: cut("png.png", 0.5), "no-frames"),
    "50-bmp.bmp": Row(lambda: cut("bmp.bmp", 0.5), "no-decoder"),
    **{
        f"head-{name}": Row(lambda name=name: small_file(name)[:20], "truncated")
        for name in ("h264.mkv", "vp9.webm", "h264.avi", "h264.flv", "wmv2.wmv", "mpeg2.mpg")
    },
    **{f"head-{name}": Row(lambda name=name: small_file(name)[:20], "truncated") for name in ("plain.gif", "pcm.wav")},
    "head-png.png": Row(lambda: small_file("png.png")[:20], "no-frames"),
    **{
        f"80-{name}": Row(lambda name=name: cut(name, 0.8), "no-picture", "ok", "truncated|damaged|ok")
        for name in ("pcm.wav", "mp3.mp3", "flac.flac", "opus.ogg")
    },
}
DAMAGED: dict[str, Row] = {
    **{  # where more than a tenth of the wanted frames are lost they are refused
        f"hole-{name}": Row(lambda name=name: zeroed(name, 0.86, 0.9), "ok|damaged", health="damaged")
        for name in (
            *("hevc.mp4", "mjpeg.avi", "mjpeg.mov", "h264.ts", "mpeg2.ts", "h264.flv", "mpeg4.avi"),
            *("vp9.webm", "h264.mkv", "huffyuv.avi"),
        )
    },
    **{  # zeroes within one packet of these are pixels like others
        f"hole-{name}": Row(lambda name=name: zeroed(name, 0.86, 0.9), "ok|damaged", health="damaged|ok")
        for name in ("wmv2.wmv", "ffv1.mkv", "plain.gif")
    },
    "no-head.mkv": Row(lambda: zeroed("h264.mkv", 0, 0.2), "not-video"),
    "no-head.avi": Row(lambda: zeroed("mjpeg.avi", 0, 0.2), "not-video"),
    "no-head.mp4": Row(lambda: zeroed("front.mp4", 0, 0.4), "not-video"),
    "no-pixels.mp4": Row(lambda: without_pixels("mjpeg.mov", b"mdat"), "no-frames"),
    "no-pixels.png": Row(lambda: without_pixels("png.png", b"IDAT"), "no-frames|truncated"),
    "no-pixels.mkv": Row(lambda: without_pixels("vp8.webm", b"\x1f\x43\xb6\x75"), "no-frames"),
    "hole.wav": Row(lambda: zeroed("pcm.wav", 0.4, 0.6), "no-picture", "ok", "ok"),
    "hole.mp3": Row(lambda: zeroed("mp3.mp3", 0.4, 0.6), "no-picture", "ok", "ok|damaged"),
}
LYING: dict[str, Row] = {
    "frames.mp4": Row(lambda: put("front.mp4", b"stts", 12, ">I", 30_000_000), "ok"),
    "packets.mp4": Row(lambda: put("front.mp4", b"stsz", 12, ">I", 30_000_000), "no-frames|damaged"),
    "duration.mp4": Row(lambda: put("front.mp4", b"mvhd", 20, ">I", 0xFFFFFFF0), "ok"),
    "shown.mp4": Row(lambda: put("front.mp4", b"tkhd", 24, ">I", 0xFFFFFFF0), "ok"),
    "clock.mov": Row(lambda: put("mjpeg.mov", b"mdhd", 16, ">I", 0), "ok|no-frames"),  # no tick, no time to be shown
    "matrix.mp4": Row(lambda: put("front.mp4", b"tkhd", 44, ">9i", *range(1, 10)), "ok"),
    "zero-matrix.mp4": Row(lambda: put("front.mp4", b"tkhd", 44, ">9i", *[0] * 9), "ok"),
    "size.mp4": Row(lambda: put("front.mp4", b"avc1", 28, ">HH", 9000, 9000), "ok"),
    "size.avi": Row(lambda: put("mjpeg.avi", b"strf", 12, "<ii", 60_000, 60_000), "ok"),
    "size.flv": Row(lambda: flv_with_size(14_611, 16_432), "too-big"),
    "head.flv": Row(lambda: put("flv1.flv", b"FLV", 5, ">I", 0x7FFFFFFF), "truncated"),
    "places.mp4": Row(lambda: put("mjpeg.mov", b"stco", 12, ">I", 0x7FFFFFFF), "no-frames|damaged"),
    "data.mp4": Row(lambda: put("front.mp4", b"mdat", -4, ">I", 0x7FFFFFFF), "ok", health="ok|truncated"),
    "hidden.mp4": Row(lambda: put("front.mp4", b"elst", 16, ">i", 7 * 512 + 1024), "ok"),
    "frames.avi": Row(lambda: put("mjpeg.avi", b"avih", 24, "<I", 30_000_000), "ok"),
    "rate.avi": Row(lambda: put("mjpeg.avi", b"vidsMJPG", 20, "<II", 0, 0), "ok"),
    "duration.mkv": Row(lambda: put("h264.mkv", b"\x44\x89\x88", 3, ">d", 1e300), "ok"),
    "bomb.png": Row(lambda: png_of_one_colour(16_000), "too-big"),
    "bomb.gif": Row(lambda: put("plain.gif", b"GIF89a", 6, "<HH", 65_535, 65_535), "too-big"),
    "bomb.jpg": Row(lambda: put("jpeg.jpg", b"\xff\xc0", 5, ">HH", 60_000, 60_000), "too-big"),
    "bomb.bmp": Row(lambda: put("bmp.bmp", b"BM", 18, "<ii", 60_000, 60_000), "too-big"),
    "title.mp3": Row(lambda: tagged_with(b"\xff\xfe\xfa\x80"), "no-picture", "ok", "ok"),
    "words.mkv": Row(lambda: swapped("h264.mkv", b"Lavf", b"\xff\xfe\xfd\xfc"), "ok"),
}
STREAMS: dict[str, Row] = {
    **{
        name: Row(lambda name=name: small_file(name), "no-picture", "ok", sound_under(name))
        for name in SOUNDS
        if "rare" not in name
    },
    **{
        f"cover-{name}": Row(lambda n=name, c=codec: sound(n, c, cover=True), "no-picture", "ok", sound_under(name))
        for name, codec in {"a.mp3": "libmp3lame", "a.mp4": "aac", "a.flac": "flac"}.items()
    },
    "cover.m4a": Row(lambda: sound("a.mp4", "aac", cover=True), "no-picture", "ok", "ok"),
    "two.mp4": Row(several_streams, "ok"),
    "no-packets.mp4": Row(lambda: without_packets("fragments.mp4"), "no-frames"),
    "no-packets.mkv": Row(lambda: within("h264.mkv", b"\x1f\x43\xb6\x75", 0), "truncated"),
    "words.mkv": Row(lambda: swapped("ac3.mkv", b"\x83\x81\x02", b"\x83\x81\x11"), "no-picture", "no-sound"),
    **{
        name: Row(lambda name=name: small_file(name), "no-decoder")
        for name in ("snow.mkv", "utvideo.avi", "qtrle.mov", "cinepak.avi", "jpeg2000.mkv", "targa.tga")
    },
    "zzzz.mp4": Row(lambda: swapped("h264.mp4", b"avc1", b"zzzz"), "no-decoder"),
    "secret.mp4": Row(lambda: swapped("h264.mp4", b"avc1", b"encv"), "no-decoder"),
    "zzzz.mov": Row(lambda: swapped("mjpeg.mov", b"jpeg", b"zzzz"), "no-decoder"),
    "zzzz.avi": Row(lambda: swapped("mjpeg.avi", b"MJPG", b"ZZZZ"), "no-decoder"),
    "zzzz.mkv": Row(lambda: swapped("h264.mkv", b"V_MPEG4/ISO/AVC", b"V_ZZZZZ/ZZZ/ZZZ"), "no-decoder"),
    "zzzz.m4a": Row(lambda: swapped("alac.m4a", b"alac", b"zzzz"), "no-decoder"),
}
WHOLE: dict[str, Row] = {
    **{name: Row(lambda name=name: small_file(name), "ok") for name in VIDEOS if name not in STREAMS | PLAYLISTS},
    **{name: Row(lambda name=name: small_file(name), "ok") for name in PICTURES if name not in STREAMS},
    "vp9.mp4.txt": Row(lambda: small_file("vp9.mp4"), "ok"),
    "webm-as.mp4": Row(lambda: small_file("vp9.webm"), "ok"),
    "gif-as.mp4": Row(lambda: small_file("plain.gif"), "ok"),
    "png-as.mp4": Row(lambda: small_file("png.png"), "ok"),
    "mp4-as.png": Row(lambda: small_file("h264.mp4"), "ok"),
    "mp4-as.mp3": Row(lambda: small_file("h264.mp4"), "ok"),
    "mp3-as.mp4": Row(lambda: small_file("mp3.mp3"), "no-picture", "ok"),
    "no-suffix": Row(lambda: small_file("front.mp4"), "ok"),
    "8k.jpg": Row(lambda: picture("a.jpg", "mjpeg", "yuvj420p", (4320, 8192)), "ok"),
    "timeless.gif": Row(lambda: re.sub(rb"(!\xf9\x04.)..", rb"\1\0\0", small_file("plain.gif")), "ok"),
    "1x1.png": Row(lambda: picture("a.png", "png", "rgb24", (1, 1)), "ok"),
    "1x1.gif": Row(lambda: video("a.gif", "gif", {}, frames=1, height=1, width=1), "ok"),
    "63x47.mkv": Row(lambda: video("a.mkv", "ffv1", {}, height=47, width=63), "ok"),
    "63x47.avi": Row(lambda: video("a.avi", "mjpeg", {}, height=47, width=63), "ok"),
    "2x2000.mp4": Row(lambda: video("a.mp4", height=2000, width=2), "ok"),
    "2000x2.webm": Row(lambda: video("a.webm", "libvpx", {}, height=2, width=2000), "ok"),
    "2000x1.png": Row(lambda: picture("a.png", "png", "rgb24", (1, 2000)), "ok"),
    "one-frame.mp4": Row(lambda: video("a.mp4", frames=1), "ok"),
    "two-frames.mpg": Row(lambda: video("a.mpg", "mpeg2video", frames=2), "ok"),
    "two-frames.ts": Row(lambda: video("a.ts", frames=2), "truncated"),  # too few packets to be sure that it is one
    "grows.h264": Row(two_sizes, "ok"),
    "glued.ts": Row(lambda: small_file("mpeg2.ts") * 2, "ok"),
    "glued.h264": Row(lambda: small_file("h264.h264") * 2, "ok"),
    "glued.mp4": Row(lambda: small_file("front.mp4") * 2, "ok"),
    "odd-times.mkv": Row(at_odd_times, "ok"),
    "interlaced.mp4": Row(lambda: video("a.mp4", codec_options={"x264-params": "interlaced=1:threads=1"}), "ok"),
    "turned.mp4": Row(lambda: video("a.mp4", turn=(90, True)), "ok"),
    "with-sound.mp4": Row(lambda: video("a.mp4", sound_hz=440), "ok", "ok"),
    "trailing-text.mp4": Row(lambda: small_file("front.mp4") + _HTML, "ok"),
    "leading-junk.ts": Row(lambda: bytes(100) + small_file("h264.ts"), "ok"),
}
NAMES = {name: Row(lambda: small_file("front.mp4"), "ok") for name in odd_places.NAMES}
PLACES = {name: Row(make, code) for name, (make, code) in odd_places.PLACES.items()}
GROUPS = {"no media": NO_MEDIA, "playlist": PLAYLISTS, "cut": CUT, "damaged": DAMAGED, "lying": LYING}
GROUPS |= {"streams": STREAMS, "whole": WHOLE, "name": NAMES, "place": PLACES}


def make_all(folder: Path) -> dict[tuple[str, str], Path]:
    """Makes every file, each in a folder of its own: (group, name) -> its path."""
    made = {}
    for group, rows in GROUPS.items():
        for number, (name, row) in enumerate(rows.items()):
            path = made[group, name] = folder / f"{group} {number}" / name
            path.parent.mkdir()
            if group == "place":
                row.make(path)
            else:
                path.write_bytes(row.make())
    return made
