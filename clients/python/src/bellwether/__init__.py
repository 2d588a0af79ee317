"""The client of the Bellwether prediction engine.

    with bellwether.Client("http://127.0.0.1:8080") as client:
        client.features.push(customers)
        rows = client.features.training_set(observations)
"""

from ._client import Client
from ._errors import BellwetherError, ServerUnavailable
from ._features import Features, Pushed, Refused

__all__ = ["BellwetherError", "Client", "Features", "Pushed", "Refused", "ServerUnavailable"]
