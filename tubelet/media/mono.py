"""Sound of any number of channels, at any rate, as one channel at the wanted rate."""

import sys
from collections.abc import Iterable, Iterator
from itertools import chain, groupby

import numpy as np

from tubelet.media.decoder import av

FILTER_SAMPLES, FILTER_SECONDS = 64, 0.05  # more than the resampler ever holds back


def mono(frames: Iterable[av.AudioFrame], *, sample_rate: int) -> Iterator[np.ndarray]:
    """The mean of the channels, resampled: float32 `(samples,)`, piece by piece; of any sound at least one sample.

    The number of channels, the rate and the kind of samples may change on the way.
    """
    for rate, alike in groupby(_means(frames), lambda frame: frame.sample_rate):
        resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate)
        heard, done, most = 0, 0, sys.maxsize  # samples at the rate of the file; at the wanted rate
        for frame in chain(alike, [None]):  # None: hand out what the resampler still holds
            given = [frame]
            if frame is not None:
                heard += frame.samples
            elif not done:  # it is shorter than the filter of the resampler: as if silence followed
                silence = np.zeros(FILTER_SAMPLES + int(FILTER_SECONDS * rate), np.float32)
                given = [_one_channel(silence, rate), None]
                most = max(1, round(heard * sample_rate / rate))
            for piece in (piece for one in given for piece in resampler.resample(one)):
                yield piece.to_ndarray()[0, : max(0, most - done)]
                done += piece.samples


def _means(frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """Frames of one channel, the mean of all: FFmpeg's own mixing down can overflow."""
    for _, alike in groupby(frames, lambda frame: (frame.format.name, frame.layout.name, frame.sample_rate)):
        packer = av.AudioResampler(format="flt")  # PyAV cannot take planes apart beyond the eighth
        for frame in chain(alike, [None]):
            if frame is not None:
                frame.pts = None  # samples follow each other; a jump of the clock must not upset the resampler
            for packed in packer.resample(frame):
                channels = packed.to_ndarray().reshape(packed.samples, -1).T
                yield _one_channel(np.asarray(sum(channels) / len(channels)), packed.sample_rate)


def _one_channel(samples: np.ndarray, rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate = rate
    return frame
