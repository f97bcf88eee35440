"""The border to FFmpeg: the only file that meets the decoder, its packets, its frames and its exceptions."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.sidedata import sidedata
from av.video.reformatter import Interpolation, VideoReformatter

from tubelet.media.blocks import BLOCK_BYTES
from tubelet.media.bytes import decoder_source, is_plain, open_bytes, open_parts
from tubelet.media.formats import (
    CHECK_FILE,
    CODECS,
    CONTAINERS,
    COPY_AGAIN,
    IMAGE_CONTAINERS,
    MAX_PIXELS,
    MediaError,
    too_big,
    why_no_decoder,
    why_no_stream,
    why_not_opened,
)
from tubelet.media.geometry import Turn, turn
from tubelet.media.sniff import PICTURE_BRANDS, end_of_sound, holds_a_picture

av.logging.set_level(None)  # silent: what matters is in the MediaError

FREE_PIXELS = 1_000_000_000  # 480 pictures in 1080p, a few seconds of work
PIXELS_FOR_A_BYTE = 200_000  # a black picture in 1080p, the least that a real video holds, takes a byte for 170,000
BYTES_BESIDE_A_PACKET = 40  # about what the container spends; a picture that AV1 repeats takes 3 bytes, in 4K too
NEAR_BYTES = 1 << 16  # what lies between two stretches is fetched with them: another request takes longer
MOST_CHANNELS, MOST_HZ = 64, 1_000_000  # FFmpeg's resampler takes no more; no sound is finer
PIXELS_FOR_A_SAMPLE = 250  # of sound: silence packed as FLAC takes a byte for 300 samples

_OPEN_OPTIONS = {
    "format_whitelist": ",".join(CONTAINERS),
    "protocol_whitelist": "file",
    "pattern_type": "none",  # a picture called %03d.png is that picture, not a row of others
}


def _name_unknown_side_data(kind: Any, value: int) -> Any:
    member = object.__new__(kind)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return member


# PyAV 18 refuses all side data of a frame, the display matrix too, when FFmpeg adds a kind it has no name for (EXIF).
setattr(sidedata.Type, "_missing_", classmethod(_name_unknown_side_data))  # noqa: B010


@contextmanager
def open_media(path: str, *, hollow: bool = False) -> Iterator[InputContainer]:
    """Opens a file; every exception inside the `with` leaves as a MediaError, not those of FFmpeg alone.

    hollow: of an MP4 elsewhere its tables alone, to list its packets.
    """
    with decoder_source(path, hollow=hollow) as source:
        try:
            container = av.open(source, options=_OPEN_OPTIONS, metadata_errors="replace")
        except MediaError:
            raise
        except Exception as error:
            refused = isinstance(error, av.ArgumentError)  # what FFmpeg says to a container that is not on the list
            raise why_not_opened(path, error, refused=refused) from error
        try:
            with container:
                yield container
        except MediaError:
            raise
        except Exception as error:
            problem = f"the decoder gave up ({type(error).__name__}: {error})"
            raise MediaError(path, "damaged", problem, COPY_AGAIN, stage="decode") from error


def fetch_packets(path: str, stream: Any, packets: int, rows: Iterable[tuple[int, int]]) -> None:
    """Fetches rows of packets, each (first, last), of a file elsewhere before they are read, where its table says where
    they are: what lies next to each other with one request.

    packets: how many are counted, up to the end of the table.
    """
    entries = () if is_plain(path) else stream.index_entries
    before = len(entries) - packets
    if before < 0 or not len(entries):
        return
    spans: list[tuple[int, int]] = []
    for first, last in rows:
        row = [entries[before + place] for place in range(first, last + 1)]
        start, end = min(entry.pos for entry in row), max(entry.pos + entry.size for entry in row)
        start = max(0, start - BLOCK_BYTES)  # sound of the same time stands a little before
        if spans and spans[-1][0] <= start <= spans[-1][1] + NEAR_BYTES:
            start = spans.pop()[0]
        spans.append((start, end))
    with open_parts(path) as part:
        for start, end in spans:
            part.want(start, end)


def list_streams(container: InputContainer, kind: str) -> list[Any]:
    """The streams of a kind; the cover picture of an album is not a video."""
    cover = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams if stream.type == kind and not stream.disposition & cover]


def video_stream(path: str, container: InputContainer, threads: int) -> Any:
    """The first video stream, made ready: its codec is on the list and its pictures are within the limit."""
    streams = list_streams(container, "video")
    # Of a picture in tiles only the first would be shown, and FFmpeg turns others than their makers meant.
    if not streams or container.metadata.get("major_brand") in PICTURE_BRANDS:
        raise why_no_stream(path, "no-picture", "there is no video in it")
    stream = streams[0]
    _check_codec(path, stream)
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
        raise too_big(path, context.height, context.width)
    context.options = {"max_pixels": str(MAX_PIXELS * 9 // 8)}  # the size can change on the way; decoders pad a little
    is_alone = threads == 1 or context.codec.canonical_name == "png"  # `decode_one` takes a frame to be its packet's
    context.thread_type, context.thread_count = ("NONE", 1) if is_alone else ("AUTO", threads)
    return stream


def sound_stream(path: str, container: InputContainer) -> Any:
    streams = list_streams(container, "audio")
    if not streams and list_streams(container, "video"):
        raise MediaError(path, "no-sound", "there is no sound in it", CHECK_FILE)
    if not streams:
        raise why_no_stream(path, "no-sound", "there is no sound in it")
    _check_codec(path, streams[0])
    context = streams[0].codec_context
    channels, rate = context.layout.nb_channels, context.sample_rate
    if channels > MOST_CHANNELS or rate > MOST_HZ:
        problem = f"it has {channels} channels at {rate} Hz, {MOST_CHANNELS} at {MOST_HZ} are the most that are read"
        raise MediaError(path, "no-decoder", problem, "Mix it down, or convert it to a usual rate")
    return streams[0]


def _check_codec(path: str, stream: Any) -> None:
    name = stream.codec_context.codec.canonical_name if stream.codec_context else "of an unknown name"
    if name not in CODECS and not name.startswith("pcm_"):
        raise why_no_decoder(path, name, better="AAC" if stream.type == "audio" else "H.264")


def read_packets(container: InputContainer, stream: Any) -> Iterator[av.Packet]:
    """Yields packets with something in them, from where the container stands, until the end or what looks like it."""
    demuxed: Any = container.demux(stream)
    form = container.format.name
    end = 0
    if form == "mp3":
        source: Any = container.file  # what reads for the decoder; a file on a disk it reads itself
        with open_bytes(source.file.path if source else container.name.removeprefix("file:")) as file:
            end = end_of_sound(file)
    try:
        for packet in demuxed:
            if end and packet.pos is not None and packet.pos >= end:
                return
            if packet.size and (form != "gif" or holds_a_picture(bytes(packet))):  # an empty one ends the decoder
                yield packet
                if form in IMAGE_CONTAINERS:  # what some tools leave behind a picture is none
                    return
    except av.FFmpegError:
        return  # the rest of the file cannot be taken apart: it ends here
    finally:
        demuxed.close()  # one that is merely dropped never gives back its packet


class Budget:
    """The pixels that one reading may decode: some for nothing and more with every byte, far more than a real video
    needs. A small file cannot keep the machine busy for minutes, and every machine refuses the same ones."""

    def __init__(self, path: str) -> None:
        self.path, self.pixels = path, FREE_PIXELS

    def spend(self, packets: Iterable[av.Packet], stream: Any) -> Iterator[av.Packet]:
        """Yields the packets until the budget is spent. Raises MediaError: too-slow."""
        context = stream.codec_context
        for packet in packets:
            if stream.type == "video":
                work = context.width * context.height
            else:
                samples = (packet.duration or 0) * (packet.time_base or 0) * (context.sample_rate or 0)
                work = int(samples) * PIXELS_FOR_A_SAMPLE
            self.pixels += (packet.size + BYTES_BESIDE_A_PACKET) * PIXELS_FOR_A_BYTE - work
            if self.pixels < 0:
                problem = "it takes far more work to decode than its size warrants, as no real video does"
                remedy = "Leave it out, or encode it again if you trust it"
                raise MediaError(self.path, "too-slow", problem, remedy, stage="decode")
            yield packet


def decode(packets: Iterable[av.Packet], stream: Any) -> Iterator[Any]:
    """Yields frames in the order of display, None for one that is lost or marked as damaged."""
    for packet in chain(packets, [None]):  # None: hand out what the decoder still holds
        yield from decode_one(packet, stream)


def decode_one(packet: av.Packet | None, stream: Any) -> list[Any]:
    """The frames that the decoder hands out for one packet; a packet that it cannot read does not end the file."""
    try:
        frames = stream.codec_context.decode(packet)
        if packet and stream.codec_context.codec.canonical_name == "png" and b"iCCP" in bytes(packet):
            frames = [_without_profile(frame) for frame in frames]
    except Exception:  # not FFmpegError alone; the next packet may be good
        return [None]
    return [None if frame.is_corrupt else frame for frame in frames]


def _without_profile(frame: Any) -> Any:
    """A frame without the profile of its colours, whose name, which PNG's decoder alone gives, PyAV frees twice:
    with the side data that `read_turn` looks at, and with the frame."""
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        graph.add("sidedata", "mode=delete:type=ICC_PROFILE"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    return graph.pull()


def read_turn(frame: Any) -> Turn:
    """The turn that makes a frame stand upright."""
    sides = (np.frombuffer(side, np.int32) for side in frame.side_data if side.type.name == "DISPLAYMATRIX")
    matrix = next(sides, None)
    return Turn() if matrix is None or len(matrix) < 9 else turn(matrix)


def upright_rgb(frame: Any, reformatter: VideoReformatter, size: tuple[int, int]) -> np.ndarray:
    """Scales, converts and turns one frame to the size it is displayed at, `(H, W, 3)` uint8."""
    turned = read_turn(frame)
    height, width = turned.turn_size(*size)
    area = Interpolation.AREA
    scaled = reformatter.reformat(frame, width, height, "rgb24", interpolation=area, threads=1)
    return turned.turn_picture(scaled.to_ndarray())
