"""What a shop's own program needs to ask its edge: `from edge.client import Edge`."""

from edge.client.calling import EdgeError as EdgeError
from edge.client.edge import Edge as Edge
