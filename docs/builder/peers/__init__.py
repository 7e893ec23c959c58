"""Losses of other libraries, each with how to call it and what its authors chose on purpose.

A choice is what the documentation of the peer says, or what its whole library does alike; it is
marked as a choice in the report card, and is no bug. What is left is for the reader to judge.
"""

from docs.builder.peers.audio import AUDIO
from docs.builder.peers.embeddings import EMBEDDINGS
from docs.builder.peers.images import IMAGES
from docs.builder.peers.language import LANGUAGE
from docs.builder.peers.peer import Peer

__all__ = ["PEERS", "Peer"]

PEERS: tuple[Peer, ...] = (*IMAGES, *AUDIO, *LANGUAGE, *EMBEDDINGS)
