"""The one exception for what cannot be read."""

from tubelet.system.text import visible


class MediaError(ValueError):
    """A file that cannot be read as asked: "PATH: what is wrong. What to do."

    `code` is stable: missing, not-a-file, unreadable, empty, blocked, no-decoder, no-moov, truncated, not-video,
    no-picture, no-sound, too-big, too-slow, no-frames, damaged, decoder-crash; of a file elsewhere also no-answer,
    refused, changed. `stage` is how far the reader came: "open" (the file and its header), "list" (the packets) or
    "decode" (the frames).
    """

    def __init__(self, path: str, code: str, problem: str, remedy: str, *, stage: str = "open") -> None:
        super().__init__(path, code, problem, remedy)
        self.path, self.code, self.problem, self.remedy, self.stage = path, code, problem, remedy, stage

    def __str__(self) -> str:
        return f"{visible(self.path)}: {self.message}"

    def again(self) -> "MediaError":
        """The same anew, to be raised where this one was raised before: it would drag along what it met there."""
        return MediaError(self.path, self.code, self.problem, self.remedy, stage=self.stage)

    @property
    def message(self) -> str:
        """The problem and the remedy, without the path."""
        return f"{self.problem}. {self.remedy}."
