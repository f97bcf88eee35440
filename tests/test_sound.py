"""The log-mel spectrogram against a slow one written out in sums, and laws of hearing."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from media_files import write_numbered, write_sound
from naming import naming

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import views
from tubelet.media.health import examine
from tubelet.media.reader import MediaError, av, index, read_frames, read_sound, read_sounds
from tubelet.media.spectrogram import log_mel


def tone(frequency_hz: float, *, seconds: float = 1.0, sample_rate: int = 16000) -> np.ndarray:
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    return (0.5 * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)


def mel(frequency_hz: float) -> float:
    return 1127 * math.log(1 + frequency_hz / 700)


def slow_log_mel(samples, *, sample_rate, mel_bins, window, hop):
    """One number after another: explicit Fourier sums, explicit triangles."""
    signal = [float(sample) for sample in samples]
    mean = sum(signal) / len(signal)
    signal = [sample - mean for sample in signal]
    signal += [0.0] * (window - len(signal))
    points = 2
    while points < window:
        points *= 2
    low, high = mel(20), mel(sample_rate / 2)
    step = (high - low) / (mel_bins + 1)
    columns = []
    for start in range(0, len(signal) - window + 1, hop):
        frame = signal[start : start + window]
        frame = [sample - sum(frame) / window for sample in frame]
        frame = [frame[i] - 0.97 * frame[max(i - 1, 0)] for i in range(window)]
        frame = [frame[i] * (0.5 - 0.5 * math.cos(2 * math.pi * i / (window - 1))) for i in range(window)]
        power = []
        for line in range(points // 2 + 1):
            real = sum(frame[i] * math.cos(2 * math.pi * line * i / points) for i in range(window))
            imaginary = sum(frame[i] * math.sin(2 * math.pi * line * i / points) for i in range(window))
            power.append(real**2 + imaginary**2)
        column = []
        for place in range(mel_bins):
            left, centre, right = (low + (place + k) * step for k in range(3))
            total = 0.0
            for line in range(points // 2 + 1):
                pitch = mel(line * sample_rate / points)
                if left < pitch <= centre:
                    total += power[line] * (pitch - left) / (centre - left)
                elif centre < pitch < right:
                    total += power[line] * (right - pitch) / (right - centre)
            column.append(math.log(max(total, 2.0**-23)))
        columns.append(column)
    return np.array(columns).T


@pytest.mark.parametrize(("length", "window", "hop", "mel_bins"), [(150, 50, 20, 6), (64, 64, 16, 10), (20, 50, 20, 6)])
def test_log_mel_agrees_with_the_slow_way(length, window, hop, mel_bins):
    samples = np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)
    fast = log_mel(samples, sample_rate=2000, mel_bins=mel_bins, window_seconds=window / 2000, hop_seconds=hop / 2000)
    slow = slow_log_mel(samples, sample_rate=2000, mel_bins=mel_bins, window=window, hop=hop)
    assert fast.dtype == np.float32
    assert fast.shape == slow.shape
    np.testing.assert_allclose(fast, slow, atol=1e-4)


@pytest.mark.parametrize("frequency_hz", [312.5, 437.5, 1000, 2500, 6000])
def test_a_tone_lights_up_its_bin(frequency_hz):
    spectrogram = log_mel(tone(frequency_hz))
    assert spectrogram.shape == (128, 98)
    expected = (mel(frequency_hz) - mel(20)) / (mel(8000) - mel(20)) * 129 - 1
    assert abs(int(spectrogram.mean(axis=1).argmax()) - expected) <= 1


def test_twice_as_loud_is_the_same_step_everywhere():
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, 8000).astype(np.float32)
    quiet, loud = log_mel(noise), log_mel(2 * noise)
    heard = quiet > -10
    assert heard.mean() > 0.8
    np.testing.assert_allclose((loud - quiet)[heard], math.log(4), atol=1e-3)


def test_a_constant_is_silence():
    floor = math.log(2.0**-23)
    np.testing.assert_allclose(log_mel(np.full(4000, 0.7, np.float32)), floor, atol=1e-5)


def test_one_hop_later_is_one_column_later():
    noise = np.random.default_rng(1).uniform(-1, 1, 16000).astype(np.float32)
    noise -= noise.mean()
    np.testing.assert_allclose(log_mel(noise)[:, 1:], log_mel(noise[160:]), atol=1e-2)


@pytest.mark.parametrize(("samples", "columns"), [(1, 1), (399, 1), (400, 1), (559, 1), (560, 2), (16000, 98)])
def test_only_whole_windows_count(samples, columns):
    assert log_mel(np.ones(samples, np.float32)).shape == (128, columns)


@pytest.mark.parametrize(
    ("call", "values"),
    [
        (lambda: log_mel(np.zeros((2, 100), np.float32)), ("(2, 100)", "mono")),
        (lambda: log_mel(np.zeros(0, np.float32)), ("(0,)", "mono")),
        (lambda: log_mel(np.zeros(9, np.float32), hop_seconds=0), ("0 samples", "16000 Hz")),
        (lambda: read_sound("x", sample_rate=8000, start_seconds=-1), ("start -1 s",)),
        (lambda: read_sound("x", sample_rate=8000, seconds=0), ("length 0 s",)),
    ],
)
def test_errors(call, values):
    with pytest.raises(ValueError, match=naming(*values)):
        call()


def test_wav_comes_back_as_written(tmp_path):
    samples = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    write_sound(tmp_path / "noise.wav", samples, sample_rate=8000)
    back = read_sound(tmp_path / "noise.wav", sample_rate=8000)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, samples, atol=1e-4)
    found = index(tmp_path / "noise.wav")
    assert (found.kind, found.duration_seconds, len(found.times), found.height, found.width) == (
        "sound",
        0.625,
        0,
        0,
        0,
    )


def test_aiff_is_read(tmp_path):
    samples = np.sin(np.arange(8000) / 7).astype(np.float32) / 2
    with av.open(str(tmp_path / "a.aiff"), "w") as container:
        stream = container.add_stream("pcm_s16be", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert index(tmp_path / "a.aiff").kind == "sound"
    assert np.abs(read_sound(tmp_path / "a.aiff", sample_rate=8000) - samples).max() < 1e-4


def test_a_cut_is_a_slice_of_the_whole(tmp_path):
    write_sound(tmp_path / "noise.wav", np.random.default_rng(0).uniform(-1, 1, 44100), sample_rate=44100)
    whole = read_sound(tmp_path / "noise.wav", sample_rate=16000)
    assert len(whole) == pytest.approx(16000, abs=1)
    cut = read_sound(tmp_path / "noise.wav", sample_rate=16000, start_seconds=0.25, seconds=0.5)
    assert (cut == whole[4000:12000]).all()
    tail = read_sound(tmp_path / "noise.wav", sample_rate=16000, start_seconds=0.75, seconds=9)
    assert (tail == whole[12000:]).all()
    assert len(read_sound(tmp_path / "noise.wav", sample_rate=16000, start_seconds=5)) == 0
    spans = [(0.75, 9), (0.25, 0.5), (5, 1), (0.3, 0.01), (0.0, None)]  # that overlap, in any order
    parts = read_sounds(tmp_path / "noise.wav", sample_rate=16000, spans=spans)
    expected = [whole[12000:], whole[4000:12000], whole[:0], whole[4800:4960], whole]
    assert all(np.array_equal(one, other) for one, other in zip(parts, expected, strict=True))


def loudest_hz(samples: np.ndarray, sample_rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax()) * sample_rate / len(samples)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.flac", "flac"), ("a.mp3", "libmp3lame"), ("a.ogg", "libopus"), ("a.m4a", "aac")]
)
def test_coded_stereo_becomes_mono_at_the_wanted_rate(tmp_path, name, codec):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="stereo")
        both = np.stack([tone(440, sample_rate=48000)] * 2)
        frame = av.AudioFrame.from_ndarray(both, format="fltp", layout="stereo")
        frame.sample_rate = 48000
        resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=48000)
        for piece in resampler.resample(frame):
            container.mux(stream.encode(piece))
        container.mux(stream.encode())
    samples = read_sound(path, sample_rate=16000)
    assert len(samples) == pytest.approx(16000, abs=1200)  # coders pad
    assert loudest_hz(samples, 16000) == pytest.approx(440, abs=2)
    assert np.abs(samples[4000:12000]).max() == pytest.approx(0.5, abs=0.05)
    assert index(path).kind == "sound"
    assert index(path).duration_seconds == pytest.approx(1, abs=0.08)


def test_a_video_has_sound_and_pictures(tmp_path):
    path = write_numbered(tmp_path / "talk.mp4", 50, sound_hz=1000)
    assert index(path).kind == "video"
    samples = read_sound(path, sample_rate=8000, start_seconds=0.5, seconds=1)
    assert samples.shape == (8000,)
    assert loudest_hz(samples, 8000) == pytest.approx(1000, abs=2)


def test_sound_without_pictures_and_pictures_without_sound(tmp_path):
    write_sound(tmp_path / "a.wav", tone(440), sample_rate=16000)
    with pytest.raises(MediaError, match=naming(tmp_path / "a.wav", "read_sound")) as caught:
        read_frames(tmp_path / "a.wav", np.array([0.0]))
    assert caught.value.code == "no-picture"
    silent = write_numbered(tmp_path / "silent.mp4", 5)
    with pytest.raises(MediaError, match=naming(silent)) as caught:
        read_sound(silent, sample_rate=16000)
    assert caught.value.code == "no-sound"


# ---- many channels, few samples, changes on the way: what the check calls sound, the reader reads


def write_channels(path: Path, samples: np.ndarray, codec: str, layout: str, *, rate: int = 16000) -> Path:
    """samples: float32 `(channels, samples)`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        packed = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "layout", "channels"),
    [
        ("a.flac", "flac", "7.1", 8),
        ("a.wav", "pcm_s16le", "16 channels", 16),
        ("a.wav", "pcm_f32le", "64 channels", 64),
        ("a.opus", "libopus", "7.1", 8),
        ("a.flac", "flac", "5.1", 6),
        ("a.wav", "pcm_s16le", "stereo", 2),
    ],
)
def test_many_channels_become_their_mean(tmp_path, name, codec, layout, channels):
    rate = 48000 if codec == "libopus" else 16000
    times, pitches = np.arange(rate) / rate, 200 + 30 * np.arange(channels)[:, None]
    samples = (0.9 * np.sin(2 * np.pi * pitches * times)).astype(np.float32)
    path = write_channels(tmp_path / name, samples, codec, layout, rate=rate)
    assert (examine(path).ok, examine(path).kind) == (True, "sound")
    found = read_sound(path, sample_rate=rate)
    if codec == "libopus":  # coded with a loss
        assert np.abs(found[: len(times)] - samples.mean(0)).max() < 0.1
    else:
        np.testing.assert_allclose(found, samples.mean(0), atol=1e-4)
        np.testing.assert_allclose(
            read_sound(path, sample_rate=8000)[100:-100], samples.mean(0)[::2][100:-100], atol=5e-3
        )


