"""From sound to a log-mel spectrogram, the picture that a spectrogram transformer looks at."""

import numpy as np

LOWEST_HZ = 20.0
PRE_EMPHASIS = 0.97
SMALLEST_POWER = float(np.finfo(np.float32).eps)


def log_mel(
    samples: np.ndarray,
    *,
    sample_rate: int = 16000,
    mel_bins: int = 128,
    window_seconds: float = 0.025,
    hop_seconds: float = 0.010,
) -> np.ndarray:
    """Turns mono sound into Kaldi's filter bank features, `(samples,) -> (mel_bins, time)` float32.

    The rule is Kaldi's `fbank` with the settings of AST (Hann window, no dither, no energy), step by step:

    1. the mean of the whole signal is removed; a signal shorter than one window is padded with zeros to one window;
    2. frames start every hop, only whole windows count: time = 1 + (samples - window) // hop;
    3. each frame: its mean is removed, pre-emphasis x[i] - 0.97 x[i-1] (x[-1] = x[0]), symmetric Hann window,
       zeros up to the next power of two, power spectrum;
    4. triangles of equal width on the scale mel(f) = 1127 ln(1 + f / 700), from 20 Hz to half the sample rate;
    5. natural logarithm, powers below 1.19e-7 (float32 epsilon) raised to it.

    As in Kaldi, a triangle narrower than the spacing of the spectrum can lie between two lines and stay empty.

    samples: `(samples,)` in [-1, 1]. Kaldi itself counts in 16-bit steps; AST does not, and nor does this.

    Raises: ValueError: the samples are not one row of numbers, or a window or hop is shorter than one sample.
    """
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"samples have shape {samples.shape}: log_mel wants mono sound, (samples,), with some in it")
    window, hop = int(sample_rate * window_seconds), int(sample_rate * hop_seconds)
    if window < 2 or hop < 1:
        raise ValueError(
            f"a window of {window_seconds} s and a hop of {hop_seconds} s are {window} and {hop} samples at "
            f"{sample_rate} Hz: pass a window of at least 2 samples and a hop of at least 1"
        )
    signal = samples.astype(np.float64)
    signal = np.pad(signal - signal.mean(), (0, max(0, window - signal.size)))
    frames = np.lib.stride_tricks.sliding_window_view(signal, window)[::hop]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - PRE_EMPHASIS * before) * np.hanning(window)
    points = 1 << (window - 1).bit_length()
    power = np.abs(np.fft.rfft(frames, points)) ** 2
    mel_power = mel_triangles(mel_bins, points=points, sample_rate=sample_rate) @ power.T
    return np.log(np.maximum(mel_power, SMALLEST_POWER)).astype(np.float32)


def mel_triangles(mel_bins: int, *, points: int, sample_rate: int) -> np.ndarray:
    """Returns the weight of each spectral line in each mel bin, `(mel_bins, points // 2 + 1)`.

    The line at half the sample rate has no weight: the last triangle ends there.
    """
    edges = np.linspace(_mel(LOWEST_HZ), _mel(sample_rate / 2), mel_bins + 2)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    lines = _mel(np.arange(points // 2 + 1) * (sample_rate / points))
    rising, falling = (lines - left) / (centre - left), (right - lines) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling))


def _mel(frequency_hz: np.ndarray | float) -> np.ndarray:
    return 1127.0 * np.log1p(np.asarray(frequency_hz) / 700.0)
