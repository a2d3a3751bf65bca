"""The networks both sides train. Parameter names and shapes are part of the wire format; the only torch in `protocol`."""
