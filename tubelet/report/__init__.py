"""The page and the card of a finished run."""

from tubelet.report.page import write_card, write_report

__all__ = ["write_card", "write_report"]
