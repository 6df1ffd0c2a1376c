"""The edge: trains on its own data and sends the hub what it learned, never what it learned from.

`App` describes a model and its data in one file; `join` lends rounds to a training script that exists already.
"""

from edge.app import App, Edge
from edge.script import join

__all__ = ["App", "Edge", "join"]
