"""The networks both sides train; the only torch in `protocol`. Names and shapes are part of the wire format."""
