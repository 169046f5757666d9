"""Search end to end: encode a query, search an index, attach confidences."""