def test_more_channels_than_can_be_mixed_are_refused_by_check_and_reader(tmp_path):
    wide = struct.pack("<HHIIHH", 1, 65, 16000, 16000 * 130, 130, 16)
    data = bytes(130 * 100)
    head = b"WAVEfmt " + struct.pack("<I", len(wide)) + wide + b"data" + struct.pack("<I", len(data)) + data
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(head)) + head)
    assert examine(tmp_path / "a.wav").code == "no-decoder"
    with pytest.raises(MediaError) as caught:
        read_sound(tmp_path / "a.wav", sample_rate=16000)
    assert caught.value.code == "no-decoder"


def without_head(flac: bytes) -> bytes:
    """The frames alone."""
    place, is_last = 4, False
    while not is_last:
        is_last = bool(flac[place] & 0x80)
        place += 4 + int.from_bytes(flac[place + 1 : place + 4])
    return flac[place:]


def test_channels_that_change_on_the_way(tmp_path):
    """As in a recording that was glued together, or a stream of a radio."""
    one, two = tone(440)[None], np.stack([tone(700), tone(300)])
    first = write_channels(tmp_path / "a.flac", one, "flac", "mono").read_bytes()
    second = write_channels(tmp_path / "b.flac", two, "flac", "stereo").read_bytes()
    (tmp_path / "both.flac").write_bytes(first + without_head(second) + without_head(first))
    assert examine(tmp_path / "both.flac").ok
    found = read_sound(tmp_path / "both.flac", sample_rate=16000)
    np.testing.assert_allclose(found, np.concatenate([one[0], two.mean(0), one[0]]), atol=1e-4)


