"""What goes wrong with a volume: wrong, refused, or not to be had now. Texts are a person's, and hold no secret."""

from __future__ import annotations


class VolumeError(Exception):
    """Something is wrong with a volume by address. The text is one or two sentences for the person who asked."""


class WrongVolume(VolumeError):
    """The address or the volume behind it cannot be used, however often it is tried."""


class VolumeRefused(VolumeError):
    """The volume's server refuses to show it."""


class VolumeUnavailable(VolumeError):
    """The volume's server did not answer, or failed: it may work later."""


class VolumeDamaged(VolumeError):
    """What is stored cannot be decoded."""


def untrusted(host: str) -> WrongVolume:
    """The error for a server whose certificate this machine does not trust."""
    return WrongVolume(
        f"{host} cannot prove who it is: this machine does not trust its certificate. Whoever runs NOMADS can name the "
        "certificates to trust in SSL_CERT_FILE."
    )