CODERS = {  # suffix -> coder, rates that it takes
    "wav": ("pcm_s16le", (8000, 44100, 192000)),
    "aiff": ("pcm_s16be", (22050,)),
    "flac": ("flac", (8000, 48000, 96000)),
    "mp3": ("libmp3lame", (16000, 44100)),
    "ogg": ("flac", (22050,)),
    "opus": ("libopus", (48000,)),
    "m4a": ("aac", (8000, 48000)),
    "aac": ("aac", (16000,)),
    "wma": ("wmav2", (44100,)),
    "mka": ("ac3", (48000,)),
}


@pytest.mark.parametrize("suffix", CODERS)
@pytest.mark.parametrize("count", [1, 5, 100, 1152])
def test_check_and_reader_agree(tmp_path, suffix, count):
    """However short: whole, cut anywhere, or without one of its bytes."""
    coder, rates = CODERS[suffix]
    box = {"resize": (16, 32), "crop": (16, 32), "mean": (-4.0,), "std": (4.0,)}
    spec = ClipSpec(kind="sound", frames=1, seconds_between_frames=0.01, channels="mel", **box)
    for rate in rates:
        for layout, channels in (("mono", 1), ("stereo", 2)):
            noise = np.random.default_rng(count).uniform(-0.5, 0.5, (channels, count)).astype(np.float32)
            path = tmp_path / f"a.{suffix}"
            try:
                data = write_channels(path, noise, coder, layout, rate=rate).read_bytes()
            except av.FFmpegError:  # a coder that takes no less than a whole packet
                continue
            for end, without in ((len(data), None), (len(data) - 1, None), (len(data) * 2 // 3, None), (len(data), 2)):
                edited = bytearray(data[:end])
                if without is not None:
                    edited[-len(edited) // without] ^= 0xFF
                path.write_bytes(edited)
                verdicts = {examine(path).usable, examine(path, quick=True).usable}
                for wanted in (8000, 16000, 48000):
                    try:
                        verdicts.add(len(read_sound(path, sample_rate=wanted)) > 0)
                    except MediaError:
                        verdicts.add(False)
                assert len(verdicts) == 1, (rate, layout, end, without, examine(path))
                if verdicts == {True}:
                    assert views(path, spec).shape == (1, 1, 1, 16, 32)
